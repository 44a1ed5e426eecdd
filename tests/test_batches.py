"""What was fed: against loops and np.corrcoef, and images whose answers are known by hand."""

import numpy as np
import pytest

from cae_cli.metrics.batches import batches, in_one_range, neighbour_correlation

RNG = np.random.default_rng(0)
IMAGES = RNG.random((12, 7, 5, 3)).astype(np.float32)


def slow_correlation(images):
    """np.corrcoef of the pairs, collected one by one."""
    found = []
    for down, right in ((1, 0), (0, 1)):
        a, b = [], []
        for image in images.astype(np.float64):
            for c in range(image.shape[2]):
                x = image[..., c] - image[..., c].mean()
                for i in range(x.shape[0] - down):
                    for j in range(x.shape[1] - right):
                        a.append(x[i, j])
                        b.append(x[i + down, j + right])
        found.append(np.corrcoef(a, b)[0, 1])
    return np.mean(found)


def test_all_agree_with_slow_computations():
    targets = (IMAGES + RNG.normal(0, 0.3, IMAGES.shape)).astype(np.float32)
    found = batches(IMAGES, targets)
    n = len(IMAGES)
    x, t = IMAGES.astype(np.float64), targets.astype(np.float64)
    assert (found.input_low, found.input_high) == (min(x.flat), max(x.flat))
    assert (found.target_low, found.target_high) == (min(t.flat), max(t.flat))
    assert found.image_std == pytest.approx(np.mean([image.std() for image in x]))
    assert found.variance == pytest.approx(np.mean([np.var(p) for p in t.reshape(n, -1).T]))
    own = np.mean([((x[i] - t[i]) ** 2).mean() for i in range(n)])
    others = np.mean([((x[i] - t[(i + 1) % n]) ** 2).mean() for i in range(n)])
    assert found.pair == pytest.approx(own / others, rel=1e-5)
    assert found.correlation == pytest.approx(slow_correlation(IMAGES), abs=1e-9)


def test_targets_that_are_the_inputs_are_a_pair_and_those_of_other_images_are_not():
    noise = RNG.random((400, 6, 6, 1)).astype(np.float32)
    assert batches(noise, noise).pair == 0
    assert batches(noise, RNG.permutation(noise)).pair == pytest.approx(1, abs=0.05)
    assert np.isnan(batches(noise[:1], noise[:1]).pair)
    assert np.isnan(batches(np.ones_like(noise), np.ones_like(noise)).pair)


def test_repeated_images_are_counted_once():
    images = IMAGES[[0, 1, 0, 2, 1, 0, 3, 3]]
    assert batches(images, images).distinct == 4 / 8
    images[2] = np.nextafter(images[2], 2)  # the smallest change makes another image
    assert batches(images, images).distinct == 5 / 8
    assert batches(images[:1], images[:1]).distinct == 1
    # Repeats are of inputs; the variance is of targets.
    assert batches(images, np.ones_like(images)).variance == 0


def test_flat_images_have_neither_contrast_nor_correlation():
    flat = np.broadcast_to(RNG.random((9, 1, 1, 2)), (9, 8, 8, 2)).astype(np.float32)
    assert np.isnan(batches(flat, flat).correlation)
    assert batches(flat[..., :1], flat[..., :1]).image_std == pytest.approx(0, abs=1e-12)


def test_white_noise_is_not_correlated_and_neither_brightness_nor_tint_hides_it():
    noise = RNG.standard_normal((60, 28, 28, 3)).astype(np.float32)
    assert neighbour_correlation(noise) == pytest.approx(0, abs=0.01)
    tint = 5 * RNG.standard_normal((60, 1, 1, 3)).astype(np.float32)
    assert neighbour_correlation(noise + tint) == pytest.approx(0, abs=0.01)


def test_a_ramp_is_all_correlation_and_a_checkerboard_all_the_other_way():
    ramp = np.add.outer(np.arange(20), 2 * np.arange(16)).astype(np.float32)[None, :, :, None]
    assert neighbour_correlation(ramp) == pytest.approx(1, abs=0.02)
    board = (np.indices((8, 8)).sum(axis=0) % 2).astype(np.float32)[None, :, :, None]
    assert neighbour_correlation(board) == pytest.approx(-1)


@pytest.mark.parametrize("shape", [(4, 1, 9, 1), (4, 9, 1, 1), (4, 1, 1, 3)])
def test_images_of_one_row_have_no_neighbours(shape):
    assert np.isnan(neighbour_correlation(RNG.random(shape).astype(np.float32)))


def test_a_single_column_that_differs_is_not_correlated_by_rounding():
    images = np.full((3, 6, 6, 1), 0.1, np.float32)
    images[:, :, -1] = 0.7
    assert np.isnan(neighbour_correlation(images))


def smooth(n=200, side=16, seed=0):
    """Images in [0, 1] whose neighbouring pixels correlate."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((n, side // 4, side // 4, 1))
    return coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("scale", [lambda x: 255 * x, lambda x: 2 * x - 1, lambda x: x / 255])
def test_inputs_in_another_range_are_the_same_images(scale, noise):
    images = smooth()
    noisy = images + np.random.default_rng(1).normal(0, noise, images.shape)
    for x, t in ((noisy, images), (images, noisy)):
        found, same = batches(scale(x).astype(np.float32), t), batches(x.astype(np.float32), t)
        assert found.pair == pytest.approx(same.pair, abs=0.04)
        assert (
            found.difference_correlation
            == pytest.approx(same.difference_correlation, abs=0.1, nan_ok=True)
            or not noise
        )
        assert found.difference == pytest.approx(same.difference, rel=0.3, abs=1e-9)


def test_images_in_one_range_stay_as_they_are():
    images = smooth()
    for targets in (images, images[:, ::-1], 1 - images, np.ones_like(images), 0.9 * images):
        assert in_one_range(images, targets) is images


def test_other_images_in_another_range_are_no_pair():
    images = smooth()
    assert batches(255 * images, np.roll(images, 3, axis=0)).pair > 0.9
    assert batches(255 * images, images[:, :, ::-1]).pair > 0.3


def test_what_a_mask_changes_has_one_value_and_what_another_image_changes_has_not():
    images = smooth()
    hidden = np.random.default_rng(1).random(images.shape) < 0.3
    for value in (0.0, 0.5):
        assert batches(np.where(hidden, np.float32(value), images), images).erased == 1
    assert batches(np.roll(images, 1, axis=0), images).erased < 0.01
    assert np.isnan(batches(images, images).erased)
