"""What a rule is, and the catalogue of all rules in the order in which they are checked."""

from __future__ import annotations

import copy
import importlib.util
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from cae_cli.diagnosis import causes
from cae_cli.diagnosis.case import Case
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Severity, Skipped
from cae_cli.errors import UserError
from cae_cli.options import option


class When(Enum):
    """What a rule needs."""

    BEFORE = "the images, the network and the options, before training"
    ALWAYS = "the images and the network, before and after training"
    AFTER = "a trained network"


# Where a rule fires, see `Rule.fires`, and the words for it.
FIRES = {
    "above": "found above it",
    "from": "found from there on",
    "below": "found below it",
    "up to": "found up to there",
    "apart": "found where it is further from 0",
    "by definition": "",
}


@dataclass(frozen=True, kw_only=True)
class RuleOptions:
    """The options of a rule: ``rules.CAE401.threshold=0.5``, ``rules.CAE303.enabled=false``."""

    threshold: float | None = option("the threshold of this rule; null: its default")
    enabled: bool = option("whether this rule is checked")


class Rule:
    """One problem: how it is measured and how to fix it. The docstring states why it matters.

    A rule is entered with ``@RULES.add``. Which rules it explains or resembles is part of `causes`; a
    rule outside this package declares it here.
    """

    code: ClassVar[str]
    problem: ClassVar[str]  # never the fix
    severity: ClassVar[Severity]
    when: ClassVar[When] = When.AFTER
    measured: ClassVar[str]  # the quantity that is compared with the threshold
    threshold: float  # its default; rules.CODE.threshold changes it
    unit: ClassVar[str] = ""  # of the threshold and the decisive evidence, see `Evidence`
    fires: ClassVar[str] = ""  # on which side of the threshold, one of `FIRES`; "": not said
    source: ClassVar[str]  # the measurements that the threshold comes from
    of_filters: ClassVar[bool] = False  # it needs the filters, which plain functions do not show
    exact: ClassVar[bool] = False  # the problem has one value; others are healthy
    of_images: ClassVar[bool] = False  # such images tell nothing about the filters
    picture: ClassVar[str | None] = None  # a file in the run folder
    references: ClassVar[tuple[str, ...]] = ()
    consequences: tuple[str, ...] = ()  # codes of the findings that follow from this one
    alternatives: tuple[str, ...] = ()  # codes of other causes that look alike

    @property
    def why(self) -> str:
        """Why the problem matters."""
        return " ".join((self.__doc__ or "").split())

    def checked(self, case: Case) -> Finding | Skipped | None:
        """`check`, where there is what the rule needs."""
        if self.of_filters and case.trained is not None and not case.trained.layers:
            return self.skipped("the filters are not known")
        return self.check(case)

    def check(self, case: Case) -> Finding | Skipped | None:
        """The finding of this rule, None if there is none, `Skipped` if the rule cannot be checked."""
        raise NotImplementedError

    def value(self, case: Case) -> Evidence | None:
        """What this rule measured where it found nothing; None where that is no number.

        Its threshold is that of this rule, or NaN where the value lies beyond it and yet is fine: the
        limit depends on the network, or on more than this value.
        """
        try:
            found = None if self.exact else self._at_any_threshold(case)
        except (ArithmeticError, ValueError):  # written for values beyond its threshold
            return None
        if found is None or not math.isfinite(found.value):
            return None
        beyond = self._reaches(found, 1.0)
        return replace(found, threshold=math.nan if beyond else float(self.threshold))

    def may_have_missed(self, case: Case) -> bool:
        """Whether this rule found nothing and yet the value is not one of healthy runs.

        It lies between the threshold and the healthy range, which begins where the runs that were seen
        did: a tenth of the distance is left to others.
        """
        try:
            found = None if self.exact else self._at_any_threshold(case)
        except (ArithmeticError, ValueError):
            return True
        return found is not None and self._reaches(found, 0.1)

    def _reaches(self, found: Evidence, share: float) -> bool:
        """Whether a value lies beyond this share of the way from the healthy range to the threshold."""
        edge = min(max(self.threshold, found.healthy[0]), found.healthy[1])
        return (found.value - edge) * (self.threshold - edge) > share * (self.threshold - edge) ** 2

    def _at_any_threshold(self, case: Case) -> Evidence | None:
        """The decisive evidence with a threshold that every value is beyond; None if nothing fires."""
        for limit in (-math.inf, math.inf):
            found = self.with_options({"threshold": limit}).check(case)
            if isinstance(found, Finding) and found.evidence:
                return found.evidence[0]
        return None

    def facts(self) -> list[tuple[str, str]]:
        """The documentation of this rule as (name, text)."""
        facts = [
            ("severity", self.severity.value),
            ("needs", self.when.value),
            ("measures", self.measured),
            ("threshold", self._limit()),
            ("source", self.source),
            ("why it matters", self.why),
        ]
        if self.alternatives:
            facts.append(("looks like", ", ".join(sorted(self.alternatives))))
        if self.consequences:
            facts.append(("consequences", ", ".join(sorted(self.consequences))))
        if self.picture:
            facts.append(("picture", self.picture))
        return facts + [("reference", reference) for reference in self.references]

    def _limit(self) -> str:
        """The threshold with its unit, and on which side of it the problem lies."""
        if self.fires == "by definition":
            return "none, the problem is there or not"
        text = f"{self.threshold:g} {self.unit}".rstrip()
        return f"{text}, {FIRES[self.fires]}" if self.fires else text

    def finding(
        self, message: str, *evidence: Evidence, fixes: Iterable[Fix] = (), advice: str = ""
    ) -> Finding:
        """A finding of this rule."""
        return Finding(
            self.code,
            self.problem,
            self.severity,
            message,
            evidence,
            tuple(fixes),
            advice,
            picture=self.picture,
        )

    def skipped(self, reason: str) -> Skipped:
        """This rule cannot be checked, because of ``reason``."""
        return Skipped(self.code, self.problem, reason)

    def with_options(self, options: Mapping[str, Any]) -> Rule:
        """This rule with the user's threshold, if there is one."""
        threshold = options.get("threshold")
        if threshold is None:
            return self
        changed = copy.copy(self)
        changed.threshold = float(threshold)
        return changed


class Rules(list[Rule]):
    """All rules, in the order of their codes: causes before their consequences."""

    def add(self, cls: type[Rule]) -> type[Rule]:
        """Decorator that enters a rule."""
        if any(rule.code == cls.code for rule in self):
            raise ValueError(f"rule {cls.code} exists already")
        rule = cls()
        rule.consequences += causes.codes(causes.CONSEQUENCES, cls.code)
        rule.alternatives += causes.codes(causes.ALTERNATIVES, cls.code)
        self.append(rule)
        self.sort(key=lambda rule: rule.code)
        return cls


RULES = Rules()


def load_rules(path: Path) -> None:
    """Runs a user's Python file that enters rules with ``@RULES.add``.

    Rules that the same file has entered before, in a process that trains several times, are replaced.

    Raises:
        UserError: the file does not exist, fails, or enters a code that exists already.
    """
    name = f"cae_rules_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError("no such Python file", where=path, hint="--rules my_rules.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    RULES[:] = [rule for rule in RULES if type(rule).__module__ != name]
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"the rules cannot be loaded: {type(error).__name__}: {error}", where=path
        ) from error
