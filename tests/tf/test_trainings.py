"""Trainings with options drawn at random, in `make soak`."""

import json

import pytest

from tests.conftest import module

pytestmark = pytest.mark.tf


@pytest.mark.soak
@pytest.mark.parametrize("cases", [3, 60])
def test_a_training_of_any_options_ends_as_a_run_or_an_error(cases, soak_seed):
    out = module("tests.tf.trainings", "--cases", str(cases), *soak_seed)
    assert json.loads(out.splitlines()[-1])["cases"] == cases
