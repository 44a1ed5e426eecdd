"""Runs the fault benchmark. READ THIS FIRST: `run` has the steps in order."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import ablation, case_files, tools, trainings
from benchmarks.faults.case import Case
from benchmarks.faults.scoring import CONTROLS, FixTrial, Tried, Verdict
from benchmarks.faults.trainings import Diagnosed
from cae_cli.errors import UserError, counted
from cae_cli.sweep import batch
from cae_cli.sweep.batch import Batch
from cae_cli.treatment.arm import Arm, Fixes, GoodPractice, Proposer, RandomControls, Step
from cae_cli.treatment.random_control import RandomControl

MAX_STEPS = 3  # of fixes per run


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        cases: files, or folders of them.
        part: one of `case.PARTS`.
        data: folder of the image files.
        out: folder of the runs; finished runs in it are not trained again.
        only: names of cases, or codes; empty for all.
        fix: whether the fixes of faulty runs are tried.
        n_jobs: trainings at once; None: as many as are fastest.
    """

    cases: tuple[Path, ...]
    part: str
    data: Path
    out: Path
    only: tuple[str, ...] = ()
    fix: bool = True
    n_jobs: int | None = None


@dataclass(frozen=True)
class Results:
    """What a benchmark run produced.

    Attributes:
        part: that was run.
        cases: by name; those with a training that was run.
        left_out: number of trainings that were left out, by missing file of images.
        verdicts: one per training.
        trials: of the fixes; None if they were not tried.
        tools: symptoms that each simpler tool reports, by its name, in the order of the verdicts.
        without: verdicts without each group of metrics, by its name.
    """

    part: str
    cases: Mapping[str, Case]
    left_out: Mapping[str, int]
    verdicts: tuple[Verdict, ...]
    trials: tuple[FixTrial, ...] | None
    tools: Mapping[str, tuple[tools.Symptoms, ...]]
    without: Mapping[str, tuple[Verdict, ...]]


def run(request: Request, command: Sequence[str], notify: Callable[[str], None]) -> Results:
    """Trains what is not trained yet, diagnoses all runs with the current rules, and tries the fixes.

    Args:
        request: what to run.
        command: arguments of the command, for the files of the batch.
        notify: receives lines about the progress.

    Raises:
        UserError: a case is wrong, or there are no images at all.
        Interrupted: by a signal; finished trainings are kept.
    """
    cases = case_files.read(request.cases)
    requested = trainings.chosen(cases, request.part, request.only)
    usable, left_out = trainings.with_images(requested, request.data)
    for file, count in left_out.items():
        notify(
            f"! {counted(count, 'training')} left out: {file} does not exist (--data sets the folder)"
        )
    if not usable:
        raise UserError("no training has its images", where=request.data, hint="use --data FOLDER")
    prepared = trainings.prepared(usable, request.data, request.out / "images")
    with batch.opened(request.out, command, n_jobs=request.n_jobs, pictures=False) as runner:
        notify(f"{counted(len(prepared), 'training')} of the part {request.part}, in {request.out}")
        runs = runner.train([training.wanted for training in prepared])
        diagnosed = [trainings.diagnosed(p, run) for p, run in zip(prepared, runs, strict=True)]
        trials = try_fixes(diagnosed, runner, notify) if request.fix else None
    return Results(
        part=request.part,
        cases={training.case.name: training.case for training in usable},
        left_out=left_out,
        verdicts=tuple(one.verdict for one in diagnosed),
        trials=trials,
        tools=tools.symptoms(diagnosed),
        without=ablation.verdicts(diagnosed),
    )


def try_fixes(
    diagnosed: Sequence[Diagnosed], runner: Batch, notify: Callable[[str], None]
) -> tuple[FixTrial, ...]:
    """Trains faulty runs with findings again: with their fixes, and with each of `CONTROLS`.

    Each step is trained for all of them at once.
    """
    faulty = [
        one
        for one in diagnosed
        if one.verdict.expect == "faulty" and one.verdict.fixable and one.verdict.is_alarm
    ]
    notify(f"fixes of {len(faulty)} faulty runs are tried, each with controls: {', '.join(CONTROLS)}")
    tried = {one.verdict.name: _arms(one) for one in faulty}
    finish([arm for own in tried.values() for arm in own.values()], runner, notify)
    return tuple(_trial(one.verdict, tried[one.verdict.name]) for one in faulty)


def finish(arms: Sequence[Arm], runner: Batch, notify: Callable[[str], None]) -> None:
    """Trains what arms want, each step for all of them at once."""
    for number in range(1, MAX_STEPS + 1):
        wanted = {id(arm): arm.wanted() for arm in arms}
        if not any(wanted.values()):
            break
        count = counted(sum(map(len, wanted.values())), "training")
        notify(f"fixes, step {number} of at most {MAX_STEPS}: {count}")
        runs = iter(runner.train([one for arm in arms for one in wanted[id(arm)]]))
        for arm in arms:
            if wanted[id(arm)]:
                arm.take([next(runs) for _ in wanted[id(arm)]])


FIXES = "treat"  # the name of their arm


def _arms(one: Diagnosed) -> dict[str, Arm]:
    """The arm of the fixes, and that of each control."""
    fixes, random = arm(one, FIXES, Fixes()), random_control(one)
    proposers: tuple[Proposer, ...] = (
        RandomControls(random, fixes),
        RandomControls(random, fixes, search=True),
        GoodPractice(),
    )
    controls = {of: arm(one, of, proposer) for of, proposer in zip(CONTROLS, proposers, strict=True)}
    return {FIXES: fixes, **controls}


def arm(one: Diagnosed, of: str, proposer: Proposer) -> Arm:
    """An arm of a faulty run.

    Args:
        one: the run.
        of: `FIXES`, or a name of `CONTROLS`.
        proposer: proposes its changes.
    """
    name, seed = f"{one.verdict.name}.{of.replace(' ', '_')}", one.prepared.training.seed
    return Arm(name, one.prepared.overrides, [one.result], [seed], proposer, MAX_STEPS, batch.checked)


def random_control(one: Diagnosed) -> RandomControl:
    """The random changes of a faulty run, always the same ones."""
    return RandomControl(zlib.crc32(one.verdict.name.encode()))


def _trial(verdict: Verdict, arms: Mapping[str, Arm]) -> FixTrial:
    fixes = arms[FIXES]
    return FixTrial(
        verdict.name,
        verdict.named,
        fixes=_tried(fixes),
        controls={name: _tried(arms[name]) for name in CONTROLS},
        later=tuple(sorted({code for step in fixes.steps for r in step.results for code in r.codes})),
    )


def _tried(arm: Arm) -> Tried:
    return Tried(arm.first_fixed, arm.is_fixed, arm.trainings, tuple(map(_described, arm.steps)))


def _described(step: Step) -> str:
    """The overrides of a step and their result."""
    [result] = step.results
    outcome = "healthy" if result.healthy else ", ".join([*sorted(result.codes), *result.failing])
    return f"{' '.join(step.change)} → {outcome or result.reason or 'undecided'}"
