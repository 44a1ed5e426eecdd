"""Kills at random moments, in short; `make soak` kills for longer."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, environment

pytestmark = pytest.mark.tf


def test_a_killed_training_ends_as_if_nothing_had_happened():
    done = subprocess.run(
        [sys.executable, "-m", "tests.tf.kills", "--kills", "15"],
        capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 15 and any("checkpoint" in kind for kind in found)
