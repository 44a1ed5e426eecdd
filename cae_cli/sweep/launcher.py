"""Runs the jobs of a sweep, each in a fresh process: what becomes of one costs no other.

The processes are forked from a server that has imported Keras and nothing more, which starts no
threads; where there is a GPU each begins from nothing. They talk to nobody: what a job found is in its
folder, what it said in job.log there. A sweep that is called again goes on from what the folders say.
"""

from __future__ import annotations

import contextlib
import copy
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from cae_cli import sweep
from cae_cli.config import loader
from cae_cli.config.schema import parse
from cae_cli.diagnosis.catalogue import load_rules
from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.options import build, key_of, option
from cae_cli.report.progress import Progress, Running
from cae_cli.runs.folder import Run
from cae_cli.sweep import PlannedJob, SweepFolder
from cae_cli.sweep.fingerprint import Fingerprint, Place, place
from cae_cli.sweep.job import Task, value_of, wants_errors
from cae_cli.system import signals
from cae_cli.system.files import at_work, is_in_use
from cae_cli.training import backend

PLUGIN = "hydra_plugins.cae.process_launcher.ProcessLauncher"
GRACE = 5.0  # seconds that a job has to end in when it is asked to
TICK = 0.5  # seconds between two looks at the jobs
PRELOADED = ["keras", "cae_cli.sweep.job", "matplotlib.figure", "sklearn.datasets"]
JOB_LOG = "job.log"
SERVER_LOG = "launcher.log"
MEMORY = 2**31  # bytes that a job is taken to need


@dataclass(frozen=True, kw_only=True)
class Options:
    """The keys below ``hydra.launcher``."""

    n_jobs: int | None = option("jobs at once; null: as many as are fastest", least=1)
    timeout: float | None = option("seconds that a job may take; null: any", above=0)


@dataclass(frozen=True)
class Work:
    """What all jobs have in common, from Hydra.

    Attributes:
        context, task, config: as Hydra gives them to launchers.
    """

    context: HydraContext
    task: Task
    config: DictConfig


@dataclass(frozen=True)
class Slot:
    """Where a job runs.

    Attributes:
        cores: that it keeps to; none: all.
        gpu: that it sees, as CUDA_VISIBLE_DEVICES names it; None: there is none.
    """

    cores: tuple[int, ...] = ()
    gpu: str | None = None


@dataclass
class Job:
    """A job on its way."""

    overrides: tuple[str, ...]
    config: DictConfig
    place: Place
    epochs: int
    slot: Slot = field(default_factory=Slot)
    process: Any = None
    began: float = 0.0
    late: bool = False

    @property
    def run(self) -> Run:
        """Its files."""
        return self.place.run

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.run.folder.name

    def running(self) -> Running:
        """As the display wants it."""
        return Running(self.name, self.epochs, self.began, self.run.folder)


def launch(
    options: Options, work: Work, job_overrides: Sequence[Sequence[str]], first: int
) -> list[JobReturn]:
    """Runs the jobs that are not finished yet.

    Args:
        options: of the launcher.
        work: what they have in common.
        job_overrides: of each.
        first: number of the first one; sweepers that search call several times.

    Returns:
        What sweepers want of each: the value of the optimized metric, NaN if it failed.

    Raises:
        Interrupted: by a signal, after all jobs have ended.
    """
    folder = SweepFolder(Path(str(work.config.hydra.sweep.dir)))
    jobs: dict[Path, Job] = {}
    folders = []
    for number, overrides in enumerate(job_overrides, first):
        job = prepared(work, folder.folder, tuple(overrides), number)
        folders.append(job.run.folder)
        jobs.setdefault(job.run.folder, job)  # the same job twice is run once
    work.task.folders += jobs
    _write_down(folder, list(jobs.values()), begins=first == 0)
    run(options, work, folder, list(jobs.values()))
    return [_returned(jobs[folder], work) for folder in folders]


def run(options: Options, work: Work, folder: SweepFolder, jobs: Sequence[Job]) -> None:
    """Runs the jobs that are not finished yet, and says how it goes.

    Args:
        options: of the launcher.
        work: what they have in common.
        folder: theirs.
        jobs: no two of one folder.

    Raises:
        Interrupted: by a signal, after all jobs have ended.
    """
    todo = [job for job in jobs if not job.place.finished]
    slots = slots_for(options.n_jobs, len(todo), visible_gpus())
    progress = Progress(len(jobs), len(slots))
    for job in jobs:
        if job.place.note:
            progress.say(f"{job.name}: begun anew: {job.place.note}")
    progress.skipped(len(jobs) - len(todo))
    if todo:
        with progress.shown():
            _Pool(options, work, folder, slots, progress).run(todo)


def is_chosen(node: DictConfig) -> bool:
    """Whether a composed config has this launcher."""
    return bool(OmegaConf.select(node, "hydra.launcher._target_") == PLUGIN)


def check(node: DictConfig) -> None:
    """Looks at what a job's config says of the launcher and of the job's folder.

    Raises:
        UserError: a value out of range; a folder inside another.
    """
    if is_chosen(node):
        build(Options, node.hydra.launcher, "hydra.launcher", ignore=("_target_",))
    subdir = str(node.hydra.sweep.subdir)
    if Path(subdir).name != subdir:
        raise UserError(
            f"hydra.sweep.subdir must be the name of a folder, got {subdir!r}",
            hint="leave hydra.sweep.subdir out",
        )


def prepared(
    work: Work, folder: Path, overrides: tuple[str, ...], number: int, name: str | None = None
) -> Job:
    """A job with its config and its folder.

    Args:
        work: what all jobs have in common.
        folder: theirs.
        overrides: of this one.
        number: of this one.
        name: of its own folder; None: as the config says.
    """
    config = work.context.config_loader.load_sweep_config(work.config, list(overrides))
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.num, config.hydra.job.id = number, str(number)
        for plugin in ("launcher", "sweeper"):  # the classes of some plugins' options cannot be pickled
            config.hydra[plugin] = OmegaConf.to_container(config.hydra[plugin])
    HydraConfig.instance().set_config(config)  # ${hydra:job.num}; makes it read-only
    options = parse(config)
    where = place(
        folder / (name or str(config.hydra.sweep.subdir)),
        Fingerprint.of(options, judged=work.task.pictures),
        judged=work.task.pictures,
    )
    with read_write(config.hydra):
        config.hydra.sweep.subdir = where.run.folder.name
    return Job(overrides, config, where, options.training.epochs)


def _write_down(folder: SweepFolder, jobs: Sequence[Job], *, begins: bool) -> None:
    """Into sweep.json: these jobs, and those of earlier calls that are none of them."""
    content = folder.read()
    own = [
        PlannedJob(job.name, tuple(w for w in job.overrides if key_of(w) in content.swept))
        for job in jobs
    ]
    said = {job.overrides for job in own}
    others = [job for job in content.jobs if job.overrides not in said]
    folder.write(replace(content, jobs=(*own, *others) if begins else (*others, *own)))


def _returned(job: Job, work: Work) -> JobReturn:
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


# -- processes -------------------------------------------------------------------------------------


class _Pool:
    """The processes of a sweep's jobs."""

    def __init__(
        self,
        options: Options,
        work: Work,
        folder: SweepFolder,
        slots: Sequence[Slot],
        progress: Progress,
    ) -> None:
        self.options, self.work, self.folder, self.progress = options, work, folder, progress
        self.free = deque(slots)
        self.running: list[Job] = []
        self.log = folder.folder / SERVER_LOG
        self.context: Any = multiprocessing.get_context("forkserver" if _forks() else "spawn")

    def run(self, jobs: Sequence[Job]) -> None:
        """Runs jobs, and leaves no process behind.

        Raises:
            Interrupted: by a signal.
        """
        waiting = deque(jobs)
        number: int = signal.SIGTERM
        try:
            while waiting or self.running:
                while waiting and self.free:
                    self._start(waiting.popleft())
                sentinels = [job.process.sentinel for job in self.running]
                multiprocessing.connection.wait(sentinels, TICK)
                signals.check()
                for job in [job for job in self.running if job.process.exitcode is not None]:
                    self._end(job)
                    # At the end whoever called does it.
                    if self.work.task.pictures and (waiting or self.running):
                        self._rebuild()
                self._stop_the_late()
                self.progress.update([job.running() for job in self.running], len(waiting))
        except Interrupted as error:
            number = error.signal
            raise
        finally:
            self._stop(number)

    def _start(self, job: Job) -> None:
        job.slot = self.free.popleft()
        loader = self.work.context.config_loader
        job.process = self.context.Process(
            target=_work,
            args=(job.slot, job.run.folder, self.work.task, job.config, loader),
            name=job.name,
            daemon=True,
        )
        with backend.quiet(self.log):  # what the server says, and a job before it has its own log
            try:
                job.process.start()  # waits until the server has imported Keras
            except (EOFError, ConnectionError, FileNotFoundError) as error:
                raise RunFailed(
                    "the server that jobs are forked from has ended", hint=f"its words are in {self.log}"
                ) from error
        job.began = time.monotonic()
        self.running.append(job)
        self.progress.started(job.name)

    def _end(self, job: Job) -> None:
        job.process.join()
        self.running.remove(job)
        self.free.append(job.slot)
        _tell_how_it_ended(job, self.options.timeout)
        try:
            status = job.run.status()
        except UserError as error:
            status = {"reason": error.what}
        what = str(status.get("status") or "failed")
        if what != "ok":
            what += f": {status.get('reason') or f'see {job.run.folder / JOB_LOG}'}"
        self.progress.ended(job.name, time.monotonic() - job.began, what, ok=what == "ok")
        job.process.close()

    def _rebuild(self) -> None:
        try:
            sweep.rebuild(self.folder.folder)
        except Exception as error:  # the jobs are worth more than their table
            self.progress.say(f"the leaderboard cannot be made: {error}")

    def _stop_the_late(self) -> None:
        """Ends jobs that took longer than they may."""
        if self.options.timeout is None:
            return
        for job in self.running:
            over = time.monotonic() - job.began - self.options.timeout
            if over > GRACE and job.late:
                job.process.kill()
            elif over > 0 and not job.late:
                job.late = True
                job.process.terminate()

    def _stop(self, number: int) -> None:
        """Ends all jobs, first politely; a second signal, and it does so at once."""
        try:
            for job in self.running:
                if job.process.is_alive():
                    os.kill(job.process.pid, number)
            deadline = time.monotonic() + GRACE
            for job in self.running:
                job.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for job in self.running:
                job.process.kill()
            for job in self.running:
                job.process.join()


def _forks() -> bool:
    """Whether jobs are forked from a server: not where they might share a GPU's context with it."""
    return "forkserver" in multiprocessing.get_all_start_methods() and not visible_gpus()


@contextlib.contextmanager
def serving(folder: SweepFolder, *, early: bool) -> Iterator[None]:
    """In the block there is a server for jobs to be forked from, or will be with the first of them.

    Args:
        folder: of the sweep.
        early: it imports Keras at once, while the jobs are looked at.
    """
    try:
        if _forks():
            forkserver.set_forkserver_preload(PRELOADED)
            if early:
                with backend.quiet(folder.folder / SERVER_LOG):
                    forkserver.ensure_running()
        yield
    finally:
        server: Any = forkserver._forkserver
        if server._forkserver_pid is not None:  # Python would end it only when its imports are done
            with contextlib.suppress(ProcessLookupError):
                os.kill(server._forkserver_pid, signal.SIGKILL)
            server._stop()


def _tell_how_it_ended(job: Job, timeout: float | None) -> None:
    """Writes into the folder of a job whose process could not do so itself."""
    run, code = job.run, job.process.exitcode
    with contextlib.suppress(UserError):
        status = run.status().get("status")
        if job.place.busy or status in ("ok", "failed", "running") or is_in_use(run.folder):
            return
        if job.late:
            with at_work(run.folder):
                run.set_status("interrupted", f"it took longer than hydra.launcher.timeout={timeout:g}")
        elif code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            memory = " (out of memory?)" if -code == signal.SIGKILL else ""
            with at_work(run.folder):
                run.set_status("failed", f"killed by {name}{memory}")
        elif status != "interrupted" or code < 128:
            with at_work(run.folder):
                run.set_status("failed", f"its process ended with exit code {code}; see {JOB_LOG}")


def _work(slot: Slot, folder: Path, task: Task, config: DictConfig, configs: Any) -> None:
    """One job: what its process does."""
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    log = os.open(folder / JOB_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    if slot.cores:
        backend.keep_to(slot.cores)
    try:
        with signals.raised(once=True):
            version.setbase("1.3")
            setup_globals()
            loader.adopt(configs)
            JobRuntime.instance().set("name", config.hydra.job.name)
            if task.rules is not None:
                load_rules(task.rules)
            run_job(
                task_function=task,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=HydraContext(config_loader=configs, callbacks=Callbacks()),
            )
    except Interrupted as error:
        sys.exit(error.exit_code)


def _end_with_the_sweep() -> None:
    """Ends this process when that of the sweep is gone, whatever it is at: nobody would end it later."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


# -- where jobs run --------------------------------------------------------------------------------


def slots_for(asked_for: int | None, jobs: int, gpus: Sequence[str]) -> list[Slot]:
    """Where jobs run side by side.

    Args:
        asked_for: how many, or None.
        jobs: that there are.
        gpus: that there are; each has one job, or more if more were asked for.
    """
    count = min(jobs, asked_for or len(gpus) or _as_many_as_are_fastest())
    if gpus:
        return [Slot(gpu=gpus[i % len(gpus)]) for i in range(count)]
    if not hasattr(os, "sched_getaffinity"):
        return [Slot() for _ in range(count)]
    cores = sorted(os.sched_getaffinity(0))
    shares = [tuple(cores[i::count]) or (cores[i % len(cores)],) for i in range(count)]
    return [Slot(share if count > 1 else ()) for share in shares]


def _as_many_as_are_fastest() -> int:
    """A job for each core, if there is memory for so many."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = MEMORY * backend.cores()
    return max(1, min(backend.cores(), memory // MEMORY))


def visible_gpus(
    environment: Mapping[str, str] = os.environ, driver: Path = Path("/proc/driver/nvidia/gpus")
) -> list[str]:
    """The GPUs that TensorFlow would see, found without it, as CUDA_VISIBLE_DEVICES names them.

    Args:
        environment: the variables.
        driver: where NVIDIA's lists what there is.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    there = sorted(driver.iterdir()) if driver.is_dir() else []
    if named is None or not there:
        return [str(number) for number in range(len(there))]
    found = []
    for name in (word.strip() for word in named.split(",")):
        if not name or name.startswith("-"):  # CUDA ignores it and what follows
            break
        found.append(name)
    return found
