"""One run, in order. READ THIS FIRST.

    config -> data -> model -> training -> artifacts -> measures -> findings -> report

The run folder is the waist: TensorFlow works left of it, NumPy right of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cae_cli import config, data, engine, interrupts, model, training
from cae_cli.config import Config
from cae_cli.data import Images
from cae_cli.diagnosis import Diagnosis, diagnose
from cae_cli.errors import Interrupted
from cae_cli.measures.measured import Measures, measure
from cae_cli.probe import Probe
from cae_cli.report import figures, terminal
from cae_cli.run import Run, surroundings, writing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a run, ready to be shown.

    Attributes:
        measures: what was measured.
        diagnosis: what was judged.
        held_out: which images were measured, "test" or "validation".
        command: words of the command line that make this run again.
        failed: the training diverged; everything else is there nevertheless.
    """

    measures: Measures
    diagnosis: Diagnosis
    held_out: str
    command: Sequence[str]
    failed: bool


def run(options: Config, command: Sequence[str], folder: Run) -> Outcome:
    """Trains an autoencoder and says what it learned.

    Args:
        options: the checked config.
        command: words of the command line that lead to it.
        folder: the run's.

    Returns:
        The outcome; all of it is in the folder. If the training diverged, the status says failed.

    Raises:
        UserError: the data, or their combination with the options, is of no use; cannot write.
        Interrupted: by a signal. The last weights are in the folder.
    """
    screen = terminal.Screen()
    with folder.running(), writing(folder.folder):
        with engine.quiet(folder.log), screen.doing("reading images …"):
            images = data.load(options.data)
        check(options, images)
        folder.write_setup(
            {
                **surroundings(),
                "command": list(command),
                "config": config.plain(options),
                "data": described(images),
            }
        )
        with engine.quiet(folder.log):
            train(options, images, folder, screen)
        interrupts.check()
        outcome = judge(folder)
        interrupts.check()
        if outcome.failed:
            folder.set_status("failed", "the training diverged")
        return outcome


def check_early(options: Config) -> None:
    """What can be said before the images are read, where their size is known beforehand.

    Raises:
        UserError: options do not fit together.
    """
    shape = options.data.known_shape()
    if shape is not None:
        options.loss.check(shape, options.model.output_activation)
        model.check(options.model, shape)


def check(options: Config, images: Images) -> None:
    """What can be said only when the images are there, and before TensorFlow is.

    Raises:
        UserError: images and options do not fit together.
    """
    training.check(options.training, images)
    options.loss.check(images.shape, options.model.output_activation)
    model.check(options.model, images.shape)


def train(options: Config, images: Images, folder: Run, screen: terminal.Screen) -> None:
    """Left of the waist: from images to files."""
    with screen.doing("starting TensorFlow …"):
        device = engine.start(
            deterministic=options.training.deterministic,
            mixed_precision=options.training.mixed_precision,
        )
    if options.training.mixed_precision and not device.gpus:
        screen.say("training.mixed_precision needs a GPU, and there is none: computing in float32")
    engine.seed(options.seed)
    autoencoder = model.build(images.shape, options.model, tuple(options.regularization.values()))
    screen.say(
        f"{images.source}: {len(images.train):,} training images "
        f"{'x'.join(map(str, images.shape))}, {len(images.validation):,} for validation; "
        f"{autoencoder.weight_count:,} weights on {device}"
    )
    for note in images.notes:
        screen.say(f"  {note}")
        logger.info("%s", note)
    probe = Probe(autoencoder, images)

    def on_epoch(epoch: training.Epoch, best: bool) -> None:
        interrupts.check()
        folder.append_metrics(epoch.row())
        if epoch.epoch > 0:
            folder.save_model(autoencoder.model, best=best)
        if epoch.epoch in options.training.snapshots:
            folder.write_arrays(folder.snapshot(epoch.epoch), probe.snapshot())
        screen.epoch(epoch.row(), len(images.train))

    try:
        with screen.training(options.training.epochs, len(images.train), options.training.batch_size):
            history = training.fit(
                autoencoder,
                images,
                options=options.training,
                loss=options.loss,
                optimizer=options.optimizer,
                schedule=options.schedule,
                augmentation=options.augmentation,
                seed=options.seed,
                watcher=training.Watcher(on_steps=screen.steps, on_epoch=on_epoch),
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
                "weights": autoencoder.weight_count,
                "device": str(device),
                "held_out": images.held_out_name,
            }
        )
        folder.write_arrays(folder.snapshot(history.left_at), probe.snapshot())
        folder.write_arrays(folder.arrays, probe.record())


def judge(folder: Run) -> Outcome:
    """Right of the waist: from files to pictures and a verdict. Needs no TensorFlow."""
    setup, trained = folder.setup(), folder.training()
    with terminal.Screen().doing("drawing …"):
        figures.draw(folder)
    measures = measure(folder.read_arrays(folder.arrays), folder.read_metrics(), trained)
    outcome = Outcome(
        measures=measures,
        diagnosis=diagnose(measures, setup["config"]),
        held_out=trained["held_out"],
        command=setup["command"],
        failed=trained["diverged_at"] is not None,
    )
    summary = terminal.summary(outcome.measures, outcome.diagnosis, outcome.held_out, outcome.command)
    folder.write_summary(
        {
            "verdict": outcome.diagnosis.verdict,
            "held_out": outcome.held_out,
            "measures": measures,
            "diagnosis": outcome.diagnosis,
        },
        terminal.as_text(summary),
    )
    return outcome


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
