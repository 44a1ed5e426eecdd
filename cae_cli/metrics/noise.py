"""Noise image by image: whether a part of the images is noisy and the others are not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Numbers = NDArray[np.float64]

SMALLEST = 12  # pixels of a side; in smaller images neighbours are a stroke apart
BLOCK = 4  # pixels of a side of the parts whose fine detail is compared
AT_ONCE = 2**20  # values that are measured at once

# Noise that separates two groups, as a share of the contrast; clean images of real data sets have up to
# 0.3, but for textures at full resolution.
LEVELS = np.geomspace(0.3, 1, 12)
LEAST = 0.045  # share of the images on each side
FEWEST = 8  # images on each side
GAP = 1.5  # of the noise, within which there are few images
RARE = 4.0  # times as many images on each side of the gap as in it
SPREAD = 1.7  # 90th over 10th percentile of the noisy ones; textures vary more than added noise
SHOWN = 5  # noisy images that are named


@dataclass(frozen=True)
class NoisyPart:
    """Images that are noisy beside others that are not.

    Attributes:
        noisy: share of the images that are far noisier than the rest; 0 where there are no two groups,
            NaN where the images are too small or too few to tell.
        examples: places of the first noisy ones among the images, as text: "3, 17, 42".
    """

    noisy: float = float("nan")
    examples: str = ""


def noisy_part(images: Array) -> NoisyPart:
    """Finds the noisy images among some (n, h, w, c)."""
    if min(images.shape[1:3]) < SMALLEST or len(images) < 2 * FEWEST:
        return NoisyPart()
    noise = noise_of(images)
    for level in LEVELS:
        above, below = noise[noise > level], int((noise <= level / GAP).sum())
        within, fewer = len(noise) - len(above) - below, min(len(above), below)
        if fewer < max(FEWEST, LEAST * len(noise)) or fewer < RARE * within:
            continue
        low, high = np.quantile(above, (0.1, 0.9))
        if high < SPREAD * low:
            shown = np.flatnonzero(noise > level)[:SHOWN]
            return NoisyPart(len(above) / len(noise), ", ".join(map(str, shown)))
    return NoisyPart(0.0)


def noise_of(images: Array) -> Numbers:
    """Standard deviation (n,) of the white noise of each image, over the contrast within images.

    The smaller one of two estimates, each of which takes some images for noisy that are not:

    - what neighbours do not share: the variance minus what the covariances at one and at two pixels
      give at none. Thin strokes have some, but only where they are.
    - the second differences in both directions, in the median part of the image. Regular textures have
      some, but their neighbours predict each other.

    Args:
        images: (n, h, w, c) of 6x6 pixels at least.
    """
    size = max(1, AT_ONCE // int(np.prod(images.shape[1:])))
    parts = [_variances(images[i : i + size]) for i in range(0, len(images), size)]
    variance, noise = (np.concatenate(part) for part in zip(*parts, strict=True))
    contrast = float(variance.mean())
    return np.asarray(np.sqrt(noise / contrast) if contrast else noise)


def _variances(images: Array) -> tuple[Numbers, Numbers]:
    """Variance within each image, and that of its noise, both (n,)."""
    x = images.astype(np.float64)
    centred = x - x.mean(axis=(1, 2), keepdims=True)  # (n, h, w, c)
    variance, near, far = (_covariance(centred, lag) for lag in (0, 1, 2))
    unshared = np.maximum(variance - (2 * near - far), 0)
    second = np.diff(np.diff(x, n=2, axis=1), n=2, axis=2)
    square = np.square(second).mean(axis=3) / 36  # (1 + 4 + 1)², the variance that white noise gains
    n, h, w = (len(x), *(side // BLOCK for side in square.shape[1:]))
    parts = square[:, : h * BLOCK, : w * BLOCK].reshape(n, h, BLOCK, w, BLOCK).mean(axis=(2, 4))
    return variance, np.minimum(unshared, np.median(parts.reshape(n, -1), axis=1))


def _covariance(centred: Numbers, lag: int) -> Numbers:
    """Mean product (n,) of pixels that are ``lag`` apart, vertically and horizontally."""
    h, w = centred.shape[1:3]
    down = (centred[:, lag:] * centred[:, : h - lag]).mean(axis=(1, 2, 3))
    right = (centred[:, :, lag:] * centred[:, :, : w - lag]).mean(axis=(1, 2, 3))
    return np.asarray((down + right) / 2)
