"""What a job's result depends on, and the folder that it therefore gets.

The same options, images and code give the same bits. A job that is finished with these is not run
again; one that was cut short goes on; one whose fingerprint differs gets a folder beside the old one.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from cae_cli.config import schema as config
from cae_cli.config.schema import Config
from cae_cli.data import DataOptions
from cae_cli.errors import UserError
from cae_cli.runs.folder import Run, plain, read_json, surroundings, write_json
from cae_cli.system.files import make, writing

FILE = "fingerprint.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of what a result depends on.

    Attributes:
        config: the checked options.
        data: names, sizes and times of the files with the images.
        code: versions of other packages, and the text of this one.
    """

    config: str
    data: str
    code: str

    @classmethod
    def of(cls, options: Config, *, judged: bool = True) -> Fingerprint:
        """The fingerprint that a run with these options would have now.

        Args:
            options: of the run.
            judged: the verdict is part of the result; otherwise only what the training gives.
        """
        content = _options(config.plain(options), judged=judged)
        return cls(content, _hash(_signature(options.data)), _code(judged))

    @classmethod
    def read(cls, run: Run, *, judged: bool = True) -> Fingerprint | None:
        """What `write` wrote; None where there is nothing that can be read.

        The options are those of the run itself where it got so far: ``cae resume`` may have trained
        it for longer.
        """
        try:
            content = read_json(run.folder / FILE)
            known = cls(**{f.name: str(content[f.name]) for f in fields(cls)})
            if not run.is_set_up():
                return known
            return replace(known, config=_options(run.setup()["config"], judged=judged))
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


def _options(content: Mapping[str, Any], *, judged: bool) -> str:
    """A hash of a config without what changes no result."""
    idle = ("optimized_metric",) if judged else ("optimized_metric", "rules", "tags", "task_name")
    return _hash({key: value for key, value in content.items() if key not in idle})


@functools.lru_cache(256)
def _signature(data: DataOptions) -> str:
    """Of thousands of files once for all jobs of a sweep."""
    return data.signature()


# What trains and records, left of the run folder; with all that these import.
TRAINS = ("training.fit", "training.backend", "introspection.probe", "model.build", "data")


@functools.cache
def _code(judged: bool) -> str:
    """A hash of the code: of all of this package, or of what trains.

    Its text and not the commit: an edit that is not committed counts, a commit that edits nothing
    does not.
    """
    package = Path(__file__).parents[1]
    files = package.rglob("*.py") if judged else trained_by()
    texts = {
        file.relative_to(package).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }
    return _hash({"text": texts, "packages": surroundings()["packages"]})


def trained_by() -> set[Path]:
    """The files of this package that a training depends on, found by their imports."""
    package = Path(__file__).parents[1]
    waiting = [f"{package.name}.{name}" for name in TRAINS]
    found = {package / "experiment.py"}  # its own text: it imports what judges, too
    while waiting:
        module = waiting.pop()
        file = _file(module)
        if file is None or file in found:
            continue
        found.add(file)
        waiting.append(module.rpartition(".")[0])  # its package is imported with it
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                waiting += [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    return found


def _file(module: str) -> Path | None:
    """The file of a module of this package, None of anything else."""
    package = Path(__file__).parents[1]
    name, *parts = module.split(".")
    if name != package.name:
        return None
    path = package.joinpath(*parts)
    found = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in found if file.is_file() and file != package / "__init__.py"), None)


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


def place(folder: Path, fingerprint: Fingerprint, *, judged: bool = True) -> Place:
    """Finds or makes the folder of a job.

    What failed is set aside and begins again; a run that was cut short is left as it is, to go on.

    Args:
        folder: the one to have; with -2, -3 … behind it where there is another job's result.
        fingerprint: of the job.
        judged: as it was made with. If only the training counts, one that diverged is finished: it would
            diverge again.

    Raises:
        UserError: the folder cannot be made.
    """
    note = None
    number = 1
    while True:
        run = Run(folder if number == 1 else folder.with_name(f"{folder.name}-{number}"))
        if make(run.folder):
            break
        known = Fingerprint.read(run, judged=judged)
        if known == fingerprint:
            return _known(run, fingerprint, note, judged=judged)
        if known is None:
            note = f"{run.folder.name} holds something else"
        else:
            note = f"{known.change(fingerprint)} since {run.folder.name}"
        number += 1
    fingerprint.write(run)
    return Place(run, note=note)


def _known(run: Run, fingerprint: Fingerprint, note: str | None, *, judged: bool) -> Place:
    try:
        status = run.status().get("status")
    except UserError:
        status = "failed"
    if status == "failed" and not judged and run.has_ended():
        return Place(run, finished=True, note=note)
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
