"""Short trainings with one change each, as plain data, and what they prove.

A change is a *proven cause* only if all of this holds: what the training reaches fails a criterion of
`health`; the change brings more than seeds differ, with every seed; it makes up at least half of what
the training lacks; and no majority of all changes does the same. What the training lacks is measured to
the criterion where the whole training is known. Else it is all of the error, because in short trainings
alone a larger rate passes the criterion sooner, and that proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cae_cli.diagnosis.case import LITTLE_EXPLAINED
from cae_cli.diagnosis.finding import Confidence, Diagnosis, Finding, Fix
from cae_cli.diagnosis.health import SHARE_OF_LINEAR

HALF = 0.5  # of what the training lacks
LEAST_GAIN = 0.05  # of explained variance; kept fixes gain as much
LEAST_SHARE = 0.2  # of the error that is left, where that is less than `LEAST_GAIN`
WORST = -1.0  # explained variance below which trainings are equally bad
FEWEST_SEEDS = 2  # for a spread
SEVERAL = 3  # changes from which a majority means something


@dataclass(frozen=True)
class Trial:
    """A short training.

    Attributes:
        name: of the edit; "unchanged", or that of a random change.
        sentence: what it does.
        codes: of the findings that propose it.
        explained: explained variance of held-out images with each seed; -inf if it is not finite.
        before, after: the code that differs.
        seconds: that it took with all seeds.
        cut: it was ended early, because it was clearly worse than the unchanged training.
    """

    name: str
    sentence: str
    codes: tuple[str, ...]
    explained: tuple[float, ...]
    before: str = ""
    after: str = ""
    seconds: float = 0.0
    cut: bool = False

    @property
    def mean(self) -> float:
        """Explained variance, mean over seeds; not below `WORST`."""
        return sum(map(bounded, self.explained)) / len(self.explained)

    @property
    def spread(self) -> float:
        """The largest explained variance minus the smallest, 0 with one seed.

        What is worse than the mean image counts as the mean image: how much worse is chance.
        """
        values = [bounded(value, 0.0) for value in self.explained]
        return max(values) - min(values)


def bounded(value: float, least: float = WORST) -> float:
    """An explained variance, not below ``least``."""
    return max(value, least) if not math.isnan(value) else least


@dataclass(frozen=True)
class Trials:
    """The trials of one training.

    Attributes:
        unchanged: the training itself.
        edits: the trials with an edit, in the order in which they were made.
        controls: those with a random change.
        given: explained variance of the model as it was given, trained in full if it was; NaN: unknown.
        linear: explained variance of a linear decoder; NaN: unknown.
        steps: of each trial.
        seeds: of weights and batches; the first is that of all trials.
        control_seed: of the random changes.
        seconds: in total.
        untried: edits that there was no time for.
        ended: why it ended: "", or "the budget of 60 s is used", "interrupted".
    """

    unchanged: Trial
    edits: tuple[Trial, ...]
    controls: tuple[Trial, ...]
    given: float = math.nan
    linear: float = math.nan
    steps: int = 0
    seeds: tuple[int, ...] = (0, 1)
    control_seed: int = 0
    seconds: float = 0.0
    untried: tuple[str, ...] = ()
    ended: str = ""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Trials:
        """From the content of trials.json, see `Trials.content`.

        Raises:
            ValueError: it is something else.
        """
        try:
            return cls(
                unchanged=_trial(content["unchanged"]),
                edits=tuple(map(_trial, content["edits"])),
                controls=tuple(map(_trial, content["controls"])),
                given=_number(content["given"]),
                linear=_number(content["linear"]),
                steps=int(content["steps"]),
                seeds=tuple(int(seed) for seed in content["seeds"]),
                control_seed=int(content["control_seed"]),
                seconds=_number(content["seconds"]),
                untried=tuple(map(str, content["untried"])),
                ended=str(content["ended"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ValueError(f"no trials: {error}") from error

    def content(self) -> dict[str, Any]:
        """The content of trials.json: what was measured, and what it proves."""
        return {
            **asdict(self),
            "verdict": self.verdict(),
            "proven": [trial.name for trial in self.proven],
            "alike": [trial.name for trial in self.alike],
        }

    @property
    def reached(self) -> float:
        """What the training reaches: the better of the unchanged trial and the model as it was given."""
        return max(self.unchanged.mean, bounded(self.given))

    @property
    def fails(self) -> bool:
        """Whether that is too little, by the criteria of `health`."""
        return self.reached < self.enough

    @property
    def enough(self) -> float:
        """The explained variance of a healthy training, by the criteria of `health`."""
        linear = self.linear if self.linear > LITTLE_EXPLAINED else 0.0
        return max(LITTLE_EXPLAINED, SHARE_OF_LINEAR * linear)

    @property
    def spread(self) -> float:
        """By how much seeds differ: the unchanged training's, and what is worth a change at least."""
        return max(self.unchanged.spread, min(LEAST_GAIN, LEAST_SHARE * (1 - self.reached)))

    def gain(self, trial: Trial) -> float:
        """Explained variance beyond the unchanged training with the same seeds, mean over seeds."""
        pairs = zip(trial.explained, self.unchanged.explained, strict=False)
        gains = [bounded(a) - bounded(b) for a, b in pairs]
        return sum(gains) / len(gains)

    def helps(self, trial: Trial) -> bool:
        """Whether a change gains more than seeds differ, with every seed."""
        spread = max(self.spread, trial.spread)
        pairs = zip(trial.explained, self.unchanged.explained, strict=False)
        given = bounded(self.given, 0.0)
        least = min(bounded(a, 0.0) - max(bounded(b, 0.0), given) for a, b in pairs)
        return not trial.cut and least > spread

    def mends(self, trial: Trial) -> bool:
        """Whether a change turns a failing training into one that learns, see above."""
        if not (self.fails and self.helps(trial)):
            return False
        least = min(map(bounded, trial.explained))
        goal = 1.0 if math.isnan(self.given) else self.enough
        return least >= max(LITTLE_EXPLAINED, self.reached + HALF * (goal - self.reached))

    @property
    def undecided(self) -> bool:
        """Whether the majority of all changes mends the training, so that none of them is its cause."""
        every = [*self.edits, *self.controls]
        return len(every) >= SEVERAL and sum(map(self.mends, every)) > len(every) / 2

    @property
    def proven(self) -> tuple[Trial, ...]:
        """The edits that are proven causes, the best first; of equally good ones those of findings."""
        if self.undecided:
            return ()
        found = [t for t in self.edits if len(t.explained) >= FEWEST_SEEDS and self.mends(t)]
        best = max((trial.mean for trial in found), default=0.0)
        return tuple(sorted(found, key=lambda t: (best - t.mean > self.spread, not t.codes, -t.mean)))

    @property
    def helping(self) -> tuple[Trial, ...]:
        """The edits that are reported as helping: the proven ones, then others with the best first.

        None where the majority of all changes helps, random ones too.
        """
        every = [*self.edits, *self.controls]
        if self.undecided or (len(every) >= SEVERAL and sum(map(self.helps, every)) > len(every) / 2):
            return self.proven
        found = [
            t
            for t in self.edits
            if len(t.explained) >= FEWEST_SEEDS and self.helps(t) and t not in self.proven
        ]
        return (*self.proven, *sorted(found, key=lambda trial: -trial.mean))

    @property
    def alike(self) -> tuple[Trial, ...]:
        """Proven edits that are as good as the best one: trials do not tell them apart."""
        best = max((trial.mean for trial in self.proven), default=0.0)
        return tuple(t for t in self.proven if best - t.mean <= self.spread)

    @property
    def best(self) -> Trial | None:
        """What to show: the first edit that helps, else the edit with the most explained variance."""
        ordered = self.helping or sorted(self.edits, key=lambda trial: (trial.cut, -trial.mean))
        return ordered[0] if ordered else None

    @property
    def best_control(self) -> Trial | None:
        """The random change with the most explained variance."""
        return max(self.controls, key=lambda trial: (not trial.cut, trial.mean), default=None)

    def confirms(self, finding: Finding) -> bool:
        """Whether a proven edit that is as good as the best one is a fix of this finding."""
        return any(finding.code in trial.codes for trial in self.alike)

    def refutes(self, finding: Finding) -> bool:
        """Whether fixes of this finding were tried, and none of them helps."""
        tried = [trial for trial in self.edits if finding.code in trial.codes]
        return bool(tried) and not any(map(self.helps, tried))

    def verdict(self, diagnosis: Diagnosis | None = None) -> str:
        """What the trials prove, in one line."""
        if not self.edits:
            return f"no change was tried: {self.ended or 'none applies to this training'}"
        if self.undecided:
            return "most changes help alike, random ones too: this does not tell the cause"
        if not self.proven:
            best = self.best
            assert best is not None
            beyond = f"the best, {best.name}, explains {_shares(self, best)}"
            if self.helping:
                needed = "" if self.fails else "no change is needed, but "
                left = f"{(1 - best.mean) / (1 - self.reached):.0%} of the error"
                return f"{needed}{best.name} helps: it explains {_shares(self, best)}, {left} is left"
            if not self.fails:
                return f"no change is needed: {beyond}"
            once = [t for t in self.edits if len(t.explained) < FEWEST_SEEDS and self.mends(t)]
            if once:
                seems = max(once, key=lambda trial: trial.mean)
                shares = f"it explains {_shares(self, seems)}"
                return (
                    f"{seems.name} seems to mend it, but there was no time for a second seed: {shares}"
                )
            left = f", {len(self.untried)} were not tried" if self.untried else ""
            if len(self.edits) == 1:
                shares = _shares(self, best)
                return (
                    f"{best.name}, the only change tried, does not mend it{left}: it explains {shares}"
                )
            return f"none of the {len(self.edits)} changes tried mends it{left}: {beyond}"
        names = " or ".join(trial.name for trial in self.alike)
        named = [] if diagnosis is None else [f for f in diagnosis.causes if self.confirms(f)]
        cause = f"confirmed: {named[0].problem}" if named else "a fault that no rule knows"
        return f"{cause}; {names} mends it, {_shares(self, self.proven[0])}"


def _shares(trials: Trials, trial: Trial) -> str:
    return f"{trial.mean:.2f} of the variance instead of {trials.reached:.2f}"


def _trial(content: Mapping[str, Any]) -> Trial:
    explained = tuple(_number(value, -math.inf) for value in content["explained"])
    if not explained:
        raise ValueError("a trial without a seed")
    return Trial(
        name=str(content["name"]),
        sentence=str(content["sentence"]),
        codes=tuple(map(str, content["codes"])),
        explained=explained,
        before=str(content["before"]),
        after=str(content["after"]),
        seconds=_number(content["seconds"]),
        cut=bool(content["cut"]),
    )


def _number(value: Any, missing: float = math.nan) -> float:
    return missing if value is None else float(value)


def after_trials(diagnosis: Diagnosis, trials: Trials) -> Diagnosis:
    """The findings in the order that the trials give them.

    Confirmed causes come first, with high confidence. Causes whose fixes were tried in vain come last,
    with low confidence. What follows from a cause stays behind it. Of the fixes of a finding those that
    help come first, those that were tried in vain last, and each says what it brought.
    """
    tried = {trial.name: trial for trial in trials.edits}
    confirmed = [f.code for f in diagnosis.causes if trials.confirms(f)]
    in_vain = [f.code for f in diagnosis.causes if trials.refutes(f)]

    def rank(finding: Finding) -> int:
        code = finding.consequence_of or finding.code
        return 0 if code in confirmed else 2 if code in in_vain else 1

    def told(fix: Fix) -> Fix:
        trial = tried.get(fix.edit)
        if trial is None:
            return fix
        unchanged = trial.mean - trials.gain(trial)  # with the same seeds
        said = f"tried: it explains {trial.mean:.2f} instead of {unchanged:.2f}"
        return replace(fix, why=f"{fix.why}; {said}{', and was ended early' if trial.cut else ''}")

    def place(fix: Fix) -> tuple[int, float]:
        trial = tried.get(fix.edit)
        if trial is None:
            return 1, 0.0
        return (0, -trial.mean) if trials.helps(trial) else (2, 0.0)

    def judged(finding: Finding) -> Finding:
        finding = replace(finding, fixes=tuple(map(told, sorted(finding.fixes, key=place))))
        if finding.code in confirmed:
            return replace(finding, confidence=Confidence.HIGH)
        return replace(finding, confidence=Confidence.LOW) if finding.code in in_vain else finding

    findings: Sequence[Finding] = sorted(map(judged, diagnosis.findings), key=rank)  # stable
    return replace(diagnosis, findings=tuple(findings))
