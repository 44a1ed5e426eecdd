"""What a report is made of: plain sections, lines and tables, rendered by `terminal`.

A part that is a plain string is a paragraph; "" is an empty line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len, set_cell_size

from cae_cli.errors import printable

MOST_LETTERS = 60  # of a cell that may be shortened; CSV and JSON have the whole
NARROWEST = 10  # columns of the terminal that a shortened column keeps
SPACE = "  "  # between columns
LIMITS = "limit"  # the name of the row of limits, which healthy values keep
STATUS_STYLES = {"ok": "green", "failed": "red", "interrupted": "yellow", "running": "cyan"}

Span = tuple[str, str]  # a text and its style in Rich's words


@dataclass(frozen=True)
class Line:
    """A paragraph.

    Attributes:
        spans: texts with their styles.
        indent: columns to its left.
        whole: never wrapped, so that it can be copied.
    """

    spans: tuple[Span, ...]
    indent: int = 0
    whole: bool = False

    def __str__(self) -> str:
        return "".join(text for text, _ in self.spans)


def line(*spans: str | Span, indent: int = 0, whole: bool = False) -> Line:
    """A paragraph of texts, with or without styles."""
    return Line(tuple((s, "") if isinstance(s, str) else s for s in spans), indent, whole)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: above it.
        cells: one text for each row.
        unit: of its numbers, or "".
        limit: that healthy numbers keep, as "< 40%", or "".
        right: numbers, aligned to the right.
        cut: may be shortened at its end where there is no room.
        middle: rather in its middle.
        spare: above 0 it may be left out where there is no room, the largest first.
        starred: rows that have a star.
        repeated: rows that have the text of the row above, which stands there once in plain text.
    """

    title: str
    cells: Sequence[str] = ()
    unit: str = ""
    limit: str = ""
    right: bool = False
    cut: bool = False
    middle: bool = False
    spare: int = 0
    starred: frozenset[int] = frozenset()
    repeated: frozenset[int] = frozenset()

    @property
    def heading(self) -> str:
        """The title with the unit."""
        return f"{self.title} / {self.unit}" if self.unit else self.title


@dataclass(frozen=True)
class Table:
    """A table. Columns without content are not shown.

    Attributes:
        columns: from left to right.
        bold: rows that are emphasised.
    """

    columns: Sequence[Column]
    bold: frozenset[int] = frozenset()

    @classmethod
    def of(cls, columns: Sequence[Column], rows: Sequence[Sequence[str]], bold: int = -1) -> Table:
        """A table from rows; ``columns`` have no cells yet, and one row may be emphasised."""
        cells = list(zip(*rows, strict=True)) or [()] * len(columns)
        filled = [replace(column, cells=own) for column, own in zip(columns, cells, strict=True)]
        return cls(filled, frozenset([bold]))

    def shown(self) -> list[Column]:
        """The columns with content; with a last row of limits where there are any."""
        columns = [column for column in self.columns if any(column.cells)]
        if not any(column.limit for column in columns):
            return columns
        limits = [LIMITS, *(column.limit for column in columns[1:])]
        return [replace(c, cells=[*c.cells, own]) for c, own in zip(columns, limits, strict=True)]


@dataclass(frozen=True)
class Command:
    """A command to copy."""

    text: str
    indent: int = 0


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: Sequence[Part]


Part = str | Line | Table | Command | Section


def table_lines(table: Table, room: int | None = None) -> list[list[Span]]:
    """A table as lines of text; a starred cell ends in a star.

    A thousand rows take no time, as they would as a table of Rich.

    Args:
        table: the table.
        room: columns of the terminal. Cells are shortened to fit; where that is not enough, spare
            columns are left out, of equal ones the last first. None: nothing is shortened.
    """
    shown = table.shown()
    texts = {id(column): _texts(column) for column in shown}
    widths = {key: max(map(cell_len, own)) for key, own in texts.items()}
    if room is not None:
        _fit(shown, widths, room)

    def styles(column: Column, row: int) -> str:
        if row < 0 or row in table.bold or row in column.starred:
            return "bold"
        if shown[0].cells[row] == LIMITS:
            return "dim"
        return STATUS_STYLES.get(column.cells[row], "") if column.title == "status" else ""

    lines: list[list[Span]] = []
    for row in range(max(map(len, texts.values()), default=0)):
        spans: list[Span] = []
        for column in shown:
            width = widths[id(column)]
            text = shortened(texts[id(column)][row], width, middle=column.middle)
            space = " " * (width - cell_len(text))
            spans.append((space + text if column.right else text + space, styles(column, row - 1)))
            spans.append((SPACE, ""))
        while spans and not spans[-1][0].strip():
            spans.pop()
        if spans:
            spans[-1] = (spans[-1][0].rstrip(), spans[-1][1])
        lines.append(spans)
    return lines


def _fit(columns: list[Column], widths: dict[int, int], room: int) -> None:
    gap = len(SPACE)

    def least(column: Column) -> int:
        width = widths[id(column)]
        return min(width, NARROWEST) if column.cut else width

    while sum(least(c) + gap for c in columns) - gap > room and any(c.spare for c in columns):
        columns.remove(max(reversed(columns), key=lambda column: column.spare))
    while sum(widths[id(c)] + gap for c in columns) - gap > room:
        wide = [id(c) for c in columns if widths[id(c)] > least(c)]
        if not wide:
            return
        widths[max(wide, key=lambda key: widths[key])] -= 1


def _texts(column: Column) -> list[str]:
    """The heading and the cells as they are shown."""
    star = " " if column.starred else ""
    texts = [printable(column.heading) + star]
    for row, cell in enumerate(column.cells):
        text = "" if row in column.repeated else cell if cell.isprintable() else printable(cell)
        text = shortened(text, MOST_LETTERS, middle=column.middle) if column.cut else text
        texts.append(text + ("*" if row in column.starred else star))
    return texts


def shortened(text: str, width: int, *, middle: bool = True) -> str:
    """The text in at most so many columns of the terminal, without its middle or its end."""
    if cell_len(text) <= width:
        return text
    head = (width - 1) // 2 if middle else width - 1
    # Reversed, the tail is cut where it begins.
    tail = set_cell_size(text[::-1], width - 1 - head)[::-1]
    return f"{set_cell_size(text, head)}…{tail}"


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def as_csv(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table for other programs: full numbers, nothing shortened."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles)
    for row in rows:
        writer.writerow("" if v is None else printable(v) if isinstance(v, str) else v for v in row)
    return text.getvalue()
