"""The compiled steps of one network: training steps and validation."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import Images, as_float, images_at_a_time, images_that_fit
from cae_cli.introspection import Autoencoder
from cae_cli.introspection.training_mode import Penalties
from cae_cli.metrics.quality import MSE_FLOOR
from cae_cli.metrics.similarity import K1, K2, SIGMA, fitting_window
from cae_cli.training.forward import cut, forward, may_be_cut
from cae_cli.training.losses import StructuralSimilarity
from cae_cli.training.options import Recipe
from cae_cli.training.recorder import EARLY, Recorder, kernels

Tensor = Any

# Steps that run in TensorFlow without returning to Python: enough to make the return cheap, few enough
# that the display moves and a signal is handled soon.
CHUNK = 32
CHUNK_BYTES = 2**26  # with large images a chunk has fewer steps

# What a step returns before the gradient norm of each kernel. The sum of the weights shows whether
# they are finite.
WATCHED = ("loss", "penalty", "gradient", "weights")


@dataclass(frozen=True)
class Trained:
    """Means over the steps of an epoch; ``broken``: which value was not finite at its last step."""

    steps: int
    data_loss: float
    penalty: float
    gradient_norm: float
    kernel_norms: NDArray[np.float32]
    broken: str | None

    @classmethod
    def of(cls, steps: int, means: NDArray[np.float64], broken: str | None = None) -> Trained:
        """From the means of what `CompiledSteps._step` returns."""
        data_loss, penalty, gradient_norm = map(float, means[:3])
        kernel_norms = means[len(WATCHED) :].astype(np.float32)
        return cls(steps, data_loss, penalty, gradient_norm, kernel_norms, broken)


class CompiledSteps:
    """The compiled training and validation steps of one network."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        images: Images,
        recipe: Recipe,
        recorder: Recorder,
        parts: int,
    ) -> None:
        import tensorflow as tf

        self.model = autoencoder.model
        self.loss = recipe.loss
        self.augmentation = recipe.augmentation
        self.seed = recipe.seed
        self.batch_size = recipe.training.batch_size
        self.at_a_time = images_at_a_time(images.shape, images_that_fit(autoencoder.bytes_per_image))
        self.recorder = recorder
        weights = kernels(self.model)
        self.penalties = Penalties(
            self.model, weights, lambda _, targets, outputs: recipe.loss(targets, outputs)
        )
        kernel_ids = {id(kernel) for kernel in weights}
        self.is_kernel = [id(v) in kernel_ids for v in self.model.trainable_variables]
        self.width = len(WATCHED) + sum(self.is_kernel)
        plain = recipe.optimizer.build()
        self.learning_rate = plain.learning_rate  # a variable
        self.optimizer = _scaled(plain)
        self.scales_loss = self.optimizer is not plain
        self.optimizer.build(self.model.trainable_variables)
        self.forward = forward(self.model)
        self.parts = parts if may_be_cut(self.model) else 1
        self.images = images
        pixels, self.training_pixels = _source(images.train_inputs, images.train)
        checked, self.validation_pixels = _source(images.validation_inputs, images.validation)
        self.chunk = int(np.clip(CHUNK_BYTES // (pixels.nbytes * self.batch_size), 1, CHUNK))
        self.window = fitting_window(min(images.shape[:2]))
        self.run_steps = self._compiled(
            self._run_steps,
            tf.TensorSpec((None, None, *pixels.shape[1:]), pixels.dtype),
            tf.TensorSpec((None,), tf.float32),
            tf.TensorSpec((), tf.int32),
        )
        self.run_validation = self._compiled(
            self._run_validation, tf.TensorSpec((None, *checked.shape[1:]), checked.dtype)
        )

    def _compiled(self, function: Callable[..., Any], *signature: Any) -> Callable[..., Any]:
        """The compiled function, its first argument bound to the number of parts of the batch.

        Chunks and batches of any length use the same trace; a last batch with fewer images than parts
        uses a second one.
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
    ) -> Trained:
        """One pass over the images in ``order``; the last batch may be smaller.

        Args:
            order: (n,) indices.
            rates: the learning rate of each step.
            first: number of steps made before this epoch.
            on_steps: called with the step of the epoch and its loss after every chunk.
        """
        sums, count = np.zeros(self.width), 0  # weighted by the images of each step
        for indices, start in self._pieces(order, first):
            step = first + start
            pixels = self.training_pixels(indices)
            if step < EARLY:
                batch = self._batches(pixels[0], step)
                if self.recorder.wants_batch(step):
                    self.recorder.batches(*batch)
                self.recorder.pulls(self.penalties(*batch)[1])
            self.recorder.before(step, first_of_epoch=start == 0)
            values, finite = self.run_steps(
                pixels,
                np.array(rates[start : start + len(indices)], np.float32),
                np.int32(step),
            )
            values = values.numpy()  # (steps, width)
            self.recorder.losses(values[:, 0])
            self.recorder.after(
                step + len(values) - 1,
                first_of_epoch=start == 0,
                data_loss=float(values[-1, 0]),
                penalty=float(values[-1, 1]),
            )
            if not finite:
                broken = WATCHED[int(np.argmin(np.isfinite(values[-1, : len(WATCHED)])))]
                return Trained.of(start + len(values), sums / max(1, count), broken)
            sums += values.sum(axis=0, dtype=np.float64) * indices.shape[1]
            count += indices.size
            on_steps(start + len(values), float(values[-1, :2].sum()))
        return Trained.of(len(rates), sums / count)

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

    def _batches(
        self, pixels: NDArray[np.generic], step: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Inputs and targets of a step, as the network and the loss get them."""
        (inputs,), (targets,) = self._batch(1, pixels, np.int32(step))
        return np.asarray(inputs), np.asarray(targets)

    def state(self) -> dict[str, list[NDArray[Any]]]:
        """Copies of all variables that a step changes, the seeds of dropout and noise included."""
        return {name: [np.array(v) for v in variables] for name, variables in self._variables.items()}

    def restore(self, state: Mapping[str, list[NDArray[Any]]]) -> None:
        """Sets the variables to what `state` returned, or to a part of it.

        Raises:
            ValueError: the state is of another network or optimizer.
        """
        for name, values in state.items():
            for variable, value in zip(self._variables[name], values, strict=True):
                if tuple(variable.shape) != value.shape:
                    raise ValueError(f"{variable.path} is {tuple(variable.shape)}, not {value.shape}")
                variable.assign(value)

    @property
    def _variables(self) -> dict[str, list[Any]]:
        # Keras leaves the generators out of `weights`.
        return {"network": self.model.variables, "optimizer": self.optimizer.variables}

    def validate(self) -> dict[str, float]:
        """Loss (without penalties), MSE, PSNR and SSIM of the validation images."""
        count = len(self.images.validation)
        batch = self.at_a_time
        sums = np.zeros(4)
        for start in range(0, count, batch):
            part = self.validation_pixels(slice(start, start + batch))
            sums += self.run_validation(part).numpy().astype(np.float64) * len(part)
        loss, mse, psnr, ssim = sums / count
        return {
            "val_loss": float(loss),
            "val_mse": float(mse),
            "val_psnr": float(psnr),
            "val_ssim": float(ssim),
        }

    def _run_steps(
        self, parts: int, pixels: Tensor, rates: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Steps over (steps, batch, h, w, c) pixels; ends early at a step that is not finite.

        Pairs have 2c channels: those of the inputs, then those of the targets.
        """
        import tensorflow as tf

        count = tf.shape(pixels)[0]

        def body(step: Tensor, values: Any, _: Tensor) -> tuple[Tensor, Any, Tensor]:
            taken = self._step(parts, pixels[step], rates[step], first + step)
            return step + 1, values.write(step, taken), tf.reduce_all(tf.math.is_finite(taken))

        values = tf.TensorArray(tf.float32, count, element_shape=(self.width,))
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
        return (inputs, targets) if not self.images.are_pairs else _halves(inputs, targets)

    def _step(self, parts: int, pixels: Tensor, rate: Tensor, number: Tensor) -> Tensor:
        """One training step; returns the `WATCHED` values and the norm of each kernel's gradient.

        A step whose loss or gradient is not finite is not applied.
        """
        import tensorflow as tf

        inputs, targets = self._batch(parts, pixels, number)
        # Batch normalisation updates its averages in the forward pass, before the step is known good.
        state = self.model.non_trainable_variables
        before = [tf.identity(variable.value) for variable in state]
        with tf.GradientTape() as tape:
            outputs = self.forward(inputs, training=True)
            data_loss = _mean_over(self.loss, targets, outputs)
            # With mixed precision those on weights have 32 bits, those on activations 16.
            penalties = [tf.cast(each, tf.float32) for each in self.model.losses]
            penalty = tf.add_n(penalties) if penalties else tf.zeros(())
            scaled = self.optimizer.scale_loss(data_loss + penalty)
        variables = self.model.trainable_variables
        gradients = tape.gradient(scaled, variables)
        # A loss scale that is too large makes infinite gradients; the optimizer then skips the step and
        # lowers the scale. That is no divergence, and the norm of such gradients means nothing.
        squares = [2 * tf.nn.l2_loss(tf.cast(gradient, tf.float32)) for gradient in gradients]
        norms = [tf.sqrt(s) for s, chosen in zip(squares, self.is_kernel, strict=True) if chosen]
        norm = tf.sqrt(tf.add_n(squares))
        if self.scales_loss:
            norm, norms = tf.zeros(()), [tf.zeros(()) for _ in norms]
        taken = tf.stack([data_loss, penalty, norm, *norms])

        def apply() -> Tensor:
            self.learning_rate.assign(rate)
            self.optimizer.apply(gradients, variables)
            floats = (v for v in self.model.variables if v.dtype.startswith("float"))
            return tf.add_n([tf.reduce_sum(tf.cast(v.value, tf.float32)) for v in floats])

        def undo() -> Tensor:
            for variable, value in zip(state, before, strict=True):
                variable.assign(value)
            return tf.zeros(())

        weights = tf.cond(tf.reduce_all(tf.math.is_finite(taken)), apply, undo)
        split = WATCHED.index("weights")
        return tf.concat([taken[:split], [weights], taken[split:]], axis=0)

    def _run_validation(self, parts: int, pixels: Tensor) -> Tensor:
        """Means over a batch: loss, MSE, PSNR, SSIM."""
        inputs = targets = cut(_as_float(pixels), parts)
        if self.images.are_pairs:
            inputs, targets = _halves(inputs, targets)
        return _mean_over(self._metrics, targets, self.forward(inputs, training=False))

    def _metrics(self, targets: Tensor, outputs: Tensor) -> Tensor:
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


def _source(
    inputs: NDArray[np.generic] | None, images: NDArray[np.generic]
) -> tuple[NDArray[np.generic], Callable[[Any], NDArray[np.generic]]]:
    """The first image as a step gets it, and a function from indices to such pixels.

    The two images of a pair are one image with twice the channels, so that all that is done to images
    is done to both alike.
    """

    def pixels(indices: Any) -> NDArray[np.generic]:
        both = [part[indices] for part in (inputs, images) if part is not None]
        if len({part.dtype for part in both}) > 1:
            both = [as_float(part) for part in both]
        return np.concatenate(both, axis=-1) if len(both) > 1 else both[0]

    return pixels(slice(1)), pixels


def _halves(inputs: list[Tensor], targets: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The first half of the channels of ``inputs``, and the second half of those of ``targets``."""
    c = inputs[0].shape[-1] // 2
    return [x[..., :c] for x in inputs], [x[..., c:] for x in targets]


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
