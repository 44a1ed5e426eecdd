"""Many processes in one folder, in short; `make soak` starts more."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, environment

pytestmark = pytest.mark.tf


def test_runs_and_sweeps_of_the_same_second_do_not_disturb_each_other():
    done = subprocess.run(
        [sys.executable, "-m", "tests.tf.crowd", "--runs", "4", "--sweeps", "2"],
        capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["folders"] == 8
