"""Trainings with options drawn at random, in short; `make fuzz` draws more."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, environment

pytestmark = pytest.mark.tf


def test_a_training_of_any_options_ends_as_a_run_or_an_error():
    done = subprocess.run(
        [sys.executable, "-m", "tests.tf.trainings", "--cases", "5"],
        capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cases"] == 5
