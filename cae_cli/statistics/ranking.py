"""Configurations ranked by a metric, and which of them the seeds cannot distinguish from the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.statistics.interval import Interval, interval

Codes = NDArray[np.intp]


@dataclass(frozen=True)
class RankingMetric:
    """A metric that means the same whatever loss was trained.

    Attributes:
        name: short, as in files.
        title: as in tables and sentences.
        unit: of its values, or "".
        digits: decimal places that are shown.
        rises: whether more is better.
    """

    name: str
    title: str
    unit: str
    digits: int
    rises: bool


RANKING_METRICS = {
    metric.name: metric
    for metric in (
        RankingMetric("psnr", "PSNR", "dB", 2, True),
        RankingMetric("ssim", "SSIM", "", 3, True),
        RankingMetric("mse", "MSE", "", 5, False),
        RankingMetric("explained", "explained", "", 3, True),
        RankingMetric("meaningful", "meaningful", "", 2, True),
        RankingMetric("inactive", "inactive maps", "", 2, False),
    )
}


@dataclass(frozen=True)
class Standing:
    """The position of a configuration.

    Attributes:
        configuration: its code.
        group: only configurations of one group were measured on the same images.
        rank: 1 for the best of its group; None if none of its jobs has a value.
        value: over its seeds.
        behind: its difference from the first of its group, over the seeds that both have; positive
            is more. For the first itself, and for one without values, n is 0.
    """

    configuration: int
    group: int
    rank: int | None
    value: Interval
    behind: Interval

    @property
    def is_tied(self) -> bool:
        """Whether the seeds cannot distinguish it from the first one of its group."""
        return self.behind.n > 1 and not self.behind.excludes_zero


def ranked(
    values: NDArray[np.float64],
    configurations: Codes,
    seeds: Codes,
    images: Codes,
    *,
    rises: bool,
) -> tuple[Standing, ...]:
    """Ranks configurations by their mean over seeds.

    The difference from the first is paired: the mean, over the seeds that both have, of the difference
    with that seed, and Student's t. The same seed draws the same weights and the same order of images,
    so what it does to both cancels.

    Args:
        values: (n,) the metric of each job; NaN for a job without one.
        configurations: (n,) code of each job's configuration, from 0.
        seeds: (n,) code of each job's seed.
        images: (n,) code of the held-out images that the job was measured on.
        rises: whether more is better.

    Returns:
        One for each configuration: group by group, the best first, those without values last.
    """
    count = int(configurations.max(initial=-1)) + 1
    known = np.isfinite(values)
    of_seed: list[dict[int, float]] = []
    for c in range(count):
        mine = known & (configurations == c)
        of_seed.append({int(s): float(values[mine & (seeds == s)].mean()) for s in set(seeds[mine])})
    groups = _groups([set(images[known & (configurations == c)].tolist()) for c in range(count)])
    means = [interval(list(own.values())) for own in of_seed]

    def order(c: int) -> tuple[bool, int, float]:
        value = means[c].value if of_seed[c] else 0.0
        return not of_seed[c], groups[c], -value if rises else value

    found: list[Standing] = []
    for c in sorted(range(count), key=order):
        ahead = [other for other in found if other.group == groups[c]]
        first = of_seed[ahead[0].configuration] if ahead else {}
        behind = interval([own - first[s] for s, own in of_seed[c].items() if s in first])
        rank = len(ahead) + 1 if of_seed[c] else None
        found.append(Standing(c, groups[c], rank, means[c], behind))
    return tuple(found)


def _groups(sets: Sequence[set[int]]) -> list[int]:
    """The group of each set: sets that share a member, directly or through others, are one group."""
    groups: list[tuple[set[int], list[int]]] = []
    for i, members in enumerate(sets):
        touching = [g for g in groups if g[0] & members]
        merged = (
            members.union(*(g[0] for g in touching)),
            sorted([i, *(j for g in touching for j in g[1])]),
        )
        groups = [g for g in groups if g not in touching] + [merged]
    found = [0] * len(sets)
    for number, (_, indices) in enumerate(sorted(groups, key=lambda g: g[1])):
        for i in indices:
            found[i] = number
    return found
