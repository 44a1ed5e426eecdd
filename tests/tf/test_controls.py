"""Trainings that end early on purpose, or leave a part as it was drawn."""

import numpy as np
import pytest

from cae_cli.training.fit import freeze
from cae_cli.training.recorder import Recorder
from tests.tf.test_recorder import new, recorded
from tests.tf.test_training import trained

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def whole():
    """The losses of two epochs of seven steps."""
    return recorded()[2]["dynamics/losses"]


@pytest.mark.parametrize(
    ("steps", "ends"), [(3, [0, 3]), (7, [0, 7]), (10, [0, 7, 10]), (17, [0, 7, 14, 17])]
)
def test_training_ends_after_so_many_steps(steps, ends, whole):
    _, history, arrays = recorded(f"training.steps={steps}")
    assert [epoch.step for epoch in history.epochs] == ends
    assert not history.stopped_early and history.left_at == len(ends) - 1
    assert len(arrays["dynamics/losses"]) == ends[-1]
    assert np.array_equal(arrays["dynamics/losses"][: len(whole)], whole[: ends[-1]])


EVERY_PART = [
    "model.filters=[4,3]",
    "model.block=residual",
    "model.downsampling=strided",
    "model.upsampling=transposed",
    "model.skips=true",
    "model.attention_heads=1",
    "regularization=[batchnorm,dropout]",
]


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ([], "encoder"),
        ([], "decoder"),
        pytest.param(EVERY_PART, "encoder", marks=pytest.mark.soak),
        pytest.param(EVERY_PART, "decoder", marks=pytest.mark.soak),
    ],
    ids=["reference, encoder", "reference, decoder", "every part, encoder", "every part, decoder"],
)
def test_a_frozen_part_stays_and_the_other_one_moves(overrides, part):
    overrides = [*overrides, "training.epochs=1"]
    network = new(*overrides)
    freeze(network, part)
    before = {v.path: np.array(v) for v in network.model.weights}
    kernels = network.kernels()
    trained(*overrides, network=network)
    for name, kernel in network.kernels().items():
        stays = name.startswith("encoder") == (part == "encoder")
        assert np.array_equal(kernel, kernels[name]) == stays, name
    for variable in network.model.weights:  # attention, batch normalisation, biases
        if variable.path.startswith("encoder") == (part == "encoder"):
            assert np.array_equal(np.array(variable), before[variable.path]), variable.path
    names = Recorder(network.model, dict).record()["dynamics/kernels"]
    assert len(names) and not any(n.startswith("encoder") == (part == "encoder") for n in names)
