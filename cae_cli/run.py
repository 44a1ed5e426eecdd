"""The run folder: the only file that knows file names and the version of what they hold.

TensorFlow works left of the run folder, NumPy right of it: everything that measures, judges and shows
reads the files named here, so it can be done again without training.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import json
import logging
import math
import os
import platform
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import Interrupted, RunFailed, UserError

# Of the JSON files of a run, and of the arrays beside them. Raised when a reader would misread them.
SCHEMA_VERSION = 2

PACKAGES = ("tensorflow", "keras", "hydra-core", "omegaconf", "numpy", "pillow", "scikit-learn")


_CANNOT_WRITE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOTDIR,
}


def claim(parent: Path, *, now: datetime | None = None) -> Path:
    """Makes a new folder ``<date>_<time>_<suffix>`` below ``parent``.

    The folder is claimed by making it, so that two processes never get the same one.

    Raises:
        UserError: the folder cannot be made.
    """
    stamp = f"{now or datetime.now():%Y-%m-%d_%H-%M-%S}"
    make(parent)
    while True:
        folder = parent / f"{stamp}_{_suffix()}"
        with contextlib.suppress(FileExistsError), writing(parent):
            folder.mkdir()
            return folder


def make(folder: Path) -> None:
    """Makes a folder and those above it, if they are not there.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(error, folder) from error


def _suffix() -> str:
    """Four letters and digits that cannot be misread for one another (some 700,000 of them)."""
    return "".join(secrets.choice("23456789abcdefghjkmnpqrstvwxyz") for _ in range(4))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure to write into an error a person can use; other errors pass.

    Raises:
        UserError: no permission, read-only file system, disk or quota full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        raise _cannot_write(error, path) from error


def _cannot_write(error: OSError, path: Path) -> UserError:
    reason = (error.strerror or str(error)).lower()
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    elsewhere = "write elsewhere: hydra.run.dir=<folder> (in a multirun hydra.sweep.dir=<folder>)"
    return UserError(
        f"cannot write the run: {reason}",
        where=error.filename or path,
        hint=f"free some space, or {elsewhere}" if full else elsewhere,
    )


class Run:
    """A run's folder and the files in it.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "train.log"
        self.metrics = folder / "metrics.csv"
        self.arrays = folder / "arrays.npz"
        self.last = folder / "checkpoints" / "last.keras"
        self.best = folder / "checkpoints" / "best.keras"
        self.summary_text = folder / "summary.txt"
        self.reconstructions = folder / "reconstructions.png"
        self.curves = folder / "curves.png"
        self.formation = folder / "formation.png"
        self.ladder = folder / "ladder.png"
        self.course = folder / "course.png"
        self.answers = folder / "answers.png"
        self.redraws = folder / "redraws.png"

    def filters(self, layer: str) -> Path:
        """Picture of a convolution's filters."""
        return self.folder / "filters" / f"{self._file_name(layer)}.png"

    def maps(self, layer: str) -> Path:
        """Picture of a convolution's feature maps."""
        return self.folder / "maps" / f"{self._file_name(layer)}.png"

    def _file_name(self, layer: str) -> str:
        """A layer's name, which may come from a stranger's file, if it is no way out of the folder."""
        if layer != Path(layer).name or not layer.strip("."):
            raise _unreadable(self.arrays)
        return layer

    def snapshot(self, epoch: int) -> Path:
        """Filters and reconstructions after an epoch."""
        return self.folder / "snapshots" / f"epoch_{epoch:04d}.npz"

    def snapshots(self) -> dict[int, Path]:
        """The snapshots there are, by epoch."""
        found = sorted((self.folder / "snapshots").glob("epoch_*.npz"))
        return {int(path.stem.removeprefix("epoch_")): path for path in found}

    # -- status ----------------------------------------------------------------------------------

    def set_status(self, status: str, reason: str | None = None) -> None:
        """Writes running, ok, failed or interrupted, and why."""
        started = self.status().get("started") if status != "running" else None
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._write_json(
            "status.json",
            {
                "schema": SCHEMA_VERSION,
                "status": status,
                "reason": reason,
                "started": started or now,
                "ended": None if status == "running" else now,
                "host": socket.gethostname(),
                "pid": os.getpid(),
            },
        )

    def status(self) -> dict[str, Any]:
        """The status as written, {} if there is none yet."""
        return self._read_json("status.json", {})

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The status from the first second to the last: running, then how the block ended.

        Logs to train.log meanwhile. A block that ends normally may have set another status.
        """
        with writing(self.folder):
            self.set_status("running")
            handler = logging.FileHandler(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("cae_cli")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            yield
            if self.status().get("status") == "running":
                self.set_status("ok")
        except BaseException as error:
            # The disk may be full: the first error is the one to show, not that its trace is lost.
            with contextlib.suppress(OSError):
                if isinstance(error, Interrupted | KeyboardInterrupt):
                    self.set_status("interrupted", str(error) or "interrupted by the keyboard")
                else:
                    if not isinstance(error, UserError | RunFailed):
                        logger.error("%s", traceback.format_exc())
                    reason = getattr(error, "what", None) or f"{type(error).__name__}: {error}"
                    self.set_status("failed", reason)
            raise
        finally:
            logger.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()

    # -- what was run ----------------------------------------------------------------------------

    def is_set_up(self) -> bool:
        """Whether the run got as far as `write_setup`: its data and options were of use."""
        return (self.folder / "run.json").exists()

    def write_setup(self, setup: Mapping[str, Any]) -> None:
        """run.json: what was run, where, with what."""
        self._write_json("run.json", {"schema": SCHEMA_VERSION, **setup})

    def setup(self) -> dict[str, Any]:
        """What `write_setup` wrote."""
        return self._read_json("run.json")

    def write_training(self, training: Mapping[str, Any]) -> None:
        """training.json: how the training went, as far as metrics.csv does not say it."""
        self._write_json("training.json", {"schema": SCHEMA_VERSION, **training})

    def training(self) -> dict[str, Any]:
        """What `write_training` wrote."""
        return self._read_json("training.json")

    def write_control(self, explained: float) -> None:
        """control.json: what the same network explains with a frozen encoder."""
        self._write_json("control.json", {"schema": SCHEMA_VERSION, "explained_variance": explained})

    def control(self) -> float | None:
        """What `write_control` wrote, None if that was not tried."""
        return self._read_json("control.json", {}).get("explained_variance")

    def write_trials(self, trials: Sequence[Any]) -> None:
        """trials.json: short trainings that were made to tell causes apart."""
        self._write_json("trials.json", {"schema": SCHEMA_VERSION, "trials": trials})

    def trials(self) -> list[dict[str, Any]]:
        """What `write_trials` wrote, [] if there were none."""
        found: list[dict[str, Any]] = self._read_json("trials.json", {}).get("trials", [])
        return found

    # -- figures -----------------------------------------------------------------------------------

    def append_metrics(self, row: Mapping[str, float]) -> None:
        """Adds a line to metrics.csv; a number that is not there is left empty."""
        is_new = not self.metrics.exists()
        values = ["" if math.isnan(value) else f"{value:.8g}" for value in row.values()]
        with self.metrics.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(row)
            writer.writerow(values)

    def read_metrics(self) -> dict[str, NDArray[np.float64]]:
        """Columns of metrics.csv; NaN where a line has no number.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            with self.metrics.open(newline="") as file:
                lines = list(csv.DictReader(file))
            return {
                name: np.array([float(line[name] or "nan") for line in lines], np.float64)
                for name in (lines[0] if lines else ())
            }
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise _unreadable(self.metrics) from error

    def write_summary(self, summary: Mapping[str, Any], text: str) -> None:
        """summary.json for machines, summary.txt for people."""
        self._write_json("summary.json", {"schema": SCHEMA_VERSION, **summary})
        with atomic(self.summary_text) as path:
            path.write_text(text, encoding="utf-8")

    def summary(self) -> dict[str, Any]:
        """What `write_summary` wrote."""
        return self._read_json("summary.json")

    def write_arrays(self, path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Writes an npz file of named arrays."""
        with atomic(path) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]

    def read_arrays(self, path: Path) -> dict[str, NDArray[Any]]:
        """Reads an npz file of named arrays.

        Raises:
            UserError: it is missing, damaged, or holds pickles.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise _unreadable(path) from error

    def save_model(self, model: Any, *, best: bool) -> None:
        """last.keras, and best.keras if these weights are the best so far."""
        with atomic(self.last) as path:
            model.save(path)
        if best:
            with atomic(self.best) as path:
                shutil.copyfile(self.last, path)

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
        with atomic(self.folder / name) as path:
            path.write_text(text + "\n", encoding="utf-8")

    def _read_json(self, name: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        path = self.folder / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            if default is not None:
                return default
            raise UserError(
                f"{name} is missing", where=self.folder, hint="is this the folder of a run?"
            ) from error
        except ValueError as error:
            raise UserError(f"{name} is not valid JSON", where=path) from error
        if not isinstance(content, dict) or content.get("schema", 0) > SCHEMA_VERSION:
            raise UserError(
                f"{name} was written by a newer version of cae", where=path, hint="update cae"
            )
        if content.get("schema", 0) < SCHEMA_VERSION:
            command = content.get("command")
            again = shlex.join(map(str, command)) if isinstance(command, list) else "cae train …"
            raise UserError(
                f"{name} was written by an older version of cae, which measured less",
                where=path,
                hint=f"train it again: {again}",
            )
        return content


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keras and NumPy look at the suffix, so it stays.
    handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unreadable(path: Path) -> UserError:
    return UserError(
        f"{path.name} cannot be read", where=path, hint="the run did not finish, or the file is damaged"
    )


def plain(value: Any) -> Any:
    """Anything made of dataclasses, arrays and containers as JSON can hold it; NaN becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def surroundings() -> dict[str, Any]:
    """Git commit, packages and machine, for run.json."""
    return {
        "git": _git(),
        "packages": {name: _version(name) for name in ("cae-cli", *PACKAGES)},
        "machine": {
            "python": sys.version.split()[0],
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the checkout that the code lies in, else of the current folder; None without one.

    ``dirty`` says whether tracked files differ from the commit.
    """
    checkout = Path(__file__).parents[1]
    folder = checkout if (checkout / ".git").exists() else Path.cwd()

    def ask(*arguments: str) -> str:
        return subprocess.run(
            # A checkout of somebody else's could name a program to run as its file-system monitor.
            ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {
            "commit": ask("rev-parse", "HEAD"),
            "dirty": bool(ask("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
