"""What a diagnosis is made of: plain frozen data."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cae_cli.errors import short
from cae_cli.options import key_of


class Severity(StrEnum):
    """How much a finding matters, most severe first."""

    ERROR = "error"  # the filters of this run are not meaningful
    WARNING = "warning"  # something is wrong and can be fixed
    NOTE = "note"  # worth knowing

    @property
    def rank(self) -> int:
        """0 for the most severe."""
        return list(Severity).index(self)


class Confidence(StrEnum):
    """How certain a finding is."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Safety(StrEnum):
    """What a fix costs."""

    SAFE = "safe"  # only another training
    TRADE = "trade-off"  # something else gets worse
    SLOW = "slower"  # more time or more images


@dataclass(frozen=True)
class Evidence:
    """A measured value next to its threshold.

    Attributes:
        name: what was measured.
        value: the measured value.
        threshold: the threshold that the rule used.
        healthy: the range that healthy runs show; infinite where it has no end.
        unit: of all these numbers; in parentheses, a remark on their scale.
    """

    name: str
    value: float
    threshold: float
    healthy: tuple[float, float]
    unit: str = ""

    @property
    def excess(self) -> float:
        """Distance of the value from the threshold, over that of the threshold from the healthy range.

        0 at the threshold. Where the threshold is nearer to zero than to the healthy range, its distance
        from zero counts: a share cannot go further.
        """
        low, high = self.healthy
        edge = low if self.value < low else high
        room = min(abs(self.threshold - edge), abs(self.threshold) or math.inf)
        beyond = abs(self.value - self.threshold)
        return beyond / room if math.isfinite(room) and room else math.inf

    @property
    def healthy_text(self) -> str:
        """The healthy range as text."""
        low, high = self.healthy
        if math.isinf(low) and math.isinf(high):
            return "any"
        if math.isinf(high):
            return f"above {short(low)}"
        if math.isinf(low):
            return f"below {short(high)}"
        return f"{short(low)} to {short(high)}" if low != high else short(low)

    @property
    def by_definition(self) -> bool:
        """Whether the threshold is the one healthy value, so that neither tells more than the value."""
        return self.healthy == (self.threshold, self.threshold)

    def __str__(self) -> str:
        if self.by_definition:
            return f"{self.name}: {short(self.value)} {self.unit}".rstrip()
        unit = f" {self.unit} (" if self.unit else " ("
        if self.unit.startswith("("):  # a remark on the scale
            unit = f" {self.unit[:-1]}; "
        return (
            f"{self.name}: {short(self.value)}{unit}threshold {short(self.threshold)}, "
            f"healthy {self.healthy_text})"
        )


@dataclass(frozen=True)
class Fix:
    """A change that may remove the cause of a finding.

    Attributes:
        overrides: the change as overrides of ``cae train``; () for what only a script can do wrong.
        why: what it does, in a few words.
        safety: what it costs.
        keras: the same change in a Keras script, for networks that this tool did not train.
        edit: the same change in the catalogue of `external.edits`, "" where there is none.
        mends: the code of the cause that it removes, where it is one fix for many findings, else "".
    """

    overrides: tuple[str, ...]
    why: str
    safety: Safety
    keras: str = ""
    edit: str = ""
    mends: str = ""

    def applied(self, arguments: Sequence[str]) -> list[str]:
        """The arguments that repeat a run with this fix.

        Args:
            arguments: of the run's own command. Those that the fix replaces are left out, with the
                options of a group that it replaces (loss.window with loss=bce).
        """
        kept = [a for a in arguments if not any(_replaces(new, a) for new in self.overrides)]
        return [*kept, *self.overrides]


def _replaces(new: str, old: str) -> bool:
    key, _, value = new.partition("=")
    old_key = key_of(old)
    if old_key == key:
        return True
    group, _, rest = old_key.partition(".")
    # regularization.l2.strength remains valid where l2 is among the new regularizers
    return group == key and rest.partition(".")[0] not in re.findall(r"\w+", value)


@dataclass(frozen=True)
class Finding:
    """A rule that fired.

    Attributes:
        code: of the rule.
        problem: its name.
        severity: how much it matters.
        message: what was measured, one sentence with numbers.
        evidence: the numbers as data, the decisive one first.
        fixes: best first.
        advice: a fix that no override can express, or "".
        confidence: how certain it is, see `confidence`.
        picture: a file in the run folder that shows it, or None.
        ruled_out: codes of alternative causes that were checked and not found, with a value that healthy
            runs have.
        unseen: codes of alternative causes that were checked and not found, but cannot be ruled out: the
            value lies between the threshold and healthy ones, or no other cause has a fix.
        open: codes of alternative causes that could not be checked or that fired too.
        consequence_of: the code of the finding that this one follows from, or None.
    """

    code: str
    problem: str
    severity: Severity
    message: str
    evidence: tuple[Evidence, ...]
    fixes: tuple[Fix, ...] = ()
    advice: str = ""
    confidence: Confidence = Confidence.HIGH
    picture: str | None = None
    ruled_out: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    open: tuple[str, ...] = ()
    consequence_of: str | None = None


def confidence(excess: float, *, alternatives_open: bool) -> Confidence:
    """How certain a finding is: high from an excess of 0.9, medium from 0.25, else low.

    Args:
        excess: `Evidence.excess` of the decisive evidence.
        alternatives_open: an alternative cause is not ruled out, which costs one step.
    """
    near = 0 if excess >= 0.9 else 1 if excess >= 0.25 else 2
    return list(Confidence)[min(near + alternatives_open, 2)]


@dataclass(frozen=True)
class Skipped:
    """A rule that could not be checked, which does not mean healthy.

    Attributes:
        code: of the rule.
        problem: its name.
        reason: what was missing.
    """

    code: str
    problem: str
    reason: str


@dataclass(frozen=True)
class Diagnosis:
    """The result of checking the rules on a run.

    Attributes:
        verdict: one line.
        findings: causes first, each followed by its consequences.
        passed: codes of the rules that found nothing.
        skipped: rules that could not be checked.
        disabled: codes of the rules that ``rules.CODE.enabled=false`` switched off.
        undecided: nothing was found, but too little could be checked to call the run healthy.
        thresholds: the threshold of every enabled rule in this run, by code.
        values: what rules measured that found nothing, by code, see `Rule.value`.
    """

    verdict: str
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    disabled: tuple[str, ...]
    undecided: bool
    thresholds: Mapping[str, float]
    values: Mapping[str, Evidence] = field(default_factory=dict)

    @property
    def causes(self) -> list[Finding]:
        """The findings above a note that follow from no other, in order."""
        notes = Severity.NOTE
        return [f for f in self.findings if f.severity is not notes and f.consequence_of is None]

    @property
    def worst(self) -> Severity | None:
        """The highest severity among the findings, None if there is none."""
        return min((f.severity for f in self.findings), key=lambda s: s.rank, default=None)

    def reaches(self, severity: Severity) -> bool:
        """Whether a finding is at least this severe."""
        return self.worst is not None and self.worst.rank <= severity.rank
