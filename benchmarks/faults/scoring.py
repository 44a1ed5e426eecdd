"""From what was said of each patient to figures: how often it was right, and how sure that is.

Plain data in, plain data out: nothing is read, trained or drawn here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cae_cli.statistics.interval import wilson

# What may stand in the place of a code.
NONE, UNSURE, FAILED = "none", "cannot tell", "not judged"
CONFIDENCES = ("high", "medium", "low")


@dataclass(frozen=True)
class Judged:
    """What is known of a patient, and what was said of it.

    Attributes:
        name: of its run.
        case: it belongs to.
        data: its images' source.
        expect: sick, healthy or border.
        causes: codes that are right as the first; the first of them stands for the case.
        also: codes of a second fault.
        treatable: whether options can mend it.
        blind: whether no rule was changed with such trainings in sight.
        named: causes that were named, those above a note that follow from no other, in order.
        found: everything that was found above a note, consequences too, in order.
        confidence: of the first-named cause, "" if none was named.
        undecided: nothing was found, and too little could be looked at.
        failed: why nothing could be judged, "" if something could.
        amiss: fixed criteria that do not hold, by name.
        explained: share of the variance of held-out images, None if not known.
    """

    name: str
    case: str
    data: str
    expect: str
    causes: tuple[str, ...]
    also: tuple[str, ...]
    treatable: bool
    named: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    confidence: str = ""
    undecided: bool = False
    failed: str = ""
    amiss: tuple[str, ...] = ()
    explained: float | None = None
    blind: bool = True

    @property
    def first(self) -> str:
        """The code that was named first, or what was said instead."""
        if self.named:
            return self.named[0]
        return FAILED if self.failed else UNSURE if self.undecided else NONE

    @property
    def alarmed(self) -> bool:
        """Whether anything above a note was found."""
        return bool(self.found)

    @property
    def right(self) -> bool:
        """Whether the first-named cause is a right one."""
        return self.first in self.causes

    @property
    def right_anywhere(self) -> bool:
        """Whether a right cause is among all that was found."""
        return bool(set(self.found) & set(self.causes))


@dataclass(frozen=True)
class Treated:
    """How a patient was treated, and what a random control did.

    Attributes:
        name: of the patient.
        first: its first fix alone made it healthy.
        cured: some fix did, within the rounds.
        placebo_first: the first random change did.
        random control: some random change did, within as many trainings.
        trainings: of the treatment.
        placebo_trainings: of the random control.
        later: causes that were found after a step of the treatment.
        steps: what was tried, in words.
        placebo_steps: the same of the random control.
    """

    name: str
    first: bool
    cured: bool
    control_first: bool
    control: bool
    trainings: int
    control_trainings: int
    later: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    control_steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval by Wilson; the interval is 0 to 1 where there is nothing.

    Attributes:
        count: how many.
        of: of how many.
        low: end of the interval.
        high: end of the interval.
    """

    count: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share, NaN of nothing."""
        return self.count / self.of if self.of else float("nan")


def rate(is_one: Iterable[bool]) -> Rate:
    """The share of those that are."""
    told = list(is_one)
    return Rate(sum(told), len(told), *wilson(sum(told), len(told)))


@dataclass(frozen=True)
class PerCause:
    """How well one cause is told.

    Attributes:
        code: of the rule.
        recall: of the sick whose case it stands for, how many got a right cause first.
        precision: of those where it was named first, for how many it was right. On healthy patients,
            and on those at the border, it never is.
        cured: of the treatable of them, how many a treatment cured; None where nothing was treated.
        instead: what was named first where it was wrong, most often first.
    """

    code: str
    recall: Rate
    precision: Rate
    cured: Rate | None
    instead: Mapping[str, int]


@dataclass(frozen=True)
class Calibration:
    """How often first-named causes of a confidence are right, over all patients."""

    confidence: str
    right: Rate


@dataclass(frozen=True)
class Cures:
    """What treatments did to treatable patients that are sick.

    Attributes:
        first: healthy after the first fix.
        first_of_one: the same of those with one fault; of two a fix mends one.
        cured: healthy within the rounds. Of all treatable ones: where nothing was found, nothing was
            cured.
        cured_of_treated: the same of those that were treated.
        placebo_first: healthy after the first random change, of those that were treated.
        random control: healthy after as many random changes as there were fixes.
        trainings: mean number of trainings of a treatment, NaN if there was none.
    """

    first: Rate
    first_of_one: Rate
    cured: Rate
    cured_of_treated: Rate
    control_first: Rate
    control: Rate
    trainings: float


@dataclass(frozen=True)
class Diagnosing:
    """How well patients are diagnosed.

    Attributes:
        right: sick ones whose first-named cause is right.
        right_anywhere: sick ones where a right cause is among what was found.
        found: sick ones where anything was found.
        second: of the sick with a second fault, how many where it was found as well, at once or after
            a step of the treatment.
        false_alarms: healthy ones where anything was found.
        border_alarms: ones at the border where anything was found.
        false_wrongly: of the healthy ones where every fixed criterion holds, those where anything was
            found.
        border_wrongly: the same of those at the border.
        unsure: all of which nothing could be said.
        failed: all that could not be judged.
        amiss_sick: sick ones where a fixed criterion does not hold, which no rule has a say in.
        amiss_healthy: healthy ones where one does not.
    """

    right: Rate
    right_anywhere: Rate
    found: Rate
    second: Rate
    false_alarms: Rate
    border_alarms: Rate
    false_wrongly: Rate
    border_wrongly: Rate
    unsure: Rate
    failed: Rate
    amiss_sick: Rate
    amiss_healthy: Rate


@dataclass(frozen=True)
class Scores:
    """All figures of one examination."""

    diagnosing: Diagnosing
    causes: tuple[PerCause, ...]
    calibration: tuple[Calibration, ...]
    cures: Cures | None
    confusion: Confusion
    wrong: tuple[Judged, ...]  # sick ones with another first cause, healthy and border ones with one


@dataclass(frozen=True)
class Confusion:
    """How often what was named first where something else was expected.

    Attributes:
        expected: rows: codes, then healthy and border.
        named: columns: codes, then what may stand in their place.
        counts: [row][column]. A right cause that is not the one its case stands for is counted as
            that one: it is no confusion.
    """

    expected: tuple[str, ...]
    named: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def diagnosing(patients: Sequence[Judged], treated: Sequence[Treated] = ()) -> Diagnosing:
    """How well patients are diagnosed.

    Args:
        patients: judged.
        treated: those of them that were treated, where a second fault may show after the first is gone.
    """
    later = {t.name: t.later for t in treated}
    sick, healthy, border = (_of(patients, e) for e in ("sick", "healthy", "border"))
    return Diagnosing(
        right=rate(p.right for p in sick),
        right_anywhere=rate(p.right_anywhere for p in sick),
        found=rate(p.alarmed for p in sick),
        second=rate(bool({*p.found, *later.get(p.name, ())} & set(p.also)) for p in sick if p.also),
        false_alarms=rate(p.alarmed for p in healthy),
        border_alarms=rate(p.alarmed for p in border),
        false_wrongly=rate(p.alarmed for p in healthy if not p.amiss and not p.failed),
        border_wrongly=rate(p.alarmed for p in border if not p.amiss and not p.failed),
        unsure=rate(p.first == UNSURE for p in patients),
        failed=rate(p.first == FAILED for p in patients),
        amiss_sick=rate(bool(p.amiss) for p in sick if not p.failed),
        amiss_healthy=rate(bool(p.amiss) for p in healthy if not p.failed),
    )


def scores(patients: Sequence[Judged], treated: Sequence[Treated] | None = None) -> Scores:
    """All figures.

    Args:
        patients: judged.
        treated: those of them that were treated; None if none was meant to be.
    """
    cured = None if treated is None else {t.name: t.cured for t in treated}
    return Scores(
        diagnosing=diagnosing(patients, treated or ()),
        causes=per_cause(patients, cured),
        calibration=tuple(
            Calibration(c, rate(p.right for p in patients if p.named and p.confidence == c))
            for c in CONFIDENCES
        ),
        cures=None if treated is None else cures(patients, treated),
        confusion=confusion(patients),
        wrong=tuple(p for p in patients if (not p.right if p.expect == "sick" else p.alarmed)),
    )


def per_cause(
    patients: Sequence[Judged], cured: Mapping[str, bool] | None = None
) -> tuple[PerCause, ...]:
    """Recall and precision of each code that was expected or named first.

    Args:
        patients: judged.
        cured: whether a treatment cured them, by name; None if nothing was treated.
    """
    codes = {p.causes[0] for p in patients if p.causes} | {p.named[0] for p in patients if p.named}
    told = []
    for code in sorted(codes):
        own = [p for p in patients if p.causes and p.causes[0] == code]
        mine = [p for p in own if p.treatable]
        told.append(
            PerCause(
                code,
                recall=rate(p.right for p in own),
                precision=rate(p.right for p in patients if p.first == code),
                cured=None if cured is None else rate(cured.get(p.name, False) for p in mine),
                instead=dict(Counter(p.first for p in own if not p.right).most_common()),
            )
        )
    return tuple(told)


def cures(patients: Sequence[Judged], treated: Sequence[Treated]) -> Cures:
    """What treatments did; of patients that are sick and can be treated, whether found or not."""
    by_name = {t.name: t for t in treated}
    all_ = [p.name for p in patients if p.expect == "sick" and p.treatable]
    double = {p.name for p in patients if p.also}
    seen = [by_name[name] for name in all_ if name in by_name]

    def over_all(is_one: Callable[[Treated], bool]) -> Rate:
        return rate(name in by_name and is_one(by_name[name]) for name in all_)

    return Cures(
        first=over_all(lambda t: t.first),
        first_of_one=rate(
            name in by_name and by_name[name].first for name in all_ if name not in double
        ),
        cured=over_all(lambda t: t.cured),
        cured_of_treated=rate(t.cured for t in seen),
        control_first=rate(t.control_first for t in seen),
        control=rate(t.control for t in seen),
        trainings=sum(t.trainings for t in seen) / len(seen) if seen else float("nan"),
    )


def confusion(patients: Sequence[Judged]) -> Confusion:
    """What was named first where what was expected."""
    pairs = Counter(
        (p.causes[0] if p.causes else p.expect, p.causes[0] if p.right else p.first) for p in patients
    )
    words = ("healthy", "border")
    expected = sorted(
        {e for e, _ in pairs}, key=lambda e: (e in words, words.index(e) if e in words else 0, e)
    )
    instead = (NONE, UNSURE, FAILED)
    codes = sorted({n for _, n in pairs if n not in instead} | {e for e in expected if e not in words})
    named = (*codes, NONE, *(word for word in instead[1:] if any(n == word for _, n in pairs)))
    counts = tuple(tuple(pairs[row, column] for column in named) for row in expected)
    return Confusion(tuple(expected), named, counts)


def _of(patients: Sequence[Judged], expect: str) -> list[Judged]:
    return [p for p in patients if p.expect == expect]
