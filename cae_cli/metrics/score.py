"""One number for how meaningful filters are, and its factors."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A score of meaningfulness and its factors; all 0 to 1, NaN if not measured.

    Memorising does not lower it, and it is low for networks trained for SSIM, which trade squared error.

    Attributes:
        value: learned x used x alive x selective.
        learned: share of what the baseline leaves unexplained that the network explains. The baseline is
            the best of the mean image, a flat image of the right mean grey, and the same network with a
            frozen encoder where that was trained.
        used: how far the output follows the latent code.
        alive: one minus the share of inactive maps in the worst layer.
        selective: one minus the share of scrambled pixels that are copied.
    """

    value: float
    learned: float
    used: float
    alive: float
    selective: float


def score(
    *, explained: float, base: float, latent_swap: float, pixel_copy: float, inactive: float
) -> Score:
    """Computes the score.

    Args:
        explained: explained variance of held-out images.
        base: that of the baseline, below 1.
        latent_swap: see `metrics.perturbation.Perturbation`.
        pixel_copy: the same.
        inactive: share of inactive maps in the worst layer.
    """

    def clip(value: float) -> float:
        return math.nan if math.isnan(value) else min(max(value, 0.0), 1.0)

    learned = clip((explained - base) / (1 - base)) if base < 1 else math.nan
    used, alive, selective = clip(latent_swap), 1 - clip(inactive), 1 - clip(pixel_copy)
    return Score(learned * used * alive * selective, learned, used, alive, selective)
