"""Whether a training lost again what it had gained: what a rate does that is too high only later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 4  # losses that are averaged: one batch is easier than another
NOISE = 3.0  # times the usual change from loss to loss: a smaller fall may be none


@dataclass(frozen=True)
class LossSpike:
    """The worst relapse of a training.

    Attributes:
        share: of what had been gained until then that was lost again; 1: all of it. NaN where nothing
            was gained, or nobody watched.
        at: share of the training that was over when all was lost for the first time, 0 to 1; where
            that never happened, when most was.
    """

    share: float
    at: float


NOWHERE = LossSpike(float("nan"), float("nan"))


def loss_spike(losses: NDArray[Any]) -> LossSpike:
    """The largest rise of the loss above its lowest value so far, over its fall until then.

    max over t of (l(t) - m(t)) / (l(0) - m(t)), m(t) = min of l up to t, where that fall is more than
    `NOISE` times the median change from one loss to the next; l are means of `WINDOW` losses. Losses
    with a floor (cross-entropy of grey images) and without are measured alike.

    Args:
        losses: (s,) data losses in order.

    Returns:
        `NOWHERE` if there are too few, one is not finite, or the loss never fell by so much. Healthy
        trainings may lose all of the little that they gained in their first steps.
    """
    values = np.asarray(losses, np.float64)
    if len(values) < 2 * WINDOW or not np.isfinite(values).all():
        return NOWHERE
    smooth = np.convolve(values, np.full(WINDOW, 1 / WINDOW), "valid")
    lowest = np.minimum.accumulate(smooth)
    gained = smooth[0] - lowest
    counts = gained > NOISE * np.median(np.abs(np.diff(values)))
    if not counts.any():
        return NOWHERE
    shares = np.where(counts, (smooth - lowest) / np.where(counts, gained, 1.0), -np.inf)
    all_lost = np.flatnonzero(shares >= 1)
    at = int(all_lost[0]) if len(all_lost) else int(shares.argmax())
    return LossSpike(float(shares.max()), (at + WINDOW) / len(values))
