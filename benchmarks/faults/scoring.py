"""From verdicts to figures: how often the diagnosis was right, with confidence intervals.

Plain data in, plain data out: nothing is read, trained or drawn here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cae_cli.diagnosis import causes
from cae_cli.statistics.interval import wilson

# What is reported instead of a code.
NONE, UNDECIDED, FAILED = "none", "undecided", "not diagnosed"
NO_RULE = "no rule"  # is accepted as the cause of a faulty training
CONFIDENCES = ("high", "medium", "low")


@dataclass(frozen=True)
class Verdict:
    """What is known about a training, and what the diagnosis reports.

    Attributes:
        name: of the run.
        case: it belongs to.
        data: source of the images, with the corruption if there is one.
        expect: faulty, healthy or borderline.
        causes: codes accepted as the first-named cause; the first of them represents the case.
        second_fault: codes of a second fault.
        fixable: an option can fix the fault.
        adjusted: a rule was changed with such trainings in view.
        named: codes of the root causes above a note, in order.
        findings: codes of all findings above a note, consequences included, in order.
        confidence: of the first-named cause, "" without one.
        undecided: nothing was found, and too little could be measured.
        failed: why there is no diagnosis, "" if there is one.
        failing_criteria: names of the health criteria that are not met.
        explained_variance: of held-out images, None if unknown.
    """

    name: str
    case: str
    data: str
    expect: str
    causes: tuple[str, ...]
    second_fault: tuple[str, ...]
    fixable: bool
    adjusted: bool = False
    named: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    confidence: str = ""
    undecided: bool = False
    failed: str = ""
    failing_criteria: tuple[str, ...] = ()
    explained_variance: float | None = None

    @property
    def first(self) -> str:
        """The first-named code, or what is reported instead."""
        if self.named:
            return self.named[0]
        return FAILED if self.failed else UNDECIDED if self.undecided else NONE

    @property
    def expected(self) -> str:
        """The accepted causes, "CAE503 or CAE604", or "healthy" or "borderline"."""
        return " or ".join(self.causes) or self.expect

    @property
    def is_alarm(self) -> bool:
        """Whether there is a finding above a note."""
        return bool(self.findings)

    @property
    def is_right(self) -> bool:
        """Whether the first-named cause is an accepted one."""
        return self.first in self.causes

    @property
    def is_right_anywhere(self) -> bool:
        """Whether an accepted cause is among the findings."""
        return bool(set(self.findings) & set(self.causes))

    @property
    def may_be_ruled_out(self) -> bool:
        """Whether no accepted cause is found though one looks like a cause that is named.

        Then the diagnosis calls it ruled out, not seen, or not checked: at most the first.
        """
        alike = {code for named in self.named for code in causes.codes(causes.ALTERNATIVES, named)}
        return not self.is_right_anywhere and bool(alike & set(self.causes))

    @property
    def described(self) -> str:
        """The root causes that the diagnosis names, in words."""
        text = ", ".join(self.named) or self.first
        if self.failed:
            text += f": {self.failed}"
        if self.is_right_anywhere and not self.is_right:
            text += "; an accepted cause is among the other findings"
        return text

    @property
    def is_wrong(self) -> bool:
        """Whether a faulty run has another first cause, or another run an alarm."""
        return not self.is_right if self.expect == "faulty" else self.is_alarm


@dataclass(frozen=True)
class Tried:
    """What some changes did to a faulty run.

    Attributes:
        first: the first change alone made it healthy.
        fixed: some change did, within the allowed steps.
        trainings: number of trainings.
        steps: the changes and their results, in words.
    """

    first: bool
    fixed: bool
    trainings: int
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class FixTrial:
    """How a faulty run responded to its fixes and to controls.

    Attributes:
        name: of the run.
        named: codes of its root causes.
        fixes: what the fixes did.
        controls: what others did, by a name of `CONTROLS`.
        later: codes of causes that were found after a fix.
    """

    name: str
    named: tuple[str, ...]
    fixes: Tried
    controls: Mapping[str, Tried]
    later: tuple[str, ...] = ()


# What fixes are compared with, and what each is.
CONTROLS = {
    "random change": "as many options of the same kind, at random; as many trainings",
    "random search": "an option of every group and three values, at random; as many trainings",
    "good practice": "batch normalisation, residual blocks, Adam with 0.001, BCE; one training",
}


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % Wilson interval, which is 0 to 1 for a total of 0.

    Attributes:
        count: number of hits.
        total: number of trials.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share, NaN for a total of 0."""
        return self.count / self.total if self.total else float("nan")


def rate(hits: Iterable[bool]) -> Rate:
    """The share of hits."""
    listed = list(hits)
    return rate_of(sum(listed), len(listed))


def rate_of(count: int, total: int) -> Rate:
    """The share of a count."""
    return Rate(count, total, *wilson(count, total))


@dataclass(frozen=True)
class CauseScores:
    """How well one cause is recognised.

    Attributes:
        code: of the rule.
        recall: of the faulty runs whose case it represents, how many have an accepted cause first.
        precision: of the runs where it is named first, how many accept it. Healthy and borderline runs
            never do.
        fixed: of the fixable ones among the former, how many were fixed; None if nothing was fixed.
        instead: what was named first where it was wrong, most frequent first.
    """

    code: str
    recall: Rate
    precision: Rate
    fixed: Rate | None
    instead: Mapping[str, int]


@dataclass(frozen=True)
class Calibration:
    """How often first-named causes of a confidence are right, over all runs."""

    confidence: str
    right: Rate


@dataclass(frozen=True)
class ControlScores:
    """What a control did to the runs that it was tried on.

    Attributes:
        first: those that its first change made healthy.
        fixed: those that some change made healthy.
        measured: when and with which code, if it was tried later than the fixes.
    """

    first: Rate
    fixed: Rate
    measured: str = ""


@dataclass(frozen=True)
class FixScores:
    """What fixes and controls did.

    Attributes:
        first: of the fixable faulty runs, those that the first fix made healthy.
        first_of_one: the same for runs with a single fault; one fix cannot mend two.
        fixed: those that were healthy within the allowed steps. A run without findings counts as not
            fixed.
        fixed_of_treated: the same share of the runs that were treated.
        first_of_treated: of the treated runs, those that the first fix made healthy.
        controls: what others did, by a name of `CONTROLS`; those that were tried.
        trainings: mean number of trainings with fixes per treated run, None without any.
        measured: when and with which code, if that was before the diagnoses.
    """

    first: Rate
    first_of_one: Rate
    fixed: Rate
    fixed_of_treated: Rate
    first_of_treated: Rate
    controls: Mapping[str, ControlScores]
    trainings: float | None
    measured: str = ""


@dataclass(frozen=True)
class ShortScores:
    """The main figures, for comparisons.

    Attributes:
        right: of the faulty runs, those whose first-named cause is accepted.
        found: of the faulty runs, those with any finding; None where it is not compared.
        healthy_alarms: healthy runs with a finding.
        borderline_alarms: borderline runs with a finding.
    """

    right: Rate
    found: Rate | None
    healthy_alarms: Rate
    borderline_alarms: Rate


@dataclass(frozen=True)
class DiagnosisScores(ShortScores):
    """How well runs are diagnosed.

    Attributes:
        right_anywhere: of the faulty runs, those with an accepted cause among the findings.
        second_fault: of the runs with two faults, those where the second is found as well, at once or
            after a fix.
        healthy_false_alarms: of the healthy runs that meet every criterion, those with a finding.
        borderline_false_alarms: the same for borderline runs.
        undecided: of all runs, those without a verdict.
        failed: of all runs, those that could not be diagnosed.
        faulty_failing: of the faulty runs, those that fail a health criterion, which no rule uses.
        healthy_failing: the same for healthy runs.
    """

    found: Rate
    right_anywhere: Rate
    second_fault: Rate
    healthy_false_alarms: Rate
    borderline_false_alarms: Rate
    undecided: Rate
    failed: Rate
    faulty_failing: Rate
    healthy_failing: Rate

    @property
    def missed(self) -> Rate:
        """Of the faulty runs, those without an accepted cause among the findings.

        A cause that is found is never called ruled out, so no more than these can have been.
        """
        anywhere = self.right_anywhere
        return rate_of(anywhere.total - anywhere.count, anywhere.total)


@dataclass(frozen=True)
class Confusion:
    """How often each cause was named first where each was expected.

    Attributes:
        expected: rows: codes, then healthy and borderline.
        named: columns: codes, then what is reported instead of a code.
        counts: [row][column]. An accepted cause other than the one that represents its case counts as
            that one.
    """

    expected: tuple[str, ...]
    named: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Scores:
    """All figures of one benchmark run."""

    diagnosis: DiagnosisScores
    causes: tuple[CauseScores, ...]
    calibration: tuple[Calibration, ...]
    fixes: FixScores | None
    confusion: Confusion


def scores(verdicts: Sequence[Verdict], trials: Sequence[FixTrial] | None = None) -> Scores:
    """All figures.

    Args:
        verdicts: of all runs.
        trials: of the treated runs; None if fixes were not tried.
    """
    return Scores(
        diagnosis=diagnosis_scores(verdicts, trials or ()),
        causes=cause_scores(verdicts, trials),
        calibration=tuple(
            Calibration(c, rate(v.is_right for v in verdicts if v.named and v.confidence == c))
            for c in CONFIDENCES
        ),
        fixes=None if trials is None else fix_scores(verdicts, trials),
        confusion=confusion(verdicts),
    )


def diagnosis_scores(verdicts: Sequence[Verdict], trials: Sequence[FixTrial] = ()) -> DiagnosisScores:
    """How well runs are diagnosed.

    Args:
        verdicts: of all runs.
        trials: of the treated runs, where a second fault may show after the first is fixed.
    """
    later = {trial.name: trial.later for trial in trials}
    faulty, healthy, borderline = (
        [v for v in verdicts if v.expect == expect] for expect in ("faulty", "healthy", "borderline")
    )
    return DiagnosisScores(
        right=rate(v.is_right for v in faulty),
        found=rate(v.is_alarm for v in faulty),
        healthy_alarms=rate(v.is_alarm for v in healthy),
        borderline_alarms=rate(v.is_alarm for v in borderline),
        right_anywhere=rate(v.is_right_anywhere for v in faulty),
        second_fault=rate(
            bool({*v.findings, *later.get(v.name, ())} & set(v.second_fault))
            for v in faulty
            if v.second_fault
        ),
        healthy_false_alarms=_false_alarms(healthy),
        borderline_false_alarms=_false_alarms(borderline),
        undecided=rate(v.first == UNDECIDED for v in verdicts),
        failed=rate(v.first == FAILED for v in verdicts),
        faulty_failing=rate(bool(v.failing_criteria) for v in faulty if not v.failed),
        healthy_failing=rate(bool(v.failing_criteria) for v in healthy if not v.failed),
    )


def _false_alarms(verdicts: Iterable[Verdict]) -> Rate:
    return rate(v.is_alarm for v in verdicts if not v.failing_criteria and not v.failed)


def cause_scores(
    verdicts: Sequence[Verdict], trials: Sequence[FixTrial] | None = None
) -> tuple[CauseScores, ...]:
    """Recall and precision of each code that was expected or named first."""
    fixed = {trial.name for trial in trials or () if trial.fixes.fixed}
    codes = {v.causes[0] for v in verdicts if v.causes} | {v.named[0] for v in verdicts if v.named}
    listed = []
    for code in sorted(codes):
        own = [v for v in verdicts if v.causes and v.causes[0] == code]
        listed.append(
            CauseScores(
                code,
                recall=rate(v.is_right for v in own),
                precision=rate(v.is_right for v in verdicts if v.first == code),
                fixed=None if trials is None else rate(v.name in fixed for v in own if v.fixable),
                instead=dict(Counter(v.first for v in own if not v.is_right).most_common()),
            )
        )
    return tuple(listed)


def fix_scores(verdicts: Sequence[Verdict], trials: Sequence[FixTrial]) -> FixScores:
    """What fixes did for the faulty runs that can be fixed, found or not."""
    by_name = {trial.name: trial for trial in trials}
    fixable = [v for v in verdicts if v.expect == "faulty" and v.fixable]
    treated = [by_name[v.name] for v in fixable if v.name in by_name]

    def share(names: Iterable[Verdict], hit: Callable[[FixTrial], bool]) -> Rate:
        return rate(v.name in by_name and hit(by_name[v.name]) for v in names)

    return FixScores(
        first=share(fixable, lambda trial: trial.fixes.first),
        first_of_one=share((v for v in fixable if not v.second_fault), lambda trial: trial.fixes.first),
        fixed=share(fixable, lambda trial: trial.fixes.fixed),
        fixed_of_treated=rate(trial.fixes.fixed for trial in treated),
        first_of_treated=rate(trial.fixes.first for trial in treated),
        controls={
            name: ControlScores(
                rate(trial.controls[name].first for trial in treated),
                rate(trial.controls[name].fixed for trial in treated),
            )
            for name in CONTROLS
            if treated and all(name in trial.controls for trial in treated)
        },
        trainings=sum(t.fixes.trainings for t in treated) / len(treated) if treated else None,
    )


def confusion(verdicts: Sequence[Verdict]) -> Confusion:
    """Which cause was named first where which was expected."""

    def row(verdict: Verdict) -> str:
        without = NO_RULE if verdict.expect == "faulty" else verdict.expect
        return verdict.causes[0] if verdict.causes else without

    pairs = Counter((row(v), v.causes[0] if v.is_right else v.first) for v in verdicts)
    others = (NO_RULE, "healthy", "borderline")
    rows = {row for row, _ in pairs}
    columns = {column for _, column in pairs}
    expected = (*sorted(rows - set(others)), *(row for row in others if row in rows))
    instead = (NONE, UNDECIDED, FAILED)
    codes = sorted((columns - set(instead)) | (rows - set(others)))
    named = (*codes, NONE, *(column for column in instead[1:] if column in columns))
    return Confusion(expected, named, tuple(tuple(pairs[row, c] for c in named) for row in expected))
