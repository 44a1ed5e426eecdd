"""Image files of a folder."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cae_cli.data.images import Pool
from cae_cli.data.source import SOURCES, DataOptions, folder_at
from cae_cli.data.spool import Spool
from cae_cli.errors import UserError, printable
from cae_cli.options import OptionError, option

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]  # (h, w) or (h, w, 3)

MOST_THREADS = 8  # each decodes a picture

EXTENSIONS = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pgm"),
    *(".png", ".ppm", ".tif", ".tiff", ".webp"),
)


@dataclass
class _Reading:
    """What came of reading the files, in order."""

    images: Spool = field(default_factory=Spool)
    files: list[int] = field(default_factory=list)  # which file each image came from
    size: tuple[int, ...] = ()  # (h, w) of the first image
    other: tuple[int, tuple[int, ...]] | None = None  # the first of another size: its file, its size
    unreadable: list[str] = field(default_factory=list)
    small: list[str] = field(default_factory=list)


@SOURCES.add("image_folder")
@dataclass(frozen=True, kw_only=True)
class ImageFolder(DataOptions):
    """Your own image files, whole or cut into patches; names of sub-folders are labels.

    Photographs are turned as their EXIF data say. Transparent pixels become white. Of animations
    the first frame is taken. 16-bit grey becomes 8-bit.
    """

    path: str | None = option("the folder; files in its sub-folders are found too")
    image_size: int | None = option(
        "resize until the shorter side has so many pixels, then take the square in the middle "
        "(or patches of all); null: as they are",
        least=8,
        most=4096,
    )
    patches: int | None = option(
        "cut each image into patches of so many pixels, side by side; null: no patches",
        least=8,
        most=4096,
    )
    channels: int | None = option("1: grey, 3: colour; null: 3 if any image has colour", choices=(1, 3))
    unreadable: float = option("largest share of files that may be unreadable", least=0, most=1)

    def read(self) -> Pool:
        """Images (n, h, w) or (n, h, w, 3) uint8, one group for each file cut into patches.

        Raises:
            UserError: no images, too many unreadable ones, images of different sizes.
        """
        root = folder_at(self.path, "folder/with/images")
        if self.patches and self.image_size and self.patches > self.image_size:
            raise OptionError(
                "data.patches",
                f"must be at most data.image_size, got {self.patches} and {self.image_size}",
                hint=f"data.patches={self.image_size}, or a larger data.image_size",
            )
        files, notes = _find(root)
        reading = self._read_all(files, root)
        if reading.unreadable:
            self._complain(reading.unreadable, len(files), root, notes)
        if reading.small:
            notes.append(f"{_some(reading.small)} smaller than a patch: left out")
        if not reading.files:
            raise UserError(
                f"no image is as large as a patch of {self.patches}x{self.patches}",
                where=root,
                hint="a smaller data.patches, or a larger data.image_size",
            )
        if reading.other is not None:
            one, other = (_name(files[k], root) for k in (reading.files[0], reading.other[0]))
            raise UserError(
                f"the images have different sizes: {_size(reading.size)} in {one}, "
                f"{_size(reading.other[1])} in {other}",
                where=root,
                hint="data.image_size=64 makes them equal, data.patches=28 cuts them into patches",
            )
        return Pool(
            images=reading.images.array(),
            labels=_labels([files[i] for i in reading.files], root),
            groups=np.array(reading.files) if self.patches else None,
            notes=tuple(notes),
        )

    def _read_all(self, files: list[Path], root: Path) -> _Reading:
        from PIL import Image

        reading = _Reading()
        Image.init()  # not in several threads at once
        threads = min(os.cpu_count() or 1, MOST_THREADS)
        at_once = 4 * threads if self.image_size else threads  # whole pictures may be large
        # Pillow decodes without Python's lock.
        with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
            # Pillow's remarks on odd files help nobody here; only absurdly large ones are refused.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for start in range(0, len(files), at_once):
                decoded = pool.map(self._decoded, files[start : start + at_once])
                for i, pixels in enumerate(decoded, start):
                    self._take(reading, i, pixels, _name(files[i], root))
        return reading

    def _decoded(self, file: Path) -> Pixels | None:
        """`_decode`, or None."""
        try:
            return self._decode(file)
        except Exception:  # Pillow's decoders raise what they like at damaged files
            return None

    def _take(self, reading: _Reading, i: int, pixels: Pixels | None, name: str) -> None:
        if pixels is None:
            reading.unreadable.append(name)
            return
        found = list(_patches(pixels, self.patches)) if self.patches else [pixels]
        if not found:
            reading.small.append(name)
        for image in found:
            reading.size = reading.size or image.shape[:2]
            if image.shape[:2] == reading.size:
                reading.images.append(image)
            elif reading.other is None:
                reading.other = i, image.shape
        reading.files += [i] * len(found)

    def _decode(self, file: Path) -> Pixels:
        """One file as (h, w), or as (h, w, 3) if it has colour or shall have it."""
        from PIL import Image, ImageOps

        with Image.open(file) as opened:
            if self.image_size:
                # JPEG decodes at a half, quarter, eighth for a fraction of the time.
                opened.draft(None, (2 * self.image_size, 2 * self.image_size))
            image = _eight_bits(ImageOps.exif_transpose(opened))
        if self.channels == 1:
            image = image.convert("L")
        side = self.image_size
        if side and self.patches:
            shorter = min(image.size)
            width, height = (max(side, round(x * side / shorter)) for x in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        elif side:
            image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
        pixels = np.asarray(image)
        if self.channels is None and pixels.ndim == 3 and _is_grey(pixels):
            return pixels[..., 0]
        if self.channels == 3 and pixels.ndim == 2:
            return np.repeat(pixels[..., np.newaxis], 3, axis=2)
        return pixels

    def _complain(self, names: list[str], total: int, root: Path, notes: list[str]) -> None:
        if len(names) == total:
            raise UserError(
                f"none of {total} files can be read: {_first(names)}",
                where=root,
                hint="they are damaged, or not images",
            )
        if len(names) > self.unreadable * total:
            raise UserError(
                f"{len(names)} of {total} files cannot be read: {_first(names)}",
                where=root,
                hint=f"remove them, or data.unreadable={math.ceil(100 * len(names) / total) / 100}",
            )
        notes.append(f"{_some(names)} unreadable or too large: left out")
        for name in names:
            logger.warning("unreadable or too large, left out: %s", name)


def _find(root: Path) -> tuple[list[Path], list[str]]:
    """Image files below ``root`` in a fixed order, and a note on the others."""
    images, others = [], 0
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if hidden or not path.is_file():
            continue
        if path.suffix.lower() in EXTENSIONS:
            images.append(path)
        else:
            others += 1
    if not images:
        raise UserError(
            "data.path has no images, it is empty"
            if not others
            else f"data.path has no images, other files: {others}",
            where=root,
            hint=f"looked for {' '.join(EXTENSIONS)}, in sub-folders too",
        )
    return images, [f"files that are not images, ignored: {others}"] if others else []


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB.

    Raises:
        ValueError: its values cannot be brought to 0..255 without guessing.
    """
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("more than 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _is_grey(pixels: Pixels) -> bool:
    red = pixels[..., :1]
    return bool((pixels == red).all())


def _patches(pixels: Pixels, side: int) -> Iterator[Pixels]:
    """Patches side by side, the rest shared between both borders."""
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    top, left = (pixels.shape[0] - rows * side) // 2, (pixels.shape[1] - columns * side) // 2
    for y in range(top, top + rows * side, side):
        for x in range(left, left + columns * side, side):
            yield pixels[y : y + side, x : x + side]


def _labels(files: list[Path], root: Path) -> NDArray[np.int64] | None:
    """Numbers of the sub-folders; None unless every image is in one and there are two."""
    parts = [file.relative_to(root).parts for file in files]
    if any(len(p) < 2 for p in parts):
        return None
    names, labels = np.unique([p[0] for p in parts], return_inverse=True)
    return labels.astype(np.int64) if len(names) > 1 else None


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _name(file: Path, root: Path) -> str:
    return printable(file.relative_to(root).as_posix())


def _some(names: list[str]) -> str:
    return f"{len(names)} file{'s' if len(names) > 1 else ''} ({_first(names)})"
