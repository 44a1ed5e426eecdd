"""Tiles: small arrays of colours in a grid, with names around them.

Pillow draws them, because Matplotlib takes far longer for as many labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Array = NDArray[np.float32]
Pixels = NDArray[np.uint8]

SIGNED = "RdBu_r"  # blue is negative, white 0, red positive
POSITIVE = "viridis"
DPI = 110
COMPRESSION = 3  # of PNG, 0 to 9: the usual 6 takes twice the time for a sixth less
TILE = 64  # pixels of a tile's height in the arrays; the picture scales them
GAP = 6
NARROWEST = 530  # pixels of a picture
MARGIN = 6
SMALL, LABEL, TITLE = 11, 12, 15  # pixels of the fonts
BAR = 12  # pixels of a scale's width


def mosaic(rows: Sequence[Sequence[Array | None]], gap: int = GAP) -> Pixels:
    """Tiles of one size in rows, white between them and where a tile is None.

    Args:
        rows: of (h, w, 3) tiles with colours in [0, 1].
        gap: pixels between tiles.

    Returns:
        (H, W, 3), 0 to 255.
    """
    first = next(tile for row in rows for tile in row if tile is not None)
    h, w = first.shape[:2]
    columns = max(map(len, rows))
    canvas = np.full((len(rows) * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            if tile is not None:
                place = canvas[r * (h + gap) : r * (h + gap) + h, c * (w + gap) : c * (w + gap) + w]
                place[...] = pixels(tile)
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
        stacked = np.stack([np.asarray(s) for s in small], axis=2)
        return stacked if values.ndim == 3 else stacked[..., 0]
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
    """A colour map and its scale, for tiles and their legend."""

    def __init__(self, values: Sequence[Array], *, signed: bool = False) -> None:
        from matplotlib import colormaps
        from matplotlib.colors import Normalize

        # Networks that diverged have values that are not finite, inactive ones only 0.
        finite = [v[np.isfinite(v)] for v in values]
        limit = max((float(np.abs(v).max()) for v in finite if v.size), default=0) or 1.0
        signed = signed or any(float(v.min()) < -1e-6 * limit for v in finite if v.size)
        self.map = colormaps[SIGNED if signed else POSITIVE]
        self.norm = Normalize(-limit if signed else 0, limit)
        self._table = np.asarray(self.map(np.arange(self.map.N))[:, :3], np.float32)

    def tile(self, values: Array, width: int | None = None) -> Array:
        """(h, w) values as a tile of colours, of ``width`` pixels if that is given."""
        low, high, count = float(self.norm.vmin or 0), float(self.norm.vmax or 1), len(self._table)
        shown = np.nan_to_num(sized(values, width), posinf=high, neginf=low)
        places = np.clip((shown - low) / (high - low) * count, 0, count - 1)
        return np.asarray(self._table[places.astype(np.intp)])

    def scale(self, height: int, label: str) -> Image.Image:
        """The scale with its numbers and its label, the largest at the top."""
        from matplotlib.ticker import MaxNLocator
        from PIL import Image, ImageDraw

        low, high = float(self.norm.vmin or 0), float(self.norm.vmax or 1)
        ticks = [x for x in MaxNLocator(5).tick_values(low, high) if low <= x <= high]
        names = [f"{0.0 if abs(x) < 1e-9 * high else x:g}" for x in ticks]
        font = _font(SMALL)
        width = BAR + 6 + int(max(font.getlength(name) for name in names))
        picture = Image.new("RGB", (width + LABEL + 8, height + SMALL), "white")
        pen = ImageDraw.Draw(picture)
        colours = self.map(np.linspace(1, 0, height))[:, None, :3].repeat(BAR, axis=1)
        picture.paste(Image.fromarray(pixels(colours)), (0, SMALL // 2))
        for x, name in zip(ticks, names, strict=True):
            y = SMALL // 2 + (height - 1) * (high - x) / (high - low)
            pen.line([(BAR, y), (BAR + 2, y)], "black")
            pen.text((BAR + 5, y), name, "black", font, anchor="lm")
        beside = Image.new("RGB", (picture.height, LABEL + 6), "white")
        middle = (beside.width / 2, beside.height / 2)
        ImageDraw.Draw(beside).text(middle, label, "black", _font(LABEL), anchor="mm")
        picture.paste(beside.transpose(Image.Transpose.ROTATE_90), (width + 2, 0))
        return picture


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
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
    *,
    cell: float = 0.9,
    caption: str = "",
    scale: tuple[Colours, str] | None = None,
    groups: Sequence[int] = (),
    beside: tuple[int, int, str] | None = None,
) -> Image.Image:
    """A picture of tiles with names of rows and columns.

    Args:
        title: above the tiles.
        rows: of tiles.
        row_names: one for each row, or none.
        column_names: one for each column, or none.
        cell: height of a tile in inches.
        caption: below the tiles.
        scale: colours whose scale is drawn at the right, and its label.
        groups: number of rows in each group; a line separates groups.
        beside: the row and column of a tile, and a text to its left.
    """
    from PIL import Image, ImageDraw

    h, w = next(tile for row in rows for tile in row if tile is not None).shape[:2]
    canvas = mosaic(rows)
    zoom = cell * DPI / (h + GAP)
    size = (round(canvas.shape[1] * zoom), round(canvas.shape[0] * zoom))
    tiles = Image.fromarray(canvas).resize(size, Image.Resampling.HAMMING)
    small, bold = _font(SMALL), _font(TITLE, bold=True)

    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    named = [_size(ruler, name, small) for name in row_names]
    headed = [_size(ruler, name, small) for name in column_names]
    bar = scale[0].scale(max(60, int(0.8 * size[1])), scale[1]) if scale else Image.new("RGB", (0, 0))
    left = MARGIN + (max(x for x, _ in named) + 5 if named else 0)
    needed = left + size[0] + (2 * MARGIN + bar.width if scale else 0) + MARGIN
    words = [_size(ruler, word, bold)[0] for word in title.split()]
    width = max(NARROWEST, needed, max(words) + 2 * MARGIN)
    left += (width - needed) // 2
    heading = _wrapped(title, bold, width - 2 * MARGIN)
    foot = _wrapped(caption, small, width - 2 * MARGIN)
    top = MARGIN + _size(ruler, heading, bold)[1] + MARGIN
    top += max(y for _, y in headed) + 4 if headed else 0
    tall = max(size[1], bar.height)
    bottom = top + tall + 5
    picture = Image.new("RGB", (width, bottom + _size(ruler, foot, small)[1] + MARGIN), "white")
    pen = ImageDraw.Draw(picture)

    def write(x: float, y: float, text: str, anchor: str, align: str, font: Any = small) -> None:
        pen.multiline_text((x, y), text, "black", font, anchor, align=align)

    write(width / 2, MARGIN, heading, "ma", "center", bold)
    picture.paste(tiles, (left, top))
    for i, name in enumerate(row_names):
        write(left - 5, top + (i * (h + GAP) + h / 2) * zoom, name, "rm", "right")
    for i, name in enumerate(column_names):
        write(left + (i * (w + GAP) + w / 2) * zoom, top - 4, name, "md", "center")
    if scale:
        picture.paste(bar, (left + size[0] + 2 * MARGIN, top + (tall - bar.height) // 2))
    for row in np.cumsum(groups)[:-1]:
        y = top + (row * (h + GAP) - GAP / 2) * zoom
        pen.line([(left, y), (left + size[0], y)], "#555555")
    if beside is not None:
        row, column, text = beside
        x, y = left + (column * (w + GAP) - GAP) * zoom, top + (row * (h + GAP) + h / 2) * zoom
        write(x, y, text, "rm", "right")
    write(width / 2, bottom, foot, "ma", "center")
    return picture


def pixels(colours: NDArray[Any]) -> Pixels:
    """Colours in [0, 1] as numbers from 0 to 255."""
    return np.asarray(np.clip(colours, 0, 1) * 255 + 0.5, np.uint8)


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that Matplotlib draws the charts with."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def _size(pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height of a text in pixels."""
    if not text:
        return 0, 0
    _, _, right, bottom = pen.multiline_textbbox((0, 0), text, font)
    return int(np.ceil(right)), int(np.ceil(bottom))


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text in lines of at most so many pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
