"""What short trainings with one change each proved, as a section of the summary."""

from __future__ import annotations

from cae_cli.diagnosis.trials import Trial, Trials, bounded
from cae_cli.errors import counted
from cae_cli.report.numbers import duration, number
from cae_cli.report.sections import Column, Line, Part, Section, Table, line
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import foreign

MOST_ROWS = 8  # edits in the short form; random changes a quarter of them
INDENT = 4


def read(run: Run) -> Trials | None:
    """The trials of a run, None if there were none.

    Raises:
        UserError: trials.json is damaged or foreign.
    """
    content = run.trials()
    try:
        return None if content is None else Trials.of(content)
    except ValueError as error:
        raise foreign(run.trials_file) from error


def section(trials: Trials, *, verbose: bool = False) -> Section:
    """The trials as a table, the verdict, and the code to paste.

    Args:
        trials: of the training.
        verbose: every trial, and the code of every edit that mends the training.
    """
    seeds = counted(max(len(t.explained) for t in (trials.unchanged, *trials.edits)), "seed")
    title = f"Fixes tried ({trials.steps:,} steps each, up to {seeds}, {duration(trials.seconds)})"
    parts = measured(trials, verbose=verbose)
    for trial in trials.helping if verbose else (trials.alike or trials.helping)[:1]:
        parts += _code(trial)
    return Section(title, parts)


def measured(trials: Trials, *, verbose: bool = False) -> list[Part]:
    """The table, and what was not tried; arguments as for `section`."""
    parts: list[Part] = [_table(trials, verbose=verbose)]
    if trials.untried:
        some = ", ".join(trials.untried[: None if verbose else MOST_ROWS])
        more = "" if verbose or len(trials.untried) <= MOST_ROWS else ", …"
        parts.append(f"not tried ({trials.ended or 'no time'}): {some}{more}")
    return parts


def _table(trials: Trials, *, verbose: bool) -> Table:
    def ranked(some: tuple[Trial, ...], most: int) -> list[Trial]:
        ordered = sorted(some, key=lambda trial: (trial not in trials.proven, trial.cut, -trial.mean))
        return ordered if verbose else ordered[:most]

    every = [
        trials.unchanged,
        *ranked(trials.edits, MOST_ROWS),
        *ranked(trials.controls, MOST_ROWS // 4),
    ]
    return Table(
        [
            Column("change", [trial.name for trial in every], cut=True),
            Column("explained", [_explained(trial) for trial in every], right=True),
            Column(
                "gain",
                ["" if t is trials.unchanged else f"{trials.gain(t):+.2f}" for t in every],
                right=True,
            ),
            Column("result", [_result(trials, trial) for trial in every]),
            Column("fix of", [" ".join(trial.codes) for trial in every], cut=True, spare=1),
        ],
        bold=frozenset(i for i, trial in enumerate(every) if trial in trials.proven),
    )


def _explained(trial: Trial) -> str:
    """Of each seed; below -1 the number tells nothing."""
    return " ".join(
        number(value, 2) if value == bounded(value) else "below -1" for value in trial.explained
    )


def _result(trials: Trials, trial: Trial) -> str:
    if trial is trials.unchanged:
        return ""
    if trial in trials.proven:
        return "mends it"
    if trials.mends(trial):
        return "mends it with one seed" if len(trial.explained) == 1 else "mends it"
    if trials.helps(trial):
        return "helps" if len(trial.explained) > 1 else "helps with one seed"
    return "ended early, worse" if trial.cut else "within the spread" if trials.gain(trial) >= 0 else ""


def _code(trial: Trial) -> list[Part]:
    """The code to replace, and the code to paste."""

    def lines(text: str, sign: str, style: str) -> list[Line]:
        return [line((f"{sign} {row}", style), indent=INDENT, whole=True) for row in text.splitlines()]

    head = line((f"{trial.name}: {trial.sentence}", "bold"))
    return [head, *lines(trial.before, "-", "red"), *lines(trial.after, "+", "green")]
