"""Fine detail: against a transform written out as loops, and outputs whose answers are known."""

import numpy as np
import pytest

from cae_cli.metrics.spectrum import checkerboard, spectrum

RNG = np.random.default_rng(0)
IMAGES = RNG.random((20, 28, 28, 1)).astype(np.float32)


def dft(image):
    """Two-dimensional discrete Fourier transform by its definition."""
    h, w = image.shape
    rows = np.exp(-2j * np.pi * np.outer(np.arange(h), np.arange(h)) / h)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(w), np.arange(w)) / w)
    return rows @ image @ columns


def slow_spectrum(targets, outputs):
    """Sharpness, power, coherence and sharpening gain in loops over images, channels, frequencies."""
    n, h, w, channels = targets.shape
    hann = [np.sin(np.pi * (np.arange(side) + 1) / (side + 1)) ** 2 for side in (h, w)]
    laplacians, oo, tt, ot = {0: 0.0, 1: 0.0}, 0.0, 0.0, 0.0
    for k in range(n):
        for c in range(channels):
            pair = [x[k, :, :, c].astype(np.float64) for x in (targets, outputs)]
            for which, x in enumerate(pair):
                laplacians[which] += np.var(
                    [
                        x[i - 1, j] + x[i + 1, j] + x[i, j - 1] + x[i, j + 1] - 4 * x[i, j]
                        for i in range(1, h - 1)
                        for j in range(1, w - 1)
                    ]
                )
            t, o = (dft((x - x.mean()) * np.outer(*hann)) for x in pair)
            for u in range(h):
                for v in range(w):
                    if np.sqrt((min(u, h - u) / h) ** 2 + (min(v, w - v) / w) ** 2) > 0.25:
                        tt += abs(t[u, v]) ** 2
                        oo += abs(o[u, v]) ** 2
                        ot += (o[u, v] * t[u, v].conjugate()).real
    return laplacians[1] / laplacians[0], oo / tt, ot**2 / (oo * tt), ot / oo


@pytest.mark.parametrize("shape", [(3, 9, 12, 2), (2, 16, 8, 1)])
def test_the_spectrum_agrees_with_loops(shape):
    targets = RNG.random(shape).astype(np.float32)
    outputs = (0.6 * targets + 0.1 * RNG.standard_normal(shape) + 0.2).astype(np.float32)
    found = spectrum(targets, outputs)
    expected = slow_spectrum(targets, outputs)
    assert (found.sharpness, found.power, found.coherence, found.sharpening_gain) == pytest.approx(
        expected
    )


def test_a_perfect_output_has_ones_and_no_error_to_look_at():
    found = spectrum(IMAGES, IMAGES)
    assert (found.sharpness, found.power, found.coherence, found.sharpening_gain) == pytest.approx(
        (1, 1, 1, 1)
    )
    assert np.isnan(found.checkerboard)


def test_half_the_contrast_could_be_doubled():
    found = spectrum(IMAGES, IMAGES / 2 + 0.25)
    assert found.sharpening_gain == pytest.approx(2, rel=1e-5)
    assert (found.power, found.sharpness) == pytest.approx((0.25, 0.25), rel=1e-5)
    assert found.coherence == pytest.approx(1)


def test_an_output_that_shows_all_it_knows_has_no_slack_and_one_with_noise_less():
    known = RNG.standard_normal((200, 16, 16, 1))
    unknown = RNG.standard_normal(known.shape)
    best = spectrum((known + unknown).astype(np.float32), known.astype(np.float32))
    assert best.sharpening_gain == pytest.approx(1, abs=0.02)
    assert (best.coherence, best.power) == pytest.approx((0.5, 0.5), abs=0.02)
    noisy = spectrum(known.astype(np.float32), (known + unknown).astype(np.float32))
    assert noisy.sharpening_gain == pytest.approx(0.5, abs=0.02)


def test_slack_is_the_factor_that_makes_the_error_least():
    targets = RNG.standard_normal((20, 16, 16, 1))
    fine = targets - spectral_blur(targets)
    outputs = spectral_blur(targets) + 0.3 * fine + 0.2 * RNG.standard_normal(targets.shape)
    sharpening_gain = spectrum(targets.astype(np.float32), outputs.astype(np.float32)).sharpening_gain
    window = np.outer(np.hanning(18)[1:-1], np.hanning(18)[1:-1])[None, :, :, None]
    t, o = (x * window - spectral_blur(x * window) for x in (targets, outputs))
    factors = np.linspace(0.5, 3, 251)
    best = factors[np.argmin([((t - factor * o) ** 2).mean() for factor in factors])]
    assert sharpening_gain == pytest.approx(best, abs=0.05)


def spectral_blur(images):
    """Images without what is above .25 cycles a pixel, (n, h, w, c)."""
    h, w = images.shape[1:3]
    coarse = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)) <= 0.25
    return np.fft.ifft2(np.fft.fft2(images, axes=(1, 2)) * coarse[..., None], axes=(1, 2)).real


def test_the_window_hides_the_jump_between_opposite_borders():
    # A ramp with fine noise: only the noise is fine detail, and the output lacks all of it.
    ramp = np.broadcast_to(np.linspace(0, 1, 28)[:, None, None], (30, 28, 28, 1))
    targets = (ramp + 0.05 * RNG.standard_normal(ramp.shape)).astype(np.float32)
    assert spectrum(targets, ramp.astype(np.float32)).power < 0.01


def test_nothing_to_compare_is_not_a_number():
    flat = np.full_like(IMAGES, 0.1)
    black = spectrum(IMAGES, flat)
    assert (black.power, black.sharpness) == (0, 0)
    assert np.isnan(black.sharpening_gain) and np.isnan(black.coherence)
    assert np.isnan(spectrum(flat, IMAGES).power) and np.isnan(spectrum(flat, IMAGES).sharpness)
    for side in (1, 2):
        small = RNG.random((3, side, side, 1)).astype(np.float32)
        assert np.isnan(spectrum(small, small).sharpness)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_of_a_diverged_network_are_not_numbers(value):
    found = spectrum(IMAGES, np.full_like(IMAGES, value))
    assert np.isnan([found.sharpness, found.power, found.sharpening_gain, found.checkerboard]).all()


def slow_checkerboard(targets, outputs):
    """The ratios with a written-out transform and loops over the neighbours."""
    _, h, w, channels = targets.shape
    h, w = h // 4 * 4, w // 4 * 4
    power = np.zeros((h, w))
    for target, output in zip(targets, outputs, strict=True):
        for c in range(channels):
            power += np.abs(dft(output[:h, :w, c].astype(float) - target[:h, :w, c])) ** 2
    ratios = []
    for i in range(4):
        for j in range(4):
            if (i, j) == (0, 0):
                continue
            u, v = i * h // 4, j * w // 4
            row = [power[u, (v + s * k) % w] for s in (-1, 1) for k in range(1, min(w // 8, 8) + 1)]
            column = [power[(u + s * k) % h, v] for s in (-1, 1) for k in range(1, min(h // 8, 8) + 1)]
            ratios.append(power[u, v] / max(np.median(row), np.median(column)))
    return max(ratios)


@pytest.mark.parametrize("shape", [(4, 8, 8, 1), (3, 19, 30, 3), (2, 28, 28, 1)])
def test_the_checkerboard_agrees_with_loops(shape):
    targets, outputs = RNG.random((2, *shape)).astype(np.float32)
    assert checkerboard(targets, outputs) == pytest.approx(slow_checkerboard(targets, outputs))


GRIDS = {
    "checkers of 2": lambda i, j: (-1.0) ** (i + j),
    "rows of 2": lambda i, j: (-1.0) ** i,
    "dots every 2": lambda i, j: (i % 2 == 0) * (j % 2 == 0),
    "columns of 4": lambda i, j: np.cos(np.pi * j / 2),
    "dots every 4": lambda i, j: (i % 4 == 0) * (j % 4 == 0),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("side", [8, 28, 33, 64])
def test_a_planted_grid_stands_out(grid, side):
    noise = 0.05 * RNG.standard_normal((40, side, side, 1)).astype(np.float32)
    targets = np.zeros_like(noise)
    i, j = np.indices((side, side))
    assert checkerboard(targets, noise) < 3
    planted = noise + 0.3 * grid(i, j)[None, :, :, None].astype(np.float32)
    assert checkerboard(targets, planted) > 10


def test_a_grid_without_any_other_error_is_finite():
    board = (np.indices((28, 28)).sum(axis=0) % 2 - 0.5).astype(np.float32)[None, :, :, None]
    assert 1e3 < checkerboard(np.zeros_like(board), board) < np.inf


def test_straight_edges_and_smooth_errors_are_no_grid():
    # Boxes: their spectra are concentrated on the axes, where four grid frequencies lie.
    boxes = np.zeros((100, 28, 28, 1), np.float32)
    for box in boxes:
        top, left = RNG.integers(0, 16, 2)
        box[top : top + RNG.integers(3, 12), left : left + RNG.integers(3, 12)] = RNG.random()
    assert checkerboard(np.zeros_like(boxes), boxes) < 3
    blurred = spectral_blur(boxes).astype(np.float32)
    assert checkerboard(boxes, blurred) < 3
    ramps = np.add.outer(np.arange(28), np.arange(28))[None, :, :, None] * RNG.random((50, 1, 1, 1))
    assert checkerboard(np.zeros_like(ramps), ramps) < 3


def test_images_too_small_for_a_grid_are_not_measured():
    small = RNG.random((9, 7, 28, 1)).astype(np.float32)
    assert np.isnan(checkerboard(small, 0 * small))
