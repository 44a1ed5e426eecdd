"""What a rule is, and the catalogue of all rules in the order in which they are checked."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from cae_cli.diagnosis.case import Case
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Severity, Skipped
from cae_cli.errors import UserError
from cae_cli.options import option


class When(Enum):
    """What a rule needs to look at."""

    BEFORE = "the images, the network and the options, before training"
    ALWAYS = "the images and the network, before training or after it"
    AFTER = "a trained network"


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """The options of a rule: ``rules.CAE401.threshold=0.5``, ``rules.CAE303.enabled=false``."""

    threshold: float | None = option("the threshold of this rule; null: its default")
    enabled: bool = option("whether this rule is checked")


class Rule:
    """One problem: how it shows, why it matters, what helps.

    A rule states its threshold and where it comes from, and is entered with ``@RULES.add``.
    """

    code: ClassVar[str]
    problem: ClassVar[str]
    severity: ClassVar[Severity]
    when: ClassVar[When] = When.AFTER
    measured: ClassVar[str]  # what is looked at
    why: ClassVar[str]  # why it matters
    threshold: float  # a person may set another one
    source: ClassVar[str]  # where the threshold comes from
    consequences: ClassVar[tuple[str, ...]] = ()  # codes whose findings follow from this one
    alternatives: ClassVar[tuple[str, ...]] = ()  # codes of causes that look alike
    picture: ClassVar[str | None] = None  # in the run's folder
    references: ClassVar[tuple[str, ...]] = ()

    def check(self, case: Case) -> Finding | Skipped | None:
        """A finding, None if there is none, `Skipped` if it cannot be told."""
        raise NotImplementedError

    def facts(self) -> list[tuple[str, str]]:
        """What there is to know of this rule, as (name, text)."""
        facts = [
            ("severity", self.severity.value),
            ("needs", self.when.value),
            ("measures", self.measured),
            ("threshold", f"{self.threshold:g} ({self.source})"),
            ("why it matters", self.why),
        ]
        if self.alternatives:
            facts.append(("told apart from", ", ".join(sorted(self.alternatives))))
        if self.consequences:
            facts.append(("explains", ", ".join(sorted(self.consequences))))
        if self.picture:
            facts.append(("picture", self.picture))
        facts += [("reference", reference) for reference in self.references]
        return facts

    def finding(
        self,
        message: str,
        *evidence: Evidence,
        fixes: Iterable[Fix] = (),
        advice: str = "",
        severity: Severity | None = None,
    ) -> Finding:
        """A finding of this rule."""
        return Finding(
            self.code,
            self.problem,
            severity or self.severity,
            message,
            evidence,
            tuple(fixes),
            advice,
            picture=self.picture,
        )

    def skipped(self, reason: str) -> Skipped:
        """This rule cannot look, because of ``reason``."""
        return Skipped(self.code, self.problem, reason)

    def with_options(self, options: Mapping[str, Any]) -> Rule:
        """This rule with the threshold that a person set, if one is set."""
        threshold = options.get("threshold")
        if threshold is None:
            return self
        changed = copy.copy(self)
        changed.threshold = float(threshold)
        return changed


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


def with_own_rules(arguments: list[str]) -> list[str]:
    """Loads the file behind ``--rules``, if there is one; returns the other arguments."""
    if "--rules" not in arguments:
        return arguments
    place = arguments.index("--rules")
    if place + 1 == len(arguments):
        raise UserError("--rules needs a file", where="command line", hint="--rules my_rules.py")
    load_rules(Path(arguments[place + 1]))
    return arguments[:place] + arguments[place + 2 :]


def load_rules(path: Path) -> None:
    """Runs a Python file of the user's own that enters rules with ``@RULES.add``.

    Raises:
        UserError: it is not there, fails, or takes a code that is taken.
    """
    name = f"cae_rules_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError("no such Python file", where=path, hint="--rules my_rules.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"the rules cannot be loaded: {type(error).__name__}: {error}", where=path
        ) from error
