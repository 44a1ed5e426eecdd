"""Configurations in order of a metric, and which of them the seeds cannot tell from the first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.statistics.interval import Interval, interval

Codes = NDArray[np.intp]


@dataclass(frozen=True)
class RankingMetric:
    """A number that means the same whatever loss was trained.

    Attributes:
        name: short, as in files.
        title: as in tables and sentences.
        unit: behind a number, with a space before it, or empty.
        digits: behind the point.
        rises: whether more is better.
    """

    name: str
    title: str
    unit: str
    digits: int
    rises: bool


RANKING_METRICS = {
    y.name: y
    for y in (
        RankingMetric("psnr", "PSNR", " dB", 2, True),
        RankingMetric("ssim", "SSIM", "", 3, True),
        RankingMetric("mse", "MSE", "", 5, False),
        RankingMetric("explained", "explained", "", 3, True),
        RankingMetric("meaningful", "meaningful", "", 2, True),
        RankingMetric("inactive", "inactive maps", "", 2, False),
    )
}


@dataclass(frozen=True)
class Place:
    """Where a configuration stands.

    Attributes:
        configuration: its code.
        group: only configurations of one group were measured on the same images.
        rank: 1 for the best of its group; None if none of its jobs has a value.
        value: over its seeds.
        behind: its difference from the first of its group, over the seeds that both have; positive
            is more. Of the first itself, and of one without values, n is 0.
    """

    configuration: int
    group: int
    rank: int | None
    value: Interval
    behind: Interval

    @property
    def is_tied(self) -> bool:
        """Whether it is another one than the first, and its seeds cannot tell the two apart."""
        return self.behind.n > 1 and not self.behind.is_told


def places(
    values: NDArray[np.float64],
    configurations: Codes,
    seeds: Codes,
    images: Codes,
    *,
    rises: bool,
) -> tuple[Place, ...]:
    """Ranks configurations by their mean over seeds.

    The difference from the first is paired: mean over the seeds that both have of the difference with
    that seed, and Student's t. The same seed draws the same weights and the same order of images, so
    that what it does to both is no part of their difference.

    Args:
        values: (n,) the metric of each job; NaN for a job without one.
        configurations: (n,) code of each job's configuration, from 0.
        seeds: (n,) code of each job's seed.
        images: (n,) code of the held-out images that the job was measured on.
        rises: whether more is better.

    Returns:
        A place for each configuration: group by group, the best first, those without values last.
    """
    count = int(configurations.max(initial=-1)) + 1
    known = np.isfinite(values)
    of_seed: list[dict[int, float]] = []
    for c in range(count):
        mine = known & (configurations == c)
        of_seed.append({int(s): float(values[mine & (seeds == s)].mean()) for s in set(seeds[mine])})
    groups = _groups(set(images[known & (configurations == c)].tolist()) for c in range(count))
    means = [interval(list(own.values())) for own in of_seed]
    nothing = interval([])
    order = sorted(
        range(count),
        key=lambda c: (
            not of_seed[c],
            groups[c],
            (-means[c].value if rises else means[c].value) if of_seed[c] else 0,
        ),
    )
    found: list[Place] = []
    for c in order:
        if not of_seed[c]:
            found.append(Place(c, groups[c], None, means[c], nothing))
            continue
        ahead = [p for p in found if p.group == groups[c]]
        behind = nothing
        if ahead:
            first = of_seed[ahead[0].configuration]
            behind = interval([own - first[s] for s, own in of_seed[c].items() if s in first])
        found.append(Place(c, groups[c], len(ahead) + 1, means[c], behind))
    return tuple(found)


def _groups(sets: Iterable[set[int]]) -> list[int]:
    """The group of each set: sets that share a member, directly or through others, are one group."""
    groups: list[tuple[set[int], list[int]]] = []
    count = 0
    for i, members in enumerate(sets):
        count += 1
        touching = [g for g in groups if g[0] & members]
        merged = (
            members.union(*(g[0] for g in touching)),
            sorted([i, *(j for g in touching for j in g[1])]),
        )
        groups = [g for g in groups if g not in touching] + [merged]
    found = [0] * count
    for number, (_, indices) in enumerate(sorted(groups, key=lambda g: g[1])):
        for i in indices:
            found[i] = number
    return found
