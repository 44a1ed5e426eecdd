"""The figures of a benchmark run as plain data: written as JSON, and read again to generate the page."""

from __future__ import annotations

import time
import types
import typing
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.faults import tools
from benchmarks.faults.benchmark import Results
from benchmarks.faults.scoring import FixTrial, Scores, ShortScores, Verdict, diagnosis_scores, scores
from cae_cli import __version__
from cae_cli.runs.json_files import SCHEMA_VERSION as RUN_VERSION
from cae_cli.runs.json_files import read_json
from cae_cli.system.guarded import GuardedPath

SCHEMA_VERSION = 2
RECORDED = Path(__file__).with_name("results.json")  # the published run of the test part
LARGE = Path(__file__).with_name("results_large.json")  # that of the part large
HISTORY = Path(__file__).with_name("history.json")  # figures of earlier states of the rules


@dataclass(frozen=True)
class CaseRow:
    """A case: its number of trainings, and what it expects and why."""

    name: str
    trainings: int
    expected: str
    reason: str


@dataclass(frozen=True)
class Record:
    """The figures of a benchmark run.

    Attributes:
        part: of the benchmark.
        command: that produced them, without paths of the machine.
        code: version of cae and of its run folders.
        date: of the run, YYYY-MM-DD.
        trainings: number of diagnosed trainings.
        left_out: number of trainings without images, by the name of the missing file.
        images: number of trainings per source of images and expectation.
        scores: all figures.
        adjusted: cases that rules were changed for.
        unadjusted: the main figures without these cases.
        tools: the main figures of simpler tools, by name.
        without: the main figures without a group of metrics, by name.
        not_fixed_first: treated runs that the first fix did not make healthy.
        not_treated: fixable faulty runs without findings.
        wrong: verdicts that differ from what is expected.
        cases: all cases.
    """

    part: str
    command: str
    code: str
    date: str
    trainings: int
    left_out: Mapping[str, int]
    images: Mapping[str, Mapping[str, int]]
    scores: Scores
    adjusted: tuple[str, ...]
    unadjusted: ShortScores
    tools: Mapping[str, ShortScores]
    without: Mapping[str, ShortScores]
    not_fixed_first: tuple[FixTrial, ...]
    not_treated: tuple[str, ...]
    wrong: tuple[Verdict, ...]
    cases: tuple[CaseRow, ...]


def record(results: Results, command: str) -> Record:
    """The figures of a benchmark run.

    Args:
        results: of the run.
        command: that produced them.
    """
    verdicts, trials = results.verdicts, results.trials or ()
    of_case, first = Counter(v.case for v in verdicts), {v.case: v for v in reversed(verdicts)}
    treated = {trial.name for trial in trials}
    return Record(
        part=results.part,
        command=command,
        code=code(),
        date=time.strftime("%Y-%m-%d"),
        trainings=len(verdicts),
        left_out={Path(file).name: count for file, count in results.left_out.items()},
        images={
            data: Counter(v.expect for v in verdicts if v.data == data)
            for data in sorted({v.data for v in verdicts})
        },
        scores=scores(verdicts, results.trials),
        adjusted=tuple(sorted({v.case for v in verdicts if v.adjusted})),
        unadjusted=_short([v for v in verdicts if not v.adjusted]),
        tools={name: tools.scores(verdicts, symptoms) for name, symptoms in results.tools.items()},
        without={name: _short(own) for name, own in results.without.items()},
        not_fixed_first=tuple(
            trial
            for trial in sorted(trials, key=lambda trial: trial.fixes.fixed)
            if not trial.fixes.first
        ),
        not_treated=tuple(
            v.name
            for v in verdicts
            if results.trials is not None
            and v.expect == "faulty"
            and v.fixable
            and v.name not in treated
        ),
        wrong=tuple(v for v in verdicts if v.is_wrong),
        cases=tuple(
            CaseRow(name, of_case[name], v.expected, results.cases[name].reason)
            for name, v in sorted(first.items())
        ),
    )


def with_fixes_of(own: Record, earlier: Record) -> Record:
    """A record of diagnoses alone, with what fixes did to the trainings of an earlier record."""
    tried = earlier.scores.fixes
    assert tried is not None and own.scores.fixes is None
    fixed = {cause.code: cause.fixed for cause in earlier.scores.causes}
    measured = tried.measured or f"{earlier.date} with {earlier.code}"
    return replace(
        own,
        scores=replace(
            own.scores,
            fixes=replace(tried, measured=measured),
            causes=tuple(replace(cause, fixed=fixed.get(cause.code)) for cause in own.scores.causes),
        ),
        not_fixed_first=earlier.not_fixed_first,
        not_treated=earlier.not_treated,
    )


def code() -> str:
    """The state of the code: version of cae and of its run folders."""
    return f"cae {__version__}, run folders of version {RUN_VERSION}"


def _short(verdicts: Sequence[Verdict]) -> ShortScores:
    whole = diagnosis_scores(verdicts)
    return ShortScores(whole.right, whole.found, whole.healthy_alarms, whole.borderline_alarms)


def read(path: Path) -> Record:
    """Reads the record of a results file.

    Raises:
        UserError: the file cannot be read.
    """
    content: Record = restored(Record, read_json(GuardedPath.of(path))["record"])
    return content


def restored(kind: Any, value: Any) -> Any:
    """A dataclass, with those in it, from its plain form; the reverse of `runs.json_files.plain`.

    Fields that an older record lacks get their default.

    Args:
        kind: a dataclass, or the type of one of its fields.
        value: what JSON holds.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else restored(arguments[0], value)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = [f.name for f in fields(kind) if f.name in value]
        return kind(**{name: restored(hints[name], value[name]) for name in known})  # type: ignore[operator]
    if origin is tuple:
        return tuple(restored(arguments[0], item) for item in value)
    if origin is not None:  # a mapping
        return {key: restored(arguments[1], item) for key, item in value.items()}
    return value
