"""How a network is computed while it trains: from the same weights, with the same result, sooner.

Two things are done to the graph of a plain Keras model, both exact:

- *In parts.* A batch is cut into parts that go through the network side by side, each on its own
  cores. The operations of a small network are too short for two cores to share one of them. Layers
  that look at more than one image at once get the whole batch.
- *Fused up-convolution.* Upsampling by two to the nearest and the convolution behind it are computed as
  one convolution at the low resolution to 4 times the filters, which then take turns in every 2x2
  pixels. Each tap of its kernel is the sum of the trained taps that fall on the same pixel.

The model itself stays as it is: what is saved is plain Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.anatomy.graph import Graph, Step, replay
from cae_cli.anatomy.layers import Layer, Model, Tensor, from_keras, is_a


def cut(images: Tensor, count: int) -> list[Tensor]:
    """A batch of at least ``count`` images as so many parts, whose sizes differ by one at most."""
    from keras import ops

    if count == 1:
        return [images]
    n = ops.shape(images)[0]
    ends = [n * i // count for i in range(count + 1)]
    return [images[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]


def forward(model: Model) -> Callable[..., list[Tensor]]:
    """What computes the model in training.

    Args:
        model: a functional model of one input and one output.

    Returns:
        A function of the parts of a batch, as `cut` makes them, and of ``training=``. It returns what
        the model makes of each part when it sees the whole batch; ``model.losses`` are as after that.
    """
    graph = Graph(model.inputs, model.outputs)
    instead: dict[int, Callable[[Tensor], Tensor]] = {}
    for step in graph.steps:
        conv = _convolved_next(graph, step)
        if conv is not None:
            instead[id(step.operation)] = lambda x: x
            instead[id(conv)] = partial(up_convolution, conv)

    def compute(parts: Sequence[Tensor], *, training: bool) -> list[Tensor]:
        def call(operation: Layer, *args: Any, **kwargs: Any) -> _Parts:
            function = instead.get(id(operation), operation)
            if getattr(operation, "_call_has_training_arg", False):
                kwargs["training"] = training
            if len(parts) > 1 and _looks_at_the_batch(operation):
                args, kwargs = _each((args, kwargs), ops.concatenate)
                return _Parts(cut(function(*args, **kwargs), len(parts)))
            results = []
            for i in range(len(parts)):
                args_i, kwargs_i = _each((args, kwargs), lambda values, i=i: values[i])
                results.append(function(*args_i, **kwargs_i))
            return _Parts(results)

        from keras import ops

        made: _Parts = replay(model.inputs, model.outputs[0], [_Parts(list(parts))], call)
        return made.values

    return compute


def worth_cutting(model: Model) -> bool:
    """Whether a batch is sooner through the model in parts: joining them again costs more than it saves
    where every stage looks at the whole batch, as batch normalisation does."""
    return not any(is_a(layer, {"BatchNormalization"}) for layer in model.layers)


@dataclass(frozen=True)
class _Parts:
    """A tensor in parts, for `replay` a single value."""

    values: list[Tensor]


def _each(arguments: Any, take: Callable[[list[Tensor]], Tensor]) -> Any:
    """The arguments of a call, with what ``take`` makes of each tensor's parts in its place."""
    import keras

    return keras.tree.map_structure(
        lambda x: take(x.values) if isinstance(x, _Parts) else x, arguments
    )


def _looks_at_the_batch(operation: Layer) -> bool:
    """Whether what is made of an image depends on the others, or the losses on their number."""
    return (
        is_a(operation, {"BatchNormalization", "ActivityRegularization"})
        or getattr(operation, "activity_regularizer", None) is not None
        or not from_keras(type(operation))
    )


def _convolved_next(graph: Graph, step: Step) -> Layer | None:
    """The convolution that can be computed together with this step, an upsampling; else None."""
    up = step.operation
    if not (is_a(up, {"UpSampling2D"}) and up.size == (2, 2) and up.interpolation == "nearest"):
        return None
    users = graph.users.get(id(step.outputs[0]), [])
    if len(users) != 1 or any(step.outputs[0] is x for x in graph.outputs):
        return None
    conv = users[0].operation
    plain = (
        is_a(conv, {"Conv2D"})
        and conv.padding == "same"
        and conv.strides == conv.dilation_rate == (1, 1)
        and conv.groups == 1
        and conv.data_format == up.data_format == "channels_last"
        and conv.activity_regularizer is None
    )
    return conv if plain else None


def up_convolution(conv: Layer, x: Tensor) -> Tensor:
    """What a convolution (stride 1, "same") makes of ``x`` upsampled by two to the nearest.

    Args:
        conv: the Keras layer.
        x: (n, h, w, c), before the upsampling.

    Returns:
        (n, 2h, 2w, filters).
    """
    from keras import ops

    x, kernel = ops.cast(x, conv.compute_dtype), ops.cast(conv.kernel, conv.compute_dtype)
    rows, columns, channels, filters = kernel.shape
    # One matrix product for each of the four phases: (taps, k * k) x (k * k, channels * filters).
    kernel = ops.reshape(kernel, (rows * columns, channels * filters))
    spread = _spread(rows, columns)  # (4, taps, k * k)
    shape = (len(_taps(rows)), len(_taps(columns)), channels, filters)
    kernels = [ops.reshape(ops.cast(phase, kernel.dtype) @ kernel, shape) for phase in spread]
    y = ops.conv(x, ops.concatenate(kernels, axis=3), 1, "same")  # (n, h, w, 4 * filters)
    # Depth to space, as one transposition of rows and phases: (n, h, w, 2, 2, filters).
    _, h, w, _ = x.shape
    y = ops.transpose(ops.reshape(y, (-1, h, w, 2, 2 * filters)), (0, 1, 3, 2, 4))
    y = ops.reshape(y, (-1, 2 * h, 2 * w, filters))
    if conv.use_bias:
        y = y + ops.cast(conv.bias, conv.compute_dtype)
    return conv.activation(y)


def _taps(size: int) -> range:
    """Pixels of the low resolution that one of the high depends on, as seen from the one below it."""
    before = (size - 1) // 2
    return range(-before // 2, (size - before) // 2 + 1)


def _spread(rows: int, columns: int) -> NDArray[np.float32]:
    """From a kernel behind an upsampling to the kernels at the low resolution.

    At phase p (0 or 1) of the doubled grid, tap d of a kernel of size k falls on the pixel
    floor((p + d - (k - 1) // 2) / 2) of the low resolution.

    Returns:
        (4, taps, rows * columns) of zeros and ones: for the phases (0, 0), (0, 1), (1, 0), (1, 1).
    """

    def along(size: int) -> NDArray[np.bool_]:
        phases, taps = np.arange(2)[:, None], np.arange(size)
        pixels = (phases + taps - (size - 1) // 2) // 2  # (2, size)
        return np.array([pixels == tap for tap in _taps(size)])  # (taps, 2, size)

    spread = np.einsum("rpd,sqe->pqrsde", along(rows), along(columns))
    return spread.reshape(4, -1, rows * columns).astype(np.float32)
