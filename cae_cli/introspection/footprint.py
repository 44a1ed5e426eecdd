"""The memory that a network needs for one image, found without computing anything.

TensorFlow traces the network for a batch of one and infers the shape of every tensor, also of those
inside a layer that is made of others, and of those that mix the images of a batch. With another library
only the outputs of the layers are known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cae_cli.introspection.autoencoder import Autoencoder
from cae_cli.introspection.computing import on_tensorflow
from cae_cli.introspection.graph import Graph, replay
from cae_cli.introspection.layers import Layer, Tensor, size_of

# Operations of TensorFlow whose output is their input.
SAME = {"Identity", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "PreventGradient", "Bitcast"}
# Their output can be a view of their input, or become a part of the operation behind them.
VIEWS = {"Slice", "StridedSlice", "Split", "SplitV", "Unpack", "Pad", "PadV2", "BroadcastTo"}
# The process holds their output already.
HELD = {"ReadVariableOp", "Const", "Placeholder", "VarHandleOp"}


@dataclass(frozen=True)
class Footprint:
    """What the operation that needs most memory needs for one image.

    Attributes:
        needed: bytes that it reads and writes: a lower bound, as it may have temporary buffers.
        layer: name of the layer that makes the largest tensor of those.
        shape: of this tensor, without the axis of the batch.
    """

    needed: int
    layer: str
    shape: tuple[int, ...]


def footprint(autoencoder: Autoencoder) -> Footprint:
    """The footprint of a network in inference; bodies of loops do not count.

    Where the network is not traced, as with more than 2^63 values in a tensor, it is that of the layer
    with the largest output.
    """
    model = autoencoder.model
    found = [
        Footprint(4 * size_of(x.shape), step.operation.name, _of_one(x))
        for step in Graph(model.inputs, model.outputs).steps
        for x in step.outputs
    ]
    with contextlib.suppress(Exception):  # whoever computes with the network will see it
        found += _traced(autoencoder) if on_tensorflow() else []
    return max(found, key=lambda one: one.needed)


def _traced(autoencoder: Autoencoder) -> list[Footprint]:
    """Of every operation of TensorFlow that the output depends on."""
    import tensorflow as tf

    model = autoencoder.model
    layers: dict[str, str] = {}  # by the names of their operations

    def forward(image: Tensor) -> Any:
        def call(operation: Layer, *args: Any, **kwargs: Any) -> Any:
            outputs = operation(*args, **kwargs)
            made = image.graph.get_operations()[len(layers) :]
            layers.update((op.name, operation.name) for op in made)
            return outputs

        return replay(model.inputs, model.outputs[0], [image], call)

    image = tf.TensorSpec((1, *autoencoder.shape), model.inputs[0].dtype)
    traced = tf.function(forward, input_signature=[image], autograph=False).get_concrete_function()
    found = []
    for op in _before(traced.outputs):
        if op.type not in SAME and op.outputs:
            largest = max((*map(_source, op.inputs), *op.outputs), key=_bytes)
            layer = layers.get(largest.op.name, largest.op.name)
            found.append(Footprint(_together(op), layer, _of_one(largest)))
    return found


def _before(outputs: Iterable[Tensor]) -> list[Any]:
    """The operations of TensorFlow that some tensors depend on."""
    found: dict[str, Any] = {}
    waiting = [x.op for x in outputs]
    while waiting:
        op = waiting.pop()
        if op.name not in found:
            found[op.name] = op
            waiting += [x.op for x in op.inputs]
    return list(found.values())


def _together(op: Any) -> int:
    """Bytes that an operation reads and writes; its output may take the place of an input."""
    read = [_bytes(x) for x in {id(y): y for y in map(_source, op.inputs)}.values()]
    written = [_bytes(x) for x in op.outputs]
    if op.type in VIEWS:
        return max(sum(read), sum(written))
    return sum(read) + sum(written) - max((size for size in read if size in written), default=0)


def _source(x: Tensor) -> Tensor:
    """The tensor whose memory another one shares."""
    while x.op.type in SAME:
        x = x.op.inputs[0]
    return x


def _bytes(x: Tensor) -> int:
    return 0 if x.op.type in HELD else x.dtype.size * size_of(_shape(x))


def _shape(x: Tensor) -> tuple[int | None, ...]:
    """The shape of a tensor; empty if not even the number of its axes is known."""
    return tuple(x.shape) if getattr(x.shape, "rank", 0) is not None else ()


def _of_one(x: Tensor) -> tuple[int, ...]:
    """The shape without the axis of the batch, unless an operation has made that longer."""
    first, *others = _shape(x) or (1,)
    return tuple(n or 1 for n in ([] if first in (None, 1) else [first]) + others)
