"""Many runs: what became of the jobs of a sweep, read from their folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cae_cli.diagnosis.finding import Severity
from cae_cli.errors import UserError
from cae_cli.run import Run


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        folder: its run folder.
        status: running, ok, failed or interrupted.
        problem: what the diagnosis names first, else why the job failed.
        psnr, ssim: of held-out images, None where they were not measured.
        explained: share of the variance explained, or None.
        severities: of its findings.
    """

    folder: Path
    status: str
    problem: str
    psnr: float | None
    ssim: float | None
    explained: float | None
    severities: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Sweep:
    """The jobs of a sweep's folder, by number, and how many there should be."""

    folder: Path
    jobs: tuple[Job, ...]
    planned: int

    @property
    def all_ok(self) -> bool:
        """Whether every job began and finished."""
        return sum(job.status == "ok" for job in self.jobs) == self.planned

    def reaches(self, severity: Severity) -> bool:
        """Whether a job has a finding at least this severe."""
        found = {Severity(name) for job in self.jobs for name in job.severities}
        return any(other.rank <= severity.rank for other in found)

    def rows(self) -> list[tuple[str, ...]]:
        """(job, status, PSNR, SSIM, explained, problem) of each job that began, as text."""
        return [
            (
                job.folder.name,
                job.status,
                "" if job.psnr is None else f"{job.psnr:.2f}",
                "" if job.ssim is None else f"{job.ssim:.3f}",
                "" if job.explained is None else f"{job.explained:.1%}",
                job.problem,
            )
            for job in self.jobs
        ]


def read(folder: Path, planned: int) -> Sweep:
    """Reads a sweep's folder.

    Args:
        folder: the sweep's; each job has a sub-folder that begins with its number.
        planned: how many jobs the sweep has.
    """
    found = [f for f in folder.iterdir() if f.is_dir() and f.name.partition("_")[0].isdigit()]
    found.sort(key=lambda f: int(f.name.partition("_")[0]))
    return Sweep(folder, tuple(_read_job(f) for f in found), planned)


def _read_job(folder: Path) -> Job:
    run = Run(folder)
    try:
        status = run.status()
    except UserError as error:
        status = {"status": "unreadable", "reason": error.what}
    try:
        summary: dict[str, Any] = run.summary()
    except UserError:
        summary = {}
    quality = summary.get("measures", {}).get("quality", {})
    diagnosis = summary.get("diagnosis", {})
    findings = [f for f in diagnosis.get("findings", []) if f["severity"] != "note"]
    if findings:
        problem = findings[0]["problem"]
    elif diagnosis:
        problem = "cannot tell" if diagnosis.get("undecided") else "none found"
    else:
        problem = status.get("reason") or ""
    return Job(
        folder=folder,
        status=str(status.get("status", "not started")),
        problem=problem,
        psnr=quality.get("psnr", {}).get("value"),
        ssim=quality.get("ssim", {}).get("value"),
        explained=quality.get("explained_variance"),
        severities=frozenset(f["severity"] for f in diagnosis.get("findings", [])),
    )
