"""The record of a treatment: the outcome as text, the rows of its table, and its files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from cae_cli.config import compose
from cae_cli.config.schema import GROUPS
from cae_cli.report.treatment import Row
from cae_cli.statistics.interval import Interval, interval
from cae_cli.treatment.arm import Arm, Step, reproduced
from cae_cli.treatment.result import MIN_GAIN, Result, problems

SCHEMA_VERSION = 2  # of treatment.json


@dataclass(frozen=True)
class Short:
    """A short training that compares fixes.

    Attributes:
        overrides: the change; () for the run itself.
        step: the number of the fix that it helps to choose, from 1.
        score: meaningfulness after a few steps; NaN if the training diverged.
        explained: explained variance of held-out images; NaN if the training diverged.
        gain: in score over the run itself, trained as short; NaN if the training diverged.
    """

    overrides: tuple[str, ...]
    step: int
    score: float
    explained: float
    gain: float


@dataclass(frozen=True)
class Record:
    """All results of a treatment.

    Attributes:
        command: the whole command.
        treatment: the arm of the fixes.
        control: the arm of the random controls, or None.
        shorts: short trainings.
        cut: why the treatment ended early, else "".
    """

    command: tuple[str, ...]
    treatment: Arm
    control: Arm | None = None
    shorts: tuple[Short, ...] = ()
    cut: str = ""

    @property
    def outcome(self) -> str:
        """Fixed, better or none."""
        if not self.changes:
            return "none"
        return "fixed" if self.treatment.is_fixed else "better"

    @property
    def changes(self) -> tuple[str, ...]:
        """Overrides that were kept, in order."""
        return tuple(o for step in self.treatment.steps if step.kept for o in step.change)

    @property
    def gain(self) -> Interval:
        """Gain in score over seeds."""
        return _difference(self.treatment.base, self.treatment.before)

    @property
    def advantage(self) -> Interval | None:
        """Gain in score beyond that of the random controls, over seeds; None without a control."""
        if self.control is None or not self.control.steps:
            return None
        return _difference(self.treatment.base, self.control.base)

    @property
    def reproduce(self) -> str:
        """The command that repeats the best run."""
        return reproduced(self.treatment.overrides, self.treatment.seeds[0])

    def verdict(self) -> str:
        """The outcome in one line."""
        arm = self.treatment
        scores = f"score {_mean(arm.before, 'score'):.2f} → {_mean(arm.base, 'score'):.2f}"
        changed = " ".join(self.changes)
        if self.outcome == "fixed":
            text = f"fixed by {changed}: {scores}"
        elif self.outcome == "better":
            text = f"improved by {changed}, not healthy yet: {scores}; remaining: {problem(arm.base)}"
        elif arm.steps:
            text = "no fix helped"
        else:
            text = self._best_short()
        if arm.steps:
            text += self._compared_with_control()
        return f"{self.cut}; so far: {text}" if self.cut else text

    def _best_short(self) -> str:
        """The change that explains most after a few steps: the score is often still 0 then."""
        if not self.shorts:
            return "nothing was tried"
        itself, *others = (max(np.nan_to_num(short.explained), 0.0) for short in self.shorts)
        best = max(others, default=0.0)
        if not best - itself > MIN_GAIN:
            return "no change helps in short trainings"
        change = " ".join(self.shorts[1 + others.index(best)].overrides)
        return f"{change} helps most in short trainings: explained variance {itself:.2f} → {best:.2f}"

    def _compared_with_control(self) -> str:
        """The comparison with the random controls."""
        if self.control is None:
            return ""
        by = self.advantage
        if by is None:
            return "; no fitting random change was found"
        steps = self.control.steps
        tried = "a random change" if len(steps) == 1 else f"{len(steps)} random changes"
        margin = f" ± {by.margin:.2f}" if math.isfinite(by.margin) else ""
        score = _mean(self.control.base, "score")
        if self.control.is_fixed:
            return f"; but {tried} fixed it too (score {score:.2f}), so this may be chance"
        if self.outcome == "none":
            if any(step.kept for step in steps):
                return f"; {tried} helped more (score {score:.2f})"
            return f", and {tried} did not help either"
        ours, others = self.treatment.base, self.control.base
        explained = _difference(ours, others, "explained")
        fewer = problems(ours) < problems(others)
        left = f"left {'more' if fewer else 'as few'} problems"
        if _clearly(by, -1) or _clearly(explained, -1):
            percent = f"{_mean(others, 'explained'):.0%} instead of {_mean(ours, 'explained'):.0%}"
            return (
                f"; but {tried} {left} and reached more (score {score:.2f}, {by.value:+.2f}{margin}; "
                f"{percent} explained), so which is better is open"
            )
        if _clearly(by, 1):
            return f", {by.value:.2f}{margin} more than with {tried} ({score:.2f})"
        if fewer:
            return f"; {tried} left more problems (score {score:.2f})"
        return f", no more than with {tried} ({score:.2f}, {by.value:+.2f}{margin}): this may be chance"

    def rows(self) -> list[Row]:
        """The rows of the table: before, after each fix, and after each random control."""
        rows = [_row("before", "", "", self.treatment.before, ())]
        for name, arm in (("fix", self.treatment), ("random control", self.control)):
            base = self.treatment.before
            for step in arm.steps if arm else ():
                kept = "yes" if step.kept else "no"
                rows.append(
                    _row(f"{name} {step.number}", " ".join(step.change), kept, step.results, base)
                )
                base = step.results if step.kept else base
        return rows

    def pictured(self) -> dict[str, Result]:
        """The runs of the picture by title, with the first seed."""
        found = {"before": self.treatment.before[0]}
        for name, arm in (("after", self.treatment), ("control", self.control)):
            if arm and (step := _shown(arm)):
                changes = [o for s in arm.steps if s.kept for o in s.change] or step.change
                found[f"{name}: {' '.join(changes)}"] = step.results[0]
        return found

    def content(self, seconds: float) -> dict[str, Any]:
        """treatment.json.

        Args:
            seconds: duration of the treatment.
        """
        arms = {"treatment": self.treatment, "control": self.control}
        return {
            "schema": SCHEMA_VERSION,
            "command": list(self.command),
            "run": self.treatment.before[0].run.folder,
            "outcome": self.outcome,
            "cut": self.cut or None,
            "verdict": self.verdict(),
            "changes": list(self.changes),
            "gain": self.gain,
            "advantage": self.advantage,
            "reproduce": self.reproduce,
            "seeds": list(self.treatment.seeds),
            "seconds": round(seconds, 1),
            "before": [_plain_result(result) for result in self.treatment.before],
            "short": self.shorts,
            "arms": {name: _arm(arm) for name, arm in arms.items() if arm},
        }

    def experiment(self) -> str:
        """The best run as an experiment file.

        Raises:
            UserError: an override cannot be read.
        """
        overrides = (*self.treatment.overrides, f"seed={self.treatment.seeds[0]}")
        return experiment(overrides, [self.reproduce, self.verdict()])


def experiment(overrides: Sequence[str], comments: Sequence[str]) -> str:
    """Overrides of ``cae train`` as an experiment file that composes to the same config.

    Args:
        overrides: of the run.
        comments: its first lines.

    Raises:
        UserError: an override cannot be read.
    """
    defaults: list[dict[str, Any]] = []
    values: dict[str, Any] = {}
    for override in compose.parsed(overrides):
        key, value = override.key_or_group, _plain(override.value())
        if key in GROUPS:
            defaults.append({f"override /{key}": value})
            continue
        *path, last = key.split(".")
        node = values
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    # As on the command line, an override for the regularization wins over that of a model, in any order.
    parts = ["# @package _global_", *(f"# {line}" for text in comments for line in text.splitlines())]
    for content in ({"defaults": defaults} if defaults else {}, values):
        if content:
            parts.append(OmegaConf.to_yaml(OmegaConf.create(content)).rstrip())
    return "\n".join(parts) + "\n"


def _plain(value: Any) -> Any:
    """A value from Hydra's parser without its quotes."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(inner) for key, inner in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(getattr(value, "text", value))


def _difference(a: Sequence[Result], b: Sequence[Result], figure: str = "score") -> Interval:
    """Difference of a figure, paired by seed."""
    pairs = zip(map(_figures, a), map(_figures, b), strict=True)
    return interval([x[figure] - y[figure] for x, y in pairs])


def _clearly(difference: Interval, sign: int) -> bool:
    """Whether a difference has this sign and is more than seeds make: its margin, and `MIN_GAIN`."""
    margin = difference.margin if math.isfinite(difference.margin) else 0.0
    return sign * difference.value > max(MIN_GAIN, margin)


def _shown(arm: Arm) -> Step | None:
    """The step of an arm to draw: the last one kept, else the first."""
    kept = [step for step in arm.steps if step.kept]
    return kept[-1] if kept else next(iter(arm.steps), None)


def _mean(results: Sequence[Result], name: str) -> float:
    return interval([_figures(result)[name] for result in results]).value


def _figures(result: Result) -> dict[str, float]:
    if result.metrics is None:
        return {"score": 0.0, "explained": math.nan, "skill_score": math.nan}
    return {
        "score": result.score,
        "explained": result.metrics.quality.explained_variance,
        "skill_score": result.metrics.perturbation.skill_score,
    }


def problem(results: Sequence[Result]) -> str:
    """The main problem in a few words; of several seeds, that of the first faulty run."""
    faulty = next((result for result in results if not result.healthy), None)
    if faulty is None:
        return "healthy"
    few = f"{sum(r.healthy for r in results)}/{len(results)} healthy: " if len(results) > 1 else ""
    if faulty.diagnosis is None:
        return f"{few}no result: {faulty.reason}"
    if faulty.causes:
        return f"{few}{faulty.causes[0].code} {faulty.causes[0].problem}"
    if faulty.failing:
        return f"{few}no finding, but {', '.join(faulty.failing)}"
    return f"{few}undecided"


def _row(name: str, change: str, kept: str, results: Sequence[Result], base: Sequence[Result]) -> Row:
    codes, before = (set().union(*(r.codes for r in part)) for part in (results, base or results))
    figures = [_figures(result) for result in results]
    return Row(
        name=name,
        change=change,
        kept=kept,
        verdict=problem(results),
        healthy=all(result.healthy for result in results),
        figures={key: interval([own[key] for own in figures]) for key in figures[0]},
        failing=tuple(dict.fromkeys(name for result in results for name in result.failing)),
        cleared=tuple(sorted(before - codes)) if all(r.diagnosis for r in results) else (),
        new=tuple(sorted(codes - before)),
    )


def _plain_result(result: Result) -> Mapping[str, Any]:
    """A result in treatment.json."""
    return {
        "run": result.run.folder,
        "healthy": result.healthy,
        "problems": result.problems,
        "reason": result.reason or None,
        "verdict": result.diagnosis.verdict if result.diagnosis else None,
        "causes": [finding.code for finding in result.causes],
        **_figures(result),
        "criteria": [{**vars(criterion), "holds": criterion.holds} for criterion in result.criteria],
    }


def _arm(arm: Arm) -> Mapping[str, Any]:
    steps = [
        {
            "number": step.number,
            "overrides": step.change,
            "why": step.proposal.why,
            "code": step.proposal.code,
            "command": [reproduced(step.overrides, seed) for seed in arm.seeds],
            "kept": step.kept,
            "results": [_plain_result(result) for result in step.results],
        }
        for step in arm.steps
    ]
    return {"fixed": arm.is_fixed, "first_fixed": arm.first_fixed, "steps": steps}
