"""The diagnosis as a Keras callback, for the user's own ``model.fit(...)``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cae_cli import experiment
from cae_cli.data import Images, as_float
from cae_cli.diagnosis.trials import Trials
from cae_cli.errors import UserError
from cae_cli.external.model import options_of, prepare, span_of, stored, write_run
from cae_cli.external.training import Array, compiled, of_model
from cae_cli.external.treat import budget_of, proven
from cae_cli.external.trials import STEPS
from cae_cli.introspection.keras_internals import observe_batches
from cae_cli.introspection.probe import Probe
from cae_cli.report import terminal
from cae_cli.runs.folder import Run
from cae_cli.system import streams
from cae_cli.system.files import claim
from cae_cli.training.history import Epoch
from cae_cli.training.recorder import EARLY, Recorder

HELD_OUT = 0.1  # default share of held-out images: the last ones, as with ``validation_split``
MOST_FED = 2**28  # bytes of the batches that are kept to try fixes on
# Epochs after which the feature maps are measured.
LOOKS = (1, 2, 3, 5, 10, 20, 50, 100)


class Diagnosis(keras.callbacks.Callback):  # type: ignore[misc]
    """Records a training and diagnoses the filters at its end.

    Args:
        images: (n, h, w, c) that the network is trained on, in the range that it is trained on.
        held_out: (m, h, w, c) images that it is not trained on; None: the last tenth of ``images``,
            which ``validation_split=0.1`` keeps out of training too.
        latent: name of the layer whose output is the latent code; None: detected.
        folder: the parent of the folder for files and pictures.
        try_fixes: for how long fixes are tried on the training when it has ended, like "60s"; None: not.
            The user's model is not changed by that.
        verbose: 0 prints nothing, 1 the summary, 2 every number.

    Attributes:
        report: after training, the content of summary.json.
        trials: the fixes that were tried, see `diagnosis.trials.Trials`; None if none were.
        folder: with files and pictures.
    """

    def __init__(
        self,
        images: NDArray[Any],
        held_out: NDArray[Any] | None = None,
        *,
        latent: str | None = None,
        folder: str | Path = "runs/keras",
        try_fixes: str | float | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        images = np.asarray(images)
        if images.ndim != 4 or (held_out is not None and np.ndim(held_out) != 4):
            raise UserError(
                f"the images must have the shape (n, h, w, c), got {images.shape}",
                hint="x[..., None] adds the channel axis.",
            )
        if len(images) < 2:
            raise UserError(f"at least two images are needed, got {len(images)}")
        if held_out is None:
            count = max(1, round(HELD_OUT * len(images)))
            images, held_out = images[:-count], images[-count:]
        self.span = span_of(images)
        self.images = Images(
            train=stored(images, self.span),
            validation=stored(np.asarray(held_out), self.span),
            source="fit",
        )
        self.latent = latent
        self.parent = Path(folder)
        self.verbose = verbose
        self.report: dict[str, Any] = {}
        self.trials: Trials | None = None
        self._budget = None if try_fixes is None else budget_of(try_fixes)
        self._fed: list[tuple[Array, Array]] = []  # the first batches, where fixes are tried
        self._batch = 0
        self._step = self._epoch = 0
        self._diverged: int | None = None
        self._loss_sum = 0.0  # sum over the steps of this epoch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Claims a folder and probes the untrained network."""
        self.run = Run(claim(self.parent))
        self.folder = self.run.folder
        self._rate = _learning_rate(self.model)  # schedules change it later
        autoencoder, self._network, fitting = prepare(self.model, self.images, self.latent, self.span)
        self.probe = Probe(autoencoder, self.images, fitting=fitting)
        self.recorder = Recorder(self.model, self.probe.spreads)
        self._step = self._epoch = 0
        self._diverged = None
        self._rows: list[dict[str, float]] = []
        self._row(math.nan, math.nan)
        self._fed = []
        self._compiled = compiled(self.model)
        observe_batches(self.model, self._wants_batch, self._record_batch)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Prepares to measure the step."""
        self._batch = batch
        if batch == 0:
            self._loss_sum = 0.0
        self.recorder.before(self._step, first_of_epoch=batch == 0)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures the step, or the steps: Keras may make several at once."""
        mean = float((logs or {}).get("loss", math.nan))
        made = batch - self._batch + 1
        # Keras reports the mean over the epoch so far.
        loss = (mean * (batch + 1) - self._loss_sum) / made
        self._loss_sum = mean * (batch + 1)
        if not math.isfinite(mean) and self._diverged is None and logs and "loss" in logs:
            self._diverged = self._step
        penalty = _penalty(self.model) if self._step < EARLY else 0.0
        self.recorder.losses(np.full(made, loss, np.float32))
        if made == 1:
            self.recorder.after(
                self._step,
                first_of_epoch=batch == 0,
                data_loss=loss - penalty,
                penalty=penalty,
            )
        self._step += made

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Records the epoch."""
        logs = logs or {}
        self._epoch += 1
        self.recorder.epoch(self._step, None, look=self._epoch in LOOKS)
        # Keras adds the penalties of the weights to its validation loss.
        val_loss = logs.get("val_loss", math.nan) - _penalty(self.model)
        self._row(logs.get("loss", math.nan), val_loss)

    @streams.guarded()  # that nobody reads the summary must not end the user's script
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Measures, diagnoses, and prints the summary."""
        self.recorder.epoch(self._step, None, look=True)
        arrays = {**self.probe.record(), **self.recorder.record()}
        self.run.write_arrays(self.run.snapshot(self._epoch), self.probe.snapshot())
        self._rows[-1] |= {"val/mse": arrays["mse"].mean(), "val/ssim": arrays["ssim"].mean()}
        self.run.write_metrics(self._rows)
        optimizer = type(self.model.optimizer).__name__
        options = options_of(getattr(self.model, "loss", None), optimizer, self._rate)
        write_run(
            self.run,
            self.images,
            arrays,
            options,
            network=self._network,
            measured_epoch=self._epoch,
            diverged_at=self._diverged,
        )
        self.outcome = self._proven() or experiment.report(self.run, silent=not self.verbose)
        self.trials = self.outcome.trials
        self.report = self.run.summary()
        if self.verbose:
            terminal.show(self.outcome.summary(verbose=self.verbose > 1))
            terminal.show([terminal.folder(self.folder)])

    def _proven(self) -> experiment.Outcome | None:
        """The report with fixes tried; None without a budget, or if it cannot be repeated."""
        if self._budget is None:
            return None
        screen = terminal.Screen()
        low, high = self.span
        images, held_out = (
            np.asarray(low + (high - low) * as_float(part), np.float32)
            for part in (self.images.train, self.images.validation)
        )
        x, y, size, shuffle = images, None, 32, True
        if self._fed:
            first, size = self._fed[0][0], len(self._fed[0][0])
            shuffle = not np.allclose(first, images[: len(first)], atol=1e-5)
            if any(not np.array_equal(*pair) for pair in self._fed):
                x, y = (np.concatenate(part) for part in zip(*self._fed, strict=True))
        held = (held_out,) if y is None else (held_out, held_out)
        try:
            training = of_model(
                self.model, x, y, held_out=held, batch_size=size, shuffle=shuffle, steps=self._step,
                **self._compiled,
            )  # fmt: skip
            say = screen.say if self.verbose else lambda _: None
            given = training.explained(training.model)
            return proven(self.run, training, budget=self._budget, given=given, say=say)
        except UserError as error:
            screen.say(f"! no fixes were tried: {error.what}")
        except KeyboardInterrupt:
            screen.say("! interrupted before a fix was tried")
        return None

    def _wants_batch(self) -> bool:
        return self.recorder.wants_batch(self._step) or self._keeps_batch()

    def _keeps_batch(self) -> bool:
        """Whether fixes are to be tried on what the next step gets."""
        if self._budget is None or self._step >= STEPS:
            return False
        return not self._fed or len(self._fed) * 2 * self._fed[0][0].nbytes < MOST_FED

    def _record_batch(self, batch: Any) -> None:
        """Records inputs and targets of a batch of images."""
        inputs, targets = keras.utils.unpack_x_y_sample_weight(batch)[:2]
        targets = inputs if targets is None else targets  # train_step makes its own
        if _is_image(inputs) and _is_image(targets) and inputs.shape == targets.shape:
            pair = np.asarray(inputs, np.float32), np.asarray(targets, np.float32)
            if self.recorder.wants_batch(self._step):
                self.recorder.batches(*pair)
            if self._keeps_batch():
                self._fed.append(pair)

    def _row(self, loss: float, val_loss: float) -> None:
        rate = _learning_rate(self.model)
        epoch = Epoch(
            self._epoch,
            self._step,
            train_loss=float(loss),
            train_data_loss=float(loss),
            val_loss=float(val_loss),
            learning_rate=math.nan if rate is None else rate,
        )
        self._rows.append(epoch.row())


def _is_image(value: Any) -> bool:
    return len(getattr(value, "shape", ())) == 4


def _penalty(model: Any) -> float:
    """The penalties of the weights, now."""
    regularized = [v for v in model.trainable_variables if getattr(v, "regularizer", None) is not None]
    return float(sum(float(v.regularizer(v.value)) for v in regularized))


def _learning_rate(model: Any) -> float | None:
    rate = getattr(getattr(model, "optimizer", None), "learning_rate", None)
    try:
        return None if rate is None else float(np.asarray(rate))
    except (TypeError, ValueError):
        return None
