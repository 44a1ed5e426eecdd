"""Do fixes that are tried mend a killed mutant? Beside random changes, see `repair`.

    a killed mutant -> short trials of edits within a budget, and of as many random changes
                    -> whole trainings with one edit, and with one and the best random change
                    -> errors within the spread of the original's, or not

What the trials chose and what each training gave are small files, so nothing is done twice.
"""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.faults.outside import alternatives, training, worker
from benchmarks.faults.outside.alternatives import Edit, RandomChange
from benchmarks.faults.outside.draw import Mutant
from benchmarks.faults.outside.worker import Job, Result
from benchmarks.faults.record import restored
from cae_cli import experiment
from cae_cli.diagnosis.finding import Finding
from cae_cli.diagnosis.trials import Trial, Trials
from cae_cli.errors import UserError
from cae_cli.external import random_edits
from cae_cli.external import training as external
from cae_cli.external import trials as short
from cae_cli.metrics.quality import explained_variance
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import plain, read_json, write_json
from cae_cli.system.files import make
from cae_cli.system.guarded import GuardedPath


@dataclass(frozen=True)
class Choice:
    """A change that trials chose.

    Attributes:
        name: of an edit of `external.edits`, or of a random change.
        number: of the random change, from 0; None: it is an edit.
    """

    name: str
    number: int | None = None


@dataclass(frozen=True)
class Tried:
    """What short trials of a mutant chose.

    Attributes:
        budget: of the trials with edits, in seconds.
        proposed: edits that the findings propose, which are tried first.
        seed: of the trials and of the random changes.
        n_edits: edits that were tried.
        n_random: random changes that were tried.
        verdict: of the trials, in words.
        is_reported: the edit is reported as helping.
        edit: that which is reported first, else that which explains most; None if none was tried.
        random: the first random change that Keras can train.
        searched: the random change that explains most.
        seconds: that all trials took.
    """

    budget: int
    proposed: tuple[str, ...]
    seed: int
    n_edits: int
    n_random: int
    verdict: str
    is_reported: bool
    edit: Choice | None
    random: Choice | None
    searched: Choice | None
    seconds: float


@dataclass(frozen=True)
class Arm:
    """Whole trainings of a mutant with a change.

    Attributes:
        name: of the change.
        errors: of held-out images, as many as decide; None: Keras cannot train it.
        is_back: they are within the spread of the original's.
    """

    name: str
    errors: tuple[float | None, ...]
    is_back: bool

    @property
    def described(self) -> str:
        """The change, and whether it mends the mutant."""
        return f"{self.name}: {'mends' if self.is_back else 'no'}"


@dataclass(frozen=True)
class Repair:
    """What was tried on a mutant, and what it did; None: there was no such change.

    Attributes:
        tried: the short trials.
        edit: with the edit that they chose.
        random: with one random change.
        searched: with the best of as many random changes as edits were tried.
    """

    tried: Tried
    edit: Arm | None
    random: Arm | None
    searched: Arm | None

    @property
    def is_mended(self) -> bool:
        """Whether the first edit that is reported as helping brings the error back."""
        return self.tried.is_reported and self.edit is not None and self.edit.is_back

    @property
    def described(self) -> str:
        """What the changes did, in words."""
        reported = "reported" if self.tried.is_reported else "not reported"
        edit = f"{self.edit.described} ({reported})" if self.edit else "no edit"
        others = [arm.described if arm else "none" for arm in (self.random, self.searched)]
        return f"{edit}; at random {others[0]}; best of {self.tried.n_random} at random {others[1]}"


@dataclass(frozen=True)
class Subject:
    """A killed mutant.

    Attributes:
        mutant: what was trained.
        error: of its first training.
        original: errors of its original.
        folder: of the diagnosed run, relative to the folder of all; "" without a diagnosis.
        proposed: edits that the findings propose.
        epochs: at most, as in a job.
    """

    mutant: Mutant
    error: float
    original: tuple[float, ...]
    folder: str
    proposed: tuple[str, ...]
    epochs: int | None = None

    @property
    def first(self) -> Job:
        """Its first training, without the callback."""
        return Job(self.mutant, 0, False, self.epochs)

    def tried(self, out: Path, budget: int | None) -> Tried | None:
        """The trials that are kept; None if there are none, or others are wanted.

        Args:
            out: folder of all results.
            budget: in seconds; None: any.
        """
        with contextlib.suppress(UserError, KeyError, TypeError):
            found: Tried = restored(Tried, read_json(GuardedPath.of(self._file(out))))
            if found.proposed == self.proposed and budget in (None, found.budget):
                return found
        return None

    def write(self, out: Path, tried: Tried) -> None:
        """Keeps trials; the file is complete at every moment."""
        make(self._file(out).parent)
        write_json(GuardedPath.of(self._file(out)), plain(tried))

    def _file(self, out: Path) -> Path:
        return out / "trials" / f"{self.first.key}.json"


def run(subject: Subject, budget: int, data: Path, out: Path) -> Repair:
    """Tries fixes on a mutant, except what is there; for a process of its own.

    Args:
        subject: a killed mutant.
        budget: of the trials with edits, in seconds.
        data: folder of the image files.
        out: folder of all results.

    Raises:
        OSError: a file cannot be read or written.
        MemoryError: there is too little.
    """
    tried = subject.tried(out, budget)
    if tried is None:
        tried = _tried(subject, budget, data, out)
        subject.write(out, tried)
    found = repair(subject, tried, lambda job: worker.run(job, data, out))
    assert found is not None
    return found


def kept(subject: Subject, budget: int | None, out: Path) -> Repair | None:
    """What is there; None if it is not complete."""
    tried = subject.tried(out, budget)
    return repair(subject, tried, lambda job: job.result(out)) if tried else None


def repair(subject: Subject, tried: Tried, result: Callable[[Job], Result | None]) -> Repair | None:
    """Trains the mutant with the changes that trials chose.

    Args:
        subject: a killed mutant.
        tried: its trials.
        result: what a training gives; None: nothing yet, and so does this function.
    """
    arms: list[Arm | None] = []
    for choice in (tried.edit, tried.random, tried.searched):
        arm = _arm(subject, choice, tried.seed, result) if choice else None
        if choice and arm is None:
            return None
        arms.append(arm)
    return Repair(tried, *arms)


def _arm(
    subject: Subject, choice: Choice, seed: int, result: Callable[[Job], Result | None]
) -> Arm | None:
    edit: Edit = choice.name if choice.number is None else RandomChange(seed, choice.number)
    errors: list[float | None] = []
    while (is_back := alternatives.is_back(subject.original, errors)) is None:
        gave = result(replace(subject.first, seed=len(errors), edit=edit))
        if gave is None:
            return None
        errors.append(gave.error)
    return Arm(choice.name, tuple(errors), is_back)


# --- short trials ---


def _tried(subject: Subject, budget: int, data: Path, out: Path) -> Tried:
    began = time.monotonic()
    own = worker.made(subject.first, data)
    findings, linear, steps = _diagnosed(subject, out)
    given = alternatives.as_external(own, steps)
    tried = Tried(
        budget=budget,
        proposed=subject.proposed,
        seed=zlib.crc32(subject.first.key.encode()) % 2**31,
        n_edits=0,
        n_random=0,
        verdict="",
        is_reported=False,
        edit=None,
        random=None,
        searched=None,
        seconds=0.0,
    )
    try:
        trials = short.tried(
            given,
            budget=budget,
            findings=findings,
            linear=linear,
            given=_explained(subject.error, own, given),
            seed=tried.seed,
        ).trials
    except UserError as error:  # it cannot be trained again
        return replace(tried, verdict=error.what, seconds=_since(began))
    reported = trials.helping
    edit = reported[0] if reported else trials.best
    random = list(_random(given, trials))
    best = max(random, key=lambda one: (not one[1].cut, one[1].mean), default=None)
    return replace(
        tried,
        n_edits=len(trials.edits),
        n_random=len(random),
        verdict=trials.verdict(),
        is_reported=bool(reported),
        edit=Choice(edit.name) if edit else None,
        random=random[0][0] if random else None,
        searched=best and best[0],
        seconds=_since(began),
    )


def _since(began: float) -> float:
    return round(time.monotonic() - began, 1)


def _diagnosed(subject: Subject, out: Path) -> tuple[Sequence[Finding], float, int | None]:
    """Findings, the explained variance of a linear decoder, and the steps that the training ran."""
    if subject.folder:
        with contextlib.suppress(UserError):
            outcome = experiment.diagnose(Run(out / subject.folder))
            metrics = outcome.metrics
            return outcome.diagnosis.findings, metrics.perturbation.linear, metrics.dynamics.steps
    return (), float("nan"), None


def _explained(error: float, own: training.Training, given: external.Training) -> float:
    """The explained variance, as trials measure it, of a training with this held-out error."""
    span = float(own.y_test.max() - own.y_test.min())
    mean = given.clean[0].mean(axis=0, dtype=np.float64)
    return explained_variance(np.array([error * span**2]), np.square(given.clean[1] - mean))


def _random(given: external.Training, trials: Trials) -> Iterator[tuple[Choice, Trial]]:
    """As many trials of random changes as there are of edits, one at least; those there are come first.

    Those of a seed have an order. Keras cannot train each of them.
    """
    known = {(trial.name, trial.after): trial for trial in trials.controls}
    left = max(1, len(trials.edits))
    for number, (name, change) in enumerate(random_edits.changes(given, trials.control_seed)):
        trial = known.get((name, change.after))
        if trial is None:
            with contextlib.suppress(UserError):
                model = change.training.run(trials.steps, trials.seeds[0])
                trial = Trial(name, "", (), (change.training.explained(model),))
        if trial is not None:
            yield Choice(name.removeprefix("random: "), number), trial
            left -= 1
        if not left:
            return
