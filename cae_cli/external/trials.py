"""Trials of a training: unchanged, with edits, and with random changes, within a budget of time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from cae_cli.diagnosis import Finding
from cae_cli.diagnosis.case import LITTLE_EXPLAINED
from cae_cli.diagnosis.trials import Trial, Trials, bounded
from cae_cli.errors import Interrupted, UserError
from cae_cli.external import random_edits
from cae_cli.external.edits import CATALOGUE, Change
from cae_cli.external.training import Array, Training
from cae_cli.report.numbers import duration

STEPS = 200  # of a trial, if the training ran as many
PLANNED = 12  # trainings that the length of a trial leaves time for; edits that are likely come first
CLEARLY_WORSE = 0.2  # explained variance lost in half the steps after which a trial is ended
SHOWN = 8  # images in the picture
MOST_CONFIRMED = 3  # edits that get a second seed


@dataclass(frozen=True)
class Result:
    """What trials measured.

    Attributes:
        trials: as numbers.
        pictures: held-out images, and reconstructions before, with the best edit, and with the best
            random change, (n, h, w, c) each, in the range of the images.
    """

    trials: Trials
    pictures: Mapping[str, Array]


def proposed(findings: Sequence[Finding]) -> dict[str, tuple[str, ...]]:
    """The edits that findings propose, in their order, with the codes of these findings."""
    names: dict[str, tuple[str, ...]] = {}
    for finding in findings:
        for fix in finding.fixes:
            if fix.edit in CATALOGUE and finding.code not in names.get(fix.edit, ()):
                names[fix.edit] = (*names.get(fix.edit, ()), finding.code)
    return names


def tried(
    training: Training,
    *,
    budget: float,
    findings: Sequence[Finding] = (),
    linear: float = math.nan,
    given: float = math.nan,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Tries edits on a training.

    First comes the training itself, then the edits that findings propose, then the rest of the
    catalogue. One random change follows the first edit, further ones the last, as many as edits. All
    start from the same weights and get the same batches, as far as the edit allows. What seems to mend
    the training or to help it is repeated with a second seed at once, and so is the training itself;
    time is kept for that. Ctrl-C ends the trials and keeps what was measured.

    Args:
        training: to be edited.
        budget: seconds; the training that is at work then is finished.
        findings: of its diagnosis, causes first.
        linear: explained variance of a linear decoder of the images; NaN: unknown.
        given: explained variance of the model as it was given; NaN: unknown.
        seed: of the weights, of the batches, and of the random changes.
        say: gets a line for each trial.

    Raises:
        UserError: the training cannot be run again.
    """
    session = _Session(training, budget, seed, linear, given, say)
    try:
        session.run(proposed(findings))
    except (KeyboardInterrupt, Interrupted):
        if not session.unchanged.explained:
            raise
        session.ended = "interrupted"
    return session.result()


@dataclass
class _Attempt:
    """A trial on its way.

    Attributes:
        trial: as far as it is known.
        training: the edited one.
        halfway: explained variance after half the steps, by seed.
        outputs: reconstructions of the images in the picture.
    """

    trial: Trial
    training: Training
    halfway: dict[int, float]
    outputs: Array | None = None

    @property
    def explained(self) -> tuple[float, ...]:
        return self.trial.explained


class _Session:
    """Trials on their way."""

    def __init__(
        self,
        training: Training,
        budget: float,
        seed: int,
        linear: float,
        given: float,
        say: Callable[[str], None],
    ) -> None:
        self.training, self.budget, self.say = training, budget, say
        self.linear, self.given = linear, given
        self.seeds, self.control_seed = (seed, seed + 1), seed
        self.began = time.monotonic()
        self.steps = STEPS if training.steps is None else min(STEPS, max(1, training.steps))
        self.unchanged = self._attempt("unchanged", "", (), Change(training, "", ""))
        self.edits: list[_Attempt] = []
        self.controls: list[_Attempt] = []
        self.untried: list[str] = []
        self.ended = ""
        self._each: list[float] = []  # seconds of each training

    def run(self, proposals: Mapping[str, tuple[str, ...]]) -> None:
        """All trials that there is time for."""
        self._train(self.unchanged, 0)
        self._lengthen()
        changes = random_edits.changes(self.training, self.control_seed)
        # Longer trials take the time of several others.
        first = [name for name in proposals if name != "more steps"]
        order = [*first, *(name for name in CATALOGUE if name not in first)]
        for number, name in enumerate(order):
            if not self._is_time(1 + len(self.seeds) - len(self.unchanged.explained) + 1):
                self.untried = [n for n in order[number:] if self._change(n) is not None]
                break
            made = self._try(name, proposals.get(name, ()))
            if made and not self.controls:
                self._control(changes)
        while len(self.controls) < len(self.edits) and self._is_time():
            if not self._control(changes):
                break
        if self.untried or not self._is_time():
            self.ended = f"the budget of {duration(self.budget)} is used"

    def _lengthen(self) -> None:
        """More steps where the training ran more and there is time for them."""
        steps, seconds = self.steps, self._each[-1]
        affordable = int(steps * self.budget / (PLANNED * max(seconds, 1e-9)))
        wanted = min(self.training.steps or steps, affordable)
        if wanted >= 2 * steps:
            self.steps = wanted
            self.unchanged = self._attempt("unchanged", "", (), Change(self.training, "", ""))
            self._train(self.unchanged, 0)

    def _try(self, name: str, codes: tuple[str, ...]) -> bool:
        """Tries an edit; whether it applied."""
        change = self._change(name)
        if change is None:
            return False
        attempt = self._attempt(name, CATALOGUE[name].sentence, codes, change)
        if not self._trained(attempt):
            return False
        self.edits.append(attempt)
        self._confirm(attempt)
        return True

    def _change(self, name: str) -> Change | None:
        """The change that an edit makes; more steps tell nothing where the training ran more anyway."""
        if name == "more steps" and (self.training.steps or 0) > self.steps:
            return None
        return CATALOGUE[name].change(self.training)

    def _confirm(self, attempt: _Attempt) -> None:
        """A second seed for what seems to mend the training, or to help it."""
        before = self.trials()
        if before.gain(attempt.trial) > before.spread and len(self.unchanged.explained) == 1:
            if not self._is_time():
                return
            self._train(self.unchanged, 1)
        now = self.trials()
        confirmed = sum(len(a.explained) > 1 for a in self.edits)
        better = all(attempt.trial.mean > a.trial.mean for a in self.edits if len(a.explained) > 1)
        if now.helps(attempt.trial) and (confirmed < MOST_CONFIRMED or better) and self._is_time():
            self._train(attempt, 1)

    def _control(self, changes: Iterator[tuple[str, Change]]) -> bool:
        """Tries a random change; whether there was one."""
        drawn = next(changes, None)
        if drawn is None or not self._is_time():
            return False
        name, change = drawn
        attempt = self._attempt(name, "a random change", (), change)
        if self._trained(attempt):
            self.controls.append(attempt)
        return True

    def _trained(self, attempt: _Attempt) -> bool:
        """Trains with the first seed; False if Keras cannot."""
        try:
            self._train(attempt, 0)
        except UserError:
            return False
        return True

    def _attempt(self, name: str, sentence: str, codes: tuple[str, ...], change: Change) -> _Attempt:
        trial = Trial(name, sentence, codes, (), change.before, change.after)
        return _Attempt(trial, change.training, {})

    def _train(self, attempt: _Attempt, which: int) -> None:
        """Trains with one of the seeds and measures."""
        training, began = attempt.training, time.monotonic()
        steps = max(1, round(self.steps * training.longer))
        middle, usual = max(1, steps // 2), self.unchanged.halfway.get(which)
        cut = False

        def watch(step: int, model: keras.Model) -> bool:
            nonlocal cut
            if step == middle < steps:
                found = attempt.halfway[which] = training.explained(model)
                # A training that fails may be mended late.
                if usual is not None and usual > LITTLE_EXPLAINED:
                    cut = bounded(found) < usual - CLEARLY_WORSE
            return not cut

        model = training.run(steps, self.seeds[which], watch)
        explained = training.explained(model)
        if which == 0:
            attempt.outputs = training.outputs(model, training.judged[0][:SHOWN])
        seconds = time.monotonic() - began
        self._each.append(seconds)
        attempt.trial = replace(
            attempt.trial,
            explained=(*attempt.explained, explained),
            seconds=attempt.trial.seconds + seconds,
            cut=attempt.trial.cut or cut,
        )
        self.say(f"{attempt.trial.name}: explains {bounded(explained):.2f}, {duration(seconds)}")

    def _is_time(self, trainings: int = 1) -> bool:
        """Whether so many trainings, as long as they are on average, end within the budget."""
        left = self.budget - (time.monotonic() - self.began)
        return left >= trainings * float(np.mean(self._each))

    def trials(self) -> Trials:
        """The trials so far."""
        return Trials(
            unchanged=self.unchanged.trial,
            edits=tuple(a.trial for a in self.edits),
            controls=tuple(a.trial for a in self.controls),
            given=self.given,
            linear=self.linear,
            steps=self.steps,
            seeds=self.seeds,
            control_seed=self.control_seed,
            seconds=time.monotonic() - self.began,
            untried=tuple(self.untried),
            ended=self.ended,
        )

    def result(self) -> Result:
        """The trials, and reconstructions for a picture."""
        trials = self.trials()
        few = slice(SHOWN)
        images, targets = self.training.judged
        pictures = {"images": images[few], "targets": targets[few]}
        shown = {"unchanged": trials.unchanged, "edit": trials.best, "control": trials.best_control}
        for kind, trial in shown.items():
            for attempt in (self.unchanged, *self.edits, *self.controls):
                if attempt.trial is trial and attempt.outputs is not None:
                    pictures[kind] = attempt.outputs
        return Result(trials, pictures)
