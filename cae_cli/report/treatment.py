"""The table of a treatment: the run before, after each step, and after random changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cae_cli.report.numbers import NOTHING, with_margin
from cae_cli.report.sections import Column, Table
from cae_cli.statistics.interval import Interval

DIGITS = {"score": 2, "explained": 3, "skill_score": 2}


@dataclass(frozen=True)
class Row:
    """One change, trained with one seed or more.

    Attributes:
        name: "before", "fix 1", "random control 1".
        change: its overrides.
        kept: "yes", "no", or "" for the run before.
        verdict: what is wrong, in a few words.
        healthy: whether it is healthy with every seed.
        figures: score, explained variance and skill score, over seeds.
        failing: names of the criteria that fail.
        cleared: codes of causes that the change removed.
        new: codes of causes that it introduced.
    """

    name: str
    change: str
    kept: str
    verdict: str
    healthy: bool
    figures: Mapping[str, Interval]
    failing: tuple[str, ...]
    cleared: tuple[str, ...]
    new: tuple[str, ...]


def treatment(rows: Sequence[Row]) -> Table:
    """The rows as a table; the best score has a star."""
    scores = [row.figures["score"].value for row in rows]
    highest = max((value for value in scores if math.isfinite(value)), default=math.nan)
    best = frozenset(i for i, value in enumerate(scores) if value == highest and len(rows) > 1)
    return Table(
        [
            Column("", [row.name for row in rows]),
            Column("change", [row.change for row in rows], cut=True),
            Column("kept", [row.kept for row in rows]),
            Column("verdict", [row.verdict for row in rows], cut=True),
            Column("score", [_number(row, "score") for row in rows], right=True, starred=best),
            Column("explained", [_number(row, "explained") for row in rows], right=True),
            Column("skill score", [_number(row, "skill_score") for row in rows], right=True),
            Column("fails", [", ".join(row.failing) for row in rows], cut=True, spare=1),
            Column("cleared", [" ".join(row.cleared) for row in rows], cut=True, spare=1),
            Column("new", [" ".join(row.new) for row in rows], cut=True, spare=1),
        ]
    )


def _number(row: Row, name: str) -> str:
    """A mean with its margin, where there is one."""
    found, digits = row.figures[name], DIGITS[name]
    return with_margin(found.value, found.margin, digits) or NOTHING
