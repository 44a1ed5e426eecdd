"""The controls alone, for the faulty trainings that a recorded run treated.

A recorded run may lack controls that were added later. They need the trainings themselves and how many
trainings the fixes got, which is recorded, and not the fixes again.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.faults import benchmark, case_files, trainings
from benchmarks.faults.benchmark import Request
from benchmarks.faults.case import Training
from benchmarks.faults.record import Record, code
from benchmarks.faults.scoring import CONTROLS, ControlScores, rate
from cae_cli.errors import UserError, counted
from cae_cli.sweep import batch
from cae_cli.sweep.batch import BatchRun
from cae_cli.treatment.arm import Arm, GoodPractice, RandomControls

GROUP = 4  # faulty trainings at once; between groups the time is looked at


@dataclass(frozen=True)
class _RecordedFixes:
    """Stands for the arm of the fixes: only its number of trainings counts."""

    trainings: int

    def wanted(self) -> list[BatchRun]:
        """Nothing is left to train."""
        return []

    @property
    def tried(self) -> list[tuple[str, ...]]:
        """One change for each training; what it was does not count."""
        return [()] * self.trainings


def run(
    request: Request,
    recorded: Record,
    command: Sequence[str],
    notify: Callable[[str], None],
    budget: float = math.inf,
) -> dict[str, ControlScores]:
    """Trains random search and good practice for faulty trainings; finished runs are not trained again.

    The names of the runs are those of a whole benchmark run, so both share them.

    Args:
        request: cases, images and the folder of the runs.
        recorded: the run that treated the trainings.
        command: arguments of the command, for the files of the batch.
        notify: receives lines about the progress.
        budget: seconds after which no more of them are begun.

    Returns:
        What each control did, of the trainings that were finished.

    Raises:
        UserError: a case is wrong, or no training is left.
        Interrupted: by a signal; finished trainings are kept.
    """
    began = time.monotonic()
    prepared = trainings.prepared(_treated(request, recorded), request.data, request.out / "images")
    steps = {trial.name: trial.fixes.trainings for trial in recorded.not_fixed_first}
    tried: list[dict[str, Arm]] = []
    with batch.opened(request.out, command, n_jobs=request.n_jobs, pictures=False) as runner:
        for start in range(0, len(prepared), GROUP):
            notify(f"{start} of {counted(len(prepared), 'faulty training')} with controls")
            if time.monotonic() - began >= budget:
                notify("the time is used: run the same command to resume")
                break
            group = prepared[start : start + GROUP]
            runs = runner.train([training.wanted for training in group])
            diagnosed = [trainings.diagnosed(p, run) for p, run in zip(group, runs, strict=True)]
            arms = [
                _arms(one, steps.get(one.verdict.name, 1)) for one in diagnosed if one.verdict.is_alarm
            ]
            benchmark.finish([arm for own in arms for arm in own.values()], runner, notify)
            tried += arms
    measured = f"{time.strftime('%Y-%m-%d')} with {code()}"
    return {
        name: ControlScores(
            rate(arms[name].first_fixed for arms in tried),
            rate(arms[name].is_fixed for arms in tried),
            measured,
        )
        for name in CONTROLS
        if tried and name in tried[0]
    }


def merged(recorded: Record, found: Mapping[str, ControlScores]) -> Record:
    """The record with the controls that it lacks, and with newer figures of those that it has."""
    fixes = recorded.scores.fixes
    assert fixes is not None
    controls = {**fixes.controls, **found}
    ordered = {name: controls[name] for name in CONTROLS if name in controls}
    return replace(recorded, scores=replace(recorded.scores, fixes=replace(fixes, controls=ordered)))


def _treated(request: Request, recorded: Record) -> list[Training]:
    """The trainings that the recorded run treated, in an order that says nothing about their case.

    So those that there was time for stand for all.
    """
    cases = case_files.read(request.cases)
    known = {case.name for case in recorded.cases}
    wanted = [
        training
        for training in trainings.chosen(cases, request.part, request.only)
        if training.case.name in known
        and training.case.options.expect == "faulty"
        and training.case.options.fixable
        and training.name not in recorded.not_treated
    ]
    usable, _ = trainings.with_images(wanted, request.data)
    if not usable:
        raise UserError(
            "no faulty training of the record has its images",
            where=request.data,
            hint="use --data FOLDER",
        )
    return sorted(usable, key=lambda training: zlib.crc32(training.name.encode()))


def _arms(one: trainings.Diagnosed, steps: int) -> dict[str, Arm]:
    search = RandomControls(benchmark.random_control(one), _RecordedFixes(steps), search=True)
    return {
        "random search": benchmark.arm(one, "random search", search),
        "good practice": benchmark.arm(one, "good practice", GoodPractice()),
    }
