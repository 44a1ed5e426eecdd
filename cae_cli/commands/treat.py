"""``cae treat RUN``: tests the proposed fixes, with random changes as a control."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cae_cli import experiment
from cae_cli.commands import arguments, models
from cae_cli.commands.arguments import RUN_HELP, RUNS_HELP, count, duration, parse_plain
from cae_cli.config.overrides import overrides_of_run
from cae_cli.errors import Interrupted, UserError, counted, to_paste
from cae_cli.report import numbers, summary, terminal
from cae_cli.report.sections import Column, Command, Part, Table, line
from cae_cli.report.treatment import treatment as table
from cae_cli.runs import registry
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import plain, read_json
from cae_cli.runs.opening import open_trained, reading
from cae_cli.sweep import batch
from cae_cli.system import signals
from cae_cli.system.files import claim, typed
from cae_cli.training import backend
from cae_cli.treatment import record
from cae_cli.treatment.arm import MAX_CANDIDATES, Fixes
from cae_cli.treatment.result import Result, result
from cae_cli.treatment.session import FILE, SHORT_STEPS, Plan, Session

if TYPE_CHECKING:
    from cae_cli.data import Images
    from cae_cli.external.model import FileOptions

MODEL_BUDGET = 120.0  # seconds
SEEDS = 3  # fewer give no margin of error that is worth its name
DEFAULT_BUDGET = 600.0  # seconds in which all fixes must fit to be trained with so many seeds

HELP = f"""\
usage: cae treat RUN [--max-fixes 3] [--budget 10m] [--seeds 3]
       cae treat RUN --short
       cae treat MODEL.keras data=npz data.path=x.npz [--budget 2m]

Tests the fixes that the diagnosis proposes: trains the run again with a fix,
and with a random change of the same kind (random control). A fix that helps is
kept, and the next one is tried on top of it, until the run is healthy. The run
itself is not changed. A new folder below runs/treat/ holds all trainings, a
table (treatment.json), a page (report.html), and an experiment file of the
best run if a fix helped.

  --max-fixes N           try at most N fixes, one after the other; default 3
  --budget TIME           start no fix that would exceed TIME in total: 90s,
                          10m, 2h
  --seeds N               train each with N seeds, including the run itself, and
                          print confidence intervals; default: {SEEDS} if all fixes
                          take no more than the budget, or {DEFAULT_BUDGET:.0f} s without one,
                          else 1
  --no-control            train no random controls, which halves the time
  --short                 only compare up to {MAX_CANDIDATES} fixes, including common ones, in
                          trainings of {SHORT_STEPS} steps each
  --json                  print the content of treatment.json

Of a Keras autoencoder that was trained elsewhere, it builds others with single
changes, trains each for a few hundred steps, as the file was compiled, beside
the unchanged model and random changes, and says which change mends it, with the
code to replace. The result is in trials.json and trials.png.

  --budget TIME           try changes for TIME; default 2m
  --steps N               the steps that the model was trained for
{models.HELP}\
  --verbose               show every change, every number
  --json                  print the content of trials.json
{RUNS_HELP}
The exit code is 1 if a training could not be run, else 0 for any outcome.

{RUN_HELP}"""


def main(args: list[str]) -> int:
    """Treats the given run.

    Returns:
        0; 1 if a training could not be run.

    Raises:
        UserError: there is no such run, or it cannot be treated.
        Interrupted: by a signal; the results so far are written and shown.
    """
    if any(
        models.is_model(typed(word)) for word in args if not word.startswith("-") and "=" not in word
    ):
        return _treat_model(args)
    switch = {"action": "store_true"}
    own: dict[str, dict[str, Any]] = {
        "max-fixes": {"type": count, "default": 3},
        "budget": {"type": duration, "default": math.inf},
        "seeds": {"type": count, "default": None},
        "no-control": switch,
        "short": switch,
        "json": switch,
    }
    flags = parse_plain("cae treat", args, **own)
    if flags.help:
        print(HELP, end="")
        return 0
    run = _run(flags)
    before = _diagnosed(run)
    if before.healthy:
        _show_healthy(before, flags)
        return 0
    with signals.raised():
        plan = _plan(run, before, flags)
        if not flags.short:
            first = plan.arm("treatment", [before], Fixes()).wanted()
            if not first:
                _show_advice(before, flags)
                return 0
            cost = plan.cost(first[0].overrides)
            plan = _seeded(plan, cost, flags)
            _announce(plan, cost)
        return _treat(plan, ["cae", "treat", *args], flags)


# -- a model that was trained elsewhere ------------------------------------------------------------


def _treat_model(args: list[str]) -> int:
    """Diagnoses a model file and tries fixes on its training."""
    flags = arguments.parse("cae treat", args)
    subject, overrides = registry.split_one(
        flags.overrides, "cae treat", "cae treat model.keras data=npz data.path=x.npz", "one model file"
    )

    def work(
        path: Path, images: Images, options: FileOptions, run: Run, rules: Mapping[str, Any]
    ) -> experiment.Outcome:
        with backend.quiet(run.log):
            from cae_cli.external.treat import treat_file
        budget = flags.budget or MODEL_BUDGET
        return treat_file(path, images, options, run, rules, budget=budget, steps=flags.steps)

    with signals.raised():
        run, outcome = models.work_on(
            typed(subject), overrides, flags, "cae treat", Path("runs/treat"), work
        )
    if flags.json:
        _print_json(run.trials() or {})
    else:
        arguments.show(outcome, run, flags)
    return 0


# -- before anything is trained --------------------------------------------------------------------


def _run(flags: argparse.Namespace) -> Run:
    """The given run, if it can be trained again."""
    name, overrides = registry.split_one(flags.names, "cae treat", "cae treat last", "one run")
    if overrides:
        raise UserError(
            "cae treat takes no overrides",
            where=f"command line: {overrides[0]}",
            hint=f"start a run with this change, to be treated then: "
            f"{to_paste('cae', 'rerun', typed(name), overrides[0])}",
        )
    run = open_trained(name, flags.runs, "only runs of cae train can be treated")
    return run


def _diagnosed(run: Run) -> Result:
    """The result of the run itself.

    Raises:
        UserError: it is in progress, or did not get far enough for a diagnosis.
    """
    if run.status().get("status") == "running":
        raise UserError("the run is in progress", where=run.folder, hint="wait until it has ended")
    before = result(run)
    if before.diagnosis is None:
        with reading(run):  # names the file that is wrong, if there is one
            experiment.diagnose(run)
        raise UserError(
            f"the run cannot be diagnosed: {before.reason}",
            where=run.folder,
            hint=to_paste("cae", "resume", run.folder),
        )
    return before


def _show_healthy(before: Result, flags: argparse.Namespace) -> None:
    _show_untreated(before, "healthy", {}, ["the run is healthy and needs no treatment"], flags)


def _show_advice(before: Result, flags: argparse.Namespace) -> None:
    """Shows what to do if no override helps."""
    advice = [f"{f.code} {f.problem}: {f.advice}" for f in before.causes if f.advice]
    reason = "no option can fix the cause" if before.causes else "no cause was found"
    fails = [f"fails: {', '.join(before.failing)}"] if before.failing else []
    lines = [f"{reason}, so nothing was trained", *fails, *(f"advice: {text}" for text in advice)]
    _show_untreated(before, "advice", {"advice": advice}, lines, flags)


def _show_untreated(
    before: Result, outcome: str, more: dict[str, Any], lines: list[str], flags: argparse.Namespace
) -> None:
    assert before.diagnosis is not None
    if flags.json:
        content = {"schema": record.SCHEMA_VERSION, "run": before.run.folder, "outcome": outcome}
        _print_json({**content, "verdict": before.diagnosis.verdict, **more})
    else:
        verdict = summary.verdict(before.diagnosis)
        terminal.show([verdict, *(line(text, whole=True) for text in lines)])


def _print_json(content: dict[str, Any]) -> None:
    json.dump(plain(content), sys.stdout, indent=2)
    print()


# -- training --------------------------------------------------------------------------------------


def _plan(run: Run, before: Result, flags: argparse.Namespace) -> Plan:
    again = overrides_of_run(run)
    for note in again.notes():
        terminal.Screen().say(note)
    seed = batch.checked(again.overrides).seed
    return Plan(
        before=before,
        overrides=tuple(word for word in again.overrides if not word.startswith("seed=")),
        seeds=_seeds(seed, flags.seeds or 1),
        max_fixes=flags.max_fixes,
        budget=flags.budget,
        with_control=not flags.no_control,
    )


def _seeds(seed: int, count: int) -> tuple[int, ...]:
    """As many seeds, the first is given."""
    direction = 1 if seed + count <= 2**31 else -1
    return tuple(seed + direction * k for k in range(count))


def _seeded(plan: Plan, cost: float, flags: argparse.Namespace) -> Plan:
    """The plan with `SEEDS` seeds, if no number is given and they are cheap enough."""
    more = replace(plan, seeds=_seeds(plan.seeds[0], SEEDS), budget=math.inf)
    if flags.seeds is not None or more.most(cost) > min(plan.budget, DEFAULT_BUDGET):
        return plan
    return replace(more, budget=plan.budget)


def _announce(plan: Plan, cost: float) -> None:
    """Prints how long the treatment takes at most.

    Raises:
        UserError: the budget is not enough for the first fix.
    """
    if plan.first(cost) > plan.budget:
        raise UserError(
            f"the first fix takes about {numbers.duration(plan.first(cost))}, "
            f"which exceeds the budget of {numbers.duration(plan.budget)}",
            where="command line: --budget",
            hint="use a larger --budget, --no-control, or fewer --seeds",
        )
    fixes = f"{plan.max_fixes} fix{'' if plan.max_fixes == 1 else 'es'}"
    trainings = counted(plan.trainings, "training")
    terminal.Screen().say(
        f"at most {fixes} with {trainings} each, about {numbers.duration(plan.seconds)} per training: "
        f"{numbers.duration(plan.most(cost))} at most"
    )


def _treat(plan: Plan, command: Sequence[str], flags: argparse.Namespace) -> int:
    session = Session(plan, claim(Path("runs/treat")), command)
    try:
        with batch.opened(session.folder, command) as runner:
            (session.run_short if flags.short else session.run)(runner)
    except Interrupted:
        session.interrupt()
        _show(session, flags)
        raise
    _show(session, flags)
    return int(bool(session.failed))


def _show(session: Session, flags: argparse.Namespace) -> None:
    """Writes all files, and prints the table and the outcome."""
    screen = terminal.Screen()
    session.write()
    parts = _parts(session, flags)
    if not flags.short:
        with screen.doing("drawing …"):
            session.draw(parts)
    for one in session.failed:
        screen.say(f"! {one.run.folder} could not be trained: {one.reason}")
    if flags.json:
        _print_json(read_json(session.folder / FILE))
        return
    terminal.show([*parts, terminal.folder(session.folder)])


def _parts(session: Session, flags: argparse.Namespace) -> list[Part]:
    """The table, the outcome, and how to repeat it."""
    results = session.record
    parts: list[Part] = [] if flags.short else [table(results.rows())]
    if results.shorts:
        parts += ["", f"after {SHORT_STEPS} steps:", _short_table(results.shorts)]
    parts += ["", line((results.verdict(), "bold"))]
    if results.outcome != "none":
        parts += [
            line(results.reproduce, whole=True),
            Command(to_paste("cae", "train", "-cd", session.folder, f"experiment={results.outcome}")),
        ]
    return parts


def _short_table(shorts: Sequence[record.Short]) -> Table:
    """The short trainings, those of each fix after the run itself, the best first."""

    def rank(short: record.Short) -> tuple[Any, ...]:
        diverged = math.isnan(short.score)
        return short.step, bool(short.overrides), diverged, -short.gain, -short.explained

    ordered = sorted(shorts, key=rank)
    return Table(
        [
            Column("change", [" ".join(s.overrides) or "none" for s in ordered], cut=True),
            Column("score", [numbers.number(s.score, 2) or "diverged" for s in ordered], right=True),
            Column("explained", [numbers.number(s.explained, 3) for s in ordered], right=True),
        ]
    )
