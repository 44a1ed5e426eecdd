"""The report of a sweep: its jobs, the ranked configurations, and what each swept key changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cae_cli.errors import counted, printable
from cae_cli.report.numbers import NOTHING, share, with_margin
from cae_cli.report.sections import Column, Part, Section, Table, line
from cae_cli.statistics.effects import Effects
from cae_cli.statistics.interval import Interval
from cae_cli.statistics.ranking import RANKING_METRICS, RankingMetric, Standing

MOST_ROWS = 20  # of the leaderboard; leaderboard.csv has all
MOST_UNFINISHED = 8
MOST_KEYS = 4  # that have a column each; more share one
MOST_VALUES = 8  # of a key; effects.json has all


@dataclass(frozen=True)
class Row:
    """A configuration of the leaderboard.

    Attributes:
        standing: its rank.
        values: its values, by the titles of their columns.
        figures: metrics over its seeds, by name.
        planned: how many seeds it should have.
        finding: code of a finding, or a problem.
    """

    standing: Standing
    values: Mapping[str, str]
    figures: Mapping[str, Interval]
    planned: int
    finding: str


@dataclass(frozen=True)
class Unfinished:
    """A job without results.

    Attributes:
        name: of its folder.
        status: interrupted, failed, not started, …
        why: the reason, or "".
    """

    name: str
    status: str
    why: str


def leaderboard(
    rows: Sequence[Row], images: Sequence[str], metric: RankingMetric, left_out: int
) -> list[Part]:
    """The configurations in order, a table for each set of images that they were measured on.

    Args:
        rows: in order, all with a rank.
        images: what each group was measured on, by its number.
        metric: that they are ranked by.
        left_out: rows that only the file has.
    """
    groups = list(dict.fromkeys(row.standing.group for row in rows))
    parts: list[Part] = []
    for group in groups:
        own = [row for row in rows if row.standing.group == group]
        parts.append(Section(f"ranked by {metric.title}, on {images[group]}", [_table(own, metric)]))
    if left_out:
        parts.append(f"{left_out} more in leaderboard.csv")
    if len(groups) > 1:
        parts.append(
            "Not all jobs were measured on the same held-out images. Configurations of different tables "
            "cannot be compared."
        )
    if len(rows) > len(groups):
        parts += _certainty(rows)
    return parts


def _certainty(rows: Sequence[Row]) -> list[str]:
    """How much the seeds say about the order."""
    seeds = [row.standing.value.n for row in rows]
    if max(seeds) == 1:
        return ["One seed each: another seed may give another order. Use seed=0,1,2 to find out."]
    lines = [f"±: 95 % interval of the mean over {_between(seeds)} seeds"]
    tied = [row.standing.behind.n for row in rows if row.standing.is_tied]
    if tied:
        lines.append(f"≈: no significant difference from the first ({_between(tied)} seeds, paired)")
    if any(row.standing.behind.n == 1 for row in rows):
        lines.append("?: only one seed in common with the first")
    if any(row.standing.rank != 1 and row.standing.behind.n == 0 for row in rows):
        lines.append(f"{NOTHING}: no seed in common with the first")
    return lines


def _between(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _table(rows: Sequence[Row], metric: RankingMetric) -> Table:
    # Values that all configurations share are no column.
    keys = [
        k for k, v in rows[0].values.items() if len(rows) == 1 or any(r.values[k] != v for r in rows)
    ]
    columns = [Column("", [_mark(row) for row in rows])]
    if len(keys) > MOST_KEYS:
        named = [", ".join(f"{key}={row.values[key]}" for key in keys) for row in rows]
        columns.append(Column("configuration", named, cut=True, middle=True))
    else:
        columns += [
            Column(key, [row.values[key] for row in rows], cut=True, middle=True) for key in keys
        ]
    if any(row.planned > 1 for row in rows):
        counts = [(row.standing.value.n, row.planned) for row in rows]
        seeds = [f"{n}" if n == planned else f"{n}/{planned}" for n, planned in counts]
        columns.append(Column("seeds", seeds, right=True))
    for name in dict.fromkeys([metric.name, "psnr", "ssim", "meaningful"]):
        shown = RANKING_METRICS[name]
        figures = [row.figures[name] for row in rows]
        cells = [
            with_margin(f.value, f.margin if name == metric.name else math.nan, shown.digits)
            for f in figures
        ]
        spare = int(name != metric.name)
        columns.append(Column(shown.title, cells, shown.unit, right=True, spare=spare))
    columns.append(Column("finding", [row.finding for row in rows]))
    return Table(columns, frozenset(i for i, row in enumerate(rows) if row.standing.rank == 1))


def _mark(row: Row) -> str:
    """The rank, and whether the seeds confirm it."""
    standing = row.standing
    mark = ""
    if standing.rank != 1 and standing.behind.n < 2 and row.planned > 1:
        mark = "?" if standing.behind.n else NOTHING
    elif standing.is_tied:
        mark = "≈"
    return f"{standing.rank} {mark}".rstrip()


def unfinished(jobs: Sequence[Unfinished], planned: int) -> list[Part]:
    """How many jobs there are, and why some did not finish.

    Args:
        jobs: those that did not.
        planned: how many there are.
    """
    count = counted(planned, "job")
    if not jobs:
        return [f"{count}, all finished"]
    # Those that were not started are the last.
    order = sorted(jobs, key=lambda job: job.status == "not started")
    width = max(len(job.status) for job in order[:MOST_UNFINISHED])
    parts: list[Part] = [f"{count}, {len(jobs)} not finished"]
    for job in order[:MOST_UNFINISHED]:
        why = f": {job.why}" if job.why else ""
        parts.append(line(printable(f"{job.status:<{width}}  {job.name}{why}"), indent=2))
    if len(order) > MOST_UNFINISHED:
        parts.append(f"{len(order) - MOST_UNFINISHED} more in leaderboard.csv")
    return parts


def effects(
    found: Mapping[str, Effects], values: Mapping[str, Sequence[str]], metric: RankingMetric
) -> list[Part]:
    """What each swept key changes, the key with the largest share of the variance first.

    Args:
        found: effects on metrics, by the metric's name.
        values: of each key, in the order of the sweep.
        metric: that the configurations are ranked by; one of ``found``.
    """
    main = found[metric.name]
    if main.jobs < 2 or not values:
        return []
    rows: list[tuple[str, int]] = []  # a key and which of its differences
    left_out = 0
    for key in sorted(values, key=lambda key: -_or_less(main.keys[key].share)):
        sign = 1 if metric.rises else -1
        gains = [_or_less(sign * d.value) for d in main.keys[key].differences]
        best = sorted(range(len(gains)), key=lambda i: -gains[i])
        rows += [(key, i) for i in best[:MOST_VALUES]]
        left_out += max(0, len(best) - MOST_VALUES)
    same = frozenset(i for i, (key, _) in enumerate(rows) if i and rows[i - 1][0] == key)
    columns = [
        Column("key", [key for key, _ in rows], cut=True, middle=True, repeated=same),
        Column("value", [values[key][i + 1] for key, i in rows], cut=True, middle=True),
        Column("instead of", [values[key][0] for key, _ in rows], cut=True, middle=True),
    ]
    for name, own in found.items():
        differences = [own.keys[key].differences[i] for key, i in rows]
        starred = frozenset(i for i, d in enumerate(differences) if d.excludes_zero)
        cells = [_difference(d, RANKING_METRICS[name]) for d in differences]
        title, unit = RANKING_METRICS[name].title, RANKING_METRICS[name].unit
        spare = int(name != metric.name)
        columns.append(Column(title, cells, unit, right=True, spare=spare, starred=starred))
    if main.freedom > 0:
        shares = [share(main.keys[key].share, 0) for key, _ in rows]
        columns.append(Column("share", shares, right=True, repeated=same))
    parts: list[Part] = ["", Section(f"effects on {metric.title}", [Table(columns)])]
    if left_out:
        parts.append(f"{left_out} more values in effects.json")
    if any(not main.keys[key].differences[i].n for key, i in rows):
        parts.append(f"{NOTHING}: no two finished jobs differ in this key alone")
    if main.seeds == 1:
        return [*parts, "One seed: the differences may be chance. Use seed=0,1,2 to find out."]
    parts.append(
        "*: significant (the 95 % interval of the paired differences excludes 0; single comparisons)"
    )
    if main.freedom > 0:
        seeds, rest = (share(part, 0) or "none" for part in (main.seed_share, main.rest))
        parts.append(
            f"share: of the variance of {metric.title} (eta squared); seeds {seeds}, noise and "
            f"interactions {rest}"
        )
    return parts


def _or_less(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


def _difference(found: Interval, metric: RankingMetric) -> str:
    """A difference with its sign and margin; with more digits where the margin needs them."""
    if not found.n:
        return NOTHING
    digits = metric.digits
    if math.isfinite(found.margin) and 1e-6 <= found.margin < 10**-digits:
        digits = math.ceil(-math.log10(found.margin))
    return with_margin(found.value, found.margin, digits, sign=True)
