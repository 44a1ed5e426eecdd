"""``cae sweep status DIR``: how a sweep stands, from its files alone."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from cae_cli import sweep
from cae_cli.commands import args
from cae_cli.errors import UserError, did_you_mean, printable
from cae_cli.report import terminal
from cae_cli.report.numbers import duration
from cae_cli.report.sections import line
from cae_cli.runs.reader import Entry, at
from cae_cli.system.files import is_in_use, typed

HELP = """\
usage: cae sweep status DIR

Says how the sweep in a folder stands, whether it is at work or not: how many of
its jobs are done, what runs and how far it is, what failed and why, and how long
the rest will take. DIR is the folder of a sweep.

The command of a sweep that did not finish, once more, goes on with it.
"""
STATES = ("ok", "running", "failed", "interrupted", "unreadable", "not started")


def main(arguments: list[str]) -> int:
    """Shows how a sweep stands.

    Returns:
        0; 1 if a job failed.
    """
    said = args.parsed("cae sweep", arguments)
    if said.help or not said.words:
        print(HELP, end="")
        return 0
    verb, *folders = said.words
    if verb != "status":
        raise UserError(f"there is no cae sweep {verb!r}", hint=did_you_mean(verb, ["status"]))
    if len(folders) != 1:
        raise UserError(
            f"one sweep's folder, got {len(folders)}",
            where="command line: cae sweep status",
            hint="cae sweep status runs/…/…",
        )
    folder = typed(folders[0])
    found = sweep.read(folder)
    counts = Counter(job.status for job in found.jobs)
    states = [f"{counts[s]} {s}" for s in sorted(counts, key=STATES.index)]
    at_work = {True: "at work", False: "not at work", None: ""}[is_in_use(folder)]
    heading = ", ".join(
        [f"{len(found.jobs)} jobs: {', '.join(states)}", *([at_work] if at_work else [])]
    )
    lines = [heading]
    for job in found.jobs:
        name = printable(job.folder.name)
        if job.status == "running":
            lines.append(f"  {name}: {_stage(Entry(job.folder))}")
        elif job.status in ("failed", "unreadable", "interrupted"):
            lines.append(f"  {name}: {job.status}: {printable(job.problem)}")
    left = _left(found)
    if left is not None:
        lines.append(f"about {duration(left)} left")
    terminal.show([line(text, whole=True) for text in lines])
    return int(counts["failed"] > 0)


def _stage(entry: Entry) -> str:
    """How far a running job is."""
    epoch, loss = entry.trained()
    epochs = at(entry.config, "training", "epochs")
    return (
        f"epoch {epoch}/{epochs}" + ("" if loss is None else f", loss {loss:.4f}")
        if epoch
        else "beginning"
    )


def _left(found: sweep.Sweep) -> float | None:
    """Seconds that what is not done will take, by what is done; None where nothing tells."""
    running = [job for job in found.jobs if job.status == "running"]
    waiting = sum(job.status == "not started" for job in found.jobs)
    took = [job.seconds for job in found.jobs if job.status == "ok" and job.seconds is not None]
    if not running or not took:
        return None
    whole = sum(took) / len(took)
    rest = sum(max(0.0, whole - _since(Entry(job.folder).started)) for job in running)
    return (rest + waiting * whole) / len(running)


def _since(started: datetime | None) -> float:
    return (datetime.now().astimezone() - started).total_seconds() if started else 0.0
