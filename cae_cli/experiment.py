"""One run, in order. Read this file first.

    config -> data -> model -> training -> run folder -> metrics -> findings -> fixes -> report

`run` goes all the way. `train` ends at the run folder: TensorFlow is needed left of it only. `diagnose`
turns the files of the folder into metrics, findings and fixes, and `report` writes and draws them, so
both can be repeated without training again.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli import data, diagnosis
from cae_cli.config.schema import Config, plain
from cae_cli.data import Images
from cae_cli.data.folder import FileOptions
from cae_cli.diagnosis import Diagnosis
from cae_cli.diagnosis.case import FEWEST_IMAGES
from cae_cli.diagnosis.trials import Trials
from cae_cli.errors import Interrupted, UserError, counted
from cae_cli.introspection import Autoencoder
from cae_cli.introspection.loss_minimum import KnownLoss
from cae_cli.introspection.probe import Probe
from cae_cli.metrics.collect import Metrics, measure
from cae_cli.metrics.dataset import DatasetStatistics, dataset, repeats, sample_size
from cae_cli.model import memory
from cae_cli.model.build import build
from cae_cli.model.plan import plan
from cae_cli.options import OptionError
from cae_cli.report import figures, page, summary, terminal
from cae_cli.report import trials as tried
from cae_cli.report.sections import Part
from cae_cli.runs.command import fit_to_paste
from cae_cli.runs.environment import surroundings
from cae_cli.runs.folder import Run
from cae_cli.system import signals, streams
from cae_cli.trackers import Tracker, following
from cae_cli.training import backend
from cae_cli.training.facts import facts
from cae_cli.training.fit import Callbacks, fit, freeze
from cae_cli.training.history import Checkpoint, History
from cae_cli.training.recorder import Recorder

logger = logging.getLogger(__name__)

PATCHES = (28, 20, 16, 12, 8)  # sides that are proposed where there are few images


@dataclass(frozen=True)
class Outcome:
    """The result of a run, ready to be shown.

    Attributes:
        folder: of the run.
        metrics: what was measured.
        diagnosis: findings and fixes.
        held_out: which images were measured: "test", "validation", or "training" without others.
        command: arguments of the command line that repeats this run; empty for a model that this tool
            did not train.
        failed: the training diverged; everything else is there nevertheless.
        trials: short trainings with fixes, if there were some.
    """

    folder: Path
    metrics: Metrics
    diagnosis: Diagnosis
    held_out: str
    command: Sequence[str]
    failed: bool
    trials: Trials | None = None

    def summary(self, *, verbose: bool = False) -> list[Part]:
        """The summary, to be shown."""
        return summary.summary(
            self.metrics, self.diagnosis, self.held_out, self.command, self.trials, verbose=verbose
        )


def run(
    config: Config,
    command: Sequence[str],
    folder: Run,
    *,
    choices: Mapping[str, Any] | None = None,
    resume: bool = False,
    pictures: bool = True,
    guest: bool = False,
    silent: bool = False,
) -> Outcome:
    """Trains an autoencoder and reports what it learned.

    Args:
        config: the checked config.
        command: arguments of the command line that led to it.
        folder: of the run.
        choices: the chosen option of each config group; None keeps those of a run that is resumed.
        resume: the run resumes from its last checkpoint.
        pictures: draw them.
        guest: the process is somebody else's, such as a notebook, and is left as it was.
        silent: show no progress.

    Returns:
        The outcome; the folder holds all of it. If the training diverged, its status is "failed".

    Raises:
        UserError: the images cannot be used, do not fit the config, or have changed since the run
            started; the folder cannot be written.
        Interrupted: by a signal. The last weights are in the folder.
    """
    screen = terminal.Screen(silent=silent)
    with (
        following(config.tracker, folder, screen) as after_epoch,
        folder.running(resume=resume),
        backend.one_blas_thread(),
    ):
        streams.results_in(folder.log)
        before = folder.setup() if resume else surroundings()
        setup = {**before, "command": list(command), "config": plain(config)}
        if choices is not None:
            setup["choices"] = dict(choices)
        if not resume:
            folder.write_setup(setup)  # enough to start the run again
        quiet = contextlib.nullcontext() if guest else backend.quiet(folder.log)
        with quiet, screen.doing("reading images …"):
            images = load_images(config)
            statistics = dataset_statistics(images)
        risks = forecast(config, images, statistics)
        setup |= {"data": describe(images), "forecast": risks}
        if resume:
            _check_same_images(before, setup, has_trained=folder.can_go_on())
        folder.write_setup(setup)
        screen.warn(risks)
        process = backend.guest(folder.log) if guest else backend.quiet(folder.log)
        with process, backend.one_blas_thread("scipy.linalg"):
            train(config, images, statistics, folder, screen, after_epoch)
        signals.check()
        outcome = report(folder, pictures=pictures, silent=silent)
        signals.check()
        if outcome.failed:
            folder.set_status("failed", _failure(outcome, folder.training()))
        return outcome


# --- config and data ---


def check_early(config: Config, *, resume: bool = False) -> None:
    """Checks the options against the size of the images, if it is known before reading them.

    Args:
        config: the checked config.
        resume: the run resumes. A tracker that is missing then is a warning, since it cannot be changed.

    Raises:
        UserError: they do not fit together, the network does not fit into memory, or the tracker is not
            installed.
    """
    if isinstance(config.tracker, Tracker) and not resume:
        config.tracker.check()
    shape = config.data.known_shape()
    if shape is not None:
        config.loss.check(shape, config.model.output_activation)
        config.model.check(shape)
    least = shape or config.data.least_shape()
    if least is not None:
        _check_memory(config, least)


def check(config: Config, images: Images) -> None:
    """Checks the options against the images. Needs no TensorFlow.

    Raises:
        UserError: they do not fit together, or the network does not fit into memory.
    """
    config.training.check(len(images.train), images.more)
    config.loss.check(images.shape, config.model.output_activation)
    config.model.check(images.shape)
    _check_memory(config, images.shape)
    if images.are_pairs and config.augmentation.active and config.augmentation.target == "original":
        raise OptionError(
            "augmentation.target",
            "must be same with pairs: the target of an input that is moved moves with it",
            hint="use augmentation.target=same, or augmentation=none",
        )


def _check_memory(config: Config, shape: tuple[int, int, int]) -> None:
    """Raises UserError if the training needs more memory than is free; that of a GPU is not known."""
    if not backend.visible_gpus():
        training, size = config.training, config.data.size_option() or f"images of {shape[0]}x{shape[1]}"
        memory.check(shape, config.model, training.batch_size, training.frozen, size)


def load_images(config: Config) -> Images:
    """Loads the images and checks the options against them. Needs no TensorFlow.

    Raises:
        UserError: they cannot be read, or do not fit the config.
    """
    images = data.load(config.data)
    check(config, images)
    return images


def dataset_statistics(images: Images) -> DatasetStatistics:
    """Statistics of the first images of each part."""
    count = sample_size(images.shape)
    first = [data.as_float(part[:count]) for part in (images.train, images.held_out)]
    return dataset(
        *first,
        counts=(len(images.train), len(images.held_out)),
        repeated=repeats(images.train, images.held_out[:count]),
        groups=images.groups,
    )


def describe(images: Images) -> dict[str, Any]:
    """The entry ``data`` of run.json."""
    return {
        "source": images.source,
        "shape": images.shape,
        "train": len(images.train),
        "validation": len(images.validation),
        "test": None if images.test is None else len(images.test),
        "fingerprint": images.fingerprint(),
        "notes": images.notes,
        "scale": images.scale,
        **({"input_scale": images.input_scale} if images.are_pairs else {}),
    }


def forecast(config: Config, images: Images, statistics: DatasetStatistics) -> Diagnosis:
    """The findings that need no training."""
    planned = plan(images.shape, config.model, tuple(config.regularization))
    options = plain(config)
    options["training"]["epochs"] = config.training.planned_epochs(len(images.train))
    return diagnosis.forecast(statistics, planned, {**options, "facts": facts(options)})


def _check_same_images(before: Mapping[str, Any], now: Mapping[str, Any], *, has_trained: bool) -> None:
    """Raises UserError if a resumed run started with other images, or has trained on unknown ones."""
    known, read = before.get("data"), now["data"]
    if not isinstance(known, dict) or "fingerprint" not in known:
        if not has_trained:
            return  # it was interrupted before the images were read
        raise UserError(
            "run.json does not say on which images the run was trained",
            hint="Start a new run with cae rerun.",
        )
    if known["fingerprint"] != read["fingerprint"]:
        raise UserError(
            f"the images have changed since the run started: {known.get('train')} training images then, "
            f"{read['train']} now, with other pixels",
            where=(now["config"]["data"].get("path") or f"data={read['source']}"),
            hint="Restore the old images, or start a new run with cae train.",
        )


def too_few(options: data.DataOptions, images: Images) -> str | None:
    """What to say where there are fewer held-out images than a verdict needs, with a way to more.

    Args:
        options: of the source of the images.
        images: split; the held-out ones are those that are measured.

    Returns:
        A sentence, or None where they are enough.
    """
    count, total = len(images.held_out), len(images.train) + len(images.validation)
    if count >= FEWEST_IMAGES:
        return None
    (h, w, _), way = images.shape, "add images"
    sides = [s for s in PATCHES if count * (h // s) * (w // s) >= FEWEST_IMAGES]
    files = isinstance(options, FileOptions) and options.are_files
    resized = isinstance(options, FileOptions) and options.image_size and options.patches is None
    whole = "data.image_size=null " if resized else ""
    if images.more:
        way = images.more
    elif images.evaluated and resized:  # the network takes images of this size only
        way = f"{whole}data.patches={h} cuts many of each file"
    elif files and sides and not images.evaluated:
        way = f"{whole}data.patches={sides[0]} cuts many of each file"
    elif images.test is None and not images.evaluated and total >= 2 * FEWEST_IMAGES:
        way = f"data.validation={math.ceil(100 * FEWEST_IMAGES / total) / 100:g} holds out more"
    elif images.test is not None and options.test is not None:
        way = "data.test=null takes all there are"
    measured = "image" if images.evaluated else "held-out image"
    return f"only {counted(count, measured)}: what needs {FEWEST_IMAGES} is not checked; {way}"


# --- model, training, run folder ---


def train(
    config: Config,
    images: Images,
    statistics: DatasetStatistics,
    folder: Run,
    screen: terminal.Screen,
    after_epoch: Callable[[], None] = lambda: None,
) -> None:
    """Builds and trains the network, probes it, and writes everything to the run folder."""
    options = config.training
    with screen.doing("starting TensorFlow …"):
        device = backend.start(
            deterministic=options.deterministic, mixed_precision=options.mixed_precision
        )
    autoencoder = build_network(config, images)
    _announce(config, images, autoencoder, device, screen)
    probe = Probe(autoencoder, images, loss=KnownLoss(config.loss))
    recorder = Recorder(autoencoder.model, probe.spreads, images.sample, probe.maps)
    folder.keep_snapshots(options.snapshots)
    checkpoint = _checkpoint(folder, screen)
    done = checkpoint.epochs[-1].epoch if checkpoint else 0
    try:
        epochs = options.planned_epochs(len(images.train))
        with screen.training(epochs, len(images.train), options.batch_size, done):
            history = fit(
                autoencoder,
                images,
                config,
                recorder,
                callbacks=_callbacks(config, images, folder, screen, probe, after_epoch),
                parts=device.parts,
                checkpoint=checkpoint,
            )
    except (Interrupted, KeyboardInterrupt):
        folder.save_model(autoencoder.model, best=False)
        raise
    if history.stopped_early:
        screen.say(f"stopped early: the weights are those of epoch {history.best_epoch}, the best one")
    with screen.doing("measuring …"):
        folder.write_arrays(folder.snapshot(history.left_at), probe.snapshot())
        passed = history.epochs[-1].step * options.batch_size
        write_results(
            folder,
            images,
            statistics,
            {**probe.record(passed), **recorder.record()},
            plain(config),
            network=autoencoder.facts(),
            weights=autoencoder.weight_count,
            device=str(device),
            best_epoch=history.best_epoch,
            measured_epoch=history.left_at,
            stopped_early=history.stopped_early,
            diverged_at=history.diverged_at,
            diverged_in=history.diverged_in,
            **({"paired": True} if images.are_pairs else {}),
        )


def build_network(config: Config, images: Images) -> Autoencoder:
    """Builds the network with the weights of the config's seed, and freezes what is not trained."""
    backend.seed(config.seed)
    autoencoder = build(images.shape, config.model, tuple(config.regularization.values()))
    freeze(autoencoder, config.training.frozen)
    return autoencoder


def _announce(
    config: Config,
    images: Images,
    autoencoder: Autoencoder,
    device: backend.Device,
    screen: terminal.Screen,
) -> None:
    """Shows what is trained, and on which device."""
    if config.training.mixed_precision and not device.gpus:
        screen.say("training.mixed_precision needs a GPU and none was found: computing in float32")
    screen.say(
        f"{images.source}: {len(images.train):,} training images "
        f"{'x'.join(map(str, images.shape))}, {len(images.validation):,} validation images; "
        f"{autoencoder.weight_count:,} weights on {device}"
    )
    if device.other_threads:
        screen.say(
            "! TensorFlow was started before with other threads: weights may differ from those of a "
            "process of its own in their last bits"
        )
    if few := too_few(config.data, images):
        screen.say(f"! {few}")
    if length := config.training.length(len(images.train)):
        screen.say(f"  {length}")
    for note in images.notes:
        screen.say(f"  {note}")
        logger.info("%s", note)


def _callbacks(
    config: Config,
    images: Images,
    folder: Run,
    screen: terminal.Screen,
    probe: Probe,
    after_epoch: Callable[[], None],
) -> Callbacks:
    """Writes and shows each epoch while the training runs."""
    model = probe.autoencoder.model
    written = 0  # epochs in metrics.csv; of a run that is resumed, those before are written again

    def on_epoch(history: History) -> None:
        nonlocal written
        signals.check()
        folder.check_kept()
        epoch = history.left_at
        if epoch in config.training.snapshots:
            folder.write_arrays(folder.snapshot(epoch), probe.snapshot())
        if epoch > 0:
            folder.save_model(model, best=history.best_epoch == epoch)
        folder.add_metrics([e.row() for e in history.epochs[written:]])
        written = len(history.epochs)
        screen.epoch(history.epochs[-1].row(), len(images.train))
        after_epoch()

    def on_checkpoint(checkpoint: Checkpoint) -> None:
        # The last file of an epoch: until it is there, a resumed run trains the epoch again.
        folder.write_checkpoint(checkpoint.epochs[-1].epoch, checkpoint.arrays())

    return Callbacks(screen.steps, on_epoch, on_checkpoint)


def _checkpoint(folder: Run, screen: terminal.Screen) -> Checkpoint | None:
    """The checkpoint in a run's folder, None for a new run; UserError if it is damaged."""
    arrays = folder.checkpoint()
    if arrays is None:
        return None
    try:
        checkpoint = Checkpoint.of(arrays)
    except ValueError as error:
        raise UserError(
            f"the run cannot be resumed: {error}",
            where=folder.last.parent,
            hint="Start a new run with cae train.",
        ) from error
    screen.say(f"resuming after epoch {checkpoint.epochs[-1].epoch}")
    return checkpoint


def write_results(
    folder: Run,
    images: Images,
    statistics: DatasetStatistics,
    arrays: Mapping[str, NDArray[Any]],
    options: Mapping[str, Any],
    **training: Any,
) -> None:
    """Writes training.json and arrays.npz, which `diagnose` reads, and views.npz, which the page shows.

    Args:
        folder: of the run.
        images: that were measured.
        statistics: of the images.
        arrays: of the probe, and of the recorder if there was one.
        options: the config as plain containers, as far as it is known.
        **training: entries of training.json. ``network`` is required; others default to those of a
            training that nobody recorded.
    """
    folder.write_training(
        {
            "best_epoch": None,
            "measured_epoch": None,
            "stopped_early": False,
            "diverged_at": None,
            "diverged_in": None,
            "device": None,
            **training,
            "facts": facts(options),
            "held_out": images.held_out_name,
        }
    )
    of_dataset = {f"dataset/{name}": np.array(value) for name, value in asdict(statistics).items()}
    views = {k.removeprefix("view/"): v for k, v in arrays.items() if k.startswith("view/")}
    folder.write_arrays(folder.views, views)
    measured = {k: v for k, v in arrays.items() if not k.startswith("view/")}
    folder.write_arrays(folder.arrays, {**measured, **of_dataset})


# --- metrics, findings, fixes, report ---


def diagnose(folder: Run, rules: Mapping[str, Any] | None = None) -> Outcome:
    """Measures and diagnoses a run from its files. Writes nothing and needs no TensorFlow.

    Args:
        folder: of a run whose training has ended.
        rules: options of single rules, in addition to those of the run's config.
    """
    trained, settings = folder.training(), folder.settings()
    epochs = folder.read_metrics() if folder.metrics.exists() else {}
    arrays = folder.read_arrays(folder.arrays)
    # Networks that diverged have infinite errors, whose differences are not numbers.
    with np.errstate(all="ignore"):
        metrics = measure(arrays, epochs, trained, frozen=folder.frozen_encoder())
    if rules:
        settings = {**settings, "rules": {**settings.get("rules", {}), **rules}}
    trials = tried.read(folder)
    return Outcome(
        folder=folder.folder,
        metrics=metrics,
        diagnosis=diagnosis.diagnose(metrics, settings, trials),
        held_out=trained["held_out"],
        command=fit_to_paste(folder.setup()["command"]),
        failed=trained["diverged_at"] is not None,
        trials=trials,
    )


def report(
    folder: Run,
    rules: Mapping[str, Any] | None = None,
    *,
    silent: bool = False,
    pictures: bool = True,
) -> Outcome:
    """Diagnoses a run, draws its pictures and writes its summary. Needs no TensorFlow.

    Args:
        folder: as for `diagnose`.
        rules: as for `diagnose`.
        silent: show no progress.
        pictures: draw them.
    """
    outcome = diagnose(folder, rules)
    folder.write_summary(
        {
            "verdict": outcome.diagnosis.verdict,
            "held_out": outcome.held_out,
            "metrics": outcome.metrics,
            "diagnosis": outcome.diagnosis,
        },
        terminal.as_text(outcome.summary(verbose=True)),
    )
    if pictures or folder.page.exists():  # a page must not show an earlier diagnosis
        with contextlib.nullcontext() if silent else terminal.Screen().doing("drawing …"):
            thresholds = outcome.diagnosis.thresholds
            drawn = figures.read(folder, frozen=outcome.metrics.frozen, thresholds=thresholds)
            if pictures:
                figures.draw(folder, drawn)
            page.write(folder, drawn)
    return outcome


def _failure(outcome: Outcome, trained: Mapping[str, Any]) -> str:
    """Why a training diverged, as far as it is known."""
    value, step = trained["diverged_in"], trained["diverged_at"]
    what = f"the training diverged: {value} not finite at step {step:,}"
    causes = [f.problem for f in outcome.diagnosis.findings if f.consequence_of is None]
    return f"{what}; likely cause: {causes[0]}" if causes else what
