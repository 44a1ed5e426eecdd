"""Loss spikes: whether a training lost again what it had gained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 4  # losses that are averaged: one batch is easier than another
NOISE = 3.0  # times the median change from loss to loss: a smaller fall may be noise


@dataclass(frozen=True)
class LossSpike:
    """The largest loss spike of a training.

    Attributes:
        share: of the fall of the loss until then that was lost again; 1: all of it. NaN where the loss
            did not fall, or was not recorded.
        at: share of the training until all was lost for the first time, else until most was; 0 to 1.
    """

    share: float
    at: float


NOWHERE = LossSpike(float("nan"), float("nan"))


def loss_spike(losses: NDArray[Any]) -> LossSpike:
    """The largest rise of the loss above its lowest value so far, over its fall until then.

    max over t of (l(t) - m(t)) / (l(0) - m(t)), m(t) = min of l up to t, where that fall is more than
    `NOISE` times the median change from one loss to the next; l are means of `WINDOW` losses. Healthy
    trainings may lose all of the little that they gained in their first steps.

    Args:
        losses: (s,) data losses in order. Too few, one that is not finite or no fall give `NOWHERE`.
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
