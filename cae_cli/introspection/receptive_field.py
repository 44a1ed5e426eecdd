"""What a value inside the network sees of the image, layer by layer."""

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
class Window:
    """Along one axis: value i of ``count`` depends on pixels low + i * jump to high + i * jump."""

    low: float
    high: float
    jump: float
    count: int

    def wider(self, before: float, after: float, jump: float, count: int) -> Window:
        """Of values that depend on ``before`` more values in front and ``after`` behind."""
        return Window(self.low - before * self.jump, self.high + after * self.jump, jump, count)

    def all(self) -> Window:
        """Of a value that depends on all values."""
        return Window(self.low, self.high + (self.count - 1) * self.jump, 0, 1)

    def __or__(self, other: Window) -> Window:
        if self.jump != other.jump:
            return self.all() | other.all()
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Window(low, high, self.jump, max(self.count, other.count))

    def start(self, place: int) -> int:
        """The first pixel that the value at a place depends on; below 0 outside of the image."""
        return math.ceil(self.low + place * self.jump)

    @property
    def length(self) -> int:
        """Pixels that a value depends on, inside and outside of the image; the most of all values."""
        lengths = (math.floor(self.high + i * self.jump) - self.start(i) + 1 for i in range(self.count))
        return max(1, max(lengths, default=1))

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
    field = windows_of(graph, image)[id(latent)]
    return field and (field[0].size(image.shape[1]), field[1].size(image.shape[2]))


def windows_of(graph: Graph, image: Tensor) -> dict[int, tuple[Window, Window] | None]:
    """Along both axes, what each tensor by its id sees of the image; None: a layer is not known."""
    views: dict[int, tuple[Window, Window] | None] = {
        id(image): (Window(0, 0, 1, image.shape[1]), Window(0, 0, 1, image.shape[2]))
    }
    for step in graph.steps:
        before = [views.get(id(x)) for x in step.inputs]
        view: tuple[Window, Window] | None = None
        if all(v is not None for v in before):
            pairs = [_see(step, axis, [v[axis] for v in before if v is not None]) for axis in (0, 1)]
            if pairs[0] is not None and pairs[1] is not None:
                view = pairs[0], pairs[1]
        views |= {id(x): view for x in step.outputs}
    return views


def _see(step: Step, axis: int, views: list[Window]) -> Window | None:
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
        return view.wider((k - 1 - cut) / s, cut / s, view.jump / s, size)
    if grid and (is_convolution(operation) or is_a(operation, POOLS)):
        if is_a(operation, POOLS):
            k = operation.pool_size[axis]
        else:
            k = (operation.kernel_size[axis] - 1) * operation.dilation_rate[axis] + 1
        s = operation.strides[axis]
        missing = max((size - 1) * s + k - int(x.shape[1 + axis]), 0)
        before = missing // 2 if operation.padding == "same" else 0
        return view.wider(before, k - 1 - before, view.jump * s, size)
    if grid and is_a(operation, {"ZeroPadding2D", "Cropping2D"}):
        sign = 1 if is_a(operation, {"ZeroPadding2D"}) else -1
        shift = sign * getattr(operation, "padding" if sign == 1 else "cropping")[axis][0]
        return view.wider(shift, -shift, view.jump, size)
    if grid and is_a(operation, {"UpSampling2D"}):
        s, reach = operation.size[axis], int(operation.interpolation != "nearest")
        return view.wider((s - 1) / s + reach, reach, view.jump / s, size)
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
