"""Filters of ``cae runs ls``, and the order of a table.

status=ok  tag=best  since=2d  loss=ssim  loss.window>7  psnr>20  photos
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cae_cli.errors import UserError, did_you_mean
from cae_cli.runs.reader import Entry
from cae_cli.runs.registry import flat
from cae_cli.statistics.ranking import RANKING_METRICS

# Properties of a run that a filter may name, besides metrics and the keys of its config.
PROPERTIES: dict[str, Callable[[Entry], str]] = {
    "status": lambda entry: entry.status,
    "task": lambda entry: entry.task,
    "id": lambda entry: entry.id,
}
RISES = {**{y.name: y.rises for y in RANKING_METRICS.values()}, "duplicates": False, "prunable": False}
FIGURES = (*RISES, "seconds")

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


@dataclass(frozen=True)
class Condition:
    """A filter: ``loss.window>7``, or a piece of text.

    Attributes:
        word: as typed.
        key: what is compared; empty for a piece of text that is searched in all that is shown.
        sign: one of = != < > <= >=.
        value: what it is compared with.
    """

    word: str
    key: str
    sign: str
    value: str

    @classmethod
    def of(cls, word: str) -> Condition:
        """Parses a filter.

        Raises:
            UserError: the value must be a number or a time, and is not.
        """
        match = re.fullmatch(r"([\w./@-]+?)\s*(!=|<=|>=|=|<|>)\s*(.*)", word, re.DOTALL)
        if not match:
            return cls(word, "", "=", word)
        self = cls(word, *match.groups())
        if self.key == "since":
            _since(self)
        elif self.sign in _SIGNS and _as_number(self.value) is None:
            raise UserError(
                f"{self.key} is compared with a number, got {self.value!r}",
                where=f"command line: {word}",
                hint=f"'{self.key}{self.sign}20'",
            )
        return self

    def holds(self, entry: Entry) -> bool:
        """Whether a run matches."""
        if not self.key:
            shown = (entry.id, entry.name, entry.task, entry.status, entry.reason, entry.verdict)
            return any(self.value in text for text in (*shown, *entry.command, *entry.tags))
        if self.key == "since":
            return entry.begun >= _since(self)
        if self.key in ("tag", "tags"):
            return (self.value in entry.tags) == (self.sign == "=")
        values = list(self._values(entry))
        if self.sign in _SIGNS:
            numbers = (n for v in values if (n := _as_number(v)) is not None)
            limit = _as_number(self.value)
            return limit is not None and any(_SIGNS[self.sign](n, limit) for n in numbers)
        return any(_same(v, self.value) for v in values) == (self.sign == "=")

    def _values(self, entry: Entry) -> Iterable[Any]:
        """The values of the run at the key; several where several options are chosen."""
        if self.key in PROPERTIES:
            return [PROPERTIES[self.key](entry)]
        name = self.key.removeprefix("val/")
        if name in FIGURES:
            return [entry.figures[name]] if name in entry.figures else []
        node: Any = entry.config
        for part in self.key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                return _chosen(entry, self.key)
            node = node[part]
        if not isinstance(node, Mapping):
            return [node]
        if "name" in node:
            return [node["name"]]
        if all(isinstance(inner, Mapping) for inner in node.values()):
            return list(node) or ["none"]
        return _chosen(entry, self.key)


def _chosen(entry: Entry, group: str) -> list[Any]:
    """The option of a group whose name is not in the config: model, experiment."""
    choice = entry.choices.get(group)
    return [] if choice is None else [choice]


def select(entries: Sequence[Entry], conditions: Sequence[Condition]) -> list[Entry]:
    """The runs that match all filters.

    Raises:
        UserError: no run has the key of a filter.
    """
    for condition in conditions:
        _check_known(condition.key, condition.word, entries)
    return [e for e in entries if all(condition.holds(e) for condition in conditions)]


def ordered(entries: Sequence[Entry], metric: str) -> list[Entry]:
    """The runs sorted by a metric, best first, those without it last.

    Raises:
        UserError: there is no such metric.
    """
    name = checked_metric(metric)
    known = [e for e in entries if name in e.figures]
    known.sort(key=lambda e: e.figures[name], reverse=RISES.get(name, False))
    return known + [e for e in entries if name not in e.figures]


def checked_metric(metric: str) -> str:
    """The short name of a metric.

    Raises:
        UserError: there is no such metric.
    """
    name = metric.removeprefix("val/")
    if name not in FIGURES:
        raise UserError(
            f"there is no metric {metric!r}",
            where="command line",
            hint=did_you_mean(name, FIGURES, "the metrics are"),
        )
    return name


def _check_known(key: str, word: str, entries: Sequence[Entry]) -> None:
    """Raises for a key that no run has, which is most likely a typo."""
    if (
        key in ("", "since", "tag", "tags", *PROPERTIES)
        or key.removeprefix("val/") in FIGURES
        or not entries
    ):
        return
    known = {"since", "tag", *PROPERTIES, *FIGURES}
    for entry in entries:
        leaves = flat(entry.config)
        groups = {leaf.rpartition(".")[0] for leaf in leaves} - {""}
        known |= {*leaves, *groups, *entry.config, *entry.choices}
        if key in known:
            return
    raise UserError(f"no run has {key!r}", where=f"command line: {word}", hint=_close(key, known))


def _close(key: str, known: set[str]) -> str:
    """A hint with the nearest key, or all keys without a dot."""
    hint = did_you_mean(key, known)
    return hint if hint.startswith("did") else did_you_mean(key, {k for k in known if "." not in k})


def _since(condition: Condition) -> datetime:
    """The time that ``2d`` before now or a date means.

    Raises:
        UserError: the value is neither.
    """
    now = datetime.now().astimezone()
    span = re.fullmatch(r"(\d{1,6})([mhdw])", condition.value)
    try:
        if condition.sign != "=":
            raise ValueError
        if span:
            return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
        return datetime.fromisoformat(condition.value).astimezone()
    except (ValueError, OverflowError):
        raise UserError(
            f"since needs a span or a date, got {condition.sign}{condition.value}",
            where=f"command line: {condition.word}",
            hint="since=2d (m, h, d, w), since=2026-01-31 or since=2026-01-31T18:00",
        ) from None


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _same(value: Any, text: str) -> bool:
    """Whether a value of a config equals the typed one: numbers as numbers, lists as in YAML."""
    number, typed = _as_number(value), _as_number(text)
    if number is not None and typed is not None and not isinstance(value, str):
        return number == typed
    shown = value if isinstance(value, str) else json.dumps(value)
    return "".join(shown.split()).replace('"', "") == "".join(text.split()).replace('"', "")
