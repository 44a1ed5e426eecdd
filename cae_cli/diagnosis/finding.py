"""What a diagnosis is made of: plain frozen data, judged elsewhere, shown elsewhere."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cae_cli.options import key_of


class Severity(StrEnum):
    """How much a finding matters, most first."""

    ERROR = "error"  # the filters of this run mean nothing
    WARNING = "warning"  # something is wrong, and there is a way to mend it
    NOTE = "note"  # worth knowing

    @property
    def rank(self) -> int:
        """0 for the severest."""
        return list(Severity).index(self)


class Confidence(StrEnum):
    """How sure a finding is."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Safety(StrEnum):
    """What following a fix costs."""

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
        healthy: the least and the most that healthy runs show; infinite where there is no end.
    """

    name: str
    value: float
    threshold: float
    healthy: tuple[float, float]

    @property
    def excess(self) -> float:
        """How far the value is beyond the threshold, over how far the threshold is from healthy.

        0 at the threshold; 1 where the value is as far beyond it as it is from the healthy range, or
        from zero, which is as far as a share can go.
        """
        low, high = self.healthy
        edge = low if self.value < low else high
        room = min(abs(self.threshold - edge), abs(self.threshold) or math.inf)
        beyond = abs(self.value - self.threshold)
        if not math.isfinite(room) or room == 0:
            return math.inf
        return beyond / room

    @property
    def healthy_words(self) -> str:
        """The healthy range in words."""
        low, high = self.healthy
        if math.isinf(low) and math.isinf(high):
            return "any"
        if math.isinf(high):
            return f"above {low:.3g}"
        if math.isinf(low):
            return f"below {high:.3g}"
        return f"{low:.3g} to {high:.3g}" if low != high else f"{low:.3g}"


@dataclass(frozen=True)
class Fix:
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
        """The command that makes a run again with this fix.

        Args:
            words: of the run's own command; what the fix sets anew is left out, and what
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
        evidence: the numbers as data, the one that decides first.
        fixes: best first.
        advice: a way out that no override can go, or "".
        confidence: how sure it is, see `confidence`.
        picture: a file in the run's folder to look at, or None.
        ruled_out: competing causes whose rules looked and found nothing, by code.
        open: competing causes that could not be looked at, or that fired too, by code.
        consequence_of: the code of the finding that explains this one, or None.
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
    open: tuple[str, ...] = ()
    consequence_of: str | None = None


def confidence(excess: float, *, alternatives_open: bool) -> Confidence:
    """How sure a finding is.

    High: about as far beyond the threshold as the threshold is from the healthy range, and no
    competing cause is left open. One step less for a value that is nearer than that, and one for a
    competing cause that could not be ruled out.

    Args:
        excess: of the evidence that decides.
        alternatives_open: whether a competing cause could not be ruled out.
    """
    steps = list(Confidence)
    near = 0 if excess >= 0.9 else 1 if excess >= 0.25 else 2
    return steps[min(near + alternatives_open, 2)]


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


# Of explained variance after 200 steps; equal runs with other seeds differ by less.
HELPS = 0.05


@dataclass(frozen=True)
class Trial:
    """One short training with one change.

    Attributes:
        overrides: what was changed; () for the run itself.
        why: what that does.
        code: of the finding that proposes it, None for a remedy that none proposes.
        explained: variance of validation images that it explains; NaN if it diverged.
        gain: beyond the run itself, cut as short.
    """

    overrides: tuple[str, ...]
    why: str
    code: str | None
    explained: float
    gain: float

    @property
    def helps(self) -> bool:
        """Whether the gain is beyond what chance gives."""
        return self.gain > HELPS


@dataclass(frozen=True)
class Diagnosis:
    """The verdict on a run.

    Attributes:
        verdict: one line.
        findings: what fired, causes first, consequences behind their cause.
        passed: codes of the rules that looked and found nothing.
        skipped: rules that could not look.
        disabled: codes of the rules that `rules.CODE.enabled=false` switched off.
        undecided: nothing was found, and too many rules could not look to call that healthy.
        trials: short trainings that were made to tell causes apart, the run itself first.
    """

    verdict: str
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    disabled: tuple[str, ...]
    undecided: bool
    trials: tuple[Trial, ...] = ()

    @property
    def worst(self) -> Severity | None:
        """The severest finding's severity, None if there is no finding."""
        return min((f.severity for f in self.findings), key=lambda s: s.rank, default=None)

    def reaches(self, severity: Severity) -> bool:
        """Whether a finding is at least this severe."""
        return self.worst is not None and self.worst.rank <= severity.rank
