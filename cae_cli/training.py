"""Trains an autoencoder: the order of the images, the steps, what is kept after every epoch.

Everything random is a pure function of (seed, epoch, step): the order of the images comes from
(seed, epoch), the augmentation from (seed, step), the learning rate from the step and the validation
losses so far. Keras' own ``fit`` shows the images in the same order every epoch once its seed is set.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.anatomy import Autoencoder
from cae_cli.data import Images, images_at_a_time
from cae_cli.data.augmentation import Augmentation
from cae_cli.errors import UserError
from cae_cli.forward import cut, forward, may_be_cut
from cae_cli.losses import Loss, StructuralSimilarity
from cae_cli.measures.quality import MSE_FLOOR
from cae_cli.measures.similarity import K1, K2, SIGMA, fitting_window
from cae_cli.optimizers import Optimizer, Schedule
from cae_cli.options import option
from cae_cli.recorder import Recorder, kernels

Tensor = Any

# Steps that run in TensorFlow without coming back to Python: enough to make the way back cheap,
# few enough that the display moves and a signal is seen soon.
CHUNK = 32
CHUNK_BYTES = 2**26  # of large images there are fewer steps


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
    seconds: float

    def row(self) -> dict[str, float]:
        """Values by the names that metrics.csv uses ("train/loss")."""
        return {
            key.replace("_", "/", 1) if key.startswith(("train_", "val_")) else key: value
            for key, value in asdict(self).items()
        }


@dataclass
class Watcher:
    """What the caller wants to hear of while training runs. Each may be replaced."""

    on_steps: Callable[[int, int, float], None] = lambda epoch, step, loss: None
    on_epoch: Callable[[Epoch, bool], None] = lambda epoch, best: None


@dataclass
class History:
    """What happened.

    Attributes:
        epochs: one entry per finished epoch, the first for the network before training.
        stopped_early: training ended before ``training.epochs``.
        diverged_at: the step whose loss or gradient was not finite, or None.
        left_at: the epoch whose weights the network was left with; of a training that diverged, the
            last whole one before them.
    """

    epochs: list[Epoch] = field(default_factory=list)
    stopped_early: bool = False
    diverged_at: int | None = None
    left_at: int = 0

    @property
    def val_losses(self) -> list[float]:
        """Validation losses of the trained epochs."""
        return [e.val_loss for e in self.epochs if e.epoch > 0]

    @property
    def best_epoch(self) -> int:
        """The trained epoch of the lowest validation loss; 0 if there is none."""
        finite = [e for e in self.epochs if e.epoch > 0 and math.isfinite(e.val_loss)]
        return min(finite, key=lambda e: e.val_loss).epoch if finite else 0


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
) -> History:
    """Trains the autoencoder in place.

    A step whose loss or gradient is not finite is not applied: training ends there and the weights
    stay those of the last good step.

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

    Returns:
        The history.
    """
    loop = Loop(
        autoencoder, images, loss, optimizer, augmentation, seed, options.batch_size, recorder, parts
    )
    count = len(images.train)
    steps_per_epoch = math.ceil(count / options.batch_size)
    total = min(steps_per_epoch * options.epochs, options.steps or sys.maxsize)
    history = History()
    history.epochs.append(loop.before_training(optimizer.learning_rate))
    watcher.on_epoch(history.epochs[0], False)
    best_weights: list[NDArray[np.float32]] = []

    for epoch in range(1, math.ceil(total / steps_per_epoch) + 1):
        began = time.perf_counter()
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
        if not trained.finite:
            history.diverged_at = first + trained.steps
            return history
        record = Epoch(
            epoch=epoch,
            step=first + steps,
            train_loss=trained.data_loss + trained.penalty,
            train_data_loss=trained.data_loss,
            train_penalty=trained.penalty,
            train_gradient_norm=trained.gradient_norm,
            learning_rate=rates[-1],
            seconds=time.perf_counter() - began,
            **loop.validate(),
        )
        history.epochs.append(record)
        history.left_at = epoch
        recorder.epoch(
            record.step,
            trained.kernel_norms,
            look=epoch in options.snapshots or record.step == total,
        )
        is_best = history.best_epoch == epoch
        if is_best and options.early_stopping:
            best_weights = [np.array(v) for v in autoencoder.model.weights]
        watcher.on_epoch(record, is_best)
        if options.early_stopping and epoch - history.best_epoch >= options.early_stopping:
            history.stopped_early = epoch < options.epochs
            break
    if best_weights:
        history.left_at = history.best_epoch
        for variable, value in zip(autoencoder.model.weights, best_weights, strict=True):
            variable.assign(value)
    return history


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


@dataclass(frozen=True)
class _Trained:
    """Means over the steps of an epoch; ``finite`` is False if it ended at a bad step."""

    steps: int
    data_loss: float
    penalty: float
    gradient_norm: float
    kernel_norms: NDArray[np.float32]
    finite: bool

    @classmethod
    def of(cls, steps: int, means: NDArray[np.float64], *, finite: bool) -> _Trained:
        """From the means of what `Loop._step` returns."""
        data_loss, penalty, gradient_norm = map(float, means[:3])
        kernel_norms = means[3:].astype(np.float32)
        return cls(steps, data_loss, penalty, gradient_norm, kernel_norms, finite)


class Loop:
    """The compiled training and validation steps of one network."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        images: Images,
        loss: Loss,
        optimizer: Optimizer,
        augmentation: Augmentation,
        seed: int,
        batch_size: int,
        recorder: Recorder,
        parts: int,
    ) -> None:
        import tensorflow as tf

        self.model = autoencoder.model
        self.loss = loss
        self.augmentation = augmentation
        self.seed = seed
        self.batch_size = batch_size
        self.recorder = recorder
        kernel_ids = {id(kernel) for kernel in kernels(self.model)}
        self.is_kernel = [id(v) in kernel_ids for v in self.model.trainable_variables]
        plain = optimizer.build()
        self.learning_rate = plain.learning_rate  # a variable
        self.optimizer = _scaled(plain)
        self.scales_loss = self.optimizer is not plain
        self.optimizer.build(self.model.trainable_variables)
        self.forward = forward(self.model)
        self.parts = parts if may_be_cut(self.model) else 1
        self.images = images
        self.chunk = int(np.clip(CHUNK_BYTES // (images.train[:1].nbytes * batch_size), 1, CHUNK))
        self.window = fitting_window(min(images.shape[:2]))
        self.run_steps = self._compiled(
            self._run_steps,
            tf.TensorSpec((None, None, *images.shape), images.train.dtype),
            tf.TensorSpec((None,), tf.float32),
            tf.TensorSpec((), tf.int32),
        )
        self.run_validation = self._compiled(
            self._run_validation, tf.TensorSpec((None, *images.shape), images.validation.dtype)
        )

    def _compiled(self, function: Callable[..., Any], *signature: Any) -> Callable[..., Any]:
        """The function with its first argument, the number of parts, bound to that of the batch.

        Chunks and batches of any length use the same trace; a last batch with fewer images than
        parts has one of its own, made when it comes.
        """
        import tensorflow as tf

        compiled = {
            parts: tf.function(
                functools.partial(function, parts), input_signature=signature, autograph=False
            )
            for parts in (1, self.parts)
        }

        def call(images: NDArray[np.generic], *others: Any) -> Any:
            batch = images.shape[-4]
            return compiled[self.parts if batch >= self.parts else 1](images, *others)

        return call

    def epoch(
        self,
        order: NDArray[np.int32],
        rates: Sequence[float],
        first: int,
        on_steps: Callable[[int, float], None],
    ) -> _Trained:
        """One pass over the images in ``order``; the last batch may be smaller.

        Args:
            order: (n,) indices.
            rates: the learning rate of each step.
            first: number of steps made before this epoch.
            on_steps: called with the step of the epoch and its loss after every chunk.
        """
        width = 3 + sum(self.is_kernel)
        sums, seen = np.zeros(width), 0  # weighted by images, as the mean over an epoch should be
        for indices, start in self._pieces(order, first):
            step = first + start
            pixels = self.images.train[indices]
            if self.recorder.wants_batch(step):
                self.recorder.fed(*self._fed(pixels[0], step))
            self.recorder.before(step, first_of_epoch=start == 0)
            values, finite = self.run_steps(
                pixels,
                np.array(rates[start : start + len(indices)], np.float32),
                np.int32(step),
            )
            values = values.numpy()  # (steps, width): data loss, penalty, gradient norm, each kernel's
            self.recorder.losses(values[:, 0])
            self.recorder.after(
                step + len(values) - 1,
                first_of_epoch=start == 0,
                data_loss=float(values[-1, 0]),
                penalty=float(values[-1, 1]),
            )
            if not finite:
                return _Trained.of(start + len(values), sums / max(1, seen), finite=False)
            sums += values.sum(axis=0, dtype=np.float64) * indices.shape[1]
            seen += indices.size
            on_steps(start + len(values), float(values[-1, :2].sum()))
        return _Trained.of(len(rates), sums / seen, finite=True)

    def _pieces(self, order: NDArray[np.int32], first: int) -> list[tuple[NDArray[np.int32], int]]:
        """An epoch's order as (steps, batch) indices, each with the step that it begins at."""
        batch = self.batch_size
        whole = len(order) // batch
        starts = sorted({0, *range(0, whole, self.chunk), *self.recorder.cuts(first, whole)})
        pieces = [
            (order[start * batch : end * batch].reshape(-1, batch), start)
            for start, end in zip(starts, [*starts[1:], whole], strict=True)
            if end > start
        ]
        if len(order) > whole * batch:
            pieces.append((order[whole * batch :][None], whole))
        return pieces

    def _fed(
        self, pixels: NDArray[np.generic], step: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Inputs and targets of a step, as the network and the loss get them."""
        (inputs,), (targets,) = self._batch(1, pixels, np.int32(step))
        return np.asarray(inputs), np.asarray(targets)

    def validate(self) -> dict[str, float]:
        """Loss (without penalties) and yardsticks of the validation images."""
        images = self.images.validation
        count = len(images)
        batch = images_at_a_time(self.model.input_shape[1:])
        sums = np.zeros(4)
        for start in range(0, count, batch):
            part = images[start : start + batch]
            sums += self.run_validation(part).numpy().astype(np.float64) * len(part)
        loss, mse, psnr, ssim = sums / count
        return {
            "val_loss": float(loss),
            "val_mse": float(mse),
            "val_psnr": float(psnr),
            "val_ssim": float(ssim),
        }

    def before_training(self, learning_rate: float) -> Epoch:
        """The line of epoch 0: nothing trained yet, validation measured."""
        nothing = float("nan")
        began = time.perf_counter()
        values = self.validate()
        return Epoch(
            epoch=0,
            step=0,
            train_loss=nothing,
            train_data_loss=nothing,
            train_penalty=nothing,
            train_gradient_norm=nothing,
            learning_rate=learning_rate,
            seconds=time.perf_counter() - began,
            **values,
        )

    def _run_steps(
        self, parts: int, pixels: Tensor, rates: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Steps over (steps, batch, h, w, c) pixels; ends early at a step that is not finite."""
        import tensorflow as tf

        count = tf.shape(pixels)[0]

        def body(step: Tensor, values: Any, _: Tensor) -> tuple[Tensor, Any, Tensor]:
            taken = self._step(parts, pixels[step], rates[step], first + step)
            return step + 1, values.write(step, taken), tf.reduce_all(tf.math.is_finite(taken))

        values = tf.TensorArray(tf.float32, count, element_shape=(3 + sum(self.is_kernel),))
        done, values, finite = tf.while_loop(
            lambda step, _, finite: tf.logical_and(step < count, finite),
            body,
            (tf.constant(0), values, tf.constant(True)),
        )
        return values.stack()[:done], finite

    def _batch(self, parts: int, pixels: Tensor, number: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Inputs and targets of the step ``number``, in parts."""
        import tensorflow as tf

        inputs = targets = [_as_float(part) for part in cut(pixels, parts)]
        if self.augmentation.active:
            draws = self.augmentation.draws(tf.shape(pixels)[0], tf.stack([self.seed, number]))
            inputs = list(map(self.augmentation.transformed, inputs, cut(draws, parts)))
            if self.augmentation.target == "same":
                targets = inputs
        return inputs, targets

    def _step(self, parts: int, pixels: Tensor, rate: Tensor, number: Tensor) -> Tensor:
        """One training step; returns data loss, penalty, gradient norm, and each kernel's norm."""
        import tensorflow as tf

        inputs, targets = self._batch(parts, pixels, number)
        # Batch normalisation moves its averages while it looks, before the step is known to be good.
        state = self.model.non_trainable_variables
        before = [tf.identity(variable.value) for variable in state]
        with tf.GradientTape() as tape:
            outputs = self.forward(inputs, training=True)
            data_loss = _mean_over(self.loss, targets, outputs)
            penalty = tf.add_n(self.model.losses) if self.model.losses else tf.zeros(())
            penalty = tf.cast(penalty, tf.float32)
            scaled = self.optimizer.scale_loss(data_loss + penalty)
        variables = self.model.trainable_variables
        gradients = tape.gradient(scaled, variables)
        # A loss scale that is too large makes infinite gradients, and the optimizer skips the step
        # and lowers it: that is no divergence, and such gradients have no norm to speak of.
        squares = [2 * tf.nn.l2_loss(tf.cast(gradient, tf.float32)) for gradient in gradients]
        norms = [tf.sqrt(s) for s, chosen in zip(squares, self.is_kernel, strict=True) if chosen]
        norm = tf.sqrt(tf.add_n(squares))
        if self.scales_loss:
            norm, norms = tf.zeros(()), [tf.zeros(()) for _ in norms]
        taken = tf.stack([data_loss, penalty, norm, *norms])

        def apply() -> None:
            self.learning_rate.assign(rate)
            self.optimizer.apply(gradients, variables)

        def undo() -> None:
            for variable, value in zip(state, before, strict=True):
                variable.assign(value)

        tf.cond(tf.reduce_all(tf.math.is_finite(taken)), apply, undo)
        return taken

    def _run_validation(self, parts: int, pixels: Tensor) -> Tensor:
        """Means over a batch: loss, MSE, PSNR, SSIM."""
        targets = cut(_as_float(pixels), parts)
        return _mean_over(self._yardsticks, targets, self.forward(targets, training=False))

    def _yardsticks(self, targets: Tensor, outputs: Tensor) -> Tensor:
        """Loss, MSE, PSNR and SSIM, means over images."""
        import tensorflow as tf

        similarity = StructuralSimilarity(window=self.window, sigma=SIGMA, k1=K1, k2=K2)
        mse = tf.reduce_mean(tf.square(targets - outputs), axis=(1, 2, 3))  # (n,)
        psnr = -10 / math.log(10) * tf.math.log(tf.maximum(mse, MSE_FLOOR))
        return tf.stack(
            [
                self.loss(targets, outputs),
                tf.reduce_mean(mse),
                tf.reduce_mean(psnr),
                1 - similarity(targets, outputs),
            ]
        )


def _mean_over(
    mean: Callable[[Tensor, Tensor], Tensor], targets: list[Tensor], outputs: list[Tensor]
) -> Tensor:
    """A mean over the images of a batch, from the means over its parts."""
    import tensorflow as tf

    if len(targets) == 1:
        return mean(targets[0], outputs[0])
    sizes = [tf.cast(tf.shape(target)[0], tf.float32) for target in targets]
    sums = [n * mean(t, o) for n, t, o in zip(sizes, targets, outputs, strict=True)]
    return tf.add_n(sums) / tf.add_n(sizes)


def _as_float(images: Tensor) -> Tensor:
    """`data.as_float` for tensors."""
    import tensorflow as tf

    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) * (1 / 255)
    return images


def _scaled(optimizer: Any) -> Any:
    """The optimizer, with loss scaling where gradients are computed in float16."""
    import keras

    if keras.mixed_precision.global_policy().compute_dtype == "float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
