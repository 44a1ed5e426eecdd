"""Letters and digits drawn with the fonts of matplotlib; nothing is downloaded.

Each image shows one character of one font, randomly rotated, sheared, stretched and thickened, in one
grey level on another. With ``background=dark`` the strokes are bright on exact black, as in MNIST.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cae_cli.data.images import Pool
from cae_cli.data.source import SOURCES, DataOptions
from cae_cli.errors import UserError
from cae_cli.options import option
from cae_cli.system import memory

CHARACTERS = string.ascii_uppercase + string.ascii_lowercase + string.digits

# Those of matplotlib's fonts that have all characters. Left out: symbols (cmsy10, cmex10, STIXSiz*,
# STIXNonUni*, *Display), boxes instead of letters (LastResort), old-style digits (cmmi10).
FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)

MANY = 60_000  # images for data.train=null, as many as in MNIST
_WEIGHTS = (0.0, 0.012, 0.024)  # widths added to each side of a stroke, as shares of the font size
_ROTATION = math.radians(18)
_SHEAR = 0.25
_STRETCH = 0.2  # largest logarithm of width over height, halved
_FILL = (0.72, 1.0)  # the glyph's larger side, as a share of the image's
_SHIFT = 0.12  # from the centre, as a share of the image's side
_CONTRAST = 0.3  # least difference between the two greys
_FINER = 2  # drawn so many times larger, then averaged: smooth edges

_Tone = Callable[[float, float, float], tuple[float, float]]


def _random_tones(contrast: float, level: float, side: float) -> tuple[float, float]:
    difference = _CONTRAST + (1 - _CONTRAST) * contrast
    darker = (1 - difference) * level
    tones = (darker, darker + difference)
    return tones if side < 0.5 else tones[::-1]


# Three numbers in [0, 1) -> grey of the ground, grey of the strokes
_TONES: dict[str, _Tone] = {
    "random": _random_tones,
    "dark": lambda contrast, level, side: (0.0, 0.6 + 0.4 * contrast),
    "light": lambda contrast, level, side: (1.0, 0.4 - 0.4 * contrast),
}


@SOURCES.add("glyphs")
@dataclass(frozen=True, kw_only=True)
class Glyphs(DataOptions):
    """Drawn letters and digits, labels 0 to 61 in the order of `CHARACTERS`.

    As many are drawn as ``train`` and ``validation`` ask for; ``train=null`` draws 60,000 in all.
    """

    # Independent draws. The split keeps their order, and thereby which images are for training.
    shuffled: ClassVar[bool] = True

    size: int = option("side of the images, in pixels", least=8, most=512)
    background: str = option(
        "dark: bright strokes on black; light: dark strokes on white; random: two greys",
        choices=tuple(_TONES),
    )

    def known_shape(self) -> tuple[int, int, int]:
        """Square and grey."""
        return self.size, self.size, 1

    def size_option(self) -> str:
        """The side."""
        return f"data.size={self.size}"

    def read(self) -> Pool:
        """Images (n, size, size) uint8, labels (n,).

        An image depends on the seed and its number only, counted separately for training and
        validation, so a larger ``train`` adds images and moves none between the parts.

        Raises:
            UserError: a font of matplotlib is missing, or the images do not fit into memory.
        """
        if self.train is None:
            held_out = max(1, round(self.validation * MANY))
            train = MANY - held_out
        else:
            train, held_out = self.train, self.validation_count(self.train)
        count = train + held_out
        needed = count * (self.size**2 + 2 * 12 * 8)  # pixels; and numbers, twice
        memory.check(needed, f"{count:,} glyphs", f"data.train={self.train}", "use a smaller data.train")
        # One row of numbers for each image, in order: (n, 12)
        draws = np.concatenate(
            [self.rng("glyphs").random((train, 12)), self.rng("held out").random((held_out, 12))]
        )
        labels = (draws[:, 0] * len(CHARACTERS)).astype(np.int64)
        images = np.empty((len(draws), self.size, self.size), np.uint8)
        mask_of = _masks(_FINER * self.size)
        tones = _TONES[self.background]
        for image, label, row in zip(images, labels, draws.tolist(), strict=True):
            font = FONTS[int(row[1] * len(FONTS))]
            mask = mask_of(font, CHARACTERS[label], int(row[2] * len(_WEIGHTS)))
            ground, stroke = tones(*row[9:])
            # 0 stays exact ground and 255 exact stroke
            coverage = _placed(mask, self.size, row[3:9])
            image[:] = coverage * np.float32(stroke - ground) + np.float32(255 * ground + 0.5)
        return Pool(images=images, labels=labels)


def _masks(size: int) -> Callable[[str, str, int], Any]:
    """A function (font, character, weight) -> its ink as a grey Pillow image, cropped.

    Args:
        size: font size in pixels.

    Raises:
        UserError: a font is missing.
    """
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"

    @cache
    def font(name: str) -> ImageFont.FreeTypeFont:
        # The basic layout engine is always there, and gives the same on every machine.
        try:
            basic = ImageFont.Layout.BASIC
            return ImageFont.truetype(folder / f"{name}.ttf", size, layout_engine=basic)
        except OSError as error:
            raise UserError(
                f"matplotlib's font {name} cannot be read",
                where=folder,
                hint="reinstall matplotlib with pip, or use other images: data=digits",
            ) from error

    @cache
    def mask(name: str, character: str, weight: int) -> Image.Image:
        width = round(_WEIGHTS[weight] * size)
        left, top, right, bottom = font(name).getbbox(character, stroke_width=width)
        canvas = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
        pen = ImageDraw.Draw(canvas)
        pen.text((1 - left, 1 - top), character, 255, font(name), stroke_width=width)
        return canvas.crop(canvas.getbbox())

    return mask


def _placed(mask: Any, size: int, row: list[float]) -> NDArray[np.uint8]:
    """The ink turned, sheared, stretched and fitted into an image.

    Args:
        mask: a grey Pillow image, cropped to the ink.
        size: side of the image.
        row: six numbers in [0, 1): rotation, shear, stretch, fill, shift to the right, and down.

    Returns:
        (size, size), 255 where there is ink.
    """
    from PIL import Image

    angle, shear, stretch, east, south = (2 * row[i] - 1 for i in (0, 1, 2, 4, 5))  # -1 to 1
    angle, shear, stretch = angle * _ROTATION, shear * _SHEAR, stretch * _STRETCH
    wider, taller = math.exp(stretch), math.exp(-stretch)
    cos, sin = math.cos(angle), math.sin(angle)
    # Stretch, then shear, then turn: (a b; d e) maps ink to image
    a, b = cos * wider, (cos * shear - sin) * taller
    d, e = sin * wider, (sin * shear + cos) * taller
    half_width, half_height = mask.width / 2, mask.height / 2
    across = abs(a) * half_width + abs(b) * half_height
    along = abs(d) * half_width + abs(e) * half_height
    half = _FINER * size / 2
    zoom = (_FILL[0] + (_FILL[1] - _FILL[0]) * row[3]) * half / max(across, along)
    # Never beyond the border
    x = half + east * min(_SHIFT * 2 * half, half - zoom * across)
    y = half + south * min(_SHIFT * 2 * half, half - zoom * along)
    # Pillow wants the way back, from image to ink
    scale = zoom * (a * e - b * d)
    a, b, d, e = e / scale, -b / scale, -d / scale, a / scale
    back = (a, b, half_width - a * x - b * y, d, e, half_height - d * x - e * y)
    side = _FINER * size
    placed = mask.transform((side, side), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
    return np.asarray(placed.reduce(_FINER))
