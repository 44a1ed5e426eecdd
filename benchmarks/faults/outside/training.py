"""A Keras training taken apart, so that one thing in it can be changed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cae_cli.external.training import scaled_penalties

SCRIPTS = Path(__file__).with_name("scripts")
BASES = tuple(sorted(path.stem for path in SCRIPTS.glob("[!_]*.py")))
WORST = 1.0  # mean squared error, as a share of the squared range of the targets


@dataclass
class Training:
    """What a script trains, and how.

    Attributes:
        model: built; what it was compiled with does not count.
        optimizer: serialised by Keras.
        loss: as Keras takes it.
        fit: the arguments epochs and batch_size of ``fit``.
        patience: of the early stopping; None without it.
        is_validated: ``fit`` gets the held-out images as well.
        x: (n, h, w, c) inputs.
        y: (n, h, w, c) targets; the same array as ``x`` where inputs are reconstructed.
        labels: (n,) integers, the class or the photograph of each image.
        x_test: (m, h, w, c) held-out inputs.
        y_test: (m, h, w, c) their clean targets.
        penalties: factor of the losses that the model's own layers add with ``add_loss``.
    """

    model: Any
    optimizer: dict[str, Any]
    loss: Any
    fit: dict[str, int]
    patience: int | None
    is_validated: bool
    x: NDArray[Any]
    y: NDArray[Any]
    labels: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    penalties: float = 1.0

    @property
    def fits(self) -> bool:
        """Whether the output has the shape of the targets."""
        return tuple(self.model.output_shape[1:]) == self.y.shape[1:]


def read(base: str, data: Path) -> Training:
    """The training of a script.

    Args:
        base: one of `BASES`.
        data: folder of the image files.

    Raises:
        OSError: an image file cannot be read.
    """
    script = importlib.import_module(f"{__package__}.scripts.{base}")
    (x, y, labels), (x_test, y_test) = script.images(str(data))
    model = script.model()
    return Training(
        model=model,
        optimizer=keras.optimizers.serialize(model.optimizer),
        loss=model.loss,
        fit=dict(script.FIT),
        patience=getattr(script, "PATIENCE", None),
        is_validated=True,
        x=x,
        y=y,
        labels=np.asarray(labels),
        x_test=x_test,
        y_test=y_test,
    )


def train(training: Training, callbacks: Sequence[Any] = ()) -> None:
    """Compiles and fits the model.

    Args:
        training: its model is trained.
        callbacks: besides that of early stopping.
    """
    training.model.compile(keras.optimizers.deserialize(training.optimizer), loss=training.loss)
    stopping = []
    if training.patience is not None and training.is_validated:
        stopping = [keras.callbacks.EarlyStopping(patience=training.patience)]
    with scaled_penalties(training.model, training.penalties):
        training.model.fit(
            training.x,
            training.y,
            **training.fit,
            validation_data=(training.x_test, training.y_test) if training.is_validated else None,
            verbose=0,
            callbacks=[*callbacks, *stopping],
        )


def held_out_error(training: Training) -> float:
    """The mean squared error of held-out images, as a share of the squared range of their targets.

    An output within that range has at most `WORST`, which also stands for everything beyond it and for
    what is not finite.
    """
    output = training.model.predict(training.x_test, verbose=0).astype(np.float64)
    span = float(training.y_test.max() - training.y_test.min())
    with np.errstate(all="ignore"):
        error = float(np.mean(((output - training.y_test) / span) ** 2))
    return error if error < WORST else WORST
