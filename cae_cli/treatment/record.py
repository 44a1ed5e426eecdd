"""What is written down of a treatment.

The outcome in words, the rows of the table, treatment.json, and an experiment file that trains again
what came out best.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from cae_cli.config import compose
from cae_cli.config.schema import GROUPS
from cae_cli.report.treatment import Row
from cae_cli.statistics.interval import Interval, interval
from cae_cli.treatment.arm import RISES, Arm, Result, Step, burden, reproduced

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Short:
    """A short training that chose between fixes.

    Attributes:
        overrides: what was changed; () for the run itself.
        step: before which it was made, from 1.
        score: meaningfulness after so few steps; NaN if it diverged.
        gain: beyond the run itself, cut as short; NaN if it diverged.
    """

    overrides: tuple[str, ...]
    step: int
    score: float
    gain: float


@dataclass(frozen=True)
class Casebook:
    """A treatment that is over, or was cut short.

    Attributes:
        command: words of the command.
        treatment: the arm of the fixes.
        random control: the arm beside it; None if there was none.
        shorts: short trainings.
        cut: why it ended early ("interrupted", "…"), else "".
    """

    command: tuple[str, ...]
    treatment: Arm
    control: Arm | None = None
    shorts: tuple[Short, ...] = ()
    cut: str = ""

    @property
    def outcome(self) -> str:
        """What became of the run: cured, better or none."""
        kept = any(step.kept for step in self.treatment.steps)
        return "cured" if kept and self.treatment.is_cured else "better" if kept else "none"

    @property
    def changes(self) -> tuple[str, ...]:
        """Overrides that were kept, in order."""
        return tuple(o for step in self.treatment.steps if step.kept for o in step.overrides)

    @property
    def rise(self) -> Interval:
        """By how much the score rose, over seeds."""
        return _rise(self.treatment)

    @property
    def advantage(self) -> Interval | None:
        """By how much the score rose more than with the random control, over seeds; None without one."""
        if self.control is None or not self.control.steps:
            return None
        return interval(
            [a.score - b.score for a, b in zip(self.treatment.base, self.control.base, strict=True)]
        )

    @property
    def reproduce(self) -> str:
        """The command that makes the best run again."""
        return reproduced(self.treatment.words, self.treatment.seeds[0])

    def verdict(self) -> str:
        """What came of it, in one line."""
        arm, trained = self.treatment, bool(self.treatment.steps)
        scores = f"score {_mean(arm.before, 'score'):.2f} → {_mean(arm.base, 'score'):.2f}"
        changed = " ".join(self.changes)
        if self.outcome == "cured":
            said = f"cured by {changed}: {scores}"
        elif self.outcome == "better":
            said = f"better by {changed}, not healthy yet: {scores}; still {problem(arm.base)}"
        elif trained:
            said = "no fix helped"
        else:
            said = "nothing was tried"
        if trained:
            said += self._beside_control()
        return f"{self.cut}; so far: {said}" if self.cut else said

    def _beside_control(self) -> str:
        """What random changes came to, in words."""
        if self.control is None:
            return ""
        by = self.advantage
        if by is None:
            return "; no random change could be tried beside it"
        steps = self.control.steps
        tried = "a random change" if len(steps) == 1 else f"{len(steps)} random changes"
        margin = f" ± {by.margin:.2f}" if math.isfinite(by.margin) else ""
        score = _mean(self.control.base, "score")
        if self.control.is_cured:
            return f"; but {tried} cured it too (score {score:.2f}): this may be chance"
        if self.outcome == "none":
            if any(step.kept for step in steps):
                return f"; {tried} did better than any (score {score:.2f})"
            return f", and {tried} did not either"
        if by.value > RISES:
            return f", {by.value:.2f}{margin} more than {tried} ({score:.2f})"
        if burden(self.treatment.base) < burden(self.control.base):
            return f"; {tried} left more wrong (score {score:.2f})"
        return f", no more than {tried} ({score:.2f}, {by.value:+.2f}{margin}): this may be chance"

    def rows(self) -> list[Row]:
        """The table: before, after each step, and after each of the random control."""
        rows = [_row("before", "", "", self.treatment.before, ())]
        for name, arm in (("step", self.treatment), ("random control", self.control)):
            base = self.treatment.before
            for step in arm.steps if arm else ():
                kept = "kept" if step.kept else "no"
                rows.append(
                    _row(f"{name} {step.number}", " ".join(step.overrides), kept, step.results, base)
                )
                base = step.results if step.kept else base
        return rows

    def pictured(self) -> dict[str, Result]:
        """The trainings to be drawn beside each other, by title; of several seeds the first."""
        found = {"before": self.treatment.before[0]}
        for name, arm in (("after", self.treatment), ("control", self.control)):
            if arm and (step := _shown(arm)):
                changes = [o for s in arm.steps if s.kept for o in s.overrides] or step.overrides
                found[f"{name}: {' '.join(changes)}"] = step.results[0]
        return found

    def content(self, seconds: float) -> dict[str, Any]:
        """treatment.json.

        Args:
            seconds: that it took.
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
            "rise": self.rise,
            "advantage": self.advantage,
            "reproduce": self.reproduce,
            "seeds": list(self.treatment.seeds),
            "seconds": round(seconds, 1),
            "before": [_told(result) for result in self.treatment.before],
            "short": self.shorts,
            "arms": {name: _arm(arm) for name, arm in arms.items() if arm},
        }

    def experiment(self) -> str:
        """The best run as an experiment file.

        Raises:
            UserError: a word of it cannot be read.
        """
        words = (*self.treatment.words, f"seed={self.treatment.seeds[0]}")
        return experiment(words, [self.reproduce, self.verdict()])


def experiment(words: Sequence[str], comments: Sequence[str]) -> str:
    """Overrides of ``cae train`` as an experiment file, which composes to the same config.

    Args:
        words: the overrides.
        comments: its first lines.

    Raises:
        UserError: a word cannot be read.
    """
    defaults: list[dict[str, Any]] = []
    values: dict[str, Any] = {}
    for override in compose.parsed(words):
        key, value = override.key_or_group, _plain(override.value())
        if key in GROUPS:
            defaults.append({f"override /{key}": value})
            continue
        *path, last = key.split(".")
        node = values
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    # A model may bring a regularization, which a word for it overrides: as on the command line, and
    # whatever their order.
    parts = ["# @package _global_", *(f"# {line}" for text in comments for line in text.splitlines())]
    for content in ({"defaults": defaults} if defaults else {}, values):
        if content:
            parts.append(OmegaConf.to_yaml(OmegaConf.create(content)).rstrip())
    return "\n".join(parts) + "\n"


def _plain(value: Any) -> Any:
    """What Hydra's parser made of a value, without the quotes that it remembers."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(inner) for key, inner in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(getattr(value, "text", value))


def _rise(arm: Arm) -> Interval:
    return interval([a.score - b.score for a, b in zip(arm.base, arm.before, strict=True)])


def _shown(arm: Arm) -> Step | None:
    """The step that stands for an arm: the last one kept, else the first."""
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
    """What is wrong, in a few words; of several seeds with the first that is sick."""
    sick = next((result for result in results if not result.healthy), None)
    if sick is None:
        return "healthy"
    few = f"{sum(r.healthy for r in results)}/{len(results)} healthy: " if len(results) > 1 else ""
    if sick.diagnosis is None:
        return f"{few}no result: {sick.reason}"
    if sick.causes:
        return f"{few}{sick.causes[0].code} {sick.causes[0].problem}"
    if sick.failing:
        return f"{few}no finding, but {', '.join(sick.failing)}"
    return f"{few}cannot tell"


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


def _told(result: Result) -> Mapping[str, Any]:
    """A result as treatment.json has it."""
    return {
        "run": result.run.folder,
        "healthy": result.healthy,
        "burden": result.burden,
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
            "overrides": step.overrides,
            "why": step.why,
            "code": step.code,
            "command": [reproduced(step.words, seed) for seed in arm.seeds],
            "kept": step.kept,
            "results": [_told(result) for result in step.results],
        }
        for step in arm.steps
    ]
    return {"cured": arm.is_cured, "first_cured": arm.first_cured, "steps": steps}
