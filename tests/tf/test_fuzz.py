"""The folder of a real run with anything done to its files: a summary, or one ``error:`` line."""

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tests.test_fuzz import CASES, fuzzed, mutated, outcome
from tests.tf.conftest import DIGITS

pytestmark = pytest.mark.tf

OTHERS = (
    b"{}",
    b"[]",
    b"",
    b'{"schema": 2}',
    b'{"schema": 99}',
    b"\xff",
    b"null",
    b"PK\x03\x04",
    b"epoch\n1",
)


@pytest.fixture
def finished(trained_once):
    """A run, trained for a moment."""
    return trained_once("digits", *DIGITS)[1]


@given(st.integers(0, 2**32))
@settings(fuzzed, max_examples=CASES or 4)  # each draws all pictures
def test_any_run_folder(finished, seed):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as copy:
        folder = Path(copy) / "run"
        shutil.copytree(finished, folder)
        # What is read, more often than the pictures.
        files = sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".npz", ".csv"))
        files += sorted(p for p in folder.rglob("*") if p.is_file())
        for path in rng.choice(files, rng.integers(1, 4)):
            content = path.read_bytes() if path.is_file() else b""
            match rng.integers(4):
                case 0:
                    path.unlink(missing_ok=True)
                case 1 | 2:
                    path.write_bytes(mutated(content, rng))
                case 3:
                    path.write_bytes(OTHERS[rng.integers(len(OTHERS))])
        for command in ("report", *(["diagnose", "resume"] if CASES else [])):
            outcome([command, str(folder)], (0, 1, 2))
