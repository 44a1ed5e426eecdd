"""Sprites: many small pictures in one, which a page shows in parts."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cae_cli.report.figures.tiles import COMPRESSION, Colours

Pixels = NDArray[np.uint8]  # (h, w, 3)
LARGE = 60_000  # bytes of a PNG above which a lossy format is tried
GAP = 2  # pixels between the pictures of a strip
BETWEEN = 128  # their grey


class Sprite:
    """Pictures of one size, in rows and columns.

    Args:
        rows: of pictures (h, w, 3), all of one size.
        zoom: how much larger they are shown.

    Attributes:
        name: its class in the page.
    """

    def __init__(self, rows: Sequence[Sequence[Pixels]], zoom: float = 1.0) -> None:
        self.name = ""
        h, w = rows[0][0].shape[:2]
        self.width, self.height = round(w * zoom), round(h * zoom)
        self.rows, self.columns = len(rows), max(map(len, rows))
        canvas = np.full((self.rows * h, self.columns * w, 3), BETWEEN, np.uint8)
        for r, row in enumerate(rows):
            for c, picture in enumerate(row):
                canvas[r * h : (r + 1) * h, c * w : (c + 1) * w] = picture
        self.url = data_url(canvas)

    def css(self) -> str:
        """The rules of its class."""
        return (
            f".{self.name}{{--w:{self.width}px;--h:{self.height}px;--c:{self.columns};--r:{self.rows};"
            f"background-image:url({self.url})}}\n"
        )


def data_url(pixels: NDArray[np.uint8]) -> str:
    """A picture (h, w, 3 or 4) as an address that holds it."""
    from PIL import Image

    grey = pixels.shape[2] == 3 and all(np.array_equal(pixels[..., 0], pixels[..., c]) for c in (1, 2))
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if grey else pixels)
    kind, data = "png", io.BytesIO()
    picture.save(data, "png", compress_level=COMPRESSION)
    if len(data.getvalue()) > LARGE:  # photographs: WebP takes a tenth
        smaller = io.BytesIO()
        picture.save(smaller, "webp", quality=82, method=2)
        if len(smaller.getvalue()) < len(data.getvalue()) / 2:
            kind, data = "webp", smaller
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def picture(image: NDArray[np.generic], side: int) -> Pixels:
    """An image (h, w, c), uint8 or in [0, 1], enlarged by a whole factor to about ``side`` pixels.

    Other than three channels are shown as their mean, in grey.
    """
    values = np.asarray(image, np.float32)
    values = np.nan_to_num(values) * (1 if image.dtype == np.uint8 else 255)
    if values.shape[2] != 3:
        values = np.repeat(values.mean(axis=2, keepdims=True), 3, axis=2)
    return enlarged((np.clip(values, 0, 255) + 0.5).astype(np.uint8), side)


def coloured(values: NDArray[np.floating], colours: Colours, side: int) -> list[Pixels]:
    """Numbers (n, h, w) in the colours of a scale, each enlarged as `picture` does."""
    low, high = float(colours.norm.vmin or 0), float(colours.norm.vmax or 1)
    table = (np.asarray(colours.map(np.linspace(0, 1, 256)))[:, :3] * 255 + 0.5).astype(np.uint8)
    shown = np.nan_to_num(np.asarray(values, np.float32), posinf=high, neginf=low)
    places = np.clip((shown - low) * (255 / (high - low)) + 0.5, 0, 255)
    return [enlarged(one, side) for one in table[places.astype(np.uint8)]]


def enlarged(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Each pixel as a square, so that the larger side has about ``side`` pixels.

    Larger pictures are reduced: a new pixel is the mean of those that it covers.
    """
    longest = max(pixels.shape[:2])
    if longest >= 2 * side:
        factor = longest // side
        h, w = (length // factor * factor for length in pixels.shape[:2])
        blocks = pixels[:h, :w].reshape(h // factor, factor, w // factor, factor, -1)
        return np.asarray(blocks.mean(axis=(1, 3)), np.uint8)
    factor = max(1, round(side / longest))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def strip(pictures: Sequence[Pixels], count: int | None = None) -> Pixels:
    """Pictures of one size side by side; up to ``count`` places, the last of which may be empty."""
    h, w = pictures[0].shape[:2]
    count = count or len(pictures)
    canvas = np.full((h, count * (w + GAP) - GAP, 3), BETWEEN, np.uint8)
    for i, one in enumerate(pictures):
        canvas[:, i * (w + GAP) : i * (w + GAP) + w] = one
    return canvas
