"""What a person reads while a run goes on and when it has ended."""

from __future__ import annotations

import io
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cae_cli.diagnosis.finding import Diagnosis, Finding, Severity
from cae_cli.errors import RunFailed, UserError, printable
from cae_cli.measures.causal import Causal
from cae_cli.measures.measured import Measures
from cae_cli.measures.quality import Mean

# Results go to stdout, talk goes to stderr, so that `cae … | less` and `cae … > file` hold results.
TABLE_WIDTH = 76
MARKS = {Severity.ERROR: "✗ error", Severity.WARNING: "! warning", Severity.NOTE: "· note"}
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "cyan"}


def talk() -> Console:
    """A console on standard error."""
    return Console(stderr=True, highlight=False)


def show_error(error: UserError | RunFailed) -> None:
    """One ``error:`` line, where it is, one ``hint:``. Never wrapped, so that it can be copied."""
    console = talk()
    lines = [Text.assemble(("error: ", "bold red"), printable(error.what))]
    where = getattr(error, "where", None)
    if where:
        lines.append(Text(f"  --> {printable(where)}"))
    if error.hint:
        lines.append(Text.assemble(("hint: ", "bold cyan"), printable(error.hint)))
    for line in lines:
        console.print(line, soft_wrap=True)


class Screen:
    """The talk of one run: what it is doing, the progress bar, or lines where there is no terminal."""

    def __init__(self) -> None:
        self.console = talk()
        self.live = self.console.is_terminal
        self._progress: Progress | None = None
        self._task: Any = None
        self._epochs = 0
        self._count = 0
        self._batch = 0
        self._began = 0.0

    def say(self, text: str) -> None:
        """A line of talk."""
        self.console.print(escape(printable(text)), soft_wrap=True)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """A spinner, or a line, while something takes time."""
        if self.live:
            with self.console.status(escape(what)):
                yield
        else:
            self.say(what)
            yield

    @contextmanager
    def training(self, epochs: int, images: int, batch: int) -> Iterator[None]:
        """The progress of a training.

        Args:
            epochs: to be trained.
            images: of an epoch.
            batch: images of a step.
        """
        self._epochs, self._count, self._batch = epochs, images, batch
        self._began = time.perf_counter()
        if not self.live:
            yield
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.console,
            transient=True,
        ) as progress:
            self._progress = progress
            self._task = progress.add_task(
                f"epoch 1/{epochs}", total=epochs * images, speed="", losses=""
            )
            try:
                yield
            finally:
                self._progress = None

    def steps(self, epoch: int, step: int, loss: float) -> None:
        """Some steps were made.

        Args:
            epoch: from 1.
            step: of this epoch.
            loss: of the last step.
        """
        if self._progress is None:
            return
        done = (epoch - 1) * self._count + min(step * self._batch, self._count)
        speed = done / max(1e-9, time.perf_counter() - self._began)
        self._progress.update(
            self._task,
            completed=done,
            description=f"epoch {epoch}/{self._epochs}",
            speed=f"{speed:,.0f} images/s",
            losses=f"loss {loss:.4f}",
        )

    def epoch(self, row: Mapping[str, float], images: int) -> None:
        """An epoch was finished; ``row`` as in metrics.csv."""
        number = int(row["epoch"])
        if number == 0:
            return
        left = (self._epochs - number) * row["seconds"]
        speed = images / max(1e-9, row["seconds"])
        line = (
            f"epoch {number}/{self._epochs}  loss {row['train/loss']:.4f}  "
            f"val {row['val/loss']:.4f}  {row['val/psnr']:.2f} dB  "
            f"SSIM {row['val/ssim']:.3f}  {speed:,.0f} images/s"
        )
        self.say(line if self.live else f"{line}  {_duration(left)} left")


def _duration(seconds: float) -> str:
    seconds = round(seconds)
    return f"{seconds // 60}:{seconds % 60:02d}" if seconds >= 60 else f"{seconds} s"


def show(parts: Sequence[RenderableType]) -> None:
    """Prints results to standard output.

    Sentences and commands are left to the terminal to wrap, so that they can be copied whole.
    """
    console = Console(file=sys.stdout, highlight=False)
    # Tables that do not fit are left to the terminal to wrap: nothing is cut off.
    console.width = max(console.width, TABLE_WIDTH)
    # Written in one piece and by Python: Rich ends the process at a closed pipe.
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, Text))
    sys.stdout.write(captured.get())
    sys.stdout.flush()


def as_text(parts: Sequence[RenderableType]) -> str:
    """Results as plain text of 100 columns."""
    text = io.StringIO()
    console = Console(file=text, width=100, color_system=None, highlight=False)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
    return text.getvalue()


def summary(
    measures: Measures, diagnosis: Diagnosis, held_out: str, command: Sequence[str]
) -> list[RenderableType]:
    """The summary diagnosis.

    Args:
        measures: of the run.
        diagnosis: of the run.
        held_out: which images were measured, "test" or "validation".
        command: words of the command line that make the run again.
    """
    parts: list[RenderableType] = [
        Text(),
        verdict(diagnosis),
        Text(),
        _yardsticks(measures, held_out),
        Text(),
        _layers(measures),
        Text(),
        _causal(measures.causal),
        Text(),
    ]
    for finding in diagnosis.findings:
        parts += [_finding(finding, command), Text()]
    for reason in dict.fromkeys(skipped.reason for skipped in diagnosis.skipped):
        rules = ", ".join(s.code for s in diagnosis.skipped if s.reason == reason)
        parts += [Text(f"· not checked ({reason}): {rules}"), Text()]
    return parts


def verdict(diagnosis: Diagnosis) -> Text:
    """The diagnosis in one line."""
    style = "bold yellow" if diagnosis.undecided else "bold green"
    if diagnosis.worst:
        style = STYLES[diagnosis.worst]
    return Text.assemble(("summary diagnosis: ", "bold"), (diagnosis.verdict, style))


def _yardsticks(measures: Measures, held_out: str) -> Table:
    q = measures.quality
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column(f"{q.images:,} {held_out} images", no_wrap=True)
    table.add_column("PSNR / dB", justify="right")
    table.add_column("SSIM", justify="right")
    table.add_column("MSE", justify="right")
    table.add_column("explained", justify="right")
    table.add_row(
        "this network",
        _with_margin(q.psnr, 2),
        _with_margin(q.ssim, 3),
        f"{q.mse.value:.5f}",
        _share(q.explained_variance),
        style="bold",
    )
    table.add_row("  training images", "", "", "", _share(q.train_explained_variance))
    linear = measures.causal.linear
    if math.isfinite(linear):
        table.add_row("linear decoder", "", "", "", _share(linear))
    table.add_row(
        "mean image",
        f"{q.mean_image_psnr:.2f}",
        f"{q.mean_image_ssim:.3f}",
        f"{q.mean_image_mse:.5f}",
        "0.0%",
    )
    return table


def _share(value: float) -> str:
    return f"{round(value, 3) + 0:.1%}"  # + 0: no negative zero


def _with_margin(mean: Mean, digits: int) -> str:
    known = math.isfinite(mean.margin)
    return f"{mean.value:.{digits}f}" + (f" ± {mean.margin:.{digits}f}" if known else "")


def _layers(measures: Measures) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    for title in ("layer", "filters", "size", "dead", "constant", "moved"):
        table.add_column(title, justify="left" if title == "layer" else "right")
    for layer in measures.layers:
        table.add_row(
            layer.name,
            str(layer.filters),
            "x".join(map(str, layer.kernel)),
            str(layer.maps.dead),
            str(layer.maps.constant),
            f"{layer.displacement:.2f}" if layer.displacement < 1000 else "> 1000",
        )
    return table


def _causal(causal: Causal) -> Text:
    """What the network does with changed codes, pixels and noise."""
    answers = [
        ("another image's code changes the output by", causal.code_shuffle),
        ("scrambled pixels are copied by", causal.pixel_copy),
        ("noise passes by", causal.noise_gain),
    ]
    return Text("; ".join(f"{what} {value:.2f}" for what, value in answers if math.isfinite(value)))


def _finding(finding: Finding, command: Sequence[str]) -> Text:
    text = Text()
    text.append(f"{MARKS[finding.severity]} ", STYLES[finding.severity])
    text.append(f"{finding.code} {finding.problem}", "bold")
    if finding.consequence_of:
        text.append(f" (follows from {finding.consequence_of})")
        return text
    text.append(f"\n    {finding.message}")
    for evidence in finding.evidence:
        text.append(
            f"\n    {evidence.name}: {evidence.value:.3g} "
            f"(threshold {evidence.threshold:.3g}, healthy {evidence.healthy})"
        )
    width = max((len(" ".join(p.overrides)) for p in finding.prescriptions), default=0)
    for number, prescription in enumerate(finding.prescriptions):
        overrides = " ".join(prescription.overrides)
        text.append("\n    or   " if number else "\n    try  ")
        text.append(f"{overrides:<{width}}", "bold")
        text.append(f"  {prescription.why} ({prescription.safety.value})")
    if finding.prescriptions:
        text.append(f"\n    {finding.prescriptions[0].command(command)}", "bold")
    return text


def jobs(rows: Sequence[Sequence[str]], planned: int) -> list[RenderableType]:
    """A table of a sweep's jobs.

    Args:
        rows: (job, status, PSNR, SSIM, explained, problem) of each that began.
        planned: how many there should be.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("job", overflow="fold")
    table.add_column("status", no_wrap=True)
    for title in ("PSNR / dB", "SSIM", "explained"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("problem", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    done = sum(row[1] == "ok" for row in rows)
    count = f"{planned} job{'' if planned == 1 else 's'}"
    outcome = "all finished" if done == planned else f"{planned - done} not finished"
    return [Text(), Text(f"{count}, {outcome}"), table]


def folder(path: Path) -> Text:
    """The run folder, alone on the last line of standard output."""
    return Text(str(path))
