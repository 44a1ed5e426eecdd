"""The terminal: messages and progress on standard error, results on standard output."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from cae_cli.diagnosis.finding import Diagnosis, Severity
from cae_cli.errors import RunFailed, UserError, printable, visible
from cae_cli.report.numbers import duration
from cae_cli.report.sections import Command, Line, Part, Section, Table, line, table_lines
from cae_cli.runs.folder import Run
from cae_cli.system.guarded import GuardedPath

# Results go to stdout, messages go to stderr, so that `cae … | less` and `cae … > file` hold results.
LONGEST = 1000  # characters of an error, which may quote any value
UNWRAPPED = 100_000  # columns of what is not a terminal


def stderr_console() -> Console:
    """A console on standard error."""
    return _console(stderr=True)


def _console(**options: Any) -> Console:
    """A console; in a notebook plain text, because a cursor does not move there and calls are blocks."""
    console = Console(highlight=False, **options)
    if console.is_jupyter:
        return Console(highlight=False, force_jupyter=False, force_terminal=False, **options)
    return console


def show_error(error: UserError | RunFailed) -> None:
    """One ``error:`` line, where it is, one ``hint:``. Never wrapped, so that it can be copied."""
    console = stderr_console()
    what = error.what if len(error.what) <= LONGEST else f"{error.what[:LONGEST]}…"
    lines = [Text.assemble(("error: ", "bold red"), printable(what))]
    where = getattr(error, "where", None)
    if where:
        lines.append(Text(f"  --> {printable(where)}"))
    if error.hint:
        lines.append(Text.assemble(("hint: ", "bold cyan"), printable(error.hint)))
    for text in lines:
        console.print(text, soft_wrap=True)


class Screen:
    """Messages and progress of a run: a progress bar on a terminal, else a line for each event.

    Args:
        silent: show nothing.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self.console = stderr_console()
        self.console.quiet = silent
        self.live = self.console.is_terminal and not silent
        self._progress: Progress | None = None
        self._task: Any = None
        self._epochs = 0
        self._count = 0
        self._batch = 0
        self._began = self._epoch_began = 0.0
        self._done = 0

    def say(self, text: str) -> None:
        """Prints a message."""
        self.console.print(escape(printable(text)), soft_wrap=True)

    def warn(self, forecast: Diagnosis) -> None:
        """What is likely to go wrong, before it does."""
        for finding in forecast.findings:
            if finding.severity is not Severity.NOTE and finding.consequence_of is None:
                ways = " or ".join(" ".join(p.overrides) for p in finding.fixes[:2])
                self.say(
                    f"! {finding.code} {finding.problem}: {finding.message}"
                    + (f"; try {ways}" if ways else "")
                )

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Shows a spinner, or prints a line, while the block runs."""
        if self.live:
            with self.console.status(escape(what)):
                yield
        else:
            self.say(what)
            yield

    @contextmanager
    def passing(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Shows the progress over ``total`` images, or prints a line, while the block runs.

        Yields:
            a function that is told how many are done.
        """
        if not self.live:
            self.say(f"{what} …")
            yield lambda done: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True) as progress:
            task = progress.add_task(escape(what), total=total)
            yield lambda done: progress.update(task, completed=done)

    @contextmanager
    def training(self, epochs: int, images: int, batch: int, done: int = 0) -> Iterator[None]:
        """Shows the progress of a training while the block runs.

        Args:
            epochs: number of epochs.
            images: number of images in an epoch.
            batch: number of images in a step.
            done: epochs that an earlier process trained.
        """
        self._epochs, self._count, self._batch, self._done = epochs, images, batch, done
        self._began = self._epoch_began = time.perf_counter()
        if not self.live:
            yield
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("remaining"),
            console=self.console,
            transient=True,
        ) as progress:
            self._progress = progress
            self._task = progress.add_task(
                f"epoch {done + 1}/{epochs}",
                total=epochs * images,
                completed=done * images,
                speed="",
                losses="",
            )
            try:
                yield
            finally:
                self._progress = None

    def steps(self, epoch: int, step: int, loss: float) -> None:
        """Updates the progress bar.

        Args:
            epoch: from 1.
            step: within this epoch.
            loss: of the last step.
        """
        if self._progress is None:
            return
        done = (epoch - 1) * self._count + min(step * self._batch, self._count)
        speed = (done - self._done * self._count) / max(1e-9, time.perf_counter() - self._began)
        self._progress.update(
            self._task,
            completed=done,
            description=f"epoch {epoch}/{self._epochs}",
            speed=f"{speed:,.0f} images/s",
            losses=f"loss {loss:.4f}",
        )

    def epoch(self, row: Mapping[str, float], images: int) -> None:
        """Prints the result of an epoch; ``row`` as in metrics.csv."""
        number = int(row["epoch"])
        seconds = time.perf_counter() - self._epoch_began
        self._epoch_began += seconds
        if number == 0:
            return
        left = (self._epochs - number) * seconds
        speed = images / max(1e-9, seconds)
        line = (
            f"epoch {number}/{self._epochs}  loss {row['train/loss']:.4f}  "
            f"val {row['val/loss']:.4f}  {row['val/psnr']:.2f} dB  "
            f"SSIM {row['val/ssim']:.3f}  {speed:,.0f} images/s"
        )
        self.say(line if self.live else f"{line}  {duration(left)} remaining")


def show(parts: Sequence[Part]) -> None:
    """Prints results to standard output.

    On a terminal sentences are wrapped between words and tables are fitted. What is to be copied is
    left to the terminal to wrap, and in a pipe nothing is wrapped or shortened.
    """
    console = _console(file=sys.stdout)
    room = console.width if console.is_terminal else None
    console.width = room or UNWRAPPED
    _print(console, parts, room)


def as_text(parts: Sequence[Part], width: int = 100) -> str:
    """Results as plain text of so many columns."""
    text = io.StringIO()
    _print(_console(file=text, width=width, color_system=None), parts, width)
    return text.getvalue()


def results(run: Run) -> None:
    """Where a run is: its page on standard error, its folder alone on standard output."""
    if run.page.exists():
        Screen().say(f"to look at it, open {run.page.shown}")
    show([folder(run.folder)])


def folder(path: Path | GuardedPath) -> Line:
    """The run folder, alone on the last line of standard output."""
    return line(str(path), whole=True)


def _print(console: Console, parts: Sequence[Part], room: int | None) -> None:
    for part in parts:
        match part:
            case str():
                _print(console, [line(part)], room)
            case Line():
                is_exact = part.whole and not console.is_terminal  # a path that a script reads
                spans = [(text if is_exact else visible(text), style) for text, style in part.spans]
                text = Text.assemble(*spans)
                wrapped = [text] if part.whole else text.wrap(console, console.width - part.indent)
                for row in wrapped:
                    row.rstrip()
                    console.print(Text(" " * part.indent) + row, soft_wrap=True)
            case Table():
                for spans in table_lines(part, room):
                    console.print(Text.assemble(*spans), soft_wrap=True)
            case Command():
                console.print(Text(" " * part.indent + visible(part.text), "bold"), soft_wrap=True)
            case Section():
                console.print(Text(visible(part.title), "bold"))
                _print(console, part.parts, room)
