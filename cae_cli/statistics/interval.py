"""Means over few seeds and shares of few cases, with 95 % confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean, or a mean difference, over seeds.

    Attributes:
        value: the mean; NaN if there is no value.
        std: standard deviation of the values; NaN for fewer than two.
        margin: half the width of the 95 % confidence interval; NaN for fewer than two values.
        n: how many values.
    """

    value: float
    std: float
    margin: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; False for fewer than two values."""
        return abs(self.value) > self.margin


def interval(values: ArrayLike) -> Interval:
    """Mean of values and its 95 % confidence interval by Student's t: t(0.975, n - 1) s / √n.

    Args:
        values: (n,); those that are not finite count as missing.
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    n = len(known)
    if n < 2:
        return Interval(float(known[0]) if n else math.nan, math.nan, math.nan, n)
    from scipy.special import stdtrit  # 0.1 s: not for `cae --help`

    std = float(known.std(ddof=1))
    t = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    return Interval(float(known.mean()), std, t * std / math.sqrt(n), n)


def wilson(count: int, of: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share by Wilson's score (JASA 1927), within [0, 1].

    Args:
        count: how many, 0 to ``of``.
        of: of how many.

    Returns:
        Both ends; (0, 1) for ``of`` = 0.
    """
    if not of:
        return 0.0, 1.0
    from scipy.stats import binomtest

    found = binomtest(count, of).proportion_ci(CONFIDENCE, "wilson")
    return float(found.low), float(found.high)
