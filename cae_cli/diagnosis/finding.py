"""What a diagnosis is made of: plain frozen data, judged elsewhere, shown elsewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cae_cli.options import key_of


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"  # the filters of this run mean nothing
    WARNING = "warning"  # something is wrong, and there is a way to mend it
    NOTE = "note"  # worth knowing


class Safety(StrEnum):
    """What following a prescription costs."""

    SAFE = "safe"  # nothing but another training
    TRADE = "trade-off"  # something gets worse for it
    SLOW = "slower"  # more time or more images


@dataclass(frozen=True)
class Evidence:
    """A measured value beside its threshold.

    Attributes:
        name: what was measured.
        value: how much it was.
        threshold: where the rule draws the line.
        healthy: what healthy runs show, in words.
    """

    name: str
    value: float
    threshold: float
    healthy: str


@dataclass(frozen=True)
class Prescription:
    """A way out, as overrides to paste behind ``cae train``.

    Attributes:
        overrides: in Hydra's grammar.
        why: what they do, in a few words.
        safety: what they cost.
    """

    overrides: tuple[str, ...]
    why: str
    safety: Safety

    def command(self, words: Sequence[str]) -> str:
        """The command that makes a run again with this prescription.

        Args:
            words: of the run's own command; what the prescription sets anew is left out, and what
                belonged to an option that it replaces (loss.window where it says loss=bce).
        """
        kept = [word for word in words if not any(_replaces(new, word) for new in self.overrides)]
        return shlex.join([*kept, *self.overrides])


def _replaces(new: str, old: str) -> bool:
    key, _, value = new.partition("=")
    old_key = key_of(old)
    if old_key == key:
        return True
    group, _, rest = old_key.partition(".")
    # regularization.l2.strength still has a place where l2 is among the new ones
    return group == key and rest.partition(".")[0] not in re.findall(r"\w+", value)


@dataclass(frozen=True)
class Finding:
    """A rule that fired.

    Attributes:
        code: of the rule.
        problem: its name.
        severity: how much it matters.
        message: what was found, one sentence with the numbers.
        evidence: the numbers as data.
        prescriptions: best first.
        consequence_of: the code of the finding that explains this one, or None.
    """

    code: str
    problem: str
    severity: Severity
    message: str
    evidence: tuple[Evidence, ...]
    prescriptions: tuple[Prescription, ...] = ()
    consequence_of: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A rule that could not look. That is not the same as healthy.

    Attributes:
        code: of the rule.
        problem: its name.
        reason: what it lacked.
    """

    code: str
    problem: str
    reason: str


@dataclass(frozen=True)
class Diagnosis:
    """The verdict on a run.

    Attributes:
        verdict: one line.
        findings: what fired, causes first, consequences behind their cause.
        passed: codes of the rules that looked and found nothing.
        skipped: rules that could not look.
        undecided: nothing was found, and too many rules could not look to call that healthy.
    """

    verdict: str
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    undecided: bool

    @property
    def worst(self) -> Severity | None:
        """The severest finding's severity, None if there is no finding."""
        found = {f.severity for f in self.findings}
        return next((s for s in Severity if s in found), None)
