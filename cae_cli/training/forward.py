"""A faster, exact way to compute a plain Keras model while it trains.

- *In parts.* A batch is cut into parts that are computed in parallel: the operations of a small network
  are too short for two cores to share one of them.
- *Fused up-convolution.* Nearest-neighbour upsampling by two and the convolution behind it become one
  convolution at the low resolution to 4 times the filters, which then fill every 2x2 pixels in turn.
  Each tap of its kernel is the sum of the trained taps that fall on the same pixel.

The model itself stays as it is, so the saved file is plain Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.introspection.graph import Graph, replay
from cae_cli.introspection.keras_internals import Step, layers_inside, takes_training
from cae_cli.introspection.layers import Layer, Model, Tensor, from_keras, is_a


def cut(images: Tensor, count: int) -> list[Tensor]:
    """A batch of at least ``count`` images in ``count`` parts, whose sizes differ by one at most."""
    from keras import ops

    if count == 1:
        return [images]
    n = ops.shape(images)[0]
    ends = [n * i // count for i in range(count + 1)]
    return [images[start:end] for start, end in pairwise(ends)]


def may_be_cut(model: Model) -> bool:
    """Whether the output for an image, and the losses, are the same in any part of a batch."""
    return not any(
        is_a(layer, {"BatchNormalization", "ActivityRegularization", "SpectralNormalization"})
        or getattr(layer, "activity_regularizer", None) is not None
        or not from_keras(type(layer))
        for layer in layers_inside(model)
    )


def forward(model: Model) -> Callable[..., list[Tensor]]:
    """The model as a function of the parts of a batch, as `cut` makes them.

    Args:
        model: a functional model with one input and one output.

    Returns:
        A function of a list of parts and of ``training=`` that returns the outputs of the parts. More
        than one part requires `may_be_cut`. ``model.losses`` are as after a call of the model.
    """
    graph = Graph(model.inputs, model.outputs)
    # By id: upsamplings, with None, and the convolutions behind them, with themselves.
    fused: dict[int, Layer | None] = {}
    for step in graph.steps:
        conv = _convolved_next(graph, step)
        if conv is not None:
            fused |= {id(step.operation): None, id(conv): conv}

    def compute(parts: list[Tensor], *, training: bool) -> list[Tensor]:
        import keras

        def call(operation: Layer, *args: Any, **kwargs: Any) -> _Parts:
            if id(operation) in fused:
                conv, (x,) = fused[id(operation)], args
                return x if conv is None else _Parts(up_convolution(conv, x.values))
            if takes_training(operation):
                kwargs["training"] = training
            results = []
            for i in range(len(parts)):
                args_i, kwargs_i = keras.tree.map_structure(
                    lambda x, i=i: x.values[i] if isinstance(x, _Parts) else x, (args, kwargs)
                )
                results.append(operation(*args_i, **kwargs_i))
            return _Parts(results)

        made: _Parts = replay(model.inputs, model.outputs[0], [_Parts(parts)], call)
        return made.values

    return compute


@dataclass(frozen=True)
class _Parts:
    """A tensor in parts, for `replay` a single value."""

    values: list[Tensor]


def _convolved_next(graph: Graph, step: Step) -> Layer | None:
    """The convolution that can be fused with this step if it is an upsampling; else None."""
    up = step.operation
    if not (is_a(up, {"UpSampling2D"}) and up.size == (2, 2) and up.interpolation == "nearest"):
        return None
    users = graph.users.get(id(step.outputs[0]), [])
    if len(users) != 1 or any(step.outputs[0] is x for x in graph.outputs):
        return None
    conv = users[0].operation
    called = [step.operation for step in graph.steps]
    plain = (
        is_a(conv, {"Conv2D"})
        and called.count(conv) == called.count(up) == 1
        and conv.padding == "same"
        and conv.strides == conv.dilation_rate == (1, 1)
        and conv.groups == 1
        and conv.data_format == up.data_format == "channels_last"
        and conv.activity_regularizer is None
    )
    return conv if plain else None


def up_convolution(conv: Layer, parts: list[Tensor]) -> list[Tensor]:
    """The output of a convolution (stride 1, "same") for nearest-neighbour upsampled images.

    Args:
        conv: the Keras layer.
        parts: (n, h, w, c) each, before the upsampling.

    Returns:
        (n, 2h, 2w, filters) each.
    """
    from keras import ops

    dtype = conv.compute_dtype
    rows, columns, channels, filters = conv.kernel.shape
    spread = ops.convert_to_tensor(_spread(rows, columns), dtype)
    kernel = ops.matmul(spread, ops.reshape(ops.cast(conv.kernel, dtype), (rows * columns, -1)))
    taps = (len(_taps(rows)), len(_taps(columns)))
    kernel = ops.transpose(ops.reshape(kernel, (4, *taps, channels, filters)), (1, 2, 3, 0, 4))
    kernel = ops.reshape(kernel, (*taps, channels, 4 * filters))
    bias = ops.cast(conv.bias, dtype) if conv.use_bias else None
    results = []
    for x in parts:
        h, w = x.shape[1:3]
        y = ops.conv(ops.cast(x, dtype), kernel, 1, "same")  # (n, h, w, 4 * filters)
        # Depth to space: swap the rows and the first of the two phases.
        y = ops.transpose(ops.reshape(y, (-1, h, w, 2, 2 * filters)), (0, 1, 3, 2, 4))
        y = ops.reshape(y, (-1, 2 * h, 2 * w, filters))
        results.append(conv.activation(y if bias is None else y + bias))
    return results


def _taps(size: int) -> range:
    """Offsets of the low-resolution pixels that a high-resolution pixel depends on."""
    before = (size - 1) // 2
    return range(-before // 2, (size - before) // 2 + 1)


def _spread(rows: int, columns: int) -> NDArray[np.float32]:
    """From a kernel behind an upsampling to the kernels at the low resolution.

    At phase p (0 or 1) of the doubled grid, tap d of a kernel of size k falls on the pixel
    floor((p + d - (k - 1) // 2) / 2) of the low resolution.

    Returns:
        (4 * taps, rows * columns) of zeros and ones: the phases (0, 0), (0, 1), (1, 0), (1, 1) in turn.
    """

    def along(size: int) -> NDArray[np.bool_]:
        phases, taps = np.arange(2)[:, None], np.arange(size)
        pixels = (phases + taps - (size - 1) // 2) // 2  # (2, size)
        return np.array([pixels == tap for tap in _taps(size)])  # (taps, 2, size)

    spread = np.einsum("rpd,sqe->pqrsde", along(rows), along(columns))
    return np.asarray(spread.reshape(-1, rows * columns), np.float32)
