"""The jobs of a sweep, read from their folders; a damaged folder is a status, never an error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cae_cli.errors import UserError
from cae_cli.options import key_of
from cae_cli.runs.reader import Entry, finite, is_run
from cae_cli.runs.sweep_folder import PlannedJob
from cae_cli.statistics.ranking import RANKING_METRICS
from cae_cli.system.guarded import GuardedPath, Unsafe

SEEDS = ("seed", "data.seed")  # keys that repeat the same configuration


@dataclass(frozen=True)
class HeldOut:
    """The images that a job was measured on.

    Attributes:
        name: test or validation.
        count: how many images.
        shape: (h, w, c) of each.
        black: mean squared error of a black image, which depends on the images alone.
        fingerprint: of all images of the run, including those for training.
    """

    name: str
    count: int
    shape: tuple[int, ...]
    black: float
    fingerprint: str

    def is_same(self, other: HeldOut) -> bool:
        """Whether both are the same images, even if the runs were trained on different ones."""
        if (self.name, self.count, self.shape) != (other.name, other.count, other.shape):
            return False
        # Sums differ slightly between machines.
        return self.fingerprint == other.fingerprint or math.isclose(
            self.black, other.black, rel_tol=1e-7
        )


@dataclass(frozen=True)
class Job:
    """A job.

    Attributes:
        folder: its run folder.
        values: the swept keys and their values as typed; "" for a key that the job does not set.
        status: not started, running, ok, failed, interrupted or unreadable.
        problem: the first problem of the diagnosis, or why there is no diagnosis.
        code: of the first finding, or "".
        figures: the metrics that were measured, by name; empty unless the job is ok.
        held_out: the images they were measured on; None unless the job is ok.
        layer: name of the first convolution, or "".
        seconds: from start to end; None unless it ended.
        severities: of its findings.
    """

    folder: GuardedPath
    values: Mapping[str, str]
    status: str
    problem: str = ""
    code: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    held_out: HeldOut | None = None
    layer: str = ""
    seconds: float | None = None
    severities: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name


def unplanned(folder: GuardedPath) -> tuple[tuple[str, ...], tuple[PlannedJob, ...]]:
    """The swept keys and the jobs of a folder without a sweep.json.

    Jobs are the sub-folders of runs. Swept are the keys whose values differ between the overrides of the
    runs; where these name different keys, between the configs.

    Args:
        folder: of the sweep.
    """
    runs = sorted(
        (Entry(path) for path in folder.children() if path.is_folder() and is_run(path)),
        key=lambda e: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", e.name)],
    )
    known = [entry for entry in runs if entry.setup]
    values = [_overrides(entry.overrides) for entry in known]
    if any(own.keys() != values[0].keys() for own in values) or not _swept(values):
        values = [_flat(entry.config) for entry in known]
    swept = _swept(values)
    by_run = dict(zip(known, values, strict=True))
    return swept, tuple(
        PlannedJob(entry.name, tuple(f"{k}={own[k]}" for k in swept if k in own))
        for entry in runs
        for own in (by_run.get(entry, {}),)
    )


def _swept(values: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Keys that have several values; an option that only some runs have comes with a choice."""
    keys = dict.fromkeys(key for own in values for key in own)
    return tuple(k for k in keys if len({own[k] for own in values if k in own}) > 1)


def _overrides(overrides: Iterable[str]) -> dict[str, str]:
    """Values by key."""
    return {key_of(word): word.partition("=")[2] for word in overrides if "=" in word}


def _flat(config: Any, prefix: str = "") -> dict[str, str]:
    """Every option of a config by its dotted key; of a group, what was chosen."""
    if not isinstance(config, dict):
        return {prefix: str(config)} if prefix else {}
    chosen = config.get("name", ",".join(map(str, config)) or "none")
    flat = {prefix: str(chosen)} if prefix else {}
    for key, value in config.items():
        if key != "name":
            flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def read_job(path: GuardedPath, planned: PlannedJob, swept: Sequence[str]) -> Job:
    """Reads a job.

    Args:
        path: its run folder.
        planned: the job.
        swept: keys of the sweep.
    """
    overrides = _overrides(planned.overrides)
    entry, values = Entry(path), {key: overrides.get(key, "") for key in swept}
    try:
        if not entry.run.status_file.exists():
            return Job(path, values, "not started")
    except (Unsafe, OSError) as refusal:  # a link or a file in place of the folder, no permission
        return Job(path, values, "unreadable", str(getattr(refusal, "what", refusal)))
    needed = ("status.json", "summary.json", "run.json") if entry.status == "ok" else ("status.json",)
    error = next((entry.errors[name] for name in needed if name in entry.errors), None)
    held_out = None
    if error is None and entry.status == "ok":
        try:
            held_out = _held_out(entry)
        except UserError as foreign:
            error = foreign
    if error is not None:
        return Job(path, values, "unreadable", error.what)
    is_ok = entry.status == "ok"
    name = entry.layers[0].get("name") if is_ok and entry.layers else None
    return Job(
        folder=path,
        values=values,
        status=entry.status,
        problem=entry.problem if is_ok else entry.reason or entry.problem,
        code=entry.code,
        figures={n: entry.figures[n] for n in RANKING_METRICS if n in entry.figures} if is_ok else {},
        held_out=held_out,
        layer=name if isinstance(name, str) else "",
        seconds=entry.seconds,
        severities=frozenset(finding["severity"] for finding in entry.findings),
    )


def _held_out(entry: Entry) -> HeldOut:
    """The images that were measured.

    Raises:
        UserError: the files do not describe them.
    """
    black, count = entry.metric("quality", "black_mse"), entry.metric("quality", "images")
    fingerprint, name = entry.held_out
    shape = entry.data.get("shape")
    if black is None or count is None or not name:
        raise UserError("summary.json is not a file of cae")
    if not fingerprint or not isinstance(shape, list):
        raise UserError("run.json does not describe the images")
    return HeldOut(name, int(count), tuple(int(finite(n) or 0) for n in shape), black, fingerprint)
