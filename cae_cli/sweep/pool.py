"""The processes of a sweep's jobs: every job has a fresh one, so that a crash costs one job.

Processes are forked from a server that has imported Keras and started no threads; with a GPU each starts
from scratch. A job sends nothing back: its result is its run folder, its output is job.log there.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver, util
from typing import Any

from hydra.core.utils import JobRuntime, run_job
from hydra.types import HydraContext
from omegaconf import DictConfig

from cae_cli import sweep
from cae_cli.config import hydra_internals
from cae_cli.diagnosis.catalogue import load_rules
from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.report.progress import Progress, Running
from cae_cli.runs.folder import Run
from cae_cli.runs.sweep_folder import SweepFolder
from cae_cli.sweep.fingerprint import JobFolder
from cae_cli.sweep.job import Task
from cae_cli.sweep.slots import Slot, slots_for
from cae_cli.system import signals
from cae_cli.system.files import at_work, is_in_use
from cae_cli.training import backend

GRACE = 5.0  # seconds between the signal that asks a job to end and SIGKILL
TICK = 0.5  # seconds between two checks of the jobs
LONGEST_SOCKET_FOLDER = 60  # bytes; 32 are added to it
PRELOADED = ["keras", "cae_cli.sweep.job", "matplotlib.figure", "sklearn.datasets"]


@dataclass(frozen=True)
class Work:
    """What all jobs have in common, as Hydra gives it to launchers."""

    context: HydraContext
    task: Task
    config: DictConfig


@dataclass
class PreparedJob:
    """A job that can be started.

    Attributes:
        overrides: its overrides beyond those of all jobs.
        config: the composed config, with the node ``hydra``.
        folder: its folder, and whether it has to run at all.
        epochs: of its training; those of the config, where training.steps decides for a source of
            unknown size.
        slot: where it runs.
        process: None before its start.
        began: when its process was started, by `time.monotonic`.
        late: it exceeded the timeout and was asked to end.
    """

    overrides: tuple[str, ...]
    config: DictConfig
    folder: JobFolder
    epochs: int
    slot: Slot = field(default_factory=Slot)
    process: Any = None
    began: float = 0.0
    late: bool = False

    @property
    def run(self) -> Run:
        """Its files."""
        return self.folder.run

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.run.folder.name


def run_jobs(
    work: Work,
    folder: SweepFolder,
    jobs: Sequence[PreparedJob],
    *,
    n_jobs: int | None,
    timeout: float | None,
) -> None:
    """Runs the jobs that are not finished yet, and shows the progress.

    Args:
        work: what they have in common.
        folder: the sweep's.
        jobs: each in another folder.
        n_jobs: how many at once; None for as many as are fastest.
        timeout: seconds that a job may take; None for no limit.

    Raises:
        Interrupted: by a signal, after all jobs have ended.
    """
    todo = [job for job in jobs if not job.folder.finished]
    slots = slots_for(n_jobs, len(todo), backend.visible_gpus())
    progress = Progress(len(jobs), len(slots))
    for job in jobs:
        if job.folder.note:
            progress.say(f"{job.name}: trained in a new folder: {job.folder.note}")
    progress.skipped(len(jobs) - len(todo))
    if todo:
        with progress.shown():
            _Pool(work, folder, slots, progress, timeout).run(todo)


class _Pool:
    """The processes of a sweep's jobs."""

    def __init__(
        self,
        work: Work,
        folder: SweepFolder,
        slots: Sequence[Slot],
        progress: Progress,
        timeout: float | None,
    ) -> None:
        self.work, self.folder, self.progress, self.timeout = work, folder, progress, timeout
        self.free = deque(slots)
        self.running: list[PreparedJob] = []
        self.log = folder.log
        self.context: Any = multiprocessing.get_context("forkserver" if _forks() else "spawn")

    def run(self, jobs: Sequence[PreparedJob]) -> None:
        """Runs jobs and leaves no process behind.

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
                    # After the last job the caller does it.
                    if self.work.task.pictures and (waiting or self.running):
                        self._rebuild()
                self._stop_the_late()
                self.progress.update(
                    [Running(j.name, j.epochs, j.began, j.run.root) for j in self.running],
                    len(waiting),
                )
        except Interrupted as error:
            if error.signal == signal.SIGINT:
                number = signal.SIGINT
            raise
        finally:
            self._stop(number)

    def _start(self, job: PreparedJob) -> None:
        job.slot = self.free.popleft()
        loader = self.work.context.config_loader
        job.process = self.context.Process(
            target=_work,
            args=(job.slot, job.run, self.work.task, job.config, loader),
            name=job.name,
            daemon=True,
        )
        if _forks():
            _start_server(self.folder)
        with backend.quiet(self.log):  # output of a job before it opens its log
            try:
                job.process.start()  # waits until the server has imported Keras
            except (EOFError, ConnectionError, FileNotFoundError) as error:
                raise RunFailed(
                    "the server that jobs are forked from has died", hint=f"see {self.log}"
                ) from error
        job.began = time.monotonic()
        self.running.append(job)
        self.progress.started(job.name)

    def _end(self, job: PreparedJob) -> None:
        job.process.join()
        _wait_for_orphan(job)
        self.running.remove(job)
        self.free.append(job.slot)
        _record_end(job, self.timeout)
        try:
            status = job.run.status()
        except UserError as error:
            status = {"reason": error.what}
        what = str(status.get("status") or "failed")
        if what != "ok":
            what += f": {status.get('reason') or f'see {job.run.job_log}'}"
        self.progress.ended(job.name, time.monotonic() - job.began, what, ok=what == "ok")
        job.process.close()

    def _rebuild(self) -> None:
        try:
            sweep.rebuild(self.folder.folder)
        except Exception as error:  # the jobs matter more than their table
            self.progress.say(f"the leaderboard cannot be written: {error}")

    def _stop_the_late(self) -> None:
        """Ends jobs that exceeded the timeout."""
        if self.timeout is None:
            return
        for job in self.running:
            over = time.monotonic() - job.began - self.timeout
            if over > GRACE and job.late:
                job.process.kill()
            elif over > 0 and not job.late:
                job.late = True
                job.process.terminate()

    def _stop(self, number: int) -> None:
        """Passes a signal on to all jobs, and kills those that do not end within `GRACE`.

        A second signal to this process ends the wait.
        """
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
    """Whether jobs are forked from a server; with a GPU they would share its context."""
    has_server = "forkserver" in multiprocessing.get_all_start_methods()
    return has_server and not backend.visible_gpus() and _has_place_for_socket()


@functools.cache
def _has_place_for_socket() -> bool:
    """Lets `multiprocessing` choose its private folder where the path of the server's socket fits.

    The path of a Unix socket has some 100 bytes, and TMPDIR may be longer than that.
    """
    parents = (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp", "/dev/shm")
    for parent in filter(None, parents):
        if len(os.fsencode(parent)) <= LONGEST_SOCKET_FOLDER and os.access(parent, os.W_OK | os.X_OK):
            before, tempfile.tempdir = tempfile.tempdir, parent
            try:
                return len(os.fsencode(util.get_temp_dir())) <= LONGEST_SOCKET_FOLDER + 20
            except OSError:
                continue
            finally:
                tempfile.tempdir = before
    return False


@contextlib.contextmanager
def serving(folder: SweepFolder, *, early: bool) -> Iterator[None]:
    """Keeps the server that jobs are forked from for the length of the block.

    Args:
        folder: of the sweep.
        early: start the server now, so that it imports Keras while jobs are checked; otherwise the first
            job starts it.
    """
    try:
        if _forks():
            forkserver.set_forkserver_preload(PRELOADED)
            if early:
                _start_server(folder)
        yield
    finally:
        server: Any = forkserver._forkserver
        if server._forkserver_pid is not None:  # Python would end it only when its imports are done
            with contextlib.suppress(ProcessLookupError):
                os.kill(server._forkserver_pid, signal.SIGKILL)
            server._stop()


def _start_server(folder: SweepFolder) -> None:
    """Starts the server that jobs are forked from, if it is not running.

    A terminal that is closed sends SIGHUP to all processes. The server and the jobs ignore it, so that
    the sweep can end the jobs as after any other signal.

    Args:
        folder: of the sweep.
    """
    with backend.quiet(folder.log), signals.hangups_ignored():
        forkserver.ensure_running()


def _record_end(job: PreparedJob, timeout: float | None) -> None:
    """Writes the status of a job whose process could not do so itself."""
    run, code = job.run, job.process.exitcode
    with contextlib.suppress(OSError, UserError):  # on a full disk the other jobs continue
        status = run.status().get("status")
        if job.folder.busy or status in ("ok", "failed", "running") or is_in_use(run.root):
            return
        if job.late:
            with at_work(run.root):
                run.set_status("interrupted", f"it exceeded hydra.launcher.timeout={timeout:g} s")
        elif code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            memory = " (out of memory?)" if -code == signal.SIGKILL else ""
            with at_work(run.root):
                run.set_status("failed", f"killed by {name}{memory}")
        elif status != "interrupted" or code < 128:
            with at_work(run.root):
                run.set_status(
                    "failed", f"its process ended with exit code {code}; see {run.job_log.name}"
                )


def _work(slot: Slot, run: Run, task: Task, config: DictConfig, configs: Any) -> None:
    """The process of one job."""
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    with run.job_log.append() as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    if slot.cores:
        backend.keep_to(slot.cores)
    try:
        with signals.raised(once=True):
            context = hydra_internals.context_of(configs, config)
            JobRuntime.instance().set("name", config.hydra.job.name)
            if task.rules is not None:
                load_rules(task.rules)
            run_job(
                task_function=task,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=context,
            )
    except Interrupted as error:
        sys.exit(error.exit_code)


def _end_with_the_sweep() -> None:
    """Ends this process when that of the sweep is gone, because nothing would end it later.

    Also when the server is gone that it was forked from: the sweep cannot see how it ends any more.
    """
    sweep, server = multiprocessing.parent_process(), os.getppid()
    assert sweep is not None
    while not multiprocessing.connection.wait([sweep.sentinel], TICK):
        if os.getppid() != server:
            os.kill(os.getpid(), signal.SIGTERM)
            multiprocessing.connection.wait([sweep.sentinel], GRACE)
            break
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_orphan(job: PreparedJob) -> None:
    """Waits for a job that is still at work although the server that it was forked from has died."""
    deadline = time.monotonic() + 2 * GRACE
    while not job.folder.busy and is_in_use(job.run.root) and time.monotonic() < deadline:
        time.sleep(0.05)
