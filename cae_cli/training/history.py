"""What a training leaves behind: the figures of each epoch, and checkpoints to resume from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.csv, NaN where nothing was measured. Epoch 0 is the untrained network."""

    epoch: int
    step: int
    train_loss: float = math.nan
    train_data_loss: float = math.nan
    train_penalty: float = math.nan
    train_gradient_norm: float = math.nan
    val_loss: float = math.nan
    val_mse: float = math.nan
    val_psnr: float = math.nan
    val_ssim: float = math.nan
    learning_rate: float = math.nan

    def row(self) -> dict[str, float]:
        """Values by the names that metrics.csv uses ("train/loss")."""
        return {
            key.replace("_", "/", 1) if key.startswith(("train_", "val_")) else key: value
            for key, value in asdict(self).items()
        }


_COLUMNS = attrgetter(*(column.name for column in fields(Epoch)))  # as `astuple`, 20 times as fast


@dataclass
class History:
    """How a training went.

    Attributes:
        epochs: one entry per finished epoch, the first for the network before training.
        stopped_early: training ended before its epochs or steps did.
        diverged_at: the step at which something was not finite, from 1, or None.
        diverged_in: what was not: "loss", "penalty", "gradient", "weights" or "validation loss".
        left_at: the epoch whose weights the network has; after divergence the last whole one.
    """

    epochs: list[Epoch] = field(default_factory=list)
    stopped_early: bool = False
    diverged_at: int | None = None
    diverged_in: str | None = None
    left_at: int = 0

    @property
    def val_losses(self) -> list[float]:
        """Validation losses of the trained epochs."""
        return [e.val_loss for e in self.epochs if e.epoch > 0]

    @property
    def best_epoch(self) -> int:
        """The trained epoch of the lowest validation loss; 0 if there is none."""
        trained = [e for e in self.epochs if e.epoch > 0]
        return min(trained, key=lambda e: e.val_loss).epoch if trained else 0

    def waited(self, patience: int | None) -> bool:
        """Whether ``patience`` epochs have passed without a lower validation loss."""
        return patience is not None and self.epochs[-1].epoch - self.best_epoch >= patience


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to resume after a whole epoch with bit-identical results.

    The order of the images and the learning rate are functions of the epoch and of the losses so far,
    so they are not stored.

    Attributes:
        epochs: so far.
        state: of the compiled steps, and with early stopping the ``best`` weights.
        recorder: its notes.
    """

    epochs: tuple[Epoch, ...]
    state: Mapping[str, list[NDArray[Any]]]
    recorder: Mapping[str, NDArray[Any]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The checkpoint as named arrays, for a file."""
        return {
            "epochs": np.array([*map(_COLUMNS, self.epochs)], np.float64),
            **{f"{k}/{i:04d}": v for k, values in self.state.items() for i, v in enumerate(values)},
            **{f"recorder/{k}": v for k, v in self.recorder.items()},
        }

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Checkpoint:
        """The checkpoint in the arrays that `arrays` returned.

        Raises:
            ValueError: they hold something else.
        """
        state: dict[str, list[NDArray[Any]]] = {}
        recorder = {}
        for name in arrays:  # in the order in which they were written
            kind, _, rest = name.partition("/")
            if kind == "recorder":
                recorder[rest] = arrays[name]
            elif rest:
                state.setdefault(kind, []).append(arrays[name])
        rows = arrays.get("epochs", np.zeros(0))
        if (
            rows.ndim != 2
            or rows.shape[1] != len(fields(Epoch))
            or not {"network", "optimizer"} <= {*state}
        ):
            raise ValueError("not a checkpoint of a training")
        epochs = tuple(Epoch(int(row[0]), int(row[1]), *map(float, row[2:])) for row in rows)
        return cls(epochs, state, recorder)
