"""What the result of a job depends on, and the folder that the job gets.

The same options, images and code give bit-identical results. A job that finished with the same
fingerprint is not run again, an interrupted one is resumed, and one with another fingerprint gets a new
folder next to the old one.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from cae_cli.config import schema as config
from cae_cli.config.schema import Config
from cae_cli.data import DataOptions
from cae_cli.errors import UserError
from cae_cli.runs.environment import surroundings
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import plain, read_json, write_json
from cae_cli.system.files import is_in_use, make, writing
from cae_cli.system.guarded import UNFINISHED, GuardedPath

FILE = "fingerprint.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of what a result depends on.

    Attributes:
        config: the checked options.
        data: names, sizes and modification times of the image files.
        code: the source text of this package, and the versions of the packages it uses.
    """

    config: str
    data: str
    code: str

    @classmethod
    def of(cls, options: Config, *, verdict: bool = True) -> Fingerprint:
        """The fingerprint of a run with these options, images and code.

        Args:
            options: of the run.
            verdict: whether the verdict is part of the result. If not, only the code that trains counts.
        """
        content = _options(config.plain(options), verdict=verdict)
        return cls(content, _hash(_signature(options.data)), _code(verdict))

    @classmethod
    def read(cls, run: Run, *, verdict: bool = True) -> Fingerprint | None:
        """What `write` wrote, None if it cannot be read.

        The options are those in run.json where there is one: ``cae resume`` may have trained the run for
        longer.
        """
        try:
            content = read_json(run.root / FILE)
            known = cls(**{f.name: str(content[f.name]) for f in fields(cls)})
            if not run.is_set_up():
                return known
            return replace(known, config=_options(run.setup()["config"], verdict=verdict))
        except (UserError, KeyError):
            return None

    def write(self, run: Run) -> None:
        """Writes it into the run's folder."""
        with writing(run.folder):
            write_json(run.root / FILE, {"schema": SCHEMA_VERSION, **asdict(self)})

    def change(self, now: Fingerprint) -> str:
        """What differs between two fingerprints, as a sentence."""
        names = {"config": "the options", "data": "the data files", "code": "the code"}
        changed = [names[f.name] for f in fields(self) if getattr(self, f.name) != getattr(now, f.name)]
        verb = "has" if changed == [names["code"]] else "have"
        return f"{' and '.join(changed)} {verb} changed"


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()[:32]


def _options(content: Mapping[str, Any], *, verdict: bool) -> str:
    """A hash of a config without the options that change no result."""
    idle = ("optimized_metric", "tracker", *(() if verdict else ("rules", "tags", "task_name")))
    return _hash({key: value for key, value in content.items() if key not in idle})


@functools.lru_cache(256)
def _signature(data: DataOptions) -> str:
    """The signature of the data files, computed once for all jobs of a sweep."""
    return data.signature()


# The modules that train and record; all that these import counts as well.
TRAINS = ("training.fit", "training.backend", "introspection.probe", "model.build", "data")


@functools.cache
def _code(verdict: bool) -> str:
    """A hash of the source text of this package, or of the part that trains.

    The git commit does not matter: an edit that is not committed counts.
    """
    package = Path(__file__).parents[1]
    files = package.rglob("*.py") if verdict else trained_by()
    texts = {
        file.relative_to(package).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }
    return _hash({"text": texts, "packages": surroundings()["packages"]})


def trained_by() -> set[Path]:
    """The files of this package that a training depends on, by following imports."""
    package = Path(__file__).parents[1]
    waiting = [f"{package.name}.{name}" for name in TRAINS]
    found = {package / "experiment.py"}  # only its own text, because it imports the diagnosis too
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
class JobFolder:
    """The folder that a job gets.

    Attributes:
        run: the run folder.
        finished: the result is there already.
        busy: another process is at work in it.
        note: why it is not the first folder of that name, or None.
    """

    run: Run
    finished: bool = False
    busy: bool = False
    note: str | None = None


def claim_folder(folder: GuardedPath, fingerprint: Fingerprint, *, verdict: bool = True) -> JobFolder:
    """Finds or makes the folder of a job.

    The folder of a failed job is renamed and the job starts again; that of an interrupted job is kept,
    to be resumed.

    Args:
        folder: the folder to use; -2, -3 … is appended while it holds the result of another job.
        fingerprint: of the job.
        verdict: as for `Fingerprint.of`. If only the training counts, one that diverged is
            finished, because it would diverge again.

    Raises:
        UserError: the folder cannot be made.
    """
    note = None
    number = 1
    while True:
        run = Run(folder if number == 1 else folder.parent / f"{folder.name}-{number}")
        if make(run.root):
            fingerprint.write(run)
            return JobFolder(run, note=note)
        known = Fingerprint.read(run, verdict=verdict)
        if known is None and _is_unused(run):
            fingerprint.write(run)
            return JobFolder(run, note=note)
        if known == fingerprint:
            return _existing(run, fingerprint, note, verdict=verdict)
        changed = known.change(fingerprint) + " since" if known else "something else is in"
        note = f"{changed} {run.folder.name}"
        number += 1


def _is_unused(run: Run) -> bool:
    """Whether a sweep was killed after it had made the folder, before it wrote into it."""
    names = [child.name for child in run.root.children()]
    return all(name.startswith(UNFINISHED) for name in names) and not is_in_use(run.root)


def _existing(run: Run, fingerprint: Fingerprint, note: str | None, *, verdict: bool) -> JobFolder:
    try:
        status = run.status().get("status")
    except UserError:
        status = "failed"
    finished = status == "ok" or (status == "failed" and not verdict and run.has_ended())
    if finished or status == "running":
        return JobFolder(run, finished=finished, busy=not finished, note=note)
    if status == "failed":
        set_aside(run)
    elif status and not run.is_set_up():  # interrupted before there was anything to resume
        run.root.remove()
    else:
        run.root.check()  # Hydra will write into it
        (run.root / ".hydra").check()
    if make(run.root):
        fingerprint.write(run)
    return JobFolder(run, note=note)


def set_aside(run: Run) -> GuardedPath:
    """Renames the folder of a failed run, and returns its new path."""
    number = 1
    while (run.root.parent / f"{run.root.name}.failed-{number}").exists():
        number += 1
    with writing(run.folder):
        return run.root.rename(f"{run.root.name}.failed-{number}")
