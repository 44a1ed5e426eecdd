"""Tiles: small arrays of colours, put together as one array and drawn at once.

Drawing a hundred small axes takes Matplotlib seconds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float32]

SIGNED = "RdBu_r"  # blue is negative, white 0, red positive
POSITIVE = "viridis"
DPI = 110
TILE = 64  # pixels of a tile's height in the arrays; Matplotlib scales them to the figure
GAP = 6


def mosaic(rows: Sequence[Sequence[Array | None]], gap: int = GAP) -> Array:
    """Tiles of one size in rows, transparent between them and where a tile is None.

    Args:
        rows: of (h, w, 3) tiles with colours in [0, 1].
        gap: pixels between tiles.

    Returns:
        (H, W, 4).
    """
    first = next(tile for row in rows for tile in row if tile is not None)
    h, w = first.shape[:2]
    columns = max(map(len, rows))
    canvas = np.zeros((len(rows) * (h + gap) - gap, columns * (w + gap) - gap, 4), np.float32)
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            if tile is not None:
                place = canvas[r * (h + gap) : r * (h + gap) + h, c * (w + gap) : c * (w + gap) + w]
                place[..., :3], place[..., 3] = tile, 1
    return canvas


def sized(values: Array, width: int | None = None) -> Array:
    """(h, w) or (h, w, 3) at a height of `TILE` pixels: pixels stay sharp when enlarged.

    Args:
        values: the pixels.
        width: of the result; None: what keeps the proportions.
    """
    h, w = values.shape[:2]
    height, width = TILE, width or max(1, round(TILE * w / h))
    if h > height:  # reduced: mean over the pixels that a new one covers
        from PIL import Image

        planes = np.moveaxis(np.atleast_3d(values), 2, 0).astype(np.float32)
        small = [Image.fromarray(p).resize((width, height), Image.Resampling.BOX) for p in planes]
        return np.squeeze(np.stack([np.asarray(s) for s in small], axis=2))
    rows = np.arange(height) * h // height
    columns = np.arange(width) * w // width
    sharp: Array = values[rows][:, columns]
    return sharp


def photo(image: Array) -> Array:
    """An image (h, w, c) as a tile; other than three channels are shown as their mean, in grey."""
    image = np.clip(np.nan_to_num(image), 0, 1)
    if image.shape[2] != 3:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    return np.clip(sized(image), 0, 1)


class Colours:
    """A colour map with its scale, for tiles and for the legend beside them."""

    def __init__(self, values: Sequence[Array], *, signed: bool = False) -> None:
        from matplotlib import colormaps
        from matplotlib.colors import Normalize

        # Networks that diverged have values that are not finite, dead ones nothing but 0.
        finite = [v[np.isfinite(v)] for v in values]
        limit = max((float(np.abs(v).max()) for v in finite if v.size), default=0) or 1.0
        signed = signed or any(float(v.min()) < -1e-6 * limit for v in finite if v.size)
        self.map = colormaps[SIGNED if signed else POSITIVE]
        self.norm = Normalize(-limit if signed else 0, limit)

    def tile(self, values: Array, width: int | None = None) -> Array:
        """(h, w) values as a tile of colours, of ``width`` pixels if that is given."""
        shown = np.nan_to_num(sized(values, width), posinf=self.norm.vmax, neginf=self.norm.vmin)
        return np.asarray(self.map(self.norm(shown))[..., :3], np.float32)

    def legend(self, axes: Axes, label: str) -> None:
        """The scale beside ``axes``."""
        from matplotlib.cm import ScalarMappable

        bar = axes.figure.colorbar(
            ScalarMappable(self.norm, self.map), ax=axes, shrink=0.8, pad=0.02, aspect=25
        )
        bar.ax.tick_params(labelsize=7)
        bar.set_label(label, fontsize=8)


def fitted(values: Array, colours: Colours, like: Array) -> Array:
    """A filter as a tile of the shape of ``like``: pixels stay square, white around them."""
    height, width = like.shape[:2]
    kh, kw = values.shape
    scale = min(height / kh, width / kw)
    h, w = max(1, int(kh * scale)), max(1, int(kw * scale))
    tile = colours.tile(values)
    rows = np.arange(h) * tile.shape[0] // h
    columns = np.arange(w) * tile.shape[1] // w
    canvas = np.ones((height, width, 3), np.float32)
    top, left = (height - h) // 2, (width - w) // 2
    canvas[top : top + h, left : left + w] = tile[rows][:, columns]
    return canvas


def grid(
    title: str,
    rows: Sequence[Sequence[Array | None]],
    row_names: Sequence[str],
    column_names: Sequence[str] = (),
    *,
    cell: float = 0.9,
    caption: str = "",
) -> tuple[Figure, Axes]:
    """A figure of tiles with names beside the rows and above the columns.

    Args:
        title: above all.
        rows: of tiles.
        row_names: one for each row.
        column_names: one for each column, or none.
        cell: inches of a tile's height.
        caption: below all.
    """
    from matplotlib.figure import Figure

    canvas = mosaic(rows)
    h, w = next(tile for row in rows for tile in row if tile is not None).shape[:2]
    scale = cell / (h + GAP)
    width = max(4.8, canvas.shape[1] * scale + 2.1)
    figure = Figure(figsize=(width, canvas.shape[0] * scale + 0.9), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="antialiased")
    axes.set_yticks([i * (h + GAP) + h / 2 for i in range(len(row_names))], row_names)
    axes.set_xticks([i * (w + GAP) + w / 2 for i in range(len(column_names))], column_names)
    axes.tick_params(length=0, labelsize=7)
    axes.xaxis.tick_top()
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(textwrap.fill(caption, int(12 * width)), fontsize=7)
    figure.suptitle(textwrap.fill(title, int(11 * width)), fontsize=10, fontweight="bold")
    return figure, axes


def rule_off(axes: Axes, groups: Sequence[int]) -> None:
    """Lines between groups of rows of a `grid`.

    Args:
        axes: of the grid.
        groups: how many rows each has.
    """
    height = TILE + GAP
    for row in np.cumsum(groups)[:-1]:
        axes.axhline(row * height - GAP / 2 - 0.5, color="#555555", linewidth=0.8)
