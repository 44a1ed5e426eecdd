"""One run as Hydra calls it: by itself, or as a job of a sweep or a batch."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cae_cli import experiment
from cae_cli.config import compose
from cae_cli.config.schema import parse
from cae_cli.errors import RunFailed, UserError
from cae_cli.report import terminal
from cae_cli.runs.folder import Run
from cae_cli.sweep import launcher

# What the job of a single run came to. Hydra would print a line of its own about an exception, and
# drop a result.
outcomes: list[experiment.Outcome | Exception] = []


def run(node: DictConfig) -> float | None:
    """One run; called by Hydra, once for each job of a sweep.

    A failing job of a sweep does not stop the others: its error is shown and written into its
    folder, and its result is NaN. That of one that finishes is the optimized metric.
    """
    return _run(node, pictures=True)


def run_without_pictures(node: DictConfig) -> float | None:
    """The same; nothing is drawn."""
    return _run(node, pictures=False)


def _run(node: DictConfig, *, pictures: bool) -> float | None:
    context = HydraConfig.get()
    folder = Run(Path(context.runtime.output_dir))
    is_sweep = context.mode is not None and context.mode.name == "MULTIRUN"
    screen = terminal.Screen()
    if is_sweep:
        screen.console.print()
        screen.say(f"job {context.job.num}: {' '.join(context.overrides.task)}")
    try:
        # Only `launcher` gives a job the folder of one that was cut short.
        again = is_sweep and folder.status().get("status") == "interrupted" and folder.is_set_up()
        outcome = experiment.run(parse(node), _command(context), folder, again=again, pictures=pictures)
    except Exception as error:
        if not isinstance(error, UserError | RunFailed):
            error = unforeseen(error, folder)
        if is_sweep:
            terminal.show_error(error)
            if launcher.wants_errors(context):
                raise error from error.__cause__
        else:
            outcomes.append(error)
        return float("nan")
    if is_sweep:
        terminal.show([terminal.verdict(outcome.diagnosis)])
        if outcome.failed and launcher.wants_errors(context):
            raise RunFailed(str(folder.status().get("reason")))
        return launcher.value_of(folder, node.get("optimized_metric"))
    outcomes.append(outcome)
    return None


def _command(context: Any) -> list[str]:
    """The words that make a job again by itself."""
    words = ["cae", "train"]
    for source in context.runtime.config_sources:
        if source.provider == "command-line":
            words += ["-cd", source.path]
    if context.job.config_name != "config":
        words += ["-cn", context.job.config_name]
    return [*words, *map(compose.as_typed, context.overrides.task)]


def job_folder(overrides: str) -> str:
    """Name of a job's folder: what was swept, in at most some 70 characters.

    The same values have the same folder, however many others there are.
    """
    slug = re.sub(r"[^\w=.,+-]+", "-", overrides).strip("-.")
    if slug != overrides or len(slug) > 60:  # two that differ must not be called the same
        slug = f"{slug[:60]}_{hashlib.sha256(overrides.encode()).hexdigest()[:6]}"
    return slug if overrides else "job"


# Here, where every process that unpickles `run` comes by.
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


def unforeseen(error: Exception, run: Run) -> RunFailed:
    """What to say of an error that nobody foresaw."""
    name = type(error).__name__
    message = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, MemoryError) or name == "ResourceExhaustedError":
        failure = RunFailed(
            f"not enough memory: {message}",
            hint="fewer or smaller images, a smaller training.batch_size, or a smaller model",
        )
    else:
        failure = RunFailed(f"{name}: {message}", hint=f"the traceback is in {run.log}")
    failure.__cause__ = error
    return failure
