"""Mistakes in how a training is fed, in plain Keras scripts: the cause is named.

What is fed shows in the first batches, so most trainings here are short.
"""

import tempfile

import keras
import numpy as np
import pytest
from scipy import ndimage

from cae_cli import Diagnosis
from cae_cli.report import figures
from tests.tf.scripts import (
    apart,
    archived,
    dense,
    diagnosed,
    first_cause,
    patches,
    pooled,
    strided,
)

pytestmark = pytest.mark.tf


@pytest.fixture(autouse=True)
def seeded_and_without_pictures(monkeypatch):
    monkeypatch.setattr(figures, "draw", lambda *_, **__: None)
    keras.utils.set_random_seed(0)


def by_class(name, count):
    images, labels = archived(name, count)
    return images[np.argsort(labels, kind="stable")]


def by_tint(count):
    """Colour patches, those that are alike in colour one after the other."""
    images = patches(32, count, colour=True)
    tint = images.mean(axis=(1, 2)) @ np.array([1, 0, -1])
    return images[np.argsort(tint)]


# -- images in an order -------------------------------------------------------------------------------


def test_images_sorted_by_class_and_not_shuffled_come_in_an_order():
    images = by_class("fashion_mnist", 640)
    outcome = diagnosed(strided(images.shape[1:]), images, epochs=1, shuffle=False)
    assert first_cause(outcome) == "CAE108"
    fix = outcome.diagnosis.causes[0].fixes[0]
    assert "shuffle=True" in fix.keras and fix.edit == "shuffled batches"


@pytest.mark.soak
def test_images_in_the_order_of_a_mixed_file_do_not():
    images, _ = archived("fashion_mnist", 640)
    outcome = diagnosed(strided(images.shape[1:]), images, epochs=1, shuffle=False)
    assert "CAE108" in outcome.diagnosis.passed


def apart_from_each_tenth(images):
    """All but each tenth image, and these: held-out images are none of the training."""
    return np.delete(images, np.s_[::10], axis=0), images[::10]


@pytest.mark.soak
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    ("network", "images", "batch"),
    [
        # Images of the digit 0, which comes first, differ more than all images: 2.7 instead of 2.9.
        pytest.param(pooled, ("mnist", 4000), 16, marks=pytest.mark.xfail(strict=False)),
        (dense, ("mnist", 4000), 32),
        (dense, ("fashion_mnist", 4000), 8),
        (strided, ("tints", 1024), 32),
    ],
)
def test_other_images_in_an_order(network, images, batch, mixed):
    kind, count = images
    found = by_tint(count) if kind == "tints" else by_class(kind, count)
    found, held_out = apart_from_each_tenth(found)
    network = network(found.shape[1:])
    outcome = diagnosed(network, found, held_out=held_out, epochs=2, shuffle=mixed, batch_size=batch)
    assert (first_cause(outcome) == "CAE108") != mixed
    assert ("CAE108" in outcome.diagnosis.passed) == mixed


@pytest.mark.soak
def test_a_shuffle_buffer_smaller_than_a_class_mixes_nothing():
    import tensorflow as tf

    images, held_out = apart_from_each_tenth(by_class("mnist", 4000))

    def trained(buffer):
        fed = tf.data.Dataset.from_tensor_slices((images, images)).shuffle(buffer).batch(32)
        with tempfile.TemporaryDirectory() as folder:
            watch = Diagnosis(images, held_out, folder=folder, verbose=0)
            model = pooled(images.shape[1:])
            model.compile("adam", "mse")
            model.fit(fed, epochs=1, shuffle=False, verbose=0, callbacks=[watch])
        return watch.outcome

    assert first_cause(trained(64)) == "CAE108"
    assert "CAE108" in trained(4000).diagnosis.passed


# -- held-out images unlike the training images -------------------------------------------------------


def validated(network, images, held_out, *, given=False, **fit):
    """The outcome of a training with this validation data, from which the callback takes its own."""
    model = network(images.shape[1:])
    model.compile("adam", "mse")
    with tempfile.TemporaryDirectory() as folder:
        watch = Diagnosis(*((images, held_out) if given else ()), folder=folder, verbose=0)
        pairs = (held_out, held_out)
        model.fit(images, images, validation_data=pairs, verbose=0, callbacks=[watch], **fit)
    return watch.outcome


def parts(name, count):
    images = patches(32, count, colour=True) if name == "photos" else archived(name, count)[0]
    return images[: -count // 8], images[-count // 8 :]


def test_validation_images_that_nobody_rescaled_are_unlike_the_training_images():
    images, held_out = parts("fashion_mnist", 640)
    outcome = validated(strided, images, 255 * held_out, epochs=8)
    assert first_cause(outcome) == "CAE109"
    assert [finding.code for finding in outcome.diagnosis.causes] == ["CAE109"]


@pytest.mark.soak
@pytest.mark.parametrize(
    ("network", "data", "change"),
    [
        (pooled, ("mnist", 1600), lambda x: 255 * x),
        (dense, ("omniglot", 1600), lambda x: (x - 0.1) / 0.3),
        (strided, ("photos", 1024), lambda x: 2 * x - 1),
        (strided, ("fashion_mnist", 1600), lambda x: x / 255),
        (dense, ("fashion_mnist", 1600), lambda x: 1 - x),
        (pooled, ("photos", 1024), lambda x: 0.3 * x),
    ],
)
def test_other_held_out_images_unlike_the_training_images(network, data, change):
    images, held_out = parts(*data)
    outcome = validated(network, images, change(held_out), epochs=8, given=data[0] == "photos")
    assert [finding.code for finding in outcome.diagnosis.causes] == ["CAE109"]


@pytest.mark.soak
@pytest.mark.parametrize(("network", "number"), [(strided, 2), (pooled, 3), (dense, 6)])
def test_photographs_of_their_own_are_of_the_kind_of_the_others(network, number):
    """Patches of an unusual photograph of which no training patch is."""
    outcome = validated(network, *apart(number), epochs=8)
    assert "CAE109" in outcome.diagnosis.passed


# -- input and target swapped in a denoiser -----------------------------------------------------------


def denoising(network, name, count, noise, *, swapped, scale=1, **fit):
    """The outcome of fit(noisy, clean), or of fit(clean, noisy); inputs are multiplied by ``scale``."""
    clean = patches(32, count, colour=True) if name == "photos" else archived(name, count)[0]
    noisy = noise(clean, np.random.default_rng(0)).astype(np.float32)
    x, y = (clean, noisy) if swapped else (noisy, clean)
    model = network(clean.shape[1:])
    model.compile("adam", "mse")
    with tempfile.TemporaryDirectory() as folder:
        watch = Diagnosis(folder=folder, verbose=0)
        model.fit(scale * x, y, validation_split=0.1, verbose=0, callbacks=[watch], **fit)
    return watch.outcome


def gaussian(deviation):
    return lambda images, rng: np.clip(images + rng.normal(0, deviation, images.shape), 0, 1)


def salt_and_pepper(images, rng):
    return np.where(rng.random(images.shape) < 0.1, rng.integers(0, 2, images.shape), images)


@pytest.mark.soak  # `test_forms` has a denoiser
def test_a_denoiser_with_input_and_target_swapped_has_a_noisy_target():
    outcome = denoising(strided, "fashion_mnist", 640, gaussian(0.3), swapped=True, epochs=8)
    assert [finding.code for finding in outcome.diagnosis.causes] == ["CAE110"]
    assert "fit(noisy, clean)" in outcome.diagnosis.causes[0].fixes[0].keras


@pytest.mark.soak
@pytest.mark.parametrize("swapped", [True, False])
@pytest.mark.parametrize(
    ("network", "name", "noise"),
    [
        (dense, "mnist", gaussian(0.5)),
        (strided, "photos", gaussian(0.15)),
        (pooled, "fashion_mnist", salt_and_pepper),
    ],
)
def test_other_denoisers(network, name, noise, swapped):
    outcome = denoising(network, name, 1024, noise, swapped=swapped, epochs=12)
    assert (first_cause(outcome) == "CAE110") == swapped
    assert ("CAE110" in outcome.diagnosis.passed) != swapped
    assert "CAE103" in outcome.diagnosis.passed


def smoothed(images, rng):
    """A blur that makes strokes of one pixel half as bright."""
    return ndimage.gaussian_filter(images, (0, 1.5, 1.5, 0))


def squared(images, rng):
    """Half the resolution, enlarged by repeating pixels."""
    n, h, w, c = images.shape
    small = images.reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
    return small.repeat(2, axis=1).repeat(2, axis=2)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["fashion_mnist", "photos"])
def test_networks_that_enlarge_are_given_what_they_are_meant_to(name):
    outcome = denoising(strided, name, 1600, squared, swapped=False, epochs=12)
    assert "CAE103" in outcome.diagnosis.passed and first_cause(outcome) is None


@pytest.mark.soak
@pytest.mark.parametrize("swapped", [True, False])
@pytest.mark.parametrize(("network", "name"), [(strided, "mnist"), (pooled, "fashion_mnist")])
def test_networks_that_sharpen_or_blur_are_given_what_they_are_meant_to(network, name, swapped):
    outcome = denoising(network, name, 1600, smoothed, swapped=swapped, epochs=16)
    assert "CAE103" in outcome.diagnosis.passed and first_cause(outcome) is None


def squares(images, rng):
    """A square of 9x9 is black."""
    images = images.copy()
    for image, (row, column) in zip(images, rng.integers(0, 19, (len(images), 2)), strict=True):
        image[row : row + 9, column : column + 9] = 0
    return images


def noisy_squares(images, rng):
    """A square of 9x9 is noise."""
    holes = squares(np.ones_like(images), rng) == 0
    return np.where(holes, rng.random(images.shape), images).astype(np.float32)


def pixels(images, rng):
    """Three of ten pixels are black: the rest of their correlation is that of a sparse image."""
    return images * (rng.random(images.shape) > 0.3)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("network", "name", "mask"),
    [
        (strided, "mnist", pixels),
        (dense, "mnist", squares),
        (pooled, "omniglot", squares),
        (strided, "fashion_mnist", noisy_squares),
    ],
)
def test_masks_on_the_input_are_no_other_images(network, name, mask):
    outcome = denoising(network, name, 640, mask, swapped=False, epochs=8)
    assert "CAE103" in outcome.diagnosis.passed and outcome.metrics.batches.pair > 0.1


# -- pixels in the wrong places -----------------------------------------------------------------------


def misplaced(name, *, wrong=True):
    """Images whose values were put into rows, columns and channels in a wrong order."""
    colour = patches(32, 640, colour=True)
    grey = patches(48, 640)[:, :32]
    rows = archived("fashion_mnist", 640)[0][:, :, 4:24]
    right, made = {
        "planes as pixels": (colour, lambda x: x.transpose(0, 3, 1, 2).reshape(x.shape)),
        "pixels as planes": (colour, lambda x: x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)),
        "sides swapped": (rows, lambda x: x.reshape(-1, 20, 28, 1)),
        "Fortran's order": (grey, lambda x: x.reshape(-1, 48, 32, 1).transpose(0, 2, 1, 3)),
    }[name]  # fmt: skip
    return np.ascontiguousarray(made(right) if wrong else right)


@pytest.mark.parametrize(
    ("network", "name"),
    [
        pytest.param(strided, "planes as pixels", marks=pytest.mark.soak),  # `test_reading` is quick
        pytest.param(dense, "pixels as planes", marks=pytest.mark.soak),
        pytest.param(pooled, "sides swapped", marks=pytest.mark.soak),
        pytest.param(strided, "Fortran's order", marks=pytest.mark.soak),
    ],
)
def test_pixels_in_the_wrong_places(network, name):
    images = misplaced(name)
    outcome = diagnosed(network(images.shape[1:]), images, epochs=8)
    assert first_cause(outcome) == "CAE111"


@pytest.mark.soak
@pytest.mark.parametrize("name", ["planes as pixels", "sides swapped"])
def test_pixels_in_their_places(name):
    images = misplaced(name, wrong=False)
    outcome = diagnosed(strided(images.shape[1:]), images, epochs=8)
    assert "CAE111" in outcome.diagnosis.passed


# -- what is held out, and what repeats ---------------------------------------------------------------


def watched(images, *, given=True, **fit):
    """The callback after a short training of a network on images."""
    model = strided(images.shape[1:])
    model.compile("adam", "mse")
    with tempfile.TemporaryDirectory() as folder:
        watch = Diagnosis(images if given else None, folder=folder, verbose=0)
        fit = {"x": images, "y": images} | fit
        model.fit(**fit, epochs=1, verbose=0, callbacks=[watch])
    return watch.outcome


@pytest.mark.parametrize(
    ("fit", "held_out"),
    [
        ({}, "training"),
        ({"shuffle": False}, "training"),
        ({"validation_split": 0.1}, "validation"),
        pytest.param({"validation_split": 0.1, "shuffle": False}, "validation", marks=pytest.mark.soak),
        pytest.param({"validation_split": 0.2}, "validation", marks=pytest.mark.soak),
    ],
)
def test_the_last_tenth_is_held_out_only_where_fit_holds_it_out(fit, held_out):
    images, _ = archived("fashion_mnist", 320)
    outcome = watched(images, **fit)
    assert outcome.held_out == held_out
    assert "CAE106" in outcome.diagnosis.passed


def test_validation_data_of_its_own_is_what_is_held_out():
    images, held_out = parts("mnist", 320)
    outcome = watched(images, validation_data=(255 * held_out, 255 * held_out))
    assert first_cause(outcome) == "CAE109" and outcome.held_out == "validation"


class Drawn(keras.utils.PyDataset):
    """Batches of images that are drawn at random, each image as often as it happens."""

    def __init__(self, images, steps):
        super().__init__()
        self.images, self.steps = images, steps

    def __len__(self):
        return self.steps

    def __getitem__(self, number):
        chosen = np.random.default_rng(number).integers(len(self.images), size=32)
        return self.images[chosen], self.images[chosen]


@pytest.mark.parametrize(
    ("count", "passes"), [(50, False), pytest.param(640, True, marks=pytest.mark.soak)]
)
def test_images_drawn_at_random_are_no_repeats_of_a_few(count, passes):
    images, held_out = parts("fashion_mnist", count * 8 // 7)
    fed = {"x": Drawn(images, 64), "y": None, "shuffle": False}
    outcome = watched(images, given=False, validation_data=(held_out, held_out), **fed)
    assert ("CAE101" in outcome.diagnosis.passed) == passes
    assert passes or first_cause(outcome) == "CAE101"
