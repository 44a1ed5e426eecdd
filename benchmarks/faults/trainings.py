"""From cases to trainings that can be run, and from their run folders to verdicts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.faults.case import Case, Training
from benchmarks.faults.corruption import corrupted
from benchmarks.faults.scoring import Verdict
from cae_cli.diagnosis import Diagnosis
from cae_cli.diagnosis.finding import Severity
from cae_cli.errors import UserError, did_you_mean
from cae_cli.runs.folder import Run
from cae_cli.sweep.batch import BatchRun
from cae_cli.treatment.result import Result, result


@dataclass(frozen=True)
class Prepared:
    """A training with its overrides, except the seed."""

    training: Training
    overrides: tuple[str, ...]

    @property
    def wanted(self) -> BatchRun:
        """The training as a run of a batch."""
        return BatchRun(self.training.name, (*self.overrides, f"seed={self.training.seed}"))


@dataclass(frozen=True)
class Diagnosed:
    """A training that was run and diagnosed.

    Attributes:
        prepared: the training.
        result: its diagnosis, from the run folder.
        config: of the run; {} if there is no diagnosis.
        verdict: the diagnosis next to what the case expects.
    """

    prepared: Prepared
    result: Result
    config: Mapping[str, Any]
    verdict: Verdict


def chosen(cases: Sequence[Case], part: str, only: Sequence[str]) -> list[Training]:
    """The trainings of a part.

    Args:
        cases: all cases.
        part: one of `case.PARTS`.
        only: names of cases, or expected codes; empty for all.

    Raises:
        UserError: an unknown name, or no training is left.
    """
    known = {case.name for case in cases} | {code for case in cases for code in case.options.causes}
    for name in only:
        if name not in known:
            raise UserError(
                f"there is no case {name!r} and none that expects this code",
                where="command line: --only",
                hint=did_you_mean(name, known, "the cases are"),
            )
    trainings = [
        training
        for case in cases
        if not only or {case.name, *case.options.causes} & set(only)
        for training in case.trainings
        if training.part == part
    ]
    if not trainings:
        hint = "remove --only or choose another --part" if only else "choose another --part"
        raise UserError(f"no case has trainings in the part {part}", where="command line", hint=hint)
    return trainings


def with_images(trainings: Sequence[Training], data: Path) -> tuple[list[Training], dict[str, int]]:
    """The trainings whose images exist, and the number of the others by missing file."""
    missing = {training.source: training.source.missing(data) for training in trainings}
    usable = [training for training in trainings if missing[training.source] is None]
    return usable, dict(Counter(str(missing[t.source]) for t in trainings if missing[t.source]))


def prepared(trainings: Sequence[Training], data: Path, images: Path) -> list[Prepared]:
    """Trainings with their overrides; corrupted images are written.

    Args:
        trainings: whose images exist.
        data: folder of the image files.
        images: folder for corrupted images.

    Raises:
        UserError: wrong overrides or unreadable images; names the case.
    """
    made: dict[tuple[str, ...], tuple[str, ...]] = {}  # several seeds share the same images
    listed = []
    for training in trainings:
        overrides = training.overrides(data)
        if training.corrupt is not None:
            key = (training.corrupt, *overrides)
            try:
                if key not in made:
                    made[key] = corrupted(overrides, training.corrupt, images)
            except UserError as error:
                error.where = f"{training.case.file}: variants[{training.variant}]: {error.where or ''}"
                raise
            overrides = made[key]
        listed.append(Prepared(training, overrides))
    return listed


def diagnosed(training: Prepared, run: Run) -> Diagnosed:
    """Diagnoses a run from its files with the current rules; nothing is written."""
    outcome, expected = result(run), _expected(training.training)
    if outcome.diagnosis is None or outcome.metrics is None:
        failed = replace(expected, failed=outcome.reason or "the training did not finish")
        return Diagnosed(training, outcome, {}, failed)
    explained = outcome.metrics.quality.explained_variance
    measured = replace(
        expected,
        failing_criteria=tuple(outcome.failing),
        explained_variance=explained if math.isfinite(explained) else None,
    )
    verdict = with_diagnosis(measured, outcome.diagnosis)
    return Diagnosed(training, outcome, run.settings(), verdict)


def with_diagnosis(verdict: Verdict, diagnosis: Diagnosis) -> Verdict:
    """The verdict with the findings of a diagnosis."""
    named = diagnosis.causes
    return replace(
        verdict,
        named=tuple(f.code for f in named),
        findings=tuple(f.code for f in diagnosis.findings if f.severity is not Severity.NOTE),
        confidence=named[0].confidence.value if named else "",
        undecided=diagnosis.undecided,
    )


def _expected(training: Training) -> Verdict:
    case, options = training.case, training.case.options
    return Verdict(
        name=training.name,
        case=case.name,
        data=training.source.name + (f", {training.corrupt}" if training.corrupt else ""),
        expect=options.expect,
        causes=tuple(options.causes),
        second_fault=tuple(options.second_fault),
        fixable=options.fixable,
        adjusted=options.adjusted,
    )
