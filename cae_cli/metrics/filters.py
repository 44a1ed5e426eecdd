"""Filters: how far training changed them, and whether they differ from random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

NO_SPREAD = 1e-9  # relative; a statistic that varies less (orthogonal initialisers) is constant
ROUNDING = 1e-20  # of the mean square: what is left of a variance below it is rounding


def weight_change(kernel: Array, initial: Array) -> float:
    """How far training changed a kernel of any shape, relative to its start: |W - W0| / |W0|.

    0 for a frozen layer, 0.5 to 1.1 in healthy networks after eight epochs of 4,096 images, above 5
    after steps that are far too large; infinite if the kernel began at zero and changed.
    """
    # Float64, because the squares of exploded weights exceed float32.
    moved = float(np.linalg.norm(kernel.astype(np.float64) - initial))
    began = float(np.linalg.norm(initial))
    return moved / began if began else (float("inf") if moved else 0.0)


def morans_i(kernel: Array) -> float:
    """Spatial autocorrelation of the slices of a kernel (k, k, inputs, filters).

    Moran's I (Moran, "Notes on continuous stochastic phenomena", Biometrika 37, 1950) with the four rook
    neighbours: mean product of neighbours over mean square, after each slice lost its own mean. -1 to
    about 1: white noise has 1 / (1 - k * k) (-0.125 for 3 x 3), smooth filters more, alternating ones
    less. NaN for 1 x 1 kernels and flat slices.
    """
    rows, columns = kernel.shape[:2]
    kernel64 = kernel.astype(np.float64)
    with np.errstate(all="ignore"):  # a network that diverged
        z = (kernel64 - kernel64.mean(axis=(0, 1))).reshape(rows, columns, -1)
        square = float(np.vdot(z, z)) / (rows * columns)
        product = float(np.vdot(z[1:], z[:-1]))
        product += sum(float(np.vdot(row[1:], row[:-1])) for row in z)
        flat = not square > ROUNDING * float(np.vdot(kernel64, kernel64)) / (rows * columns)
    pairs = (rows - 1) * columns + rows * (columns - 1)
    return float("nan") if flat or not pairs else product / pairs / square


def singular_entropy(kernel: Array) -> float:
    """How evenly filters span their space: normalised entropy of the normalised singular values.

    Of a kernel (k, k, inputs, filters) as the matrix (k * k * inputs, filters). 0 if all filters are
    multiples of one, 1 if they are orthogonal and equally strong; NaN for one filter.
    """
    matrix = kernel.reshape(-1, kernel.shape[3])
    if min(matrix.shape) < 2 or not np.isfinite(matrix).all() or not matrix.any():
        return float("nan")
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    share = values[values > 0] / values.sum()
    return float(-(share * np.log(share)).sum() / np.log(len(values)))


def p_value(observed: float, null: NDArray[np.floating[Any]]) -> float:
    """Two-sided Monte-Carlo p-value of a statistic among (m,) ``null`` values, of re-initialised layers.

    min(1, 2 min(1 + #(null >= observed), 1 + #(null <= observed)) / (1 + m)); Davison, Hinkley,
    "Bootstrap methods and their application", 1997, section 4.2. 2 / (1 + m) to 1; NaN if a value is not
    finite, or all of ``null`` are equal.
    """
    if not len(null) or not np.isfinite(observed) or not np.isfinite(null).all():
        return float("nan")
    if np.ptp(null) <= NO_SPREAD * np.abs(null).max():
        return float("nan")
    above, below = int((null >= observed).sum()), int((null <= observed).sum())
    return min(1.0, 2 * (1 + min(above, below)) / (1 + len(null)))


def structure(kernel: Array) -> float:
    """The statistic that compares a kernel (k, k, inputs, filters) with re-initialised ones.

    `morans_i`, or `singular_entropy` for 1 x 1 kernels. A layer that does not differ from its
    initializer may be useful all the same.
    """
    point = kernel.shape[0] == kernel.shape[1] == 1
    return singular_entropy(kernel) if point else morans_i(kernel)
