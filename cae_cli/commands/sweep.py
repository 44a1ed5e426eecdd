"""``cae sweep status SWEEP``: the progress of a sweep, from its files alone."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from cae_cli import sweep
from cae_cli.commands.arguments import RUNS_HELP, parse_plain
from cae_cli.config.schema import parse
from cae_cli.errors import UserError, counted, did_you_mean, printable
from cae_cli.report import terminal
from cae_cli.report.numbers import duration
from cae_cli.report.sections import line
from cae_cli.runs.reader import Entry
from cae_cli.runs.registry import Registry
from cae_cli.system.files import is_in_use, typed
from cae_cli.system.guarded import GuardedPath

HELP = f"""\
usage: cae sweep status SWEEP

Shows the progress of a sweep: finished jobs, running jobs and their epochs,
failed jobs and the reasons, and the estimated time left. SWEEP is its folder,
or its id: k3fa, if its runs are k3fa/loss=ssim and so on in cae runs ls.

To resume an unfinished sweep, run its command again.

{RUNS_HELP}"""
STATES = ("ok", "running", "failed", "interrupted", "unreadable", "not started")


def main(args: list[str]) -> int:
    """Shows the progress of a sweep.

    Returns:
        0; 1 if a job failed.
    """
    flags = parse_plain("cae sweep", args)
    if flags.help or not flags.names:
        print(HELP, end="")
        return 0
    verb, *folders = flags.names
    if verb != "status":
        raise UserError(f"there is no cae sweep {verb!r}", hint=did_you_mean(verb, ["status"]))
    if len(folders) != 1:
        raise UserError(
            f"expected the folder of one sweep, got {len(folders)}",
            where="command line: cae sweep status",
            hint="cae sweep status runs/…/…",
        )
    folder = Registry(flags.runs).find_sweep(folders[0]) or typed(folders[0])
    found = sweep.read(folder)
    counts = Counter(job.status for job in found.jobs)
    states = ", ".join(f"{counts[s]} {s}" for s in sorted(counts, key=STATES.index))
    activity = {True: ", in progress", False: ", not in progress", None: ""}[
        is_in_use(GuardedPath(folder))
    ]
    lines = [f"{counted(len(found.jobs), 'job')}: {states}{activity}"]
    for job in found.jobs:
        name = printable(job.folder.name)
        if job.status == "running":
            lines.append(f"  {name}: {_stage(Entry(job.folder))}")
        elif job.status in ("failed", "unreadable", "interrupted"):
            lines.append(f"  {name}: {job.status}: {printable(job.problem)}")
    seconds = _seconds_left(found)
    if seconds is not None:
        lines.append(f"about {duration(seconds)} left")
    terminal.show([line(text, whole=True) for text in lines])
    return int(counts["failed"] > 0)


def _stage(entry: Entry) -> str:
    """The progress of a running job."""
    epoch, loss = entry.trained()
    if not epoch:
        return "starting"
    text = f"epoch {epoch}/{_planned_epochs(entry)}"
    return text if loss is None else f"{text}, loss {loss:.4f}"


def _planned_epochs(entry: Entry) -> int | str:
    """The epochs that a run has in the end, "?" where its file does not say."""
    images = entry.data.get("train")
    try:
        training = parse(entry.config).training
        return training.planned_epochs(images) if isinstance(images, int) else training.epochs
    except (UserError, ArithmeticError):
        return "?"


def _seconds_left(found: sweep.Sweep) -> float | None:
    """The estimated time until all jobs are done; None while no job is finished or running."""
    running = [job for job in found.jobs if job.status == "running"]
    waiting = sum(job.status == "not started" for job in found.jobs)
    durations = [job.seconds for job in found.jobs if job.status == "ok" and job.seconds is not None]
    if not running or not durations:
        return None
    mean = sum(durations) / len(durations)
    rest = sum(max(0.0, mean - _seconds_since(Entry(job.folder).started)) for job in running)
    return (rest + waiting * mean) / len(running)


def _seconds_since(moment: datetime | None) -> float:
    return (datetime.now().astimezone() - moment).total_seconds() if moment else 0.0
