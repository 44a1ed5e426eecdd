"""What a person reads of a sweep: the order of its configurations, and in sentences what made it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cae_cli.errors import printable
from cae_cli.statistics.effects import Effects, Factor, KeyEffect
from cae_cli.statistics.interval import Interval
from cae_cli.statistics.ranking import RANKING_METRICS, Place, RankingMetric

WIDTH = 80  # columns of a terminal, also where there is none: the table is the same everywhere
NARROWEST = 6  # columns of a value
GAP = 2  # columns between columns
MOST_ROWS = 20  # of the leaderboard; all are in the file
MOST_UNFINISHED = 8
FEW = 3  # values of a key; more are many comparisons
DIGITS = 6  # at most, behind the point


@dataclass(frozen=True)
class Row:
    """A configuration of the leaderboard.

    Attributes:
        place: where it stands.
        values: its values, by what the columns are called.
        figures: metrics over its seeds, by name.
        planned: how many seeds it should have.
        finding: code of what was found, or a word.
    """

    place: Place
    values: Mapping[str, str]
    figures: Mapping[str, Interval]
    planned: int
    finding: str


@dataclass(frozen=True)
class Unfinished:
    """A job that has no number.

    Attributes:
        name: of its folder.
        status: what became of it.
        why: a sentence, or nothing.
    """

    name: str
    status: str
    why: str


def leaderboard(
    rows: Sequence[Row], images: Sequence[str], metric: RankingMetric, left_out: int
) -> list[RenderableType]:
    """The configurations in order, a table for each set of images that they were measured on.

    Args:
        rows: in order.
        images: what each group of places was measured on, by its number.
        metric: that they are ranked by.
        left_out: rows that only the file has.
    """
    ranked = [row for row in rows if row.place.rank is not None]
    if not ranked:
        return []
    groups = list(dict.fromkeys(row.place.group for row in ranked))
    parts: list[RenderableType] = []
    for group in groups:
        own = [row for row in ranked if row.place.group == group]
        parts.append(Text(f"ranked by {metric.title}, on {images[group]}"))
        parts.append(_table(own, metric))
    if left_out:
        parts.append(Text(f"{left_out} more in leaderboard.csv"))
    if len(groups) > 1:
        parts.append(
            Text(
                "not all jobs were measured on the same held-out images: those of different tables are "
                "not ranked against each other"
            )
        )
    if len(ranked) > len(groups):
        parts += [Text(line) for line in _certainty(ranked)]
    return parts


def _certainty(ranked: Sequence[Row]) -> list[str]:
    """What the seeds can say about the order."""
    seeds = [row.place.value.n for row in ranked]
    if max(seeds) == 1:
        return [
            "one seed each: whether another seed would give this order, one seed cannot tell; "
            "seed=0,1,2 would"
        ]
    lines = [f"±: 95 % interval of the mean over {_between(seeds)} seeds"]
    tied = [row.place.behind.n for row in ranked if row.place.is_tied]
    if tied:
        lines.append(f"≈: not told apart from the first by {_between(tied)} seeds, compared in pairs")
    if any(row.place.behind.n == 1 for row in ranked):
        lines.append("?: shares one seed with the first, which cannot tell")
    if any(row.place.rank != 1 and row.place.behind.n == 0 for row in ranked):
        lines.append("–: shares no seed with the first")
    return lines


def _between(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


def _table(rows: Sequence[Row], metric: RankingMetric) -> Table:
    names = list(dict.fromkeys([metric.name, "psnr", "ssim", "meaningful"]))
    with_seeds = any(row.planned > 1 for row in rows)
    titles = ["seeds"] if with_seeds else []
    titles += [
        f"{RANKING_METRICS[name].title}{RANKING_METRICS[name].unit.replace(' ', ' / ')}"
        for name in names
    ]
    marks, numbers = [], []
    for row in rows:
        n = row.place.value.n
        seeds = [f"{n}" if n == row.planned else f"{n}/{row.planned}"] if with_seeds else []
        figures = [
            _figure(row.figures[name], RANKING_METRICS[name], margin=name == metric.name)
            for name in names
        ]
        marks.append(_mark(row))
        numbers.append([*seeds, *figures, printable(row.finding)])
    taken = [max(map(len, column)) for column in zip([*titles, "finding"], *numbers, strict=True)]
    room = WIDTH - max(map(len, marks)) - GAP - sum(taken) - GAP * len(taken)
    # What all of them share says nothing here.
    told = [
        k for k, v in rows[0].values.items() if len(rows) == 1 or any(r.values[k] != v for r in rows)
    ]
    keys, values = _fitted([[(key, row.values[key]) for key in told] for row in rows], room)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_edge=False)
    for title in ("", *keys):
        table.add_column(title, no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("finding", no_wrap=True)
    for row, mark, own, line in zip(rows, marks, values, numbers, strict=True):
        table.add_row(*map(Text, (mark, *own, *line)), style="bold" if row.place.rank == 1 else "")
    return table


def _fitted(rows: Sequence[list[tuple[str, str]]], room: int) -> tuple[list[str], list[list[str]]]:
    """Titles and values of the keys in so many columns of the terminal; the widest are cut first."""
    titles = [printable(key) for key, _ in rows[0]]
    lines = [[printable(value) for _, value in row] for row in rows]
    if len(titles) * (NARROWEST + GAP) > room:  # too many keys: in one column
        lines = [[", ".join(f"{key}={value}" for key, value in row)] for row in rows]
        titles = ["configuration"]
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    while sum(widths) + GAP * len(widths) > room and max(widths, default=0) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    titles, *lines = (
        [shortened(text, width) for text, width in zip(line, widths, strict=True)]
        for line in (titles, *lines)
    )
    return titles, lines


def _mark(row: Row) -> str:
    """The rank, and whether the seeds can tell it."""
    if row.place.rank == 1:
        return "1"
    if row.place.behind.n < 2 and row.planned > 1:
        return f"{row.place.rank} {'?' if row.place.behind.n else '–'}"
    return f"{row.place.rank} ≈" if row.place.is_tied else f"{row.place.rank}"


def shortened(text: str, width: int) -> str:
    """The text, its middle left out if it is longer than some columns."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def _figure(found: Interval, metric: RankingMetric, *, margin: bool) -> str:
    if found.n == 0:
        return ""
    text = f"{found.value:.{metric.digits}f}"
    if margin and math.isfinite(found.margin):
        text += f" ± {found.margin:.{metric.digits}f}"
    return text


def unfinished(jobs: Sequence[Unfinished], planned: int) -> list[RenderableType]:
    """How many jobs there are, and what became of those that did not finish.

    Args:
        jobs: those that did not.
        planned: how many there are.
    """
    count = f"{planned} job{'' if planned == 1 else 's'}"
    if not jobs:
        return [Text(f"{count}, all finished")]
    parts: list[RenderableType] = [Text(f"{count}, {len(jobs)} not finished")]
    # Those that nobody knows yet are named last.
    order = sorted(jobs, key=lambda job: job.status == "not started")
    width = max(len(job.status) for job in order[:MOST_UNFINISHED])
    for job in order[:MOST_UNFINISHED]:
        name = shortened(printable(job.name), WIDTH - width - 4)
        why = f": {printable(job.why)}" if job.why else ""
        parts.append(Text(f"  {job.status:<{width}}  {name}{why}"))
    if len(order) > MOST_UNFINISHED:
        parts.append(Text(f"  and {len(order) - MOST_UNFINISHED} more, in leaderboard.csv"))
    return parts


def sentences(
    found: Mapping[str, Effects],
    factors: Mapping[str, Factor],
    values: Mapping[str, Sequence[str]],
    metric: RankingMetric,
) -> list[str]:
    """What each swept key changes, a sentence each, what explains most first.

    Args:
        found: effects on metrics, by the metric's name.
        factors: the keys.
        values: those of each key, as they were typed, by code.
        metric: that the configurations are ranked by; one of ``found``.
    """
    main = found[metric.name]
    if main.jobs < 2 or not factors:
        return []
    shares = {key: effect.share for key, effect in main.keys.items()}
    order = sorted(shares, key=lambda key: -(shares[key] if math.isfinite(shares[key]) else -1))
    lines = [_sentence(key, found, factors[key], values[key], metric) for key in order]
    if main.seeds == 1:
        lines.append(
            "One seed: these are differences between single runs, and how much of them is chance it "
            "cannot tell."
        )
        return lines
    if any(len(names) > FEW for names in values.values()):
        lines.append("Each ± is a 95 % interval by itself: of many values one may stand out by chance.")
    for both in sorted(main.interactions, key=lambda i: -i.share):
        if both.is_told and both.exceeds:
            alone = ", ".join(f"{key} by itself {_percent(shares[key])}" for key in both.exceeds)
            lines.append(
                f"{' and '.join(both.keys)}: what the one does depends on the other, which explains "
                f"{_percent(both.share)} of the differences in {metric.title}; {alone}."
            )
    if main.freedom > 0 and math.isfinite(main.rest):
        lines.append(
            f"seed: explains {_percent(main.seed_share)} of the differences in {metric.title}; "
            f"chance, and keys that act on each other, {_percent(main.rest)}."
        )
    return lines


def _sentence(
    key: str,
    found: Mapping[str, Effects],
    factor: Factor,
    names: Sequence[str],
    metric: RankingMetric,
) -> str:
    own = {name: effects.keys[key] for name, effects in found.items()}
    main = own[metric.name]
    seeds = found[metric.name].seeds
    if factor.is_line:
        what, differences = f"{key}, {len(names)} values", _over_range(own, factor)
    else:
        level, what = _level(key, own, names, metric)
        differences = {name: effect.levels[level] for name, effect in own.items()}
    known = {name: d for name, d in differences.items() if d.n}
    if metric.name not in known:
        return (
            f"{key}: never changes by itself among jobs of one seed that were measured on the same "
            "images, so its effect is not known."
        )
    if seeds == 1 or known[metric.name].n == 1:
        of = "" if seeds == 1 else ", from one seed, which cannot tell how much is chance"
        return f"{what}: {_listed(known)}{of}."
    told = {name: d for name, d in known.items() if d.is_told}
    if not told:
        n = known[metric.name].n
        return (
            f"{what}: no effect that {n} seeds can tell from noise "
            f"({_listed({metric.name: known[metric.name]})})."
        )
    line = f"{what}: {_listed(told)}"
    open_ = {name: d for name, d in known.items() if name not in told}
    if open_:
        line += f" (not told from noise: {_listed(open_)})"
    of = metric.name if metric.name in told else next(iter(told))
    if found[of].freedom > 0 and math.isfinite(own[of].share):
        line += (
            f"; it explains {_percent(own[of].share)} of the differences in {RANKING_METRICS[of].title}"
        )
    if main.trend is not None and main.levels:
        trend = _over_range({metric.name: main}, factor)[metric.name]
        if trend.is_told:
            dynamics = "rises" if trend.value > 0 else "falls"
            line += f"; along its values {metric.title} {dynamics} ({_signed(trend, metric)})"
        elif trend.n > 1:
            line += f"; no trend along its values ({_signed(trend, metric)})"
    return f"{line}."


def _level(
    key: str, own: Mapping[str, KeyEffect], names: Sequence[str], metric: RankingMetric
) -> tuple[int, str]:
    """The value that is compared with the first one, and how that is called."""
    sign = 1 if metric.rises else -1
    gains = [sign * level.value if level.n else -math.inf for level in own[metric.name].levels]
    others = range(1, len(gains))
    if not others:
        return 0, key
    best = max(range(len(gains)), key=lambda i: gains[i])
    level = best or min((i for i in others if gains[i] > -math.inf), key=lambda i: gains[i], default=1)
    if not any(effect.levels[level].is_told for effect in own.values()):
        # Another one may differ from the first where this one does not.
        told = [i for i in others if any(effect.levels[i].is_told for effect in own.values())]
        level = max(told, key=lambda i: abs(gains[i]), default=level)
    what = f"{key}={printable(names[level])} instead of {printable(names[0])}"
    if len(gains) > 2:
        which = {level: ",", 0: ", which is"}.get(best, f"; {printable(names[best])} is")
        what += f"{which} the best of {len(gains)} in {metric.title}"
    return level, what


def _over_range(own: Mapping[str, KeyEffect], factor: Factor) -> dict[str, Interval]:
    """The trend from the smallest to the largest number."""
    line = factor.line()
    span = float(line.max() - line.min())
    return {
        name: Interval(t.value * span, t.std * span, t.margin * span, t.n)
        for name, effect in own.items()
        if (t := effect.trend) is not None
    }


def _listed(differences: Mapping[str, Interval]) -> str:
    return ", ".join(
        f"{RANKING_METRICS[name].title} {_signed(found, RANKING_METRICS[name])}"
        for name, found in differences.items()
    )


def _signed(found: Interval, metric: RankingMetric) -> str:
    """A difference with its sign, margin and unit; as many digits as the margin needs."""
    digits = metric.digits
    size = found.margin if math.isfinite(found.margin) else abs(found.value)
    if 10**-DIGITS <= size < 10**-digits:
        digits = math.ceil(-math.log10(size))
    text = f"{round(found.value, digits) + 0:+.{digits}f}"
    if math.isfinite(found.margin):
        text += f" ± {found.margin:.{digits}f}"
    return f"{text}{metric.unit}"


def _percent(share: float) -> str:
    if not math.isfinite(share):
        return "nothing"
    return f"{share:.0%}".replace("%", " %") if share >= 0.005 else "less than 1 %"
