"""The progress of a sweep: a table on a terminal, else a line for each event."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Group
from rich.live import Live
from rich.text import Text

from cae_cli.errors import counted
from cae_cli.report import terminal
from cae_cli.report.numbers import duration
from cae_cli.report.sections import Column, Table, table_lines
from cae_cli.runs.reader import Entry
from cae_cli.system.guarded import GuardedPath

MOST_ROWS = 16  # of running jobs on a terminal


@dataclass(frozen=True)
class Running:
    """A running job.

    Attributes:
        name: of its folder.
        epochs: number of epochs to train.
        began: when it was started, by `time.monotonic`.
        folder: its run folder.
    """

    name: str
    epochs: int
    began: float
    folder: GuardedPath

    def stage(self) -> tuple[int, float | None]:
        """Finished epochs, and the loss of the last one."""
        return Entry(self.folder).trained()


class Progress:
    """The progress of a sweep, on standard error.

    Args:
        total: number of jobs, finished ones included.
        at_once: how many run in parallel.
    """

    def __init__(self, total: int, at_once: int) -> None:
        self.total, self.at_once = total, at_once
        self.done = self.failed = 0
        self.seconds: list[float] = []  # of jobs that finished here
        self._screen = terminal.Screen()
        self._live: Live | None = None
        self._reported = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the progress while the block runs."""
        if not self._screen.live:
            yield
            return
        with Live(console=self._screen.console, transient=True, refresh_per_second=4) as self._live:
            yield
        self._live = None

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        self._screen.say(text)

    def skipped(self, count: int) -> None:
        """Counts jobs that an earlier call finished."""
        self.done += count
        if count:
            self.say(f"{counted(count, 'job')} of {self.total} already finished")

    def started(self, name: str) -> None:
        """Reports that a job began."""
        if self._live is None:
            self.say(f"{name}: started")

    def ended(self, name: str, seconds: float, what: str, *, ok: bool) -> None:
        """Reports that a job ended.

        Args:
            name: of the job.
            seconds: its run time.
            what: its result, in words.
            ok: whether it finished.
        """
        if ok:
            self.done += 1
            self.seconds.append(seconds)
        else:
            self.failed += 1
        self._reported = 0.0
        self.say(f"{name}: {what}, {duration(seconds)}")

    def update(self, running: Sequence[Running], waiting: int) -> None:
        """Shows the running jobs.

        Args:
            running: the jobs.
            waiting: how many have not started.
        """
        if not running:
            return
        stages = [job.stage() for job in running]
        head = f"{self.done} of {self.total} jobs done"
        if self.failed:
            head += f", {self.failed} failed"
        left = self._left(running, [epochs for epochs, _ in stages], waiting)
        if left is not None:
            head += f", about {duration(left)} remaining"
        if self._live is None:
            if not self._reported:  # after a job has ended
                self._reported = time.monotonic()
                if self.done + self.failed:
                    self.say(head)
            return
        rows = [
            (
                f"  {job.name}",
                f"epoch {epochs}/{max(epochs, job.epochs)}",
                "" if loss is None else f"loss {loss:.4f}",
                duration(time.monotonic() - job.began),
            )
            for job, (epochs, loss) in list(zip(running, stages, strict=True))[:MOST_ROWS]
        ]
        table = Table.of([Column("", cut=True), Column(""), Column(""), Column("")], rows)
        lines = [Text(head, "bold")]
        lines += [Text.assemble(*spans) for spans in table_lines(table, self._screen.console.width)[1:]]
        if len(running) > MOST_ROWS:
            lines.append(Text(f"  {len(running) - MOST_ROWS} more"))
        self._live.update(Group(*lines))

    def _left(self, running: Sequence[Running], epochs: Sequence[int], waiting: int) -> float | None:
        """Remaining seconds, estimated from the jobs so far; None if no job has a result yet."""
        now = time.monotonic()
        share = [done / max(1, job.epochs) for job, done in zip(running, epochs, strict=True)]
        if self.seconds:
            whole = sum(self.seconds) / len(self.seconds)
        elif min(share) > 0:
            whole = sum((now - job.began) / s for job, s in zip(running, share, strict=True)) / len(
                share
            )
        else:
            return None
        parts = [max(0.0, whole - (now - job.began)) for job in running]
        return (sum(parts) + waiting * whole) / min(self.at_once, len(running) + waiting)
