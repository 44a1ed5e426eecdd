"""Means of few values, and shares of few cases, with the interval that is left open."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean, or a difference, over seeds.

    Attributes:
        value: the mean; NaN if there is no value.
        std: standard deviation of the values; NaN for fewer than two.
        margin: half the width of the 95 % confidence interval; NaN for fewer than two values, whose
            spread nobody knows.
        n: how many values.
    """

    value: float
    std: float
    margin: float
    n: int

    @property
    def is_told(self) -> bool:
        """Whether the interval leaves out 0; False where it is not known."""
        return abs(self.value) > self.margin


def interval(values: ArrayLike, comparisons: int = 1) -> Interval:
    """Mean of values and its 95 % confidence interval, by Student's t.

    margin = t(1 - .05 / 2m, n - 1) s / √n; m = 1, or the number of intervals that are to hold all at
    once (Bonferroni).

    Args:
        values: (n,); those that are not finite count as missing.
        comparisons: m.
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    n = len(known)
    if n < 2:
        return Interval(float(known[0]) if n else math.nan, math.nan, math.nan, n)
    std = float(known.std(ddof=1))
    t = t_quantile(1 - (1 - CONFIDENCE) / max(1, comparisons), n - 1)
    return Interval(float(known.mean()), std, t * std / math.sqrt(n), n)


NORMAL = (
    1.959964  # the standard normal distribution stays within it, on both sides of 0, 95 % of the time
)


def wilson(count: int, of: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share, by Wilson's score.

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.96. Unlike the normal interval it stays
    within [0, 1], and says something where the share is 0 or 1: 0 of 60 is 0 to 6 %. (Wilson, Probable
    inference, the law of succession, and statistical inference, JASA 1927.)

    Args:
        count: how many, 0 to ``of``.
        of: of how many.

    Returns:
        Both ends; (0, 1) of nothing.
    """
    if not of:
        return 0.0, 1.0
    share, square = count / of, NORMAL**2
    middle = share + square / (2 * of)
    margin = NORMAL * math.sqrt(share * (1 - share) / of + square / (4 * of**2))
    whole = 1 + square / of
    low = 0.0 if count == 0 else (middle - margin) / whole  # rounding leaves 1e-18
    return low, 1.0 if count == of else (middle + margin) / whole


@cache
def t_quantile(inside: float, freedom: int) -> float:
    """The t that Student's distribution stays within, on both sides of 0.

    Found by bisection of the finite sums for whole degrees of freedom in Abramowitz and Stegun,
    Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

    Args:
        inside: probability of -t to t, in (0, 1).
        freedom: degrees of freedom, at least 1.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        if _within(middle, freedom) < inside:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """Probability of -t to t, for t = √freedom tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    if freedom == 1:
        return 2 * angle / math.pi
    term = total = cosine if odd else 1.0
    for k in range(2 + odd, freedom, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
