"""One number for how meaningful filters are, with its parts shown."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A score of meaningfulness, and what it is the product of; all 0 to 1, NaN if not measured.

    Blind to memorising: the gap to the training images is to be shown beside it. It is harsh on
    networks trained for SSIM, which trade squared error for it.

    Attributes:
        value: learned x used x alive x selective.
        learned: share of what the anchor leaves unexplained that the network explains. The anchor is
            the same network with a frozen encoder where that was tried, else the mean image.
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
    """Puts the score together.

    Args:
        explained: explained variance of held-out images.
        base: that of the anchor, below 1.
        latent_swap: see `metrics.perturbation.Causal`.
        pixel_copy: the same.
        inactive: share of inactive maps in the worst layer.
    """

    def clip(value: float) -> float:
        return math.nan if math.isnan(value) else min(max(value, 0.0), 1.0)

    learned = clip((explained - base) / (1 - base)) if base < 1 else math.nan
    used, alive, selective = clip(latent_swap), 1 - clip(inactive), 1 - clip(pixel_copy)
    return Score(learned * used * alive * selective, learned, used, alive, selective)
