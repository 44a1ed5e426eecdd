"""Short trainings that tell apart what the figures of one training cannot.

Each repeats the run with one fix, the same seed and few steps; beside them stands the run
itself, cut as short. What helps names the cause.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cae_cli import experiment
from cae_cli.config.schema import Config
from cae_cli.data import Images, as_float
from cae_cli.diagnosis import Diagnosis
from cae_cli.diagnosis.finding import Fix, Safety, Severity, Trial
from cae_cli.errors import UserError
from cae_cli.metrics.quality import explained_variance
from cae_cli.training import backend
from cae_cli.training.fit import fit
from cae_cli.training.recorder import Recorder

STEPS = 200
FEW = 500  # images from which the variance is taken

# What is tried where no finding says what to try: the remedies that told causes apart most often.
USUAL = (
    Fix(("loss=bce",), "another loss", Safety.SAFE),
    Fix(("regularization=batchnorm",), "live gradients", Safety.SAFE),
    Fix(("optimizer.learning_rate=0.01",), "larger steps", Safety.SAFE),
    Fix(("model=wide",), "more filters", Safety.SLOW),
    Fix(("model=shallow",), "fewer layers", Safety.SAFE),
)


def candidates(diagnosis: Diagnosis, most: int) -> list[tuple[Fix, str | None]]:
    """What to try: fixes of the causes found, else the usual remedies.

    Fixes that are nothing but more time or more images say nothing in so few steps.
    """
    chosen: dict[tuple[str, ...], tuple[Fix, str | None]] = {}
    causes = [f for f in diagnosis.findings if f.consequence_of is None]
    ranked = [f for f in causes if f.severity is not Severity.NOTE] or causes
    for place in range(3):  # the best of each cause first
        for finding in ranked:
            for fix in finding.fixes[place : place + 1]:
                if fix.safety is not Safety.SLOW:
                    chosen.setdefault(fix.overrides, (fix, finding.code))
    for fix in USUAL:
        chosen.setdefault(fix.overrides, (fix, None))
    return list(chosen.values())[:most]


def trials(
    words: Sequence[str],
    diagnosis: Diagnosis,
    compose: Callable[[Sequence[str]], Config],
    *,
    most: int = 6,
    on_trial: Callable[[str], None] = lambda what: None,
) -> list[Trial]:
    """Makes the short trainings.

    Args:
        words: of the run's own command.
        diagnosis: of the run.
        compose: makes a checked config of a command's words behind ``cae train``.
        most: trainings beside the run itself.
        on_trial: hears what is tried, before it is.

    Returns:
        The run itself first, then the others, the most helpful first.
    """
    options = compose(words[2:])
    device = backend.start(deterministic=options.training.deterministic, mixed_precision=False)
    images = experiment.load_images(options)
    on_trial("the run itself")
    itself = _explained(options, images, device.parts)
    base = 0.0 if math.isnan(itself) else itself  # a run that diverged is no better than the mean image
    found = []
    for fix, code in candidates(diagnosis, most):
        command = shlex.split(fix.command(words))
        try:
            changed = compose(command[2:])
            if changed == options:
                continue
            its_images = images if changed.data == options.data else experiment.load_images(changed)
            experiment.check(changed, its_images)
        except UserError:
            continue  # a usual remedy that does not fit this run
        on_trial(" ".join(fix.overrides))
        explained = _explained(changed, its_images, device.parts)
        found.append(Trial(fix.overrides, fix.why, code, explained, explained - base))
    found.sort(key=lambda trial: -np.nan_to_num(trial.gain, nan=-np.inf))
    return [Trial((), "the run itself", None, itself, 0.0), *found]


def _explained(options: Config, images: Images, parts: int) -> float:
    """Explained variance of validation images after `STEPS` steps.

    Returns:
        NaN if the training diverged, or was too large for the memory.
    """
    short = replace(options, training=options.training.shortened(STEPS, len(images.train)))
    try:
        autoencoder = experiment.build_network(short, images)
        history = fit(autoencoder, images, short, Recorder(autoencoder.model, dict), parts=parts)
    except Exception:  # whatever breaks one trial (memory, mostly), the others are worth having
        return float("nan")
    if history.diverged_at is not None:
        return float("nan")
    mean = as_float(images.train[:FEW]).mean(axis=0)
    variance = np.square(as_float(images.validation[:FEW]) - mean)
    return explained_variance(np.array([history.epochs[-1].val_mse], np.float32), variance)
