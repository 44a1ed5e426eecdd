"""The diagnosis as a Keras callback, for the user's own ``model.fit(...)``."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from cae_cli import experiment
from cae_cli.diagnosis.case import FEWEST_STEPS, STEPS_FOR_SKILL
from cae_cli.diagnosis.trials import Trials
from cae_cli.errors import UserError
from cae_cli.external.fed import Pair, pair_of
from cae_cli.external.fit_images import FitImages, are_equal, given_pairs
from cae_cli.external.model import options_of, prepare, write_run
from cae_cli.external.training import Array, compiled, of_model
from cae_cli.external.treat import budget_of, proven
from cae_cli.external.trials import STEPS
from cae_cli.introspection.keras_internals import (
    observe_batches,
    put_last,
    release_batches,
    without_trace,
)
from cae_cli.introspection.loss_minimum import keras_loss
from cae_cli.introspection.probe import Probe
from cae_cli.introspection.training_mode import Penalties, data_loss, has_plain_loss
from cae_cli.report import page, terminal
from cae_cli.runs.folder import Run
from cae_cli.system import streams
from cae_cli.system.files import claim
from cae_cli.training.history import Epoch
from cae_cli.training.recorder import EARLY, Recorder

MEASURED = 256  # held-out images whose loss is measured
MOST_FED = 2**28  # bytes of the batches that are kept to try fixes on
# Epochs after which the feature maps are measured.
LOOKS = (1, 2, 3, 5, 10, 20, 50, 100)


def undisturbed(event: Callable[..., None]) -> Callable[..., None]:
    """An event that never disturbs the training: if it fails, the diagnosis is given up."""

    @functools.wraps(event)
    def guarded(self: Diagnosis, *args: Any, **kwargs: Any) -> None:
        try:
            event(self, *args, **kwargs)
        except Exception as error:
            self.give_up(error)

    return guarded


class Diagnosis(keras.callbacks.Callback):  # type: ignore[misc]
    """Records a training and diagnoses the filters at its end.

    Without images it takes some hundred of those that ``fit`` is fed, and of its validation data. A
    second ``fit`` of the same model continues the same training. An interrupted ``fit`` is diagnosed as
    far as it came. What cannot be diagnosed is said, and the training continues undisturbed.

    Args:
        images: (n, h, w, c) that the network is trained on, in the range that it is trained on; of a
            denoiser a tuple of inputs and targets. None, a data set or a generator: those that pass;
            nothing is consumed. They count too where ``fit`` gets other targets than inputs.
        held_out: (m, h, w, c) images, or inputs and targets, that it is not trained on; None: the last
            tenth of ``images``, which ``validation_split=0.1`` keeps out of training too, or those of
            ``validation_data``. If ``fit`` trains on that tenth, this is seen and said.
        latent: name of the layer whose output is the latent code; None: detected.
        folder: the parent of the folder for files and pictures.
        try_fixes: for how long fixes are tried on the training when it has ended, like "60s"; None: not.
            The user's model is not changed by that.
        verbose: 0 prints nothing, 1 the summary, 2 every number.

    Attributes:
        report: after training, the content of summary.json; {} if it could not be diagnosed.
        trials: the fixes that were tried, see `diagnosis.trials.Trials`; None if none were.
        folder: with files and pictures.
    """

    def __init__(
        self,
        images: Any = None,
        held_out: Any = None,
        *,
        latent: str | None = None,
        folder: str | Path = "runs/keras",
        try_fixes: str | float | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        self._given = given_pairs(images, held_out)
        self.latent = latent
        self.parent = Path(folder)
        self.verbose = verbose
        self.report: dict[str, Any] = {}
        self.trials: Trials | None = None
        self.recorder: Recorder | None = None  # once the images are known
        self._budget = None if try_fixes is None else budget_of(try_fixes)
        self._images = FitImages(self._given)
        self._fed: list[Pair] = []  # the first batches, where fixes are tried
        self._diverged: int | None = None  # the step
        self._step = self._earlier = 0  # of the optimizer: all, and those that were not recorded
        self._penalty = math.nan  # of the next step
        self._batch = self._done = 0  # the current batch of the epoch, and how many are done
        self._loss_sum = 0.0  # sum over the steps of this epoch
        self._running: contextlib.ExitStack | None = None  # the run, while it is recorded
        self._left: list[Array] = []  # the weights at the end of the last fit
        self._optimizer: Any = None  # of a loop of one's own
        self._epoch = 0

    # -- loops of one's own ------------------------------------------------------------------------

    @contextlib.contextmanager
    def watching(self, model: Any, optimizer: Any = None) -> Iterator[Diagnosis]:
        """Records a training loop of one's own in its block, and diagnoses at the end of the block.

            with Diagnosis(x).watching(model, optimizer) as watch:
                for batch in batches:
                    watch.step(my_step(batch), batch)

        Args:
            model: that is trained.
            optimizer: that trains it; None: the one that it was compiled with.

        Raises:
            UserError: the images were not given.
        """
        if self._given is None:
            raise UserError("a loop of one's own needs the images", hint="Diagnosis(x).watching(model)")
        self._optimizer = optimizer
        self.set_params({})
        self.set_model(model)
        self.on_train_begin()
        self.on_train_batch_begin(0)
        try:
            yield self
        except KeyboardInterrupt as error:
            self._ended(error)
            raise
        except BaseException as error:
            self.give_up(error)
            raise
        self._leave()

    @undisturbed
    def step(self, loss: Any, inputs: Any = None, targets: Any = None) -> None:
        """Records a step of `watching`, after it.

        Args:
            loss: of this step, or what ``train_on_batch`` returns.
            inputs: (n, h, w, c) of its batch; None: mistakes in the batches are not seen.
            targets: of the batch; None: the inputs.
        """
        first = keras.tree.flatten(loss)[0]
        pair = pair_of((inputs, inputs if targets is None else targets))
        if self.recorder is not None and pair and self.recorder.wants_batch(self._recorded):
            self.recorder.batches(*pair)
        self._after(self._batch, 1, float(first))
        self.on_train_batch_begin(self._batch + 1)

    @undisturbed
    def epoch(self, val_loss: float = math.nan) -> None:
        """Ends an epoch of `watching`; ``val_loss`` is that of held-out images, with penalties."""
        if self._done:
            self.on_epoch_end(self._epoch, {"loss": self._loss_sum / self._done, "val_loss": val_loss})
        self.on_train_batch_begin(0)

    @undisturbed
    def _leave(self) -> None:
        self._close_epoch()
        self._finish()

    def _close_epoch(self) -> None:
        """Records the epoch in whose middle the training ended."""
        if self.recorder is not None and self._done:
            self._epoch += 1
            self._row(self._loss_sum / self._done, math.nan)

    # -- events of Keras ---------------------------------------------------------------------------

    @undisturbed
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Claims a folder and probes the untrained network, or waits for the first images."""
        self._fail()  # where Keras did not tell how the last fit ended
        self.report, self.trials = {}, None
        self._fed, self._batch, self._done = [], 0, 0
        self._numbers: dict[int, int] = {}  # of the epochs, by those of this fit
        self._others = put_last(self, self._ended)
        self._compiled = compiled(self.model)
        observe_batches(self.model, self._wants_batch, self._record_batch, ended=self._ended)
        if self._continues():
            self._open()
        else:
            self.recorder = None
            self._images = FitImages(self._given)
            if self._images.known is not None:
                self._start(*self._images.known)
        self._warn()

    @streams.guarded()
    def _warn(self) -> None:
        """Says before the first step that too few are planned, if their number is known."""
        epochs, per_epoch = self.params.get("epochs"), self.params.get("steps")
        planned = _steps_of(self._of_training) + (epochs or 0) * (per_epoch or 0)
        if self.verbose and epochs and per_epoch and planned < FEWEST_STEPS:
            terminal.Screen().say(
                f"! {planned} steps are planned; {FEWEST_STEPS} are needed for a diagnosis, and most "
                f"networks need {STEPS_FOR_SKILL}: epochs={math.ceil(STEPS_FOR_SKILL / per_epoch)}"
            )

    @undisturbed
    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Prepares to measure the step."""
        self._batch = batch
        if batch == 0:
            self._loss_sum, self._done = 0.0, 0
        self._before()

    def _before(self) -> None:
        if self.recorder is not None:
            _ = self.model  # JAX gives its variables the values of the last step when it is asked for
            self.recorder.before(self._step, first_of_epoch=self._batch == 0)

    @undisturbed
    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures the step, or the steps: Keras may make several at once."""
        if self.recorder is None:
            return
        reported = float((logs or {}).get("loss", math.nan))
        made = batch - self._batch + 1
        loss = reported
        if self._averages(reported, batch):
            loss = (reported * (batch + 1) - self._loss_sum) / made
        self._after(batch, made, loss, known="loss" in (logs or {}))

    def _after(self, batch: int, made: int, loss: float, *, known: bool = True) -> None:
        """Measures the last ``made`` steps, whose mean loss is given; ``batch`` is the last of them."""
        if self.recorder is None:
            return
        _ = self.model  # as in `_before`
        self._loss_sum += made * loss
        self._done = batch + 1
        if known and not math.isfinite(loss) and self._diverged is None:
            self._diverged = self._step
        self.recorder.losses(np.full(made, loss, np.float32))
        if made == 1:
            self.recorder.after(
                self._step,
                first_of_epoch=batch == 0,
                data_loss=loss - self._penalty,
                penalty=self._penalty,
            )
        else:
            self.recorder.look_after(self._step, made)
        self._step += made
        self._penalty = math.nan

    @undisturbed
    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Sees the first validation batches, if it was given no images."""
        if self.recorder is not None:
            observe_batches(
                self.model,
                lambda: self._images.wants_held_out,
                self._record_validation_batch,
                of="test_function",
                ended=self._ended,
            )

    @undisturbed
    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Later validations show the same images again."""
        release_batches(self.model, "test_function")
        if self.recorder is not None:
            self._images.validation_ended()

    @undisturbed
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Records the epoch."""
        if self.recorder is None:
            return
        logs = logs or {}
        self._epoch += 1
        self._numbers[epoch] = self._epoch
        self._done = 0
        self._images.epoch_ended()
        self.recorder.epoch(self._step, None, look=self._epoch in LOOKS)
        # Keras adds the penalties of the weights to its validation loss.
        val_loss = logs.get("val_loss", math.nan) - _penalty(self.model)
        self._row(logs.get("loss", math.nan), val_loss)

    @undisturbed
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Measures, diagnoses, and prints the summary."""
        self._finish()

    @undisturbed
    def _ended(self, error: BaseException) -> None:
        """Diagnoses what was trained until the user interrupted ``fit``, and nothing after an error."""
        self._release()
        if not isinstance(error, KeyboardInterrupt):
            self._fail()
        elif self.recorder is None or self._running is not None:  # else its diagnosis was interrupted
            self._close_epoch()
            self._finish("interrupted by the keyboard")

    def _fail(self) -> None:
        """The run, if one is in progress, ended with an error of the training."""
        if self._running is not None:
            with self._ending():
                self.run.set_status("interrupted", "the training ended with an error")

    def _release(self) -> None:
        """The model gets its batches as before."""
        release_batches(self.model)
        release_batches(self.model, "test_function")

    def give_up(self, error: BaseException) -> None:
        """Records this training no longer."""
        said = f"{error.what}" if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        hint = f"; {error.hint}" if isinstance(error, UserError) and error.hint else ""
        terminal.Screen().say(f"! this training is not diagnosed: {said}{hint}")
        self.recorder = None
        self._images.close()
        if self._running is not None:
            with contextlib.suppress(Exception), self._ending():
                raise error  # the status and the log of the run tell it

    def _repr_html_(self) -> str | None:
        """The page of the run, for a notebook; None before the training has ended."""
        return page.framed(self.run.page) if self.report else None

    # -- beginning and end -------------------------------------------------------------------------

    def _continues(self) -> bool:
        """Whether this fit continues the one that was recorded last."""
        if self.recorder is None or self.recorder.model is not self.model:
            return False
        weights = self.model.get_weights()
        return len(weights) == len(self._left) and all(map(np.array_equal, weights, self._left))

    def _start(self, train: Pair, held_out: Pair) -> None:
        """Claims a folder and probes the network before its first step.

        Args:
            train: what it is trained on, in the range that it is trained on.
            held_out: what it is not trained on, as far as that is known.
        """
        self._rate = _learning_rate(self._of_training)  # schedules change it later
        self._earlier = _steps_of(self._of_training)  # in a fit that was not recorded
        images = self._images.use(train, held_out)
        given, span = self._images.spans
        autoencoder, self._network, fitting = prepare(self.model, images, self.latent, span, given)
        plain = has_plain_loss(self.model) and self._optimizer is None
        loss = keras_loss(self.model.loss, span) if plain else None
        self.probe = Probe(autoencoder, images, untrained=not self._earlier, fitting=fitting, loss=loss)
        self.recorder = Recorder(self.model, self.probe.spreads, self._images.sample, self.probe.maps)
        self._penalties = Penalties(self.model, self.recorder.kernels)
        self._penalty = math.nan
        self._step, self._epoch = self._earlier, 0
        self._diverged = None
        self._rows: list[dict[str, float]] = []
        self._row(math.nan, math.nan)
        if self._running is None:
            self._open()

    @property
    def _recorded(self) -> int:
        """The steps that were recorded."""
        return self._step - self._earlier

    @property
    def _of_training(self) -> Any:
        """The optimizer; None: not known."""
        compiled = getattr(self.model, "optimizer", None)
        return compiled if self._optimizer is None else self._optimizer

    def _open(self) -> None:
        """Claims a folder, whose run is in progress until `_ending`."""
        self.run = Run(claim(self.parent))
        self.folder = self.run.folder
        self._running = contextlib.ExitStack()
        self._running.enter_context(self.run.running())

    def _ending(self) -> contextlib.ExitStack:
        """At the end of its block the run is no longer in progress."""
        assert self._running is not None
        running, self._running = self._running, None
        return running

    @streams.guarded()  # that nobody reads the summary must not end the user's script
    def _finish(self, interrupted: str | None = None) -> None:
        """Measures, diagnoses and shows; ``interrupted`` says by what the training was."""
        self._release()
        if self.recorder is None:
            if self._images.wants_batch:
                terminal.Screen().say("! this training is not diagnosed: no batch of images was seen")
            return
        with self._ending():
            self._measure(self.recorder)
            self.outcome = (None if interrupted else self._proven()) or experiment.report(
                self.run, silent=not self.verbose
            )
            if interrupted:
                self.run.set_status("interrupted", interrupted)
        self.trials = self.outcome.trials
        self.report = self.run.summary()
        if self.verbose:
            terminal.show(self.outcome.summary(verbose=self.verbose > 1))
            terminal.results(self.run)

    def _measure(self, recorder: Recorder) -> None:
        """Writes the files of the run."""
        recorder.epoch(self._step, None, look=True)
        self._left = self.model.get_weights()
        images = self._images.judged()
        self.probe.use(images)
        arrays = {**self.probe.record(self._step * recorder.batch_size), **recorder.record()}
        arrays["dynamics/held_out_losses"] = self._held_out_losses()
        if self._earlier:  # the losses since then are no course of a training
            arrays["dynamics/losses"] = np.zeros(0, np.float32)
        restored = self._restored()
        measured = self._epoch if restored is None else restored
        self.run.write_arrays(self.run.snapshot(measured), self.probe.snapshot())
        self._rows[measured] |= {"val/mse": arrays["mse"].mean(), "val/ssim": arrays["ssim"].mean()}
        self.run.write_metrics(self._rows)
        optimizer = getattr(self._of_training, "inner_optimizer", self._of_training)
        name = "" if optimizer is None else type(optimizer).__name__
        options = options_of(getattr(self.model, "loss", None), name, self._rate)
        write_run(
            self.run,
            images,
            arrays,
            options,
            network=self._network,
            best_epoch=restored,
            measured_epoch=measured,
            stopped_early=any(map(_has_stopped, self._others)),
            diverged_at=self._diverged,
            paired=self._images.are_pairs,
        )

    def _restored(self) -> int | None:
        """The epoch whose weights another callback has restored, and says so; None: none has."""
        for other in self._others:
            if getattr(other, "best_weights", None) is None:
                continue
            if not getattr(other, "restore_best_weights", False):
                continue  # or one of somebody else's, which may restore them and does not say so
            best = getattr(other, "best_epoch", None)
            epoch = self._numbers.get(int(best)) if isinstance(best, int | np.integer) else None
            if epoch is not None and self.verbose:
                terminal.Screen().say(
                    f"{type(other).__name__} restored the weights of epoch {epoch} of {self._epoch}: "
                    "these are diagnosed"
                )
            return epoch
        return None

    def _held_out_losses(self) -> Array:
        """(2,) data losses of the same held-out images before and after the training; NaN: unknown.

        Keras reports none of before, and adds penalties to that of after.
        """
        inputs, targets = self._images.held_out(MEASURED)
        measured = functools.partial(data_loss, self.model, inputs, targets, self.probe.batch)
        before = math.nan
        if self.probe.initial_weights:
            with self.probe.before_training():
                before = measured()
        return np.array([before, measured()], np.float32)

    def _averages(self, reported: float, batch: int) -> bool:
        """Whether the reported loss is the mean over the epoch so far, as that of Keras is."""
        if batch < EARLY or self._recorded < EARLY:  # later it is known
            means = [m for m in self.model.metrics if isinstance(m, keras.metrics.Mean)]
            self._is_mean = any(math.isclose(m.result(), reported, rel_tol=1e-4) for m in means)
        return self._is_mean

    @without_trace()
    def _proven(self) -> experiment.Outcome | None:
        """The report with fixes tried; None without a budget, or if it cannot be repeated."""
        if self._budget is None:
            return None
        screen = terminal.Screen()
        x, y = self._images.inputs(), None
        held = self._images.held_out()
        size, shuffle = 32, True
        if self._fed:
            first, size = self._fed[0][0], len(self._fed[0][0])
            shuffle = not np.allclose(first, x[: len(first)], atol=1e-5)
            if not all(map(are_equal, self._fed)):
                x, y = (np.concatenate(part) for part in zip(*self._fed, strict=True))
        held_out = held[:1] if y is None else held
        try:
            training = of_model(
                self.model, x, y, held_out=held_out, batch_size=size, shuffle=shuffle, steps=self._step,
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
        if self.recorder is None:
            return self._images.wants_batch
        return self._recorded < EARLY or self._images.wants_batch or self._keeps_batch()

    def _keeps_batch(self) -> bool:
        """Whether fixes are to be tried on what the next step gets."""
        if self._budget is None or self._step >= STEPS:
            return False
        return not self._fed or len(self._fed) * 2 * self._fed[0][0].nbytes < MOST_FED

    @undisturbed
    def _record_batch(self, batch: Any) -> None:
        """Records inputs and targets of a batch of images."""
        pair = pair_of(batch)
        if pair is None:
            return
        if self._images.give_way_to(pair):
            self.recorder = None
        self._images.passes(pair, self._recorded + 1)
        if self.recorder is None and self._images.known is None:
            self._start(pair, pair)
            self._before()
        if self.recorder is None:
            return
        if self.recorder.wants_batch(self._recorded):
            self.recorder.batches(*pair)
        if self._step < EARLY:
            self._penalty, pulls = self._penalties(*pair)
            self.recorder.pulls(pulls)
        if self._keeps_batch():
            self._fed.append(pair)

    @undisturbed
    def _record_validation_batch(self, batch: Any) -> None:
        """Keeps images of a validation batch."""
        if (pair := pair_of(batch)) is not None:
            self._images.passes_held_out(pair)

    def _row(self, loss: float, val_loss: float) -> None:
        rate = _learning_rate(self._of_training)
        epoch = Epoch(
            self._epoch,
            self._step,
            train_loss=float(loss),
            train_data_loss=float(loss),
            val_loss=float(val_loss),
            learning_rate=math.nan if rate is None else rate,
        )
        self._rows.append(epoch.row())


def _has_stopped(callback: Any) -> bool:
    """Whether a callback has ended the training early, as far as it says so in the way of Keras."""
    epoch = getattr(callback, "stopped_epoch", None)
    return isinstance(epoch, int | np.integer) and int(epoch) > 0


def _steps_of(optimizer: Any) -> int:
    """The steps that an optimizer has made."""
    return int(np.asarray(getattr(optimizer, "iterations", 0)))


def _penalty(model: Any) -> float:
    """The penalties of the weights, now."""
    regularized = [v for v in model.trainable_variables if getattr(v, "regularizer", None) is not None]
    return sum(float(keras.ops.convert_to_numpy(v.regularizer(v.value))) for v in regularized)


def _learning_rate(optimizer: Any) -> float | None:
    rate = getattr(optimizer, "learning_rate", None)
    try:
        return None if rate is None else float(np.asarray(rate))
    except (TypeError, ValueError):
        return None
