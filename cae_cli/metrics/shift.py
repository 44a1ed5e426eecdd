"""Whether held-out images are like the training images: range, brightness, contrast, detail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MARGIN = 0.05  # of the range of the training images: a value that far outside is not of their scale
DEVIATIONS = 3.0  # of what two parts of one data set differ by chance


@dataclass(frozen=True)
class Shift:
    """Held-out images next to training images.

    Attributes:
        beyond: share of held-out images with values outside the range of the training images, 0 to 1.
        filled: width of the range of the held-out images over that of the training images; about 1.
        brightness: share of pairs whose held-out image is the brighter one, 0 to 1; 0.5 for images of
            one kind, and as far from it as differences by chance do not reach.
        contrast: the same for the standard deviation within an image.
        detail: the same for the mean difference of neighbouring pixels over that deviation.
    """

    beyond: float
    filled: float
    brightness: float
    contrast: float
    detail: float


def shift(train: Array, held_out: Array) -> Shift:
    """Compares training images (n, h, w, c) with held-out images (m, h, w, c); NaN for flat sets.

    Every image counts as one, so a few unusual ones do not matter. Held-out patches of one photograph
    that is in no training patch have 0.13 to 0.88 in brightness, contrast and detail.
    """
    low, high = float(train.min()), float(train.max())
    width = high - low
    pixels = held_out.reshape(len(held_out), -1)
    outside = (pixels < low - MARGIN * width).any(axis=1) | (pixels > high + MARGIN * width).any(axis=1)
    pairs = zip(_kind(train), _kind(held_out), strict=True)
    return Shift(
        float(outside.mean()),
        (float(held_out.max()) - float(held_out.min())) / width if width else float("nan"),
        *(_larger(ours, theirs) for ours, theirs in pairs),
    )


def _kind(images: Array) -> tuple[NDArray[np.float64], ...]:
    """Brightness, contrast and relative detail of each image, each (n,)."""
    pixels = images.reshape(len(images), -1)
    contrast = pixels.std(axis=1, dtype=np.float64)
    square = sum(
        np.square(np.diff(images, axis=axis)).mean(axis=(1, 2, 3), dtype=np.float64)
        for axis in (1, 2)
        if images.shape[axis] > 1
    )
    detail = np.sqrt(square) / np.where(contrast > 0, contrast, 1)
    return pixels.mean(axis=1, dtype=np.float64), contrast, np.broadcast_to(detail, contrast.shape)


def _larger(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Share of pairs with a larger value in b, 0 to 1, drawn to 0.5 by what is chance.

    The standard deviation is that of the statistic of Mann and Whitney (1947) without a difference.
    """
    ordered = np.sort(a)
    below = np.searchsorted(ordered, b, "left") + np.searchsorted(ordered, b, "right")
    share = float(below.mean()) / (2 * len(a)) - 0.5
    chance = DEVIATIONS * np.sqrt((len(a) + len(b) + 1) / (12 * len(a) * len(b)))
    return float(0.5 + np.sign(share) * max(0.0, abs(share) - chance))
