"""One run, in order. READ THIS FIRST.

    config -> data -> model -> training -> artifacts -> measures -> findings -> report

The run folder is the waist: TensorFlow works left of it, NumPy right of it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli import data, diagnosis
from cae_cli.config import schema
from cae_cli.config.facts import facts
from cae_cli.config.schema import Config
from cae_cli.data import Images
from cae_cli.diagnosis import Diagnosis
from cae_cli.errors import Interrupted, UserError
from cae_cli.introspection.probe import Probe
from cae_cli.metrics.collect import Metrics, measure
from cae_cli.metrics.dataset import DatasetStatistics, dataset, repeats, sample_size
from cae_cli.model import build
from cae_cli.report import figures, summary, terminal
from cae_cli.report.sections import Part
from cae_cli.runs.folder import Run, surroundings
from cae_cli.system import signals
from cae_cli.training import backend, fit
from cae_cli.training.recorder import Recorder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a run, ready to be shown.

    Attributes:
        measures: what was measured.
        diagnosis: what was judged.
        held_out: which images were measured, "test" or "validation".
        command: words of the command line that make this run again; none for a model that this tool
            did not train.
        failed: the training diverged; everything else is there nevertheless.
    """

    metrics: Metrics
    diagnosis: Diagnosis
    held_out: str
    command: Sequence[str]
    failed: bool

    def summary(self, *, verbose: bool = False) -> list[Part]:
        """The summary diagnosis, to be shown."""
        return summary.summary(
            self.metrics, self.diagnosis, self.held_out, self.command, verbose=verbose
        )


def run(
    options: Config,
    command: Sequence[str],
    folder: Run,
    *,
    choices: Mapping[str, Any] | None = None,
    again: bool = False,
    pictures: bool = True,
) -> Outcome:
    """Trains an autoencoder and says what it learned.

    Args:
        options: the checked config.
        command: words of the command line that lead to it.
        folder: the run's.
        choices: the chosen option of each config group; None keeps those of a run that is resumed.
        again: the run goes on from its last checkpoint.
        pictures: are drawn.

    Returns:
        The outcome; all of it is in the folder. If the training diverged, the status says failed.

    Raises:
        UserError: the data, or their combination with the options, is of no use; cannot write; the
            images are no longer those that the run began with.
        Interrupted: by a signal. The last weights are in the folder.
    """
    screen = terminal.Screen()
    with folder.running(again=again), backend.one_blas_thread():
        before = folder.setup() if again else surroundings()
        setup = {**before, "command": list(command), "config": schema.plain(options)}
        if choices is not None:
            setup["choices"] = dict(choices)
        if not again:
            folder.write_setup(setup)  # enough to begin once more
        with backend.quiet(folder.log), screen.doing("reading images …"):
            images = read(options)
            seen = look_at(images)
        risks = forecast(options, images, seen)
        setup |= {"data": described(images), "forecast": risks}
        if again:
            _check_same(before, setup)
        folder.write_setup(setup)
        screen.warn(risks)
        with backend.quiet(folder.log):
            train(options, images, seen, folder, screen)
        signals.check()
        outcome = judge(folder, pictures=pictures)
        signals.check()
        if outcome.failed:
            folder.set_status("failed", _why(outcome, folder.training()))
        return outcome


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Says so if a run would go on with other images.

    Raises:
        UserError: it would.
    """
    known = before.get("data")
    if known and known["fingerprint"] != now["data"]["fingerprint"]:
        raise UserError(
            f"the images are not those that the run began with: {known['train']:,} for training then, "
            f"{now['data']['train']:,} now, and other pixels",
            where=(now["config"]["data"].get("path") or f"data={known['source']}"),
            hint="put the old images back, or begin anew with cae train",
        )


def _why(outcome: Outcome, trained: Mapping[str, Any]) -> str:
    """Why a training diverged, as far as it is known."""
    what = (
        f"the training diverged: {trained['diverged_in']} not finite at step {trained['diverged_at']:,}"
    )
    causes = [f.problem for f in outcome.diagnosis.findings if f.consequence_of is None]
    return f"{what}; likely cause: {causes[0]}" if causes else what


def check_early(options: Config) -> None:
    """What can be said before the images are read, where their size is known beforehand.

    Raises:
        UserError: options do not fit together.
    """
    shape = options.data.known_shape()
    if shape is not None:
        options.loss.check(shape, options.model.output_activation)
        build.check(options.model, shape)


def read(options: Config) -> Images:
    """The images, if they and the options fit together. TensorFlow is not needed yet.

    Raises:
        UserError: they cannot be read, or do not fit together.
    """
    images = data.load(options.data)
    check(options, images)
    return images


def look_at(images: Images) -> DatasetStatistics:
    """What the images are like."""
    count = sample_size(images.shape)
    first = [data.as_float(part[:count]) for part in (images.train, images.held_out)]
    return dataset(
        *first,
        counts=(len(images.train), len(images.held_out)),
        repeated=repeats(images.train, images.held_out[:count]),
    )


def forecast(options: Config, images: Images, seen: DatasetStatistics) -> Diagnosis:
    """What can be said of a training before it begins."""
    planned = build.plan(images.shape, options.model, tuple(options.regularization))
    plain = schema.plain(options)
    return diagnosis.forecast(seen, planned, {**plain, "facts": facts(plain)})


def check(options: Config, images: Images) -> None:
    """What can be said only when the images are there, and before TensorFlow is.

    Raises:
        UserError: images and options do not fit together.
    """
    fit.check(options.training, images)
    options.loss.check(images.shape, options.model.output_activation)
    build.check(options.model, images.shape)


def train(
    options: Config, images: Images, seen: DatasetStatistics, folder: Run, screen: terminal.Screen
) -> None:
    """Left of the waist: from images to files."""
    with screen.doing("starting TensorFlow …"):
        device = backend.start(
            deterministic=options.training.deterministic,
            mixed_precision=options.training.mixed_precision,
        )
    if options.training.mixed_precision and not device.gpus:
        screen.say("training.mixed_precision needs a GPU, and there is none: computing in float32")
    backend.seed(options.seed)
    autoencoder = build.build(images.shape, options.model, tuple(options.regularization.values()))
    screen.say(
        f"{images.source}: {len(images.train):,} training images "
        f"{'x'.join(map(str, images.shape))}, {len(images.validation):,} for validation; "
        f"{autoencoder.weight_count:,} weights on {device}"
    )
    for note in images.notes:
        screen.say(f"  {note}")
        logger.info("%s", note)
    fit.freeze(autoencoder, options.training.frozen)
    probe = Probe(autoencoder, images)
    recorder = Recorder(autoencoder.model, probe.spreads)
    folder.keep_snapshots(options.training.snapshots)
    checkpoint = _checkpoint(folder, screen)

    def on_epoch(history: fit.History) -> None:
        signals.check()
        epoch = history.left_at
        if epoch in options.training.snapshots:
            folder.write_arrays(folder.snapshot(epoch), probe.snapshot())
        if epoch > 0:
            folder.save_model(autoencoder.model, best=history.best_epoch == epoch)
        folder.write_metrics([e.row() for e in history.epochs])
        screen.epoch(history.epochs[-1].row(), len(images.train))

    def on_checkpoint(taken: fit.Checkpoint) -> None:
        # The last file of an epoch: before it is there, the epoch is trained again.
        folder.write_checkpoint(taken.epochs[-1].epoch, taken.arrays())

    done = checkpoint.epochs[-1].epoch if checkpoint else 0
    try:
        with screen.training(
            options.training.epochs, len(images.train), options.training.batch_size, done
        ):
            history = fit.fit(
                autoencoder,
                images,
                options=options.training,
                loss=options.loss,
                optimizer=options.optimizer,
                schedule=options.schedule,
                augmentation=options.augmentation,
                seed=options.seed,
                watcher=fit.Watcher(screen.steps, on_epoch, on_checkpoint),
                recorder=recorder,
                parts=device.parts,
                checkpoint=checkpoint,
            )
    except Interrupted:
        folder.save_model(autoencoder.model, best=False)
        raise
    if history.stopped_early:
        screen.say(f"stopped early: epoch {history.best_epoch} was the best, and its weights are kept")
    with screen.doing("measuring …"):
        folder.write_training(
            {
                "best_epoch": history.best_epoch,
                "measured_epoch": history.left_at,
                "stopped_early": history.stopped_early,
                "diverged_at": history.diverged_at,
                "diverged_in": history.diverged_in,
                "facts": facts(schema.plain(options)),
                "network": autoencoder.facts(),
                "weights": autoencoder.weight_count,
                "device": str(device),
                "held_out": images.held_out_name,
            }
        )
        folder.write_arrays(folder.snapshot(history.left_at), probe.snapshot())
        folder.write_arrays(
            folder.arrays, {**probe.record(), **recorder.record(), **dataset_arrays(seen)}
        )


def _checkpoint(folder: Run, screen: terminal.Screen) -> fit.Checkpoint | None:
    """Where an earlier process of this run came to, None for a new run."""
    arrays = folder.checkpoint()
    if arrays is None:
        return None
    try:
        checkpoint = fit.Checkpoint.of(arrays)
    except ValueError as error:
        raise UserError(
            f"the run cannot go on: {error}", where=folder.last.parent, hint="cae train begins anew"
        ) from error
    screen.say(f"going on after epoch {checkpoint.epochs[-1].epoch}")
    return checkpoint


def judge(
    folder: Run,
    rules: Mapping[str, Any] | None = None,
    *,
    silent: bool = False,
    pictures: bool = True,
) -> Outcome:
    """Right of the waist: from files to pictures and a verdict. Needs no TensorFlow.

    Args:
        folder: of a run whose training is over.
        rules: what single rules are to do, beside what the run's own config says.
        silent: nothing is said on the way.
        pictures: are drawn.
    """
    outcome = assess(folder, rules)
    if pictures:
        with contextlib.nullcontext() if silent else terminal.Screen().doing("drawing …"):
            figures.draw(folder, frozen=outcome.metrics.frozen)
    folder.write_summary(
        {
            "verdict": outcome.diagnosis.verdict,
            "held_out": outcome.held_out,
            "metrics": outcome.metrics,
            "diagnosis": outcome.diagnosis,
        },
        terminal.as_text(outcome.summary(verbose=True)),
    )
    return outcome


def assess(folder: Run, rules: Mapping[str, Any] | None = None) -> Outcome:
    """What `judge` finds, from the files and without a trace in them; arguments as there."""
    setup, trained = folder.setup(), folder.training()
    epochs = folder.read_metrics() if folder.metrics.exists() else {}
    arrays = folder.read_arrays(folder.arrays)
    metrics = measure(arrays, epochs, trained, frozen=folder.frozen_encoder())
    settings = folder.settings()
    if rules:
        settings = {**settings, "rules": {**settings.get("rules", {}), **rules}}
    return Outcome(
        metrics=metrics,
        diagnosis=diagnosis.with_trials(diagnosis.diagnose(metrics, settings), folder.trials()),
        held_out=trained["held_out"],
        command=setup["command"],
        failed=trained["diverged_at"] is not None,
    )


def dataset_arrays(seen: DatasetStatistics) -> dict[str, NDArray[Any]]:
    """The survey as arrays.npz holds it."""
    return {f"dataset/{name}": np.array(value) for name, value in asdict(seen).items()}


def described(images: Images) -> dict[str, Any]:
    """The data as run.json records them."""
    return {
        "source": images.source,
        "shape": images.shape,
        "train": len(images.train),
        "validation": len(images.validation),
        "test": None if images.test is None else len(images.test),
        "fingerprint": images.fingerprint(),
        "notes": images.notes,
    }
