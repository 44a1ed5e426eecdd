"""One arm of a treatment: the changes that are tried on a run, one after the other.

The arm of the fixes and the arm of the random controls follow the same procedure and differ only in
what proposes the changes. An `Arm` trains nothing: it names the trainings that it wants and takes
their results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cae_cli import experiment
from cae_cli.config.schema import Config
from cae_cli.diagnosis import Finding, Fix, Safety
from cae_cli.errors import UserError, to_paste
from cae_cli.options import as_typed, key_of
from cae_cli.runs.folder import Run
from cae_cli.sweep.batch import BatchRun
from cae_cli.treatment.random_control import ANYTHING, RandomControl, with_changes
from cae_cli.treatment.result import Result, is_better, result

# Changes that short trainings try in addition to the proposed fixes: those that helped most often.
COMMON_FIXES = (
    Fix(("loss=bce",), "another loss", Safety.SAFE),
    Fix(("regularization=batchnorm",), "larger gradients", Safety.SAFE),
    Fix(("optimizer.learning_rate=0.01",), "larger steps", Safety.SAFE),
    Fix(("model=wide",), "more filters", Safety.TRADE),
    Fix(("model=shallow",), "fewer layers", Safety.SAFE),
)
MAX_CANDIDATES = 6


@dataclass(frozen=True)
class Proposal:
    """A change that may help.

    Attributes:
        overrides: the change, in Hydra's grammar.
        why: what it does, in a few words.
        code: of the finding that proposes it; None for a random control.
    """

    overrides: tuple[str, ...]
    why: str
    code: str | None = None


@dataclass(frozen=True)
class Step:
    """A change that was trained.

    Attributes:
        number: from 1.
        proposal: the change.
        overrides: overrides of the runs, without the seed.
        results: one for each seed.
        kept: later steps build on it.
    """

    number: int
    proposal: Proposal
    overrides: tuple[str, ...]
    results: tuple[Result, ...]
    kept: bool

    @property
    def change(self) -> tuple[str, ...]:
        """The overrides that were tried."""
        return self.proposal.overrides


class Proposer(Protocol):
    """Proposes the next change of an arm."""

    def proposals(self, arm: Arm) -> Iterable[Proposal]:
        """Changes, the best first. The arm skips those that it has tried."""


class Arm:
    """The changes that are tried on one run.

    Args:
        name: prefix of the names of its runs.
        overrides: overrides of the run; the seed is ignored.
        before: results of the run, one for each seed.
        seeds: each step trains one run for each.
        proposer: proposes the changes.
        max_steps: steps at most.
        checked: composes a config from overrides and checks it; raises UserError.
    """

    def __init__(
        self,
        name: str,
        overrides: Sequence[str],
        before: Sequence[Result],
        seeds: Sequence[int],
        proposer: Proposer,
        max_steps: int,
        checked: Callable[[Sequence[str]], Config],
    ) -> None:
        assert len(before) == len(seeds) > 0, "one result for each seed"
        self.name = name
        self.overrides = tuple(word for word in overrides if key_of(word) != "seed")  # of the base
        self.base = self.before = tuple(before)
        self.seeds = tuple(seeds)
        self.max_steps = max_steps
        self.checked = checked
        self.steps: list[Step] = []
        self.proposer = proposer
        self.known = [checked(self.overrides)]  # no config is trained twice
        self._next: tuple[Proposal, tuple[str, ...]] | None = None
        self._is_exhausted = False

    @property
    def is_fixed(self) -> bool:
        """Whether the base is healthy for every seed."""
        return all(result.healthy for result in self.base)

    @property
    def first_fixed(self) -> bool:
        """Whether the first step alone made the run healthy for every seed."""
        return bool(self.steps) and all(result.healthy for result in self.steps[0].results)

    @property
    def is_over(self) -> bool:
        """Whether no training is wanted. That all proposals are tried shows only in `wanted`."""
        ended = self.is_fixed or len(self.steps) >= self.max_steps or self._is_exhausted
        return ended and self._next is None

    @property
    def trainings(self) -> int:
        """Number of trainings so far."""
        return len(self.steps) * len(self.seeds)

    @property
    def tried(self) -> list[tuple[str, ...]]:
        """The changes of all steps, including the one that is wanted now."""
        changes = [step.change for step in self.steps]
        return [*changes, self._next[0].overrides] if self._next else changes

    def wanted(self) -> list[BatchRun]:
        """The trainings of the next step, one for each seed; [] if the arm is over.

        They stay the same until their results are taken.
        """
        if self._next is None and not self.is_over:
            self._next = self._chosen()
            self._is_exhausted = self._next is None
        if self._next is None:
            return []
        number, overrides = len(self.steps) + 1, self._next[1]
        return [
            BatchRun(f"{self.name}_{number}_s{seed}", (*overrides, f"seed={seed}"))
            for seed in self.seeds
        ]

    def _chosen(self) -> tuple[Proposal, tuple[str, ...]] | None:
        """The first proposal that fits the run and was not tried, and the overrides with it."""
        for proposal in self.proposer.proposals(self):
            overrides = with_changes(self.overrides, proposal.overrides)
            try:
                config = self.checked(overrides)
                experiment.check_early(config)
            except UserError:
                continue  # it does not fit this run
            if config not in self.known:
                self.known.append(config)
                return proposal, overrides
        return None

    def take(self, runs: Sequence[Run]) -> None:
        """Diagnoses the trainings that were wanted, in their order."""
        self.take_results([result(run) for run in runs])

    def take_results(self, results: Sequence[Result]) -> None:
        """Takes the results of the trainings that were wanted, in their order."""
        assert self._next is not None and len(results) == len(self.seeds), "nothing else was wanted"
        proposal, overrides = self._next
        kept = is_better(results, self.base)
        step = Step(len(self.steps) + 1, proposal, overrides, tuple(results), kept)
        self.steps.append(step)
        self._next = None
        if kept:
            self.base, self.overrides = step.results, step.overrides


class Fixes:
    """Proposes the fixes of the base's diagnosis: all of the first cause, then those of the next."""

    def __init__(self) -> None:
        self._gains: dict[tuple[str, ...], float] = {}

    def proposals(self, arm: Arm) -> Iterator[Proposal]:
        """Fixes of the causes in order; with several seeds, the causes of the first faulty run."""
        for finding in _causes(arm.base):
            for fix in self._ordered(finding.fixes):
                yield Proposal(fix.overrides, fix.why, finding.code)

    def alternatives(self, arm: Arm) -> list[tuple[str, ...]]:
        """Fixes of the first cause that short trainings can choose from: at least two, or []."""
        causes = [] if arm.is_fixed else _causes(arm.base)[:1]
        changes = _trainable(arm, [fix for finding in causes for fix in finding.fixes])
        return changes if len(changes) > 1 else []

    def candidates(self, arm: Arm) -> list[tuple[str, ...]]:
        """Fixes of all causes, the best of each cause first, then common fixes."""
        causes = _causes(arm.base)
        depth = max((len(finding.fixes) for finding in causes), default=0)
        ranked = [fix for i in range(depth) for f in causes for fix in f.fixes[i : i + 1]]
        return _trainable(arm, [*ranked, *COMMON_FIXES])[:MAX_CANDIDATES]

    def prefer(self, gains: Mapping[tuple[str, ...], float]) -> None:
        """Orders the fixes of the base by their gains in short trainings.

        Args:
            gains: of the score over the run itself, as short, by overrides; NaN if it diverged.
        """
        self._gains = dict(gains)

    def _ordered(self, fixes: Sequence[Fix]) -> list[Fix]:
        """The best in short trainings first, without those that did harm, unless all did."""
        kept = [fix for fix in fixes if self._gains.get(fix.overrides, 0.0) >= 0]  # NaN is not
        return sorted(kept, key=lambda fix: -self._gains.get(fix.overrides, 0.0)) or list(fixes)


def _causes(base: Sequence[Result]) -> list[Finding]:
    """Causes of the first faulty result, then those that only the others have."""
    found: dict[str, Finding] = {}
    for one in base:
        for finding in one.causes:
            found.setdefault(finding.code, finding)
    return list(found.values())


def _trainable(arm: Arm, fixes: Iterable[Fix]) -> list[tuple[str, ...]]:
    """The fixes that fit the run and whose effect shows in a short training, without repetitions.

    A fix that needs more time or more images cannot show its effect in a few steps.
    """
    changes: dict[tuple[str, ...], None] = {}
    for fix in fixes:
        try:
            config = arm.checked(with_changes(arm.overrides, fix.overrides))
            experiment.check_early(config)
        except UserError:
            continue
        if fix.safety is not Safety.SLOW and config not in arm.known:
            changes.setdefault(fix.overrides)
    return list(changes)


class Followed(Protocol):
    """What random controls need of the arm that they follow."""

    def wanted(self) -> list[BatchRun]:
        """The trainings of its next step."""

    @property
    def tried(self) -> list[tuple[str, ...]]:
        """The changes of all steps, including the one that is wanted now."""


class RandomControls:
    """Proposes a random change for each step of another arm, so both get as many trainings.

    Both arms must take the results of a step before the next one is wanted.

    Args:
        control: draws the changes.
        other: the arm whose steps are matched.
        search: draw from the whole space of options; False: changes of the kind of the other arm's.
    """

    def __init__(self, control: RandomControl, other: Followed, *, search: bool = False) -> None:
        self.control = control
        self.other = other
        self.search = search

    def proposals(self, arm: Arm) -> Iterator[Proposal]:
        """One change, if the other arm has a step of this number."""
        number = len(arm.steps) + 1
        self.other.wanted()  # chooses the step of the other arm, if that is still open
        tried = self.other.tried
        if number > len(tried):
            return
        change = ANYTHING if self.search else tried[number - 1]
        drawn = self.control.draw(change, arm.overrides, number, arm.checked, arm.known)
        if drawn is not None:
            yield Proposal(drawn, "random")


# What is often recommended, whatever the problem. BCE needs images and outputs in [0, 1].
GOOD_PRACTICE = tuple(
    (
        "model=residual",
        "regularization=batchnorm",
        loss,
        "optimizer=adam",
        "optimizer.learning_rate=0.001",
    )
    for loss in ("loss=bce", "loss=mse")
)


class GoodPractice:
    """Proposes one fixed recipe for every run, as its only step."""

    def proposals(self, arm: Arm) -> Iterator[Proposal]:
        """The recipe, in the form that fits the run."""
        if not arm.steps:
            yield from (Proposal(change, "good practice") for change in GOOD_PRACTICE)


def reproduced(overrides: Sequence[str], seed: int) -> str:
    """The command that repeats a run of an arm."""
    return to_paste("cae", "train", *map(as_typed, overrides), f"seed={seed}")
