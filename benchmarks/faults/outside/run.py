"""Runs the outside part. READ THIS FIRST: `run` has the steps in order."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.faults.outside import alternatives, draw, judge, training, worker
from benchmarks.faults.outside.draw import MUTANTS, Mutant
from benchmarks.faults.outside.judge import Judged
from benchmarks.faults.outside.training import BASES
from benchmarks.faults.outside.worker import Job, Result
from cae_cli.errors import UserError, counted
from cae_cli.system.files import make

SEEDS = 5  # of each mutant and of each original
# Trainings until the processes are replaced, so that they do not grow for hours. The pool's own way to
# do that, max_tasks_per_child, leaves it without processes in Python 3.11.
PER_POOL = 60
# Of the processes: one thread each, which TensorFlow reads when it is imported.
ENVIRONMENT = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "MPLBACKEND": "agg",
}
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
    """

    seed: int
    data: Path
    out: Path
    n_mutants: int = MUTANTS
    n_seeds: int = SEEDS
    bases: Sequence[str] = BASES
    epochs: int | None = None
    n_jobs: int | None = None

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
        Interrupted: by a signal; trainings in progress are finished first.
    """
    mutants = drawn(request, notify)
    if train:
        _train(request, mutants, notify)
    return [_with_trial(request, one) for one in _judged(request, mutants)]


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
    errors = [result.error for result in tried if result.error is not None]
    original = [
        result.error for result in _results(request, jobs(request, Mutant(one.mutant.base))) or ()
    ]
    reference = [error for error in original if error is not None]
    is_fixed = len(errors) == len(tried) and alternatives.is_back(reference, errors)
    return replace(one, is_fixed=is_fixed)


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
    """Trains in processes of their own; gives the subject of each training when it is done."""
    if not listed:
        return
    with _environment(ENVIRONMENT):
        yield from _trained_in_processes(request, listed)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of the processes that are started in the block, and of no others."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _trained_in_processes(request: Request, listed: Sequence[tuple[Mutant, Job]]) -> Iterator[Mutant]:
    pool = ProcessPoolExecutor(
        request.n_jobs or os.cpu_count() or 1, multiprocessing.get_context("spawn"), worker.start
    )
    try:
        futures: dict[Future[Result], Mutant] = {
            pool.submit(worker.run, job, request.data, request.out): subject for subject, job in listed
        }
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    except (BrokenProcessPool, MemoryError) as error:
        hint = "run the same command again, with --jobs 1 if there is too little memory"
        raise UserError("a training was ended by the system", hint=hint) from error
    except OSError as error:
        reason, where = error.strerror or error, error.filename
        raise UserError(f"a file cannot be read or written: {reason}", where=where) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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
