"""The folder of a sweep: the only file that knows its file names, and what sweep.json holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cae_cli.errors import UserError
from cae_cli.runs.folder import read_json, write_json
from cae_cli.system.files import writing

SCHEMA_VERSION = 1  # of sweep.json, leaderboard.json and effects.json

STATUSES = ("running", "ok", "failed", "interrupted")
GOALS = ("max", "min")


@dataclass(frozen=True)
class PlannedJob:
    """A job that the sweep has, begun or not.

    Attributes:
        folder: name of its folder in that of the sweep.
        overrides: what it is called with beyond what all jobs share.
    """

    folder: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """What the sweep is made for.

    Attributes:
        name: of a measure, ``val/psnr``.
        goal: max or min.
    """

    name: str
    goal: str


@dataclass(frozen=True)
class SweepFile:
    """sweep.json: what was asked for.

    Attributes:
        command: words of ``cae train -m …``.
        swept: keys that have several values, in the order of the command line.
        status: running, ok, failed or interrupted.
        optimized_metric: None unless a sweeper looks for the best of it.
        jobs: in the order of the grid.
    """

    command: tuple[str, ...]
    swept: tuple[str, ...]
    status: str
    optimized_metric: Target | None
    jobs: tuple[PlannedJob, ...]


class SweepFolder:
    """A sweep's folder and the files in it.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "sweep.json"
        self.table = folder / "leaderboard.csv"
        self.leaderboard = folder / "leaderboard.json"
        self.effects = folder / "effects.json"
        self.contact = folder / "contact.png"

    def job(self, planned: PlannedJob) -> Path:
        """The run folder of a job."""
        return self.folder / planned.folder

    def is_written(self) -> bool:
        """Whether there is a sweep.json, whole or not."""
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
        content = read_json(self.file)
        schema = content.get("schema")
        if isinstance(schema, int) and schema > SCHEMA_VERSION:
            raise UserError(
                f"{self.file.name} was written by a newer version of cae",
                where=self.file,
                hint="update cae",
            )
        try:
            if schema != SCHEMA_VERSION:
                raise ValueError
            return _parsed(content)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.file.name} is not a file of cae", where=self.file, hint="is it a sweep's?"
            ) from error


def _parsed(content: Mapping[str, Any]) -> SweepFile:
    """The file of a sweep; raises KeyError, TypeError or ValueError for anything else."""
    target = content["optimized_metric"]
    if target is not None:
        target = Target(_text(target["name"]), _one_of(GOALS, target["goal"]))
    jobs = tuple(
        PlannedJob(_folder_name(job["folder"]), _texts(job["overrides"])) for job in content["jobs"]
    )
    if len({job.folder for job in jobs}) < len(jobs):
        raise ValueError("two jobs have the same folder")
    return SweepFile(
        command=_texts(content["command"]),
        swept=_texts(content["swept"]),
        status=_one_of(STATUSES, content["status"]),
        optimized_metric=target,
        jobs=jobs,
    )


def _folder_name(value: Any) -> str:
    """A name that is no way out of the sweep's folder."""
    name = _text(value)
    if name != Path(name).name or not name.strip(".") or "\0" in name:
        raise ValueError(f"{name!r} is no name of a folder")
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return tuple(map(_text, value))


def _one_of(allowed: tuple[str, ...], value: Any) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {', '.join(allowed)}")
    return str(value)
