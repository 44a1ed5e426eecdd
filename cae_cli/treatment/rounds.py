"""The rounds of a treatment: what is trained, how long that may take, and what is written of it."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cae_cli.report import figures, terminal
from cae_cli.report.figures.treatment import Panel
from cae_cli.report.figures.treatment import treatment as picture
from cae_cli.report.numbers import duration
from cae_cli.runs.folder import Run, write_json
from cae_cli.sweep import batch
from cae_cli.sweep.batch import Batch, Wanted
from cae_cli.system.files import atomic, writing
from cae_cli.treatment.arm import Arm, Fixes, Proposer, RandomControls, Result, result
from cae_cli.treatment.control import RandomControl, treated
from cae_cli.treatment.record import Casebook, Short, problem

FILE = "treatment.json"
PICTURE = "treatment.png"
# A run of as many steps is worth short trainings to choose between fixes.
LONG = 2000
SHORT_STEPS = 200
SHORT = (f"training.steps={SHORT_STEPS}", "training.snapshots=[]")
UNKNOWN_SECONDS = 60.0  # of a run that does not say how long it took


@dataclass
class Plan:
    """A run, and how it is to be treated.

    Attributes:
        before: the run.
        words: its overrides, without the seed.
        seeds: that are trained, the run's own first.
        rounds: steps at most.
        budget: seconds in all; infinite if nothing was said.
        with_placebo: whether random changes are trained as well.
        spent: seconds of trainings, and how long these are in trainings of the run.
        began: when, by `time.monotonic`.
    """

    before: Result
    words: tuple[str, ...]
    seeds: tuple[int, ...]
    rounds: int
    budget: float
    with_control: bool
    spent: tuple[float, float] = (0.0, 0.0)
    began: float = field(default_factory=lambda: time.monotonic())

    def arm(self, name: str, before: Sequence[Result], proposer: Proposer) -> Arm:
        """A way of treating it."""
        seeds = self.seeds[: len(before)]
        return Arm(name, self.words, before, seeds, proposer, self.rounds, batch.checked)

    @property
    def seconds(self) -> float:
        """What the run itself took: the first guess of what a training takes."""
        status = self.before.run.status()
        try:
            started, ended = (datetime.fromisoformat(status[key]) for key in ("started", "ended"))
        except (KeyError, TypeError, ValueError):
            return UNKNOWN_SECONDS
        return max(1.0, (ended - started).total_seconds())

    @property
    def trainings(self) -> int:
        """Of a round."""
        return (1 + self.with_control) * len(self.seeds)

    def cost(self, words: Sequence[str]) -> float:
        """How long a training is, in trainings of the run itself."""
        own, other = batch.checked(self.words), batch.checked(words)
        measured = self.before.metrics
        steps = measured.dynamics.steps if measured else None
        cost = other.training.epochs / own.training.epochs
        if own.data.train and other.data.train:
            cost *= other.data.train / own.data.train
        if other.training.steps and steps:
            cost = min(cost, other.training.steps / steps)
        return max(cost, 0.01)

    def first(self, cost: float) -> float:
        """Seconds to the end of the first round, whose trainings are so long."""
        return (self.trainings * cost + len(self.seeds) - 1) * self.seconds

    def most(self, cost: float) -> float:
        """Seconds at most, if no round has longer trainings than the first one."""
        others = (self.rounds - 1) * self.trainings * max(1.0, cost) * self.seconds
        return min(self.first(cost) + others, self.budget)

    def lasts(self, wanted: Sequence[Wanted]) -> bool:
        """Whether the budget lasts for these."""
        seconds, made = self.spent
        pace = seconds / made if made else self.seconds
        needed = pace * sum(self.cost(one.words) for one in wanted)
        return time.monotonic() - self.began + needed <= self.budget

    def train(self, trained: Batch, wanted: Sequence[Wanted]) -> list[Run]:
        """Trains, and remembers how long it took."""
        began = time.monotonic()
        runs = trained.train(wanted)
        seconds, made = self.spent
        costs = sum(self.cost(one.words) for one in wanted)
        self.spent = seconds + time.monotonic() - began, made + costs
        return runs


class Rounds:
    """Goes through the rounds, and keeps the casebook.

    Args:
        plan: the run, and how it is to be treated.
        folder: an existing one, where everything goes.
        command: words of the command.
    """

    def __init__(self, plan: Plan, folder: Path, command: Sequence[str]) -> None:
        self.plan, self.folder, self.command = plan, folder, tuple(command)
        self._screen = terminal.Screen()
        self._cut = ""
        self._shorts: list[Short] = []
        self._fixes = Fixes()
        self._begin([plan.before])

    def _begin(self, before: Sequence[Result]) -> None:
        plan = self.plan
        self.treatment = plan.arm("treatment", before, self._fixes)
        self.control: Arm | None = None
        if plan.with_control:
            # Of its own for every run, or all with the seed 0 would get the same change.
            drawn_by = zlib.crc32(" ".join((*plan.words, f"seed={plan.seeds[0]}")).encode())
            controls = RandomControls(RandomControl(drawn_by), self.treatment)
            self.control = plan.arm("control", before, controls)

    @property
    def _arms(self) -> list[Arm]:
        return [self.treatment, *([self.control] if self.control else [])]

    @property
    def casebook(self) -> Casebook:
        """What there is so far."""
        return Casebook(self.command, self.treatment, self.control, tuple(self._shorts), self._cut)

    @property
    def lost(self) -> list[Result]:
        """Trainings that could not be run."""
        results = [r for arm in self._arms for step in arm.steps for r in step.results]
        return [one for one in [*self.treatment.before, *results] if one.diagnosis is None]

    def go(self, trained: Batch) -> None:
        """All rounds.

        Raises:
            Interrupted: by a signal; `cut_short` saves what there is.
        """
        self._other_seeds(trained)
        tried_on: tuple[str, ...] | None = None
        while True:
            if tried_on != self.treatment.words and not self.treatment.is_over:
                tried_on = self.treatment.words
                self._try_short(trained)
            wanted = [one for arm in self._arms for one in arm.wanted()]
            if not wanted:
                return
            if not self.plan.lasts(wanted):
                budget = duration(self.plan.budget)
                self._cut = f"the budget of {budget} does not last for a round more"
                return
            chosen = [f"{arm.name} {' '.join(arm.asked[-1])}" for arm in self._arms if arm.wanted()]
            self._screen.say(f"round {len(self.treatment.steps) + 1}: {'; '.join(chosen)}")
            runs = iter(self.plan.train(trained, wanted))
            for arm in self._arms:
                if arm.wanted():
                    arm.take([next(runs) for _ in arm.seeds])
            self.write()

    def _other_seeds(self, trained: Batch) -> None:
        """Trains the run itself with the other seeds, so that before and after can be paired."""
        plan, others = self.plan, self.plan.seeds[1:]
        if not others:
            return
        self._screen.say(f"the run itself, with {len(others)} more seeds")
        wanted = [Wanted(f"before_s{seed}", (*plan.words, f"seed={seed}")) for seed in others]
        self._begin([plan.before, *map(result, plan.train(trained, wanted))])

    def _try_short(self, trained: Batch) -> None:
        """Lets short trainings choose between the fixes of the first cause."""
        arm = self.treatment
        self._fixes.learn({})
        metrics = arm.base[0].metrics
        steps = metrics.dynamics.steps if metrics else None
        alternatives = self._fixes.alternatives(arm) if (steps or 0) >= LONG else []
        if not alternatives:
            return
        step = len(arm.steps) + 1
        changes: list[tuple[str, ...]] = [(), *(p.overrides for p in alternatives)]
        seed = f"seed={arm.seeds[0]}"
        wanted = [
            Wanted(f"short_{step}_{i}", (*treated(treated(arm.words, change), SHORT), seed))
            for i, change in enumerate(changes)
        ]
        if not self.plan.lasts(wanted):
            return
        said = ", ".join(" ".join(change) for change in changes[1:])
        self._screen.say(f"{SHORT_STEPS} steps each to choose: {said}")
        scores = [_short_score(result(run)) for run in self.plan.train(trained, wanted)]
        base = 0.0 if math.isnan(scores[0]) else scores[0]
        made = [
            Short(change, step, score, score - base)
            for change, score in zip(changes, scores, strict=True)
        ]
        self._shorts += made
        self._fixes.learn({short.overrides: short.gain for short in made[1:]})

    def cut_short(self) -> None:
        """Takes what had ended of a round that a signal cut short: whole arms only."""
        self._cut = "interrupted"
        for arm in self._arms:
            results = [result(Run(self.folder / one.name)) for one in arm.wanted()]
            if results and all(one.diagnosis for one in results):
                arm.take_results(results)

    def write(self) -> None:
        """Writes treatment.json, and the experiment file if anything helped."""
        book = self.casebook
        folder = self.folder / "experiment"
        with writing(self.folder):
            write_json(self.folder / FILE, book.content(time.monotonic() - self.plan.began))
            if book.outcome == "none":
                return
            folder.mkdir(exist_ok=True)
            for other in folder.glob("*.yaml"):  # better, before it was cured
                other.unlink()
            with atomic(folder / f"{book.outcome}.yaml") as path:
                path.write_text(book.experiment(), encoding="utf-8")

    def draw(self) -> None:
        """Draws treatment.png."""
        panels = [_panel(title, one) for title, one in self.casebook.pictured().items()]
        with writing(self.folder):
            figures.write(picture(panels), self.folder / PICTURE)

    def shorts(self) -> str:
        """What short trainings came to, in words; "" if there were none."""
        said = [
            f"{' '.join(short.overrides) or 'the run itself'} "
            + ("diverged" if math.isnan(short.score) else f"{short.score:.2f}")
            for short in self._shorts
        ]
        return f"score after {SHORT_STEPS} steps: {', '.join(said)}" if said else ""


def _short_score(found: Result) -> float:
    """The score of a short training; NaN if it diverged."""
    if found.metrics is None or found.metrics.dynamics.diverged_at is not None:
        return math.nan
    return found.metrics.score.value


def _panel(title: str, one: Result) -> Panel:
    """A column of the picture."""
    arrays = None if one.diagnosis is None else one.run.read_arrays(one.run.arrays)
    return Panel(title, problem([one]), one.healthy, arrays)
