"""The figures of a benchmark run next to their goals, on the screen and as JSON."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.benchmark import Results
from benchmarks.faults.record import SCHEMA_VERSION, Record
from benchmarks.faults.scoring import ControlScores, Rate, Scores, ShortScores
from cae_cli.report.sections import Column, Part, Table, line
from cae_cli.runs.environment import surroundings
from cae_cli.runs.json_files import plain, write_json
from cae_cli.system.files import writing
from cae_cli.system.guarded import GuardedPath

FIRST_FIX, ANY_FIX, BY_CHANCE = 0.85, 0.95, 0.25  # goals for the share of fixed trainings
MIN_HEALTHY = 60  # fewer runs without an alarm show too little
MAX_SHOWN = 20  # wrong verdicts on the screen
COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "below": operator.lt,
}


@dataclass(frozen=True)
class Goal:
    """A figure and its target.

    Attributes:
        name: what is counted.
        rate: the figure.
        target: in words; "" without one.
        limit: the share that is at least, at most, or not to be reached; None without one.
        met: None without a target, or if too little was counted.
    """

    name: str
    rate: Rate
    target: str = ""
    limit: float | None = None
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """Met, missed, or nothing."""
        return {None: "", True: "met", False: "missed"}[self.met]

    @property
    def share(self) -> str:
        """The share, with a decimal if it is close to the limit."""
        return share(self.rate, self.limit)


def _goal(name: str, rate: Rate, comparison: str, limit: float) -> Goal:
    met = COMPARISONS[comparison](rate.share, limit) if rate.total else None
    return Goal(name, rate, f"{comparison} {limit:.0%}".replace("%", " %"), limit, met)


def goals(scores: Scores) -> list[Goal]:
    """The main figures and their targets; those of which nothing was counted are left out."""
    diagnosis, fixes = scores.diagnosis, scores.fixes
    alarms = diagnosis.healthy_false_alarms
    is_free = False if alarms.count else True if alarms.total >= MIN_HEALTHY else None
    listed = [
        _goal("faulty: an accepted cause is named first", diagnosis.right, "at least", 0.95),
        Goal("faulty: an accepted cause is among the findings", diagnosis.right_anywhere),
        Goal("faulty: the cause may have been called ruled out", diagnosis.missed),
        Goal("faulty: any finding", diagnosis.found),
        Goal("two faults: the second is found too", diagnosis.second_fault),
        Goal("healthy: alarms", diagnosis.healthy_alarms),
        Goal(
            "healthy, every criterion met: alarms",
            alarms,
            f"none in at least {MIN_HEALTHY}",
            met=is_free,
        ),
        Goal("borderline: alarms", diagnosis.borderline_alarms),
        _goal(
            "borderline, every criterion met: alarms", diagnosis.borderline_false_alarms, "at most", 0.05
        ),
        Goal("undecided", diagnosis.undecided),
        Goal("not diagnosed", diagnosis.failed),
        Goal("faulty: a criterion fails as well", diagnosis.faulty_failing),
        Goal("healthy: a criterion fails", diagnosis.healthy_failing),
    ]
    if fixes is not None:
        listed += [
            _goal("fixable: fixed by the first fix", fixes.first, "at least", FIRST_FIX),
            Goal("fixable, one fault: fixed by the first fix", fixes.first_of_one),
            _goal("fixable: fixed by one of the fixes", fixes.fixed, "at least", ANY_FIX),
            Goal("treated: fixed by one of the fixes", fixes.fixed_of_treated),
        ]
        for name, control in fixes.controls.items():
            listed += [
                Goal(f"treated: fixed by the first {name}", control.first),
                _goal(f"treated: fixed by {name}, all trainings", control.fixed, "below", BY_CHANCE),
            ]
    return [goal for goal in listed if goal.rate.total]


def count(rate: Rate | None) -> str:
    """A count, "38 of 40"."""
    return f"{rate.count} of {rate.total}" if rate and rate.total else "–"


def share(rate: Rate, limit: float | None = None) -> str:
    """A share with its interval, "95 % (84 to 99)"; with a decimal within 1 % of a limit."""
    if not rate.total:
        return "–"
    digits = 1 if limit is not None and abs(rate.share - limit) < 0.01 else 0
    low, high = (f"{100 * end:.{digits}f}" for end in (rate.low, rate.high))
    return f"{100 * rate.share:.{digits}f} % ({low} to {high})"


def instead(counts: Mapping[str, int]) -> str:
    """What was named instead, and how often."""
    return ", ".join(f"{code} {number}×" for code, number in counts.items())


def tool_rows(record: Record) -> list[tuple[str, ...]]:
    """The main figures of cae and of simpler tools."""
    rows: dict[str, ShortScores] = {"cae": record.scores.diagnosis, **record.tools}
    return [
        (name, *map(count, (s.right, s.found, s.healthy_alarms, s.borderline_alarms)))
        for name, s in rows.items()
    ]


# -- screen and JSON ---------------------------------------------------------------------------------


def summary(record: Record) -> list[Part]:
    """The figures for the screen."""
    listed, causes, rows = goals(record.scores), record.scores.causes, tool_rows(record)
    titles = ("tool", "faulty: right", "faulty: found", "healthy: alarms", "borderline: alarms")
    parts: list[Part] = [
        Table(
            [
                Column("figure", [g.name for g in listed]),
                Column("count", [count(g.rate) for g in listed], right=True),
                Column("share (95 % interval)", [g.share for g in listed], right=True),
                Column("target", [g.target for g in listed], spare=1),
                Column("", [g.verdict for g in listed]),
            ]
        ),
        "",
        Table(
            [
                Column("cause", [c.code for c in causes]),
                Column("named first", [count(c.recall) for c in causes], right=True),
                Column("right when named", [count(c.precision) for c in causes], right=True),
                Column("fixed", [count(c.fixed) if c.fixed else "" for c in causes], right=True),
                Column("named instead", [instead(c.instead) for c in causes], cut=True),
            ]
        ),
        "",
        Table(
            [
                Column(title, [row[i] for row in rows], right=i > 0, spare=int(i == 2))
                for i, title in enumerate(titles)
            ]
        ),
    ]
    if wrong := record.wrong:
        parts += ["", line((f"{len(wrong)} of {record.trainings} verdicts are wrong:", "bold"))]
        parts += [
            line(f"  {w.name} ({w.data}): expected {w.expected}, got {w.described}", whole=True)
            for w in wrong[:MAX_SHOWN]
        ]
        if len(wrong) > MAX_SHOWN:
            parts.append(f"  and {len(wrong) - MAX_SHOWN} more")
    return parts


def controls(scores: Mapping[str, ControlScores]) -> list[Part]:
    """What controls did, for the screen."""
    shown = scores.values()
    return [
        Table(
            [
                Column("control", list(scores)),
                Column("healthy after the first training", [count(one.first) for one in shown]),
                Column("healthy in the end", [count(one.fixed) for one in shown]),
                Column("share (95 % interval)", [share(one.fixed) for one in shown], right=True),
            ]
        )
    ]


def as_plain(record: Record) -> dict[str, Any]:
    """The figures and the goals as JSON can hold them."""
    return {"goals": plain(goals(record.scores)), "record": plain(record)}


def write(path: Path, record: Record, results: Results | None = None) -> None:
    """Writes the figures, and the results of each training if they are given.

    Raises:
        UserError: the file cannot be written.
    """
    details: dict[str, Any] = {}
    if results is not None:
        about = surroundings()
        details = {"git": about["git"], "packages": about["packages"], "time": about["time"]}
        details |= {
            key: plain(getattr(results, key)) for key in ("verdicts", "trials", "tools", "without")
        }
    with writing(path):
        write_json(GuardedPath.of(path), {"schema": SCHEMA_VERSION, **as_plain(record), **details})
