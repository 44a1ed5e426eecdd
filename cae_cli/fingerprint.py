"""What a job's result depends on, and the folder that it therefore gets.

The same options, images and code give the same bits. A job that is finished with these is not run
again; one that was cut short goes on; one whose fingerprint differs gets a folder beside the old one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from cae_cli import config
from cae_cli.config import Config
from cae_cli.data import DataOptions
from cae_cli.durable import make, writing
from cae_cli.errors import UserError
from cae_cli.run import Run, plain, read_json, surroundings, write_json

FILE = "fingerprint.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of what a result depends on.

    Attributes:
        config: the checked options.
        data: names, sizes and times of the files with the images.
        code: versions of this package and of others, and the commit where there is one.
    """

    config: str
    data: str
    code: str

    @classmethod
    def of(cls, options: Config) -> Fingerprint:
        """The fingerprint that a run with these options would have now."""
        return cls(_options(config.plain(options)), _hash(_signature(options.data)), _code())

    @classmethod
    def read(cls, run: Run) -> Fingerprint | None:
        """What `write` wrote; None where there is nothing that can be read.

        The options are those of the run itself where it got so far: ``cae resume`` may have trained
        it for longer.
        """
        try:
            content = read_json(run.folder / FILE)
            known = cls(**{f.name: str(content[f.name]) for f in fields(cls)})
            return replace(known, config=_options(run.setup()["config"])) if run.is_set_up() else known
        except (UserError, KeyError):
            return None

    def write(self, run: Run) -> None:
        """Writes it beside the run."""
        with writing(run.folder):
            write_json(run.folder / FILE, {"schema": SCHEMA_VERSION, **asdict(self)})

    def change(self, now: Fingerprint) -> str:
        """What is not what it was, in words."""
        words = {
            "config": "the options have",
            "data": "the files of the data have",
            "code": "the code has",
        }
        changed = [words[f.name] for f in fields(self) if getattr(self, f.name) != getattr(now, f.name)]
        return f"{' and '.join(changed)} changed"


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()[:32]


def _options(content: Mapping[str, Any]) -> str:
    """A hash of a config without what changes no result."""
    return _hash({key: value for key, value in content.items() if key != "optimized_metric"})


@functools.lru_cache(256)
def _signature(data: DataOptions) -> str:
    """Of thousands of files once for all jobs of a sweep."""
    return data.signature()


@functools.cache
def _code() -> str:
    around: Mapping[str, Any] = surroundings()
    checkout = Path(__file__).parents[1]
    # Of an installed package surroundings() tells the commit of the current folder, which is no code.
    git = around["git"] if (checkout / ".git").exists() else None
    return _hash({"git": git, "packages": around["packages"]})


@dataclass(frozen=True)
class Place:
    """Where a job goes.

    Attributes:
        run: its folder.
        finished: the result is there already.
        busy: another process is at work there.
        note: why it is not the folder that was there, or None.
    """

    run: Run
    finished: bool = False
    busy: bool = False
    note: str | None = None


def place(folder: Path, fingerprint: Fingerprint) -> Place:
    """Finds or makes the folder of a job.

    What failed is set aside and begins again; a run that was cut short is left as it is, to go on.

    Args:
        folder: the one to have; with -2, -3 … behind it where there is another job's result.
        fingerprint: of the job.

    Raises:
        UserError: the folder cannot be made.
    """
    note = None
    number = 1
    while True:
        run = Run(folder if number == 1 else folder.with_name(f"{folder.name}-{number}"))
        if make(run.folder):
            break
        known = Fingerprint.read(run)
        if known == fingerprint:
            return _known(run, fingerprint, note)
        if known is None:
            note = f"{run.folder.name} holds something else"
        else:
            note = f"{known.change(fingerprint)} since {run.folder.name}"
        number += 1
    fingerprint.write(run)
    return Place(run, note=note)


def _known(run: Run, fingerprint: Fingerprint, note: str | None) -> Place:
    try:
        status = run.status().get("status")
    except UserError:
        status = "failed"
    if status in ("ok", "running"):
        return Place(run, finished=status == "ok", busy=status == "running", note=note)
    if status == "failed":
        set_aside(run)
    elif status and not run.is_set_up():  # nothing happened that is worth a folder
        shutil.rmtree(run.folder)
    if make(run.folder):
        fingerprint.write(run)
    return Place(run, note=note)


def set_aside(run: Run) -> Path:
    """Renames the folder of a run that failed; its new name."""
    number = 1
    while (other := run.folder.with_name(f"{run.folder.name}.failed-{number}")).exists():
        number += 1
    with writing(run.folder):
        return run.folder.rename(other)
