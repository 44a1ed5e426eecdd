"""What a person sees of a sweep while it goes on: a table on a terminal, else a line for each event."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cae_cli.errors import printable
from cae_cli.report import terminal
from cae_cli.runs.reader import Entry

MOST_ROWS = 16  # of running jobs on a terminal


@dataclass(frozen=True)
class Running:
    """A job at work.

    Attributes:
        name: of its folder.
        epochs: that it is to be trained.
        began: when it was started, by `time.monotonic`.
        folder: its run's.
    """

    name: str
    epochs: int
    began: float
    folder: Path

    def stage(self) -> tuple[int, float | None]:
        """Epochs that are trained, and the loss of the last one."""
        return Entry(self.folder).trained()


class Progress:
    """The progress of a sweep, on standard error.

    Args:
        total: jobs, those that are finished already too.
        at_once: how many run side by side.
    """

    def __init__(self, total: int, at_once: int) -> None:
        self.total, self.at_once = total, at_once
        self.done = self.failed = 0
        self.seconds: list[float] = []  # of jobs that were run to their end here
        self._screen = terminal.Screen()
        self._live: Live | None = None
        self._reported = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows it for the length of the block."""
        if not self._screen.live:
            yield
            return
        with Live(console=self._screen.console, transient=True, refresh_per_second=4) as self._live:
            yield
        self._live = None

    def say(self, text: str) -> None:
        """A line that stays."""
        self._screen.say(text)

    def skipped(self, count: int) -> None:
        """Some jobs were finished by an earlier call."""
        self.done += count
        if count:
            self.say(f"{_jobs(count)} of {self.total} finished already")

    def started(self, name: str) -> None:
        """A job began."""
        if self._live is None:
            self.say(f"{name}: started")

    def ended(self, name: str, seconds: float, what: str, *, ok: bool) -> None:
        """A job ended.

        Args:
            name: of the job.
            seconds: it took.
            what: came of it, in words.
            ok: it reached its end.
        """
        if ok:
            self.done += 1
            self.seconds.append(seconds)
        else:
            self.failed += 1
        self._reported = 0.0
        self.say(f"{name}: {what}, {terminal.duration(seconds)}")

    def update(self, running: Sequence[Running], waiting: int) -> None:
        """Shows what runs.

        Args:
            running: jobs at work.
            waiting: how many have not begun.
        """
        if not running:
            return
        stages = [job.stage() for job in running]
        head = f"{self.done} of {self.total} jobs done"
        if self.failed:
            head += f", {self.failed} failed"
        left = self._left(running, [epochs for epochs, _ in stages], waiting)
        if left is not None:
            head += f", {terminal.duration(left)} left"
        if self._live is None:
            if not self._reported:  # after a job has ended
                self._reported = time.monotonic()
                if self.done + self.failed:
                    self.say(head)
            return
        table = Table.grid(padding=(0, 2, 0, 0))
        for job, (epochs, loss) in list(zip(running, stages, strict=True))[:MOST_ROWS]:
            table.add_row(
                Text(f"  {printable(job.name)}"),
                f"epoch {epochs}/{job.epochs}",
                "" if loss is None else f"loss {loss:.4f}",
                terminal.duration(time.monotonic() - job.began),
            )
        if len(running) > MOST_ROWS:
            table.add_row(f"  and {len(running) - MOST_ROWS} more")
        self._live.update(Group(Text(head, "bold"), table))

    def _left(self, running: Sequence[Running], epochs: Sequence[int], waiting: int) -> float | None:
        """Seconds left, by the jobs so far; None as long as nobody can know."""
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


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"
