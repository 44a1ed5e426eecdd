"""How well a score tells two kinds apart: the area under the ROC curve, with its interval.

The area is the share of pairs, one of each kind, in which the second kind has the higher score (Mann,
Whitney 1947); a tie is half a pair. Its variance, and that of the difference of two scores of the same
images, are those of DeLong, DeLong, Clarke-Pearson, "Comparing the areas under two or more correlated
receiver operating characteristic curves", Biometrics 44(3), 1988.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cae_cli.statistics.interval import CONFIDENCE, wilson

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Auroc:
    """An area under the ROC curve.

    Attributes:
        value: 0 to 1; 0.5 is chance.
        low, high: the 95 % confidence interval.
    """

    value: float
    low: float
    high: float


def auroc(normal: ArrayLike, others: ArrayLike) -> Auroc:
    """The area under the ROC curve of a score that is to be higher for the others.

    Args:
        normal: (n,) scores, n at least 1; NaN counts as the highest.
        others: (m,), m at least 1.

    Returns:
        The interval is that of DeLong's variance on the scale of the logit. Where the scores do not
        overlap, it is Wilson's for as many successes as the smaller kind has images.
    """
    placed = _placed(normal, others)
    value = float(placed[1].mean())
    if value in (0.0, 1.0):
        fewer = min(map(len, placed))
        return Auroc(value, *wilson(round(value * fewer), fewer))
    spread = _normal_quantile() * math.sqrt(_variance(placed)) / (value * (1 - value))
    logit = math.log(value / (1 - value))
    from scipy.special import expit

    return Auroc(value, float(expit(logit - spread)), float(expit(logit + spread)))


def difference(
    normal: tuple[ArrayLike, ArrayLike], others: tuple[ArrayLike, ArrayLike]
) -> tuple[float, float]:
    """How much more the first of two scores of the same images reaches, and half the 95 % interval.

    Args:
        normal: both scores of the n normal images.
        others: both scores of the m others.
    """
    (a0, a1), (b0, b1) = (_placed(*pair) for pair in zip(normal, others, strict=True))
    return float(a1.mean() - b1.mean()), _normal_quantile() * math.sqrt(_variance((a0 - b0, a1 - b1)))


def _placed(normal: ArrayLike, others: ArrayLike) -> tuple[Array, Array]:
    """Of each normal image the share of others above it, and of each other that of normal ones below."""
    lower, upper = (np.nan_to_num(np.asarray(x, np.float64), nan=np.inf) for x in (normal, others))
    return 1 - _below(upper, lower), _below(lower, upper)


def _below(ones: Array, values: Array) -> Array:
    """Of each value the share of the ones below it; equal ones count half."""
    ranked = np.sort(ones)
    left, right = (np.searchsorted(ranked, values, side) for side in ("left", "right"))
    return np.asarray((left + right) / (2 * len(ones)), np.float64)


def _variance(placed: tuple[Array, Array]) -> float:
    return sum(float(x.var(ddof=1)) / len(x) if len(x) > 1 else 0.25 for x in placed)


def _normal_quantile() -> float:
    from scipy.special import ndtri  # 0.1 s: not for `cae --help`

    return float(ndtri((1 + CONFIDENCE) / 2))
