"""The contact sheet of a sweep: first filters and reconstructions of all jobs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cae_cli.report.figures.tiles import TILE, Array, Colours, fitted, grid, photo

if TYPE_CHECKING:
    from PIL import Image

MOST_FILTERS, MOST_IMAGES = 8, 6
MOST_JOBS = 40  # rows
NAME, MOST_LINES = 44, 4  # letters of a line of a row's name, and lines
WIDEST = 3 * TILE  # pixels of a tile; wider images are reduced


@dataclass(frozen=True)
class Sheet:
    """A job.

    Attributes:
        lines: its name and its result, a line each.
        kernel: (k, k, inputs, filters) of its first convolution, most used first; None if it has none.
        images: (n, h, w, c) held-out images; None for a job that was not measured.
        outputs: (n, h, w, c) their reconstructions.
    """

    lines: tuple[str, ...]
    kernel: Array | None = None
    images: Array | None = None
    outputs: Array | None = None


def contact(sheets: Sequence[Sheet], left_out: int = 0) -> Image.Image | None:
    """The contact sheet; None if no job has anything to show.

    Jobs stand below the images that they were measured on.

    Args:
        sheets: in the order of the leaderboard, at most `MOST_JOBS`.
        left_out: number of jobs that are not shown.
    """
    first = next((sheet.images for sheet in sheets if sheet.images is not None), None)
    if first is None:
        return None
    width = min(WIDEST, max(photo(s.images[0]).shape[1] for s in sheets if s.images is not None))
    rows: list[list[Array | None]] = []
    names: list[str] = []
    groups: list[int] = []
    current: Array | None = None
    for sheet in sheets:
        images = sheet.images
        if not groups or (images is not None and (current is None or not _are_same(images, current))):
            current = first if images is None else images
            rows.append([*[None] * (MOST_FILTERS + 1), *_photos(current, width)])
            names.append("held-out images")
            groups.append(1)
        rows.append([*_filters(sheet.kernel, width), None, *_photos(sheet.outputs, width)])
        folded = [part for line in sheet.lines for part in _folded(line)]
        names.append("\n".join(folded[:MOST_LINES]))
        groups[-1] += 1
    more = f" {left_out} more jobs are not shown." if left_out else ""
    return grid(
        "Filters and reconstructions of all jobs, best first",
        rows,
        names,
        cell=0.6,
        caption="Left: filters of the first convolution, most used first, mean over their input "
        "channels; blue negative, white 0, red positive, one scale for each job. Right: "
        f"reconstructions of the held-out images above.{more}",
        groups=groups,
    )


def _are_same(images: Array, others: Array) -> bool:
    return images.shape == others.shape and bool(np.allclose(images, others, atol=1e-6, equal_nan=True))


def _filters(kernel: Array | None, width: int) -> list[Array | None]:
    if kernel is None:
        return [None] * MOST_FILTERS
    planes = [kernel[..., f].mean(axis=2) for f in range(min(MOST_FILTERS, kernel.shape[3]))]
    colours = Colours(planes, signed=True)
    cell = np.zeros((TILE, width), np.float32)
    tiles: list[Array | None] = [fitted(plane, colours, cell) for plane in planes]
    return tiles + [None] * (MOST_FILTERS - len(tiles))


def _photos(images: Array | None, width: int) -> list[Array | None]:
    if images is None:
        return []
    return [_framed(photo(image), width) for image in images[:MOST_IMAGES]]


def _framed(tile: Array, width: int) -> Array:
    """A tile in the middle of a cell of so many pixels, made smaller where it is wider."""
    if tile.shape[1] > width:
        rows = np.arange(max(1, TILE * width // tile.shape[1])) * tile.shape[1] // width
        columns = np.arange(width) * tile.shape[1] // width
        tile = tile[np.minimum(rows, TILE - 1)][:, columns]
    canvas = np.ones((TILE, width, 3), np.float32)
    top, left = (TILE - tile.shape[0]) // 2, (width - tile.shape[1]) // 2
    canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return canvas


def _folded(line: str) -> list[str]:
    """A text in two lines or three; the middle of a longer one is left out."""
    if len(line) > 2 * NAME:
        line = f"{line[: NAME - 5]}…{line[5 - NAME :]}"
    # A word that is longer than a line is cut, as names of files may be.
    return textwrap.wrap(line, NAME, break_on_hyphens=False)[:3]
