"""What a rule is, and the catalogue of all of them, in the order in which they are asked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from cae_cli.diagnosis.finding import Evidence, Finding, Prescription, Safety, Severity, Skipped
from cae_cli.measures.measured import Measures

FEWEST_IMAGES = 16  # the spread over images, and a share of it, need some
# Collapsed outputs and dead maps show by step 128 on Fashion-MNIST, MNIST and Omniglot; before that
# healthy networks may look like sick ones.
FEWEST_STEPS = 128


# An explained variance below this is next to nothing: 0 is the mean image, healthy runs are above .7.
LITTLE_EXPLAINED = 0.1
# A layer whose kernel moved by a smaller share than this is where the initializer had put it.
UNMOVED = 1e-3

# Where optimizers that are not of Adam's kind usually work; the others do at 0.001.
USUAL_RATES = {"sgd": 0.1, "adadelta": 1.0}


@dataclass(frozen=True)
class Case:
    """What a rule looks at.

    Attributes:
        measures: of the run.
        config: the run's composed config as plain containers.
    """

    measures: Measures
    config: Mapping[str, Any]

    def option(self, path: str) -> Any:
        """The config's value at a dotted path, None if there is none."""
        node: Any = self.config
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    @property
    def unusable(self) -> str | None:
        """Why nothing can be said of held-out images, or None if something can."""
        quality = self.measures.quality
        if not math.isfinite(quality.explained_variance + quality.train_explained_variance):
            return "the reconstruction is not made of finite numbers"
        count = quality.images
        if count >= FEWEST_IMAGES:
            return None
        return f"only {count} held-out image{'' if count == 1 else 's'}, {FEWEST_IMAGES} are needed"

    @property
    def too_early(self) -> str | None:
        """Why nothing can be said of what training made of the network, or None if something can."""
        if self.unusable:
            return self.unusable
        steps = self.measures.course.steps
        return None if steps >= FEWEST_STEPS else f"only {steps} steps, {FEWEST_STEPS} are needed"

    def adding(self, regularizer: str) -> str:
        """The override that adds a regularizer to those the run had."""
        names = [*(self.option("regularization") or {})]
        names += [regularizer] if regularizer not in names else []
        return f"regularization=[{','.join(names)}]" if len(names) > 1 else f"regularization={names[0]}"

    @property
    def unmoved(self) -> bool:
        """Whether training left every layer where the initializer had put it."""
        return max(layer.displacement for layer in self.measures.layers) < UNMOVED

    def slower(self) -> Prescription:
        """A tenth of the learning rate, or a usual one where that is still far too large."""
        rate = float(self.option("optimizer.learning_rate") or 0)
        usual = USUAL_RATES.get(str(self.option("optimizer.name")), 1e-3)
        if rate > 100 * usual:
            return Prescription(
                (f"optimizer.learning_rate={usual:g}",), "a usual size of step", Safety.SAFE
            )
        return Prescription(
            (f"optimizer.learning_rate={rate / 10:g}",), "a tenth of the step", Safety.SAFE
        )

    def changes(self, override: str) -> bool:
        """Whether an override would make anything different from what the run had."""
        key, _, text = override.partition("=")
        had = self.option(key)
        if key == "regularization":
            return set(re.findall(r"\w+", text)) != set(had or {})
        if isinstance(had, Mapping):  # of a group without names, any option is a change
            return had.get("name") != text
        if isinstance(had, int | float) and not isinstance(had, bool):
            return text == "null" or float(text) != had
        return text != ("null" if had is None else str(had))


class Rule:
    """One problem: how it shows, why it matters, what helps.

    A rule states its threshold and where it comes from, and is entered with ``@RULES.add``.
    """

    code: ClassVar[str]
    problem: ClassVar[str]
    severity: ClassVar[Severity]
    measures: ClassVar[str]  # what is looked at
    why: ClassVar[str]  # why it matters
    threshold: ClassVar[float]
    source: ClassVar[str]  # where the threshold comes from
    explains: ClassVar[tuple[str, ...]] = ()  # codes whose findings follow from this one

    def look(self, case: Case) -> Finding | Skipped | None:
        """A finding, None if there is none, `Skipped` if it cannot be told."""
        raise NotImplementedError

    def facts(self) -> list[tuple[str, str]]:
        """What there is to know of this rule, as (name, text)."""
        facts = [
            ("severity", self.severity.value),
            ("measures", self.measures),
            ("threshold", f"{self.threshold:g} ({self.source})"),
            ("why it matters", self.why),
        ]
        if self.explains:
            facts.append(("explains", ", ".join(sorted(self.explains))))
        return facts

    def finding(
        self,
        message: str,
        *evidence: Evidence,
        prescriptions: tuple[Prescription, ...] = (),
    ) -> Finding:
        """A finding of this rule."""
        return Finding(self.code, self.problem, self.severity, message, evidence, prescriptions)

    def skipped(self, reason: str) -> Skipped:
        """This rule cannot look, because of ``reason``."""
        return Skipped(self.code, self.problem, reason)


class Rules(list[Rule]):
    """All rules, causes before their consequences."""

    def add(self, cls: type[Rule]) -> type[Rule]:
        """Decorator that enters a rule."""
        if any(rule.code == cls.code for rule in self):
            raise ValueError(f"rule {cls.code} exists already")
        self.append(cls())
        self.sort(key=lambda rule: rule.code)
        return cls


RULES = Rules()


def attach(findings: list[Finding]) -> list[Finding]:
    """Orders findings: causes as their rules are ordered, each followed by its consequences."""
    fired = {finding.code for finding in findings}
    cause = {code: rule.code for rule in RULES if rule.code in fired for code in rule.explains}

    def root(code: str) -> str:
        return root(cause[code]) if code in cause else code

    ordered = sorted(findings, key=lambda f: (root(f.code), f.code in cause, f.code))
    return [replace(f, consequence_of=cause.get(f.code)) for f in ordered]
