"""The receptive field of the latent code, layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cae_cli.introspection.graph import Graph
from cae_cli.introspection.keras_internals import Step
from cae_cli.introspection.layers import (
    DENSE,
    MERGES,
    NOISES,
    NORMS,
    POOL_ALL,
    POOLS,
    Tensor,
    activation_of,
    is_a,
    is_convolution,
    weights_of,
)


@dataclass(frozen=True)
class _View:
    """Along one axis: value i of ``count`` depends on pixels low + i * jump to high + i * jump."""

    low: float
    high: float
    jump: float
    count: int

    def window(self, before: float, after: float, jump: float, count: int) -> _View:
        """Of values that depend on ``before`` more values in front and ``after`` behind."""
        return _View(self.low - before * self.jump, self.high + after * self.jump, jump, count)

    def all(self) -> _View:
        """Of a value that depends on all values."""
        return _View(self.low, self.high + (self.count - 1) * self.jump, 0, 1)

    def __or__(self, other: _View) -> _View:
        if self.jump != other.jump:
            return self.all() | other.all()
        low, high = min(self.low, other.low), max(self.high, other.high)
        return _View(low, high, self.jump, max(self.count, other.count))

    def size(self, side: int) -> int:
        """Pixels of the image in the largest receptive field."""
        sizes = (
            math.floor(min(self.high + i * self.jump, side - 1))
            - math.ceil(max(self.low + i * self.jump, 0))
            + 1
            for i in range(self.count)
        )
        return max(0, max(sizes, default=0))


def field_of(graph: Graph, image: Tensor, latent: Tensor) -> tuple[int, int] | None:
    """(h, w) of the largest receptive field in pixels; None: a layer is not known."""
    views: dict[int, tuple[_View, _View] | None] = {
        id(image): (_View(0, 0, 1, image.shape[1]), _View(0, 0, 1, image.shape[2]))
    }
    inside = graph.before(latent)
    for step in graph.steps:
        if step not in inside:
            continue
        before = [views[id(x)] for x in step.inputs]
        view: tuple[_View, _View] | None = None
        if all(v is not None for v in before):
            pairs = [_see(step, axis, [v[axis] for v in before if v is not None]) for axis in (0, 1)]
            if pairs[0] is not None and pairs[1] is not None:
                view = pairs[0], pairs[1]
        views |= {id(x): view for x in step.outputs}
    field = views[id(latent)]
    return field and (field[0].size(image.shape[1]), field[1].size(image.shape[2]))


def _see(step: Step, axis: int, views: list[_View]) -> _View | None:
    """The view of the step's output; None for a layer that is not known."""
    operation, x, y = step.operation, step.inputs[0], step.outputs[0]
    view = views[0]
    for other in views[1:]:
        view = view | other
    grid = len(x.shape) == 4 and len(y.shape) == 4
    if is_a(operation, {"Dense"}) and len(x.shape) > 2:
        return view  # the same at every position
    if is_a(operation, POOL_ALL | DENSE):
        return view.all()
    size = int(y.shape[1 + axis]) if grid else 0
    if grid and is_a(operation, {"Conv2DTranspose"}):
        k, s = operation.kernel_size[axis], operation.strides[axis]
        k = (k - 1) * operation.dilation_rate[axis] + 1
        cut = max(k - s, 0) // 2 if operation.padding == "same" else 0
        return view.window((k - 1 - cut) / s, cut / s, view.jump / s, size)
    if grid and (is_convolution(operation) or is_a(operation, POOLS)):
        if is_a(operation, POOLS):
            k = operation.pool_size[axis]
        else:
            k = (operation.kernel_size[axis] - 1) * operation.dilation_rate[axis] + 1
        s = operation.strides[axis]
        missing = max((size - 1) * s + k - int(x.shape[1 + axis]), 0)
        before = missing // 2 if operation.padding == "same" else 0
        return view.window(before, k - 1 - before, view.jump * s, size)
    if grid and is_a(operation, {"ZeroPadding2D", "Cropping2D"}):
        sign = 1 if is_a(operation, {"ZeroPadding2D"}) else -1
        shift = sign * getattr(operation, "padding" if sign == 1 else "cropping")[axis][0]
        return view.window(shift, -shift, view.jump, size)
    if grid and is_a(operation, {"UpSampling2D"}):
        s, reach = operation.size[axis], int(operation.interpolation != "nearest")
        return view.window((s - 1) / s + reach, reach, view.jump / s, size)
    if is_a(operation, {"Flatten", "Reshape", "Permute", "ExpandDims", "Squeeze"}):
        return view
    known = is_a(
        operation, MERGES | NORMS | NOISES | {"Identity", "ActivityRegularization", "Rescaling"}
    )
    if known or activation_of(operation) is not None:
        return view
    # Arithmetic of keras.ops, custom sampling layers: without weights, every value stays in place.
    same = all(v.shape == y.shape for v in step.inputs)
    return view if same and not weights_of(operation) else None
