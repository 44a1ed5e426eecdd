"""Fine detail of reconstructions: how much is left, how much of it is right, and what was added.

Blur has two causes. If the latent code does not determine where an edge lies, the least-squares optimum
is the mean of all possible edges. A decoder may also draw less sharply than its latent code allows. The
sharpening gain tells the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Array64 = NDArray[np.float64]

FINE = 0.25  # cycles a pixel: half of the Nyquist frequency; details below four pixels
SMALLEST_LATTICE = 8  # below, the frequencies of a grid have no neighbours to compare with
FARTHEST_NEIGHBOUR = 8
ROUNDING = 1e-9  # share of the mean power of an error that a grid is compared with at least


@dataclass(frozen=True)
class Spectrum:
    """Fine detail of outputs o and of their targets t; NaN where there is none.

    <., .> is the inner product over frequencies above 0.25 cycles per pixel, images and channels.

    Attributes:
        sharpness: variance of the Laplacian of o over that of t, interior pixels; 1 if as sharp.
        power: <o, o> / <t, t>; 1 if there is as much fine detail, right or wrong.
        coherence: <o, t>² / <o, o><t, t>, 0 to 1: share of the fine detail that is right.
        sharpening_gain: <o, t> / <o, o>: the factor for the fine detail of o that minimises the squared
            error. 1 for a least-squares optimum, whose errors are orthogonal to its output; above 1 the
            output is more blurred, below 1 it has wrong detail.
        checkerboard: see `checkerboard`; about 1 to 3 without a pattern, given some tens of images.
    """

    sharpness: float
    power: float
    coherence: float
    sharpening_gain: float
    checkerboard: float


def spectrum(targets: Array, outputs: Array) -> Spectrum:
    """Compares the fine detail of outputs with that of their targets, both (n, h, w, c).

    Images are weighted with a Hann window before the Fourier transform: without it, the jump between
    opposite borders is power at all frequencies, and a blurred image seems sharp.
    """
    n, h, w, c = targets.shape
    window = np.outer(np.hanning(h + 2)[1:-1], np.hanning(w + 2)[1:-1])
    fine = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)) > FINE  # (h, w)
    tt = oo = ot = sharp_t = sharp_o = 0.0
    chunk = max(1, 2**20 // (h * w * c))  # some 50 MB a moment
    with np.errstate(all="ignore"):  # outputs of a network that diverged
        for start in range(0, n, chunk):
            t, o = (
                np.moveaxis(images[start : start + chunk], 3, 1).astype(np.float64)  # (m, c, h, w)
                for images in (targets, outputs)
            )
            if min(h, w) > 2:
                sharp_t += float(_laplacian(t).var(axis=(2, 3)).sum())
                sharp_o += float(_laplacian(o).var(axis=(2, 3)).sum())
            ft, fo = (
                np.fft.fft2((x - x.mean(axis=(2, 3), keepdims=True)) * window)[..., fine] for x in (t, o)
            )
            tt += float(np.square(np.abs(ft)).sum())
            oo += float(np.square(np.abs(fo)).sum())
            ot += float((fo * ft.conj()).real.sum())
    return Spectrum(
        sharpness=_ratio(sharp_o, sharp_t),
        power=_ratio(oo, tt),
        coherence=_ratio(ot**2, oo * tt),
        sharpening_gain=_ratio(ot, oo),
        checkerboard=checkerboard(targets, outputs),
    )


def checkerboard(targets: Array, outputs: Array) -> float:
    """Whether errors have a pattern that repeats every 2 or 4 pixels, as strided layers draw it.

    The power spectrum of the errors of images (n, h, w, c) at the frequencies (i/4, j/4), which sides
    cropped to multiples of 4 hit exactly. Each is divided by the larger of two medians, of neighbouring
    frequencies in its row and in its column: straight edges fill a whole row or column, a pattern does
    not. The largest of the 15 ratios; NaN for sides below 8 and outputs without error.
    """
    n, h, w, c = targets.shape
    if min(h, w) < SMALLEST_LATTICE:
        return float("nan")
    h, w = h - h % 4, w - w % 4
    power = np.zeros((h, w))
    chunk = max(1, 2**20 // (h * w * c))
    with np.errstate(all="ignore"):
        for start in range(0, n, chunk):
            part = slice(start, start + chunk)
            error = outputs[part, :h, :w].astype(np.float64) - targets[part, :h, :w]
            power += np.square(np.abs(np.fft.fft2(error, axes=(1, 2)))).sum(axis=(0, 3))
    floor = ROUNDING * float(power.mean())
    if not floor > 0 or not np.isfinite(floor):
        return float("nan")
    near_rows, near_columns = _near(h), _near(w)
    largest = 0.0
    for i in range(0, h, h // 4):
        for j in range(0, w, w // 4):
            row = float(np.median(power[i, (j + near_columns) % w]))
            column = float(np.median(power[(i + near_rows) % h, j]))
            if i or j:
                largest = max(largest, float(power[i, j]) / max(row, column, floor))
    return largest


def _near(side: int) -> NDArray[np.intp]:
    """Offsets to neighbouring frequencies, at most half way to the next multiple of a quarter."""
    reach = min(side // 8, FARTHEST_NEIGHBOUR)
    return np.array([k for k in range(-reach, reach + 1) if k])


def _laplacian(x: Array64) -> Array64:
    """(m, c, h, w) to (m, c, h - 2, w - 2): sum of the four neighbours minus four times the pixel."""
    middle = x[:, :, 1:-1, 1:-1]
    sides = x[:, :, 1:-1, :-2] + x[:, :, 1:-1, 2:]
    return np.asarray(x[:, :, :-2, 1:-1] + x[:, :, 2:, 1:-1] + sides - 4 * middle)


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")
