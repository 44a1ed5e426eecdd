"""One run, in order. READ THIS FIRST.

    config -> data -> model -> training -> artifacts -> measures -> findings -> report

The run folder is the waist: TensorFlow works left of it, NumPy right of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from cae_cli import data, engine, training
from cae_cli.config import Config
from cae_cli.data import Images
from cae_cli.diagnosis import Diagnosis, diagnose
from cae_cli.errors import Interrupted, RunFailed
from cae_cli.measures.measured import measure
from cae_cli.report import figures, terminal
from cae_cli.run import Run, surroundings, writing
from cae_cli.training import History

logger = logging.getLogger(__name__)


def run(
    config: Config,
    composed: dict[str, Any],
    overrides: Sequence[str],
    run: Run,
    *,
    brief: bool = False,
) -> Diagnosis:
    """Trains an autoencoder and says what it learned.

    Args:
        config: the checked config.
        composed: the same as plain containers, to be written into the run.
        overrides: what was given on the command line.
        run: the run's folder.
        brief: show the verdict only; the whole diagnosis is in the folder.

    Returns:
        The diagnosis; everything else is in the folder.

    Raises:
        UserError: the data, or their combination with the options, is of no use; cannot write.
        RunFailed: the training diverged. The folder is complete nevertheless.
        Interrupted: by a signal. The last weights are in the folder.
    """
    screen = terminal.Screen()
    with run.running(), writing(run.folder):
        with screen.doing("reading images …"), engine.quiet(run.log):  # a download imports Keras
            images = data.load(config.data)
        check(config, images)
        setup = {**surroundings(), "data": described(images), "overrides": list(overrides)}
        run.write_setup({**setup, "config": composed})
        with engine.quiet(run.log):
            history = train(config, images, run, screen)
        diagnosis = judge(run, brief=brief)
        if history.diverged_at is not None:
            raise RunFailed("the training diverged", hint="the diagnosis above says what to try")
        return diagnosis


def check_early(config: Config) -> None:
    """What can be said before the images are read, where their size is known beforehand.

    Raises:
        UserError: options do not fit together.
    """
    shape = config.data.known_shape()
    if shape is not None:
        config.loss.check(shape, config.model.output_activation)


def check(config: Config, images: Images) -> None:
    """What can be said only when the images are there, and before TensorFlow is.

    Raises:
        UserError: images and options do not fit together.
    """
    for note in images.notes:
        logger.info("%s", note)
    training.check(config.training, images)
    config.loss.check(images.shape, config.model.output_activation)


def train(config: Config, images: Images, run: Run, screen: terminal.Screen) -> History:
    """Left of the waist: from images to files."""
    with screen.doing("starting TensorFlow …"):
        device = engine.start(
            deterministic=config.training.deterministic,
            mixed_precision=config.training.mixed_precision,
        )
    if config.training.mixed_precision and not device.gpus:
        screen.say("training.mixed_precision needs a GPU, and there is none: computing in float32")
    from cae_cli import model
    from cae_cli.probe import Probe

    engine.seed(config.seed)
    autoencoder = model.build(images.shape, config.model, tuple(config.regularization.values()))
    screen.say(
        f"{images.source}: {len(images.train):,} training images "
        f"{'x'.join(map(str, images.shape))}, {len(images.validation):,} for validation; "
        f"{autoencoder.weight_count:,} weights on {device}"
    )
    for note in images.notes:
        screen.say(f"  {note}")
    probe = Probe(autoencoder, images)

    def on_epoch(epoch: training.Epoch, best: bool) -> None:
        run.append_metrics(epoch.row())
        if epoch.epoch > 0:
            run.save_model(autoencoder.model, best=best)
        if epoch.epoch in config.training.snapshots or epoch.epoch == config.training.epochs:
            run.write_arrays(run.snapshot(epoch.epoch), probe.snapshot())
        screen.epoch(epoch.row(), len(images.train))

    try:
        with screen.training(config.training.epochs, len(images.train), config.training.batch_size):
            history = training.fit(
                autoencoder,
                images,
                options=config.training,
                loss=config.loss,
                optimizer=config.optimizer,
                schedule=config.schedule,
                augmentation=config.augmentation,
                seed=config.seed,
                watcher=training.Watcher(on_steps=screen.steps, on_epoch=on_epoch),
            )
    except Interrupted:
        run.save_model(autoencoder.model, best=False)
        raise
    run.write_training(
        {
            "best_epoch": history.best_epoch,
            "stopped_early": history.stopped_early,
            "diverged_at": history.diverged_at,
            "weights": autoencoder.weight_count,
            "device": str(device),
            "held_out": images.held_out_name,
        }
    )
    with screen.doing("measuring …"):
        run.write_arrays(run.arrays, probe.record())
    return history


def judge(run: Run, *, brief: bool = False) -> Diagnosis:
    """Right of the waist: from files to pictures and a verdict. Needs no TensorFlow."""
    setup, trained = run.setup(), run.training()
    with terminal.Screen().doing("drawing …"):
        figures.draw(run)
    measures = measure(run.read_arrays(run.arrays), run.read_metrics(), trained)
    diagnosis = diagnose(measures, setup["config"])
    summary = {
        "overrides": setup["overrides"],
        "held_out": trained["held_out"],
        "verdict": diagnosis.verdict,
        "measures": measures,
        "diagnosis": diagnosis,
    }
    text = terminal.show_summary(summary, measures, diagnosis, brief=brief)
    run.write_summary(summary, text)
    return diagnosis


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
