"""A treatment session: what is trained, how long that may take, and which files it writes."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cae_cli.report import figures, terminal
from cae_cli.report.figures.treatment import Panel
from cae_cli.report.figures.treatment import treatment as picture
from cae_cli.report.numbers import duration
from cae_cli.report.page import treatment as page
from cae_cli.report.sections import Part
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import read_json, write_json
from cae_cli.sweep import batch
from cae_cli.sweep.batch import Batch, BatchRun
from cae_cli.system.files import writing
from cae_cli.system.guarded import GuardedPath
from cae_cli.treatment.arm import Arm, Fixes, Proposer, RandomControls
from cae_cli.treatment.random_control import RandomControl, with_changes
from cae_cli.treatment.record import Record, Short, problem
from cae_cli.treatment.result import Result, result

FILE = "treatment.json"
PICTURE = "treatment.png"
PAGE = "report.html"
LONG_RUN = 2000  # steps from which on short trainings choose between fixes
SHORT_STEPS = 200
SHORT = (f"training.steps={SHORT_STEPS}", "training.snapshots=[]")
UNKNOWN_SECONDS = 60.0  # assumed duration of a run that does not record it


@dataclass
class Plan:
    """A run and how it is treated.

    Attributes:
        before: result of the run.
        overrides: its overrides, without the seed.
        seeds: to train with, the run's own first.
        max_fixes: fixes to try at most.
        budget: seconds in total; infinite without a limit.
        with_control: also train random controls.
        spent: seconds of the trainings so far, and their length in units of the run.
        began: start, by `time.monotonic`.
    """

    before: Result
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    max_fixes: int
    budget: float
    with_control: bool
    spent: tuple[float, float] = (0.0, 0.0)
    began: float = field(default_factory=lambda: time.monotonic())

    def arm(self, name: str, before: Sequence[Result], proposer: Proposer) -> Arm:
        """An arm that begins with the run."""
        seeds = self.seeds[: len(before)]
        return Arm(name, self.overrides, before, seeds, proposer, self.max_fixes, batch.checked)

    @property
    def seconds(self) -> float:
        """Duration of the run itself: the first estimate of that of a training."""
        status = self.before.run.status()
        try:
            started, ended = (datetime.fromisoformat(status[key]) for key in ("started", "ended"))
        except (KeyError, TypeError, ValueError):
            return UNKNOWN_SECONDS
        return max(1.0, (ended - started).total_seconds())

    @property
    def trainings(self) -> int:
        """Trainings for each fix."""
        return (1 + self.with_control) * len(self.seeds)

    def cost(self, overrides: Sequence[str]) -> float:
        """Length of a training in units of the run."""
        own, other = batch.checked(self.overrides), batch.checked(overrides)
        measured = self.before.metrics
        steps = measured.dynamics.steps if measured else None
        if other.training.steps and steps:
            return max(other.training.steps / steps, 0.01)
        cost = other.training.epochs / own.training.epochs
        if own.data.train and other.data.train:
            cost *= other.data.train / own.data.train
        return max(cost, 0.01)

    def first(self, cost: float) -> float:
        """Seconds for the first fix, whose trainings have this cost."""
        return (self.trainings * cost + len(self.seeds) - 1) * self.seconds

    def most(self, cost: float) -> float:
        """Seconds at most, if no later fix needs longer trainings than the first."""
        others = (self.max_fixes - 1) * self.trainings * max(1.0, cost) * self.seconds
        return min(self.first(cost) + others, self.budget)

    def lasts(self, wanted: Sequence[BatchRun]) -> bool:
        """Whether the budget is enough for these trainings."""
        seconds, trained = self.spent
        pace = seconds / trained if trained else self.seconds
        needed = pace * sum(self.cost(one.overrides) for one in wanted)
        return time.monotonic() - self.began + needed <= self.budget

    def train(self, runner: Batch, wanted: Sequence[BatchRun]) -> list[Run]:
        """Trains, and keeps the time."""
        began = time.monotonic()
        runs = runner.train(wanted)
        seconds, trained = self.spent
        cost = sum(self.cost(one.overrides) for one in wanted)
        self.spent = seconds + time.monotonic() - began, trained + cost
        return runs


class Session:
    """Tries the fixes of a run, and keeps the record.

    Args:
        plan: the run and how it is treated.
        folder: an existing one, for all files.
        command: the whole command.
    """

    def __init__(self, plan: Plan, folder: GuardedPath, command: Sequence[str]) -> None:
        self.plan, self.folder, self.command = plan, folder, tuple(command)
        self._screen = terminal.Screen()
        self._cut = ""
        self._shorts: list[Short] = []
        self._fixes = Fixes()
        self._start([plan.before])

    def _start(self, before: Sequence[Result]) -> None:
        plan = self.plan
        self.treatment = plan.arm("treatment", before, self._fixes)
        self.control: Arm | None = None
        if plan.with_control:
            # Depends on the run: otherwise all runs with the seed 0 would get the same changes.
            seed = zlib.crc32(" ".join((*plan.overrides, f"seed={plan.seeds[0]}")).encode())
            controls = RandomControls(RandomControl(seed), self.treatment)
            self.control = plan.arm("control", before, controls)

    @property
    def _arms(self) -> list[Arm]:
        return [self.treatment, *([self.control] if self.control else [])]

    @property
    def record(self) -> Record:
        """All results so far."""
        return Record(self.command, self.treatment, self.control, tuple(self._shorts), self._cut)

    @property
    def failed(self) -> list[Result]:
        """Trainings that could not be run."""
        results = [r for arm in self._arms for step in arm.steps for r in step.results]
        return [one for one in [*self.treatment.before, *results] if one.diagnosis is None]

    def run(self, runner: Batch) -> None:
        """Tries fixes until the run is healthy, none is left, or a limit is reached.

        Raises:
            Interrupted: by a signal; `interrupt` saves the results so far.
        """
        self._train_other_seeds(runner)
        compared: tuple[str, ...] | None = None
        while True:
            if compared != self.treatment.overrides and not self.treatment.is_over:
                compared = self.treatment.overrides
                self._choose(runner)
            wanted = [one for arm in self._arms for one in arm.wanted()]
            if not wanted:
                return
            if not self.plan.lasts(wanted):
                self._cut = f"the budget of {duration(self.plan.budget)} is not enough for another fix"
                return
            changes = [f"{arm.name} {' '.join(arm.tried[-1])}" for arm in self._arms if arm.wanted()]
            self._screen.say(f"fix {len(self.treatment.steps) + 1}: {'; '.join(changes)}")
            runs = iter(self.plan.train(runner, wanted))
            for arm in self._arms:
                if arm.wanted():
                    arm.take([next(runs) for _ in arm.seeds])
            self.write()

    def run_short(self, runner: Batch) -> None:
        """Only trains the run and the candidates for a few steps each."""
        self._train_short(runner, self._fixes.candidates(self.treatment))
        self.write()

    def _train_other_seeds(self, runner: Batch) -> None:
        """Trains the run itself with the other seeds, so that before and after are paired."""
        plan, others = self.plan, self.plan.seeds[1:]
        if not others:
            return
        self._screen.say(f"the run itself with {len(others)} more seed{'s' * (len(others) > 1)}")
        wanted = [BatchRun(f"before_s{seed}", (*plan.overrides, f"seed={seed}")) for seed in others]
        self._start([plan.before, *map(result, plan.train(runner, wanted))])

    def _choose(self, runner: Batch) -> None:
        """Orders the fixes of the first cause by short trainings, if the run is long enough."""
        self._fixes.prefer({})
        alternatives = self._fixes.alternatives(self.treatment) if self._steps >= LONG_RUN else []
        if alternatives:
            self._fixes.prefer(self._train_short(runner, alternatives))

    def _train_short(
        self, runner: Batch, changes: Sequence[tuple[str, ...]]
    ) -> dict[tuple[str, ...], float]:
        """Gains in score over the run itself, all trained for a few steps; {} without a budget."""
        arm = self.treatment
        step, seed = len(arm.steps) + 1, f"seed={arm.seeds[0]}"
        all_changes = [(), *changes]
        wanted = [
            BatchRun(f"short_{step}_{i}", (*with_changes(arm.overrides, (*change, *SHORT)), seed))
            for i, change in enumerate(all_changes)
        ]
        if not self.plan.lasts(wanted):
            return {}
        self._screen.say(f"{SHORT_STEPS} steps each: {', '.join(' '.join(c) for c in changes)}")
        measured = [_measured(result(run)) for run in self.plan.train(runner, wanted)]
        base = 0.0 if math.isnan(measured[0][0]) else measured[0][0]
        trained = [
            Short(change, step, score, explained, score - base)
            for change, (score, explained) in zip(all_changes, measured, strict=True)
        ]
        self._shorts += trained
        return {short.overrides: short.gain for short in trained[1:]}

    @property
    def _steps(self) -> int:
        """Steps of the base; 0 if they are not known."""
        metrics = self.treatment.base[0].metrics
        return (metrics.dynamics.steps or 0) if metrics else 0

    def interrupt(self) -> None:
        """Takes the results of arms whose trainings had all ended before a signal."""
        self._cut = "interrupted"
        for arm in self._arms:
            results = [result(Run(self.folder / one.name)) for one in arm.wanted()]
            if results and all(one.diagnosis for one in results):
                arm.take_results(results)

    def write(self) -> None:
        """Writes treatment.json, and the experiment file if a fix was kept."""
        record = self.record
        folder = self.folder / "experiment"
        with writing(self.folder):
            write_json(self.folder / FILE, record.content(time.monotonic() - self.plan.began))
            if record.outcome == "none":
                return
            for other in folder.children("*.yaml"):  # "better", before the run was fixed
                other.unlink()
            with (folder / f"{record.outcome}.yaml").atomic() as path:
                path.write_text(record.experiment(), encoding="utf-8")

    def draw(self, parts: Sequence[Part]) -> None:
        """Draws treatment.png and writes report.html, with what is shown on the screen."""
        panels = [_panel(title, one) for title, one in self.record.pictured().items()]
        with writing(self.folder):
            figures.write(picture(panels), self.folder / PICTURE)
            name = f"treatment {self.folder.shown.name}"
            page.write(self.folder / PAGE, name, parts, panels, read_json(self.folder / FILE))


def _measured(one: Result) -> tuple[float, float]:
    """Score and explained variance of a short training; NaN if it diverged."""
    if one.metrics is None or one.metrics.dynamics.diverged_at is not None:
        return math.nan, math.nan
    return one.metrics.score.value, one.metrics.quality.explained_variance


def _panel(title: str, one: Result) -> Panel:
    """A column of the picture."""
    arrays = None if one.diagnosis is None else one.run.read_arrays(one.run.arrays)
    return Panel(title, problem([one]), one.healthy, arrays)
