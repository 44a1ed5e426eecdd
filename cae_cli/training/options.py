"""The options of a training, apart from the code that trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from cae_cli.data.augmentation import Augmentation
from cae_cli.errors import UserError, counted
from cae_cli.options import option
from cae_cli.training.losses import Loss
from cae_cli.training.optimizers import Optimizer, Schedule


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How long, and in what steps."""

    epochs: int = option(
        "passes over the training images; training.steps decides where it is given", least=1
    )
    batch_size: int = option("images per step", least=1)
    steps: int | None = option(
        "number of steps, whatever training.epochs says; null: those of the epochs", least=1
    )
    frozen: str = option(
        "part that keeps its initial weights: a control that shows what training it is worth",
        choices=("none", "encoder", "decoder"),
    )
    early_stopping: int | None = option(
        "stop after this many epochs without a lower val/loss; null: never", least=1
    )
    deterministic: bool = option("same seed, same machine: bit-identical weights")
    mixed_precision: bool = option("float16 arithmetic; needs a GPU")
    snapshots: list[int] = option(
        "epochs whose filters and reconstructions are kept; 0: before training", least=0
    )

    def check(self, images: int, more: str = "") -> None:
        """Checks the options against the number of training images.

        Args:
            images: their number.
            more: how more could be read; "": in no way that is known.

        Raises:
            UserError: there are fewer of them than a batch needs.
        """
        if images < self.batch_size:
            raise UserError(
                f"training.batch_size is {self.batch_size}, but there are only {images} training images",
                hint=f"use training.batch_size={images} or more images; "
                f"{more or 'data.patches=28 cuts an image_folder into many'}",
            )

    def planned_epochs(self, images: int) -> int:
        """Epochs until the training ends, from 1; `steps` may end it within the last one.

        Args:
            images: number of training images.
        """
        if self.steps is None:
            return self.epochs
        return math.ceil(self.steps / math.ceil(images / self.batch_size))

    def planned_steps(self, images: int) -> int:
        """Steps until the training ends, from 1.

        Args:
            images: number of training images.
        """
        return self.steps or self.epochs * math.ceil(images / self.batch_size)

    def length(self, images: int) -> str | None:
        """What to say where `steps` and not `epochs` decide the length; None: both say the same.

        Args:
            images: number of training images.
        """
        planned = self.planned_epochs(images)
        if self.steps is None or planned == self.epochs:
            return None
        per_epoch = math.ceil(images / self.batch_size)
        return (
            f"training.steps={self.steps} decides the length: {counted(planned, 'epoch')} of "
            f"{counted(per_epoch, 'step')} instead of training.epochs={self.epochs}"
        )


class Recipe(Protocol):
    """What `fit` reads of a run's config: everything that decides how a network is trained."""

    @property
    def seed(self) -> int:
        """Of image order and augmentation."""

    @property
    def training(self) -> TrainingOptions:
        """Epochs, batch size, early stopping."""

    @property
    def loss(self) -> Loss:
        """What is minimised, in addition to the penalties of the network."""

    @property
    def optimizer(self) -> Optimizer:
        """Makes the steps."""

    @property
    def schedule(self) -> Schedule:
        """The learning rate over time."""

    @property
    def augmentation(self) -> Augmentation:
        """Of the training images."""
