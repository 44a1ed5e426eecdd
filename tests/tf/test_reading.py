"""Pixels in the wrong places: the order that undoes the mistake is found, and none for right images."""

from dataclasses import replace

import numpy as np
import pytest

from cae_cli.diagnosis import forecast
from cae_cli.metrics.dataset import dataset
from cae_cli.metrics.reading import READINGS, reading
from tests.test_diagnosis import seen
from tests.tf.scripts import archived, patches

pytestmark = pytest.mark.tf  # tests.tf.scripts has the images

# How each mistake is made of right images (n, h, w, c).
MADE = {
    "channel planes were read as interleaved channels": lambda x: x.transpose(0, 3, 1, 2).reshape(
        x.shape
    ),
    "interleaved channels were read as channel planes": lambda x: x.reshape(
        len(x), x.shape[3], *x.shape[1:3]
    ).transpose(0, 2, 3, 1),
    "height and width were swapped": lambda x: x.reshape(len(x), x.shape[2], x.shape[1], x.shape[3]),
    "rows were read as columns, in Fortran's order": lambda x: np.stack(
        [image.ravel().reshape(image.shape, order="F") for image in x]
    ),
    "columns were read as rows, in C's order": lambda x: np.stack(
        [image.ravel(order="F").reshape(image.shape) for image in x]
    ),
}


def photos(h, w, *, colour=False):
    return np.ascontiguousarray(patches(max(h, w), 64, colour=colour)[:, :h, :w])


@pytest.mark.parametrize("mistake", READINGS)
def test_every_reading_undoes_its_mistake(mistake):
    images = np.random.default_rng(0).random((3, 4, 6, 3)).astype(np.float32)
    assert np.array_equal(READINGS[mistake](MADE[mistake](images)), images)


@pytest.mark.parametrize("mistake", READINGS)
@pytest.mark.parametrize("sides", [(32, 48), (48, 40), (32, 32)])
def test_a_wrong_order_is_found_and_named(mistake, sides):
    images = photos(*sides, colour=True)
    if sides[0] == sides[1] and mistake == "height and width were swapped":
        return
    found = reading(MADE[mistake](images))
    assert found.roughness < 0.5
    # Square images: two mistakes differ by a transposition, which is no harm.
    undone = READINGS[found.mistake](MADE[mistake](images))
    assert np.array_equal(undone, images) or (
        sides[0] == sides[1] and np.array_equal(undone.swapaxes(1, 2), images)
    )


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist", "omniglot"])
def test_swapped_sides_of_grey_images(name):
    images = np.ascontiguousarray(archived(name, 64)[0][:, :, 4:24])
    assert reading(images).roughness > 1.5
    assert reading(MADE["height and width were swapped"](images)).roughness < 0.6


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("sides", [(32, 32), (24, 40), (40, 24)])
def test_the_order_of_photographs_is_right(sides, colour):
    found = reading(photos(*sides, colour=colour))
    assert found.mistake == "" if not colour and sides[0] == sides[1] else found.roughness > 1.3


def test_noise_has_no_better_order():
    noise = np.random.default_rng(0).random((16, 8, 6, 3)).astype(np.float32)
    assert reading(noise).roughness == pytest.approx(1, abs=0.1)
    flat = np.ones((16, 8, 6, 3), np.float32)
    assert reading(flat).mistake == ""


def test_a_wrong_order_shows_before_training():
    right = np.ascontiguousarray(archived("fashion_mnist", 64)[0][:, :, 4:24])
    for images, codes in (
        (right, []),
        (MADE["height and width were swapped"](right), ["CAE111", "CAE105"]),
    ):
        found = dataset(images[:32], images[32:])
        _, network, config = seen()
        statistics = replace(seen()[0], **{n: getattr(found, n) for n in NAMES})
        assert [f.code for f in forecast(statistics, network, config).findings] == codes


NAMES = ("correlation", "mistake", "smoothness", "roughness")
