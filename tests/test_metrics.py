import numpy as np
import pytest

from cae_cli.metrics.filters import morans_i, p_value, singular_entropy, weight_change
from cae_cli.metrics.maps import DUPLICATE, ChannelSpread, duplicates, map_health, mean_slope, movement
from cae_cli.metrics.quality import explained_variance, mean_of, psnr
from cae_cli.metrics.similarity import fitting_window, gaussian_band, ssim

RNG = np.random.default_rng(0)


def slow_ssim(x, y, window, sigma, k1, k2):
    """The definition, one window position at a time, with centred moments."""
    axis = np.arange(window) - (window - 1) / 2
    weights = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    h, w, channels = x.shape
    values = []
    for c in range(channels):
        for i in range(h - window + 1):
            for j in range(w - window + 1):
                a = x[i : i + window, j : j + window, c].astype(np.float64)
                b = y[i : i + window, j : j + window, c].astype(np.float64)
                ma, mb = (weights * a).sum(), (weights * b).sum()
                va, vb = (weights * (a - ma) ** 2).sum(), (weights * (b - mb) ** 2).sum()
                cov = (weights * (a - ma) * (b - mb)).sum()
                values.append(
                    (2 * ma * mb + k1**2)
                    * (2 * cov + k2**2)
                    / ((ma**2 + mb**2 + k1**2) * (va + vb + k2**2))
                )
    return np.mean(values)


@pytest.mark.parametrize(("shape", "window"), [((13, 17, 1), 11), ((12, 12, 3), 7), ((11, 11, 1), 11)])
def test_ssim_agrees_with_its_definition(shape, window):
    target = RNG.random((2, *shape), dtype=np.float32)
    output = np.clip(target + 0.2 * RNG.standard_normal(target.shape, dtype=np.float32), 0, 1)
    got = ssim(target, output, window=window)
    for k in range(2):
        assert got[k] == pytest.approx(
            slow_ssim(target[k], output[k], window, 1.5, 0.01, 0.03), abs=1e-5
        )


def test_ssim_of_known_images():
    image = RNG.random((3, 16, 16, 1), dtype=np.float32)
    assert ssim(image, image) == pytest.approx(np.ones(3), abs=1e-6)
    # Flat grey images have no structure: only the luminance term is left.
    grey = np.full((1, 16, 16, 1), 0.2, np.float32)
    light = np.full((1, 16, 16, 1), 0.8, np.float32)
    assert ssim(grey, light)[0] == pytest.approx((2 * 0.2 * 0.8 + 1e-4) / (0.04 + 0.64 + 1e-4), abs=1e-4)


def test_ssim_does_not_depend_on_how_many_images_are_given():
    target = RNG.random((9, 32, 32, 3), dtype=np.float32)
    output = RNG.random((9, 32, 32, 3), dtype=np.float32)
    one_by_one = [ssim(target[i : i + 1], output[i : i + 1])[0] for i in range(9)]
    assert ssim(target, output) == pytest.approx(one_by_one, abs=1e-6)


def test_images_smaller_than_the_window_are_measured_with_the_window_that_fits():
    assert [fitting_window(side) for side in (28, 11, 10, 8, 3, 2, 1)] == [11, 11, 9, 7, 3, 1, 1]
    small = RNG.random((2, 8, 8, 1), dtype=np.float32)
    assert ssim(small, small) == pytest.approx(np.ones(2), abs=1e-6)


def test_the_band_matrix_filters_like_a_sliding_window():
    row = RNG.random(20)
    band = gaussian_band(20, 5, 1.0)
    kernel = np.exp(-(np.arange(-2, 3) ** 2) / 2)
    assert band @ row == pytest.approx(np.convolve(row, kernel / kernel.sum(), mode="valid"), abs=1e-6)


def test_psnr_of_known_errors():
    assert psnr(np.array([1, 0.01, 0])) == pytest.approx([0, 20, 100])


def test_explained_variance_has_its_anchors():
    images = RNG.random((50, 6, 6, 1))
    mean_mse = ((images - images.mean(axis=0)) ** 2).mean(axis=(1, 2, 3))
    assert explained_variance(np.zeros(50), mean_mse) == 1
    assert explained_variance(mean_mse, mean_mse) == 0
    assert np.isnan(explained_variance(np.zeros(5), np.zeros(5)))


def test_a_linear_projection_explains_its_share():
    # White noise projected on d of D orthogonal directions keeps d/D of its variance.
    noise = RNG.standard_normal((4000, 20))
    basis, _ = np.linalg.qr(RNG.standard_normal((20, 20)))
    kept = noise @ basis[:, :5] @ basis[:, :5].T
    mse = ((noise - kept) ** 2).mean(axis=1)
    mean_mse = ((noise - noise.mean(axis=0)) ** 2).mean(axis=1)
    assert explained_variance(mse, mean_mse) == pytest.approx(5 / 20, abs=0.01)


def test_the_confidence_interval_covers_the_mean_as_often_as_it_says():
    covered = 0
    for _ in range(2000):
        mean = mean_of(RNG.normal(3, 2, size=40))
        covered += abs(mean.value - 3) <= mean.margin
    assert 0.92 < covered / 2000 < 0.96
    assert np.isnan(mean_of(np.array([5.0])).margin)


def test_channel_spread_in_batches_equals_the_spread_of_all():
    maps = RNG.normal(5, 2, size=(30, 4, 6, 3)).astype(np.float32)
    spread = ChannelSpread()
    for start in range(0, 30, 7):
        spread.add(maps[start : start + 7])
    assert spread.std() == pytest.approx(maps.std(axis=(0, 1, 2)), rel=1e-5)
    assert spread.image_std() == pytest.approx(np.sqrt(maps.var(axis=0).mean(axis=(0, 1))), rel=1e-5)


def test_the_spread_over_images_of_a_single_image_is_not_known():
    spread = ChannelSpread()
    spread.add(RNG.random((1, 4, 4, 2)).astype(np.float32))
    assert np.isnan(spread.image_std()).all() and (spread.std() > 0).all()
    assert map_health(spread.std(), spread.image_std()).constant == 0


def test_channel_spread_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no maps"):
        ChannelSpread().std()


def test_planted_blank_maps_are_counted():
    maps = RNG.random((40, 5, 5, 6)).astype(np.float32)
    maps[..., 1] = 0  # dead
    maps[..., 2] = 0.7  # dead: flat, though not zero
    maps[..., 4] = RNG.random((5, 5))  # a pattern, the same for every image
    spread = ChannelSpread()
    spread.add(maps)
    health = map_health(spread.std(), spread.image_std())
    assert (health.dead, health.constant) == (2, 1)
    assert health.inactive.tolist() == [False, True, True, False, True, False]
    assert health.inactive_share == pytest.approx(0.5)


def test_the_slope_of_an_activation_follows_from_the_moments_of_its_maps():
    x = np.random.default_rng(0).normal(0.5, 2, (20, 6, 6, 4))
    slopes = {
        "sigmoid": lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2,
        "tanh": lambda x: np.cosh(x) ** -2,
    }
    values = {"sigmoid": 1 / (1 + np.exp(-x)), "tanh": np.tanh(x), "relu": np.maximum(x, 0)}
    for name, maps in values.items():
        spread = ChannelSpread()
        spread.add(maps)
        slope = mean_slope(name, spread.mean(), spread.std())
        if name in slopes:
            assert slope == pytest.approx(slopes[name](x).mean(), rel=1e-4)
        else:
            assert np.isnan(slope)


def test_a_movement_is_measured_in_spreads_of_the_maps():
    maps = np.random.default_rng(0).normal(5, 0.2, (8, 6, 6, 4)).astype(np.float32)
    shift = np.array([0.1, -0.3, 0.1, -0.3], np.float32)
    assert movement(maps, maps + shift) == pytest.approx(0.2 / maps.std(), rel=1e-4)
    assert movement(np.zeros_like(maps), np.zeros_like(maps)) == 0


def test_a_layer_that_is_dead_altogether_has_only_dead_maps():
    health = map_health(np.zeros(8, np.float32), np.zeros(8, np.float32))
    assert (health.dead, health.constant) == (8, 0)


def correlation_of(maps, batch=7):
    spread = ChannelSpread()
    for start in range(0, len(maps), batch):
        spread.add(maps[start : start + batch])
    return spread.correlation()


def test_the_correlation_of_channels_in_batches_agrees_with_numpy():
    maps = RNG.normal(5, 2, size=(30, 4, 6, 5)).astype(np.float32)
    maps[..., 1] += maps[..., 0]
    maps[..., 2] = 1000 - 3 * maps[..., 1]  # far from zero, and of the other sign
    found = correlation_of(maps)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.corrcoef(maps.reshape(-1, 5).astype(np.float64).T), abs=1e-6)
    assert found[1, 2] == pytest.approx(-1, abs=1e-6)


@pytest.mark.filterwarnings("error")
def test_channels_without_spread_correlate_with_nothing():
    maps = RNG.random((20, 5, 5, 4)).astype(np.float32)
    maps[..., 1], maps[..., 2] = 0.7, 0
    expected = np.corrcoef(maps[..., [0, 3]].reshape(-1, 2).T)
    found = correlation_of(maps)
    assert found[np.ix_([0, 3], [0, 3])] == pytest.approx(expected, abs=1e-6)
    assert (found[[1, 2]] == np.eye(4)[[1, 2]]).all() and (
        found[:, [1, 2]] == np.eye(4)[:, [1, 2]]
    ).all()
    maps[0, 0, 0, 3] = np.inf
    assert (correlation_of(maps) == np.eye(4)).all()


def slow_duplicates(maps, inactive):
    """Greedy, with np.corrcoef of each pair."""
    kept = []
    for i in range(maps.shape[3]):
        pairs = [np.corrcoef(maps[..., i].ravel(), maps[..., k].ravel())[0, 1] for k in kept]
        if not inactive[i] and all(abs(r) <= DUPLICATE for r in pairs):
            kept.append(i)
    return int((~inactive).sum()) - len(kept)


def test_planted_duplicate_maps_are_counted():
    maps = RNG.random((20, 6, 6, 8)).astype(np.float32)
    maps[..., 3] = 2 * maps[..., 0] + 1
    maps[..., 5] = maps[..., 0] + 0.02 * maps[..., 2]
    maps[..., 6] = -maps[..., 1]
    inactive = np.zeros(8, bool)
    correlation = correlation_of(maps)
    assert duplicates(correlation, inactive) == slow_duplicates(maps, inactive) == 3
    inactive[[5, 6]] = True
    assert duplicates(correlation, inactive) == slow_duplicates(maps, inactive) == 1
    inactive[0] = True  # the original is gone: its copy is the first of its kind
    assert duplicates(correlation, inactive) == 0
    assert duplicates(correlation, np.ones(8, bool)) == 0


def test_a_chain_of_ever_less_similar_maps_is_not_one_map():
    chain = np.array([[1, 0.99, 0.9], [0.99, 1, 0.99], [0.9, 0.99, 1]])
    assert duplicates(chain, np.zeros(3, bool)) == 1
    assert duplicates(chain, np.zeros(3, bool), limit=0.8) == 2


def slow_morans_i(kernel):
    """The definition for each slice, with a matrix of weights, pooled by hand."""
    rows, columns, inputs, filters = kernel.shape
    cells = [(i, j) for i in range(rows) for j in range(columns)]
    rook = np.array([[abs(a - c) + abs(b - d) == 1 for c, d in cells] for a, b in cells])
    numerator = denominator = 0.0
    for i in range(inputs):
        for f in range(filters):
            z = kernel[:, :, i, f].ravel().astype(np.float64)
            z = z - z.mean()
            numerator += z @ rook @ z
            denominator += z @ z
    return len(cells) / rook.sum() * numerator / denominator


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (5, 5, 1, 3), (2, 4, 3, 2), (1, 7, 2, 2)])
def test_morans_i_agrees_with_its_definition(shape):
    kernel = RNG.standard_normal(shape).astype(np.float32)
    assert morans_i(kernel) == pytest.approx(slow_morans_i(kernel))


def test_morans_i_of_known_filters():
    noise = RNG.standard_normal((3, 3, 50, 100))
    assert morans_i(noise) == pytest.approx(-1 / 8, abs=0.02)
    board = np.indices((4, 4)).sum(axis=0)[:, :, None, None] % 2
    assert morans_i(board) == pytest.approx(-1)
    ramp = np.broadcast_to(np.arange(9.0)[:, None, None, None], (9, 9, 1, 1))
    assert morans_i(ramp) > 0.8
    assert morans_i(ramp + 100) == pytest.approx(morans_i(ramp))
    assert np.isnan(morans_i(RNG.random((1, 1, 4, 4)))) and np.isnan(
        morans_i(np.full((3, 3, 2, 2), 0.1))
    )


def test_singular_entropy_agrees_with_eigenvalues():
    kernel = RNG.standard_normal((3, 3, 2, 5)).astype(np.float32)
    matrix = kernel.reshape(18, 5).astype(np.float64)
    share = np.sqrt(np.linalg.eigvalsh(matrix.T @ matrix))
    share /= share.sum()
    assert singular_entropy(kernel) == pytest.approx(-sum(p * np.log(p) for p in share) / np.log(5))


def test_singular_entropy_of_known_filters():
    orthogonal = np.linalg.qr(RNG.standard_normal((9, 6)))[0].reshape(3, 3, 1, 6)
    assert singular_entropy(orthogonal) == pytest.approx(1)
    one = RNG.standard_normal((3, 3, 2, 1))
    assert singular_entropy(one * np.arange(1, 5)) == pytest.approx(0, abs=1e-9)
    for nothing in (one, np.zeros((3, 3, 1, 4)), np.full((3, 3, 1, 4), np.nan)):
        assert np.isnan(singular_entropy(nothing))


def gabor_filters(side, filters):
    y, x = np.indices((side, side)) - (side - 1) / 2
    angles = np.pi * np.arange(filters) / filters
    waves = [np.cos(1.2 * (x * np.cos(a) + y * np.sin(a)) + a) for a in angles]
    return np.stack([np.exp(-(x**2 + y**2) / 8) * wave for wave in waves], axis=2)[:, :, None]


def test_planted_gabor_filters_are_not_noise_and_noise_is():
    null = np.array([morans_i(RNG.standard_normal((7, 7, 1, 8))) for _ in range(99)])
    assert p_value(morans_i(gabor_filters(7, 8)), null) == pytest.approx(2 / 100)
    found = [p_value(morans_i(RNG.standard_normal((7, 7, 1, 8))), null) for _ in range(200)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)
    assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.08)


def test_p_values_known_by_hand():
    null = np.arange(9.0)
    assert p_value(100, null) == p_value(-100, null) == pytest.approx(2 / 10)
    assert p_value(7.5, null) == pytest.approx(2 * 2 / 10)
    assert p_value(4, null) == 1
    for observed, reinitialized in ((np.nan, null), (1, null * np.nan), (1, np.ones(9)), (1, null[:0])):
        assert np.isnan(p_value(observed, reinitialized))
    assert np.isnan(p_value(0.5, 1 + 1e-14 * null))  # rounding is no spread


def test_displacement_of_known_moves():
    kernel = RNG.random((3, 3, 2, 4))
    assert weight_change(kernel, kernel) == 0
    assert weight_change(2 * kernel, kernel) == pytest.approx(1)
    assert weight_change(kernel, np.zeros_like(kernel)) == float("inf")
    assert weight_change(np.zeros(3), np.zeros(3)) == 0
