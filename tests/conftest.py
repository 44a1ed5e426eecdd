"""What several test files need: real images where there are any, and cae, called or as a process."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest

from cae_cli import cli
from cae_cli.errors import Interrupted

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


DRAWN = 3  # of so many cases of a long test one is drawn


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Draws a third of the cases of long tests with several, others for each seed of `make soak`."""
    seed = os.environ.get("CAE_SEED")
    if seed is None:  # pytest -m soak runs all
        return
    cases = Counter(item.nodeid.partition("[")[0] for item in items)
    left = [
        item
        for item in items
        if cases[item.nodeid.partition("[")[0]] >= DRAWN
        and zlib.crc32(f"{seed} {item.nodeid}".encode()) % DRAWN
    ]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in set(left)]


def pytest_configure() -> None:
    """Under nohup SIGHUP is ignored, and would be in processes of tests, which are sent it.

    What has a handler here has none there.
    """
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(autouse=True, scope="module")
def garbage_is_looked_for_among_new_objects():
    """Each new network collects garbage: not again in TensorFlow's modules and what is left of tests."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The run folder: the last line of standard output."""
        return Path(self.out.strip().splitlines()[-1])


Cae = Callable[..., Done]


def environment(**extra: str) -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if k not in ("HYDRA_FULL_ERROR", "NO_COLOR", "FORCE_COLOR")
    }
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **extra}


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Ends what hangs."""

    def hanging(number: int, frame: object) -> None:
        raise TimeoutError(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, hanging)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def called(folder: Path, *arguments: str, timeout: float = 300, **env: str) -> Done:
    """Runs ``cae …`` in this process, in a folder: saves a start of TensorFlow."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, _standard_error() as err:
        patch.chdir(folder)
        for name in ("HYDRA_FULL_ERROR", "NO_COLOR", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        for name, value in {"COLUMNS": "120", **env}.items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(out), within(timeout):
            try:
                code = cli.run(list(arguments))
            except Interrupted as error:
                code = error.exit_code
        err.seek(0)
        return Done(code, out.getvalue(), err.read())


@contextlib.contextmanager
def _standard_error() -> Iterator[TextIO]:
    """Standard error as a file, its descriptor too: while TensorFlow computes, cae writes to that."""
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile("w+", buffering=1, errors="replace") as file:
        os.dup2(file.fileno(), 2)
        try:
            with contextlib.redirect_stderr(file):
                yield file
        finally:
            os.dup2(before, 2)
            os.close(before)


def started(folder: Path, *arguments: str, timeout: float = 300, **env: str) -> Done:
    """Runs ``cae …`` as a process, for tests that are about processes."""
    process = subprocess.run(
        [sys.executable, "-m", "cae_cli", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(**env),
        timeout=timeout,
    )
    return Done(process.returncode, process.stdout, process.stderr)


def module(name: str, *arguments: str) -> str:
    """Runs a module of the tests as a process that must end well; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", name, *arguments],
        capture_output=True, text=True, env=environment(), cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def soak_seed() -> tuple[str, str]:
    """What random moments and options begin with: `make soak SEED=1` has other ones."""
    return "--seed", os.environ.get("CAE_SEED", "0")


@pytest.fixture
def cae(tmp_path: Path) -> Cae:
    """Runs ``cae …`` in an empty folder, in this process."""
    return lambda *arguments, **env: called(tmp_path, *arguments, **env)


@pytest.fixture
def cae_process(tmp_path: Path) -> Cae:
    """Runs ``cae …`` in an empty folder, as a process."""
    return lambda *arguments, **env: started(tmp_path, *arguments, **env)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images."""
    if not SHARED.is_dir():
        pytest.skip("no real images beside the checkout")
    return SHARED
