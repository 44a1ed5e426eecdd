"""What differs between two runs, value by value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cae_cli.errors import printable
from cae_cli.report.numbers import NOTHING, value
from cae_cli.report.sections import Part, Section, line


def differences(sections: Mapping[str, Mapping[str, tuple[Any, Any]]], absent: Any) -> list[Part]:
    """A section for each kind of difference.

    Args:
        sections: the pairs that differ by their key, by the name of the section.
        absent: stands for what one of the two runs does not have.
    """
    return [
        Section(
            name,
            [
                line(f"  {printable(key)}: ", (old, "red"), " → ", (new, "green"), whole=True)
                for key, (old, new) in ((key, _texts(*pair, absent)) for key, pair in pairs.items())
            ],
        )
        for name, pairs in sections.items()
        if pairs
    ]


def _texts(before: Any, after: Any, absent: Any) -> tuple[str, str]:
    """Two values that differ; numbers with as few digits as show it."""
    if isinstance(before, float) and isinstance(after, float):
        short = f"{before:.6g}", f"{after:.6g}"
        return short if short[0] != short[1] else (repr(before), repr(after))
    old, new = (NOTHING if v is absent else printable(value(v)) for v in (before, after))
    return old, new
