"""The clinic: how well sick trainings are told from healthy ones, and cured. READ THIS FIRST.

    cases -> patients -> trainings -> judged -> by others, and with less to look at -> treated -> scored

Patients are trainings whose state is known beforehand: made sick on purpose, healthy, or at the border
(`cases`, `case_files`, `corruption`). What is said of them is compared with what is known (`scoring`); so
is what simpler tools would say (`baselines`), and what is left when some measures are taken away
(`ablation`). Sick ones are treated by their fixes, and by random controls
(`cae_cli.treatment`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import ablation, case_files, scoring, tools, trainings
from benchmarks.faults.scoring import Judged, Scores, Treated
from benchmarks.faults.trainings import Looked
from cae_cli.errors import UserError
from cae_cli.sweep import batch
from cae_cli.sweep.batch import Batch
from cae_cli.treatment.arm import Arm, Fixes, RandomControls, Step
from cae_cli.treatment.control import RandomControl

ROUNDS = 3  # of fixes


@dataclass(frozen=True)
class Request:
    """What is to be examined.

    Attributes:
        cases: files, or folders of them.
        part: one of `cases.PARTS`.
        data: folder of the data.
        out: folder of the trainings, the same every time.
        only: names of cases, or codes; empty for all.
        treat: whether sick patients are treated.
        n_jobs: trainings at once; None: as many as are fastest.
    """

    cases: tuple[Path, ...]
    part: str
    data: Path
    out: Path
    only: tuple[str, ...] = ()
    treat: bool = True
    n_jobs: int | None = None


@dataclass(frozen=True)
class Results:
    """What an examination found.

    Attributes:
        part: that was examined.
        why: what each case is, by its name.
        left_out: how many trainings were left out, by the file of images that is not there.
        judged: each patient.
        treated: those that were treated; None if none was meant to be.
        guesses: what each simpler tool says of each patient, in the order of `judged`, by its name.
        less: the patients as they are judged without a group of measures, by its name.
        scores: the figures.
    """

    part: str
    why: Mapping[str, str]
    left_out: Mapping[str, int]
    judged: tuple[Judged, ...]
    treated: tuple[Treated, ...] | None
    guesses: Mapping[str, tuple[tools.Guess, ...]]
    less: Mapping[str, tuple[Judged, ...]]
    scores: Scores


def examine(request: Request, command: Sequence[str], say: Callable[[str], None]) -> Results:
    """Trains what is not trained yet, judges all of it anew, treats, scores.

    Args:
        request: what is to be examined.
        command: words of the command that asks for it.
        say: tells how it goes.

    Raises:
        UserError: a case is wrong, or nothing can be examined.
        Interrupted: by a signal; what is trained is not trained again.
    """
    known = case_files.read(request.cases)
    asked = trainings.chosen(known, request.part, request.only)
    there, left_out = trainings.with_data(asked, request.data)
    for file, count in left_out.items():
        left = f"{count} training{'' if count == 1 else 's'} left out"
        say(f"! {left}: {file} is not there (--data says where images are)")
    if not there:
        raise UserError("none of the images are there", where=request.data, hint="--data DIR")
    admitted = trainings.admitted(there, request.data, request.out / "images")
    with batch.opened(request.out, command, n_jobs=request.n_jobs, pictures=False) as runner:
        there_are = f"{len(admitted)} patient{'' if len(admitted) == 1 else 's'}"
        say(f"{there_are} of the part {request.part}, in {request.out}")
        runs = runner.train([patient.wanted for patient in admitted])
        looked = [trainings.look(p, run) for p, run in zip(admitted, runs, strict=True)]
        judged = tuple(one.judged for one in looked)
        guesses = tools.all_guesses(looked)
        less = ablation.all_judged(looked)
        treated = treat(looked, runner, say) if request.treat else None
    return Results(
        part=request.part,
        why={one.patient.training.case.name: one.patient.training.case.why for one in looked},
        left_out=left_out,
        judged=judged,
        treated=treated,
        guesses=guesses,
        less=less,
        scores=scoring.scores(judged, treated),
    )


def treat(looked: Sequence[Looked], runner: Batch, say: Callable[[str], None]) -> tuple[Treated, ...]:
    """Treats the sick in whom anything was found: by fix, and by chance beside.

    All of them are treated at once, a step of each at a time.
    """
    sick = [
        one
        for one in looked
        if one.judged.expect == "sick" and one.judged.treatable and one.judged.alarmed
    ]
    say(f"{len(sick)} patients are treated, and get a random control beside")
    pairs = {one.judged.name: _arms(one) for one in sick}
    arms = [arm for pair in pairs.values() for arm in pair]
    for number in range(1, ROUNDS + 1):
        wanted = {id(arm): arm.wanted() for arm in arms}
        if not any(wanted.values()):
            break
        say(f"treatment, step {number} of {ROUNDS} at most: {sum(map(bool, wanted.values()))} trainings")
        runs = iter(runner.train([one for arm in arms for one in wanted[id(arm)]]))
        for arm in arms:
            if wanted[id(arm)]:
                arm.take([next(runs) for _ in wanted[id(arm)]])
    return tuple(_treated(name, *pair) for name, pair in pairs.items())


def _arms(one: Looked) -> tuple[Arm, Arm]:
    name, seed = one.judged.name, one.patient.training.seed
    words, before, seeds = one.patient.words, [one.result], [seed]
    cure = Arm(f"{name}.treat", words, before, seeds, Fixes(), ROUNDS, batch.checked)
    chance = RandomControls(RandomControl(zlib.crc32(name.encode())), cure)
    return cure, Arm(f"{name}.control", words, before, seeds, chance, ROUNDS, batch.checked)


def _treated(name: str, cure: Arm, control: Arm) -> Treated:
    return Treated(
        name,
        first=cure.first_cured,
        cured=cure.is_cured,
        control_first=control.first_cured,
        control=control.is_cured,
        trainings=cure.trainings,
        control_trainings=control.trainings,
        later=tuple(sorted({code for step in cure.steps for r in step.results for code in r.codes})),
        steps=tuple(map(_in_words, cure.steps)),
        control_steps=tuple(map(_in_words, control.steps)),
    )


def _in_words(step: Step) -> str:
    """What a step changed, and what it came to."""
    [result] = step.results
    came_to = "healthy" if result.healthy else ", ".join([*sorted(result.codes), *result.failing])
    return f"{' '.join(step.overrides)} → {came_to or result.reason or 'cannot tell'}"
