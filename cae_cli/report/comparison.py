"""Runs beside each other: the tables of ``cae runs`` and ``cae compare``, what differs, one picture."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size
from rich.console import RenderableType
from rich.text import Span, Text

from cae_cli.errors import UserError, printable
from cae_cli.system.files import atomic

MOST_LETTERS = 60  # of a cell that is cut; --csv and --json have the whole
MOST_PICTURED = 8  # images of a picture
NARROWEST = 10  # letters of a column that is cut
SPACE = "  "  # between columns
STATUS_STYLES = {"ok": "green", "failed": "red", "interrupted": "yellow", "running": "cyan"}
NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: above it.
        cells: one text for each row.
        right: numbers, aligned to the right.
        cut: may be shortened where there is no room.
        best: rows that are marked.
        spare: left out where there is no room.
    """

    title: str
    cells: Sequence[str]
    right: bool = False
    cut: bool = False
    best: frozenset[int] = frozenset()
    spare: bool = False


def table(columns: Sequence[Column]) -> Text:
    """Columns as a table; the best of a column has a star, and one without content is left out.

    On a terminal columns that may be cut are, until a row fits on a line, and those that can be
    spared go. A thousand rows take no time, as they would as a table of Rich.
    """
    shown = [column for column in columns if any(column.cells)]
    texts = {id(column): _texts(column) for column in shown}
    widths = {key: max(map(cell_len, own)) for key, own in texts.items()}
    if sys.stdout.isatty():
        _fit(shown, widths, shutil.get_terminal_size().columns)
    made, spans = [], []
    end = 0
    for row in range(max(map(len, texts.values()), default=0)):
        cells = []
        for column in shown:
            text, width = texts[id(column)][row], widths[id(column)]
            text = text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
            space = " " * (width - cell_len(text))
            cells.append(space + text if column.right else text + space)
            if style := _style(column, row - 1):
                start = end + sum(map(len, cells[:-1])) + len(SPACE) * (len(cells) - 1)
                spans.append(Span(start, start + len(cells[-1]), style))
        made.append(SPACE.join(cells).rstrip())
        end += len(made[-1]) + 1
    return Text("\n".join(made), no_wrap=True, spans=spans)


def _fit(columns: list[Column], widths: dict[int, int], room: int) -> None:
    """Makes rows fit: what can be spared goes, the last first, then what may be cut is cut."""
    gaps = len(SPACE)

    def least(column: Column) -> int:
        width = widths[id(column)]
        return min(width, NARROWEST) if column.cut else width

    while sum(least(c) + gaps for c in columns) - gaps > room and any(c.spare for c in columns):
        columns.remove([c for c in columns if c.spare][-1])
    while sum(widths[id(c)] + gaps for c in columns) - gaps > room:
        wide = [id(c) for c in columns if widths[id(c)] > least(c)]
        if not wide:
            return
        widths[max(wide, key=lambda key: widths[key])] -= 1


def _texts(column: Column) -> list[str]:
    """The title and the cells as they are shown."""
    star = " " if column.best else ""
    texts = [column.title + star]
    for row, cell in enumerate(column.cells):
        text = cell if cell.isprintable() else printable(cell)
        if column.cut and len(text) > MOST_LETTERS:
            text = f"{text[: MOST_LETTERS - 1]}…"
        texts.append(text + ("*" if row in column.best else star))
    return texts


def _style(column: Column, row: int) -> str:
    if row < 0:
        return "bold"
    if column.title == "status":
        return STATUS_STYLES.get(column.cells[row], "")
    return "bold" if row in column.best else ""


def number(value: float | None, digits: int) -> str:
    """A number of a table, nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    """A share in per cent."""
    return "" if value is None else f"{round(value, 3) + 0:.1%}"  # + 0: no negative zero


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def value(said: Any) -> str:
    """A value of a config as the command line has it."""
    if isinstance(said, float):
        return f"{said:.6g}" if float(f"{said:.6g}") == said else repr(said)
    if isinstance(said, list):
        return f"[{','.join(map(value, said))}]"
    return json.dumps(said) if said is None or isinstance(said, bool) else str(said)


def differences(
    sections: Mapping[str, Mapping[str, tuple[Any, Any]]], absent: Any
) -> list[RenderableType]:
    """What differs between two runs, in words.

    Args:
        sections: by name, the pairs that differ by theirs.
        absent: stands for what one of the two does not have.
    """
    parts: list[RenderableType] = []
    for name, pairs in sections.items():
        if not pairs:
            continue
        parts.append(Text(name, "bold"))
        for key, (before, after) in pairs.items():
            old, new = _in_words(before, after, absent)
            parts.append(
                Text.assemble(f"  {printable(key)}: ", (old, "red"), " → ", (new, "green"), no_wrap=True)
            )
    return parts


def _in_words(before: Any, after: Any, absent: Any) -> tuple[str, str]:
    """Two values that differ; numbers with as few digits as tell them apart."""
    if isinstance(before, float) and isinstance(after, float):
        short = f"{before:.6g}", f"{after:.6g}"
        return short if short[0] != short[1] else (repr(before), repr(after))
    old, new = (NOTHING if v is absent else printable(value(v)) for v in (before, after))
    return old, new


def as_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table for other programs: full numbers, nothing cut."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow("" if v is None else printable(v) if isinstance(v, str) else v for v in row)
    return text.getvalue()


def picture(
    path: Path, images: NDArray[Any], outputs: Mapping[str, NDArray[Any]], captions: Mapping[str, str]
) -> None:
    """Draws what several networks make of the same images, a row each, the images first.

    Args:
        path: of the PNG.
        images: (n, h, w, c).
        outputs: by the name of the run; the same shape.
        captions: what stands beside a run's name.

    Raises:
        UserError: it cannot be written.
    """
    from cae_cli.report.figures.tiles import DPI, grid, photo

    count = min(MOST_PICTURED, len(images))
    rows = [[photo(image) for image in part[:count]] for part in (images, *outputs.values())]
    names = [
        "\n".join(filter(None, (printable(name)[:28], printable(captions.get(name, ""))[:28])))
        for name in outputs
    ]
    drawn = grid("the same images through several networks", rows, ["input", *names])
    try:
        with atomic(path) as temporary:
            drawn.save(temporary, format="png", dpi=(DPI, DPI))
    except OSError as error:
        raise UserError(
            f"cannot write the picture: {(error.strerror or str(error)).lower()}", where=path
        ) from error


def same_images(parts: Sequence[NDArray[Any]]) -> bool:
    """Whether the example images of runs are the same, to the bit."""
    return all(part.shape == parts[0].shape and np.array_equal(part, parts[0]) for part in parts)
