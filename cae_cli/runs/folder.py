"""The run folder: the only module that knows the names of its files and what they hold.

TensorFlow works left of the run folder and NumPy right of it: metrics, diagnosis and report read
the files named here, so that they can be repeated without training.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import logging
import math
import shutil
import stat
import traceback
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import Interrupted, RunFailed, UserError, printable, visible
from cae_cli.runs.json_files import (
    SCHEMA_VERSION,
    Missing,
    read_any_version,
    read_versioned,
    write_json,
)
from cae_cli.system import npz, process, signals
from cae_cli.system.files import CANNOT_WRITE, at_work, cannot_write, is_in_use, writing
from cae_cli.system.guarded import UNFINISHED, GuardedPath, guard, is_name

logger = logging.getLogger(__name__)

LONGEST_LAYER = 120  # bytes of a layer's name in the name of a file; longer ones are cut
MOST_EPOCHS = 200_000  # lines of metrics.csv
RESERVE = 2**14  # bytes kept free for the status of a run that fills the disk


class Run:
    """A run's folder and the files in it.

    Args:
        folder: an existing folder.

    Attributes:
        root: the folder, guarded: every file of a run is reached through it.
        folder: its path, to be shown.
    """

    def __init__(self, folder: Path | GuardedPath) -> None:
        self.root = guard(folder)
        self.folder = self.root.shown
        self._identity: tuple[int, int] | None = None  # of the folder, while the run is trained
        self._lines = ""  # of metrics.csv
        self.status_file = self.root / "status.json"
        self.setup_file = self.root / "run.json"
        self.summary_file = self.root / "summary.json"
        self.tags_file = self.root / "tags.json"
        self.training_file = self.root / "training.json"
        self.frozen_file = self.root / "frozen_encoder.json"
        self.trials_file = self.root / "trials.json"
        self.trial_arrays = self.root / "trials.npz"
        self.log = self.root / "train.log"
        self.job_log = self.root / "job.log"
        self.metrics = self.root / "metrics.csv"
        self.arrays = self.root / "arrays.npz"
        self.views = self.root / "views.npz"
        self.page = self.root / "report.html"
        self.last = self.root / "checkpoints/last.keras"
        self.best = self.root / "checkpoints/best.keras"
        self.summary_text = self.root / "summary.txt"

    def figure(self, name: str, layer: str = "") -> GuardedPath:
        """The file of a figure.

        Args:
            name: below the folder; ``{layer}`` in it stands for the layer.
            layer: its name, which may come from another person's model file.

        Raises:
            UserError: with the layer's name the file would be elsewhere.
        """
        if "{layer}" in name and not is_name(layer):
            raise _unreadable(self.arrays)
        whole = layer.encode(errors="surrogatepass")
        if len(whole) > LONGEST_LAYER:  # the name of a file has 255 bytes at most
            start = whole[:LONGEST_LAYER].decode(errors="ignore")
            layer = f"{start}_{hashlib.sha256(whole).hexdigest()[:8]}"
        return self.root / name.replace("{layer}", layer)

    def snapshot(self, epoch: int) -> GuardedPath:
        """Filters and reconstructions after an epoch."""
        return self.root / f"snapshots/epoch_{epoch:04d}.npz"

    def snapshots(self) -> dict[int, GuardedPath]:
        """The snapshots by epoch; files with other names are none."""
        paths = (self.root / "snapshots").children("epoch_*.npz")
        numbers = {path: path.stem.removeprefix("epoch_") for path in paths}
        return {int(n): path for path, n in numbers.items() if n.isascii() and n.isdigit()}

    def keep_snapshots(self, epochs: Container[int]) -> None:
        """Removes all other snapshots: a training that is extended left one at its former end."""
        for epoch, path in self.snapshots().items():
            if epoch not in epochs:
                path.unlink()

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
            **process.identity(),
        )

    def status(self) -> dict[str, Any]:
        """The status, {} if there is none yet; interrupted if the process of the run is gone.

        The lock tells that, on whatever machine the process was. On a file system without locks the
        process itself does, if it was one of this machine; else the run counts as running.
        """
        status = self._status()
        if status.get("status") != "running" or self._is_at_work(status) is not False:
            return status
        status = self._status()  # it may have ended just now
        if status.get("status") != "running":
            return status
        reason = "its process ended without reporting: killed, crashed, or a power cut"
        return {**status, "status": "interrupted", "reason": reason}

    def check_idle(self, *, force: bool = False) -> None:
        """Checks that no process works on the run.

        Args:
            force: a run of which that cannot be known counts as idle.

        Raises:
            UserError: a process works on it, or it cannot be known that none does.
        """
        status = self.status()
        if status.get("status") != "running":
            return
        at_work = self._is_at_work(status)
        which = f"process {status.get('pid')} on {status.get('host')}"
        if at_work:
            raise UserError(
                "the run is in progress", where=self.folder, hint=f"wait until {which} has ended"
            )
        if at_work is None and not force:
            raise UserError(
                f"the run may be in progress: there are no locks to tell, and {which} may still "
                f"work; its last file was written at {self._changed():%Y-%m-%d %H:%M}",
                where=self.folder,
                hint="if that process has ended, add --force; if it has not, both would write its files",
            )

    def _is_at_work(self, status: Mapping[str, Any]) -> bool | None:
        locked = is_in_use(self.root)
        return process.is_alive(status) if locked is None else locked

    def _changed(self) -> datetime:
        """When a file of the run was written last."""
        found = [path.stat() for path in self.root.walk(readable=True)]
        times = [one.st_mtime for one in found if one is not None and stat.S_ISREG(one.st_mode)]
        return datetime.fromtimestamp(max(times, default=0)).astimezone()

    def _status(self) -> dict[str, Any]:
        # Versions do not differ here, and a run must never look ended while it is running.
        return _if_there(self.status_file, read_any_version)

    @contextlib.contextmanager
    def running(self, *, resume: bool = False) -> Iterator[None]:
        """Keeps the status for the length of the block, and logs to train.log.

        The status is running, and then how the block ended, unless the block has set another one.

        Args:
            resume: the folder holds a run that is resumed.

        Raises:
            UserError: another run is in this folder, or it cannot be written.
        """
        with at_work(self.root), writing(self.root):
            if self._status() and not resume:
                raise UserError(
                    "another run is in this folder already",
                    where=self.folder,
                    hint="leave out hydra.run.dir; hydra.sweep.subdir must differ between jobs",
                )
            for left in self.root.walk(readable=True):
                if left.name.startswith(UNFINISHED) and not left.is_folder():
                    left.unlink()
            self._keep_two_checkpoints()  # a power cut may bring back one that was removed
            # Space for the final status, even if the disk is full then.
            reserve = self.root / f"{UNFINISHED}reserve"
            with reserve.append() as file:
                file.write(bytes(RESERVE))
            self.set_status("running")
            self._identity = self._present()
            handler = _Log(self.log)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            package = logging.getLogger("cae_cli")
            before = package.level, package.propagate
            package.addHandler(handler)
            package.setLevel(logging.INFO)
            package.propagate = False
            for name in logging.root.manager.loggerDict:  # hydra/job_logging=disabled disables them
                if name.partition(".")[0] == "cae_cli":
                    logging.getLogger(name).disabled = False
            try:
                yield
                if self.status().get("status") == "running":
                    self.set_status("ok")
            except BaseException as error:
                cause = signals.behind(error)
                if isinstance(cause, Exception):
                    with contextlib.suppress(OSError):
                        self.check_kept()
                # On a full disk the first error is the one to report.
                with contextlib.suppress(OSError, UserError):
                    reserve.unlink()
                    self._set_status_of(cause)
                if cause is not error:
                    raise cause from error
                raise
            finally:
                with contextlib.suppress(OSError, UserError):
                    reserve.unlink()
                package.removeHandler(handler)
                package.level, package.propagate = before
                with contextlib.suppress(OSError):
                    handler.close()

    def check_kept(self) -> None:
        """Checks, within `running`, that the folder is still the one of the run.

        Raises:
            UserError: somebody moved or removed it.
        """
        if self._identity is not None and self._present() != self._identity:
            raise UserError(
                "the folder of the run was moved or removed while it was trained",
                where=self.folder,
                hint="if it was moved, resume it: cae resume FOLDER; else start the run again",
            )

    def _present(self) -> tuple[int, int] | None:
        """Device and inode of the folder, None if there is none."""
        try:
            with self.root.opened() as opened:
                return opened.identity()
        except FileNotFoundError:
            return None

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
        return _if_there(self.frozen_file, read_versioned).get("explained_variance")

    def write_trials(self, trials: Mapping[str, Any], pictures: Mapping[str, NDArray[Any]]) -> None:
        """trials.json: short trainings with fixes; trials.npz: what they made of some images."""
        self.write_arrays(self.trial_arrays, pictures)
        self._write(self.trials_file, **trials)

    def trials(self) -> dict[str, Any] | None:
        """The trials that `write_trials` wrote, None if there were none."""
        return _if_there(self.trials_file, read_versioned) or None

    def pictures_of_trials(self) -> dict[str, NDArray[Any]]:
        """The arrays that `write_trials` wrote, {} if there were no trials."""
        return self.read_arrays(self.trial_arrays) if self.trial_arrays.exists() else {}

    def write_tags(self, tags: Sequence[str]) -> None:
        """tags.json: tags that replace those of the config."""
        self._write(self.tags_file, tags=list(tags))

    # -- figures -----------------------------------------------------------------------------------

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """metrics.csv: one line per row; NaN is left empty."""
        self._lines = ""
        self.add_metrics(rows)

    def add_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Adds rows to those of metrics.csv that this object has written; others are replaced.

        The file is written whole, so that it is complete at every moment, but no row is formatted twice.
        """
        lines = io.StringIO(newline="")
        writer = csv.writer(lines)
        if not self._lines:
            writer.writerow(rows[0])
        for row in rows:
            writer.writerow("" if math.isnan(v) else f"{v:.8g}" for v in row.values())
        self._lines += lines.getvalue()
        with self.metrics.atomic() as path:
            path.write_text(self._lines, encoding="utf-8", newline="")

    def read_metrics(self) -> dict[str, NDArray[np.float64]]:
        """The columns of metrics.csv, (epochs,) each; NaN where a line has no number.

        Raises:
            UserError: it is missing or damaged.
        """
        try:
            text = self.metrics.read_text()
            if text.count("\n") > MOST_EPOCHS:
                raise _unreadable(self.metrics)
            lines = list(csv.DictReader(io.StringIO(text, newline="")))
            return {
                name: np.array([float(line[name] or "nan") for line in lines], np.float64)
                for name in (lines[0] if lines else ())
            }
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
            raise _unreadable(self.metrics) from error

    def write_summary(self, summary: Mapping[str, Any], text: str) -> None:
        """summary.json for machines, summary.txt for people."""
        self._write(self.summary_file, **summary)
        with self.summary_text.atomic() as path:
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
            return self.summary_text.read_text()
        except (OSError, ValueError) as error:
            raise _unreadable(self.summary_text) from error

    def write_arrays(self, path: GuardedPath, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Writes an npz file of named arrays; types that NumPy does not have, as float32."""
        known = {
            name: array.astype(np.float32) if array.dtype.kind == "V" else array  # bfloat16, float8
            for name, array in ((name, np.asarray(array)) for name, array in arrays.items())
        }
        with path.atomic() as temporary:
            np.savez(temporary, **known)  # type: ignore[arg-type]

    def read_arrays(
        self, path: GuardedPath, only: Container[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """Reads an npz file of named arrays.

        Args:
            path: of the file.
            only: names of the arrays to read; None for all.

        Raises:
            UserError: it is missing, damaged, holds pickles, is larger than memory, or no regular file.
        """
        try:
            with path.open() as file:
                return npz.read(file, path, only)
        except UserError:
            raise
        except Exception as error:  # zipfile, zlib and NumPy raise many kinds for a damaged file
            raise _unreadable(path) from error

    def save_model(self, model: Any, *, best: bool) -> None:
        """last.keras, and best.keras if these weights are the best so far."""
        with self.last.atomic() as path:
            model.save(path)
        if best:
            with self.best.atomic() as path, self.last.open() as saved, path.open("wb") as copy:
                shutil.copyfileobj(saved, copy)

    def write_checkpoint(self, epoch: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """What is needed to resume after an epoch; the checkpoint before it is kept as well."""
        self.write_arrays(self._checkpoint(epoch), arrays)
        self._keep_two_checkpoints()

    def _keep_two_checkpoints(self) -> None:
        for path in self._checkpoints()[:-2]:
            path.unlink()

    def can_go_on(self) -> bool:
        """Whether there is a checkpoint, readable or not."""
        return bool(self._checkpoints())

    def checkpoint(self) -> dict[str, NDArray[Any]] | None:
        """The last checkpoint that can be read, None without one."""
        for path in reversed(self._checkpoints()):
            try:
                return self.read_arrays(path)
            except UserError as error:
                logger.warning("%s", printable(error.what))
        return None

    def _checkpoint(self, epoch: int) -> GuardedPath:
        return self.last.parent / f"state_{epoch:06d}.npz"

    def _checkpoints(self) -> list[GuardedPath]:
        return self.last.parent.children("state_*.npz")

    def _write(self, path: GuardedPath, /, **content: Any) -> None:
        write_json(path, {"schema": SCHEMA_VERSION, **content})


class _Log(logging.StreamHandler[IO[str]]):
    """train.log. A full disk may cut it short; the run itself reports that.

    Names of files and layers, and what libraries say of them, are strangers' texts: people look at a log
    in a terminal, so control characters are escaped.
    """

    def __init__(self, log: GuardedPath) -> None:
        super().__init__(io.TextIOWrapper(log.append(), "utf-8", "backslashreplace", write_through=True))

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        self.stream.close()
        super().close()


def _if_there(path: GuardedPath, read: Callable[[GuardedPath], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read(path)
    except Missing:
        return {}


def _unreadable(path: GuardedPath) -> UserError:
    return UserError(
        f"{path.name} cannot be read", where=path, hint="the run did not finish, or the file is damaged"
    )
