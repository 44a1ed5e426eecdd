"""What a network does in training mode, measured without a trace in its training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.introspection.computing import compiled, gradients, without_gradients
from cae_cli.introspection.keras_internals import layers_inside, seeded, takes_training
from cae_cli.introspection.layers import Layer, Model, Tensor, from_keras

Array = NDArray[np.float32]


@contextlib.contextmanager
def unchanged(model: Model) -> Iterator[None]:
    """In the block the model may run in training mode.

    Afterwards running averages, metrics and the generators of random layers are what they were.
    """
    variables = [*model.non_trainable_variables, *getattr(model, "metrics_variables", [])]
    state = [(v, np.array(v)) for v in variables]
    with seeded(0):  # layers without a generator of their own share one of Keras
        try:
            yield
        finally:
            for variable, value in state:
                variable.assign(value)


@contextlib.contextmanager
def quiet(model: Model, only: Collection[Layer] | None = None) -> Iterator[None]:
    """In the block dropout and added noise do nothing, in training mode too.

    Args:
        model: of which.
        only: these of its layers; None: all.
    """
    rates = [
        (layer, name, getattr(layer, name))
        for layer in (model.layers if only is None else only)
        for name in ("rate", "stddev")
        if isinstance(getattr(layer, name, None), float)
    ]
    for layer, name, _ in rates:
        setattr(layer, name, 0.0)
    try:
        yield
    finally:
        for layer, name, value in rates:
            setattr(layer, name, value)


class Penalties:
    """What a model adds to its loss: penalties on weights and activations, ``add_loss``.

    Args:
        model: any Keras model.
        kernels: m of its variables.
        data_loss: from inputs, targets and outputs of a batch to its loss without penalties; None: as
            the model was compiled. Then penalties are not known if it has no loss, or a training step
            or a ``compute_loss`` of its own, which may add whatever it likes.
    """

    def __init__(
        self,
        model: Model,
        kernels: Sequence[Any],
        data_loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.kernels = kernels
        self.data_loss = data_loss
        self.known = data_loss is not None or has_plain_loss(model)
        self.none = not may_penalise(model)
        # Compiled, because random operations of TensorFlow keep their state within a function.
        self._measured = compiled(self._measure)

    def __call__(self, inputs: Array, targets: Array) -> tuple[float, Array]:
        """The sum of the penalties for a batch, and how hard they pull at each kernel.

        Args:
            inputs: (n, h, w, c).
            targets: of the same shape.

        Returns:
            The sum, and (m,) norms of its gradient over those of the gradient of the data loss. NaN
            where they are not known.
        """
        count = len(self.kernels)
        if not self.known:
            return float("nan"), np.full(count, np.nan, np.float32)
        if self.none:
            return 0.0, np.zeros(count, np.float32)
        try:
            with unchanged(self.model), np.errstate(all="ignore"):
                penalty, pulls, others = self._measured(inputs, targets)
                return float(penalty), np.where(pulls == 0, 0, pulls / others)
        except Exception:  # the model takes more than images, or its code does what it likes
            self.known = False
            return self(inputs, targets)

    def _measure(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from keras import ops

        model = self.model

        def parts() -> tuple[Tensor, Tensor]:
            outputs = model(inputs, **({"training": True} if takes_training(model) else {}))
            penalty = _total(model.losses)
            if self.data_loss is not None:
                return penalty, self.data_loss(inputs, targets, outputs)
            whole = model.compute_loss(x=inputs, y=targets, y_pred=outputs)
            return penalty, ops.cast(whole, "float32") - penalty

        (penalty, _), slopes = gradients(parts, self.kernels)
        pulls, others = (ops.stack([_norm(slope) for slope in own]) for own in slopes)
        return penalty, pulls, others


def _total(losses: Sequence[Tensor]) -> Tensor:
    """The sum of what a model adds to its loss."""
    from keras import ops

    return sum((ops.sum(ops.cast(x, "float32")) for x in losses), ops.zeros(()))


def _norm(x: Tensor) -> Tensor:
    from keras import ops

    return ops.sqrt(ops.sum(ops.square(ops.cast(x, "float32"))))


def data_loss(model: Model, inputs: Array, targets: Array, batch: int) -> float:
    """The loss without penalties of a compiled model in inference.

    Args:
        model: any Keras model.
        inputs: (n, h, w, c) as the model takes them.
        targets: of the same shape.
        batch: how many pass at once.

    Returns:
        The mean over the images; NaN where the model computes its loss in code of its own.
    """
    from keras import ops

    if not has_plain_loss(model):
        return float("nan")
    total = 0.0
    try:
        with unchanged(model), without_gradients():
            for start in range(0, len(inputs), batch):
                x, target = (ops.convert_to_tensor(a[start : start + batch]) for a in (inputs, targets))
                y = model(x, **({"training": False} if takes_training(model) else {}))
                whole = float(model.compute_loss(x=x, y=target, y_pred=y))
                total += len(x) * (whole - float(_total(model.losses)))
    except Exception:  # the model takes more than images, or its targets are others
        return float("nan")
    return total / len(inputs)


def has_plain_loss(model: Model) -> bool:
    """Whether a model is compiled with a loss, and neither its step nor its loss is code of its own."""
    import keras

    kind = type(model)
    return (
        getattr(model, "loss", None) is not None
        and kind.train_step is keras.Model.train_step
        and kind.compute_loss is keras.Model.compute_loss
    )


def may_penalise(model: Model) -> bool:
    """Whether a model may add to its loss: it has regularizers, or layers of a class of their own."""
    parts = [model, *layers_inside(model)]
    return any(v.regularizer is not None for v in model.trainable_variables) or any(
        part.activity_regularizer is not None or not from_keras(type(part)) for part in parts
    )
