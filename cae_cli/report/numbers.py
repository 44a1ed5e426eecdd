"""Numbers and values as text."""

from __future__ import annotations

import json
import math
import re
from typing import Any

NOTHING = "–"
UNITS = {"s": 1, "m": 60, "h": 3600}


def number(value: float | None, digits: int) -> str:
    """A number, nothing where there is none; one of many digits by its exponent."""
    if value is None or math.isnan(value):
        return ""
    return f"{round(value, digits) + 0:.{digits}f}" if abs(value) < 1e6 else f"{value:.1e}"


def share(value: float | None, digits: int = 1) -> str:
    """A share in per cent, nothing where there is none."""
    if value is None or math.isnan(value):
        return ""
    return f"{round(value, digits + 2) + 0:.{digits}%}"  # + 0: no negative zero


def with_margin(value: float, margin: float, digits: int, *, sign: bool = False) -> str:
    """A mean or a difference with the margin of its interval, where there is one."""
    text = number(value, digits)
    if sign and text and not text.startswith("-"):
        text = f"+{text}"
    return f"{text} ± {margin:.{digits}f}" if text and math.isfinite(margin) else text


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds: "12 s", "3:07", "1:00:30"; nothing where there is none."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"


def first_number(cell: str) -> float | None:
    """The number that a cell begins with, of a duration its seconds; None where there is none."""
    if match := re.fullmatch(r"(?:(\d+):)?(\d+):(\d\d)", cell):
        return 3600 * int(match[1] or 0) + 60 * int(match[2]) + int(match[3])
    match = re.match(r"[-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?", cell)
    return float(match[0].replace(",", "")) if match else None


def seconds_of(text: str) -> float:
    """The seconds of a time like 30s, 10m or 2h.

    Raises:
        ValueError: it is something else, with a message that begins with "must be".
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)([smh])", text)
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"must be a time like 90s, 10m or 2h, got {text!r}")
    return seconds


def value(option: Any) -> str:
    """A value of a config as the command line has it."""
    if isinstance(option, float):
        return f"{option:.6g}" if float(f"{option:.6g}") == option else repr(option)
    if isinstance(option, list):
        return f"[{','.join(map(value, option))}]"
    return json.dumps(option) if option is None or isinstance(option, bool) else str(option)
