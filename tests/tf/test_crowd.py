"""Many processes in one folder; `make soak` starts more."""

import json

import pytest

from tests.conftest import module

pytestmark = pytest.mark.tf


@pytest.mark.parametrize(("runs", "sweeps"), [(3, 0), pytest.param(20, 3, marks=pytest.mark.soak)])
def test_runs_and_sweeps_of_the_same_second_do_not_disturb_each_other(runs, sweeps):
    out = module("tests.tf.crowd", "--runs", str(runs), "--sweeps", str(sweeps))
    assert json.loads(out.splitlines()[-1])["folders"] == runs + 2 * sweeps
