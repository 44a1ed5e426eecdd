"""The judged mutants of a draw as plain data, and the figures that follow from them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.faults import record as inside
from benchmarks.faults import tools
from benchmarks.faults.outside import alternatives
from benchmarks.faults.outside.judge import Judged
from benchmarks.faults.outside.repairs import Arm
from benchmarks.faults.report import count, share
from benchmarks.faults.scoring import (
    UNDECIDED,
    DiagnosisScores,
    Rate,
    ShortScores,
    Verdict,
    diagnosis_scores,
    rate,
)
from cae_cli.report.sections import Column, Part, Table, line
from cae_cli.runs.environment import surroundings
from cae_cli.runs.json_files import plain, read_json, write_json
from cae_cli.system.files import make, writing
from cae_cli.system.guarded import GuardedPath

RECORDS = Path(__file__).with_name("results")
RIGHT, FALSE_ALARMS, MENDED = 0.85, 0.03, 0.85  # goals: at least, at most, at least
PACKAGES = ("tensorflow", "keras", "numpy")


@dataclass(frozen=True)
class Record:
    """A draw, judged.

    Attributes:
        seed: of the draw.
        command: that produced it, without paths of the machine.
        code: version of cae and of its run folders.
        date: YYYY-MM-DD.
        packages: their versions.
        n_seeds: trainings of each mutant and of each original.
        n_drawn: mutants of the draw, judged or not.
        judged: originals and mutants, in this order.
    """

    seed: int
    command: str
    code: str
    date: str
    packages: Mapping[str, str]
    n_seeds: int
    n_drawn: int
    judged: tuple[Judged, ...]

    @property
    def originals(self) -> list[Judged]:
        """The bases as they are."""
        return [one for one in self.judged if one.mutant.change is None]

    @property
    def mutants(self) -> list[Judged]:
        """The mutants that Keras can train."""
        return [one for one in self.judged if one.comparison is not None]

    @property
    def n_untrainable(self) -> int:
        """Number of mutants that Keras cannot train."""
        return len(self.judged) - len(self.originals) - len(self.mutants)

    @property
    def is_done(self) -> bool:
        """Whether every mutant of the draw is judged."""
        return len(self.mutants) + self.n_untrainable == self.n_drawn

    @property
    def killed(self) -> list[Judged]:
        """The faulty ones."""
        return [one for one in self.mutants if one.is_killed]

    @property
    def spared(self) -> list[Judged]:
        """Those that are not faulty."""
        return [one for one in self.mutants if not one.is_killed]

    @property
    def repaired(self) -> list[Judged]:
        """The killed mutants that fixes were tried on."""
        return [one for one in self.killed if one.repair is not None]

    @property
    def verdicts(self) -> list[Verdict]:
        """Of originals and mutants."""
        return [one.verdict for one in (*self.originals, *self.mutants)]


def record(seed: int, n_seeds: int, n_drawn: int, judged: Sequence[Judged], command: str) -> Record:
    """A draw, as judged now."""
    versions = surroundings()["packages"]
    return Record(
        seed=seed,
        command=command,
        code=inside.code(),
        date=time.strftime("%Y-%m-%d"),
        packages={name: str(versions.get(name)) for name in PACKAGES},
        n_seeds=n_seeds,
        n_drawn=n_drawn,
        judged=tuple(judged),
    )


# --- files ---


def file_of(seed: int, *, is_first: bool = False) -> Path:
    """The published record of a draw; the first one was judged before any rule was changed for it."""
    return RECORDS / f"draw_{seed}{'_first' if is_first else ''}.json"


def write(path: Path, shown: Record) -> None:
    """Writes a record.

    Raises:
        UserError: the file cannot be written.
    """
    make(path.parent)
    with writing(path):
        write_json(GuardedPath.of(path), plain(shown))


def read(path: Path) -> Record:
    """Reads a record.

    Raises:
        UserError: the file cannot be read.
    """
    content: Record = inside.restored(Record, read_json(GuardedPath.of(path)))
    return content


def publish(shown: Record) -> None:
    """Records a draw for the page.

    What was judged first is kept: the first record only gets the mutants, and the trials of a first fix,
    that it lacks.
    """
    first = file_of(shown.seed, is_first=True)
    write(first, _joined(read(first), shown) if first.exists() else shown)
    write(file_of(shown.seed), shown)


def _joined(first: Record, now: Record) -> Record:
    known = {one.mutant: one for one in first.judged}

    def kept(one: Judged) -> Judged:
        old = known.get(one.mutant, one)
        untried = old.is_fixed is None and old.fix == one.fix
        return replace(old, is_fixed=one.is_fixed) if untried else old

    return replace(first, judged=tuple(map(kept, now.judged)))


# --- figures ---


@dataclass(frozen=True)
class Figure:
    """A figure of the diagnosis, with its goal if it has one.

    Attributes:
        name: what is counted.
        rate: the figure.
        goal: in words, "" without one.
        is_met: None without a goal, or as long as mutants of the draw are not judged.
    """

    name: str
    rate: Rate
    goal: str = ""
    is_met: bool | None = None

    @property
    def verdict(self) -> str:
        """Met, missed, or nothing."""
        return {None: "", True: "met", False: "missed"}[self.is_met]


def scores(shown: Record) -> DiagnosisScores:
    """Those of the inside part, killed mutants as faulty and the others as borderline trainings."""
    return diagnosis_scores(shown.verdicts)


def figures(shown: Record) -> list[Figure]:
    """The main figures."""
    own, killed, spared = scores(shown), shown.killed, shown.spared
    right, alarms = own.right, own.borderline_alarms
    before = {one.mutant.base: one.verdict.first for one in shown.originals}
    listed = [
        Figure("mutants: killed", rate(one in killed for one in shown.mutants)),
        Figure(
            "killed: right by the map, named first",
            right,
            _goal("at least", RIGHT),
            right.share >= RIGHT if right.total and shown.is_done else None,
        ),
        Figure(
            "killed: right, and the original has another first cause",
            rate(
                one.verdict.is_right and one.verdict.first != before.get(one.mutant.base)
                for one in killed
            ),
        ),
        Figure("killed: right by the map, among the findings", own.right_anywhere),
        Figure(
            "killed: the cause may have been called ruled out",
            rate(one.verdict.may_be_ruled_out for one in killed),
        ),
        Figure("killed: any finding", own.found),
        Figure("killed: some rule is accepted", rate(bool(one.verdict.causes) for one in killed)),
        Figure("killed: cannot tell", _undecided(killed)),
        Figure(
            "not killed: alarms",
            alarms,
            _goal("at most", FALSE_ALARMS),
            alarms.share <= FALSE_ALARMS if alarms.total and shown.is_done else None,
        ),
        Figure("not killed: cannot tell", _undecided(spared)),
        Figure("originals: alarms", own.healthy_alarms),
        Figure("not diagnosed", own.failed),
    ]
    if any(one.is_fixed is not None for one in killed):
        fixed = rate(one.verdict.is_right or bool(one.is_fixed) for one in killed)
        listed.insert(3, Figure("killed: right with alternatives, named first", fixed))
    return listed


def repair_figures(shown: Record) -> list[Figure]:
    """How many killed mutants the fixes that were tried mend, and how many random changes do."""
    original = {one.mutant.base: one.errors for one in shown.originals}
    repairs = [one.repair for one in shown.repaired if one.repair]
    mended = rate(repair.is_mended for repair in repairs)
    is_whole = shown.is_done and len(repairs) == len(shown.killed)

    def back(arms: Iterable[Arm | None]) -> Rate:
        return rate(arm is not None and arm.is_back for arm in arms)

    return [
        Figure(
            "the first edit that is reported as helping",
            mended,
            _goal("at least", MENDED),
            mended.share >= MENDED if repairs and is_whole else None,
        ),
        Figure(
            "the same, where one is reported",
            back(repair.edit for repair in repairs if repair.tried.is_reported),
        ),
        Figure("the same, else the best edit that was tried", back(repair.edit for repair in repairs)),
        Figure("one random change", back(repair.random for repair in repairs)),
        Figure(
            "the best of as many random changes as edits", back(repair.searched for repair in repairs)
        ),
        Figure(
            "no change",
            rate(
                bool(alternatives.is_back(original[one.mutant.base], one.errors[: alternatives.SEEDS]))
                for one in shown.repaired
            ),
        ),
    ]


def _goal(comparison: str, limit: float) -> str:
    return f"{comparison} {limit:.0%}".replace("%", " %")


def _undecided(listed: Sequence[Judged]) -> Rate:
    return rate(one.verdict.first == UNDECIDED for one in listed)


def best_constant(shown: Record) -> tuple[str, Rate]:
    """The rule that is accepted for most killed mutants, and for how many: no diagnosis at all."""
    counts = Counter(code for one in shown.killed for code in one.verdict.causes)
    code = min(counts, key=lambda code: (-counts[code], code), default="")
    return code, rate(code in one.verdict.causes for one in shown.killed)


def tool_scores(shown: Record) -> dict[str, ShortScores]:
    """The main figures of cae and of simpler tools, by name."""
    ordered = (*shown.originals, *shown.mutants)
    names = {name for one in ordered for name in one.symptoms}
    return {
        "cae": scores(shown),
        **{
            tool.name: tools.scores(shown.verdicts, [one.symptoms.get(tool.name, ()) for one in ordered])
            for tool in tools.TOOLS
            if tool.name in names
        },
    }


def summary(shown: Record) -> list[Part]:
    """The figures for the screen."""
    parts: list[Part] = [
        line(f"{len(shown.mutants)} of {shown.n_drawn} mutants of draw {shown.seed} are judged"),
        "",
        _table("figure", figures(shown)),
    ]
    if shown.repaired:
        parts += ["", _table("killed: mended by", repair_figures(shown))]
    return parts


def _table(title: str, listed: Sequence[Figure]) -> Table:
    return Table(
        [
            Column(title, [figure.name for figure in listed]),
            Column("count", [count(figure.rate) for figure in listed], right=True),
            Column("share (95 % interval)", [share(figure.rate) for figure in listed], right=True),
            Column("goal", [figure.goal for figure in listed], spare=1),
            Column("", [figure.verdict for figure in listed]),
        ]
    )
