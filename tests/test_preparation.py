"""Which preparation of images a network knows, on principal components: networks without TensorFlow."""

import math

import numpy as np
import pytest

import cae_cli
from cae_cli import data
from cae_cli.config.compose import checked
from cae_cli.data import Images, as_float
from cae_cli.introspection.preparation import FIRST_TRIED, TRIED, preparation
from cae_cli.metrics.preparation import Preparation, Way, unlike
from tests.test_judge import components

RANGES = {"unit": (0.0, 1.0), "signed": (-1.0, 1.0), "bytes": (0.0, 255.0), "inverted": (1.0, 0.0)}


@pytest.fixture(scope="module")
def glyphs():
    """(800, 28, 28, 1) letters and digits in [0, 1], all of them bright on dark."""
    images = as_float(data.load(checked(["data.train=880"])[1].data).train)[:800]
    dark = np.median(images, axis=(1, 2, 3), keepdims=True) > 0.5
    return np.where(dark, 1 - images, images)


@pytest.fixture(scope="module")
def autoencoder(glyphs):
    """Encoder and decoder of glyphs in [0, 1]."""
    return saturated(glyphs[:600])


def saturated(images):
    """Encoder and decoder of principal components whose values end where those of the images do."""
    encode, decode = components(images)
    low, high = np.quantile(encode(images), (0.02, 0.98), axis=0)
    return lambda x: np.clip(encode(x), low, high), decode


@pytest.fixture(scope="module")
def colours(glyphs):
    """(400, 28, 28, 3) a glyph in red and green, another one in green only."""
    red, green = glyphs[:400], glyphs[400:]
    return np.concatenate([red, 0.6 * red + 0.4 * green, 0.1 + 0 * red], axis=-1)


def between(span, images):
    return np.float32(span[0]) + np.float32(span[1] - span[0]) * images


def network(autoencoder, given, made=None):
    """An autoencoder of images in a range, with another range of the output if one is given."""
    (low, high), made = given, made or given
    encode, decode = autoencoder
    sizes = []

    def reconstruct(x):
        sizes.append(len(x))
        return between(made, decode(encode((x - low) / (high - low))))

    return reconstruct, sizes


def tried(reconstruct, images, hand):
    """The network as it is called with images in [0, 1], and what is found."""
    low, high = hand.made
    arrays = preparation(
        lambda x: (reconstruct(between(hand.given, x)) - low) / (high - low),
        Images(images, images, source="array", evaluated=True),
        hand,
    )
    return Preparation(**{key.partition("/")[2]: value.item() for key, value in arrays.items()})


@pytest.mark.parametrize("right", sorted(RANGES))
@pytest.mark.parametrize("wrong", sorted(RANGES))
def test_the_range_of_the_training_is_found_and_no_other_one_is_better(
    glyphs, autoencoder, right, wrong
):
    reconstruct, _ = network(autoencoder, RANGES[right])
    found = tried(reconstruct, glyphs[600:], Way(RANGES[wrong], RANGES[wrong]))
    if right == wrong:
        assert found.error > 0.9 and found.explained > 0.6
    else:
        assert found.error < 0.3 and found.learned > 0.6
        assert (found.given_low, found.given_high) == RANGES[right] and found.is_same_output


def test_an_output_of_another_range_than_the_input_is_found(glyphs, autoencoder):
    reconstruct, _ = network(autoencoder, (0.0, 255.0), (0.0, 1.0))
    found = tried(reconstruct, glyphs[600:], Way((0.0, 1.0), (0.0, 1.0)))
    assert found.error < 0.3
    assert (found.given_high, found.made_low, found.made_high) == (255.0, 0.0, 1.0)
    assert tried(reconstruct, glyphs[600:], Way((0.0, 255.0), (0.0, 1.0))).error > 0.9


def test_mean_and_deviation_are_tried(glyphs):
    pale = 0.5 + 0.2 * glyphs
    mean, deviation = float(pale.mean()), float(pale.std())
    span = -mean / deviation, (1 - mean) / deviation
    found = tried(network(saturated(pale[:100]), span)[0], pale[600:], Way((0.0, 1.0), (0.0, 1.0)))
    assert found.error < 0.3 and found.is_standardised
    assert (found.given_low, found.given_high) == pytest.approx(span, rel=0.1)


def test_channels_in_the_other_order_are_found(colours):
    reconstruct, _ = network(saturated(colours[:300]), (0.0, 1.0))
    unit = Way((0.0, 1.0), (0.0, 1.0))
    found = tried(reconstruct, colours[300:][..., ::-1], unit)
    assert found.error < 0.3 and found.swapped and found.given_high == 1.0
    assert tried(reconstruct, colours[300:], unit).error > 0.9


def test_a_network_that_knows_nothing_knows_no_preparation(glyphs):
    mean = glyphs[:600].mean(axis=0)
    noise = np.random.default_rng(0).normal(0, 0.05, (784, 784)).astype(np.float32)
    unit = Way((0.0, 1.0), (0.0, 1.0))
    for reconstruct in (
        lambda x: np.broadcast_to(mean, x.shape),  # collapsed
        lambda x: np.zeros_like(x),
        lambda x: (x.reshape(len(x), -1) @ noise).reshape(x.shape),  # untrained
        lambda x: np.broadcast_to(x.mean(axis=(1, 2, 3), keepdims=True), x.shape),  # brightness only
    ):
        assert tried(reconstruct, glyphs[600:], unit).learned < 0.1
    assert math.isinf(tried(lambda x: np.full_like(x, np.nan), glyphs[600:], unit).error)


def test_few_images_pass_the_network(glyphs, colours):
    for images, ways in ((glyphs, 8), (colours, 16)):
        reconstruct, sizes = network(saturated(images[:100]), (0.0, 1.0))
        tried(reconstruct, images[300:], Way((0.0, 1.0), (0.0, 1.0)))
        assert sum(sizes) <= ways * FIRST_TRIED + 2 * TRIED


@pytest.mark.parametrize("images", [np.zeros((40, 8, 8, 1), np.float32), np.eye(8)[None, ..., None]])
def test_too_few_or_equal_images_tell_nothing(images):
    found = tried(lambda x: x, images.astype(np.float32), Way((0.0, 1.0), (0.0, 1.0)))
    assert math.isnan(found.error)


def test_statistics_are_compared_by_their_divergence():
    means, variances = np.array([0.2, 0.5, 0.4]), np.array([0.04, 0.01, 0.09])
    assert unlike((means, variances), (means, variances), 0.0) == pytest.approx(0)
    # By definition: the mean is off by three standard deviations, the variance four times as large.
    other = means + 3 * np.sqrt(variances), variances * 4
    expected = (4 + 9 - 1 - math.log(4)) / 2
    assert unlike((means, variances), other, 0.0) == pytest.approx(expected, rel=0.15)
    assert math.isnan(unlike((np.zeros(3), np.ones(3)), other, 0.0))  # before the first step
    soon = 0.1 * means, 0.1 * variances + 0.9  # a share of the images is told from other ones
    assert unlike(soon, (means, variances), 0.0) == pytest.approx(0, abs=1e-3)
    lagging = 0.7 * means, 0.7 * variances + 0.3  # after a few steps
    assert unlike(lagging, (means, variances), 0.0) == pytest.approx(0, abs=1e-3)


def test_functions_that_get_other_values_than_in_their_training_are_told(glyphs, autoencoder, tmp_path):
    def encode(x):
        return autoencoder[0](x / 255)

    def decode(z):
        return 255 * autoencoder[1](z)

    def judged(images, name):
        words = {"encode": encode, "decode": decode, "verbose": 0, "folder": tmp_path / name}
        return cae_cli.judge(images=images, **words).diagnosis

    first = judged(glyphs[600:], "unit").causes[0]
    assert first.code == "CAE112" and first.fixes[0].keras.startswith("x = 255 * x")
    assert "CAE112" in judged(255 * glyphs[600:], "bytes").passed


def test_functions_that_refuse_other_values_are_judged(glyphs, autoencoder, tmp_path):
    encode, decode = autoencoder

    def strict(images):
        assert images.min() >= 0 and images.max() <= 1
        return encode(images)

    noisy = {"encode": strict, "decode": decode, "verbose": 0, "folder": tmp_path}
    with pytest.raises(AssertionError):  # the perturbation tests add noise
        cae_cli.judge(images=glyphs[600:], **noisy)
    limits = {"encode": lambda x: strict(np.clip(x, 0, 1) if x.max() < 1.5 else x)}
    assert "CAE112" in cae_cli.judge(images=glyphs[600:], **{**noisy, **limits}).diagnosis.passed
