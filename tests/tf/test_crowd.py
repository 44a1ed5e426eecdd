"""Many processes in one folder."""

import json

import pytest

from tests.conftest import module

pytestmark = pytest.mark.tf


@pytest.mark.soak  # in the short tests runs claim folders in the same second, see `test_experiment`
def test_runs_and_sweeps_of_the_same_second_do_not_disturb_each_other():
    out = module("tests.tf.crowd", "--runs", "20", "--sweeps", "3")
    assert json.loads(out.splitlines()[-1])["folders"] == 20 + 2 * 3
