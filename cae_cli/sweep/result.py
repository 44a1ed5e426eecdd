"""A sweep as its folder describes it, and its leaderboard.

Everything is read from the folders of the jobs, so it can be rebuilt at any time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from cae_cli.diagnosis.finding import Severity
from cae_cli.errors import UserError, printable
from cae_cli.report import figures, terminal
from cae_cli.report.figures.contact import MOST_JOBS, Sheet, contact
from cae_cli.report.page import sweep as page
from cae_cli.report.sections import Part
from cae_cli.runs.folder import Run
from cae_cli.runs.sweep_folder import Objective, PlannedJob, SweepFolder
from cae_cli.sweep.jobs import Job, read_job, unplanned
from cae_cli.sweep.leaderboard import Leaderboard, ranking_metric_of, short


@dataclass(frozen=True)
class Sweep:
    """A sweep as its folder describes it.

    Attributes:
        folder: the sweep's.
        swept: keys with several values.
        objective: the optimized metric, None without one.
        jobs: all planned jobs, started or not.
        notes: what is wrong with the folder itself.
    """

    folder: Path
    swept: tuple[str, ...]
    objective: Objective | None
    jobs: tuple[Job, ...]
    notes: tuple[str, ...] = ()

    def reaches(self, severity: Severity) -> bool:
        """Whether a job has a finding at least this severe."""
        return any(Severity(name).rank <= severity.rank for job in self.jobs for name in job.severities)


def read(folder: Path) -> Sweep:
    """Reads the folder of a sweep. A job that is damaged says so in its status.

    Args:
        folder: the sweep's. Without a readable sweep.json the jobs are the runs in it.

    Raises:
        UserError: the folder does not exist or cannot be read.
    """
    path = SweepFolder(folder)
    notes: list[str] = []
    objective: Objective | None = None
    try:
        if not folder.is_dir():
            raise UserError("no such folder", where=folder, hint="name the folder of a sweep")
        planned: Sequence[PlannedJob]
        try:
            file = path.read()
            swept, planned, objective = file.swept, file.jobs, file.optimized_metric
        except UserError as error:
            if path.is_written():
                notes.append(f"{error.what}: the jobs are the runs in the folder")
            swept, planned = unplanned(path.root)
        jobs = tuple(read_job(path.job(job), job, swept) for job in planned)
    except OSError as error:
        raise UserError(f"the folder cannot be read: {error.strerror}", where=folder) from error
    return Sweep(folder, swept, objective, jobs, tuple(notes))


def rebuild(folder: Path) -> list[Part]:
    """Writes the leaderboard, effects.json, contact.png and report.html from the jobs' folders.

    Args:
        folder: the sweep's.

    Returns:
        What to show: how many jobs finished, the leaderboard, and the effects of the swept keys.

    Raises:
        UserError: the folder cannot be read or written.
    """
    return show(read(folder))


def show(sweep: Sweep) -> list[Part]:
    """Does what `rebuild` does with a sweep that was read already."""
    folder = SweepFolder(sweep.folder)
    metric, note = ranking_metric_of(sweep.objective)
    board = Leaderboard(sweep.jobs, sweep.swept, metric)
    notes = [*sweep.notes, *([note] if note else [])]
    shown = [*board.shown(), *map(printable, notes)]
    try:
        table = board.write(folder, notes)
        jobs = board.in_order()
        sheets = [_sheet(job) for job in jobs[:MOST_JOBS]]
        is_drawn = _draw(folder, sheets, max(0, len(jobs) - MOST_JOBS))
        tiles = [_tile(folder, job, sheet) for job, sheet in zip(jobs, sheets, strict=False)]
        page.write(folder.page, folder.folder.name, shown, board.differences(), tiles, table)
    except OSError as error:
        raise UserError(
            f"cannot write the leaderboard: {(error.strerror or str(error)).lower()}",
            where=error.filename2 or error.filename or sweep.folder,
            hint="the jobs are complete: run the same command again to write the leaderboard",
        ) from error
    parts = list(shown)
    if is_drawn:
        parts += ["", terminal.folder(folder.contact)]
    return parts


def _tile(folder: SweepFolder, job: Job, sheet: Sheet) -> page.Tile:
    """A job for the page of the sweep, with a link to its own page."""
    href = ""
    with contextlib.suppress(UserError):  # a file or a link where its folder belongs
        if (folder.root / job.name / "report.html").exists():
            href = quote(f"{job.name}/report.html")
    return page.Tile(sheet.lines, href, sheet.kernel, sheet.images, sheet.outputs)


def _draw(folder: SweepFolder, sheets: Sequence[Sheet], left_out: int) -> bool:
    """Writes contact.png, and returns whether there is anything to draw."""
    with np.errstate(all="ignore"):  # networks that diverged
        picture = contact(sheets, left_out)
    if picture is None:
        folder.contact.unlink()
        return False
    figures.write(picture, folder.contact)
    return True


def _sheet(job: Job) -> Sheet:
    keys = list(job.values)
    name = ", ".join(f"{short(key, keys)}={value}" for key, value in job.values.items()) or job.name
    lines = [printable(name)]
    if job.status != "ok":
        return Sheet((*lines, printable(f"{job.status}: {job.problem}".removesuffix(": "))))
    if "psnr" in job.figures:
        lines.append(f"{job.figures['psnr']:.2f} dB")
    kernel, spread = f"kernel/{job.layer}", f"map_std/{job.layer}"
    run = Run(job.folder)
    with contextlib.suppress(UserError):
        arrays = run.read_arrays(run.arrays, {kernel, spread, "example_images", "example_outputs"})
        images, outputs = (_picture(arrays.get(f"example_{what}")) for what in ("images", "outputs"))
        if images is not None and outputs is not None and images.shape == outputs.shape:
            filters = _ordered(_picture(arrays.get(kernel)), arrays.get(spread))
            return Sheet(tuple(lines), filters, images, outputs)
    return Sheet((*lines, "arrays.npz cannot be read"))


def _picture(values: NDArray[Any] | None) -> NDArray[np.float32] | None:
    """The array if it holds images or filters, (n, h, w, c) of float32, else None."""
    if values is None or values.ndim != 4 or values.dtype != np.float32 or not values.size:
        return None
    return values


def _ordered(
    kernel: NDArray[np.float32] | None, spread: NDArray[Any] | None
) -> NDArray[np.float32] | None:
    """The filters of a kernel, most used first."""
    if kernel is None or spread is None or spread.shape != kernel.shape[3:]:
        return kernel
    if spread.dtype != np.float32:
        return kernel
    return kernel[..., np.argsort(-spread, kind="stable")]
