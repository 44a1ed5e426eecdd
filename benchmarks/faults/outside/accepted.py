"""Which rules name the fault of a mutant rightly, from accepted.yaml beside this file.

The map was written down before the first mutant was judged; its history is that of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from benchmarks.faults.outside.operators import Change

FILE = Path(__file__).with_suffix(".yaml")
NEEDS = FILE.with_name("needs.yaml")


@dataclass(frozen=True)
class Accepted:
    """The accepted rules of an operator: their codes, and why."""

    rules: tuple[str, ...]
    reason: str


@cache
def table() -> Mapping[str, Accepted]:
    """All entries, by operator, with its place or direction where they differ."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return {key: Accepted(tuple(entry["rules"]), entry["reason"]) for key, entry in content.items()}


def accepted(change: Change) -> Accepted:
    """The entry of a change: that with its place or direction, else that of the operator."""
    entries = table()
    ends = [end for end in (change.place, direction(change)) if f"{change.operator}.{end}" in entries]
    return entries[f"{change.operator}.{ends[0]}" if ends else change.operator]


@cache
def needs() -> Mapping[str, str]:
    """What it would take to see the missed faults of each operator, in words."""
    content: dict[str, str] = yaml.safe_load(NEEDS.read_text(encoding="utf-8"))
    return content


def direction(change: Change) -> str:
    """Up or down for a change of a number, else nothing."""
    before, after = change.before, change.after
    if isinstance(before, int | float) and isinstance(after, int | float):
        return "up" if after > before else "down"
    return ""
