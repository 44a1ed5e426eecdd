"""Calls in processes of their own, which end with this one's work."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from cae_cli.errors import UserError

Key = TypeVar("Key")

# Of the processes: one thread each, which TensorFlow reads when it is imported.
ENVIRONMENT = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "MPLBACKEND": "agg",
}


def done(calls: Sequence[tuple[Key, Callable[[], Any]]], n_jobs: int | None) -> Iterator[Key]:
    """Makes calls, and gives the key of each when it is done.

    Calls that are not done are ended where they are when this process is interrupted.

    Args:
        calls: functions that another process can import, each with a key.
        n_jobs: processes at once; None: one for each processor.

    Raises:
        UserError: the system ended a process, or a file cannot be read or written.
    """
    if not calls:
        return
    try:
        with _environment(ENVIRONMENT), _pool(n_jobs or os.cpu_count() or 1) as pool:
            futures: dict[Future[Any], Key] = {pool.submit(call): key for key, call in calls}
            for future in as_completed(futures):
                future.result()
                yield futures[future]
    except (BrokenProcessPool, MemoryError) as error:
        hint = "run the same command again, with --jobs 1 if there is too little memory"
        raise UserError("a training was ended by the system", hint=hint) from error
    except OSError as error:
        reason, where = error.strerror or error, error.filename
        raise UserError(f"a file cannot be read or written: {reason}", where=where) from error


@contextmanager
def _pool(n_jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes; what they work on when the block ends by an exception is lost.

    The executor itself would wait for it, and a training takes minutes.
    """
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(n_jobs, multiprocessing.get_context("spawn"), _start)
    try:
        yield pool
    except BaseException:  # GeneratorExit too: nobody waits for the rest
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start() -> None:
    """Prepares a process: only its parent gets Ctrl-C, and SIGTERM ends it wherever it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of the processes that are started in the block, and of no others."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
