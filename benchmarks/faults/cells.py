"""The recorded parts as one page of HTML, whose matrix leads to the cases behind each cell.

``python -m benchmarks.faults.cells faults.html``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from benchmarks.faults import record
from benchmarks.faults.scoring import NO_RULE, NONE, Confusion, Verdict, confusion
from cae_cli.diagnosis import RULES
from cae_cli.report.page import shell
from cae_cli.report.page.content import environment
from cae_cli.system.files import typed, writing
from cae_cli.system.guarded import GuardedPath

WITHOUT_CAUSE = ("healthy", "borderline")

TEMPLATE = Path(__file__).with_suffix(".html")

Pair = tuple[str, str]  # what is expected, and what is named first
Behind = dict[Pair, list[tuple[str, str]]]  # name and text of the cases or trainings of each cell


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        anchor, title: of its section.
        intro: where its figures come from.
        confusion: the counts.
        behind: what each cell consists of.
    """

    anchor: str
    title: str
    intro: str
    confusion: Confusion
    behind: Behind


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page of the published records.

    Raises:
        UserError: it cannot be written, or a record cannot be read.
    """
    from benchmarks.faults.outside import page as outside  # imports Keras

    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.cells", description=__doc__)
    parser.add_argument("file", type=typed, help="the HTML file that is written")
    path: Path = parser.parse_args(arguments).file
    parts = [inside(record.read(record.RECORDED))]
    for now, _ in outside.recorded():
        known = [
            (one.mutant.described, one.verdict) for one in now.judged if one.verdict in now.verdicts
        ]
        intro = (
            f"Published operators in plain Keras scripts, draw {now.seed} of {now.date}: "
            f"{len(known)} trainings. Borderline: mutants that are not killed."
        )
        parts.append(of_verdicts(f"outside-{now.seed}", f"Outside part, draw {now.seed}", intro, known))
    with writing(path), GuardedPath.of(path).atomic() as temporary:
        temporary.write_text(html(parts), encoding="utf-8")
    return 0


def inside(shown: record.Record) -> Part:
    """The part with the built-in faults: right trainings by case, wrong ones by name."""
    behind: Behind = {}
    for case in shown.cases:
        row = case.expected.split(" or ")[0]
        cell = (row, NONE if row in WITHOUT_CAUSE else row)
        right = case.trainings - sum(v.case == case.name for v in shown.wrong)
        text = f"{right} of {case.trainings} trainings. Accepted: {case.expected}. {case.reason}"
        behind.setdefault(cell, []).extend([(case.name, text)] if right else [])
    for verdict in shown.wrong:
        behind.setdefault(_cell(verdict), []).append((verdict.name, _told(verdict)))
    intro = (
        f"Faults that are built in on purpose, part {shown.part} of {shown.date}: "
        f"{shown.trainings} trainings."
    )
    return Part("inside", "Inside part", intro, shown.scores.confusion, behind)


def of_verdicts(anchor: str, title: str, intro: str, verdicts: Iterable[tuple[str, Verdict]]) -> Part:
    """A part whose verdicts are all known, each with what was trained in words."""
    known, behind = list(verdicts), Behind()
    for words, verdict in known:
        behind.setdefault(_cell(verdict), []).append((words, _told(verdict)))
    return Part(anchor, title, intro, confusion([verdict for _, verdict in known]), behind)


def _cell(verdict: Verdict) -> Pair:
    [row] = confusion([verdict]).expected
    return row, verdict.causes[0] if verdict.is_right else verdict.first


def _told(verdict: Verdict) -> str:
    failing = f"; criteria that fail: {', '.join(verdict.failing_criteria)}" * bool(
        verdict.failing_criteria
    )
    return f"expected {verdict.expected}, named {verdict.described}{failing}"


def html(parts: Sequence[Part]) -> str:
    """The page."""
    problems = {rule.code: rule.problem for rule in RULES} | {NO_RULE: "a fault that is named by"}
    sections = []
    for part in parts:
        counts = zip(part.confusion.expected, part.confusion.counts, strict=True)
        rows = [
            {
                "name": name,
                "problem": problems.get(name, ""),
                "cells": [
                    {
                        "count": count,
                        "named": column,
                        "right": column == (NONE if name in WITHOUT_CAUSE else name),
                        "anchor": f"{part.anchor}-{name}-{column}".replace(" ", "-"),
                        "behind": part.behind.get((name, column), []),
                    }
                    for column, count in zip(part.confusion.named, own, strict=True)
                ],
            }
            for name, own in counts
        ]
        template = environment().from_string(TEMPLATE.read_text(encoding="utf-8"))
        text = template.render(intro=part.intro, rows=rows, named=part.confusion.named)
        sections.append((part.anchor, part.title, Markup(text)))
    return shell("Fault benchmark", sections)


if __name__ == "__main__":
    sys.exit(main())
