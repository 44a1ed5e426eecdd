"""What the images are like, before any network sees them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.metrics.batches import batches

Array = NDArray[np.float32]

SAMPLED = 4096  # images that are looked at, at most
MOST_VALUES = 2**23  # pixels of them, at most


def sample_size(shape: tuple[int, ...]) -> int:
    """How many images of a shape are looked at, so that large ones fit into memory."""
    return int(np.clip(MOST_VALUES // int(np.prod(shape)), 16, SAMPLED))


@dataclass(frozen=True)
class DatasetStatistics:
    """The images as they are handed to the training.

    Attributes:
        train: number of training images.
        held_out: number of images that are measured.
        low, high: smallest and largest value.
        black: explained variance of a black image, 1 - E[t²]/V: 0 would mean that black is as good
            an answer as the mean image. -1.4 for Fashion-MNIST, -.6 for MNIST, -.3 for Omniglot.
        variance: V, mean over pixels of the variance over images.
        image_std: mean standard deviation within an image.
        flat: share of images without any contrast.
        distinct: share of training images that differ from every earlier one.
        repeated: share of held-out images that are among the training images.
        correlation: lag-1 autocorrelation within images, see `metrics.batches.Fed`.
    """

    train: int
    held_out: int
    low: float
    high: float
    black: float
    variance: float
    image_std: float
    flat: float
    distinct: float
    repeated: float
    correlation: float


def repeats(train: NDArray[np.generic], held_out: NDArray[np.generic]) -> float:
    """Share of held-out images that equal a training image to the bit, 0 to 1.

    Args:
        train: (n, h, w, c), all of them.
        held_out: (m, h, w, c), of the same type.
    """
    wanted = [_digest(image) for image in held_out]
    found = {_digest(image) for image in train} & set(wanted)
    return float(np.mean([digest in found for digest in wanted]))


def dataset(
    train: Array,
    held_out: Array,
    *,
    counts: tuple[int, int] | None = None,
    repeated: float | None = None,
) -> DatasetStatistics:
    """Looks at images of each part.

    Args:
        train: (n, h, w, c), at most `surveyed` are needed.
        held_out: (m, h, w, c).
        counts: how many there are in all; None: as many as are given.
        repeated: `repeats` of all of them; None: of those that are given.
    """
    whole = counts or (len(train), len(held_out))
    as_batches = batches(train, train)
    seen = {_digest(image) for image in train}
    square = float(np.mean(np.square(train), dtype=np.float64))
    spread = train.reshape(len(train), -1).std(axis=1)
    return DatasetStatistics(
        train=whole[0],
        held_out=whole[1],
        low=as_batches.target_low,
        high=as_batches.target_high,
        black=1 - square / as_batches.variance if as_batches.variance else float("nan"),
        variance=as_batches.variance,
        image_std=as_batches.image_std,
        flat=float((spread < 1e-6).mean()),
        distinct=len(seen) / len(train),
        repeated=repeats(train, held_out) if repeated is None else repeated,
        correlation=as_batches.correlation,
    )


def _digest(image: NDArray[np.generic]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
