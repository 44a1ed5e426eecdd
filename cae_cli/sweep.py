"""Many runs: what became of the jobs of a sweep, read from their folders."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cae_cli.errors import UserError
from cae_cli.run import Run


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        folder: its run folder.
        status: running, ok, failed or interrupted.
        reason: why it failed, or None.
        problem: what the diagnosis names first, or None.
        psnr, ssim: of held-out images, None where they were not measured.
        explained: share of the variance explained, or None.
    """

    folder: Path
    status: str
    reason: str | None
    problem: str | None
    psnr: float | None
    ssim: float | None
    explained: float | None


@dataclass(frozen=True)
class Sweep:
    """The jobs of a sweep's folder, by number."""

    folder: Path
    jobs: tuple[Job, ...]

    @property
    def all_ok(self) -> bool:
        """Whether there are jobs and every one of them finished."""
        return bool(self.jobs) and all(job.status == "ok" for job in self.jobs)


def read(folder: Path) -> Sweep:
    """Reads a sweep's folder.

    Args:
        folder: the sweep's; each job has a sub-folder that begins with its number.
    """
    found = [f for f in folder.iterdir() if f.is_dir() and f.name.partition("_")[0].isdigit()]
    found.sort(key=lambda f: int(f.name.partition("_")[0]))
    return Sweep(folder, tuple(_read_job(f) for f in found))


def _read_job(folder: Path) -> Job:
    run = Run(folder)
    status = run.status()
    try:
        summary: dict[str, Any] = run.summary()
    except UserError:
        summary = {}
    quality = summary.get("measures", {}).get("quality", {})
    findings = summary.get("diagnosis", {}).get("findings", [])
    return Job(
        folder=folder,
        status=str(status.get("status", "not started")),
        reason=status.get("reason"),
        problem=findings[0]["problem"] if findings else None,
        psnr=quality.get("psnr", {}).get("value"),
        ssim=quality.get("ssim", {}).get("value"),
        explained=quality.get("explained_variance"),
    )


def show(sweep: Sweep) -> None:
    """Prints a table of the jobs to standard output, the sweep's folder last."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column("job", overflow="fold")
    table.add_column("status", no_wrap=True)
    for title in ("PSNR / dB", "SSIM", "explained"):
        table.add_column(title, justify="right")
    table.add_column("problem", overflow="fold")
    for job in sweep.jobs:
        table.add_row(
            Text(job.folder.name),
            job.status,
            "" if job.psnr is None else f"{job.psnr:.2f}",
            "" if job.ssim is None else f"{job.ssim:.3f}",
            "" if job.explained is None else f"{job.explained:.1%}",
            Text(job.reason or job.problem or "none found" if job.status != "not started" else ""),
        )
    console = Console(file=sys.stdout, highlight=False)
    failed = sum(job.status != "ok" for job in sweep.jobs)
    console.print(f"\n{len(sweep.jobs)} jobs, {failed} not finished" if failed else
                  f"\n{len(sweep.jobs)} jobs, all finished")  # fmt: skip
    console.print(table)
    console.print(Text(str(sweep.folder)), soft_wrap=True)
