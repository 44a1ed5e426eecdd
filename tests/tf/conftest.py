"""What tests with TensorFlow need."""

import fcntl
import functools
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from cae_cli.config.compose import checked
from cae_cli.config.schema import Config
from cae_cli.report import figures, page
from cae_cli.training import backend
from tests.conftest import Done, called, started

# The run that most tests share.
DIGITS = ("data=digits", "data.train=192", "model.filters=[8]", "training.epochs=4",
          "regularization=[dropout,batchnorm]", "loss=huber", "seed=3", "tags=[first]")  # fmt: skip


@pytest.fixture(autouse=True, scope="session")
def tensorflow_as_in_a_process_of_its_own():
    """Before any test starts it otherwise, so that a run of this process has the bits of any other."""
    eager = sys.modules.get("tensorflow.python.eager.context")
    started = eager is not None and eager.context()._initialized
    assert not started, "a module of tests starts TensorFlow when it is imported, with other threads"
    backend.start(deterministic=True, mixed_precision=False)


@pytest.fixture(autouse=True, scope="module")
def absl_writes_to_the_real_standard_error():
    """As below, for trainings in fixtures of a module."""
    if "absl.logging" in sys.modules:
        sys.modules["absl.logging"].get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(autouse=True)
def absl_keeps_its_hands_off():
    """Absl closes the standard error that it was imported with when Hydra sets up logging.

    In a test that is pytest's own, which every later test of the process would miss.
    """
    if "absl.logging" in sys.modules:
        sys.modules["absl.logging"].get_absl_handler().python_handler.stream = sys.__stderr__


DRAWN = figures.draw, page.write


@pytest.fixture(autouse=True)
def nothing_is_drawn(request, monkeypatch):
    """Drawing takes a third of a small training, and few tests look: those are marked ``pictures``.

    Trainings of other processes and those of `trained_once` are drawn.
    """
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr(figures, "draw", lambda run, data: [])
        monkeypatch.setattr(page, "write", lambda run, data: None)


@functools.cache
def configured(*overrides: str) -> Config:
    """The checked config with these overrides, composed once."""
    return checked(overrides)[1]


class Trained:
    """Runs that several test files read and none changes: each is trained once, whoever is first."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, name: str, *arguments: str, process: bool = False) -> tuple[Done, Path]:
        """``cae train …`` in a folder of this name: what it printed, and the run's folder."""
        home = self.root / name
        home.mkdir(exist_ok=True)
        with (home / "lock").open("w") as lock:  # of the other workers of pytest-xdist
            fcntl.flock(lock, fcntl.LOCK_EX)
            record = home / "done.json"
            if not record.exists():
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(figures, "draw", DRAWN[0])
                    patch.setattr(page, "write", DRAWN[1])
                    done = (started if process else called)(home, "train", *arguments)
                assert done.code == 0, done.err
                record.write_text(json.dumps(asdict(done)))
            done = Done(**json.loads(record.read_text()))
        return done, home / done.folder


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """A function that trains a run, unless a test before has."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained"
    root.mkdir(exist_ok=True)
    return Trained(root)
