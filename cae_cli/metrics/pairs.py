"""Inputs and targets pair by pair: whether the target of an input is another image's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_PAIRS, MOST_OTHERS = 512, 128  # pairs that are judged, and targets that each is compared with
MOST_VALUES = 4096  # of an image, evenly spread
FEWEST_VALUES = 16  # of an image, that no mask hides
FEWEST_PAIRS = 32
FAR = 0.1  # share of the other targets that fit better, above which a target is another image's
ROUNDING = 1e-6  # of correlations and squared differences: targets that are equal

# What hides a part of the input: one of its commonest values, where the target has others.
COMMONEST = 3
LEAST_HIDDEN, LEAST_SHOWN = 0.02, 0.02  # share of all values
HIDES = 0.5  # standard deviation of the hidden targets, over that of all: more than a background has


@dataclass(frozen=True)
class PairMatch:
    """Pairs, each compared with targets of other pairs.

    Attributes:
        compared: number of pairs; the shares are NaN below `FEWEST_PAIRS`.
        foreign: share of the pairs whose input fits more than a tenth of the other targets better than
            its own, 0 to 1. About 0.9 where pairs were shuffled; 0 where inputs are noisy, masked,
            blurred or of another range.
        unclear: the same for one other target or more, but at most a tenth: what the input shows of its
            target is little.
    """

    compared: int = 0
    foreign: float = float("nan")
    unclear: float = float("nan")

    @property
    def matched(self) -> float:
        """Share of the pairs whose own target fits best, 0 to 1."""
        return 1 - self.foreign - self.unclear


def shown(inputs: Array, targets: Array) -> Mask:
    """Which values of the inputs no mask hides, of the shape of the inputs."""
    left = np.ones(inputs.shape, np.bool_)
    values, counts = np.unique(inputs, return_counts=True)
    spread = float(targets.std(dtype=np.float64))
    for number in np.argsort(counts)[: -COMMONEST - 1 : -1]:
        hidden = inputs == values[number]
        others = left & ~hidden
        is_common = counts[number] >= LEAST_HIDDEN * inputs.size
        if not is_common or others.mean() < LEAST_SHOWN or not np.ptp(inputs[others]):
            continue
        if targets[hidden].std(dtype=np.float64) > HIDES * spread:
            left = others
    return left


def pair_match(inputs: Array, targets: Array, visible: Mask) -> PairMatch:
    """Compares inputs with their own targets and with those of others.

    A target fits better only if it does so by its correlation and by its squared difference: the first
    one ignores brightness and contrast, the second one knows flat images by them.

    Args:
        inputs: (n, h, w, c), in the range of the targets.
        targets: of the same shape.
        visible: as `shown` gives it.
    """
    chosen = np.linspace(0, len(inputs) - 1, min(len(inputs), MOST_PAIRS)).astype(int)
    n, (h, w, c) = len(chosen), inputs.shape[1:]
    every = -(-h * w * c // MOST_VALUES)
    x, t, m = (
        part[chosen].reshape(n, h * w, c)[:, ::every].transpose(2, 0, 1).astype(np.float64)
        for part in (inputs, targets, visible)
    )  # (c, n, values)
    others = np.random.default_rng(0).permutation(n)[:MOST_OTHERS]
    correlation, difference = _fit(x, t, m, lambda a, b: (a * b).sum(axis=1, keepdims=True))
    correlations, differences = _fit(x, t[:, others], m, lambda a, b: a @ b.T)
    sign = float(np.sign(np.median(correlation))) or 1.0  # of inverted targets it is negative
    better = sign * correlations > sign * correlation + ROUNDING
    better &= differences < difference * (1 - ROUNDING) - ROUNDING
    is_other = np.arange(n)[:, None] != others
    rank = (better & is_other).sum(axis=1) / is_other.sum(axis=1)
    rank = rank[m.sum(axis=(0, 2)) >= FEWEST_VALUES]
    if len(rank) < FEWEST_PAIRS:
        return PairMatch(len(rank))
    far = rank > FAR
    return PairMatch(len(rank), float(far.mean()), float(((rank > 0) & ~far).mean()))


def _fit(
    x: Numbers, t: Numbers, visible: Numbers, dot: Callable[[Numbers, Numbers], Numbers]
) -> tuple[Numbers, Numbers]:
    """Correlation and squared difference of inputs and targets, over what is visible of the input.

    Each channel loses its own mean before it is correlated.

    Args:
        x: (c, n, values).
        t: (c, k, values).
        visible: (c, n, values), 0 or 1.
        dot: (n, values), (k, values) -> sums of products; (n, k), or (n, 1) of each row with its own.
    """
    shared, of_x, of_t, difference = (np.zeros(()) for _ in range(4))
    for x_, t_, m in zip(x, t, visible, strict=True):
        count = np.maximum(m.sum(axis=1, keepdims=True), 1)
        sum_x, square_x = ((m * v).sum(axis=1, keepdims=True) for v in (x_, x_ * x_))
        sum_t, square_t, product = dot(m, t_), dot(m, t_ * t_), dot(m * x_, t_)
        shared = shared + product - sum_x * sum_t / count
        of_x = of_x + square_x - sum_x**2 / count
        of_t = of_t + square_t - sum_t**2 / count
        difference = difference + square_x - 2 * product + square_t
    varies = (of_x > ROUNDING) & (of_t > ROUNDING)
    scale = np.sqrt(np.where(varies, of_x * of_t, 1))
    return np.where(varies, shared / scale, 0), difference
