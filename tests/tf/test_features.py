"""A trained network in use: codes, reconstructions and errors are those that the run has measured."""

import numpy as np
import pytest

from cae_cli import data
from cae_cli.config.schema import parse
from cae_cli.errors import UserError
from cae_cli.features import open_network
from cae_cli.introspection.behaviour import squares
from cae_cli.runs.folder import Run
from tests.tf.conftest import DIGITS

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def folder(trained_once):
    return trained_once("digits", *DIGITS)[1]


@pytest.fixture(scope="module")
def network(folder):
    return open_network(Run(folder))


@pytest.fixture(scope="module")
def images(folder):
    return data.load(parse(Run(folder).setup()["config"]).data)


def test_the_error_of_each_image_has_the_bits_that_the_run_measured(network, images, folder):
    recorded = Run(folder).read_arrays(Run(folder).arrays)["mse"]
    held_out = images.held_out[: len(recorded)]
    assert len(held_out) % network.batch > 0  # the last batch is filled up
    x = data.as_float(held_out)
    assert np.array_equal(squares(network.reconstruct(held_out) - x), recorded)
    errors = [squares(made - given) for _, given, _, made in network.passes(held_out)]
    assert np.array_equal(np.concatenate(errors), recorded)


def test_codes_are_those_of_the_encoder_in_plain_keras(network, images):
    x = data.as_float(images.held_out[:20])
    expected = np.asarray(network.autoencoder.encoder()(x))
    codes = network.encode(images.held_out[:20])
    assert codes.shape == (20, *network.code_shape)
    np.testing.assert_allclose(codes, expected, rtol=1e-5, atol=1e-6)
    assert expected.std() > 0.01
    assert np.array_equal(
        np.concatenate([c for _, _, c, _ in network.passes(images.held_out[:20])]), codes
    )
    np.testing.assert_allclose(
        network.decode(codes.reshape(20, -1)), network.reconstruct(x), rtol=1e-5, atol=1e-6
    )


def test_images_are_prepared_as_those_of_the_training(network, images):
    from sklearn.datasets import load_digits

    raw = load_digits().images  # 0 to 16
    prepared = network.prepare(raw)
    assert all((prepared == image).all(axis=(1, 2, 3)).any() for image in images.held_out)
    lone = next(image for image in raw if image.max() < 16)  # its own range says nothing
    assert network.prepare(lone[None]).max() == lone.max() / 16
    assert np.array_equal(network.prepare(np.full((1, 8, 8), 9, np.uint8)), np.full((1, 8, 8, 1), 9))
    with pytest.raises(UserError, match="8x8x1, these are 9x8x1"):
        network.prepare(np.zeros((1, 9, 8), np.uint8))


def saved(path, *, skips=False):
    """A small network on images from -1 to 1, in a file."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 12, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", strides=2)(x)
    code = layers.Conv2D(2, 3, padding="same", name="code")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(code)
    if skips:
        x = layers.Concatenate()([x, image])
    keras.Model(image, layers.Conv2D(3, 3, padding="same", activation="tanh")(x)).save(path)
    return path


def test_a_model_file_has_its_own_range_and_no_square_images(tmp_path):
    import keras

    path = saved(tmp_path / "model.keras")
    network = open_network(path, span=(-1.0, 1.0))
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), np.uint8)
    model = keras.models.load_model(path)
    expected = np.asarray(model(x / 127.5 - 1)) / 2 + 0.5
    np.testing.assert_allclose(network.reconstruct(network.prepare(x)), expected, atol=1e-5)
    np.testing.assert_allclose(network.decode(network.encode(x)), expected, atol=1e-5)
    assert network.code_shape == (4, 6, 2)


def test_a_decoder_that_needs_the_image_is_refused(tmp_path):
    network = open_network(saved(tmp_path / "model.keras", skips=True))
    with pytest.raises(UserError, match="skip connections"):
        network.decode(np.zeros((1, *network.code_shape), np.float32))
