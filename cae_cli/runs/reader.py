"""The one tolerant reader of run folders.

If a file is damaged, foreign or of another version of cae, its values are missing and the reason is
kept.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from cae_cli.errors import UserError
from cae_cli.runs.command import fit_to_paste
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import Missing, OlderVersion, foreign, read_versioned
from cae_cli.runs.sweep_folder import STATUSES, SweepFolder
from cae_cli.system.guarded import GuardedPath, guard

# The name of a folder that `system.files.claim` made.
STAMP = re.compile(r"(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)_(\w+)")

# A folder with one of these files is a run.
_OF_A_RUN = [path.name for path in (Run(Path()).status_file, Run(Path()).setup_file)]

# Metrics that mean the same for every loss, and where summary.json holds them.
IN_SUMMARY = {
    "psnr": ("quality", "psnr", "value"),
    "ssim": ("quality", "ssim", "value"),
    "mse": ("quality", "mse", "value"),
    "explained": ("quality", "explained_variance"),
    "meaningful": ("score", "value"),
}
SEVERITIES = ("error", "warning", "note")


class Entry:
    """A run as its files describe it; each file is read when it is first needed.

    Args:
        folder: of the run; a `GuardedPath` if it is inside another folder that may be a stranger's.
        root: the folder that its name is relative to; None for its parent.
        number: position of the run in the order of all runs, from 1; 0 if it has none.
    """

    def __init__(self, folder: Path | GuardedPath, root: Path | None = None, number: int = 0) -> None:
        self.run = Run(folder)
        self.folder = shown = self.run.folder
        self.number = number
        root = shown.parent if root is None else root
        self.name = shown.relative_to(root).as_posix() if shown != root else shown.name
        self._errors: dict[str, UserError] = {}

    # -- files -------------------------------------------------------------------------------------

    @cached_property
    def setup(self) -> dict[str, Any]:
        """run.json, {} if it cannot be read."""
        return self._read(self.run.setup_file)

    @cached_property
    def _state(self) -> dict[str, Any]:
        """status.json, {} if it cannot be read. A run whose process is gone is not running."""
        return self._read(self.run.status_file, lambda _: self.run.status())

    @cached_property
    def _summary(self) -> dict[str, Any]:
        return self._read(self.run.summary_file)

    @cached_property
    def _tags(self) -> dict[str, Any]:
        return self._read(self.run.tags_file)

    def _read(
        self, path: GuardedPath, read: Callable[[GuardedPath], dict[str, Any]] = read_versioned
    ) -> dict[str, Any]:
        try:
            return read(path)
        except Missing:
            return {}
        except UserError as error:
            self._errors[path.name] = error
            return {}

    @property
    def errors(self) -> dict[str, UserError]:
        """What is wrong with its files, by their names."""
        _ = self.setup, self._state, self._summary, self._tags
        needed = [self.run.status_file]
        if self.status == "ok":
            needed += [self.run.setup_file, self.run.summary_file]
        errors = dict(self._errors)
        for file in needed:
            if file.name not in errors and not file.exists():
                errors[file.name] = UserError(f"{file.name} is missing", where=self.folder)
        if self._state and self.status == "unknown":
            errors[self.run.status_file.name] = foreign(self.run.status_file)
        return errors

    @property
    def problems(self) -> list[UserError]:
        """What is wrong with its files; an older version is reported once."""
        unique = {e.hint if isinstance(e, OlderVersion) else n: e for n, e in self.errors.items()}
        return list(unique.values())

    @property
    def warnings(self) -> list[str]:
        """`problems` as lines."""
        return [
            f"{e.what} ({e.where})" + (f"; {e.hint}" if isinstance(e, OlderVersion) else "")
            for e in self.problems
        ]

    # -- the run ------------------------------------------------------------------------------------

    @cached_property
    def begun(self) -> datetime:
        """When the run began; resuming it does not change that."""
        stamp = STAMP.fullmatch(self.folder.name)
        named = f"{stamp[1]}T{stamp[2]}:{stamp[3]}:{stamp[4]}" if stamp else None
        for text in (self.setup.get("time"), named):
            if (moment := _moment(text)) is not None:
                return moment
        if self.started is not None:
            return self.started
        try:
            return datetime.fromtimestamp(self.folder.stat().st_mtime).astimezone()
        except OSError:
            return datetime.fromtimestamp(0).astimezone()

    @property
    def started(self) -> datetime | None:
        """When its process started; the last process of a run that was resumed."""
        return _moment(self._state.get("started"))

    @property
    def status(self) -> str:
        """Running, ok, failed or interrupted; "unknown" without a readable status."""
        status = self._state.get("status")
        return status if isinstance(status, str) and status in STATUSES else "unknown"

    @property
    def reason(self) -> str:
        """Why it failed or was interrupted, or nothing."""
        return str(self._state.get("reason") or "")

    @property
    def seconds(self) -> float | None:
        """From `started` to its end."""
        ended = _moment(self._state.get("ended"))
        return (ended - self.started).total_seconds() if self.started and ended else None

    @property
    def command(self) -> list[str]:
        """The command that made it, as far as it is fit to paste."""
        return fit_to_paste(self.setup.get("command"))

    @property
    def from_elsewhere(self) -> bool:
        """Whether ``cae train`` did not train it: a run of the callback, or the diagnosis of a file."""
        missing = not self.setup and self.run.setup_file.name not in self._errors
        return missing or self.setup.get("command") == []

    @property
    def overrides(self) -> list[str]:
        """The overrides of its command."""
        return [word for word in self.command[2:] if not word.startswith("-")]

    @property
    def config(self) -> dict[str, Any]:
        """Its resolved config."""
        return _dict(self.setup.get("config"))

    @property
    def choices(self) -> dict[str, Any]:
        """The chosen option of each config group."""
        return _dict(self.setup.get("choices"))

    @property
    def task(self) -> str:
        """Its ``task_name``, else the folder that it is in."""
        return str(self.config.get("task_name") or self.folder.parent.name)

    @property
    def data(self) -> dict[str, Any]:
        """The images as run.json describes them."""
        return _dict(self.setup.get("data"))

    @property
    def tags(self) -> list[str]:
        """Those of tags.json, else those of the config."""
        return [str(tag) for tag in _list(self._tags.get("tags", self.config.get("tags")))]

    @property
    def held_out(self) -> tuple[str, str]:
        """Fingerprint of its images and the name of the measured part; "" where not known."""
        return str(self.data.get("fingerprint") or ""), str(self._summary.get("held_out") or "")

    # -- diagnosis ---------------------------------------------------------------------------------

    @property
    def verdict(self) -> str:
        """The diagnosis in one line, or nothing."""
        return str(self._summary.get("verdict") or "")

    @cached_property
    def findings(self) -> list[dict[str, Any]]:
        """Its findings, as far as they have a severity."""
        listed = _list(at(self._summary, "diagnosis", "findings"))
        return [f for f in listed if isinstance(f, dict) and f.get("severity") in SEVERITIES]

    @property
    def _first(self) -> dict[str, Any]:
        """The first finding that is not a note."""
        return next((f for f in self.findings if f["severity"] != "note"), {})

    @property
    def code(self) -> str:
        """Code of the first finding, or nothing."""
        return str(self._first.get("code") or "")

    @property
    def problem(self) -> str:
        """The diagnosis in a few words, or why there is none."""
        diagnosis = _dict(self._summary.get("diagnosis"))
        if not diagnosis:
            return self.reason
        if self._first:
            return str(self._first.get("problem") or "")
        return "cannot tell" if diagnosis.get("undecided") else "none found"

    # -- numbers -----------------------------------------------------------------------------------

    def metric(self, *keys: str) -> float | None:
        """A finite number of the metrics in summary.json, None if there is none."""
        return finite(at(self._summary, "metrics", *keys))

    @cached_property
    def layers(self) -> list[dict[str, Any]]:
        """The metrics of its convolutions."""
        layers = _list(at(self._summary, "metrics", "layers"))
        return [layer for layer in layers if isinstance(layer, dict)]

    @cached_property
    def figures(self) -> dict[str, float]:
        """Its metrics by short name; see `statistics.ranking.RANKING_METRICS`.

        ``inactive``, ``duplicates`` and ``prunable`` are shares from 0 to 1 of all filters: those whose
        map is the same for every image, those whose map repeats another, and those whose removal changes
        next to nothing. Layers whose duplicates are not counted do not count there, see
        `metrics.collect.Layer`. ``seconds`` is how long the run took.
        """
        inactive = [f for layer in self.layers for f in _list(at(layer, "maps", "inactive"))]
        counted = [layer for layer in self.layers if finite(layer.get("duplicates")) is not None]
        filters = sum(finite(layer.get("filters")) or 0 for layer in counted)
        duplicates = sum(finite(layer.get("duplicates")) or 0 for layer in counted)
        prunable = [p for layer in self.layers if (p := finite(layer.get("prunable"))) is not None]
        figures = {name: self.metric(*keys) for name, keys in IN_SUMMARY.items()} | {
            "inactive": sum(map(bool, inactive)) / len(inactive) if inactive else None,
            "duplicates": duplicates / filters if filters else None,
            "prunable": sum(prunable) / len(prunable) if prunable else None,
            "seconds": self.seconds,
        }
        return {name: value for name, value in figures.items() if value is not None}

    @property
    def val_loss(self) -> float | None:
        """Validation loss of the weights that were kept, else of the last epoch."""
        try:
            columns = self.run.read_metrics()
            kept = self.run.training().get("measured_epoch") if self.run.has_ended() else None
            rows = [i for i, epoch in enumerate(columns["epoch"]) if epoch == kept]
            return finite(float(columns["val/loss"][rows[-1] if rows else -1]))
        except (UserError, KeyError, IndexError):
            return None

    def trained(self) -> tuple[int, float | None]:
        """The number of trained epochs and the last training loss; not cached."""
        try:
            columns = self.run.read_metrics()
            return int(columns["epoch"][-1]), finite(float(columns["train/loss"][-1]))
        except (UserError, KeyError, IndexError, ValueError):
            return 0, None

    # -- names -------------------------------------------------------------------------------------

    @cached_property
    def id(self) -> str:
        """The short name that it is found by."""
        return id_of(self.folder)

    @cached_property
    def names(self) -> set[str]:
        """All names that it can be found by."""
        own, above = ({path.name, short_name(path)} for path in (self.folder, self.folder.parent))
        return {self.name, *own, *(f"{a}/{name}" for a in above for name in own)}


def is_run(folder: Path | GuardedPath) -> bool:
    """Whether a folder is that of a run."""
    return any(exists(guard(folder).shown / name) for name in _OF_A_RUN)


def exists(path: Path) -> bool:
    """Whether a path exists, which may be any text."""
    try:
        return os.path.lexists(path)
    except ValueError:  # a NUL byte
        return False


def is_sweep(folder: Path) -> bool:
    """Whether a folder that holds runs is that of a sweep."""
    return SweepFolder(folder).is_written() or bool(STAMP.fullmatch(folder.name))


def short_name(folder: Path) -> str:
    """The four letters of a folder that `system.files.claim` made, else the whole name."""
    stamp = STAMP.fullmatch(folder.name)
    return stamp[5] if stamp else folder.name


def id_of(folder: Path) -> str:
    """The short name of a run: the four letters of its folder, after those of its sweep for a job."""
    own, above = short_name(folder), folder.parent
    return f"{short_name(above)}/{own}" if is_sweep(above) else own


def at(tree: Any, *keys: str) -> Any:
    """What is at a path of a tree, None if there is nothing."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def finite(value: Any) -> float | None:
    """A finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _moment(text: Any) -> datetime | None:
    """A time of a file, with its time zone."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
