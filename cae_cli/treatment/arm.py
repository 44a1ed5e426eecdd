"""One way of treating a run, step by step: what is proposed is trained, judged, and kept if it helps.

A fix is a hypothesis. It is tested by training again, beside a random control, and both ways are gone
by the same steps: only who proposes differs. Nothing is trained here: an `Arm` says what it wants
trained and takes what came of it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from cae_cli import experiment
from cae_cli.config.schema import Config
from cae_cli.diagnosis import Diagnosis
from cae_cli.diagnosis.finding import Finding, Fix, Safety
from cae_cli.diagnosis.health import Criterion, criteria, is_healthy
from cae_cli.errors import UserError
from cae_cli.metrics.collect import Metrics
from cae_cli.metrics.score import score
from cae_cli.options import key_of
from cae_cli.runs.folder import Run
from cae_cli.sweep.batch import Wanted
from cae_cli.treatment.control import RandomControl, treated

# By so much the score has to rise where as much is wrong as before; equal runs with other seeds differ
# by less.
RISES = 0.05
# What a run's files raise if they do not belong together.
DAMAGED = (UserError, KeyError, IndexError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Result:
    """One training, judged.

    Attributes:
        run: it.
        diagnosis: of it; None if nothing can be judged.
        metrics: of it; the score's anchor is the mean image, whatever controls there are. None if
            nothing can be judged.
        criteria: of it; none if nothing can be judged.
        healthy: see `diagnosis.health.is_healthy`.
        burden: how much is wrong: causes found and criteria that fail, one more if the verdict is
            open; infinite if nothing can be judged.
        reason: why nothing can be judged, else "".
    """

    run: Run
    diagnosis: Diagnosis | None
    metrics: Metrics | None
    criteria: tuple[Criterion, ...]
    healthy: bool
    burden: float
    reason: str = ""

    @property
    def causes(self) -> list[Finding]:
        """The findings above a note that follow from no other, in order."""
        return self.diagnosis.causes if self.diagnosis else []

    @property
    def codes(self) -> set[str]:
        """Codes of the causes."""
        return {finding.code for finding in self.causes}

    @property
    def failing(self) -> list[str]:
        """Names of the criteria that fail."""
        return [criterion.name for criterion in self.criteria if not criterion.holds]

    @property
    def score(self) -> float:
        """Meaningfulness, 0 to 1; 0 where it could not be measured."""
        value = self.metrics.score.value if self.metrics else math.nan
        return 0.0 if math.isnan(value) else value


def result(run: Run) -> Result:
    """Judges a training, from its files; nothing is written."""
    status: Mapping[str, Any] = {}
    try:
        status = run.status()
        if status.get("status") not in ("ok", "failed"):
            raise UserError(f"it is {status.get('status', 'not there')}")
        with np.errstate(all="ignore"):  # networks that diverged have infinite weights and errors
            outcome = experiment.diagnose(run)
        config = run.settings()
    except DAMAGED as error:
        why = error.what if isinstance(error, UserError) else f"its files do not fit: {error}"
        told = status.get("reason") if isinstance(error, UserError) else None
        return Result(run, None, None, (), False, math.inf, str(told or why))
    return judged(run, outcome.diagnosis, _without_control(outcome.metrics), config)


def judged(run: Run, diagnosis: Diagnosis, metrics: Metrics, config: Mapping[str, Any]) -> Result:
    """The result of a training that was measured and diagnosed.

    Args:
        run: the training.
        diagnosis: of it.
        metrics: of it.
        config: its composed config as plain containers.
    """
    ruled = criteria(metrics, config)
    failing = sum(not criterion.holds for criterion in ruled)
    return Result(
        run,
        diagnosis,
        metrics,
        ruled,
        is_healthy(diagnosis, metrics, config),
        float(len(diagnosis.causes) + failing + diagnosis.undecided),
    )


def _without_control(metrics: Metrics) -> Metrics:
    """The measures with the score that a run without a control has: only such can be compared."""
    if metrics.frozen is None:
        return metrics
    whole = score(
        explained=metrics.quality.explained_variance,
        base=0.0,
        latent_swap=metrics.perturbation.latent_swap,
        pixel_copy=metrics.perturbation.pixel_copy,
        inactive=1 - metrics.score.alive,
    )
    return replace(metrics, frozen=None, score=whole)


def burden(results: Sequence[Result]) -> float:
    """Mean burden over seeds."""
    return float(np.mean([result.burden for result in results]))


def mean_score(results: Sequence[Result]) -> float:
    """Mean score over seeds."""
    return float(np.mean([result.score for result in results]))


def helps(after: Sequence[Result], before: Sequence[Result]) -> bool:
    """Whether a step is worth keeping: less is wrong, or as much and the score is clearly higher."""
    if burden(after) != burden(before):
        return burden(after) < burden(before)
    return mean_score(after) - mean_score(before) > RISES


@dataclass(frozen=True)
class Proposal:
    """A change that may help.

    Attributes:
        overrides: in Hydra's grammar.
        why: what they do, in a few words.
        code: of the finding that proposes them; None for a random control.
    """

    overrides: tuple[str, ...]
    why: str
    code: str | None = None


@dataclass(frozen=True)
class Step:
    """A change that was trained.

    Attributes:
        number: from 1.
        overrides: what was changed.
        why: what that does.
        code: of the finding that proposes it; None for a random control.
        words: of the runs, without the seed.
        results: one for each seed.
        kept: it is the base of the next step.
    """

    number: int
    overrides: tuple[str, ...]
    why: str
    code: str | None
    words: tuple[str, ...]
    results: tuple[Result, ...]
    kept: bool


class Proposer(Protocol):
    """Says what an arm may try next."""

    def proposals(self, arm: Arm) -> Iterable[Proposal]:
        """What may be tried, best first; what was tried already is passed over by the arm."""


class Arm:
    """One way of treating a run.

    Args:
        name: of the arm; names of its runs begin with it.
        words: overrides of the run; the seed is left out.
        before: the run's results, one for each seed.
        seeds: so many trainings are one step.
        proposer: says what to try.
        rounds: steps at most.
        checked: makes a checked config of words; raises UserError.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        before: Sequence[Result],
        seeds: Sequence[int],
        proposer: Proposer,
        rounds: int,
        checked: Callable[[Sequence[str]], Config],
    ) -> None:
        assert len(before) == len(seeds) > 0, "a result for each seed"
        self.name = name
        self.words = tuple(word for word in words if key_of(word) != "seed")  # of the base
        self.base = self.before = tuple(before)
        self.seeds = tuple(seeds)
        self.rounds = rounds
        self.checked = checked
        self.steps: list[Step] = []
        self.proposer = proposer
        self.known = [checked(self.words)]  # nothing is trained twice
        self._next: tuple[Proposal, tuple[str, ...]] | None = None
        self._is_exhausted = False

    @property
    def is_cured(self) -> bool:
        """Whether the base is healthy for every seed."""
        return all(result.healthy for result in self.base)

    @property
    def first_cured(self) -> bool:
        """Whether the first step alone made it healthy for every seed."""
        return bool(self.steps) and all(result.healthy for result in self.steps[0].results)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is wanted; if nothing is left to try, once `wanted` has found out."""
        at_end = self.is_cured or len(self.steps) >= self.rounds or self._is_exhausted
        return at_end and self._next is None

    @property
    def trainings(self) -> int:
        """How many trainings were made."""
        return len(self.steps) * len(self.seeds)

    @property
    def asked(self) -> list[tuple[str, ...]]:
        """The overrides of every step, of the one that is wanted now too."""
        made = [step.overrides for step in self.steps]
        return [*made, self._next[0].overrides] if self._next else made

    def wanted(self) -> list[Wanted]:
        """The trainings of the next step, one for each seed; [] if it is over.

        They stay the same until they are taken.
        """
        if self._next is None and not self.is_over:
            self._next = self._chosen()
            self._is_exhausted = self._next is None
        if self._next is None:
            return []
        number, words = len(self.steps) + 1, self._next[1]
        return [Wanted(f"{self.name}_{number}_s{seed}", (*words, f"seed={seed}")) for seed in self.seeds]

    def _chosen(self) -> tuple[Proposal, tuple[str, ...]] | None:
        """The first proposal that fits and was not tried, and the words with it."""
        for proposal in self.proposer.proposals(self):
            words = treated(self.words, proposal.overrides)
            try:
                config = self.checked(words)
                experiment.check_early(config)
            except UserError:
                continue  # it does not fit this run
            if config not in self.known:
                self.known.append(config)
                return proposal, words
        return None

    def take(self, runs: Sequence[Run]) -> None:
        """Judges the trainings that were wanted, in their order."""
        self.take_results([result(run) for run in runs])

    def take_results(self, results: Sequence[Result]) -> None:
        """The same for trainings that are judged already."""
        assert self._next is not None and len(results) == len(self.seeds), "nothing else was wanted"
        proposal, words = self._next
        kept = helps(results, self.base)
        step = Step(
            len(self.steps) + 1,
            proposal.overrides,
            proposal.why,
            proposal.code,
            words,
            tuple(results),
            kept,
        )
        self.steps.append(step)
        self._next = None
        if kept:
            self.base, self.words = step.results, step.words


class Fixes:
    """Proposes what the diagnosis of the base proposes: all of the first cause, then of the next."""

    def __init__(self) -> None:
        self._gains: dict[tuple[str, ...], float] = {}

    def proposals(self, arm: Arm) -> Iterator[Proposal]:
        """Fixes of the causes in order; of several seeds those of the first that is sick."""
        for finding in _of_all(arm.base):
            for fix in self._ordered(finding.fixes):
                yield Proposal(fix.overrides, fix.why, finding.code)

    def alternatives(self, arm: Arm) -> list[Fix]:
        """Fixes of the first cause that short trainings can choose between: two or more, or [].

        More time, or more images, cannot show what they are worth in a short one.
        """
        first = next(iter(_of_all(arm.base)), None)
        if first is None or arm.is_cured:
            return []
        fitting = []
        for fix in first.fixes:
            try:
                config = arm.checked(treated(arm.words, fix.overrides))
            except UserError:
                continue
            if fix.safety is not Safety.SLOW and config not in arm.known:
                fitting.append(fix)
        return fitting if len(fitting) > 1 else []

    def learn(self, gains: Mapping[tuple[str, ...], float]) -> None:
        """Takes in what short trainings of the base came to; those of another base are forgotten.

        Args:
            gains: of the score beyond the run itself cut as short, by overrides; NaN if it diverged.
        """
        self._gains = dict(gains)

    def _ordered(self, fixes: Sequence[Fix]) -> list[Fix]:
        """The best in short trainings first; those that did harm are left out, unless all did."""
        kept = [p for p in fixes if self._gains.get(p.overrides, 0.0) >= 0]  # NaN is not
        return sorted(kept, key=lambda p: -self._gains.get(p.overrides, 0.0)) or list(fixes)


def _of_all(base: Sequence[Result]) -> list[Finding]:
    """Causes of the first sick result, then those that only others have."""
    found: dict[str, Finding] = {}
    for one in base:
        for finding in one.causes:
            found.setdefault(finding.code, finding)
    return list(found.values())


class RandomControls:
    """Proposes a random change of the same kind beside every step of another arm, and no more.

    So both arms get as many trainings. Both take what a step came to before they are asked again.

    Args:
        random control: draws the changes.
        beside: the other arm.
    """

    def __init__(self, control: RandomControl, beside: Arm) -> None:
        self.control = control
        self.other = beside

    def proposals(self, arm: Arm) -> Iterator[Proposal]:
        """One change, if the other arm has a step of this number."""
        place = len(arm.steps) + 1
        self.other.wanted()  # it may not have chosen yet
        asked = self.other.asked
        if place > len(asked):
            return
        drawn = self.control.beside(asked[place - 1], arm.words, place, arm.checked, arm.known)
        if drawn is not None:
            yield Proposal(drawn, "chance")


def reproduced(words: Sequence[str], seed: int) -> str:
    """The command that makes a run of an arm again."""
    return shlex.join(["cae", "train", *words, f"seed={seed}"])
