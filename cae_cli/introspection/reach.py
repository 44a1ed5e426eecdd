"""Pixels that nothing in a network reads, and pixels of the output that the image cannot change.

A stride larger than its kernel jumps over pixels, and what a pooling cuts off nothing sees. Both follow
from the layers alone: which positions of a tensor touch which of the next, with weights of any value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.introspection.graph import Graph
from cae_cli.introspection.keras_internals import Step
from cae_cli.introspection.layers import (
    DENSE,
    MERGES,
    NOISES,
    NORMS,
    POOL_ALL,
    Layer,
    Tensor,
    activation_of,
    is_a,
    weights_of,
)
from cae_cli.introspection.receptive_field import Taps, taps_of

Mask = NDArray[np.bool_]  # of a tensor without the batch; its last axis is 1: it counts as a whole

IN_PLACE = MERGES | NORMS | NOISES | {"Identity", "ActivityRegularization", "Rescaling"}


@dataclass(frozen=True)
class Reach:
    """What touches what.

    Attributes:
        unread: (h, w) pixels of the image on which no value of the output depends.
        unreached: (h, w) pixels of the output that depend on no pixel of the image.
        is_exact: every layer is known; where one is not, it counts as one that reads everything.
        skipping: names of the layers whose stride is larger than their window.
    """

    unread: Mask
    unreached: Mask
    is_exact: bool
    skipping: tuple[str, ...]


def reach_of(graph: Graph) -> Reach:
    """The reach of a network from its image to its first output."""
    image, output = graph.inputs[0], graph.outputs[0]
    links = [(step, _link(step)) for step in graph.steps]
    reached = {id(image): np.ones(_mask_shape(image), bool)}
    for step, link in links:
        for y in step.outputs:
            mask = np.zeros(_mask_shape(y), bool)
            for x in step.inputs:
                mask |= link.forward(x, y, reached[id(x)])
            reached[id(y)] = mask
    read = {id(output): np.ones(_mask_shape(output), bool)}
    for step, link in reversed(links):
        for y in step.outputs:
            for x in step.inputs if id(y) in read else ():
                mask = link.backward(x, y, read[id(y)])
                read[id(x)] = read[id(x)] | mask if id(x) in read else mask
    skipping = tuple(
        step.operation.name
        for step in graph.steps
        if len(step.inputs[0].shape) == len(step.outputs[0].shape) == 4
        and any(t is not None and t.stride > (t.count - 1) * t.apart + 1 for t in _taps(step))
    )
    return Reach(
        unread=~read[id(image)][..., 0],
        unreached=~reached[id(output)][..., 0],
        is_exact=all(link is not UNKNOWN for _, link in links),
        skipping=skipping,
    )


def _taps(step: Step) -> list[Taps | None]:
    x, y = step.inputs[0], step.outputs[0]
    return [taps_of(step.operation, axis, x, y) for axis in (0, 1)]


def _mask_shape(x: Tensor) -> tuple[int, ...]:
    return (*(n or 1 for n in x.shape[1:-1]), 1)  # an axis of unknown length counts as a whole


@dataclass(frozen=True)
class _Link:
    """How masks pass a layer, each from (input, output, mask of one) to the mask of the other."""

    forward: Callable[[Tensor, Tensor, Mask], Mask]
    backward: Callable[[Tensor, Tensor, Mask], Mask]


def _all_of(shape: tuple[int, ...], mask: Mask) -> Mask:
    return np.full(shape, mask.any())


def _reshaped(mask: Mask, old: Tensor, new: Tensor) -> Mask:
    full = np.broadcast_to(mask, old.shape[1:])
    return np.asarray(full.reshape(new.shape[1:]).any(axis=-1, keepdims=True))


def _reduced(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """The mask of what was broadcast to another shape with as many axes."""
    wider = tuple(i for i, (n, m) in enumerate(zip(mask.shape, shape, strict=True)) if n != m)
    return np.asarray(mask.any(axis=wider, keepdims=True))


ALL = _Link(
    lambda x, y, mask: _all_of(_mask_shape(y), mask), lambda x, y, mask: _all_of(_mask_shape(x), mask)
)
UNKNOWN = _Link(ALL.forward, ALL.backward)
IN_SHAPE = _Link(lambda x, y, mask: _reshaped(mask, x, y), lambda x, y, mask: _reshaped(mask, y, x))
PLACE = _Link(
    lambda x, y, mask: np.broadcast_to(mask, _mask_shape(y)),
    lambda x, y, mask: _reduced(mask, _mask_shape(x)),
)


def _link(step: Step) -> _Link:
    operation, x, y = step.operation, step.inputs[0], step.outputs[0]
    if any(None in z.shape[1:] for z in (*step.inputs, *step.outputs)):
        return UNKNOWN
    if is_a(operation, DENSE) and len(x.shape) == len(y.shape):
        return PLACE  # the same at every position; a flat input has one
    if is_a(operation, POOL_ALL):
        return ALL
    if is_a(operation, {"Flatten", "Reshape", "ExpandDims", "Squeeze"}):
        return IN_SHAPE
    if len(x.shape) == len(y.shape) == 4 and (sliding := _sliding(step)) is not None:
        return sliding
    known = is_a(operation, IN_PLACE) or activation_of(operation) is not None
    same_rank = all(len(z.shape) == len(y.shape) for z in step.inputs)
    if is_a(operation, {"Concatenate"}) and operation.axis not in (-1, len(y.shape) - 1):
        return UNKNOWN
    # Arithmetic of keras.ops, custom sampling layers: without weights, every value stays in place.
    in_place = all(z.shape == y.shape for z in step.inputs) and not weights_of(operation)
    return PLACE if same_rank and (known or in_place) else UNKNOWN


def _sliding(step: Step) -> _Link | None:
    """Of a layer that slides a window over rows and columns; None for another one."""
    operation = step.operation
    grows = is_a(operation, {"Conv2DTranspose", "UpSampling2D", "ZeroPadding2D"})
    taps = [_shift(operation, axis) for axis in (0, 1)]
    if not all(taps):
        taps = _taps(step)
    if not all(taps):
        return None

    def gathered(large: Mask, small: Tensor) -> Mask:
        for axis, tap in enumerate(taps):
            assert tap is not None
            large = _gathered(large, tap, small.shape[1 + axis], axis)
        return large

    def scattered(small: Mask, large: Tensor) -> Mask:
        for axis, tap in enumerate(taps):
            assert tap is not None
            small = _scattered(small, tap, large.shape[1 + axis], axis)
        return small

    if grows:
        return _Link(lambda x, y, mask: scattered(mask, y), lambda x, y, mask: gathered(mask, x))
    return _Link(lambda x, y, mask: gathered(mask, y), lambda x, y, mask: scattered(mask, x))


def _shift(operation: Layer, axis: int) -> Taps | None:
    """Of a layer without a kernel that moves or repeats values."""
    if is_a(operation, {"ZeroPadding2D"}):
        return Taps(1, 1, 1, -operation.padding[axis][0])
    if is_a(operation, {"Cropping2D"}):
        return Taps(1, 1, 1, -operation.cropping[axis][0])
    if is_a(operation, {"UpSampling2D"}):
        size = operation.size[axis]
        if operation.interpolation == "nearest":
            return Taps(size, size, 1, 0)
        return Taps(2 * size, size, 1, (size + 1) // 2)  # from its neighbours as well
    return None


def _places(taps: Taps, tap: int, small: int, large: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of the smaller grid and what they touch with one tap, inside of both."""
    here = np.arange(small)
    there = here * taps.stride - taps.before + tap * taps.apart
    inside = (there >= 0) & (there < large)
    return here[inside], there[inside]


def _gathered(large: Mask, taps: Taps, small: int, axis: int) -> Mask:
    """Along one axis: whether any of the values that a place of the smaller grid touches is set."""
    moved = np.moveaxis(large, axis, 0)
    found = np.zeros((small, *moved.shape[1:]), bool)
    for tap in range(taps.count):
        here, there = _places(taps, tap, small, len(moved))
        found[here] |= moved[there]
    return np.moveaxis(found, 0, axis)


def _scattered(small: Mask, taps: Taps, large: int, axis: int) -> Mask:
    """Along one axis: whether any place of the smaller grid that touches a value is set."""
    moved = np.moveaxis(small, axis, 0)
    found = np.zeros((large, *moved.shape[1:]), bool)
    for tap in range(taps.count):
        here, there = _places(taps, tap, len(moved), large)
        found[there] |= moved[here]
    return np.moveaxis(found, 0, axis)
