"""The run folder: the only file that knows file names and the version of what they hold.

TensorFlow works left of the run folder, NumPy right of it: everything that measures, judges and shows
reads the files named here, so it can be done again without training.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import logging
import math
import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.system import signals
from cae_cli.system.files import (
    CANNOT_WRITE,
    UNFINISHED,
    at_work,
    atomic,
    cannot_write,
    is_in_use,
    writing,
)

logger = logging.getLogger(__name__)

# Of the JSON files of a run, and of the arrays beside them. Raised when a reader would misread them.
SCHEMA_VERSION = 3

PACKAGES = ("tensorflow", "keras", "hydra-core", "omegaconf", "numpy", "pillow", "scikit-learn")

RESERVE = 2**14  # bytes that are kept for the status of a run whose disk is full
MOST_JSON = 2**26  # bytes of a JSON file of a run


class Run:
    """A run's folder and the files in it.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status_file = folder / "status.json"
        self.setup_file = folder / "run.json"
        self.summary_file = folder / "summary.json"
        self.tags_file = folder / "tags.json"
        self.log = folder / "train.log"
        self.metrics = folder / "metrics.csv"
        self.arrays = folder / "arrays.npz"
        self.last = folder / "checkpoints" / "last.keras"
        self.best = folder / "checkpoints" / "best.keras"
        self.summary_text = folder / "summary.txt"

    def figure(self, name: str, layer: str = "") -> Path:
        """The file of a figure.

        Args:
            name: below the folder; ``{layer}`` in it stands for the layer.
            layer: its name, which may come from another person's model file.

        Raises:
            UserError: with the layer's name the file would be elsewhere.
        """
        if layer and (layer != Path(layer).name or not layer.strip(".")):
            raise _unreadable(self.arrays)
        return self.folder / name.replace("{layer}", layer)

    def snapshot(self, epoch: int) -> Path:
        """Filters and reconstructions after an epoch."""
        return self.folder / "snapshots" / f"epoch_{epoch:04d}.npz"

    def snapshots(self) -> dict[int, Path]:
        """The snapshots there are, by epoch."""
        found = sorted((self.folder / "snapshots").glob("epoch_*.npz"))
        return {int(path.stem.removeprefix("epoch_")): path for path in found}

    def keep_snapshots(self, epochs: Container[int]) -> None:
        """Removes all others: a training that goes on may have ended at an epoch of no interest."""
        for epoch, path in self.snapshots().items():
            if epoch not in epochs:
                path.unlink(missing_ok=True)

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
        """The status as written, {} if there is none yet.

        A run whose process is gone is not running, whatever it wrote last.
        """
        status = self._status()
        here = status.get("status") == "running" and status.get("host") == socket.gethostname()
        if not here or is_in_use(self.folder) is not False:
            return status
        status = self._status()  # it may have ended just now
        if status.get("status") != "running":
            return status
        reason = "its process ended without a word: killed, a crash, or a power cut"
        return {**status, "status": "interrupted", "reason": reason}

    def _status(self) -> dict[str, Any]:
        # The same in all versions, so that no run at work ever looks ended.
        return read_any_version(self.status_file) if os.path.lexists(self.status_file) else {}

    @contextlib.contextmanager
    def running(self, *, again: bool = False) -> Iterator[None]:
        """The status from the first second to the last: running, then how the block ended.

        Logs to train.log meanwhile. A block that ends normally may have set another status.

        Args:
            again: there was a run in this folder, and it goes on.

        Raises:
            UserError: another run is or was in this folder; it cannot be written.
        """
        with at_work(self.folder), writing(self.folder):
            if self._status() and not again:
                raise UserError(
                    "another run is in this folder already",
                    where=self.folder,
                    hint="leave out hydra.run.dir; hydra.sweep.subdir must give every job a folder of "
                    "its own",
                )
            for left in self.folder.rglob(f"{UNFINISHED}*"):
                left.unlink(missing_ok=True)
            # Room for the last word, whatever fills the disk.
            reserve = self.folder / f"{UNFINISHED}reserve"
            reserve.write_bytes(bytes(RESERVE))
            self.set_status("running")
            handler = _Log(self.log, encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            package = logging.getLogger("cae_cli")
            package.addHandler(handler)
            package.setLevel(logging.INFO)
            package.propagate = False
            for name in logging.root.manager.loggerDict:  # Hydra has switched off all there were
                if name.partition(".")[0] == "cae_cli":
                    logging.getLogger(name).disabled = False
            try:
                yield
                if self.status().get("status") == "running":
                    self.set_status("ok")
            except BaseException as error:
                told = signals.behind(error)
                # The disk may be full: the first error is the one to show, not that its trace is lost.
                with contextlib.suppress(OSError, UserError):
                    reserve.unlink(missing_ok=True)
                    self._set_status_of(told)
                if told is not error:
                    raise told from error
                raise
            finally:
                with contextlib.suppress(OSError):
                    reserve.unlink(missing_ok=True)
                package.removeHandler(handler)
                with contextlib.suppress(OSError):
                    handler.close()

    def _set_status_of(self, error: BaseException) -> None:
        if isinstance(error, Interrupted | KeyboardInterrupt):
            self.set_status("interrupted", str(error) or "interrupted by the keyboard")
            return
        if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
            error = cannot_write(error, self.folder)
        if not isinstance(error, UserError | RunFailed):
            logger.error("%s", "".join(traceback.format_exception(error)))
        self.set_status("failed", getattr(error, "what", None) or f"{type(error).__name__}: {error}")

    # -- what was run ----------------------------------------------------------------------------

    def is_set_up(self) -> bool:
        """Whether the run got as far as `write_setup`."""
        return (self.folder / "run.json").exists()

    def has_trained(self) -> bool:
        """Whether there is anything of a training."""
        return self.metrics.exists()

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

    def has_ended(self) -> bool:
        """Whether a training came to its end here; it may have gone on since."""
        return (self.folder / "training.json").exists()

    def settings(self) -> dict[str, Any]:
        """The config of the run and, under ``facts``, what its loss and optimizer declare."""
        return {**self.setup()["config"], "facts": self.training().get("facts", {})}

    def write_control(self, explained: float) -> None:
        """frozen_encoder.json: what the same network explains with a frozen encoder."""
        self._write_json(
            "frozen_encoder.json", {"schema": SCHEMA_VERSION, "explained_variance": explained}
        )

    def frozen_encoder(self) -> float | None:
        """What `write_control` wrote, None if that was not tried."""
        return self._read_json("frozen_encoder.json", {}).get("explained_variance")

    def write_tags(self, tags: Sequence[str]) -> None:
        """tags.json: words to find the run by, in the place of those of its config."""
        self._write_json("tags.json", {"schema": SCHEMA_VERSION, "tags": list(tags)})

    # -- figures -----------------------------------------------------------------------------------

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """metrics.csv: a line for each row; a number that is not there is left empty."""
        with atomic(self.metrics) as path, path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(rows[0])
            for row in rows:
                writer.writerow("" if math.isnan(v) else f"{v:.8g}" for v in row.values())

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
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
            raise _unreadable(self.metrics) from error

    def write_summary(self, summary: Mapping[str, Any], text: str) -> None:
        """summary.json for machines, summary.txt for people."""
        self._write_json("summary.json", {"schema": SCHEMA_VERSION, **summary})
        with atomic(self.summary_text) as path:
            path.write_text(text, encoding="utf-8")

    def summary(self) -> dict[str, Any]:
        """What `write_summary` wrote."""
        return self._read_json("summary.json")

    def read_summary_text(self) -> str:
        """The text that `write_summary` wrote.

        Raises:
            UserError: it is missing, or not a file of cae.
        """
        try:
            if not self.summary_text.is_file() or self.summary_text.stat().st_size > MOST_JSON:
                raise _unreadable(self.summary_text)
            return self.summary_text.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise _unreadable(self.summary_text) from error

    def write_arrays(self, path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Writes an npz file of named arrays."""
        with atomic(path) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]

    def read_arrays(self, path: Path, only: Container[str] | None = None) -> dict[str, NDArray[Any]]:
        """Reads an npz file of named arrays.

        Args:
            path: of the file.
            only: names of those to read; None for all.

        Raises:
            UserError: it is missing, damaged, or holds pickles.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files if only is None or name in only}
        except Exception as error:  # zipfile, zlib and NumPy each raise their own at a damaged file
            raise _unreadable(path) from error

    def save_model(self, model: Any, *, best: bool) -> None:
        """last.keras, and best.keras if these weights are the best so far."""
        with atomic(self.last) as path:
            model.save(path)
        if best:
            with atomic(self.best) as path:
                shutil.copyfile(self.last, path)

    def write_checkpoint(self, epoch: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """What training needs to go on after an epoch. That of the epoch before it is kept too."""
        self.write_arrays(self._checkpoint(epoch), arrays)
        for path in self._checkpoints()[:-2]:
            path.unlink(missing_ok=True)

    def can_go_on(self) -> bool:
        """Whether there is a checkpoint, whole or not."""
        return bool(self._checkpoints())

    def checkpoint(self) -> dict[str, NDArray[Any]] | None:
        """What `write_checkpoint` wrote last, as far as it can be read; None if nothing can."""
        for path in reversed(self._checkpoints()):
            try:
                return self.read_arrays(path)
            except UserError as error:
                logger.warning("%s: %s", path.name, error.what)
        return None

    def _checkpoint(self, epoch: int) -> Path:
        return self.last.with_name(f"state_{epoch:06d}.npz")

    def _checkpoints(self) -> list[Path]:
        return sorted(self.last.parent.glob("state_*.npz"))

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_json(self.folder / name, content)

    def _read_json(self, name: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        path = self.folder / name
        if default is not None and not os.path.lexists(path):
            return default
        return read_versioned(path)


class _Log(logging.FileHandler):
    """train.log, which a full disk may cut short without a word: the run itself says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, of a run or of a sweep; what `plain` cannot keep is kept as text."""
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    if any("\ud800" <= c <= "\udfff" for c in text):  # of a file's name that is not UTF-8
        text = json.dumps(plain(content), indent=2, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote, whatever its schema.

    Raises:
        UserError: it is missing, or no such file.
    """
    try:
        if not path.is_file():  # nor a pipe, which would be waited for
            raise FileNotFoundError
        if path.stat().st_size > MOST_JSON:
            raise UserError(
                f"{path.name} is larger than any that cae writes", where=path, hint="is it a run's?"
            )
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path.name} is missing", where=path.parent, hint="is this the folder of a run?"
        ) from error
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror}", where=path) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path.name} is not valid JSON", where=path, hint="the file is damaged or incomplete"
        ) from error
    if not isinstance(content, dict):
        raise foreign(path)
    return content


class OlderVersion(UserError):
    """A file was written by an older version of cae."""


def read_versioned(path: Path, schema: int = SCHEMA_VERSION) -> dict[str, Any]:
    """What `write_json` wrote with this schema.

    Raises:
        OlderVersion: its schema is an older one.
        UserError: it is missing, damaged, foreign or of a newer version.
    """
    content = read_json(path)
    version = content.get("schema")
    if not isinstance(version, int):
        raise foreign(path)
    if version > schema:
        raise UserError(
            f"{path.name} was written by a newer version of cae", where=path, hint="update cae"
        )
    if version < schema:
        raise OlderVersion(
            f"{path.name} was written by an older version of cae",
            where=path,
            hint=f"train it again: {shlex.join(['cae', 'rerun', str(path.parent)])}",
        )
    return content


def read_any_version(path: Path) -> dict[str, Any]:
    """The same, also of an older version: for what a run that is trained again needs."""
    try:
        return read_versioned(path)
    except OlderVersion:
        return read_json(path)


def foreign(path: Path) -> UserError:
    """What to say of a file that something else wrote."""
    return UserError(f"{path.name} is not a file of cae", where=path, hint="is it a run's?")


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
    checkout = Path(__file__).parents[2]
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
