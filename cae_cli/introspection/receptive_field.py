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
    Layer,
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


@dataclass(frozen=True)
class Taps:
    """Along one axis: value i of the smaller grid touches stride * i - before + apart * t of the larger.

    For t below ``count``. The larger grid is the input of a convolution or a pooling, and the output of
    a transposed convolution.
    """

    count: int
    stride: int
    apart: int
    before: int


def taps_of(operation: Layer, axis: int, x: Tensor, y: Tensor) -> Taps | None:
    """Which values a layer that slides a window connects; None for other layers, and unknown lengths.

    Args:
        operation: the layer.
        axis: 0 for rows, 1 for columns.
        x: its input, (n, h, w, c).
        y: its output.
    """
    if is_convolution(operation):
        count, apart = operation.kernel_size[axis], operation.dilation_rate[axis]
    elif is_a(operation, POOLS):
        count, apart = operation.pool_size[axis], 1
    else:
        return None
    small, large = (z.shape[1 + axis] for z in (y, x))
    if is_a(operation, {"Conv2DTranspose"}):
        small, large = large, small
    if small is None or large is None:
        return None
    stride, length = operation.strides[axis], (count - 1) * apart + 1
    missing = max((small - 1) * stride + length - large, 0)
    return Taps(count, stride, apart, missing // 2 if operation.padding == "same" else 0)


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
    if any(None in z.shape[1:] for z in (*step.inputs, *step.outputs)):
        return None
    view = views[0]
    for other in views[1:]:
        view = view | other
    grid = len(x.shape) == 4 and len(y.shape) == 4
    if is_a(operation, {"Dense"}) and len(x.shape) > 2:
        return view  # the same at every position
    if is_a(operation, POOL_ALL | DENSE):
        return view.all()
    size = int(y.shape[1 + axis]) if grid else 0
    if grid and (taps := taps_of(operation, axis, x, y)) is not None:
        k, s, before = (taps.count - 1) * taps.apart + 1, taps.stride, taps.before
        if is_a(operation, {"Conv2DTranspose"}):
            return view.wider((k - 1 - before) / s, before / s, view.jump / s, size)
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
