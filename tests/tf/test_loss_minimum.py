"""Where losses are smallest: at the images, or at outputs that are none."""

import keras
import numpy as np
import pytest

from cae_cli.config.compose import checked
from cae_cli.introspection.loss_minimum import KnownLoss, keras_loss, loss_minimum
from cae_cli.training.losses import LOSSES

tf = pytest.importorskip("tensorflow")

pytestmark = pytest.mark.tf


def smooth(count=16, side=24, channels=1):
    """Soft bright spots on black, (n, side, side, channels) in [0, 1]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    cx, cy = rng.uniform(side / 4, 3 * side / 4, (2, count, 1, 1))
    spots = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / rng.uniform(10, 60, (count, 1, 1)))
    images = np.clip(1.1 * spots - 0.1, 0, 1)[..., None]
    return np.float32(images * np.linspace(1, 0.6, channels))


def elsewhere(loss, span=(0.0, 1.0), channels=1):
    images = smooth(channels=channels)
    return loss_minimum(keras_loss(loss, span), images, images).elsewhere


@pytest.mark.parametrize("name", list(LOSSES))
def test_our_losses_are_smallest_at_the_images(name):
    images = smooth(count=4)
    words = [f"loss={name}", *(["loss.window=5"] if "ssim" in name else [])]
    known = KnownLoss(checked(words)[1].loss)
    found = loss_minimum(known, images, np.clip(images + 0.1, 0, 1))
    assert found.elsewhere < 0.01 and found.unmoved == 0


@pytest.mark.parametrize(
    "loss", ["mse", "mae", "huber", "log_cosh", "binary_crossentropy", "poisson", "msle"]
)
def test_losses_of_keras_that_are_smallest_at_images_in_0_to_1(loss):
    assert elsewhere(loss) < 0.01


@pytest.mark.parametrize(
    ("loss", "span", "channels"),
    [
        ("hinge", (0, 1), 1),
        ("squared_hinge", (0, 1), 1),
        ("kl_divergence", (0, 1), 1),
        ("cosine_similarity", (0, 1), 3),
        ("mape", (0, 1), 1),
        ("msle", (-1, 1), 1),
        ("categorical_crossentropy", (-1, 1), 3),
        ("binary_crossentropy", (-1, 1), 1),
        ("binary_crossentropy", (0, 255), 1),
        (lambda target, output: tf.square(output - target / 2), (0, 1), 1),
    ],
)
def test_losses_that_are_as_small_elsewhere(loss, span, channels):
    assert elsewhere(loss, span, channels) > 0.3


def test_the_distance_is_that_of_what_is_as_good():
    """Black is as far from half of the image as the image itself."""
    images = smooth()
    black = float(np.sqrt(np.square(images).mean()) / images.std())
    found = elsewhere(lambda target, output: tf.reduce_mean(tf.square(output - target / 2)))
    assert found == pytest.approx(black, rel=1e-3)


def test_outputs_that_cross_entropy_no_longer_moves():
    images = smooth()
    outputs = images + np.float32(0.05)
    outputs[:4] = -0.5  # clipped by Keras, without a gradient
    error = np.square(outputs - images)
    found = loss_minimum(keras_loss("binary_crossentropy"), images, outputs)
    outside = (outputs < -0.01) | (outputs > 1.01)
    assert found.unmoved == pytest.approx(error[outside].sum() / error.sum(), rel=1e-4)
    assert found.elsewhere == 0
    assert loss_minimum(keras_loss("mse"), images, outputs).unmoved == 0


@pytest.mark.parametrize(
    "loss",
    [None, ["mse"], {"a": "mse"}, "no_loss_of_keras", keras.losses.BinaryCrossentropy(from_logits=True)],
)
def test_what_compares_no_images_is_not_known(loss):
    assert keras_loss(loss) is None
