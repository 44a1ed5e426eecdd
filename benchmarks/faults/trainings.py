"""From cases to trainings that can be run, and from their files to what is said of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.faults.case import Case, Training
from benchmarks.faults.corruption import corrupted
from benchmarks.faults.scoring import Judged
from cae_cli.diagnosis import Diagnosis
from cae_cli.diagnosis.finding import Severity
from cae_cli.diagnosis.health import causes
from cae_cli.errors import UserError, did_you_mean
from cae_cli.runs.folder import Run
from cae_cli.sweep.batch import Wanted
from cae_cli.treatment.arm import Result, result


@dataclass(frozen=True)
class Patient:
    """A training with the words that make it.

    Attributes:
        training: of a case.
        words: all overrides but the seed's.
    """

    training: Training
    words: tuple[str, ...]

    @property
    def wanted(self) -> Wanted:
        """For a batch."""
        return Wanted(self.training.name, (*self.words, f"seed={self.training.seed}"))


@dataclass(frozen=True)
class Looked:
    """A patient that was looked at.

    Attributes:
        patient: that was.
        result: its training, judged from its files.
        config: of its run; {} where it did not come that far.
        judged: what was said of it.
    """

    patient: Patient
    result: Result
    config: Mapping[str, Any]
    judged: Judged


def chosen(cases: Sequence[Case], part: str, only: Sequence[str]) -> list[Training]:
    """The trainings of a part.

    Args:
        cases: all.
        part: one of `cases.PARTS`.
        only: names of cases, or codes that are expected; empty for all.

    Raises:
        UserError: a name that is none, or nothing is left.
    """
    known = {case.name for case in cases} | {code for case in cases for code in case.causes}
    for name in only:
        if name not in known:
            raise UserError(
                f"there is no case {name!r}, nor one that expects it",
                where="command line: --only",
                hint=did_you_mean(name, known, "the cases are"),
            )
    trainings = [
        training
        for case in cases
        if not only or {case.name, *case.causes} & set(only)
        for training in case.trainings
        if training.part == part
    ]
    if not trainings:
        raise UserError(
            f"no case has a training of the part {part}",
            where="command line",
            hint="python -m benchmarks.faults --help"
            if not only
            else "leave out --only, or take another --part",
        )
    return trainings


def with_data(trainings: Sequence[Training], data: Path) -> tuple[list[Training], dict[str, int]]:
    """Those whose images are there, and how many are not, by what is missing."""
    missing = {t.source: t.source.missing(data) for t in trainings}
    there = [t for t in trainings if missing[t.source] is None]
    return there, dict(Counter(str(missing[t.source]) for t in trainings if missing[t.source]))


def admitted(trainings: Sequence[Training], data: Path, images: Path) -> list[Patient]:
    """Trainings with their words; spoiled images are written.

    Args:
        trainings: whose images are there.
        data: folder of the data.
        images: folder of spoiled images.

    Raises:
        UserError: the words of one are wrong, or its images cannot be read; names its case.
    """
    made: dict[tuple[str, ...], tuple[str, ...]] = {}  # of many seeds once
    patients = []
    for training in trainings:
        words = training.words(data)
        if training.corrupt is not None:
            key = (training.corrupt, *words)
            try:
                if key not in made:
                    made[key] = corrupted(words, training.corrupt, images)
            except UserError as error:
                error.where = f"{training.case.file}: variants[{training.number}]: {error.where or ''}"
                raise
            words = made[key]
        patients.append(Patient(training, words))
    return patients


def look(patient: Patient, run: Run) -> Looked:
    """Judges a patient from its files, with today's rules; nothing is written."""
    found = result(run)
    if found.diagnosis is None or found.metrics is None:
        judged = replace(_inactive(patient), failed=found.reason or "it came to no end")
        return Looked(patient, found, {}, judged)
    explained = found.metrics.quality.explained_variance
    known = replace(
        _inactive(patient),
        amiss=tuple(found.failing),
        explained=explained if math.isfinite(explained) else None,
    )
    return Looked(patient, found, run.settings(), said(known, found.diagnosis))


def said(known: Judged, diagnosis: Diagnosis) -> Judged:
    """What a diagnosis says of a patient.

    Args:
        known: the patient.
        diagnosis: of its run.
    """
    named = causes(diagnosis)
    return replace(
        known,
        named=tuple(f.code for f in named),
        found=tuple(f.code for f in diagnosis.findings if f.severity is not Severity.NOTE),
        confidence=named[0].confidence.value if named else "",
        undecided=diagnosis.undecided,
    )


def _inactive(patient: Patient) -> Judged:
    training, case = patient.training, patient.training.case
    return Judged(
        name=training.name,
        case=case.name,
        data=training.source.name + (f", {training.corrupt}" if training.corrupt else ""),
        expect=case.expect,
        causes=case.causes,
        also=case.also,
        treatable=case.treatable,
        blind=case.blind,
    )
