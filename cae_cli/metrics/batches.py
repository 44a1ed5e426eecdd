"""The batches that a training received, after loading, scaling and augmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Below this share of the mean square, what is left of a variance is rounding (double precision).
ROUNDING = 1e-20


@dataclass(frozen=True)
class BatchStatistics:
    """Inputs x and targets t of the first steps, in the units of the pixels.

    Attributes:
        input_low, input_high: range of the inputs.
        target_low, target_high: range of the targets.
        image_std: standard deviation within an input, mean over images; 0 for flat images.
        variance: variance over the targets, mean over pixels; 0 if all are the same image.
        distinct: share of inputs that differ from every earlier one, above 0 to 1.
        pair: mean (x_i - t_i)² / mean (x_i - t_(i+1))²; 0 if targets are the inputs, about 1 if they are
            those of other images, NaN if the denominator is 0.
        correlation: `neighbour_correlation` of x: about 0 for white noise, 0.86 on Fashion-MNIST.
        difference_correlation: the same of x - t: about 0 for white noise on the input, as in denoising;
            NaN where they are equal.
    """

    input_low: float
    input_high: float
    target_low: float
    target_high: float
    image_std: float
    variance: float
    distinct: float
    pair: float
    correlation: float
    difference_correlation: float


def batches(inputs: Array, targets: Array) -> BatchStatistics:
    """Measures inputs and targets.

    Args:
        inputs: (n, h, w, c).
        targets: of the same shape, in the same order.
    """
    others = np.roll(targets, -1, axis=0)
    error, other_error = (float(np.square(inputs - t).mean(dtype=np.float64)) for t in (targets, others))
    return BatchStatistics(
        input_low=float(inputs.min()),
        input_high=float(inputs.max()),
        target_low=float(targets.min()),
        target_high=float(targets.max()),
        image_std=float(inputs.std(axis=(1, 2, 3), dtype=np.float64).mean()),
        variance=float(targets.var(axis=0, dtype=np.float64).mean()),
        distinct=len({image.tobytes() for image in inputs}) / len(inputs),
        pair=error / other_error if other_error else float("nan"),
        correlation=neighbour_correlation(inputs),
        difference_correlation=neighbour_correlation(inputs - targets),
    )


def neighbour_correlation(images: Array) -> float:
    """Lag-1 autocorrelation of images (n, h, w, c): mean of that of vertical and horizontal neighbours.

    Pearson correlation of all pairs after each channel of each image lost its own mean, so that neither
    brightness nor a tint counts as structure. -1 to 1; NaN for flat images and sides of one pixel.
    """
    images64 = images.astype(np.float64)
    centred = images64 - images64.mean(axis=(1, 2), keepdims=True)
    floor = ROUNDING * float(np.square(images64).mean())
    vertical = _pearson(centred[:, :-1], centred[:, 1:], floor)
    horizontal = _pearson(centred[:, :, :-1], centred[:, :, 1:], floor)
    return (vertical + horizontal) / 2


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64], floor: float) -> float:
    """Correlation of all values of two arrays; NaN if one of them varies by no more than ``floor``."""
    if not a.size:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    variances = float(np.square(a).mean()), float(np.square(b).mean())
    if min(variances) <= floor:
        return float("nan")
    return float((a * b).mean() / np.sqrt(variances[0] * variances[1]))
