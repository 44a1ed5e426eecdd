"""Runs the outside part. READ THIS FIRST: `run` has the steps in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.faults.outside import (
    alternatives,
    draw,
    judge,
    processes,
    repairs,
    training,
    worker,
)
from benchmarks.faults.outside.draw import MUTANTS, Mutant
from benchmarks.faults.outside.judge import Judged
from benchmarks.faults.outside.training import BASES
from benchmarks.faults.outside.worker import Job, Result
from cae_cli.errors import UserError, counted
from cae_cli.report.numbers import duration
from cae_cli.system.files import make

SEEDS = 5  # of each mutant and of each original
# Trainings until the processes are replaced, so that they do not grow for hours. The pool's own way to
# do that, max_tasks_per_child, leaves it without processes in Python 3.11.
PER_POOL = 60
REPAIRS_PER_POOL = 8  # mutants with fixes tried, each with dozens of trainings
SMOKE_BASES = ("dense", "digits")  # their images need no file


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        seed: of the draw.
        data: folder of the image files.
        out: folder of the results and run folders; what is in it is not trained again.
        n_mutants: how many of the draw.
        n_seeds: trainings of each, at least two.
        bases: names of scripts.
        epochs: at most; None for those of the scripts.
        n_jobs: trainings at once, with one thread each; None: one for each processor.
        try_fixes: seconds for which edits are tried on each killed mutant; None: none are tried.
    """

    seed: int
    data: Path
    out: Path
    n_mutants: int = MUTANTS
    n_seeds: int = SEEDS
    bases: Sequence[str] = BASES
    epochs: int | None = None
    n_jobs: int | None = None
    try_fixes: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether this is a draw as it is recorded."""
        return (self.n_mutants, tuple(self.bases), self.epochs) == (MUTANTS, BASES, None)


def whole(seed: int, data: Path, out: Path, n_jobs: int | None = None) -> Request:
    """A whole draw."""
    return Request(seed, data, out, n_jobs=n_jobs)


def smoke(seed: int, data: Path, out: Path, n_jobs: int | None = None) -> Request:
    """A small run that shows whether everything works, and nothing about the diagnosis."""
    return Request(seed, data, out, n_mutants=4, n_seeds=2, bases=SMOKE_BASES, epochs=4, n_jobs=n_jobs)


def run(request: Request, notify: Callable[[str], None], *, train: bool = True) -> list[Judged]:
    """Trains what is not trained yet, and judges everything that is complete with the current rules.

    Mutant by mutant, so that what is there after an interruption is a whole as well.

    Args:
        request: what to run.
        notify: receives lines about the progress.
        train: whether what is missing is trained; else it is left out.

    Returns:
        Originals and mutants whose trainings are complete, originals first.

    Raises:
        UserError: an image file cannot be read, or the system ended a training.
        Interrupted: by a signal; trainings in progress are lost.
    """
    mutants = drawn(request, notify)
    if train:
        _train(request, mutants, notify)
    judged = [_with_trial(request, one) for one in _judged(request, mutants)]
    if train and request.try_fixes:
        _repair(request, judged, request.try_fixes, notify)
    return [_with_repair(request, one) for one in judged]


def drawn(request: Request, notify: Callable[[str], None]) -> list[Mutant]:
    """The mutants of the draw: recorded, or drawn now and kept beside the results."""
    names = [draw.file_of(request.seed)] if request.is_whole else []
    size = f"{request.n_mutants}_{len(request.bases)}"
    names.append(request.out / f"draw_{request.seed}_{size}.json")
    for name in names:
        if name.exists():
            return draw.read(name)
    notify(f"drawing {request.n_mutants} mutants with the seed {request.seed}")
    _check_images(request)
    mutants = draw.draw(
        request.seed, request.data, count=request.n_mutants, bases=request.bases, notify=notify
    )
    draw.write(names[-1], request.seed, mutants)
    return mutants


def _check_images(request: Request) -> None:
    """Raises UserError if a script cannot read its images."""
    for base in request.bases:
        try:
            training.read(base, request.data)
        except (OSError, ValueError) as error:
            raise UserError(
                f"the images of {base}.py cannot be read: {getattr(error, 'strerror', None) or error}",
                where=getattr(error, "filename", None) or request.data,
                hint="use --data FOLDER",
            ) from error


def subjects(mutants: Sequence[Mutant]) -> Iterator[Mutant]:
    """The mutants in order, each original before the first of its mutants."""
    seen: set[str] = set()
    for mutant in mutants:
        if mutant.base not in seen:
            seen.add(mutant.base)
            yield Mutant(mutant.base)
        yield mutant


def jobs(request: Request, subject: Mutant) -> list[Job]:
    """The trainings of a mutant or an original; the first one is diagnosed."""
    return [Job(subject, seed, seed == 0, request.epochs) for seed in range(request.n_seeds)]


def trials(request: Request, one: Judged) -> list[Job]:
    """The trainings with the first fix of a mutant, where that decides whether it is right."""
    if not one.needs_trial:
        return []
    seeds = range(alternatives.SEEDS)
    return [Job(one.mutant, seed, False, request.epochs, one.fix) for seed in seeds]


def _with_trial(request: Request, one: Judged) -> Judged:
    tried = _results(request, trials(request, one))
    if not tried:
        return one
    is_fixed = alternatives.is_back(_original(request, one), [result.error for result in tried])
    return replace(one, is_fixed=is_fixed)


def _original(request: Request, one: Judged) -> tuple[float, ...]:
    """The errors of the original of a mutant."""
    results = _results(request, jobs(request, Mutant(one.mutant.base))) or ()
    return tuple(result.error for result in results if result.error is not None)


def _repair(
    request: Request, judged: Sequence[Judged], seconds: int, notify: Callable[[str], None]
) -> None:
    """Tries fixes on the killed mutants where that is not done."""
    killed = [one for one in judged if one.is_killed]
    missing = [one for one in killed if _with_repair(request, one).repair is None]
    number, time = counted(len(killed), "killed mutant"), duration(seconds)
    notify(f"{number}, {len(missing)} to try fixes on, for {time} each and then some trainings")
    for start in range(0, len(missing), REPAIRS_PER_POOL):
        calls = [
            (one, partial(repairs.run, _subject(request, one), seconds, request.data, request.out))
            for one in missing[start : start + REPAIRS_PER_POOL]
        ]
        for one in processes.done(calls, request.n_jobs):
            repair = _with_repair(request, one).repair
            notify(f"{one.mutant.described}: {repair.described if repair else 'not tried'}")


def _with_repair(request: Request, one: Judged) -> Judged:
    if not one.is_killed:
        return one
    return replace(one, repair=repairs.kept(_subject(request, one), request.try_fixes, request.out))


def _subject(request: Request, one: Judged) -> repairs.Subject:
    first = jobs(request, one.mutant)[0].result(request.out)
    assert first is not None and first.error is not None
    original = _original(request, one)
    return repairs.Subject(one.mutant, first.error, original, first.folder, one.proposed, request.epochs)


def _results(request: Request, listed: Sequence[Job]) -> list[Result] | None:
    """What trainings gave, None if they are not complete."""
    found = [job.result(request.out) for job in listed]
    complete = [result for result in found if result is not None]
    return complete if len(complete) == len(found) else None


def _train(request: Request, mutants: Sequence[Mutant], notify: Callable[[str], None]) -> None:
    """Trains what is missing, mutant by mutant; after some of them the fixes that decide about these."""
    make(request.out)
    listed = [(subject, job) for subject in subjects(mutants) for job in jobs(request, subject)]
    missing = _missing(request, listed)
    done = len(listed) - len(missing)
    notify(f"{counted(len(listed), 'training')}, {len(missing)} to do, in {request.out}")
    if missing:
        _check_images(request)
    left = Counter(subject for subject, _ in missing)
    for start in range(0, max(1, len(missing)), PER_POOL):
        for subject in _trained(request, missing[start : start + PER_POOL]):
            left[subject] -= 1
            done += 1
            if not left[subject]:
                notify(f"{done}/{len(listed)}  {_told(request, subject)}")
        judged = _judged(request, mutants)
        fixes = _missing(request, [(one.mutant, job) for one in judged for job in trials(request, one)])
        if fixes:
            notify(f"{counted(len(fixes), 'training')} with a first fix that decides about a cause")
        for _ in _trained(request, fixes):
            pass


def _missing(request: Request, listed: Sequence[tuple[Mutant, Job]]) -> list[tuple[Mutant, Job]]:
    return [(subject, job) for subject, job in listed if job.result(request.out) is None]


def _trained(request: Request, listed: Sequence[tuple[Mutant, Job]]) -> Iterator[Mutant]:
    """Trains; gives the subject of each training when it is done."""
    calls = [(subject, partial(worker.run, job, request.data, request.out)) for subject, job in listed]
    return processes.done(calls, request.n_jobs)


def _judged(request: Request, mutants: Sequence[Mutant]) -> list[Judged]:
    complete = {subject: _results(request, jobs(request, subject)) for subject in subjects(mutants)}
    listed = []
    for number, subject in enumerate(sorted(complete, key=lambda subject: subject.change is not None)):
        own, original = complete[subject], complete[Mutant(subject.base)]
        if own is not None and original is not None:
            listed.append(judge.judged(subject, number, own, original, request.out))
    return listed


def _told(request: Request, subject: Mutant) -> str:
    """One line about a subject whose trainings are complete."""
    own, original = (_results(request, jobs(request, one)) for one in (subject, Mutant(subject.base)))
    if own is None or original is None:
        return subject.described
    judged = judge.judged(subject, 0, own, original, request.out)
    return f"{subject.described}: {judged.described}"
