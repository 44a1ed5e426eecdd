"""Where a loss is smallest: at the images, or elsewhere.

A network follows its loss and not the images. So the loss is computed of the images themselves and of
outputs that are none: where it likes one of those as well, nothing keeps the network from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.introspection.computing import Tensor, gradients
from cae_cli.metrics.loss_minimum import LossMinimum

Array = NDArray[np.float32]

CONTENT = 0.01  # of the way from the loss of the images to that of their mean: as good as the images
ALIKE = 1e-6  # of the loss, and at least of 1: differences of float32
OUTSIDE = 0.01  # of the range of the images: outputs beyond it by more are outside
STEPS = (0.5, 1.0, 2.0)  # standard deviations of the images, down the gradient from them


@dataclass(frozen=True)
class KnownLoss:
    """The loss of a training.

    Attributes:
        function: from targets and outputs, both (n, h, w, c), to the mean over a batch, or to one number
            for each of its parts.
        span: (low, high), the range of the images that the network was trained on.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    span: tuple[float, float] = (0.0, 1.0)


def keras_loss(loss: Any, span: tuple[float, float] = (0.0, 1.0)) -> KnownLoss | None:
    """What ``model.compile`` got as the loss; None where it is not one loss of outputs and images.

    Args:
        loss: a name, a function or an object. One that takes logits compares no images.
        span: see `KnownLoss`.
    """
    import keras

    if loss is None or isinstance(loss, list | tuple | dict) or getattr(loss, "from_logits", False):
        return None
    try:
        function = keras.losses.get(loss)
    except (TypeError, ValueError):  # a name of somebody's own
        return None
    return KnownLoss(function, span)


def loss_minimum(loss: KnownLoss, images: Array, outputs: Array) -> LossMinimum:
    """Measures a loss on a few images.

    Args:
        loss: of the training.
        images: (n, h, w, c) targets in [0, 1], not all alike.
        outputs: what the network makes of them, of the same shape.

    Raises:
        Exception: whatever somebody's own loss raises.
    """
    import keras

    low, high = loss.span
    targets, outputs = (np.asarray(low + (high - low) * a, np.float32) for a in (images, outputs))

    def value(y: Array | Tensor) -> Tensor:
        tensors = map(keras.ops.convert_to_tensor, (targets, y))
        return keras.ops.mean(loss.function(*tensors))

    def gradient(y: Array) -> Array:
        outputs = keras.Variable(y, name="outputs")
        _, [[slope]] = gradients(lambda: [value(outputs.value)], [outputs])
        return np.asarray(keras.ops.convert_to_numpy(slope))

    best = float(value(targets))
    mean = float(value(np.broadcast_to(targets.mean(axis=0), targets.shape)))
    most = best + CONTENT * max(mean - best, 0.0) + ALIKE * max(abs(best), 1.0)
    spread = float(targets.std())
    elsewhere = [
        float(np.sqrt(np.square(other - targets).mean())) / spread
        for other in _others(targets, -gradient(targets))
        if float(value(other)) <= most
    ]
    error, margin = np.square(outputs - targets), OUTSIDE * (high - low)
    is_outside = (outputs < targets.min() - margin) | (outputs > targets.max() + margin)
    unmoved = float(error[is_outside & (gradient(outputs) == 0)].sum()) / max(float(error.sum()), 1e-12)
    return LossMinimum(max(elsewhere, default=0.0), unmoved)


def _others(targets: Array, downhill: Array) -> Iterator[Array]:
    """Outputs that are not the targets, (n, h, w, c), all within their range.

    One value, two values, half of each value, without what is below 0 or beyond 0 to 1, and what comes
    next where the loss falls.
    """
    low, high = targets.min(), targets.max()
    yield np.full_like(targets, low)
    yield np.full_like(targets, high)
    yield np.where(targets > (low + high) / 2, high, low)
    yield np.clip(targets / 2, low, high)
    yield np.maximum(targets, 0)
    yield np.clip(targets, 0, 1)
    size = float(np.sqrt(np.square(downhill).mean()))
    for step in STEPS if size > 0 else ():
        yield np.clip(targets + np.float32(step * targets.std() / size) * downhill, low, high)
