"""The folder of a sweep: the only module that knows its file names and the content of sweep.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cae_cli.runs.json_files import foreign, read_versioned, write_json
from cae_cli.system.files import writing
from cae_cli.system.guarded import GuardedPath, guard, is_name

SCHEMA_VERSION = 1  # of sweep.json, leaderboard.json and effects.json

STATUSES = ("running", "ok", "failed", "interrupted")
GOALS = ("max", "min")


@dataclass(frozen=True)
class PlannedJob:
    """A job of a sweep, started or not.

    Attributes:
        folder: name of its folder within that of the sweep.
        overrides: the values of the swept keys.
    """

    folder: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Objective:
    """The metric that a sweep optimizes.

    Attributes:
        name: ``val/psnr``.
        goal: max or min.
    """

    name: str
    goal: str


@dataclass(frozen=True)
class SweepFile:
    """The content of sweep.json.

    Attributes:
        command: the arguments of ``cae train -m …``.
        swept: keys that have several values, in the order of the command line.
        status: running, ok, failed or interrupted.
        optimized_metric: None without one.
        jobs: in the order of the grid.
    """

    command: tuple[str, ...]
    swept: tuple[str, ...]
    status: str
    optimized_metric: Objective | None
    jobs: tuple[PlannedJob, ...]


class SweepFolder:
    """A sweep's folder and the files in it.

    Args:
        folder: an existing folder.

    Attributes:
        root: the folder, guarded.
        folder: its path, to be shown.
    """

    def __init__(self, folder: Path | GuardedPath) -> None:
        self.root = guard(folder)
        self.folder = self.root.shown
        self.file = self.root / "sweep.json"
        self.table = self.root / "leaderboard.csv"
        self.leaderboard = self.root / "leaderboard.json"
        self.effects = self.root / "effects.json"
        self.contact = self.root / "contact.png"
        self.page = self.root / "report.html"
        self.log = self.root / "launcher.log"
        self.losses = self.root / "sweep.log"

    def job(self, planned: PlannedJob) -> GuardedPath:
        """The run folder of a job."""
        return self.root / planned.folder

    def is_written(self) -> bool:
        """Whether there is a sweep.json, readable or not."""
        return self.file.exists()

    def write(self, content: SweepFile) -> None:
        """Writes sweep.json.

        Raises:
            UserError: it cannot be written.
        """
        with writing(self.folder):
            write_json(self.file, {"schema": SCHEMA_VERSION, **vars(content)})

    def read(self) -> SweepFile:
        """What `write` wrote.

        Raises:
            UserError: it is missing, damaged, of a newer version, or names folders elsewhere.
        """
        try:
            return _parsed(read_versioned(self.file, SCHEMA_VERSION))
        except (KeyError, TypeError, ValueError) as error:
            raise foreign(self.file) from error


def _parsed(content: Mapping[str, Any]) -> SweepFile:
    """The content of sweep.json; raises KeyError, TypeError or ValueError for anything else."""
    objective = content["optimized_metric"]
    if objective is not None:
        objective = Objective(_text(objective["name"]), _one_of(GOALS, objective["goal"]))
    jobs = tuple(
        PlannedJob(_folder_name(job["folder"]), _texts(job["overrides"])) for job in content["jobs"]
    )
    if len({job.folder for job in jobs}) < len(jobs):
        raise ValueError("two jobs have the same folder")
    return SweepFile(
        command=_texts(content["command"]),
        swept=_texts(content["swept"]),
        status=_one_of(STATUSES, content["status"]),
        optimized_metric=objective,
        jobs=jobs,
    )


def _folder_name(value: Any) -> str:
    """A name that stays within the folder of the sweep."""
    name = _text(value)
    if not is_name(name):
        raise ValueError(f"{name!r} is not the name of a folder")
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return tuple(map(_text, value))


def _one_of(allowed: tuple[str, ...], value: Any) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return str(value)
