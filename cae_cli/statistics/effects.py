"""What the values of each swept key change, and how much of all differences they explain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.statistics.interval import Interval, interval

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

# A numeric key with more values than this was drawn and not listed: it is a line, not levels.
MOST_LEVELS = 12
FOR_A_TREND = 3  # values; two have a difference
# Values that spread over this factor are compared by their logarithms.
MANY_TIMES = 10.0
# Singular values below this share of the largest, and sums of squares below its square, are rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Factor:
    """A swept key.

    Attributes:
        codes: (n,) which of its values each job has; 0 is the first value of the sweep.
        numbers: its values as numbers, by code; None if they are none.
    """

    codes: Codes
    numbers: Floats | None = None

    @property
    def levels(self) -> int:
        """How many values it has."""
        return int(self.codes.max(initial=-1)) + 1

    @property
    def is_line(self) -> bool:
        """Whether it has numbers, and too many to be told apart one by one."""
        return self.numbers is not None and self.levels > MOST_LEVELS

    @property
    def is_logarithmic(self) -> bool:
        """Whether its numbers are compared by their logarithms."""
        x = self.numbers
        return x is not None and bool(x.min() > 0 and x.max() >= MANY_TIMES * x.min())

    def line(self) -> Floats:
        """(n, 1) its number in each job, or the decimal logarithm of that, around 0."""
        assert self.numbers is not None
        x = np.log10(self.numbers) if self.is_logarithmic else self.numbers
        return np.asarray(x - x.mean())[self.codes][:, None]

    def columns(self) -> Floats:
        """(n, k) as it stands in the least squares: 1 for a job's value, without the first one's."""
        if self.is_line:
            return self.line()
        return np.asarray(self.codes[:, None] == np.arange(1, max(1, self.levels)), np.float64)


@dataclass(frozen=True)
class KeyEffect:
    """What one key changes.

    Attributes:
        levels: for each of its values the difference from the first, over seeds, each interval by
            itself. Empty for a key that is a line.
        trend: the slope over its numbers, or over their decimal logarithms (see
            `Factor.is_logarithmic`); None for fewer than three numbers.
        share: of all differences that it explains, eta squared, 0 to 1; NaN where there are none.
    """

    levels: tuple[Interval, ...]
    trend: Interval | None
    share: float


@dataclass(frozen=True)
class Interaction:
    """Two keys whose effects depend on one another.

    Attributes:
        keys: the two.
        share: of all differences that they explain together and neither by itself.
        is_told: whether the seeds tell it from noise.
        exceeds: those of the two that explain less by themselves.
    """

    keys: tuple[str, str]
    share: float
    is_told: bool
    exceeds: tuple[str, ...]


@dataclass(frozen=True)
class Effects:
    """What the swept keys change in one metric.

    Attributes:
        keys: by name.
        interactions: of each two keys.
        seed_share: of all differences, what the seeds explain.
        rest: of all differences, what is left: interactions and noise.
        freedom: degrees of freedom that are left; 0: the keys explain everything whatever it is.
        jobs: that have a value.
        seeds: that they have.
    """

    keys: Mapping[str, KeyEffect]
    interactions: tuple[Interaction, ...]
    seed_share: float
    rest: float
    freedom: int
    jobs: int
    seeds: int


def effects(values: Floats, factors: Mapping[str, Factor], seeds: Codes, images: Codes) -> Effects:
    """Main effects of the swept keys on a metric, on a grid with holes or without.

    *Size.* In the jobs of each seed by itself: least squares on dummy-coded values of all keys, so that
    a difference is one between jobs that share the seed and are alike in all other keys, as far as
    these act independently of it. On a full grid this is the difference of the marginal means. The
    estimates of the seeds are one sample: their mean, and Student's t. Seeds are what the noise is
    drawn by; the spread over other keys is none, and never enters an interval. A difference that the
    jobs of a seed do not determine is missing for that seed.

    *Share.* In all jobs at once: eta² = (RSS without the key - RSS) / TSS, type-II sums of squares (each
    key after all others; Langsrud 2003, Statistics and Computing 13:163-167). Seeds are one more
    factor.

    *Interactions.* The same two with the products of two keys' dummies added. One is told from noise if
    any product is, by intervals that hold for all of them at once.

    Jobs that were measured on other images are never compared: their mean is taken out first.

    Args:
        values: (n,) the metric of each job; NaN for a job without one.
        factors: the swept keys by name, without the seed.
        seeds: (n,) code of each job's seed.
        images: (n,) code of the held-out images that each job was measured on.
    """
    known = np.isfinite(values)
    y = values[known]
    columns = {name: factor.columns()[known] for name, factor in factors.items()}
    of_images, of_seeds = _dummies(images[known]), _dummies(seeds[known])
    per_seed = [np.flatnonzero(seeds[known] == s) for s in np.unique(seeds[known])]
    base = np.hstack([np.ones((len(y), 1)), of_images])
    main = np.hstack([base, of_seeds, *columns.values()])
    total, left = _squares(base, y), _squares(main, y)

    def share(larger: float, smaller: float) -> float:
        """Of two residual sums of squares, what the additional columns explain."""
        if not total > ROUNDING**2 * float(y @ y):
            return math.nan
        return min(1.0, max(0.0, (larger - smaller) / total))

    def slopes(wanted: Floats, others: Sequence[Floats], comparisons: int = 1) -> list[Interval]:
        """The coefficient of each wanted column, over seeds."""
        found = [_coefficients(wanted[i], np.hstack([base, *others])[i], y[i]) for i in per_seed]
        return [interval(own, comparisons) for own in np.transpose(found)] if found else []

    keys: dict[str, KeyEffect] = {}
    for name, factor in factors.items():
        others = [c for other, c in columns.items() if other != name]
        levels: tuple[Interval, ...] = ()
        if not factor.is_line:
            differences = slopes(columns[name], others)
            missing = [interval([])] * (factor.levels - 1)
            levels = (Interval(0.0, 0.0, 0.0, len(per_seed)), *(differences or missing))
        trend = None
        if factor.numbers is not None and factor.levels >= FOR_A_TREND:
            trend = (slopes(factor.line()[known], others) or [interval([])])[0]
        without = np.hstack([base, of_seeds, *others])
        keys[name] = KeyEffect(levels, trend, share(_squares(without, y), left))

    interactions = []
    for pair in itertools.combinations(factors, 2):
        product = _products(columns[pair[0]], columns[pair[1]])
        together = share(left, _squares(np.hstack([main, product]), y))
        tested = slopes(product, list(columns.values()), product.shape[1])
        interactions.append(
            Interaction(
                keys=pair,
                share=together,
                is_told=any(found.is_told for found in tested),
                exceeds=tuple(key for key in pair if keys[key].share < together),
            )
        )
    return Effects(
        keys=keys,
        interactions=tuple(interactions),
        seed_share=share(_squares(np.hstack([base, *columns.values()]), y), left),
        rest=share(left, 0.0),
        freedom=len(y) - _rank(main),
        jobs=len(y),
        seeds=len(per_seed),
    )


def _dummies(codes: Codes) -> Floats:
    """(n, k) 1 for a job's code, without the first of those there are."""
    return np.asarray(codes[:, None] == np.unique(codes)[1:], np.float64)


def _products(first: Floats, second: Floats) -> Floats:
    """(n, k * l) every column of the one times every column of the other."""
    return (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)


def _scaled(columns: Floats) -> Floats:
    """Columns of length 1, so that numbers of any size count alike."""
    lengths = np.sqrt(np.square(columns).sum(axis=0))
    return np.asarray(columns / np.where(lengths > 0, lengths, 1))


def _basis(columns: Floats) -> Floats:
    """(n, r) orthonormal, of what the columns span."""
    if not columns.size:
        return np.zeros((len(columns), 0))
    u, s, _ = np.linalg.svd(_scaled(columns), full_matrices=False)
    return np.asarray(u[:, s > ROUNDING * s[0]]) if s[0] > 0 else np.zeros((len(columns), 0))


def _rank(columns: Floats) -> int:
    return int(_basis(columns).shape[1])


def _squares(columns: Floats, y: Floats) -> float:
    """Residual sum of squares of the least squares of y on the columns."""
    rest = _without(_basis(columns), y)
    return float(rest @ rest)


def _without(basis: Floats, values: Floats) -> Floats:
    """What is left of values beside an orthonormal basis."""
    return np.asarray(values - basis @ (basis.T @ values))


def _coefficients(wanted: Floats, others: Floats, y: Floats) -> Floats:
    """(k,) coefficients of the wanted columns beside the others; NaN for those not determined.

    By Frisch, Waugh and Lovell: least squares of what the others leave of y on what they leave of the
    columns. A coefficient is determined if the rows of these hold its unit vector.
    """
    lengths = np.sqrt(np.square(wanted).sum(axis=0))  # (k,)
    there = lengths > 0
    found = np.full(len(lengths), np.nan)
    if not there.any():
        return found
    basis = _basis(others)
    left = _without(basis, wanted[:, there] / lengths[there])
    u, s, vt = np.linalg.svd(left, full_matrices=False)
    kept = s > math.sqrt(ROUNDING)
    u, s, vt = u[:, kept], s[kept], vt[kept]
    determined = np.square(vt).sum(axis=0) > 1 - math.sqrt(ROUNDING)  # (k there,)
    slopes = vt.T @ ((u.T @ _without(basis, y)) / s) / lengths[there]
    slopes[np.abs(slopes) * lengths[there] <= ROUNDING * np.linalg.norm(y)] = (
        0  # equal, but for rounding
    )
    found[there] = np.where(determined, slopes, np.nan)
    return found
