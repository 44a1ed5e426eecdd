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
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cae_cli.diagnosis import RULES
from cae_cli.diagnosis.finding import Diagnosis, Finding, Severity, Trial
from cae_cli.diagnosis.keras_words import in_keras
from cae_cli.errors import RunFailed, UserError, printable
from cae_cli.metrics.collect import Metrics
from cae_cli.metrics.quality import Mean

# Results go to stdout, talk goes to stderr, so that `cae … | less` and `cae … > file` hold results.
TABLE_WIDTH = 76
UNWRAPPED = 100_000  # columns of what is not a terminal
SHOWN_IN_FULL = 2  # findings, so that a typical summary fits on a screen of 40 lines
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
        self._began = self._epoch_began = 0.0
        self._done = 0

    def say(self, text: str) -> None:
        """A line of talk."""
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
        """A spinner, or a line, while something takes time."""
        if self.live:
            with self.console.status(escape(what)):
                yield
        else:
            self.say(what)
            yield

    @contextmanager
    def training(self, epochs: int, images: int, batch: int, done: int = 0) -> Iterator[None]:
        """The progress of a training.

        Args:
            epochs: to be trained.
            images: of an epoch.
            batch: images of a step.
            done: epochs that an earlier process has trained.
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
            TextColumn("left"),
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
        """Some steps were made.

        Args:
            epoch: from 1.
            step: of this epoch.
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
        """An epoch was finished; ``row`` as in metrics.csv."""
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
        self.say(line if self.live else f"{line}  {duration(left)} left")


def duration(seconds: float) -> str:
    """Seconds in words: "12 s", "3:07"."""
    seconds = round(seconds)
    return f"{seconds // 60}:{seconds % 60:02d}" if seconds >= 60 else f"{seconds} s"


def show(parts: Sequence[RenderableType]) -> None:
    """Prints results to standard output.

    On a terminal sentences are wrapped between words. What is to be copied (`_whole`) is left to the
    terminal to wrap, and in a pipe nothing is wrapped.
    """
    console = Console(file=sys.stdout, highlight=False)
    # Tables that do not fit are left to the terminal to wrap: nothing is cut off.
    console.width = max(console.width, TABLE_WIDTH) if console.is_terminal else UNWRAPPED
    # Written in one piece and by Python: Rich ends the process at a closed pipe.
    with console.capture() as captured:
        _print(console, parts)
    sys.stdout.write(captured.get())
    sys.stdout.flush()


def as_text(parts: Sequence[RenderableType]) -> str:
    """Results as plain text of 100 columns."""
    text = io.StringIO()
    _print(Console(file=text, width=100, color_system=None, highlight=False), parts)
    return text.getvalue()


def _print(console: Console, parts: Sequence[RenderableType]) -> None:
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))


def _whole(text: str, style: str = "") -> Text:
    """A line that is never wrapped, so that it can be copied."""
    return Text(text, style, no_wrap=True)


def _indented(text: RenderableType) -> Padding:
    """A sentence below a heading."""
    return Padding(text, (0, 0, 0, 4), expand=False)


def summary(
    metrics: Metrics,
    diagnosis: Diagnosis,
    held_out: str,
    command: Sequence[str],
    *,
    verbose: bool = False,
) -> list[RenderableType]:
    """The summary diagnosis.

    Args:
        metrics: of the run.
        diagnosis: of the run.
        held_out: which images were measured, "test" or "validation".
        command: words of the command line that make the run again; none for a model that this tool
            did not train.
        verbose: every number, every finding in full, names in the place of codes.
    """
    parts: list[RenderableType] = [
        Text(),
        verdict(diagnosis),
        _score(metrics),
        Text(),
        _yardsticks(metrics, held_out, verbose=verbose),
        Text(),
        _layers(metrics),
        _answers(metrics, verbose=verbose),
        Text(),
    ]
    return parts + findings(diagnosis, command, verbose=verbose)


def findings(
    diagnosis: Diagnosis,
    command: Sequence[str],
    *,
    verbose: bool = False,
    all_in_full: bool = False,
) -> list[RenderableType]:
    """What was found, and what could not be looked at; arguments as for `summary`.

    Args:
        diagnosis: with the findings.
        command: as for `summary`.
        verbose: as for `summary`.
        all_in_full: every finding that is no consequence.
    """
    parts: list[RenderableType] = []
    full = 0
    for finding in diagnosis.findings:
        if finding.consequence_of and not verbose:
            continue  # named with its cause
        full += 1
        parts += _finding(
            finding, command, in_full=verbose or all_in_full or full <= SHOWN_IN_FULL, verbose=verbose
        )
        follow = [f.code for f in diagnosis.findings if f.consequence_of == finding.code]
        if follow and not verbose:
            parts.append(_indented(f"consequences: {', '.join(follow)}"))
    if diagnosis.findings:
        parts.append(Text())
    if diagnosis.trials:
        parts += [_trials(diagnosis.trials), Text()]
    reasons = dict.fromkeys(skipped.reason for skipped in diagnosis.skipped)
    for reason in reasons:
        rules = ", ".join(_named(s.code, verbose) for s in diagnosis.skipped if s.reason == reason)
        parts.append(Text(f"· not checked ({reason}): {rules}"))
    if diagnosis.disabled:
        parts.append(Text(f"· disabled: {', '.join(diagnosis.disabled)}"))
    if verbose:
        parts.append(
            Text(f"· looked at and not found: {', '.join(_named(c, True) for c in diagnosis.passed)}")
        )
    if reasons or diagnosis.disabled or verbose:
        parts.append(Text())
    return parts


def _trials(trials: Sequence[Trial]) -> Table:
    """What short trainings came to."""
    table = _table()
    for title in ("short trainings, one change each", "explained", "gain", ""):
        table.add_column(title, justify="right" if title in ("explained", "gain") else "left")
    for trial in trials:
        diverged = math.isnan(trial.explained)
        table.add_row(
            Text(" ".join(trial.overrides) or trial.why),
            "diverged" if diverged else _share(trial.explained),
            "" if math.isnan(trial.gain) or not trial.overrides else f"{trial.gain:+.1%}",
            "helps" if trial.helps else "",
        )
    return table


def _named(code: str, verbose: bool) -> str:
    """A rule by its code, or by its code and problem."""
    if not verbose:
        return code
    return next((f"{code} {rule.problem}" for rule in RULES if rule.code == code), code)


def verdict(diagnosis: Diagnosis) -> Text:
    """The diagnosis in one line."""
    style = "bold yellow" if diagnosis.undecided else "bold green"
    if diagnosis.worst:
        style = STYLES[diagnosis.worst]
    return Text.assemble(("summary diagnosis: ", "bold"), (diagnosis.verdict, style))


def _score(metrics: Metrics) -> Text:
    score = metrics.score
    if math.isnan(score.value):
        return Text("meaningful: not measured")
    baseline = "" if metrics.frozen is None else " beyond random filters"
    return Text(
        f"meaningful {score.value:.2f} = learned{baseline} {score.learned:.2f} x used {score.used:.2f} "
        f"x alive {score.alive:.2f} x not copied {score.selective:.2f}"
    )


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)


def _yardsticks(metrics: Metrics, held_out: str, *, verbose: bool) -> Table:
    """The ladder: the network between what needs none and what could be reached."""
    q, perturbation = metrics.quality, metrics.perturbation
    table = _table()
    table.add_column(f"{q.images:,} {held_out} images", no_wrap=True)
    for title in ("PSNR / dB", "SSIM", "MSE", "explained"):
        table.add_column(title, justify="right")

    def baseline(name: str, explained: float | None) -> None:
        if explained is not None and math.isfinite(explained):
            table.add_row(name, "", "", "", _share(explained))

    baseline(f"principal components ({metrics.network.latent_values:,})", perturbation.projection)
    table.add_row(
        "this network",
        _with_margin(q.psnr, 2),
        _with_margin(q.ssim, 3),
        f"{q.mse.value:.5f}",
        _share(q.explained_variance),
        style="bold",
    )
    table.add_row("  training images", "", "", "", _share(q.train_explained_variance))
    baseline("frozen random encoder", metrics.frozen)
    baseline("linear decoder", perturbation.linear)
    table.add_row(
        "mean image",
        f"{q.mean_image_psnr:.2f}",
        f"{q.mean_image_ssim:.3f}",
        f"{q.mean_image_mse:.5f}",
        "0.0%",
    )
    if verbose:
        baseline("mean code", perturbation.mean_latent)
        baseline("code of zeros", perturbation.zero_latent)
        baseline("flat grey image", perturbation.grey)
    baseline("black image", 1 - q.black_mse / q.mean_image_mse if q.mean_image_mse else None)
    return table


def _share(value: float) -> str:
    return f"{round(value, 3) + 0:.1%}"  # + 0: no negative zero


def _with_margin(mean: Mean, digits: int) -> str:
    known = math.isfinite(mean.margin)
    return f"{mean.value:.{digits}f}" + (f" ± {mean.margin:.{digits}f}" if known else "")


def _layers(metrics: Metrics) -> Table:
    table = _table()
    columns = (
        "layer",
        "filters",
        "size",
        "dead",
        "constant",
        "duplicates",
        "prunable",
        "weight change",
        "p",
    )
    for title in columns:
        table.add_column(title, justify="left" if title == "layer" else "right")
    for layer in metrics.layers:
        table.add_row(
            layer.name,
            str(layer.filters),
            "x".join(map(str, layer.kernel)),
            str(layer.maps.dead),
            str(layer.maps.constant),
            str(layer.duplicates),
            "" if math.isnan(layer.prunable) else f"{layer.prunable:.0%}",
            _moved(layer.weight_change),
            "" if math.isnan(layer.p_value) else f"{layer.p_value:.2f}",
        )
    return table


def _moved(weight_change: float) -> str:
    if math.isnan(weight_change):
        return ""
    return f"{weight_change:.2f}" if weight_change < 1000 else "> 1000"


def _answers(metrics: Metrics, *, verbose: bool) -> Text:
    """What the network does with changed codes, pixels and noise, and what else was measured."""
    perturbation, dynamics, spectrum = metrics.perturbation, metrics.dynamics, metrics.spectrum
    answers = [
        ("another image's code changes the output by", perturbation.latent_swap),
        ("scrambled pixels are copied by", perturbation.pixel_copy),
        ("noise passes by", perturbation.noise_gain),
    ]
    lines = [_numbers(answers)]
    if verbose and math.isfinite(metrics.labels.trained):
        lines.append(
            _numbers(
                [
                    ("labels read from the code", metrics.labels.trained),
                    ("from that of the untrained encoder", metrics.labels.initial),
                ]
            )
        )
    if verbose:
        lines += [
            _numbers(
                [
                    ("fine detail: power", spectrum.power),
                    ("coherence", spectrum.coherence),
                    ("sharpening_gain", spectrum.sharpening_gain),
                    ("sharpness", spectrum.sharpness),
                    ("checkerboard", spectrum.checkerboard),
                ]
            ),
            _numbers(
                [
                    ("code: values", float(metrics.latent.values)),
                    ("effective rank", metrics.latent.effective_rank),
                    ("participation", metrics.latent.participation),
                    ("dead", metrics.latent.dead),
                    ("random", perturbation.repeat),
                ]
            ),
            _numbers(
                [
                    ("steps: first update ratios", dynamics.early_update),
                    ("last", dynamics.last_update),
                    ("penalty share", dynamics.penalty_share),
                    ("fall at the end", dynamics.slope),
                    ("first gradient over last", dynamics.gradient_ratio),
                ]
            ),
            _numbers(
                [
                    ("images: black explains", metrics.dataset.black),
                    ("neighbours correlate by", metrics.dataset.correlation),
                    ("distinct", metrics.dataset.distinct),
                    ("repeated", metrics.dataset.repeated),
                ]
            ),
            "p: of a layer's structure among re-initialised filters from its initializer; looks alone prove nothing",
        ]
    return Text("\n".join(line for line in lines if line))


def _numbers(pairs: Sequence[tuple[str, float]]) -> str:
    return "; ".join(f"{what} {value:.3g}" for what, value in pairs if math.isfinite(value))


def _finding(
    finding: Finding, command: Sequence[str], *, in_full: bool, verbose: bool
) -> Iterator[RenderableType]:
    head = Text.assemble(
        (f"{MARKS[finding.severity]} ", STYLES[finding.severity]),
        (f"{finding.code} {finding.problem}", "bold"),
    )
    if finding.consequence_of:
        head.append(f" (follows from {finding.consequence_of})")
    if not in_full:
        yield head
        return
    yield head.append(f" ({finding.confidence.value} confidence)")
    yield _indented(finding.message)
    for evidence in finding.evidence if verbose else finding.evidence[:1]:
        look = f"; see {finding.picture}" if finding.picture and evidence is finding.evidence[0] else ""
        yield _indented(
            f"{evidence.name}: {evidence.value:.3g} "
            f"(threshold {evidence.threshold:.3g}, healthy {evidence.healthy_words}){look}"
        )
    # Whoever has a script of his own is told in its words.
    ways = [(" ".join(p.overrides) if command else in_keras(p), p) for p in finding.fixes]
    if ways:
        table = _table()
        for words, fix in ways:
            table.add_row(
                "or" if table.row_count else "try",
                Text(words, "bold"),
                f"{fix.why} ({fix.safety.value})",
            )
        table.show_header = False
        yield _indented(table)
    if finding.advice and (verbose or not finding.fixes):
        yield _indented(finding.advice)
    if finding.fixes and command:
        yield _whole(f"    {finding.fixes[0].command(command)}", "bold")
    for what, others in (("ruled out", finding.ruled_out), ("not ruled out", finding.open)):
        if others:
            yield _indented(f"{what}: {', '.join(_named(code, verbose) for code in others)}")


def folder(path: Path) -> Text:
    """The run folder, alone on the last line of standard output."""
    return _whole(str(path))
