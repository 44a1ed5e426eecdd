"""The jobs of a sweep, read from their folders: whatever lies there, a job is told, never a crash."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from cae_cli.diagnosis.finding import Severity
from cae_cli.errors import UserError
from cae_cli.options import key_of
from cae_cli.runs.folder import Run
from cae_cli.runs.sweep_folder import PlannedJob

SEEDS = ("seed", "data.seed")  # keys whose values are draws of the same configuration

# Where summary.json holds the metrics of `measures.ranking`.
IN_SUMMARY = {
    "psnr": ("quality", "psnr", "value"),
    "ssim": ("quality", "ssim", "value"),
    "mse": ("quality", "mse", "value"),
    "explained": ("quality", "explained_variance"),
    "meaningful": ("score", "value"),
}


@dataclass(frozen=True)
class HeldOut:
    """The images that a job was measured on, as far as its files tell them apart.

    Attributes:
        name: test or validation.
        count: how many.
        shape: of one.
        black: mean squared error of a black image in their place: a number of the images alone.
        fingerprint: of all images of the run, those for training too.
    """

    name: str
    count: int
    shape: tuple[int, ...]
    black: float
    fingerprint: str

    def is_same(self, other: HeldOut) -> bool:
        """Whether both are the same images, whatever the two runs were trained on."""
        if (self.name, self.count, self.shape) != (other.name, other.count, other.shape):
            return False
        # Another machine adds up in another order.
        return self.fingerprint == other.fingerprint or math.isclose(
            self.black, other.black, rel_tol=1e-7
        )


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        folder: its run folder.
        values: of the swept keys, as they were typed; "" for a key that it does not name.
        status: not started, running, ok, failed, interrupted or unreadable.
        problem: what the diagnosis names first, else why there is none.
        code: of the finding named first, else "".
        figures: metrics by name, as far as they were measured; {} unless the job is ok.
        held_out: the images they were measured on; None unless the job is ok.
        layer: name of the first convolution, else "".
        seconds: from start to end, else None.
        severities: of its findings.
    """

    folder: Path
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
        """Name of its folder."""
        return self.folder.name


def found(folder: Path) -> tuple[tuple[str, ...], tuple[PlannedJob, ...]]:
    """The swept keys and the jobs of a folder that nobody wrote a sweep.json into.

    Jobs are the sub-folders of runs. Swept are the keys whose values differ between the command lines
    that make the jobs again; where these name different keys, between the configs.

    Args:
        folder: of the sweep.
    """
    runs = sorted(
        (f for f in folder.iterdir() if any((f / n).is_file() for n in ("run.json", "status.json"))),
        key=lambda f: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", f.name)],
    )
    setups = []
    for run in runs:
        try:
            setups.append(Run(run).setup())
        except UserError:
            setups.append({})
    told = [_of_command(setup.get("command")) for setup in setups if setup]
    if any(values.keys() != told[0].keys() for values in told) or _swept(told) == ():
        told = [_flat(setup.get("config")) for setup in setups if setup]
    swept, rest = _swept(told), iter(told)
    of_runs = [next(rest) if setup else {} for setup in setups]
    return swept, tuple(
        PlannedJob(run.name, tuple(f"{key}={values[key]}" for key in swept if key in values))
        for run, values in zip(runs, of_runs, strict=True)
    )


def _swept(told: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Keys that have several values; an option that some lack is one of a choice that is told itself."""
    keys = dict.fromkeys(key for values in told for key in values)
    return tuple(k for k in keys if len({values[k] for values in told if k in values}) > 1)


def _of_command(command: Any) -> dict[str, str]:
    """Overrides by key."""
    words = command if isinstance(command, list) else []
    return _overrides(w for w in words if isinstance(w, str) and not w.startswith("-"))


def _overrides(words: Any) -> dict[str, str]:
    return {key_of(word): word.partition("=")[2] for word in words if "=" in word}


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


def read_job(folder: Path, planned: PlannedJob, swept: Sequence[str]) -> Job:
    """Reads a job.

    Args:
        folder: of the sweep.
        planned: the job.
        swept: keys of the sweep.
    """
    path = folder / planned.folder
    typed = _overrides(planned.overrides)
    values = {key: typed.get(key, "") for key in swept}
    run = Run(path)
    try:
        if path.exists() and not path.is_dir():
            raise UserError("there is a file in the place of its folder", where=path)
        status = run.status()
    except (UserError, OSError) as error:
        return _unreadable(path, values, error)
    told = status.get("status")
    if told is None:
        return Job(path, values, "not started")
    if told not in ("running", "ok", "failed", "interrupted"):
        return _unreadable(path, values, UserError("status.json is not a file of cae", where=path))
    reason = status.get("reason")
    seconds = _seconds(status)
    try:
        summary = run.summary() if told in ("ok", "failed") else {}
        setup = run.setup() if told == "ok" else {}
        if told == "ok":
            held_out, figures = _held_out(summary, setup), _figures(summary)
    except UserError as error:
        if told == "ok":
            return _unreadable(path, values, error)
        summary = {}
    problem, code, severities = _findings(summary)
    if told != "ok":
        why = str(reason) if reason else problem
        return Job(path, values, str(told), why, code, seconds=seconds, severities=severities)
    return Job(
        folder=path,
        values=values,
        status="ok",
        problem=problem,
        code=code,
        figures=figures,
        held_out=held_out,
        layer=_layers(summary)[0],
        seconds=seconds,
        severities=severities,
    )


def _unreadable(path: Path, values: Mapping[str, str], error: UserError | OSError) -> Job:
    what = error.what if isinstance(error, UserError) else f"cannot be read: {error.strerror}"
    return Job(path, values, "unreadable", what)


def _at(content: Any, *keys: str) -> Any:
    """What stands below some keys of a JSON file, None if nothing does."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _number(value: Any) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _held_out(summary: Mapping[str, Any], setup: Mapping[str, Any]) -> HeldOut:
    """The images that were measured.

    Raises:
        UserError: the files do not say it.
    """
    quality = _at(summary, "metrics", "quality")
    black, count = _number(_at(quality, "black_mse")), _number(_at(quality, "images"))
    shape, fingerprint = _at(setup, "data", "shape"), _at(setup, "data", "fingerprint")
    name = summary.get("held_out")
    if black is None or count is None or not isinstance(name, str):
        raise UserError("summary.json is not a file of cae")
    if not isinstance(fingerprint, str) or not isinstance(shape, list):
        raise UserError("run.json does not say what images there were")
    return HeldOut(name, int(count), tuple(int(_number(n) or 0) for n in shape), black, fingerprint)


def _figures(summary: Mapping[str, Any]) -> dict[str, float]:
    figures = {n: _number(_at(summary, "metrics", *keys)) for n, keys in IN_SUMMARY.items()}
    figures["inactive"] = _layers(summary)[1]
    return {name: value for name, value in figures.items() if value is not None}


def _layers(summary: Mapping[str, Any]) -> tuple[str, float | None]:
    """Name of the first convolution, and the share of inactive maps of them all."""
    layers = _at(summary, "metrics", "layers")
    layers = [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
    maps = [_at(layer, "maps", "inactive") for layer in layers]
    flags = [bool(flag) for inactive in maps if isinstance(inactive, list) for flag in inactive]
    name = layers[0].get("name") if layers else None
    return name if isinstance(name, str) else "", sum(flags) / len(flags) if flags else None


def _findings(summary: Mapping[str, Any]) -> tuple[str, str, frozenset[str]]:
    """The problem that is named first, its code, and how severe all findings are."""
    known = {severity.value for severity in Severity}
    listed = _at(summary, "diagnosis", "findings")
    findings = [
        f
        for f in (listed if isinstance(listed, list) else [])
        if isinstance(f, dict) and isinstance(f.get("severity"), str) and f["severity"] in known
    ]
    severities = frozenset(f["severity"] for f in findings)
    serious = [f for f in findings if f["severity"] != Severity.NOTE]
    if serious:
        return str(serious[0].get("problem", "")), str(serious[0].get("code", "")), severities
    if not _at(summary, "diagnosis"):
        return "", "", severities
    undecided = _at(summary, "diagnosis", "undecided")
    return "cannot tell" if undecided else "none found", "", severities


def _seconds(status: Mapping[str, Any]) -> float | None:
    """How long the job took."""
    try:
        started, ended = (datetime.fromisoformat(status[key]) for key in ("started", "ended"))
        return (ended - started).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
