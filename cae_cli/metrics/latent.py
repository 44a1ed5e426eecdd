"""The latent code: how many of its values are in use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.metrics.maps import INACTIVE_SHARE, INACTIVE_SPREAD

Array = NDArray[np.float32]

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
    """

    values: int
    effective_rank: float
    participation: float
    dead: float


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
