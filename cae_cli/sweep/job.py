"""One run as Hydra calls it: a single run, or a job of a sweep or a batch."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cae_cli import experiment
from cae_cli.config.schema import parse
from cae_cli.errors import RunFailed, UserError
from cae_cli.experiment import Outcome
from cae_cli.report import summary, terminal
from cae_cli.runs.folder import Run
from cae_cli.system import files, streams


@dataclass
class Task:
    """What Hydra calls with the config of a run: by itself, or once for each job of a sweep or a batch.

    Processes of jobs get a copy of it, so it also carries what they have to know.

    Attributes:
        pictures: draw them. Without pictures only the training counts as the result of a job.
        rules: a Python file with rules of the user, or None.
        guest: the process of a single run is somebody else's, and is left as it was.
        silent: show nothing of a single run.
        outcome: of a single run, once it has ended. Hydra would print an exception itself, and drop a
            result.
        folders: of the jobs of this sweep, filled by the process launcher; or of the single run.
    """

    pictures: bool = True
    rules: Path | None = None
    guest: bool = False
    silent: bool = False
    outcome: Outcome | Exception | None = None
    folders: list[Path] = field(default_factory=list)

    @streams.guarded()  # launchers call it in processes of their own
    def __call__(self, node: DictConfig) -> float | None:
        """Runs one job.

        A failing job of a sweep does not stop the others: its error is shown and written into its
        folder.

        Returns:
            Of a job of a sweep, the optimized metric; NaN if the job failed.
        """
        context = HydraConfig.get()
        folder = Run(Path(context.runtime.output_dir))
        is_sweep = context.mode is not None and context.mode.name == "MULTIRUN"
        screen = terminal.Screen()
        if is_sweep:
            screen.console.print()
            screen.say(f"job {context.job.num}: {' '.join(context.overrides.task)}")
        try:
            # Only the process launcher gives a job the folder of an interrupted one.
            resume = is_sweep and folder.status().get("status") == "interrupted" and folder.is_set_up()
            outcome = experiment.run(
                parse(node),
                _command(context),
                folder,
                choices=_choices(context),
                resume=resume,
                pictures=self.pictures,
                guest=self.guest,
                silent=self.silent,
            )
        except Exception as error:
            if not isinstance(error, UserError | RunFailed):
                error = unforeseen(error, folder)
            if not is_sweep:
                self.outcome = error
            else:
                terminal.show_error(error)
                if wants_errors(context):
                    raise error from error.__cause__
            return math.nan
        if not is_sweep:
            self.outcome = outcome
            return None
        terminal.show([summary.verdict(outcome.diagnosis)])
        if outcome.failed and wants_errors(context):
            raise RunFailed(str(folder.status().get("reason")))
        return value_of(folder, node.get("optimized_metric"))


def value_of(run: Run, metric: str | None) -> float | None:
    """The optimized metric of a run: NaN if it did not finish, None without a metric."""
    try:
        if run.status().get("status") != "ok":
            return math.nan
        if metric is None:
            return None
        if metric == "explained":
            return float(run.summary()["metrics"]["quality"]["explained_variance"])
        metrics = run.read_metrics()
        [row] = (metrics["epoch"] == run.training()["measured_epoch"]).nonzero()[0]
        return float(metrics[metric][row])
    except (UserError, KeyError, TypeError, ValueError):
        return math.nan


def wants_errors(hydra: Any) -> bool:
    """Whether the sweeper needs an exception for a failed job: Optuna's cannot use NaN."""
    return "max_failure_rate" in hydra.sweeper


def _command(context: Any) -> list[str]:
    """The command that repeats a job as a single run."""
    command = ["cae", "train"]
    for source in context.runtime.config_sources:
        if source.provider == "command-line":
            command += ["-cd", source.path]
    if context.job.config_name != "config":
        command += ["-cn", context.job.config_name]
    return [*command, *context.overrides.task]


def _choices(context: Any) -> dict[str, Any]:
    """The chosen option of each config group of cae."""
    choices = OmegaConf.to_container(context.runtime.choices)
    assert isinstance(choices, dict)
    return {str(group): name for group, name in choices.items() if not str(group).startswith("hydra/")}


def job_folder(overrides: str) -> str:
    """The name of a job's folder: its swept values, in at most 67 characters.

    The same values have the same folder, however many other jobs there are.
    """
    slug = re.sub(r"[^\w=.,+-]+", "-", overrides).strip("-.")
    if slug != overrides or len(slug) > 60:  # different values must not get the same name
        slug = f"{slug[:60]}_{hashlib.sha256(overrides.encode()).hexdigest()[:6]}"
    return slug if overrides else "job"


# Every process that unpickles a `Task` imports this module.
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


def unforeseen(error: Exception, run: Run) -> RunFailed | UserError:
    """Turns an unexpected error into one with a hint."""
    refusal = files.refused(error) if isinstance(error, OSError) else None
    if refusal is not None:
        return refusal
    name = type(error).__name__
    message = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, MemoryError) or name == "ResourceExhaustedError":
        failure = RunFailed(
            f"not enough memory{f': {message}' if message else ''}",
            hint="use fewer or smaller images, a smaller training.batch_size or a smaller model",
        )
    else:
        failure = RunFailed(f"{name}: {message}", hint=f"the traceback is in {run.log}")
    failure.__cause__ = error
    return failure
