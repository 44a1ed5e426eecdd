"""The life of a sweep: a command line becomes checked jobs, a folder, trained runs and a leaderboard."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cae_cli import experiment, sweep
from cae_cli.config import compose
from cae_cli.config.schema import METRICS, Config
from cae_cli.config.trust import check_subdir
from cae_cli.errors import Interrupted, UserError, counted, to_paste
from cae_cli.options import key_of, quoted
from cae_cli.report import terminal
from cae_cli.runs.command import fit_to_paste
from cae_cli.runs.sweep_folder import Objective, SweepFile, SweepFolder
from cae_cli.sweep import Sweep, grid, launcher, pool
from cae_cli.sweep.hydra_app import call_hydra, check_empty, own_folder
from cae_cli.sweep.job import Task, wants_errors
from cae_cli.sweep.jobs import unplanned
from cae_cli.system import streams
from cae_cli.system.files import at_work, is_in_use
from cae_cli.system.guarded import GuardedPath

GRIDS = ("basic", "grid")  # sweepers that train all combinations
FOLDER_KEY = "hydra.sweep.dir"


class SweepSession:
    """One ``cae train -m`` command. All jobs are checked when it is made.

    Args:
        command: the whole command.
        overrides: of the command line.
        sources: where configs are read from.
        flags: of Hydra.
        rules: a Python file with rules of the user, or None.

    Raises:
        UserError: an override, or a job that it leads to, is wrong.
    """

    def __init__(
        self,
        command: Sequence[str],
        overrides: Sequence[str],
        sources: compose.Sources,
        *,
        flags: Sequence[str],
        rules: Path | None,
    ) -> None:
        self.command, self.sources, self.flags = tuple(command), sources, flags
        self.task = Task(rules=rules)
        self.overrides, own, self._extra = grid.taken_out(overrides)
        composed = compose.with_sweeper_params(self.overrides, sources)
        jobs = compose.jobs(composed)
        own.check(composed, jobs)
        jobs = own.jobs(jobs)
        with terminal.Screen().doing(f"checking {counted(len(jobs), 'job')} …"):
            checked = [_checked_job(job, number, sources) for number, job in enumerate(jobs)]
        self.node, config = checked[0]
        self.swept = (*compose.swept_keys(composed), *own.keys)
        self.target = None
        if config.optimized_metric is not None:
            self.target = Objective(config.optimized_metric, METRICS[config.optimized_metric])
        self.has_our_launcher = launcher.is_chosen(self.node)
        self._job_count = len(jobs)
        self._extra += [*self._job_names(composed), *self._search_overrides()]

    def _job_names(self, composed: Sequence[str]) -> list[str]:
        """Overrides that name the folders of jobs by what was swept."""
        fixed = {o.key_or_group for o in compose.parsed(composed)} - set(self.swept)
        left_out = ",".join(sorted(key for key in fixed if not key.startswith("hydra")))
        names = [f"hydra.job.config.override_dirname.exclude_keys=[{left_out}]"]
        if not self.has_our_launcher and not self._is_given("hydra.sweep.subdir"):
            # Other launchers do not notice two equal jobs, which a searching sweeper may propose.
            subdir = "${hydra.job.num}_${job_folder:${hydra.job.override_dirname}}"
            names.append(f"hydra.sweep.subdir='{subdir}'")
        return names

    def _search_overrides(self) -> list[str]:
        """Overrides that give a searching sweeper its direction, and let it survive a failed job.

        Raises:
            UserError: there is nothing to optimize, or the given direction is the wrong one.
        """
        if self._has_grid:
            return []
        if self.target is None:
            others = ", ".join(name for name in METRICS if name != "val/psnr")
            raise UserError(
                f"hydra/sweeper={self._sweeper} needs a metric to optimize",
                hint=f"optimized_metric=val/psnr, or {others}",
            )
        extra = []
        if wants_errors(self.node.hydra) and not self._is_given("hydra.sweeper.max_failure_rate"):
            extra.append("hydra.sweeper.max_failure_rate=1.0")
        if "direction" not in self.node.hydra.sweeper:
            return extra
        direction = {"max": "maximize", "min": "minimize"}[self.target.goal]
        key = "hydra.sweeper.direction"
        given = next((word for word in self.overrides if key_of(word) == key), None)
        if given is None:
            return [*extra, f"{key}={direction}"]
        if direction not in given:
            better = "higher" if self.target.goal == "max" else "lower"
            raise UserError(
                f"{self.target.name} is better when it is {better}",
                where=f"command line: {given}",
                hint=f"leave it out, or use {key}={direction}",
            )
        return extra

    @property
    def _sweeper(self) -> str:
        return str(self.node.hydra.runtime.choices["hydra/sweeper"])

    @property
    def _has_grid(self) -> bool:
        return self._sweeper in GRIDS

    def _is_given(self, key: str) -> bool:
        return key in map(key_of, self.overrides)

    def run(self) -> tuple[Sweep, bool]:
        """Trains the jobs that are not finished, and shows the leaderboard.

        Returns:
            The sweep, and whether all jobs succeeded.

        Raises:
            UserError: the folder holds something else, or Hydra objects to an override.
            Interrupted: by a signal; the leaderboard of what is finished is shown.
        """
        status = "failed"
        with self._claimed_folder() as folder:
            folder.root.check(deep=False)  # Hydra and its plugins write into it
            streams.results_in(folder.losses)
            before = folder.read() if folder.is_written() else None
            jobs = before.jobs if before else ()
            folder.write(SweepFile(self.command, self.swept, "running", self.target, jobs))
            try:
                self._train(folder, early=before is None or before.status != "ok")
                if self._has_succeeded(sweep.read(folder.folder)):
                    status = "ok"
                    folder.log.unlink()
            except Interrupted:
                status = "interrupted"
                raise
            finally:
                folder.write(replace(folder.read(), status=status))
                done = self._shown(folder)
                if status == "interrupted" and self.has_our_launcher:
                    terminal.Screen().say("Run the same command to resume.")
        return done, status == "ok"

    def _train(self, folder: SweepFolder, *, early: bool) -> None:
        """Lets Hydra run the jobs.

        Args:
            folder: of the sweep.
            early: start the server of job processes at once: some job needs it for certain.
        """
        if Path.cwd() not in [Path(path).resolve() for path in sys.path]:
            # New Python processes would import modules from the current folder, whoever made it.
            os.environ["PYTHONSAFEPATH"] = "1"
        ours = self.has_our_launcher
        with pool.serving(folder, early=early) if ours else contextlib.nullcontext():
            call_hydra(
                self.task,
                self.overrides,
                self.sources,
                flags=self.flags,
                extra=[f"{FOLDER_KEY}={quoted(folder.folder)}", *self._extra],
            )
        if not ours:
            folder.write(replace(folder.read(), jobs=unplanned(folder.root)[1]))

    def _has_succeeded(self, done: Sweep) -> bool:
        """Whether all planned jobs began, and all of them are ok."""
        if self.has_our_launcher:
            names = {folder.name for folder in self.task.folders}
            jobs = [job for job in done.jobs if job.folder.name in names]
            planned = len(names)
        else:  # workers of another launcher may die before their folders are made
            jobs, planned = list(done.jobs), self._job_count * self._has_grid
        return len(jobs) >= planned and all(job.status == "ok" for job in jobs)

    @staticmethod
    def _shown(folder: SweepFolder) -> Sweep:
        """Writes and shows the leaderboard."""
        done = sweep.read(folder.folder)
        if done.jobs:
            terminal.show([*sweep.show(done), terminal.folder(folder.folder)])
        return done

    @contextlib.contextmanager
    def _claimed_folder(self) -> Iterator[SweepFolder]:
        """The folder of the newest sweep of the same command, else a new one; locked in the block.

        Raises:
            UserError: the given folder holds something else.
        """
        if self.has_our_launcher and not self._is_given(FOLDER_KEY):
            for earlier in self._earlier():
                with contextlib.ExitStack() as stack:
                    try:
                        stack.enter_context(at_work(earlier.root))
                    except UserError:  # another process has just resumed it
                        continue
                    terminal.Screen().say(
                        f"resuming {earlier.folder}; {FOLDER_KEY}=FOLDER starts another sweep"
                    )
                    yield earlier
                    return
        path, is_new = own_folder(self.node, self.overrides, FOLDER_KEY)
        folder = SweepFolder(path)
        with at_work(folder.root):
            if not (self.has_our_launcher and folder.is_written()):
                check_empty(path, FOLDER_KEY)
            elif not self._is_same(command := folder.read().command):
                words = fit_to_paste(command)
                raise UserError(
                    "another sweep is in this folder",
                    where=path,
                    hint=f"its command: {to_paste(*words)}" if words else "choose another folder",
                )
            try:
                yield folder
            except UserError:
                if is_new and not any(inner.is_dir() for inner in path.iterdir()):
                    shutil.rmtree(path, ignore_errors=True)  # no job was begun
                raise

    def _earlier(self) -> Iterator[SweepFolder]:
        """Sweeps of the same command that no process is working on, the newest first."""
        parent = GuardedPath(Path(str(OmegaConf.select(self.node, FOLDER_KEY))))
        for path in reversed(parent.children()):
            if not path.is_folder():  # links are followed only where a person types them
                continue
            folder = SweepFolder(path)
            try:
                if not folder.is_written() or is_in_use(folder.root):
                    continue
                content = folder.read()
            except (UserError, OSError):  # damaged, not a sweep, or somebody else's
                continue
            if self._is_same(content.command) and (
                content.status != "running" or is_in_use(folder.root) is False
            ):
                yield folder

    def _is_same(self, command: Sequence[str]) -> bool:
        """Whether a command in a file is that of this sweep."""
        try:
            return identity(command) == identity(self.command)
        except UserError:  # it is not the command of a sweep
            return False


def identity(command: Sequence[str]) -> tuple[Any, ...]:
    """What two commands of the same sweep share: flags, fixed overrides and swept keys.

    Raises:
        UserError: it is not the command of a sweep.
    """
    words = list(command[3:])
    flags = []
    while words and words[0].startswith("-"):
        flags += [words.pop(0) for _ in range(1 if words[0].startswith("--") else 2) if words]
    words, own, _ = grid.taken_out(words)
    overrides = compose.parsed(words)
    swept = {o.key_or_group for o in overrides if o.is_sweep_override()}
    ignored = re.compile(r"hydra[./]launcher\b.*|hydra\.sweep\.dir|optimized_metric")
    fixed = {
        o.input_line
        for o in overrides
        if o.key_or_group not in swept and not ignored.fullmatch(o.key_or_group)
    }
    return tuple(flags), frozenset(fixed), frozenset(swept | set(own.keys))


def _checked_job(
    overrides: Sequence[str], number: int, sources: compose.Sources
) -> tuple[DictConfig, Config]:
    try:
        node, config = compose.checked(overrides, sources)
        experiment.check_early(config)
        with compose.rephrased_errors(overrides, sources):
            check_subdir(node, number)
            launcher.check(node)
    except UserError as error:
        error.where = error.where or f"job: {' '.join(overrides)}"
        raise
    return node, config
