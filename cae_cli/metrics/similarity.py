"""Structural similarity (SSIM) in NumPy, and the band matrices that make it two matrix products."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# The window and the constants of the 2004 paper, for the metric, whatever the options of a loss.
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03

# Wang, Simoncelli, Bovik, "Multiscale structural similarity", Asilomar 2003, finest scale first.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


@cache
def gaussian_band(side: int, window: int, sigma: float) -> Array:
    """The matrix that filters a row of ``side`` pixels with a Gaussian, without padding.

    Args:
        side: pixels of a row.
        window: pixels of the Gaussian; odd, at most ``side``.
        sigma: its standard deviation in pixels.

    Returns:
        (side - window + 1, side); row i holds the window, summing to 1, from column i on.
    """
    x = np.arange(window) - (window - 1) / 2
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    band = np.zeros((side - window + 1, side), np.float32)
    for row in range(len(band)):
        band[row, row : row + window] = kernel
    band.setflags(write=False)
    return band


def ssim(
    target: Array,
    output: Array,
    *,
    window: int = WINDOW,
    sigma: float = SIGMA,
    k1: float = K1,
    k2: float = K2,
) -> Array:
    """Mean structural similarity of each image pair.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE TIP 13(4), 2004; values agree with `tf.image.ssim(target, output, 1.0)`.

    Args:
        target: (n, h, w, c), in [0, 1].
        output: the same shape.
        window: side of the Gaussian window; odd. Images smaller than it are measured with the
            largest odd window that fits (`fitting_window`).
        sigma: standard deviation of the window in pixels.
        k1: luminance constant.
        k2: contrast constant.

    Returns:
        (n,), 1 for equal images, at least -1.
    """
    n, h, w, c = target.shape
    window = fitting_window(min(h, w), window)
    rows, columns = gaussian_band(h, window, sigma), gaussian_band(w, window, sigma)
    scores = np.empty(n, np.float32)
    chunk = max(1, 2**22 // max(1, h * w * c))  # some 16 MB a moment
    for start in range(0, n, chunk):
        t = np.moveaxis(target[start : start + chunk], 3, 1)  # (m, c, h, w)
        y = np.moveaxis(output[start : start + chunk], 3, 1)
        moments = np.stack([t, y, t * y, t * t + y * y])
        mean_t, mean_y, mean_ty, mean_squares = rows @ moments @ columns.T  # (m, c, h', w')
        product, squares = 2 * mean_t * mean_y, mean_t**2 + mean_y**2
        luminance = (product + k1**2) / (squares + k1**2)
        contrast = (2 * mean_ty - product + k2**2) / (mean_squares - squares + k2**2)
        scores[start : start + chunk] = (luminance * contrast).mean(axis=(1, 2, 3))
    return scores


def fitting_window(side: int, window: int = WINDOW) -> int:
    """The largest odd window that is at most ``window`` and fits into ``side`` pixels."""
    return min(window, side if side % 2 else side - 1) if side > 1 else 1
