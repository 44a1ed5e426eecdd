"""What is planned without Keras is what is built with it."""

import itertools

import keras
import pytest

from cae_cli.introspection.layers import size_of
from cae_cli.metrics.network import network
from cae_cli.model import memory
from cae_cli.model.plan import parts, plan
from tests.tf.conftest import configured
from tests.tf.test_model import MODELS, make

pytestmark = pytest.mark.tf


def assert_planned(*overrides, shape):
    config = configured(*overrides)
    built = make(*overrides, shape=shape)
    assert plan(shape, config.model, tuple(config.regularization)) == network(built.facts())
    assert_counted(list(parts(shape, config.model)), config.model, built, shape)


def assert_counted(planned, options, built, shape):
    """What is planned to be kept in memory is in the network."""
    if not built.normalised:
        assert sum(part.times * part.weights for part in planned) == built.weight_count
    convs = [conv for conv in built.convolutions if not conv.name.endswith("shortcut")]
    dense = [layer for layer in built.model.layers if isinstance(layer, keras.layers.Dense)]
    inputs, outputs = (sum(size_of(x.shape) for x in xs) for xs in (
        [layer.input for layer in convs + dense], [layer.output for layer in convs[:-1] + dense[1:]]
    ))  # fmt: skip
    if options.upsampling == "nearest" and not options.skips:  # computed before the upsampling
        ups = [layer for layer in built.model.layers if isinstance(layer, keras.layers.UpSampling2D)]
        inputs -= sum(size_of(up.output.shape) - size_of(up.input.shape) for up in ups)
    if options.attention_heads:
        h, w, channels = options.encoded_shape(shape)
        inputs += 2 * h * w * channels
        outputs += 2 * options.attention_heads * (h * w) ** 2
    assert sum(part.times * part.inputs for part in planned) == inputs
    assert sum(part.times * part.outputs for part in planned) == outputs


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(28, 28, 1), (37, 30, 3), (8, 8, 1), (1, 9, 1)])
def test_the_plan_of_every_model_is_what_is_built(model, shape):
    assert_planned(f"model={model}", shape=shape)


COMBINATIONS = list(
    itertools.product(["plain", "residual"], [1, 2], ["max_pool", "strided"], ["nearest", "transposed"])
)
# In turn: shapes; kernel, sampling kernel and channels of the latent code; what is added to the stages.
SHAPES = [(21, 14, 1), (40, 40, 1), (9, 33, 2), (5, 3, 1)]
KERNELS = [(3, 4, "null"), (2, 3, 3), (5, 2, "null"), (1, 5, 7), (4, 4, 2)]
ADDED = [[], ["model.skips=true"], ["model.attention_heads=2", "model.skips=true"]]


@pytest.mark.parametrize("number", range(len(COMBINATIONS)))
def test_the_plan_of_every_combination_is_what_is_built(number):
    block, convolutions, down, up = COMBINATIONS[number]
    kernel, sampling, channels = KERNELS[number % len(KERNELS)]
    stages = [
        f"model.block={block}",
        f"model.convolutions={convolutions}",
        f"model.downsampling={down}",
        f"model.upsampling={up}",
        f"model.kernel_size={kernel}",
        f"model.sampling_kernel={sampling}",
        f"model.latent_channels={channels}",
        "model.filters=[6,4]",
    ]
    assert_planned(*stages, *ADDED[number % len(ADDED)], shape=SHAPES[number % len(SHAPES)])


@pytest.mark.parametrize(
    "override",
    [
        "model=dense regularization=[batchnorm,dropout,l2] model.attention_heads=2",
        "regularization=[batchnorm,dropout,noise,activity_l1]",
        "regularization=[l1,l2]",
        "model.activation=linear",
        "model.activation=leaky_relu",
        "model.output_activation=softmax",
        "model.output_activation=linear",
        "model.filters=[5]",
        "model.filters=[2,3,5,7,11]",
        "model.latent_units=7",
    ],
)
def test_the_plan_knows_what_else_the_diagnosis_asks_for(override):
    assert_planned(*override.split(), shape=(19, 23, 1))


def test_what_a_frozen_part_and_a_linear_activation_keep_is_not_counted():
    shape, count = (16, 16, 1), memory.needed
    usual, linear = (configured(f"model.activation={name}").model for name in ("relu", "linear"))
    weights = 4 * sum(part.weights for part in parts(shape, usual))
    free = {part: count(shape, usual, 1000, part) - 3 * weights for part in ("encoder", "decoder")}
    assert 0 < free["encoder"] < count(shape, usual, 1000) - 4 * weights
    # of the maps of 16 and of 8 channels, at full and at half resolution
    assert free["decoder"] == 4 * 1000 * (256 * 16 + 64 * 8)
    assert count(shape, linear, 1000) < count(shape, usual, 1000)
