"""A training that is killed at random moments, and resumed; `make soak` kills for longer."""

import json

import pytest

from tests.conftest import module

pytestmark = pytest.mark.tf


@pytest.mark.soak  # `test_sweeps` kills one, too
@pytest.mark.parametrize(
    "words",
    [("--kills", "2", "--configs", "1"), ("--kills", "200")],
)
def test_a_killed_training_ends_as_if_nothing_had_happened(words, soak_seed):
    found = json.loads(module("tests.tf.kills", *words, *soak_seed).splitlines()[-1])
    assert found["kills"] >= int(words[1])
    assert any("checkpoint" in kind for kind in found) and any("random" in kind for kind in found)
