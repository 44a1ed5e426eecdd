"""Filters: how far training moved them, and whether they look different from random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# A statistic that varies less over re-initialised filters, relative to its size, is the same for all of them: the
# singular values of an orthogonal initialisation, for instance.
NO_SPREAD = 1e-9
# Below this share of the mean square, what is left of a variance is rounding (double precision).
ROUNDING = 1e-20


def weight_change(kernel: Array, initial: Array) -> float:
    """How far a layer's kernel moved, relative to where it began: |W - W0| / |W0|.

    0 for a frozen layer; .5 to 1.1 in healthy networks trained for eight epochs of 4,096 images;
    above 5 after a burst of too large steps.

    Args:
        kernel: after training, any shape.
        initial: the same before training.

    Returns:
        At least 0; infinite if the kernel began at zero and moved.
    """
    # Of weights that burst, the squares are beyond float32.
    moved = float(np.linalg.norm(kernel.astype(np.float64) - initial))
    began = float(np.linalg.norm(initial))
    return moved / began if began else (float("inf") if moved else 0.0)


def morans_i(kernel: Array) -> float:
    """Spatial autocorrelation of a layer's filters: how alike neighbouring weights are.

    Moran's I (Moran, "Notes on continuous stochastic phenomena", Biometrika 37, 1950) with the four
    rook neighbours: mean product of neighbours over mean square, after each slice lost its own mean.

    Args:
        kernel: (k, k, inputs, filters); its k x k slices are pooled.

    Returns:
        -1 to about 1: 1 / (1 - k * k) is expected of white noise (-.125 for 3 x 3), more of smooth
        filters, less of alternating ones. NaN for 1 x 1 kernels and flat slices.
    """
    rows, columns = kernel.shape[:2]
    kernel64 = kernel.astype(np.float64)
    with np.errstate(all="ignore"):  # a network that diverged
        z = kernel64 - kernel64.mean(axis=(0, 1))
        square = float(np.square(z).sum()) / (rows * columns)
        product = float((z[1:] * z[:-1]).sum()) + float((z[:, 1:] * z[:, :-1]).sum())
        flat = not square > ROUNDING * float(np.square(kernel64).sum()) / (rows * columns)
    pairs = (rows - 1) * columns + rows * (columns - 1)
    return float("nan") if flat or not pairs else product / pairs / square


def singular_entropy(kernel: Array) -> float:
    """How evenly a layer's filters span their space: entropy of the normalised singular values.

    Args:
        kernel: (k, k, inputs, filters), read as the matrix (k * k * inputs, filters).

    Returns:
        0 if all filters are multiples of one, 1 if they are orthogonal and equally strong: the
        entropy is divided by the logarithm of the number of singular values. NaN for one filter.
    """
    matrix = kernel.reshape(-1, kernel.shape[3])
    if min(matrix.shape) < 2 or not np.isfinite(matrix).all() or not matrix.any():
        return float("nan")
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    share = values[values > 0] / values.sum()
    return float(-(share * np.log(share)).sum() / np.log(len(values)))


def p_value(observed: float, null: NDArray[np.floating[Any]]) -> float:
    """Two-sided Monte-Carlo p-value: how rarely a re-initialised filter is as extreme as what was observed.

    min(1, 2 min(1 + #(null >= observed), 1 + #(null <= observed)) / (1 + m)); the observed value
    counts as one of the draws. Davison, Hinkley, "Bootstrap methods and their application", 1997,
    section 4.2.

    Args:
        observed: a statistic.
        null: (m,) the same statistic of re-initialised filters.

    Returns:
        2 / (1 + m) to 1; NaN if anything is not finite, or all re-initialised filters have the same value.
    """
    if not len(null) or not np.isfinite(observed) or not np.isfinite(null).all():
        return float("nan")
    if np.ptp(null) <= NO_SPREAD * np.abs(null).max():
        return float("nan")
    above, below = int((null >= observed).sum()), int((null <= observed).sum())
    return min(1.0, 2 * (1 + min(above, below)) / (1 + len(null)))


def structure(kernel: Array) -> float:
    """The statistic by which a layer is compared with re-initialised filters from its initializer.

    `morans_i`, or `singular_entropy` where kernels have no neighbours (1 x 1). A layer that differs
    from its re-initialised filters has been shaped by training; one that does not may be useful all the same.

    Args:
        kernel: (k, k, inputs, filters).
    """
    point = kernel.shape[0] == kernel.shape[1] == 1
    return singular_entropy(kernel) if point else morans_i(kernel)
