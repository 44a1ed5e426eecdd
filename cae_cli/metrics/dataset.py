"""Statistics of the images, which need no network."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.metrics.batches import batches
from cae_cli.metrics.noise import noisy_part
from cae_cli.metrics.reading import reading
from cae_cli.metrics.shift import shift

Array = NDArray[np.float32]

SAMPLED = 4096  # most images that are measured
MOST_VALUES = 2**23  # most pixels of them


def sample_size(shape: tuple[int, ...]) -> int:
    """How many images of a shape are measured, so that large ones fit into memory."""
    return int(np.clip(MOST_VALUES // int(np.prod(shape)), 16, SAMPLED))


@dataclass(frozen=True)
class DatasetStatistics:
    """The images as the training receives them.

    Attributes:
        train, held_out: number of training images and of held-out images.
        low, high: smallest and largest value.
        black: explained variance of a black image, 1 - E[t²]/V; 0 if black is as good as the mean image.
            -1.4 for Fashion-MNIST, -0.6 for MNIST, -0.3 for Omniglot.
        variance: V, mean over pixels of the variance over images.
        image_std: mean standard deviation within an image.
        flat: share of images without any contrast.
        distinct: share of training images that differ from every earlier one.
        repeated: share of held-out images that are among the training images.
        correlation: `metrics.batches.neighbour_correlation` of the training images.
        beyond, filled, brightness, contrast, detail: `metrics.shift.Shift` of the held-out images; NaN
            for runs of older versions.
        mistake, smoothness, roughness: `metrics.reading.Reading` of the training images.
        noisy, examples: `metrics.noise.NoisyPart` of the training images.
        train_groups, held_out_groups: number of files that these images are patches or frames of; 0
            where each image stands for itself.
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
    beyond: float = math.nan
    filled: float = math.nan
    brightness: float = math.nan
    contrast: float = math.nan
    detail: float = math.nan
    mistake: str = "unknown"
    smoothness: float = math.nan
    roughness: float = math.nan
    noisy: float = math.nan
    examples: str = ""
    train_groups: int = 0
    held_out_groups: int = 0


def repeats(train: NDArray[np.generic], held_out: NDArray[np.generic]) -> float:
    """Share of held-out images (m, h, w, c) that are identical to one of the training images, 0 to 1."""
    known = {_digest(image) for image in train}
    return float(np.mean([_digest(image) in known for image in held_out]))


def dataset(
    train: Array,
    held_out: Array,
    *,
    counts: tuple[int, int] | None = None,
    repeated: float | None = None,
    groups: tuple[int, int] = (0, 0),
) -> DatasetStatistics:
    """Measures images of each part.

    Args:
        train: (n, h, w, c); `sample_size` of them are enough.
        held_out: (m, h, w, c).
        counts: number of all training and held-out images; None: n and m.
        repeated: `repeats` of all images; None: of the given ones.
        groups: of training and held-out images, see `DatasetStatistics`.
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
        train_groups=groups[0],
        held_out_groups=groups[1],
        **asdict(shift(train, held_out)),
        **asdict(reading(train)),
        **asdict(noisy_part(train)),
    )


def _digest(image: NDArray[np.generic]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
