"""Trains an autoencoder: the order of the images, the steps, what is kept after every epoch.

Everything random is a pure function of (seed, epoch, step): the order of the images comes from
(seed, epoch), the augmentation from (seed, step), the learning rate from the step and the validation
losses so far. Keras' own ``fit`` shows the images in the same order every epoch once its seed is set.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import Images
from cae_cli.data.augmentation import Augmentation
from cae_cli.errors import UserError
from cae_cli.introspection import Autoencoder
from cae_cli.options import option
from cae_cli.training.losses import Loss
from cae_cli.training.optimizers import Optimizer, Schedule
from cae_cli.training.recorder import Recorder
from cae_cli.training.step import Loop


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How long, and in what steps."""

    epochs: int = option("passes over the training images", least=1)
    batch_size: int = option("images of a step", least=1)
    steps: int | None = option("steps after which training ends, whatever the epochs", least=1)
    frozen: str = option(
        "part whose weights stay as they were drawn: a control that shows what training it is worth",
        choices=("none", "encoder", "decoder"),
    )
    early_stopping: int | None = option(
        "epochs without a lower val/loss after which to stop; null: never", least=1
    )
    deterministic: bool = option("same seed, same machine: bit-identical weights")
    mixed_precision: bool = option("float16 arithmetic; needs a GPU")
    snapshots: list[int] = option(
        "epochs whose filters and reconstructions are kept; 0: before training", least=0
    )


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.csv. Epoch 0 is the network before training, measured on validation."""

    epoch: int
    step: int
    train_loss: float
    train_data_loss: float
    train_penalty: float
    train_gradient_norm: float
    val_loss: float
    val_mse: float
    val_psnr: float
    val_ssim: float
    learning_rate: float

    def row(self) -> dict[str, float]:
        """Values by the names that metrics.csv uses ("train/loss")."""
        return {
            key.replace("_", "/", 1) if key.startswith(("train_", "val_")) else key: value
            for key, value in asdict(self).items()
        }


@dataclass
class History:
    """What happened.

    Attributes:
        epochs: one entry per finished epoch, the first for the network before training.
        stopped_early: training ended before ``training.epochs``.
        diverged_at: the step at which something was not finite, from 1, or None.
        diverged_in: what was not: "loss", "penalty", "gradient", "weights" or "validation loss".
        left_at: the epoch whose weights the network was left with; of a training that diverged, the
            last whole one before them.
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
        """Whether so many epochs have passed without a lower validation loss."""
        return patience is not None and self.epochs[-1].epoch - self.best_epoch >= patience


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on after a whole epoch as if it had never stopped.

    The order of the images and the learning rate are functions of the epoch and of the losses so far,
    and need no place here.

    Attributes:
        epochs: so far.
        state: of the loop, and where early stopping is on, the ``best`` weights.
        recorder: its notes.
    """

    epochs: tuple[Epoch, ...]
    state: Mapping[str, list[NDArray[Any]]]
    recorder: Mapping[str, NDArray[Any]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The same by names, as a file holds it."""
        return {
            "epochs": np.array([astuple(epoch) for epoch in self.epochs], np.float64),
            **{f"{k}/{i:04d}": v for k, values in self.state.items() for i, v in enumerate(values)},
            **{f"recorder/{k}": v for k, v in self.recorder.items()},
        }

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Checkpoint:
        """From what `arrays` gave.

        Raises:
            ValueError: it is something else.
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


@dataclass
class Watcher:
    """What the caller wants to hear of while training runs. Each may be replaced.

    Attributes:
        on_steps: (epoch, step of it, loss) after some steps.
        on_epoch: the history so far; the first time for the network before training.
        on_checkpoint: after a whole epoch. None: no checkpoint is taken.
    """

    on_steps: Callable[[int, int, float], None] = lambda epoch, step, loss: None
    on_epoch: Callable[[History], None] = lambda history: None
    on_checkpoint: Callable[[Checkpoint], None] | None = None


def image_order(seed: int, epoch: int, count: int) -> NDArray[np.int32]:
    """The order in which ``count`` images are shown in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32)


def fit(
    autoencoder: Autoencoder,
    images: Images,
    *,
    options: TrainingOptions,
    loss: Loss,
    optimizer: Optimizer,
    schedule: Schedule,
    augmentation: Augmentation,
    seed: int,
    watcher: Watcher,
    recorder: Recorder,
    parts: int,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Trains the autoencoder in place.

    A step whose loss or gradient is not finite is not applied: training ends there and the weights
    stay those of the last good step. If a step left weights that are not finite, or weights whose
    validation loss is not, they are put back to those of the last whole epoch.

    Args:
        autoencoder: the network; left with the weights of the last epoch, or of the best one where
            early stopping is on.
        images: training and validation images.
        options: epochs, batch size, early stopping.
        loss: what is minimised, beside the network's own penalties.
        optimizer: makes the steps.
        schedule: learning rate over time.
        augmentation: of the training images.
        seed: order of the images and augmentation.
        watcher: hears of steps and epochs.
        recorder: writes down what cannot be seen afterwards.
        parts: of a batch, computed side by side.
        checkpoint: of an earlier training with the same arguments, which goes on from there;
            ``options.epochs`` and ``options.steps`` may be others.

    Returns:
        The history, with that of the earlier training.

    Raises:
        UserError: the checkpoint is of another network or optimizer.
    """
    loop = Loop(
        autoencoder, images, loss, optimizer, augmentation, seed, options.batch_size, recorder, parts
    )
    count = len(images.train)
    steps_per_epoch = math.ceil(count / options.batch_size)
    total = min(steps_per_epoch * options.epochs, options.steps or sys.maxsize)
    best: list[NDArray[Any]] = []
    if checkpoint is None:
        history = History([_before_training(loop, optimizer)])
        watcher.on_epoch(history)
    else:
        history = _history_of(checkpoint, loop, recorder)
        best = checkpoint.state.get("best", [])
    whole = loop.state()

    for epoch in range(history.left_at + 1, math.ceil(total / steps_per_epoch) + 1):
        if history.waited(options.early_stopping):
            break
        first = (epoch - 1) * steps_per_epoch
        steps = min(steps_per_epoch, total - first)
        rates = [
            optimizer.learning_rate * schedule.rate_factor(step, total, history.val_losses)
            for step in range(first, first + steps)
        ]
        trained = loop.epoch(
            image_order(seed, epoch, count)[: steps * options.batch_size],
            rates,
            first,
            functools.partial(watcher.on_steps, epoch),
        )
        history.diverged_in = trained.broken
        if trained.broken is None:
            validation = loop.validate()
            if not math.isfinite(validation["val_loss"]):
                history.diverged_in = "validation loss"
        if history.diverged_in is not None:
            history.diverged_at = first + trained.steps
            if history.diverged_in in ("weights", "validation loss"):
                loop.put_back(whole)
            return history
        record = Epoch(
            epoch=epoch,
            step=first + steps,
            train_loss=trained.data_loss + trained.penalty,
            train_data_loss=trained.data_loss,
            train_penalty=trained.penalty,
            train_gradient_norm=trained.gradient_norm,
            learning_rate=rates[-1],
            **validation,
        )
        history.epochs.append(record)
        history.left_at = epoch
        recorder.epoch(record.step, trained.kernel_norms, look=epoch in options.snapshots)
        whole = loop.state()
        if history.best_epoch == epoch and options.early_stopping:
            best = [np.array(v) for v in autoencoder.model.weights]
        watcher.on_epoch(history)
        # In the middle of an epoch, where ``steps`` may end a training, none can go on.
        if watcher.on_checkpoint is not None and steps == steps_per_epoch:
            state = {**whole, **({"best": best} if best else {})}
            watcher.on_checkpoint(Checkpoint(tuple(history.epochs), state, recorder.notes()))
    # After the checkpoint: a training that goes on from it has not ended here.
    if history.epochs[-1].step == total:
        recorder.look(total)
    history.stopped_early = history.waited(options.early_stopping) and history.left_at < options.epochs
    if best:
        history.left_at = history.best_epoch
        for variable, value in zip(autoencoder.model.weights, best, strict=True):
            variable.assign(value)
    return history


def _before_training(loop: Loop, optimizer: Optimizer) -> Epoch:
    """The line of epoch 0: nothing trained yet, validation measured."""
    nothing = float("nan")
    return Epoch(
        epoch=0,
        step=0,
        train_loss=nothing,
        train_data_loss=nothing,
        train_penalty=nothing,
        train_gradient_norm=nothing,
        learning_rate=optimizer.learning_rate,
        **loop.validate(),
    )


def _history_of(checkpoint: Checkpoint, loop: Loop, recorder: Recorder) -> History:
    """The history of a checkpoint, when loop and recorder are where it was taken.

    Raises:
        UserError: it is of another network or optimizer.
    """
    try:
        loop.put_back({name: checkpoint.state[name] for name in ("network", "optimizer")})
        recorder.go_on(checkpoint.recorder)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"the checkpoint is of another network or optimizer: {error}",
            hint="it may come from another version of cae or Keras; cae train begins anew",
        ) from error
    epochs = list(checkpoint.epochs)
    return History(epochs, left_at=epochs[-1].epoch)


def check(options: TrainingOptions, images: Images) -> None:
    """Says before training what cannot work.

    Raises:
        UserError: fewer training images than a batch.
    """
    if len(images.train) < options.batch_size:
        raise UserError(
            f"training.batch_size is {options.batch_size}, but there are only "
            f"{len(images.train)} training images",
            hint=f"training.batch_size={len(images.train)}, or more images",
        )


def cut_short(options: TrainingOptions, steps: int, images: int) -> TrainingOptions:
    """The same training with so many steps, and without early stopping.

    Args:
        options: of the training.
        steps: so many.
        images: of an epoch.
    """
    epochs = math.ceil(steps / math.ceil(images / options.batch_size))
    return replace(options, steps=steps, epochs=epochs, early_stopping=None, snapshots=[])


def freeze(autoencoder: Autoencoder, part: str) -> None:
    """Takes a part out of training, as the option ``frozen`` says; batch normalisation stands too."""
    encoder = {layer.name for layer in autoencoder.encoder_layers}
    for layer in autoencoder.model.layers:
        if part != "none" and (layer.name in encoder) == (part == "encoder"):
            layer.trainable = False
