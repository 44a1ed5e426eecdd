"""The process launcher of Hydra: prepares the jobs of a sweep and returns what sweepers need to know.

A sweep that is started again takes its state from the folders of its jobs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from cae_cli.config.schema import parse
from cae_cli.errors import RunFailed, UserError
from cae_cli.options import build, key_of, option
from cae_cli.runs.sweep_folder import PlannedJob, SweepFolder
from cae_cli.sweep.fingerprint import Fingerprint, claim_folder
from cae_cli.sweep.job import value_of, wants_errors
from cae_cli.sweep.pool import PreparedJob, Work, run_jobs

PLUGIN = "hydra_plugins.cae.process_launcher.ProcessLauncher"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The keys below ``hydra.launcher``."""

    n_jobs: int | None = option("jobs at once; null: as many as are fastest", least=1)
    timeout: float | None = option("seconds that a job may take; null: any", above=0)


def launch(
    options: Options, work: Work, job_overrides: Sequence[Sequence[str]], first: int
) -> list[JobReturn]:
    """Runs the jobs that are not finished yet.

    Args:
        options: of the launcher.
        work: what all jobs have in common.
        job_overrides: the overrides of each job.
        first: number of the first job; sweepers that search call this several times.

    Returns:
        For each job the optimized metric, NaN if the job failed.

    Raises:
        Interrupted: by a signal, after all jobs have ended.
    """
    folder = SweepFolder(Path(str(work.config.hydra.sweep.dir)))
    prepared = [
        prepare(work, folder, tuple(overrides), number)
        for number, overrides in enumerate(job_overrides, first)
    ]
    unique: dict[Path, PreparedJob] = {}
    for job in prepared:
        unique.setdefault(job.run.folder, job)
    jobs = list(unique.values())
    work.task.folders += [job.run.folder for job in jobs]
    _plan(folder, jobs, begins=first == 0)
    run_jobs(work, folder, jobs, n_jobs=options.n_jobs, timeout=options.timeout)
    return [_result(job, work) for job in prepared]


def is_chosen(node: DictConfig) -> bool:
    """Whether a composed config has this launcher."""
    return bool(OmegaConf.select(node, "hydra.launcher._target_") == PLUGIN)


def check(node: DictConfig) -> None:
    """Checks the launcher's options and the folder name in the config of a job.

    Raises:
        UserError: a value is out of range, or the name is not that of a folder.
    """
    if is_chosen(node):
        build(Options, node.hydra.launcher, "hydra.launcher", ignore=("_target_",))
    subdir = str(node.hydra.sweep.subdir)
    if Path(subdir).name != subdir:
        raise UserError(
            f"hydra.sweep.subdir must be the name of a folder, got {subdir!r}",
            hint="leave hydra.sweep.subdir out",
        )


def prepare(
    work: Work,
    folder: SweepFolder,
    overrides: tuple[str, ...],
    number: int,
    name: str | None = None,
) -> PreparedJob:
    """Composes the config of a job and claims its folder.

    Args:
        work: what all jobs have in common.
        folder: the sweep's.
        overrides: of this job.
        number: of this job.
        name: of the job's folder; None for that of the config.
    """
    config = work.context.config_loader.load_sweep_config(work.config, list(overrides))
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.num, config.hydra.job.id = number, str(number)
        for plugin in ("launcher", "sweeper"):  # the classes of some plugins' options cannot be pickled
            config.hydra[plugin] = OmegaConf.to_container(config.hydra[plugin])
    HydraConfig.instance().set_config(config)  # ${hydra:job.num}; makes it read-only
    options = parse(config)
    verdict = work.task.pictures
    claimed = claim_folder(
        folder.root / (name or str(config.hydra.sweep.subdir)),
        Fingerprint.of(options, verdict=verdict),
        verdict=verdict,
    )
    with read_write(config.hydra):
        config.hydra.sweep.subdir = claimed.run.folder.name
    length, images = options.training, options.data.train
    epochs = length.epochs if images is None else length.planned_epochs(images)
    return PreparedJob(overrides, config, claimed, epochs)


def _plan(folder: SweepFolder, jobs: Sequence[PreparedJob], *, begins: bool) -> None:
    """Adds the jobs to those of earlier calls in sweep.json."""
    content = folder.read()
    own = [
        PlannedJob(job.name, tuple(w for w in job.overrides if key_of(w) in content.swept))
        for job in jobs
    ]
    planned = {job.overrides for job in own}
    others = [job for job in content.jobs if job.overrides not in planned]
    folder.write(replace(content, jobs=(*own, *others) if begins else (*others, *own)))


def _result(job: PreparedJob, work: Work) -> JobReturn:
    config = copy.deepcopy(job.config)
    hydra_config = OmegaConf.create({"hydra": config.hydra})
    with open_dict(config):
        del config["hydra"]
    value: Any = value_of(job.run, config.get("optimized_metric"))
    status = JobStatus.COMPLETED
    if value is not None and math.isnan(value) and wants_errors(work.config.hydra):
        value, status = RunFailed(f"{job.name} failed"), JobStatus.FAILED
    return JobReturn(
        overrides=job.overrides,
        cfg=config,
        hydra_cfg=hydra_config,
        working_dir=str(job.run.folder),
        task_name=job.config.hydra.job.name,
        status=status,
        _return_value=value,
    )
