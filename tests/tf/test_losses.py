"""Every loss against another form of itself, in values and gradients."""

import numpy as np
import pytest

from cae_cli.config.compose import checked
from cae_cli.errors import UserError
from cae_cli.metrics.similarity import ssim
from cae_cli.training.losses import LOSSES, MultiScaleSimilarity, StructuralSimilarity

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

pytestmark = pytest.mark.tf

SSIM = {"window": 11, "sigma": 1.5, "k1": 0.01, "k2": 0.03}
SHAPES = [(4, 28, 28, 1), (2, 33, 41, 3), (3, 11, 12, 1)]


def pair(shape, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.random(shape, dtype=np.float32)
    output = np.clip(target + 0.15 * rng.standard_normal(shape), 0.01, 0.99).astype(np.float32)
    return tf.constant(target), tf.constant(output)


def value_and_gradient(loss, target, output):
    with tf.GradientTape() as tape:
        tape.watch(output)
        value = loss(target, output)
    return float(value), tape.gradient(value, output).numpy()


def loss(name, *overrides):
    return checked([f"loss={name}", *overrides])[1].loss


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_equals_tensorflows_in_value_and_gradient(shape):
    target, output = pair(shape)
    ours, gradient = value_and_gradient(StructuralSimilarity(**SSIM), target, output)
    theirs, expected = value_and_gradient(
        lambda t, y: 1 - tf.reduce_mean(tf.image.ssim(t, y, 1.0)), target, output
    )
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert np.abs(gradient - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("window", "sigma", "k1", "k2"), [(7, 1.0, 0.02, 0.05), (3, 0.5, 0.01, 0.03)])
def test_ssim_equals_tensorflows_with_other_options(window, sigma, k1, k2):
    target, output = pair((3, 20, 17, 2))
    ours = StructuralSimilarity(window=window, sigma=sigma, k1=k1, k2=k2)(target, output)
    theirs = tf.image.ssim(target, output, 1.0, filter_size=window, filter_sigma=sigma, k1=k1, k2=k2)
    assert float(ours) == pytest.approx(1 - float(tf.reduce_mean(theirs)), abs=1e-5)


def test_the_loss_and_the_measure_of_ssim_are_the_same():
    target, output = pair((5, 28, 28, 3))
    assert float(StructuralSimilarity(**SSIM)(target, output)) == pytest.approx(
        1 - ssim(target.numpy(), output.numpy()).mean(), abs=1e-5
    )


@pytest.mark.parametrize(("side", "scales"), [(176, 5), (90, 3), (28, 2), (45, 3)])
def test_ms_ssim_equals_tensorflows(side, scales):
    target, output = pair((2, side, side, 1))
    ours = MultiScaleSimilarity(**SSIM, scales=None)
    assert ours.fitting_scales(side) >= scales
    ours = MultiScaleSimilarity(**SSIM, scales=scales)
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
    theirs = tf.image.ssim_multiscale(
        target, output, 1.0, power_factors=(weights / weights.sum()).tolist()
    )
    assert float(ours(target, output)) == pytest.approx(1 - float(tf.reduce_mean(theirs)), abs=1e-5)


def test_ms_ssim_of_opposite_images_has_a_finite_gradient():
    target, _ = pair((2, 28, 28, 1))
    value, gradient = value_and_gradient(MultiScaleSimilarity(**SSIM, scales=None), target, 1 - target)
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("mse", lambda: keras.losses.MeanSquaredError()),
        ("mae", lambda: keras.losses.MeanAbsoluteError()),
        ("bce", lambda: keras.losses.BinaryCrossentropy()),
        ("huber", lambda: keras.losses.Huber(delta=0.1)),
    ],
)
def test_a_loss_that_keras_has_is_that_of_keras(name, theirs):
    target, output = pair((4, 9, 8, 2))
    ours, gradient = value_and_gradient(loss(name), target, output)
    value, expected = value_and_gradient(theirs(), target, output)
    assert ours == pytest.approx(value, rel=1e-5)
    assert np.abs(gradient - expected).max() < 1e-6


def test_the_gradient_loss_equals_its_definition():
    target, output = pair((3, 6, 7, 2))
    t, y = target.numpy(), output.numpy()
    down = np.abs(np.diff(t, axis=1) - np.diff(y, axis=1)).mean()
    right = np.abs(np.diff(t, axis=2) - np.diff(y, axis=2)).mean()
    ours = loss("gradient", "loss.gradient_weight=0.3")(target, output)
    assert float(ours) == pytest.approx(((t - y) ** 2).mean() + 0.3 * (down + right), rel=1e-5)


@pytest.mark.parametrize("weight", [0, 0.3, 1])
def test_the_weighted_sum_is_a_weighted_sum(weight):
    target, output = pair((3, 16, 16, 1))
    mixed = loss("mse_ssim", f"loss.ssim_weight={weight}")(target, output)
    parts = float(loss("mse")(target, output)), float(loss("ssim")(target, output))
    assert float(mixed) == pytest.approx((1 - weight) * parts[0] + weight * parts[1], rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_least_for_a_perfect_output_and_has_a_gradient(name):
    target = tf.round(pair((3, 16, 16, 1))[0])  # 0 and 1: cross-entropy is 0 for a perfect output too
    output = tf.clip_by_value(target + 0.2 * pair((3, 16, 16, 1), 1)[1] - 0.1, 0.01, 0.99)
    worse, gradient = value_and_gradient(loss(name), target, output)
    perfect = float(loss(name)(target, target))
    assert perfect == pytest.approx(0, abs=1e-5) and perfect < worse
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


@pytest.mark.parametrize("name", ["ssim", "ms_ssim", "mse_ssim"])
def test_an_image_smaller_than_the_window_is_refused_with_a_window_that_fits(name):
    with pytest.raises(UserError) as caught:
        loss(name).check((8, 40, 1), "sigmoid")
    assert caught.value.hint == "Use loss.window=7, or larger images."
    loss(name, "loss.window=7").check((8, 40, 1), "sigmoid")


def test_more_scales_than_fit_are_refused():
    with pytest.raises(UserError, match=r"loss\.scales=4 needs larger images than 28x28"):
        loss("ms_ssim", "loss.scales=4").check((28, 28, 1), "sigmoid")


def test_cross_entropy_of_unbounded_outputs_is_refused():
    with pytest.raises(UserError, match=r"model\.output_activation=linear"):
        loss("bce").check((28, 28, 1), "linear")
