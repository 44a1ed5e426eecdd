"""``cae treat RUN``: trains again with what the diagnosis proposes, beside a random control."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cae_cli import experiment
from cae_cli.commands.arguments import RUN_HELP as RUN_WORDS
from cae_cli.commands.arguments import RUNS_HELP as RUNS
from cae_cli.commands.arguments import count
from cae_cli.commands.arguments import parse_plain as parsed
from cae_cli.config.overrides import overrides_of_run
from cae_cli.errors import Interrupted, UserError
from cae_cli.report import numbers, summary, terminal
from cae_cli.report.sections import Command, Part, line
from cae_cli.report.treatment import treatment as table
from cae_cli.runs import registry
from cae_cli.runs.folder import Run, plain, read_json
from cae_cli.runs.opening import check_trained, open_run, reading
from cae_cli.sweep import batch
from cae_cli.system import signals
from cae_cli.system.files import claim
from cae_cli.treatment import record
from cae_cli.treatment.arm import Fixes, Result, result
from cae_cli.treatment.rounds import FILE, Plan, Rounds

HELP = f"""\
usage: cae treat RUN [--rounds 3] [--budget 10m] [--seeds 3]

A fix is a hypothesis. This tests it: the run is trained again with what
its diagnosis proposes, and beside it with a random change of the same kind (a
random control). What helps is kept, and the next round begins with it. The run itself is
not touched; what was trained is below runs/treat/, with a table, a picture
(treatment.png) and, if anything helped, an experiment file to train it again.

  --rounds N              fixes that are tried at most, one after the
                          other; 3 if nothing is said
  --budget TIME           no round is begun that would take longer than this in
                          all: 90s, 10m, 2h
  --seeds N               trains each with N seeds, the run itself too, and gives
                          the interval that their spread leaves open
  --no-control            only what is proposed, in half the time
  --json                  the content of treatment.json on standard output
{RUNS}
Exit code: 0 whatever came of it, 1 if a training could not be run.

{RUN_WORDS}"""

UNITS = {"s": 1, "m": 60, "h": 3600}


def main(arguments: list[str]) -> int:
    """Treats the run that is given.

    Returns:
        0; 1 if a training could not be run.

    Raises:
        UserError: no such run, or none that can be treated.
        Interrupted: by a signal; what was done is written and shown.
    """
    own: dict[str, dict[str, Any]] = {
        "rounds": {"type": count, "default": 3},
        "budget": {"type": duration},
        "seeds": {"type": count, "default": 1},
        "no-control": {"action": "store_true"},
        "json": {"action": "store_true"},
    }
    flags = parsed("cae treat", arguments, **own)
    if flags.help:
        print(HELP, end="")
        return 0
    run = _chosen(flags)
    before = _judged(run)
    if before.healthy:
        _say_healthy(before, flags)
        return 0
    with signals.raised():
        plan = _plan(run, before, flags)
        first = plan.arm("treatment", [before], Fixes()).wanted()
        if not first:
            _say_what_else(before, flags)
            return 0
        _announce(plan, plan.cost(first[0].words))
        return _treated(plan, ["cae", "treat", *arguments], flags)


def duration(text: str) -> float:
    """A time like 30s, 10m or 2h, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?)([smh])", text)
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a time like 90s, 10m or 2h, got {text!r}")
    return seconds


# -- before anything is trained --------------------------------------------------------------------


def _chosen(flags: argparse.Namespace) -> Run:
    """The run that was named, if it can be trained again."""
    subject, overrides = registry.split_one(flags.names, "cae treat", "cae treat last", "one run")
    if overrides:
        raise UserError(
            "a run is treated as it was run",
            where=f"command line: {overrides[0]}",
            hint="cae rerun makes a run with a change, which can be treated then",
        )
    run = open_run(subject, flags.runs)
    check_trained(run, "cae train makes runs that can be treated")
    return run


def _judged(run: Run) -> Result:
    """The run as it is.

    Raises:
        UserError: it did not get far enough to be judged.
    """
    before = result(run)
    if before.diagnosis is None:
        with reading(run):  # says better what is wrong with the files
            experiment.diagnose(run)
        raise UserError(
            f"there is nothing to judge: {before.reason}", where=run.folder, hint="cae resume RUN"
        )
    return before


def _say_healthy(before: Result, flags: argparse.Namespace) -> None:
    said = "the run is healthy, and needs no treatment"
    assert before.diagnosis is not None
    if flags.json:
        content = {"schema": record.SCHEMA_VERSION, "run": before.run.folder, "outcome": "healthy"}
        _print_json({**content, "verdict": before.diagnosis.verdict})
    else:
        terminal.show([summary.verdict(before.diagnosis), line(said, whole=True)])


def _say_what_else(before: Result, flags: argparse.Namespace) -> None:
    """What a person can do where no override helps."""
    assert before.diagnosis is not None
    advice = [f"{f.code} {f.problem}: {f.advice}" for f in before.causes if f.advice]
    said = "no option can mend it" if before.causes else "nothing was found that could be mended"
    if flags.json:
        content = {"schema": record.SCHEMA_VERSION, "run": before.run.folder, "outcome": "advice"}
        _print_json({**content, "verdict": before.diagnosis.verdict, "advice": advice})
        return
    fails = [f"fails: {', '.join(before.failing)}"] if before.failing else []
    lines = [f"{said}, so nothing was trained", *fails, *(f"advice: {text}" for text in advice)]
    terminal.show([summary.verdict(before.diagnosis), *(line(text, whole=True) for text in lines)])


def _print_json(content: dict[str, Any]) -> None:
    json.dump(plain(content), sys.stdout, indent=2)
    print()


# -- what is trained -------------------------------------------------------------------------------


def _plan(run: Run, before: Result, flags: argparse.Namespace) -> Plan:
    """What is to be treated, and how."""
    again = overrides_of_run(run)
    for note in again.notes():
        terminal.Screen().say(note)
    seed = batch.checked(again.overrides).seed
    way = 1 if seed + flags.seeds <= 2**31 else -1
    return Plan(
        before=before,
        words=tuple(word for word in again.overrides if not word.startswith("seed=")),
        seeds=tuple(seed + way * k for k in range(flags.seeds)),
        rounds=flags.rounds,
        budget=flags.budget or math.inf,
        with_control=not vars(flags)["no_control"],
    )


def _announce(plan: Plan, cost: float) -> None:
    """Says how long it will take at most.

    Raises:
        UserError: the budget does not last for the first round.
    """
    if plan.first(cost) > plan.budget:
        raise UserError(
            f"the first round takes about {numbers.duration(plan.first(cost))}, and --budget is "
            f"{numbers.duration(plan.budget)}",
            where="command line: --budget",
            hint="a larger --budget, or --no-control, or fewer --seeds",
        )
    rounds = f"{plan.rounds} round{'' if plan.rounds == 1 else 's'}"
    trainings = f"{plan.trainings} training{'' if plan.trainings == 1 else 's'}"
    terminal.Screen().say(
        f"{rounds} of {trainings} at most, each of about {numbers.duration(plan.seconds)}: "
        f"{numbers.duration(plan.most(cost))} at most"
    )


def _treated(plan: Plan, command: Sequence[str], flags: argparse.Namespace) -> int:
    """Trains round by round, and shows what came of it."""
    rounds = Rounds(plan, claim(Path("runs/treat")), command)
    try:
        with batch.opened(rounds.folder, command) as trained:
            rounds.go(trained)
    except Interrupted:
        rounds.cut_short()
        _show(rounds, flags)
        raise
    _show(rounds, flags)
    return int(bool(rounds.lost))


def _show(rounds: Rounds, flags: argparse.Namespace) -> None:
    """Writes everything, and prints the table and what came of it."""
    screen = terminal.Screen()
    rounds.write()
    with screen.doing("drawing …"):
        rounds.draw()
    for one in rounds.lost:
        screen.say(f"! {one.run.folder} could not be trained: {one.reason}")
    if flags.json:
        _print_json(read_json(rounds.folder / FILE))
        return
    book = rounds.casebook
    parts: list[Part] = [table(book.rows())]
    if shorts := rounds.shorts():
        parts.append(shorts)
    parts += ["", line((book.verdict(), "bold"))]
    if book.outcome != "none":
        parts += [
            line(book.reproduce, whole=True),
            Command(f"cae train -cd {rounds.folder} experiment={book.outcome}"),
        ]
    terminal.show([*parts, terminal.folder(rounds.folder)])
