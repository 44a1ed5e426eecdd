"""The latent code: how many of its values are in use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.metrics.maps import INACTIVE_SHARE, INACTIVE_SPREAD

Array = NDArray[np.float32]

ALIKE = 0.3  # correlation of two draws of a value that depends on the image
CHANCE = 3.0  # over the root of the number of images: a correlation that chance does not reach
ROUNDING = 1e-6  # eigenvalues below this share of the largest are rounding (single precision)


@dataclass(frozen=True)
class LatentUse:
    """Use of a latent code of d values by n images; NaN for one image or a constant code.

    The dimensions are those of the covariance, at most min(d, n - 1): compare them only for equal n.

    Attributes:
        values: d.
        effective_rank: exp(entropy of the normalised eigenvalues), 1 to d. Roy, Vetterli, "The effective
            rank", EUSIPCO 2007.
        participation: (sum of the eigenvalues)² / sum of their squares, 1 to the effective rank.
        dead: share of values whose standard deviation over images is below 1 % of the median value's, or
            below 1e-5; 0 to 1.
        informative: of a latent code that is drawn at random, the share of values that are alike when
            the same image is encoded twice, see `informative`; NaN of one that is not drawn.
    """

    values: int
    effective_rank: float
    participation: float
    dead: float
    informative: float = float("nan")


def latent_use(latents: Array) -> LatentUse:
    """Measures latent codes (n, ...), one per image."""
    n = len(latents)
    flat = latents.reshape(n, -1)  # (n, d)
    values = flat.shape[1]
    unknown = float("nan")
    if n < 2 or not np.isfinite(flat).all():
        return LatentUse(values, unknown, unknown, unknown)
    # Latent codes of a diverged network may be too large to be squared; no result depends on the scale.
    scale = max(1.0, float(np.abs(flat).max()))
    flat = (flat / scale).astype(np.float32)
    centred = flat - flat.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = np.sqrt(np.square(centred).mean(axis=0)) * scale
    dead = float((std < max(INACTIVE_SPREAD, INACTIVE_SHARE * float(np.median(std)))).mean())
    # Covariance and Gram matrix have the same eigenvalues but zeros: the smaller one is cheap.
    small = centred.T @ centred if values <= n else centred @ centred.T
    eigenvalues = np.linalg.eigvalsh(small.astype(np.float64))
    eigenvalues = eigenvalues[eigenvalues > ROUNDING * eigenvalues[-1]]  # ascending
    if std.max() < INACTIVE_SPREAD or not len(eigenvalues):
        return LatentUse(values, unknown, unknown, dead)
    share = eigenvalues / eigenvalues.sum()
    return LatentUse(
        values=values,
        effective_rank=float(np.exp(-(share * np.log(share)).sum())),
        participation=float(1 / np.square(share).sum()),
        dead=dead,
    )


def informative(first: Array, second: Array) -> float:
    """Share of latent values that tell images apart, 0 to 1, from two draws of the same images.

    Those whose correlation between the draws is above `ALIKE`, and above what chance gives with so few
    images. A value whose posterior is the prior has 0 whatever its variance. NaN if both draws are
    equal, or are not finite.

    Args:
        first: (n, ...) latent codes.
        second: of the same images.
    """
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (first, second))
    if np.array_equal(a, b) or not np.isfinite(a + b).all():
        return float("nan")
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt(np.square(a).mean(axis=0) * np.square(b).mean(axis=0))
    correlation = (a * b).mean(axis=0) / np.where(size > 0, size, 1)
    return float((correlation > max(ALIKE, CHANCE / np.sqrt(len(a)))).mean())
