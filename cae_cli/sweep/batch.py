"""Runs in one folder that are not a grid: each has its own overrides and name.

They run like the jobs of a sweep: a crash costs one run, all cores are used, and finished runs are not
trained again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.types import RunMode
from omegaconf import read_write

from cae_cli.config import compose, hydra_internals
from cae_cli.config.schema import Config
from cae_cli.config.trust import Trust, check_untrusted
from cae_cli.errors import counted
from cae_cli.options import quoted
from cae_cli.report.terminal import Screen
from cae_cli.runs.folder import Run
from cae_cli.runs.sweep_folder import PlannedJob, SweepFile, SweepFolder
from cae_cli.sweep.job import Task
from cae_cli.sweep.launcher import prepare
from cae_cli.sweep.pool import PreparedJob, Work, run_jobs, serving
from cae_cli.system import streams
from cae_cli.system.files import at_work
from cae_cli.system.guarded import GuardedPath

# The overrides of a batch come from files, which are not trusted.
UNTRUSTED = compose.Sources(trust=Trust(overrides=False))


@dataclass(frozen=True)
class BatchRun:
    """A run of a batch.

    Attributes:
        name: of its folder.
        overrides: all that follows ``cae train``.
    """

    name: str
    overrides: tuple[str, ...]


class Batch:
    """Runs in one folder; made by `opened`.

    Args:
        folder: of the runs.
        n_jobs: how many runs at once; None for as many as are fastest.
        pictures: draw pictures. Without pictures only the training counts as the result of a run: it is
            trained again only if the code that trains has changed.
    """

    def __init__(self, folder: SweepFolder, *, n_jobs: int | None, pictures: bool) -> None:
        self.folder, self._n_jobs = folder, n_jobs
        loader = hydra_internals.loader_of(compose.Sources())
        master = loader.load_configuration("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        with read_write(master.hydra):  # Hydra composes every job from these overrides
            master.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder.folder)}")
        context = hydra_internals.context_of(loader)
        self._work = Work(context, Task(pictures=pictures), master)
        self._trained = 0

    def train(self, runs: Sequence[BatchRun]) -> list[Run]:
        """Trains the runs that are not finished yet.

        Args:
            runs: each with another name.

        Returns:
            The run folders, in the same order. The status says which runs failed.

        Raises:
            UserError: the overrides of a run are wrong; nothing is trained then.
            Interrupted: by a signal, after all runs have ended.
        """
        with Screen().doing(f"checking {counted(len(runs), 'run')} …"):
            jobs = [self._prepare(run, number) for number, run in enumerate(runs, self._trained)]
        self._trained += len(jobs)
        content = self.folder.read()
        planned = dict.fromkeys([*content.jobs, *(PlannedJob(job.name, ()) for job in jobs)])
        self.folder.write(replace(content, jobs=tuple(planned)))
        run_jobs(self._work, self.folder, jobs, n_jobs=self._n_jobs, timeout=None)
        return [job.run for job in jobs]

    def _prepare(self, run: BatchRun, number: int) -> PreparedJob:
        with compose.rephrased_errors(run.overrides, UNTRUSTED):
            for override in compose.parsed(run.overrides):
                check_untrusted(override)  # the loader of a batch trusts what Hydra passes on
            return prepare(self._work, self.folder, run.overrides, number, run.name)


def checked(overrides: Sequence[str]) -> Config:
    """The config of overrides that are not trusted.

    Each config is composed once, because a treatment asks for the same one often and composing takes a
    quarter of a second.

    Raises:
        UserError: the overrides are wrong.
    """
    return _composed(tuple(overrides))


@functools.lru_cache(4096)
def _composed(overrides: tuple[str, ...]) -> Config:
    return compose.checked(overrides, UNTRUSTED)[1]


@contextmanager
def opened(
    folder: Path | GuardedPath,
    command: Sequence[str],
    *,
    n_jobs: int | None = None,
    pictures: bool = True,
) -> Iterator[Batch]:
    """Opens a folder in which runs can be trained; no other process can use it meanwhile.

    Args:
        folder: an existing folder, empty or of an earlier batch.
        command: the command that trains the batch, for sweep.json.
        n_jobs: see `Batch`.
        pictures: see `Batch`.

    Raises:
        UserError: another process uses the folder.
    """
    sweep = SweepFolder(folder)
    with at_work(sweep.root):
        streams.results_in(sweep.losses)
        before = sweep.read().jobs if sweep.is_written() else ()
        sweep.write(SweepFile(tuple(command), (), "running", None, before))
        status = "interrupted"
        try:
            with serving(sweep, early=True):
                yield Batch(sweep, n_jobs=n_jobs, pictures=pictures)
            status = "ok"
        finally:
            sweep.write(replace(sweep.read(), status=status))
