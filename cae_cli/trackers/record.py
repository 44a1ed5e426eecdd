"""What of a run is written to a tracker: whatever its folder holds that is not written yet.

What is written already is noted in the run's folder, in ``trackers/``. So a run that is resumed
continues where it is, and one that is written again gives nothing twice.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from cae_cli.errors import printable, to_paste
from cae_cli.report import figures
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import Missing, foreign, read_versioned, write_json
from cae_cli.runs.reader import Entry, is_sweep
from cae_cli.runs.registry import flat
from cae_cli.system import memory
from cae_cli.system.files import at_work, make, writing
from cae_cli.system.guarded import GuardedPath
from cae_cli.trackers.tracker import Facts, Result, Session, Tracker

SCHEMA_VERSION = 1  # of the notes
AT_ONCE = 50  # epochs that are written together


class Recording:
    """A run that is being written to a tracker. Locks ``trackers/`` in its folder until `close`.

    Args:
        run: its folder.
        tracker: where to.
        beat: is called before each thing that is written, with its name.

    Attributes:
        where: see `Session.where`.

    Raises:
        UserError: another process writes the run to a tracker; its folder cannot be written.
        Exception: of any kind, from the library of the tracker.
    """

    def __init__(self, run: Run, tracker: Tracker, beat: Callable[[str], None]) -> None:
        self._run, self._tracker, self._beat = run, tracker, beat
        folder = run.root / "trackers"
        make(folder)
        self._lock = at_work(folder)
        self._lock.__enter__()
        try:
            beat("starting")
            place = hashlib.sha256(tracker.destination().encode()).hexdigest()[:8]
            self._notes = folder / f"{tracker.name}_{place}.json"
            self._id, self.where, self._epoch, self._written = _read(self._notes, tracker)
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    @functools.cached_property
    def _session(self) -> Session:
        """Opened when there is something to write: some trackers keep what is opened for nothing."""
        session = self._tracker.open(_facts(self._run), self._id)
        self._id, self.where = session.id, session.where
        self._note()
        return session

    def update(self) -> None:
        """Writes the epochs and pictures that there are."""
        self._epochs()
        for epoch, path in self._run.snapshots().items():
            self._picture_of(epoch, path)

    def close(self) -> None:
        """Writes what there is, and the result if the run has ended."""
        try:
            self.update()
            entry = Entry(self._run.root)
            status = entry.status if entry.status != "unknown" else "ok"
            if status != "running" and self._run.summary_file.exists():
                self._result()
            if self._is_new("status", status.encode()) or "_session" in vars(self):
                self._beat("closing")
                took = entry.seconds
                ended = entry.started and took and entry.started + timedelta(seconds=took)
                self._session.close(status, ended or None)
                self._note()
        finally:
            self._lock.__exit__(None, None, None)

    def _epochs(self) -> None:
        if not self._run.metrics.exists():
            return
        columns = self._run.read_metrics()
        rows = [
            dict(zip(columns, map(float, row), strict=True))
            for row in zip(*columns.values(), strict=True)
        ]
        new = [(int(row.pop("epoch")), row) for row in rows if row["epoch"] > self._epoch]
        for start in range(0, len(new), AT_ONCE):
            batch = new[start : start + AT_ONCE]
            self._beat(f"epoch {batch[-1][0]}")
            self._session.metrics(
                [(epoch, {k: v for k, v in row.items() if math.isfinite(v)}) for epoch, row in batch]
            )
            self._epoch = batch[-1][0]
            self._note()

    def _picture_of(self, epoch: int, snapshot: GuardedPath) -> None:
        name = f"snapshot {epoch}"
        if name in self._written:
            return
        self._beat(name)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "snapshot.png"
            figures.after_epoch(self._run.read_arrays(snapshot)).save(path)
            self._session.image("filters_and_reconstructions", epoch, path)
        self._written[name] = ""
        self._note()

    def _result(self) -> None:
        result = _result(self._run)
        text = json.dumps([result.verdict, dict(result.findings), dict(result.figures), result.epoch])
        if self._is_new("result", text.encode()):
            self._session.result(result)
            self._note()
        files = [self._run.page, self._run.summary_text, self._run.summary_file]
        files += [self._run.best, self._run.last] * self._tracker.model
        for path in files:
            with self._new(path) as copy:
                if copy is not None:
                    self._session.file(copy)
        for path in figures.drawn(self._run):
            with self._new(path) as copy:
                if copy is not None:
                    self._session.figure(self._name(path).removesuffix(".png"), result.epoch, copy)

    def _name(self, path: GuardedPath) -> str:
        return "/".join(path.parts[len(self._run.root.parts) :])

    @contextlib.contextmanager
    def _new(self, path: GuardedPath) -> Iterator[Path | None]:
        """A copy of a file that is not written yet, else None. A stranger's folder may hold links."""
        content = b""
        if path.exists():
            with path.open() as file:
                hint = f"remove it: {to_paste('rm', path)}"
                memory.check(os.fstat(file.fileno()).st_size, path.name, path, hint)
                content = file.read()
        if not content or not self._is_new(self._name(path), content):
            yield None
            return
        with TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(content)
            yield copy
        self._note()

    def _is_new(self, name: str, content: bytes) -> bool:
        """Whether this content is not written yet; it is noted as soon as it is."""
        digest = hashlib.sha256(content).hexdigest()[:16]
        if self._written.get(name) == digest:
            return False
        self._beat(name)
        self._written[name] = digest
        return True

    def _note(self) -> None:
        with writing(self._notes):
            write_json(
                self._notes,
                {
                    "schema": SCHEMA_VERSION,
                    "id": self._id,
                    "where": self.where,
                    "epoch": self._epoch,
                    "written": self._written,
                },
            )


def _read(notes: GuardedPath, tracker: Tracker) -> tuple[str | None, str, int, dict[str, str]]:
    """`Session.id` and `Session.where`, last epoch, and by name what else is written already."""
    try:
        content = read_versioned(notes, SCHEMA_VERSION)
    except Missing:
        return None, "", -1, {}
    match content:
        case {
            "id": str(known), "where": str(where), "epoch": int(epoch), "written": dict(written),
        } if tracker.is_place(where):  # fmt: skip
            return known, where, epoch, {str(name): str(digest) for name, digest in written.items()}
    raise foreign(notes)


def _facts(run: Run) -> Facts:
    entry = Entry(run.root)
    above = run.folder.absolute().parent
    known = flat(entry.config)
    changed: dict[str, str | float] = {}
    for word in entry.overrides:
        key, _, text = word.lstrip("+").partition("=")
        value = known.get(key)
        if key.partition(".")[0] != "tracker":  # that changes nothing
            changed[key] = value if isinstance(value, int | float) else text
    return Facts(
        name=run.folder.name
        if is_sweep(above)
        else printable(f"{entry.task} {entry.id}").replace("/", "_"),
        group=above.name if is_sweep(above) else None,
        folder=run.folder.absolute(),
        tags=entry.tags,
        config=entry.config,
        changed=changed,
        began=entry.begun,
    )


def _result(run: Run) -> Result:
    entry = Entry(run.root)
    epoch = run.training().get("measured_epoch") if run.has_ended() else None
    return Result(
        verdict=entry.verdict,
        findings={str(f.get("code")): str(f.get("problem")) for f in entry.findings},
        figures=entry.figures,
        text=run.read_summary_text(),
        epoch=epoch if isinstance(epoch, int) else 0,
    )
