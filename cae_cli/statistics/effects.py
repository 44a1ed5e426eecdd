"""What each swept key changes in a metric: paired differences and eta squared."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.statistics.interval import Interval, interval

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

ROUNDING = 1e-18  # sums of squares below this share of those around 0 are rounding errors


@dataclass(frozen=True)
class KeyEffect:
    """What one key changes.

    Attributes:
        differences: of each of its values from the first one, over seeds; each interval is one of a
            single comparison. Without pairs of jobs n is 0.
        share: eta squared, 0 to 1; NaN where the metric does not vary.
    """

    differences: tuple[Interval, ...]
    share: float


@dataclass(frozen=True)
class Effects:
    """What the swept keys change in one metric.

    Attributes:
        keys: by name.
        seed_share: eta squared of the seeds.
        rest: share of the variance that is left: keys that depend on each other, and noise.
        freedom: degrees of freedom that are left. With 0 the keys explain everything, and shares mean
            nothing.
        jobs: that have a value.
        seeds: of these jobs.
    """

    keys: Mapping[str, KeyEffect]
    seed_share: float
    rest: float
    freedom: int
    jobs: int
    seeds: int


def effects(values: Floats, keys: Mapping[str, Codes], seeds: Codes, images: Codes) -> Effects:
    """Main effects of the swept keys on a metric, on a grid with or without holes.

    *Differences.* Two jobs are a pair if they differ in one key and agree in all others, the seed and
    the held-out images. The differences of a seed's pairs are averaged; the means of the seeds are the
    sample for Student's t. So the spread over other keys is not counted as noise, and what a seed
    does to all its jobs cancels.

    *Share.* eta² = (RSS without the key - RSS) / TSS of the least squares on dummies of all keys and
    seeds, after the mean of each set of images: type-II sums of squares (Langsrud 2003, Statistics and
    Computing 13:163-167).

    Args:
        values: (n,) the metric of each job; NaN for a job without one.
        keys: (n,) code of each job's value, by swept key without the seeds; 0 is the first value.
        seeds: (n,) code of each job's seed.
        images: (n,) code of the held-out images that each job was measured on.
    """
    known = np.isfinite(values)
    levels = {name: int(own.max(initial=0)) + 1 for name, own in keys.items()}
    y, seeds, images = values[known], seeds[known], images[known]
    keys = {name: own[known] for name, own in keys.items()}
    base = np.hstack([np.ones((len(y), 1)), _dummies(images)])
    columns = {"": _dummies(seeds), **{name: _dummies(own) for name, own in keys.items()}}
    total, left = _squares(base, y), _squares(np.hstack([base, *columns.values()]), y)

    def share(squares: float) -> float:
        varies = total > ROUNDING * float(y @ y)
        return min(1.0, max(0.0, squares / total)) if varies else math.nan

    def eta(name: str) -> float:
        others = [own for other, own in columns.items() if other != name]
        return share(_squares(np.hstack([base, *others]), y) - left)

    found = {}
    for name, own in keys.items():
        others = np.column_stack([*(k for other, k in keys.items() if other != name), images, seeds])
        found[name] = KeyEffect(_differences(y, own, others, levels[name]), eta(name))
    rank = np.linalg.matrix_rank(np.hstack([base, *columns.values()])) if len(y) else 0
    return Effects(found, eta(""), share(left), len(y) - int(rank), len(y), len(set(seeds.tolist())))


def _differences(y: Floats, own: Codes, others: Codes, levels: int) -> tuple[Interval, ...]:
    """Paired differences of each value but the first from it; the last column of others is the seed."""
    alike: dict[tuple[int, ...], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for value, code, other in zip(y.tolist(), own.tolist(), others.tolist(), strict=True):
        alike[tuple(other)][code].append(value)
    found = []
    for level in range(1, levels):
        per_seed: dict[int, list[float]] = defaultdict(list)
        for (*_, seed), group in alike.items():
            if level in group and 0 in group:
                per_seed[seed].append(float(np.mean(group[level]) - np.mean(group[0])))
        found.append(interval([float(np.mean(own)) for own in per_seed.values()]))
    return tuple(found)


def _dummies(codes: Codes) -> Floats:
    """(n, k) 1 for a job's code, without a column for the first code."""
    return np.asarray(codes[:, None] == np.unique(codes)[1:], np.float64)


def _squares(columns: Floats, y: Floats) -> float:
    """Residual sum of squares of the least squares of y on the columns."""
    if not len(y):
        return 0.0
    rest = y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]
    return float(rest @ rest)
