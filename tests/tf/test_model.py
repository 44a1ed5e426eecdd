"""Networks of every option, and the reference network against plain Keras."""

import itertools

import numpy as np
import pytest

from cae_cli.config.compose import Sources
from cae_cli.config.schema import SEVERAL
from cae_cli.errors import UserError
from cae_cli.model.build import build
from cae_cli.options import describe
from tests.tf.conftest import configured

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

pytestmark = pytest.mark.tf

MODELS = list(Sources().options("model"))


def make(*overrides, shape=(28, 28, 1)):
    config = configured(*overrides)
    return build(shape, config.model, tuple(config.regularization.values()))


def plain_reference(l2=0.0):
    """The reference network as people write it."""
    layers = keras.layers
    regularizer = keras.regularizers.L2(l2) if l2 else None
    hidden = {"activation": "relu", "padding": "same", "kernel_regularizer": regularizer}
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, (3, 3), **hidden),
            layers.MaxPooling2D((2, 2), padding="same"),
            layers.Conv2D(8, (3, 3), **hidden),
            layers.MaxPooling2D((2, 2), padding="same"),
            layers.Conv2D(8, (3, 3), **hidden),
            layers.UpSampling2D((2, 2)),
            layers.Conv2D(16, (3, 3), **hidden),
            layers.UpSampling2D((2, 2)),
            layers.Conv2D(1, (3, 3), activation="sigmoid", padding="same"),
        ]
    )


@pytest.mark.parametrize(("overrides", "l2"), [(["model=baseline"], 0.0), (["model=l2"], 0.001)])
def test_the_reference_network_is_the_one_written_in_plain_keras(overrides, l2):
    ours, plain = make(*overrides), plain_reference(l2)
    assert ours.weight_count == plain.count_params() == 3217
    assert [w.shape for w in ours.model.weights] == [w.shape for w in plain.weights]
    plain.set_weights(ours.model.get_weights())
    images = np.random.default_rng(0).random((5, 28, 28, 1), dtype=np.float32)
    assert np.array_equal(ours.model(images), plain(images))
    ours_penalty = sum(map(float, ours.model.losses))
    assert ours_penalty == pytest.approx(sum(map(float, plain.losses)), rel=1e-6)
    assert (ours_penalty > 0) == (l2 > 0)
    assert ours.latent.shape == (None, 7, 7, 8)


def test_the_penalty_is_on_the_four_hidden_convolutions_only():
    network = make("model=l2")
    kernels = network.kernels()
    assert list(kernels) == ["encoder_1", "encoder_2", "decoder_1", "decoder_2", "output"]
    expected = 0.001 * sum((kernels[name] ** 2).sum() for name in list(kernels)[:4])
    assert float(sum(network.model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(28, 28, 1), (37, 30, 3), (8, 8, 1)])
def test_every_model_takes_any_size_and_gives_it_back(model, shape):
    network = make(f"model={model}", shape=shape)
    images = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    output = network.model(images)
    assert output.shape == images.shape
    assert network.shape == shape


@pytest.mark.parametrize("side", range(1, 18))
def test_any_side_is_padded_and_cropped_evenly(side):
    network = make("model=deep", shape=(side, 9, 1))
    assert network.model(np.zeros((1, side, 9, 1), np.float32)).shape == (1, side, 9, 1)
    assert network.latent.shape[1] == -(-side // 8)


@pytest.mark.parametrize(
    ("block", "down", "up"),
    list(
        itertools.product(
            ["plain", "residual"],
            ["max_pool", "average_pool", "strided"],
            ["nearest", "bilinear", "transposed"],
        )
    ),
)
def test_every_combination_of_blocks_and_sampling_builds_and_learns(block, down, up):
    network = make(
        f"model.block={block}",
        f"model.downsampling={down}",
        f"model.upsampling={up}",
        "model.convolutions=2",
        shape=(14, 14, 1),
    )
    images = np.random.default_rng(0).random((2, 14, 14, 1), dtype=np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(network.model(images) - images))
    gradients = tape.gradient(loss, network.model.trainable_variables)
    assert all(g is not None for g in gradients)


@pytest.mark.parametrize("model", MODELS)
def test_maps_and_kernels_are_found_by_name(model):
    network = make(f"model={model}")
    kernels = network.kernels()
    assert list(kernels) == list(network.maps)
    for name, kernel in kernels.items():
        assert kernel.ndim == 4 and kernel.shape[3] == network.maps[name].shape[-1]


def test_kernels_of_transposed_convolutions_have_the_same_order_of_axes():
    network = make("model=strided", "model.filters=[5,7]")
    kernels = network.kernels()
    assert kernels["decoder_1"].shape == (4, 4, 7, 7) and kernels["decoder_2"].shape == (4, 4, 7, 5)
    layer = network.model.get_layer("decoder_2")
    assert np.array_equal(kernels["decoder_2"][0, 1, 2, 3], np.array(layer.kernel)[0, 1, 3, 2])


def test_the_code_has_the_configured_channels():
    assert make("model.latent_channels=3").latent.shape[-1] == 3
    assert make("model=wide").latent.shape == (None, 7, 7, 8)
    assert make("model=shallow").latent.shape == (None, 14, 14, 8)


def test_a_dense_code_has_the_configured_values_and_every_value_sees_the_whole_image():
    network = make("model=dense", "model.filters=[6,5]", "model.latent_units=9", shape=(30, 22, 3))
    assert network.latent.shape == (None, 9) and network.receptive_field == (30, 22)
    assert network.model.output.shape == (None, 30, 22, 3) and not network.skips
    images = np.random.default_rng(0).random((3, 30, 22, 3), dtype=np.float32)
    codes = np.array(network.encoder()(images))
    assert np.allclose(network.decoder()([images, codes]), network.model(images), atol=1e-6)
    grid = network.model.get_layer("decoder_dense_grid").output.shape
    assert grid == (None, 8, 6, 5)
    penalised = make("model=dense", "regularization=l2", "model.initializer=random_normal")
    kernels = [np.array(w) for w in penalised.model.weights if w.name == "kernel"]
    expected = 0.001 * sum((kernel**2).sum() for kernel in kernels[:-1])  # not the output's
    assert len(kernels) == 7
    assert float(sum(penalised.model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("option", [n for n in Sources().options("regularization") if n != "none"])
def test_every_regularizer_does_something_in_training(option):
    network = make(f"regularization={option}", "seed=3")
    images = np.random.default_rng(0).random((4, 28, 28, 1), dtype=np.float32)
    differs = not np.allclose(
        network.model(images, training=True), network.model(images, training=False)
    )
    network.model(images, training=True)
    assert differs or float(sum(network.model.losses)) > 0
    assert np.array_equal(network.model(images), network.model(images))  # and is deterministic after


def test_several_penalties_add_up():
    both = make(
        "regularization=[l1,l2]", "regularization.l1.strength=0.1", "regularization.l2.strength=0.2"
    )
    hidden = list(both.kernels().values())[:4]
    expected = sum(0.1 * np.abs(k).sum() + 0.2 * (k**2).sum() for k in hidden)
    assert float(sum(both.model.losses)) == pytest.approx(expected, rel=1e-5)


def test_the_activity_penalty_is_that_of_the_code_per_image():
    network = make("regularization=activity_l1", "regularization.activity_l1.strength=0.5")
    images = np.random.default_rng(0).random((4, 28, 28, 1), dtype=np.float32)
    network.model(images, training=True)
    code = keras.Model(network.model.input, network.latent)(images)
    expected = 0.5 * np.abs(code).sum() / 4
    assert float(sum(network.model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [[f"model={m}"] for m in MODELS] + [["regularization=[noise,dropout,batchnorm,activity_l1]"]],
)
def test_a_saved_network_opens_in_plain_keras(tmp_path, overrides):
    network = make(*overrides, shape=(15, 13, 1))
    network.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    images = np.random.default_rng(0).random((3, 15, 13, 1), dtype=np.float32)
    assert np.array_equal(loaded(images), network.model(images))


def _numbers():
    """Every number of a regularizer, with its largest and some absurd values."""
    for name, regularizer in SEVERAL["regularization"].items():
        for info in describe(regularizer):
            if info.type in ("number", "integer"):
                yield from (f"regularization.{name}.{info.name}={v}" for v in ("0", "1", "2", "1e12"))


@pytest.mark.parametrize("override", list(_numbers()))
def test_a_number_that_is_accepted_can_be_built(override):
    try:
        config = configured(f"regularization=[{override.split('.')[1]}]", override)
    except UserError:
        return
    build((8, 8, 1), config.model, tuple(config.regularization.values()))
