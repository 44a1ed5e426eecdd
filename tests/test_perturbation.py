"""Causal measures against networks whose answers are known by hand."""

import numpy as np
import pytest

from cae_cli.metrics.local_linear import REACH, cell_means, local_linear_mse
from cae_cli.metrics.perturbation import (
    NOISE,
    Perturbation,
    _margin,
    linear_mse,
    noise_response,
    noise_signs,
    perturbation,
)
from cae_cli.metrics.quality import explained_variance

RNG = np.random.default_rng(0)


def squares(difference):
    return np.square(difference).mean(axis=(1, 2, 3))


def measured(network, images, latent_swap_change=None, linear=None, **others):
    """What `causal` says of a network given as a function of images."""
    mean = images.mean(axis=0)
    signs = noise_signs(images.shape)
    order = RNG.permutation(images.shape[1] * images.shape[2])
    scrambled = images.reshape(len(images), len(order), -1)[:, order].reshape(images.shape)
    response, pixels = noise_response(images, network(images), network(images + NOISE * signs), signs)
    nothing = np.zeros(len(images))
    return perturbation(
        mse=squares(network(images) - images),
        mean_mse=squares(images - mean),
        linear_mse=nothing if linear is None else linear,
        linear_train_mse=nothing,
        train_mean_mse=nothing + 1,
        latent_swap_change=nothing if latent_swap_change is None else latent_swap_change,
        pixel_shuffle_mse=squares(network(scrambled) - scrambled),
        grey_mse=squares(images - images.mean(axis=(1, 2), keepdims=True)),
        noise_response=response,
        noise_pixels=pixels,
        zero_latent_mse=squares(images),
        mean_latent_mse=squares(images - mean),
        repeat_change=nothing + 0.02,
        training_mode_mse=nothing,
        projection_mse=nothing if linear is None else linear / 2,
        **others,
    )


IMAGES = RNG.uniform(0.2, 0.8, (60, 12, 10, 1)).astype(np.float32)


def test_a_code_is_used_if_the_output_is_the_next_image_however_alike_the_two_are():
    """Patches of one photograph follow each other."""
    alike = np.repeat(IMAGES[:6], 10, axis=0) + RNG.normal(0, 0.01, IMAGES.shape).astype(np.float32)
    apart = squares(alike - np.roll(alike, -1, axis=0))
    found = measured(lambda x: x, alike, apart, next_image_mse=apart)
    assert found.latent_swap == pytest.approx(1)
    assert measured(lambda x: x, alike, 0.5 * apart, next_image_mse=apart).latent_swap == pytest.approx(
        0.5
    )
    assert measured(lambda x: x, alike, apart).latent_swap < 0.3  # of runs of older versions
    same = np.repeat(IMAGES[:1], 60, axis=0)
    nothing = np.zeros(60)
    assert np.isnan(measured(lambda x: x, same, nothing, next_image_mse=nothing).latent_swap)


def test_codes_of_zeros_and_means_and_other_anchors_are_relative_to_the_mean_image():
    found = measured(lambda x: 0.5 * x, IMAGES, linear=squares(0.1 * IMAGES))
    variance = np.square(IMAGES - IMAGES.mean(axis=0)).mean()
    assert found.mean_latent == pytest.approx(0, abs=1e-6)
    assert found.zero_latent == pytest.approx(1 - np.square(IMAGES).mean() / variance, rel=1e-4)
    assert found.repeat == pytest.approx(0.02 / (2 * variance), rel=1e-4)
    # With batch normalisation as in training nothing would be wrong: all the error is its gain.
    assert found.training_mode == pytest.approx(np.square(0.5 * IMAGES).mean() / variance, rel=1e-4)
    assert found.projection == pytest.approx((1 + found.linear) / 2, rel=1e-4)
    assert np.isnan(found.training_mode_train)
    own = {"train_mse": np.full(60, 0.5), "train_training_mode_mse": np.full(20, 0.2)}
    assert measured(lambda x: x, IMAGES, **own).training_mode_train == pytest.approx(0.3)
    none = dict.fromkeys(own, np.zeros(0))
    assert np.isnan(measured(lambda x: x, IMAGES, **none).training_mode_train)


def test_the_identity_passes_everything():
    found = measured(lambda x: x, IMAGES)
    assert found.noise_gain == pytest.approx(1, abs=1e-4)
    assert found.pixel_copy == pytest.approx(1)


def test_a_constant_passes_nothing_and_copies_less_than_a_flat_image():
    found = measured(lambda x: np.broadcast_to(IMAGES.mean(axis=0), x.shape), IMAGES)
    assert found.noise_gain == pytest.approx(0, abs=1e-4)
    assert found.pixel_copy < 0


def test_a_flat_image_of_the_right_grey_copies_no_pixel():
    bright = IMAGES + RNG.uniform(-0.15, 0.15, (60, 1, 1, 1)).astype(np.float32)
    found = measured(lambda x: np.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape), bright)
    assert found.pixel_copy == pytest.approx(0, abs=1e-6)
    assert 0 < found.grey < 1


def test_a_projection_on_d_of_all_directions_passes_its_share_of_noise():
    size, kept = 120, 30
    basis, _ = np.linalg.qr(RNG.standard_normal((size, size)))
    projection = (basis[:, :kept] @ basis[:, :kept].T).astype(np.float32)
    images = np.repeat(IMAGES, 20, axis=0)

    def network(x):
        return (x.reshape(len(x), -1) @ projection).reshape(x.shape)

    assert measured(network, images).noise_gain == pytest.approx(kept / size, abs=0.01)


def test_the_margin_of_pixel_copy_is_its_spread_over_samples_of_images():
    rng, few, some = np.random.default_rng(1), 60, []
    for _ in range(400):
        contrast = rng.uniform(0.5, 1.5, few).astype(np.float32)
        left = contrast * rng.uniform(0.2, 0.8, few).astype(np.float32)
        some.append((explained_variance(left, contrast), _margin(left, contrast)))
    values, margins = np.array(some).T
    inside = np.abs(values - 0.5) <= margins
    assert np.mean(inside) == pytest.approx(0.95, abs=0.03)
    assert _margin(left[:1], contrast[:1]) == 0


def test_saturated_pixels_are_left_out_and_too_few_mid_tones_are_no_measurement():
    images = np.where(IMAGES > 0.5, 1, IMAGES).astype(np.float32)

    def clipped(x):  # white stays white: over all pixels this identity would look like half of one
        return np.where(images == 1, 1, x) if len(x) == len(images) else x

    assert measured(clipped, images).noise_gain == pytest.approx(1, abs=1e-3)
    assert np.isnan(measured(lambda x: x, IMAGES[:8]).noise_gain)  # 960 pixels


def test_code_shuffle_is_one_for_outputs_of_unrelated_images_and_zero_for_a_deaf_decoder():
    # Two independent images differ by twice the variance.
    noise = RNG.standard_normal((4000, 4, 4, 1))
    change = squares(np.roll(noise, 1, axis=0) - noise)
    assert measured(lambda x: x, noise, change).latent_swap == pytest.approx(1, abs=0.05)
    assert measured(lambda x: x, noise, np.zeros(4000)).latent_swap == 0


def test_skill_is_measured_from_the_linear_decoder():
    mean_mse = squares(IMAGES - IMAGES.mean(axis=0))
    found = measured(lambda x: x, IMAGES, linear=0.4 * mean_mse)
    assert found.linear == pytest.approx(0.6) and found.skill_score == pytest.approx(1)


def test_scores_of_more_images_are_those_of_the_first():
    some = measured(lambda x: x * 0.5, IMAGES[:40], linear=squares(IMAGES[:40]) / 9)
    signs = noise_signs((40, 12, 10, 1))
    response, pixels = noise_response(IMAGES[:40], IMAGES[:40], IMAGES[:40], signs)
    nothing = np.zeros(40)
    more = perturbation(
        mse=squares(0.5 * IMAGES), mean_mse=squares(IMAGES - IMAGES[:40].mean(axis=0)),
        linear_mse=squares(IMAGES[:40]) / 9, linear_train_mse=nothing, train_mean_mse=nothing + 1,
        latent_swap_change=nothing, pixel_shuffle_mse=nothing, grey_mse=nothing + 1,
        noise_response=response, noise_pixels=pixels, zero_latent_mse=nothing, mean_latent_mse=nothing,
        repeat_change=nothing, training_mode_mse=nothing, projection_mse=nothing,
    )  # fmt: skip
    assert (more.linear, more.skill_score) == pytest.approx((some.linear, some.skill_score))


@pytest.mark.parametrize(("shape", "grid"), [((8, 6), (4, 3)), ((7, 5), (3, 2)), ((5, 5), (5, 5))])
def test_cell_means_agree_with_a_loop(shape, grid):
    images = RNG.random((3, *shape, 2)).astype(np.float32)
    found = cell_means(images, grid)
    for r in range(grid[0]):
        for c in range(grid[1]):
            rows = slice(r * shape[0] // grid[0], (r + 1) * shape[0] // grid[0])
            columns = slice(c * shape[1] // grid[1], (c + 1) * shape[1] // grid[1])
            assert found[:, r, c] == pytest.approx(images[:, rows, columns].mean(axis=(1, 2)), abs=1e-6)


def test_the_linear_decoder_is_that_of_scikit_learn():
    from sklearn.linear_model import LinearRegression

    images = RNG.random((300, 8, 8, 1)).astype(np.float32)
    images = (images + np.roll(images, 1, axis=1) + np.roll(images, 1, axis=2)) / 3  # some structure
    train, held_out = images[:200], images[200:]
    cells = [cell_means(x, (4, 4)).reshape(len(x), -1) for x in (train, held_out)]
    model = LinearRegression().fit(cells[0], train.reshape(200, -1))
    expected = np.square(model.predict(cells[1]) - held_out.reshape(100, -1)).mean(axis=1)
    assert linear_mse(train, [held_out], (4, 4))[0] == pytest.approx(expected, rel=1e-3)


def test_the_linear_decoder_of_pairs_sees_the_inputs_only():
    images = RNG.random((300, 8, 8, 1)).astype(np.float32)
    cells = cell_means(images, (4, 4)).repeat(2, axis=1).repeat(2, axis=2)  # a linear map of the images
    parts = {"given": images[:200], "given_measured": [images[200:]]}
    found = linear_mse(cells[:200], [cells[200:]], (4, 4), **parts)[0]
    assert found == pytest.approx(np.zeros(100), abs=1e-9)
    parts["given_measured"] = [images[:100]]  # those of other images
    assert linear_mse(cells[:200], [cells[200:]], (4, 4), **parts)[0].mean() > 0.01


def test_images_made_of_their_cells_need_no_more_than_a_linear_decoder():
    cells = RNG.random((100, 4, 4, 1)).astype(np.float32)
    images = cells.repeat(3, axis=1).repeat(3, axis=2)
    assert linear_mse(images[:60], [images[60:]], (4, 4))[0] == pytest.approx(np.zeros(40), abs=1e-9)


def test_a_linear_decoder_that_would_mean_nothing_is_not_fitted():
    few = RNG.random((20, 8, 8, 1)).astype(np.float32)
    assert np.isnan(linear_mse(few, [few], (4, 4))).all()  # 17 features of 20 images
    images = RNG.random((6, 8, 8, 1)).astype(np.float32)  # 24 positions, and 25 unknowns of a pixel
    few = local_linear_mse(
        images, images, [(images, images)], (2, 2), mean=images[0], given_mean=images[0]
    )
    assert np.isnan(few).all()
    found = measured(lambda x: x, IMAGES, linear=np.full(60, np.nan))
    assert isinstance(found, Perturbation) and np.isnan(found.linear) and np.isnan(found.skill_score)


def explicit_local_decoder(train, test, grid, mean):
    """Weights by cell around and pixel of a cell, from a design matrix that is filled pixel by pixel."""
    side = train.shape[1] // grid
    reach, channels = REACH // 2, train.shape[3]

    def rows(images):
        cells = cell_means(images - mean, (grid, grid))
        for image, own in zip(images - mean, cells, strict=True):
            for r in range(train.shape[1]):
                for c in range(train.shape[2]):
                    around = np.zeros((side, side, REACH, REACH, channels))
                    for i in range(-reach, reach + 1):
                        for j in range(-reach, reach + 1):
                            at = r // side + i, c // side + j
                            if min(at) >= 0 and max(at) < grid:
                                around[r % side, c % side, reach + i, reach + j] = own[at]
                    yield around.ravel(), image[r, c]

    design, pixels = (np.array(part) for part in zip(*rows(train), strict=True))
    weights = np.linalg.lstsq(design, pixels, rcond=1e-6)[0]
    design, pixels = (np.array(part) for part in zip(*rows(test), strict=True))
    return np.square(design @ weights - pixels).reshape(len(test), -1).mean(axis=1)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_local_decoder_is_that_of_an_explicit_design_matrix(channels):
    images = RNG.random((14, 8, 8, channels)).astype(np.float32)
    images = (images + np.roll(images, 1, axis=1) + np.roll(images, 1, axis=2)) / 3  # some structure
    train, test, mean = images[:10], images[10:], images[:12].mean(axis=0)
    found = local_linear_mse(train, train, [(test, test)], (4, 4), mean=mean, given_mean=mean)[0]
    assert found == pytest.approx(explicit_local_decoder(train, test, 4, mean), rel=1e-4)


def test_a_transposed_convolution_of_the_cells_is_found_wherever_cells_have_one_size():
    shared = RNG.standard_normal((3, 3, 4, 2, 2)).astype(np.float32)  # cells around, pixels, channels

    def made(cells):
        padded = np.pad(cells, ((0, 0), (1, 1), (1, 1), (0, 0)))
        blocks = sum(
            padded[:, i : i + 5, j : j + 6] @ shared[i, j].transpose(1, 0, 2).reshape(2, 8)
            for i in range(3)
            for j in range(3)
        ).reshape(len(cells), 5, 6, 2, 2, 2)
        return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(len(cells), 10, 12, 2)

    cells = RNG.standard_normal((30, 5, 6, 2)).astype(np.float32)
    images, given = made(cells), cells.repeat(2, axis=1).repeat(2, axis=2)
    nothing = np.zeros((10, 12, 2), np.float32)

    def error(given_test, given_mean=nothing):
        pairs = [(given_test, images[20:])]
        return local_linear_mse(
            images[:20], given[:20], pairs, (5, 6), mean=nothing, given_mean=given_mean
        )[0].mean()

    assert error(given[20:]) < 1e-9
    assert error(given[:10]) > 0.1  # those of other images
    assert error(given[20:], nothing + 1) > 1e-3  # beyond the border is the mean


@pytest.mark.parametrize("sides", [(11, 13), (12, 12), (9, 16)])
def test_cells_that_differ_by_a_pixel_cover_each_pixel_once(sides):
    images = RNG.random((40, *sides, 1)).astype(np.float32)
    mean = images.mean(axis=0)
    nothing = np.zeros((40, *sides, 1), np.float32)  # what is given tells nothing
    found = local_linear_mse(
        images, nothing, [(nothing, images)], (4, 4), mean=mean, given_mean=mean * 0
    )
    assert found[0] == pytest.approx(squares(images - mean), rel=1e-5)


def test_large_images_have_a_local_decoder_and_small_ones_the_global_one():
    small, large = (
        RNG.random((n, side, side, 1)).astype(np.float32) for n, side in ((200, 8), (40, 128))
    )
    mean = large.mean(axis=0)
    (found,) = linear_mse(large, [large[:3]], (32, 32))
    local = local_linear_mse(
        large, large, [(large[:3], large[:3])], (32, 32), mean=mean, given_mean=mean
    )
    assert np.array_equal(found, local[0]) and 0 < found.mean() < squares(large[:3] - mean).mean()
    mean = small.mean(axis=0)
    local = local_linear_mse(small, small, [(small, small)], (4, 4), mean=mean, given_mean=mean)
    # The global decoder has the unknowns of the local one, and more.
    assert linear_mse(small, [small], (4, 4))[0].mean() < local[0].mean()
