"""Trainings and sweeps whose screen is lost before they begin, or in the middle."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from cae_cli.runs.folder import Run
from cae_cli.runs.sweep_folder import SweepFolder
from tests.conftest import environment
from tests.test_streams import LOSSES, run_unread

pytestmark = pytest.mark.tf

SMALL = ("data=digits", "data.train=64", "training.batch_size=16", "training.snapshots=[0]")


def check_log(log, loss):
    """It says once that each stream is lost."""
    lines = [
        line.split(" WARNING ")[1] for line in log.read_text().splitlines() if " WARNING st" in line
    ]
    assert sorted(lines) == [
        f"standard {what} cannot be written: {LOSSES[loss]}; continuing without it"
        for what in ("error", "output")
    ]


def check_run(folder):
    assert Run(folder).status()["status"] == "ok" and Run(folder).summary_text.exists()


# Takes standard input as the terminal of the session.
ON_A_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.Handlers(int(sys.argv[1])))
os.execv(sys.executable, [sys.executable, "-m", "cae_cli", "train", *sys.argv[2:]])
"""


def without_terminal(cwd, words, is_there, *, hangup):
    """``cae train`` on a terminal that is closed when something is there; its exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL, str(int(hangup)), *words],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment(), start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    while process.poll() is None and not is_there():
        with contextlib.suppress(OSError):  # there is nothing to read
            os.read(ours, 65536)
        time.sleep(0.05)
    os.close(ours)
    return process.wait(timeout=300)


@pytest.mark.soak  # the signal and each loss alone are in the short tests, see `test_experiment`
def test_a_sweep_whose_terminal_is_closed_continues_under_nohup(tmp_path):
    folder = SweepFolder(tmp_path / "sweep")
    words = ("-m", *SMALL, "training.epochs=3", "seed=0,1", "hydra.sweep.dir=sweep")
    code = without_terminal(
        tmp_path, words, lambda: list(tmp_path.rglob("job.log")), hangup=signal.SIG_IGN
    )
    assert code == 0 and folder.read().status == "ok" and folder.table.exists()
    check_log(folder.losses, "terminal")
    for job in folder.read().jobs:
        check_run(folder.job(job))


@pytest.mark.soak  # in the short tests a pipe is closed
def test_a_training_whose_terminal_is_closed_continues_under_nohup(tmp_path):
    words = (*SMALL, "training.epochs=300", "hydra.run.dir=run")
    run = Run(tmp_path / "run")
    assert without_terminal(tmp_path, words, run.can_go_on, hangup=signal.SIG_IGN) == 0
    check_run(run.folder)
    check_log(run.log, "terminal")


@pytest.mark.soak  # in the short tests the signal is sent alone, see `test_experiment`
def test_a_training_whose_terminal_is_closed_is_interrupted(tmp_path):
    words = (*SMALL, "training.epochs=3000", "hydra.run.dir=run")
    run = Run(tmp_path / "run")
    assert without_terminal(tmp_path, words, run.can_go_on, hangup=signal.SIG_DFL) == 129
    assert run.status()["status"] == "interrupted" and run.can_go_on()


@pytest.mark.parametrize(
    ("loss", "sweep"),
    [
        ("pipe", False),
        *(
            pytest.param(loss, sweep, marks=pytest.mark.soak)
            for loss in LOSSES
            for sweep in (False, True)
            if (loss, sweep) != ("pipe", False)
        ),
    ],
)
def test_a_lost_screen_ends_nothing(tmp_path, loss, sweep):
    own = ("-m", "seed=0,1", "hydra.sweep.dir=x") if sweep else ("hydra.run.dir=x",)
    command = [sys.executable, "-m", "cae_cli", "train", *own, *SMALL, "training.epochs=1"]
    options = {"cwd": tmp_path, "env": environment(), "timeout": 300}
    done = run_unread(loss, command, stderr=True, **options)
    assert done.returncode == 0
    for run in (tmp_path / "x").glob("seed=*") if sweep else [tmp_path / "x"]:
        check_run(run)
    check_log(tmp_path / "x" / ("sweep.log" if sweep else "train.log"), loss)
    if not sweep:  # the same of a command that prints its results
        report = [sys.executable, "-m", "cae_cli", "report", "x"]
        done = run_unread(loss, report, **options)
        assert done.returncode == (loss != "pipe") and "Traceback" not in done.stderr
        assert ("error: standard output" in done.stderr) == (loss != "pipe")
