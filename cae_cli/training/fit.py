"""Trains an autoencoder: the order of the images, the epochs, early stopping, checkpoints.

Everything random is a pure function of (seed, epoch, step): the order of the images comes from
(seed, epoch), the augmentation from (seed, step), the learning rate from the step and the validation
losses so far. Keras' own ``fit`` shows the images in the same order every epoch once its seed is set.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import Images
from cae_cli.errors import UserError
from cae_cli.introspection import Autoencoder
from cae_cli.training.history import Checkpoint, Epoch, History
from cae_cli.training.options import Recipe
from cae_cli.training.recorder import Recorder
from cae_cli.training.step import CompiledSteps


@dataclass(frozen=True)
class Callbacks:
    """What `fit` calls while training runs.

    Attributes:
        on_steps: (epoch, step of the epoch, loss), after some steps.
        on_epoch: the history so far; the first time for the network before training.
        on_checkpoint: the checkpoint of each whole epoch, after ``on_epoch``.
    """

    on_steps: Callable[[int, int, float], None] = lambda epoch, step, loss: None
    on_epoch: Callable[[History], None] = lambda history: None
    on_checkpoint: Callable[[Checkpoint], None] = lambda checkpoint: None


def image_order(seed: int, epoch: int, count: int) -> NDArray[np.int32]:
    """The order in which ``count`` images are shown in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32)


def freeze(autoencoder: Autoencoder, part: str) -> None:
    """Freezes the weights of a part: "none", "encoder" or "decoder"; batch normalisation included."""
    encoder = {layer.name for layer in autoencoder.encoder_layers}
    for layer in autoencoder.model.layers:
        if part != "none" and (layer.name in encoder) == (part == "encoder"):
            layer.trainable = False


def fit(
    autoencoder: Autoencoder,
    images: Images,
    recipe: Recipe,
    recorder: Recorder,
    *,
    callbacks: Callbacks | None = None,
    parts: int = 1,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Trains the autoencoder in place.

    A step whose loss or gradient is not finite is not applied, and training ends there; so it does at a
    step that leaves weights that are not finite, or whose validation loss is not. All weights are then
    put back to those of the last whole epoch, which the files of that epoch describe.

    Args:
        autoencoder: the network; left with the weights of `History.left_at`: the last whole epoch, or
            the best one where early stopping is on.
        images: training and validation images.
        recipe: loss, optimizer, schedule, augmentation, length and seed; usually the run's config.
        recorder: records what cannot be measured afterwards.
        callbacks: called after steps and epochs.
        parts: number of parts of a batch that are computed in parallel.
        checkpoint: of an earlier training with the same recipe, which resumes from it; the recipe's
            ``training.epochs`` and ``training.steps`` may differ.

    Returns:
        The history, including that of the earlier training.

    Raises:
        UserError: the checkpoint is of another network or optimizer.
    """
    options, callbacks = recipe.training, callbacks or Callbacks()
    steps = CompiledSteps(autoencoder, images, recipe, recorder, parts)
    per_epoch = math.ceil(len(images.train) / options.batch_size)
    total = options.planned_steps(len(images.train))
    best: list[NDArray[Any]] = []
    if checkpoint is None:
        rate = recipe.optimizer.learning_rate
        history = History([Epoch(0, 0, learning_rate=rate, **steps.validate())])
        callbacks.on_epoch(history)
    else:
        history = _resumed(checkpoint, steps, recorder)
        best = checkpoint.state.get("best", [])

    state = steps.state()
    for epoch in range(history.left_at + 1, math.ceil(total / per_epoch) + 1):
        if history.waited(options.early_stopping):
            break
        _train_epoch(epoch, per_epoch, total, steps, recipe, history, recorder, callbacks)
        if history.diverged_at is not None:
            steps.restore(state)
            return history
        state = steps.state()
        if history.best_epoch == epoch and options.early_stopping:
            best = [np.array(v) for v in autoencoder.model.weights]
        callbacks.on_epoch(history)
        # ``training.steps`` may end a training in the middle of an epoch, where none can resume.
        if history.epochs[-1].step == epoch * per_epoch:
            kept = {**state, **({"best": best} if best else {})}
            callbacks.on_checkpoint(Checkpoint(tuple(history.epochs), kept, recorder.notes()))

    # After the checkpoint: a training that resumes from it has not ended here.
    if history.epochs[-1].step == total:
        recorder.look(total)
    history.stopped_early = history.waited(options.early_stopping) and history.epochs[-1].step < total
    if best:
        history.left_at = history.best_epoch
        for variable, value in zip(autoencoder.model.weights, best, strict=True):
            variable.assign(value)
    return history


def _train_epoch(
    epoch: int,
    per_epoch: int,
    total: int,
    steps: CompiledSteps,
    recipe: Recipe,
    history: History,
    recorder: Recorder,
    callbacks: Callbacks,
) -> None:
    """Trains one epoch and validates it; adds the result to the history."""
    first = (epoch - 1) * per_epoch
    count = min(per_epoch, total - first)
    factors = recipe.schedule.rate_factors(range(first, first + count), total, history.val_losses)
    rates = [recipe.optimizer.learning_rate * factor for factor in factors]
    order = image_order(recipe.seed, epoch, len(steps.images.train))
    trained = steps.epoch(
        order[: count * recipe.training.batch_size],
        rates,
        first,
        functools.partial(callbacks.on_steps, epoch),
    )
    history.diverged_in = trained.broken
    if trained.broken is None:
        validation = steps.validate()
        if not math.isfinite(validation["val_loss"]):
            history.diverged_in = "validation loss"
    if history.diverged_in is not None:
        history.diverged_at = first + trained.steps
        return
    history.epochs.append(
        Epoch(
            epoch=epoch,
            step=first + count,
            train_loss=trained.data_loss + trained.penalty,
            train_data_loss=trained.data_loss,
            train_penalty=trained.penalty,
            train_gradient_norm=trained.gradient_norm,
            learning_rate=rates[-1],
            **validation,
        )
    )
    history.left_at = epoch
    recorder.epoch(first + count, trained.kernel_norms, look=epoch in recipe.training.snapshots)


def _resumed(checkpoint: Checkpoint, steps: CompiledSteps, recorder: Recorder) -> History:
    """Restores steps and recorder from a checkpoint and returns its history, or raises UserError."""
    try:
        steps.restore({name: checkpoint.state[name] for name in ("network", "optimizer")})
        recorder.resume(checkpoint.recorder)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"the checkpoint is of another network or optimizer: {error}",
            hint="It may come from another version of cae or Keras. cae train starts a new run.",
        ) from error
    epochs = list(checkpoint.epochs)
    return History(epochs, left_at=epochs[-1].epoch)
