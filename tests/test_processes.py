"""Calls of the fault benchmark in processes of their own: what is done counts, the rest ends soon."""

import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from benchmarks.faults.outside import processes
from cae_cli.errors import Interrupted, UserError
from cae_cli.system import signals


def test_calls_are_made_with_one_thread_each(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    command = f"printf $OMP_NUM_THREADS > {tmp_path / 'threads'}"
    assert list(processes.done([("it", partial(os.system, command))], 1)) == ["it"]
    assert (tmp_path / "threads").read_text() == "1"
    assert "OMP_NUM_THREADS" not in os.environ and list(processes.done([], 1)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_calls_in_the_middle_and_what_is_done_stays_done(number):
    calls = [("short", partial(time.sleep, 0)), *[("long", partial(time.sleep, 300))] * 3]
    done = []
    with signals.raised(), pytest.raises(Interrupted):
        for key in processes.done(calls, 2):
            done.append(key)
            began = time.monotonic()
            threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
    assert done == ["short"] and time.monotonic() - began < 10
    assert not multiprocessing.active_children()


def test_an_error_of_a_caller_ends_the_calls_as_well():
    calls = [("short", partial(time.sleep, 0)), ("long", partial(time.sleep, 300))]
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        for _ in processes.done(calls, 2):
            raise ZeroDivisionError
    assert time.monotonic() - began < 20 and not multiprocessing.active_children()


def test_a_missing_file_and_a_process_that_the_system_ended_are_reported():
    with pytest.raises(UserError, match="a file cannot be read or written"):
        list(processes.done([(0, partial(os.listdir, Path("nowhere")))], 1))
    with pytest.raises(UserError, match="a training was ended by the system"):
        list(processes.done([(0, partial(os._exit, 9))], 1))
