"""Whether the first batches were mixed: images of one batch resemble each other no more than others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

FEWEST, MOST = (
    16,
    32,
)  # consecutive images that are compared: smaller batches are joined, larger ones cut
MOST_PAIRED = 512  # images drawn at random whose products are computed


@dataclass(frozen=True)
class BatchOrder:
    """Groups of m consecutive images of the first batches, next to images drawn at random.

    Attributes:
        images: m, 16 to 32; fewer only if fewer were seen.
        inflation: variance of the mean of m consecutive images over that of m images drawn at random; 1
            where the images were mixed, at most m. A batch that is 4 tells as much as a mixed one of a
            quarter of its size.
        chance: standard deviation of ``inflation`` where the images were mixed.
    """

    images: int
    inflation: float
    chance: float


def batch_order(batches: Sequence[Array], sample: Array) -> BatchOrder | None:
    """Measures the order of the images in the first batches.

    Args:
        batches: consecutive ones, each (b, h, w, c).
        sample: (n, h, w, c) images of the same data set, drawn at random.

    Returns:
        None where there is nothing to compare: other shapes, fewer than two images, or no variance.

    The mean correlation r of two images of a group, after the mean of the data set was subtracted, gives
    the inflation 1 + (m - 1) r. Augmentation moves the mean of all images, which looks like a
    correlation; but images that are alike vary less than the data set, and augmented ones do not. So r
    is at most the share of the variance that is missing within the groups.
    """
    images = np.concatenate(batches)
    size = min(len(images), int(np.clip(len(batches[0]), FEWEST, MOST)))
    if size < 2 or len(sample) < 2 or images.shape[1:] != sample.shape[1:]:
        return None
    count = len(images) // size
    mean = sample.mean(axis=0, dtype=np.float64)
    centred = (sample - mean).reshape(len(sample), -1)
    groups = (images[: count * size] - mean).reshape(count, size, -1)
    variance = float(np.square(centred).sum() / (len(sample) - 1))
    total = float(np.square(groups).sum() / (count * size))
    if not variance > 0 or not total > 0:
        return None
    shared = float((np.square(groups.sum(axis=1)).sum() - np.square(groups).sum()) / (count * size))
    shared /= size - 1  # mean product of two images of a group
    alike = min(shared / total, 1 - (total - shared) / variance)
    # Products of pairs of independent images are uncorrelated, so their mean varies like 1 / pairs.
    some = centred[:: -(-len(centred) // MOST_PAIRED)]
    products = np.square(some @ some.T)
    square = (products.sum() - np.trace(products)) / (len(some) * (len(some) - 1))
    of_pairs = np.sqrt(square / (count * size * (size - 1) / 2)) / variance
    of_mean = 1 / len(sample)  # the mean of the data set is known from the sample only
    chance = (size - 1) * float(np.hypot(of_pairs, of_mean))
    return BatchOrder(size, 1 + (size - 1) * alike, chance)
