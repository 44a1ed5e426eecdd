"""The run folder: the only module that knows the names of its files and what they hold.

TensorFlow works left of the run folder and NumPy right of it: metrics, diagnosis and report read
the files named here, so that they can be repeated without training.
"""

from __future__ import annotations

import contextlib
import csv
import logging
import math
import os
import shutil
import socket
import traceback
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.runs.json_files import (
    MAX_SIZE,
    SCHEMA_VERSION,
    read_any_version,
    read_versioned,
    write_json,
)
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

RESERVE = 2**14  # bytes kept free for the status of a run that fills the disk


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
        self.training_file = folder / "training.json"
        self.frozen_file = folder / "frozen_encoder.json"
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
        if "{layer}" in name and (layer != Path(layer).name or not layer.strip(".")):
            raise _unreadable(self.arrays)
        return self.folder / name.replace("{layer}", layer)

    def snapshot(self, epoch: int) -> Path:
        """Filters and reconstructions after an epoch."""
        return self.folder / "snapshots" / f"epoch_{epoch:04d}.npz"

    def snapshots(self) -> dict[int, Path]:
        """The snapshots by epoch."""
        paths = sorted((self.folder / "snapshots").glob("epoch_*.npz"))
        return {int(path.stem.removeprefix("epoch_")): path for path in paths}

    def keep_snapshots(self, epochs: Container[int]) -> None:
        """Removes all other snapshots: a training that is extended left one at its former end."""
        for epoch, path in self.snapshots().items():
            if epoch not in epochs:
                path.unlink(missing_ok=True)

    # -- status ----------------------------------------------------------------------------------

    def set_status(self, status: str, reason: str | None = None) -> None:
        """Writes the status: running, ok, failed or interrupted, and the reason."""
        started = self.status().get("started") if status != "running" else None
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        self._write(
            self.status_file,
            status=status,
            reason=reason,
            started=started or now,
            ended=None if status == "running" else now,
            host=socket.gethostname(),
            pid=os.getpid(),
        )

    def status(self) -> dict[str, Any]:
        """The status, {} if there is none yet; interrupted if the process of the run is gone."""
        status = self._status()
        here = status.get("status") == "running" and status.get("host") == socket.gethostname()
        if not here or is_in_use(self.folder) is not False:
            return status
        status = self._status()  # it may have ended just now
        if status.get("status") != "running":
            return status
        reason = "its process ended without reporting: killed, crashed, or a power cut"
        return {**status, "status": "interrupted", "reason": reason}

    def _status(self) -> dict[str, Any]:
        # Versions do not differ here, and a run must never look ended while it is running.
        return read_any_version(self.status_file) if os.path.lexists(self.status_file) else {}

    @contextlib.contextmanager
    def running(self, *, resume: bool = False) -> Iterator[None]:
        """Keeps the status for the length of the block, and logs to train.log.

        The status is running, and then how the block ended, unless the block has set another one.

        Args:
            resume: the folder holds a run that is resumed.

        Raises:
            UserError: another run is in this folder, or it cannot be written.
        """
        with at_work(self.folder), writing(self.folder):
            if self._status() and not resume:
                raise UserError(
                    "another run is in this folder already",
                    where=self.folder,
                    hint="leave out hydra.run.dir; hydra.sweep.subdir must differ between jobs",
                )
            for left in self.folder.rglob(f"{UNFINISHED}*"):
                left.unlink(missing_ok=True)
            # Space for the final status, even if the disk is full then.
            reserve = self.folder / f"{UNFINISHED}reserve"
            reserve.write_bytes(bytes(RESERVE))
            self.set_status("running")
            handler = _Log(self.log, encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            package = logging.getLogger("cae_cli")
            package.addHandler(handler)
            package.setLevel(logging.INFO)
            package.propagate = False
            for name in logging.root.manager.loggerDict:  # Hydra has disabled them
                if name.partition(".")[0] == "cae_cli":
                    logging.getLogger(name).disabled = False
            try:
                yield
                if self.status().get("status") == "running":
                    self.set_status("ok")
            except BaseException as error:
                cause = signals.behind(error)
                # On a full disk the first error is the one to report.
                with contextlib.suppress(OSError, UserError):
                    reserve.unlink(missing_ok=True)
                    self._set_status_of(cause)
                if cause is not error:
                    raise cause from error
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
        return self.setup_file.exists()

    def has_trained(self) -> bool:
        """Whether at least one epoch was trained."""
        return self.metrics.exists()

    def write_setup(self, setup: Mapping[str, Any]) -> None:
        """run.json: what was run, where, with what."""
        self._write(self.setup_file, **setup)

    def setup(self) -> dict[str, Any]:
        """What `write_setup` wrote."""
        return read_versioned(self.setup_file)

    def write_training(self, training: Mapping[str, Any]) -> None:
        """training.json: the result of the training beyond metrics.csv."""
        self._write(self.training_file, **training)

    def training(self) -> dict[str, Any]:
        """What `write_training` wrote."""
        return read_versioned(self.training_file)

    def has_ended(self) -> bool:
        """Whether a training has ended here, even if it was extended later."""
        return self.training_file.exists()

    def settings(self) -> dict[str, Any]:
        """The config of the run and, under ``facts``, what its loss and optimizer declare."""
        return {**self.setup()["config"], "facts": self.training().get("facts", {})}

    def write_control(self, explained: float) -> None:
        """frozen_encoder.json: explained variance of the same network with a frozen encoder."""
        self._write(self.frozen_file, explained_variance=explained)

    def frozen_encoder(self) -> float | None:
        """What `write_control` wrote, None if that was not tried."""
        return self._read_if_there(self.frozen_file).get("explained_variance")

    def write_tags(self, tags: Sequence[str]) -> None:
        """tags.json: tags that replace those of the config."""
        self._write(self.tags_file, tags=list(tags))

    # -- figures -----------------------------------------------------------------------------------

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """metrics.csv: one line per row; NaN is left empty."""
        with atomic(self.metrics) as path, path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(rows[0])
            for row in rows:
                writer.writerow("" if math.isnan(v) else f"{v:.8g}" for v in row.values())

    def read_metrics(self) -> dict[str, NDArray[np.float64]]:
        """The columns of metrics.csv, (epochs,) each; NaN where a line has no number.

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
        self._write(self.summary_file, **summary)
        with atomic(self.summary_text) as path:
            path.write_text(text, encoding="utf-8")

    def summary(self) -> dict[str, Any]:
        """What `write_summary` wrote."""
        return read_versioned(self.summary_file)

    def read_summary_text(self) -> str:
        """The text that `write_summary` wrote.

        Raises:
            UserError: it is missing, or not a file of cae.
        """
        try:
            if not self.summary_text.is_file() or self.summary_text.stat().st_size > MAX_SIZE:
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
            only: names of the arrays to read; None for all.

        Raises:
            UserError: it is missing, damaged, or holds pickles.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files if only is None or name in only}
        except Exception as error:  # zipfile, zlib and NumPy raise many kinds for a damaged file
            raise _unreadable(path) from error

    def save_model(self, model: Any, *, best: bool) -> None:
        """last.keras, and best.keras if these weights are the best so far."""
        with atomic(self.last) as path:
            model.save(path)
        if best:
            with atomic(self.best) as path:
                shutil.copyfile(self.last, path)

    def write_checkpoint(self, epoch: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """What is needed to resume after an epoch; the checkpoint before it is kept as well."""
        self.write_arrays(self._checkpoint(epoch), arrays)
        for path in self._checkpoints()[:-2]:
            path.unlink(missing_ok=True)

    def can_go_on(self) -> bool:
        """Whether there is a checkpoint, readable or not."""
        return bool(self._checkpoints())

    def checkpoint(self) -> dict[str, NDArray[Any]] | None:
        """The last checkpoint that can be read, None without one."""
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

    def _write(self, path: Path, /, **content: Any) -> None:
        write_json(path, {"schema": SCHEMA_VERSION, **content})

    def _read_if_there(self, path: Path) -> dict[str, Any]:
        return read_versioned(path) if os.path.lexists(path) else {}


class _Log(logging.FileHandler):
    """train.log. A full disk may cut it short; the run itself reports that."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def _unreadable(path: Path) -> UserError:
    return UserError(
        f"{path.name} cannot be read", where=path, hint="the run did not finish, or the file is damaged"
    )
