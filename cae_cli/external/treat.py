"""Diagnoses a model and proves it: tries fixes on its training, see `trials`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli import experiment, introspection
from cae_cli.data import Images, as_float
from cae_cli.diagnosis.trials import Trials
from cae_cli.errors import UserError
from cae_cli.external import trials
from cae_cli.external.model import (
    FileOptions,
    measure_file,
    options_of,
    prepare,
    span_of,
    spans_of,
    stored,
    write_run,
)
from cae_cli.external.training import Training, compiled_as, of_model
from cae_cli.introspection.keras_internals import without_trace
from cae_cli.introspection.loss_minimum import keras_loss
from cae_cli.introspection.probe import Probe
from cae_cli.report import terminal
from cae_cli.report.numbers import duration, seconds_of
from cae_cli.runs.folder import Run
from cae_cli.system import streams
from cae_cli.system.files import claim, writing
from cae_cli.training import backend
from cae_cli.training.facts import facts


@dataclass(frozen=True)
class Treatment:
    """What `treat` found.

    Attributes:
        trials: every change that was tried, with what it proves.
        report: the content of summary.json.
        folder: with files and pictures.
    """

    trials: Trials
    report: dict[str, Any]
    folder: Path


@without_trace()
def treat(
    model: Any,
    x: NDArray[Any],
    y: NDArray[Any] | None = None,
    *,
    budget: str | float = "2m",
    held_out: Sequence[NDArray[Any]] | NDArray[Any] | None = None,
    batch_size: int = 32,
    shuffle: bool = True,
    steps: int | None = None,
    latent: str | None = None,
    seed: int = 0,
    folder: str | Path = "runs/treat",
    verbose: int = 1,
) -> Treatment:
    """Diagnoses a Keras autoencoder and tries fixes on its training, next to random changes.

    The model itself is not changed: others are built from its config and trained from new weights, as it
    was compiled and fed.

    Args:
        model: compiled; trained or not. Of a trained one the result of that training counts too.
        x: (n, h, w, c) images, as they are given to ``fit``.
        y: their targets, as they are given to ``fit``; None: the images.
        budget: seconds, or a time like "90s", "2m", "1h".
        held_out: images, or images and targets, that are not trained on; None: the last tenth.
        batch_size: as for ``fit``.
        shuffle: as for ``fit``.
        steps: that the model was trained for; None: those that its optimizer has made.
        latent: name of the layer whose output is the latent code; None: detected.
        seed: of weights, batches and random changes.
        folder: the parent of the folder for files and pictures.
        verbose: 0 prints nothing, 1 the summary, 2 every number.

    Raises:
        UserError: the shapes do not fit, it is no autoencoder of images, or Keras cannot build or train
            it again.
    """
    seconds = budget_of(budget)
    if steps is None and getattr(model, "optimizer", None) is not None:
        steps = int(model.optimizer.iterations) or None
    if held_out is not None and not isinstance(held_out, list | tuple):
        held_out = (np.asarray(held_out),)
    training = of_model(
        model, x, y, held_out=held_out, batch_size=batch_size, shuffle=shuffle, steps=steps
    )
    screen = terminal.Screen()
    say = screen.say if verbose else lambda _: None
    if not getattr(model, "compiled", False):
        say("the model is not compiled: it is trained with Adam at 0.001 and the mean squared error")
    run = Run(claim(Path(folder)))
    with run.running():
        if steps is None:
            say(f"the model is not trained: it is diagnosed after {trials.STEPS} steps")
            model, known = training.run(trials.STEPS, seed), math.nan
        else:
            known = training.explained(training.model)
        diagnosed(run, model, training, latent)
        outcome = proven(run, training, budget=seconds, given=known, seed=seed, say=say)
    if verbose:
        with streams.guarded():
            terminal.show(outcome.summary(verbose=verbose > 1))
            terminal.results(run)
    assert outcome.trials is not None
    return Treatment(outcome.trials, run.summary(), run.folder)


def budget_of(budget: str | float) -> float:
    """The seconds of a budget like "90s", or a number of them; UserError for anything else."""
    try:
        seconds = seconds_of(budget) if isinstance(budget, str) else float(budget)
    except ValueError as error:
        raise UserError(f"budget {error}", hint='budget="2m"') from error
    if not 0 < seconds < math.inf:
        raise UserError(f"budget must be a positive number of seconds, got {budget!r}")
    return seconds


def treat_file(
    path: Path,
    images: Images,
    options: FileOptions,
    run: Run,
    rules: Mapping[str, Any],
    *,
    budget: float,
    steps: int | None = None,
) -> experiment.Outcome:
    """Diagnoses a saved Keras autoencoder and tries fixes, compiled as the file says.

    Args:
        path: the .keras or .h5 file.
        images: to diagnose and to train it on.
        options: how to open it.
        run: an empty folder, for files and pictures.
        rules: options of single rules.
        budget: seconds.
        steps: that the model was trained for; None: not known.

    Raises:
        UserError: the file cannot be used, does not fit the images, or cannot be trained.
    """
    screen = terminal.Screen()
    with run.running(), writing(run.folder), backend.quiet(run.log):
        config = introspection.compile_config(path) if path.is_file() else {}
        found = compiled_as(config)
        known = {"rules": dict(rules)}
        model = measure_file(path, images, options, run, known, screen, found.get("loss"))
        missing = " and ".join(name for name in ("optimizer", "loss") if name not in found)
        if missing:
            screen.say(f"the file names no {missing} of Keras: using Adam at 0.001, mean squared error")
        span = options.span
        of_inputs = options.given or span
        x, held_in, y, held_out = (
            np.float32(low) + np.float32(high - low) * as_float(part)
            for part, (low, high) in (
                (images.given, of_inputs), (images.held_out_given, of_inputs),
                (images.train, span), (images.held_out, span),
            )
        )  # fmt: skip
        differ = images.are_pairs or of_inputs != span
        targets, held = (y, (held_in, held_out)) if differ else (None, (held_in,))
        training = of_model(model, x, targets, held_out=held, steps=steps, **found)
        write_options(run, training, rules)
        given = training.explained(training.model)
        return proven(run, training, budget=budget, given=given, say=screen.say, silent=False)


def write_options(run: Run, training: Training, rules: Mapping[str, Any]) -> None:
    """Adds to the files of a run what is known of its training, and what follows from it."""
    known = options_of(training.loss, training.optimizer.kind.__name__, training.optimizer.rate)
    run.write_setup({**run.setup(), "config": {**known, "rules": dict(rules)}})
    run.write_training({**run.training(), "facts": facts(known)})


def diagnosed(run: Run, model: Any, training: Training, latent: str | None) -> None:
    """Writes the files of a run that is the model as it is.

    Args:
        run: an empty folder.
        model: to be measured.
        training: what it was trained on, and how.
        latent: as for `treat`.
    """
    train, held_out = training.clean
    given, span = spans_of(training.x, train)
    inputs: dict[str, Any] = {}
    if train is not training.x:
        inputs["train_inputs"] = stored(training.x, given)
        inputs["validation_inputs"] = stored(training.held_out, given)
    images = Images(stored(train, span), stored(held_out, span), source="treat", **inputs)
    autoencoder, network, fitting = prepare(model, images, latent, span, given)
    loss = keras_loss(training.loss, span)
    probe = Probe(autoencoder, images, untrained=False, fitting=fitting, loss=loss)
    options = options_of(training.loss, training.optimizer.kind.__name__, training.optimizer.rate)
    write_run(run, images, probe.record(), options, network=network)


def proven(
    run: Run,
    training: Training,
    *,
    budget: float,
    given: float,
    seed: int = 0,
    say: Any = lambda _: None,
    silent: bool = True,
) -> experiment.Outcome:
    """Tries fixes on the training of a run that was diagnosed, and reports the run with what they prove.

    Args:
        run: its files are there.
        training: of the run.
        budget: as for `trials.tried`, with the following ones.
        given: explained variance of the model as it was given; NaN: unknown.
        seed: of weights, batches and random changes.
        say: gets a line for each trial.
        silent: as for `experiment.report`.
    """
    before = experiment.diagnose(run)
    say(f"trying fixes for {duration(budget)}")
    result = trials.tried(
        training,
        budget=budget,
        findings=before.diagnosis.findings,
        linear=before.metrics.perturbation.linear,
        given=given,
        seed=seed,
        say=say,
    )
    low, high = span_of(training.clean[0])
    pictures = {name: (array - low) / (high - low) for name, array in result.pictures.items()}
    run.write_trials(result.trials.content(), pictures)
    return experiment.report(run, silent=silent)
