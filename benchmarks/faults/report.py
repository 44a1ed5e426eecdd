"""What an examination found, beside what it was meant to find: on the screen and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from benchmarks.faults import scoring, tools
from benchmarks.faults.scoring import Judged, Rate
from cae_cli.report import comparison
from cae_cli.report.comparison import Column
from cae_cli.runs.folder import plain, surroundings, write_json
from cae_cli.system.files import writing

if TYPE_CHECKING:
    from benchmarks.faults import Results

SCHEMA_VERSION = 1
FEWEST_HEALTHY = 60
MOST_SHOWN = 20  # wrong ones, on the screen


@dataclass(frozen=True)
class Goal:
    """A figure beside what it is meant to be.

    Attributes:
        name: what is counted.
        rate: how often.
        wanted: in words; "" where nothing is.
        met: whether it is; None where nothing is wanted, or nothing was counted.
    """

    name: str
    rate: Rate
    wanted: str = ""
    met: bool | None = None

    @property
    def verdict(self) -> str:
        """Met, missed, or nothing."""
        return {None: "", True: "met", False: "missed"}[self.met]


def _goal(name: str, rate: Rate, wanted: str, is_met: bool) -> Goal:
    return Goal(name, rate, wanted, is_met if rate.of else None)


def goals(results: Results) -> list[Goal]:
    """The figures that matter, with what they are meant to be."""
    told, cures = results.scores.diagnosing, results.scores.cures
    alarms = told.false_wrongly
    listed = [
        _goal("sick: right cause named first", told.right, "95 % at least", told.right.share >= 0.95),
        Goal("sick: right cause found at all", told.right_anywhere),
        Goal("sick: anything found", told.found),
        Goal("sick with a second fault: it is found too", told.second),
        Goal("healthy: alarms", told.false_alarms),
        # Of fewer than 60 patients without an alarm nothing follows yet.
        Goal(
            "healthy by every fixed criterion: alarms",
            alarms,
            "none, of 60 at least",
            False if alarms.count else True if alarms.of >= FEWEST_HEALTHY else None,
        ),
        Goal("at the border: alarms", told.border_alarms),
        _goal(
            "at the border, every fixed criterion holds: alarms",
            told.border_wrongly,
            "5 % at most",
            told.border_wrongly.share <= 0.05,
        ),
        Goal("no verdict: cannot tell", told.unsure),
        Goal("could not be judged", told.failed),
        Goal("sick: a fixed criterion fails as well", told.amiss_sick),
        Goal("healthy: a fixed criterion fails", told.amiss_healthy),
    ]
    if cures is not None:
        listed += [
            _goal(
                "treatable: cured by the first fix",
                cures.first,
                "85 % at least",
                cures.first.share >= 0.85,
            ),
            Goal("treatable, one fault: cured by the first fix", cures.first_of_one),
            _goal(
                "treatable: cured by a treatment",
                cures.cured,
                "95 % at least",
                cures.cured.share >= 0.95,
            ),
            Goal("treated: cured by a treatment", cures.cured_of_treated),
            Goal("treated: cured by the first random change", cures.control_first),
            _goal(
                "treated: cured by as many random changes",
                cures.control,
                "below 25 %",
                cures.control.share < 0.25,
            ),
        ]
    return [goal for goal in listed if goal.rate.of]


# -- words -----------------------------------------------------------------------------------------


def of(rate: Rate) -> str:
    """A count, "38 of 40"."""
    return f"{rate.count} of {rate.of}" if rate.of else "–"


def share(rate: Rate) -> str:
    """A share with its interval, "95 % (84 to 99)"."""
    if not rate.of:
        return "–"
    return f"{rate.share:.0%} ({100 * rate.low:.0f} to {100 * rate.high:.0f})".replace("%", " %")


def instead(counts: Mapping[str, int]) -> str:
    """What was said instead, and how often."""
    return ", ".join(f"{code} {count}×" for code, count in counts.items())


def said(patient: Judged) -> str:
    """What was said of a patient that is wrong."""
    named = ", ".join(patient.named) or patient.first
    if patient.failed:
        named += f": {patient.failed}"
    if patient.right_anywhere and patient.expect == "sick":
        named += "; the right one is found behind it"
    return named


# -- screen, JSON ------------------------------------------------------------------------------------


def summary(results: Results) -> list[RenderableType]:
    """The figures, to be shown on the screen."""
    parts: list[RenderableType] = [_of_goals(goals(results))]
    parts += [Text(""), _of_causes(results.scores.causes), Text(""), _of_tools(results)]
    wrong = results.scores.wrong
    if wrong:
        parts += [Text(""), Text(f"{len(wrong)} of {len(results.judged)} judged wrong:", "bold")]
        parts += [Text(f"  {_line(patient)}", no_wrap=True) for patient in wrong[:MOST_SHOWN]]
        if len(wrong) > MOST_SHOWN:
            parts.append(Text(f"  and {len(wrong) - MOST_SHOWN} more"))
    return parts


def _line(patient: Judged) -> str:
    expected = " or ".join(patient.causes) or patient.expect
    return f"{patient.name} ({patient.data}): expected {expected}, said {said(patient)}"


def _of_goals(listed: Sequence[Goal]) -> Text:
    return comparison.table(
        [
            Column("figure", [g.name for g in listed]),
            Column("count", [of(g.rate) for g in listed], right=True),
            Column("share (95 % interval)", [share(g.rate) for g in listed], right=True),
            Column("wanted", [g.wanted for g in listed], spare=True),
            Column("", [g.verdict for g in listed]),
        ]
    )


def _of_causes(causes: Sequence[scoring.PerCause]) -> Text:
    return comparison.table(
        [
            Column("cause", [c.code for c in causes]),
            Column("named first", [of(c.recall) for c in causes], right=True),
            Column("right when named", [of(c.precision) for c in causes], right=True),
            Column("cured", [of(c.cured) if c.cured and c.cured.of else "" for c in causes], right=True),
            Column("instead", [instead(c.instead) for c in causes], cut=True),
        ]
    )


def _of_tools(results: Results) -> Text:
    rows = tool_rows(results)
    columns = ("tool", "sick: right", "sick: found", "healthy: alarms", "border: alarms")
    return comparison.table(
        [
            Column(title, [row[i] for row in rows], right=i > 0, spare=i == 2)
            for i, title in enumerate(columns)
        ]
    )


def tool_rows(results: Results) -> list[tuple[str, str, str, str, str]]:
    """This tool and simpler ones: right, found, alarms of the healthy and of those at the border."""
    told = results.scores.diagnosing
    rows = [
        ("cae", told.right, told.found, told.false_alarms, told.border_alarms),
        *(
            (name, f.right, f.found, f.false_alarms, f.border_alarms)
            for name, f in _figures(results).items()
        ),
    ]
    return [(name, of(a), of(b), of(c), of(d)) for name, a, b, c, d in rows]


def _figures(results: Results) -> dict[str, tools.Figures]:
    return {name: tools.figures(results.judged, g) for name, g in results.guesses.items()}


def as_plain(results: Results) -> dict[str, Any]:
    """Everything that was found, and the figures, as JSON can hold it."""
    return {
        **plain(results),
        "goals": plain(goals(results)),
        "tools": plain(_figures(results)),
        "without": {name: plain(scoring.diagnosing(j)) for name, j in results.less.items()},
    }


def as_json(results: Results) -> str:
    """The figures, without the patients one by one."""
    told = as_plain(results)
    kept = ("part", "left_out", "goals", "scores", "tools", "without")
    return json.dumps({key: told[key] for key in kept}, indent=2, ensure_ascii=False)


def write(results: Results, path: Path, command: Sequence[str]) -> None:
    """Writes all of it beside the trainings.

    Raises:
        UserError: it cannot be written.
    """
    around = surroundings()
    made = {key: around[key] for key in ("git", "packages", "time")}
    with writing(path):
        content = {"schema": SCHEMA_VERSION, "command": list(command), **made, **as_plain(results)}
        write_json(path, content)
