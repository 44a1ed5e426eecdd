"""Image files of a folder."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import stat
import threading
import warnings
from collections import deque
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
from cae_cli.errors import UserError, counted, printable
from cae_cli.options import OptionError, option
from cae_cli.system import memory

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]  # (h, w) or (h, w, 3)

MOST_THREADS = 8  # each decodes one image

# A few bytes can describe an image of any size. Pillow refuses more than 89 million pixels; so many are
# decoded at the same time. Decoding takes up to 16 bytes per pixel (palette, RGBA, background, result),
# for photographs 8: less than two gigabytes for any files.
MOST_PIXELS_AT_ONCE = 10**8
# Bytes of Pillow's memory blocks. With smaller blocks, each thread would keep its peak memory.
BLOCK = 2**26
LARGEST_FILE = 2**30  # bytes; some formats are read whole, and a sparse file may claim any size
MOST_LOGGED = 1000  # unreadable files

EXTENSIONS = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pgm"),
    *(".png", ".ppm", ".tif", ".tiff", ".webp"),
)
# The formats of these extensions, recognised by content. Some other formats of Pillow start programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class _Unreadable(Exception):
    """Why a file gives no image."""


@dataclass
class _Reading:
    """The result of reading the files, in order."""

    images: Spool = field(default_factory=Spool)
    files: list[int] = field(default_factory=list)  # which file each image came from
    size: tuple[int, ...] = ()  # (h, w) of the first image
    other: tuple[int, tuple[int, ...]] | None = None  # the first of another size: its file, its size
    unreadable: list[str] = field(default_factory=list)  # each with the reason
    small: list[str] = field(default_factory=list)


@SOURCES.add("image_folder")
@dataclass(frozen=True, kw_only=True)
class ImageFolder(DataOptions):
    """Your own image files, whole or cut into patches; names of sub-folders are labels.

    Images are rotated as their EXIF data say. Transparent pixels become white. Animations give their
    first frame. All images become 8-bit; for 16-bit values use ``data=npy`` or ``data=npz``.
    """

    path: str | None = option("folder of the image files; sub-folders are included")
    image_size: int | None = option(
        "side in pixels: resize the shorter side to it, then crop the central square "
        "(or cut patches from the whole image); null: no resizing",
        least=8,
        most=4096,
    )
    patches: int | None = option(
        "side in pixels of the adjacent patches that each image is cut into; null: whole images",
        least=8,
        most=4096,
    )
    channels: int | None = option("1: grey, 3: colour; null: 3 if any image has colour", choices=(1, 3))
    unreadable: float = option("maximum share of unreadable files", least=0, most=1)
    follow_links: bool = option("follow links to files and folders, each file once; false: ignore links")

    def least_shape(self) -> tuple[int, int, int] | None:
        """Square, and grey unless the option says otherwise."""
        side = self.patches or self.image_size
        return None if side is None else (side, side, self.channels or 1)

    def size_option(self) -> str | None:
        """Patches are cut after resizing."""
        if self.patches:
            return f"data.patches={self.patches}"
        return f"data.image_size={self.image_size}" if self.image_size else None

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
                hint=f"use data.patches={self.image_size}, or a larger data.image_size",
            )
        files, notes = _find(root, self.follow_links)
        reading = self._read_all(files, root)
        if reading.unreadable:
            self._complain(reading.unreadable, len(files), root, notes)
        if reading.small:
            small = f"{counted(len(reading.small), 'file')} ({_first(reading.small)})"
            notes.append(f"{small} left out: smaller than a patch")
        if not reading.files:
            raise UserError(
                f"no image is as large as a patch of {self.patches}x{self.patches}",
                where=root,
                hint="use a smaller data.patches, or a larger data.image_size",
            )
        if reading.other is not None:
            one, other = (printable(files[k]) for k in (reading.files[0], reading.other[0]))
            raise UserError(
                f"the images have different sizes: {_size(reading.size)} in {one}, "
                f"{_size(reading.other[1])} in {other}",
                where=root,
                hint="data.image_size=64 makes them equal, data.patches=28 cuts them into patches",
            )
        return Pool(
            images=reading.images.array(),
            labels=_labels([files[i] for i in reading.files]),
            groups=np.array(reading.files) if self.patches else None,
            notes=tuple(notes),
        )

    def _read_all(self, files: list[str], root: Path) -> _Reading:
        from PIL import Image

        reading = _Reading()
        Image.init()  # not in several threads at once
        core = Image.core  # type: ignore[attr-defined]
        core.set_block_size(max(BLOCK, core.get_block_size()))
        threads = min(os.cpu_count() or 1, MOST_THREADS)
        at_once = 4 * threads if self.image_size else threads  # whole pictures may be large
        room = _Room(MOST_PIXELS_AT_ONCE)

        def decoded(name: str) -> Pixels | str:
            try:
                return self._decode(root / name, room)
            except Exception as error:  # Pillow's decoders raise what they like at damaged files
                return _reason(error)

        # Pillow decodes without Python's lock.
        with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
            # Pillow's warnings about unusual files do not help here, except that for huge images.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for start in range(0, len(files), at_once):
                some = files[start : start + at_once]
                for i, pixels in enumerate(pool.map(decoded, some), start):
                    self._take(reading, i, pixels, printable(files[i]))
        return reading

    def _take(self, reading: _Reading, i: int, pixels: Pixels | str, name: str) -> None:
        if isinstance(pixels, str):
            reading.unreadable.append(f"{name} ({pixels})")
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

    def _decode(self, file: Path, room: _Room) -> Pixels:
        """The image of a file, (h, w) or (h, w, 3).

        Raises:
            Exception: of any kind, by Pillow: it cannot be decoded.
        """
        from PIL import Image, ImageOps

        size = file.stat().st_size
        if not size:
            raise _Unreadable("empty")
        if size > LARGEST_FILE:
            raise _Unreadable(f"too large: {memory.amount(size)}")
        # Given a path, Pillow maps the file and swaps the sides of a rotated TIFF.
        with file.open("rb") as content, Image.open(content, formats=FORMATS) as opened:
            if self.image_size:
                # JPEG decodes at a half, quarter, eighth for a fraction of the time.
                opened.draft(None, (2 * self.image_size, 2 * self.image_size))
            with room.taken(opened.width * opened.height):
                ImageOps.exif_transpose(opened, in_place=True)
                return self._shaped(_eight_bits(opened))

    def _shaped(self, image: Image.Image) -> Pixels:
        """The pixels of an image in mode L or RGB, in the configured size and channels."""
        from PIL import Image, ImageOps

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

    def _complain(self, files: list[str], total: int, root: Path, notes: list[str]) -> None:
        if len(files) == total:
            raise UserError(
                f"none of {total} files can be read: {_first(files)}",
                where=root,
                hint="check whether they are damaged, or not images",
            )
        if len(files) > self.unreadable * total:
            raise UserError(
                f"{len(files)} of {total} files cannot be read: {_first(files)}",
                where=root,
                hint=f"remove them, or use data.unreadable={math.ceil(100 * len(files) / total) / 100}",
            )
        notes.append(f"{counted(len(files), 'unreadable file')} left out: {_first(files)}")
        for file in files[:MOST_LOGGED]:
            logger.warning("unreadable, left out: %s", file)
        if len(files) > MOST_LOGGED:
            logger.warning("unreadable, left out: %d more", len(files) - MOST_LOGGED)


class _Room:
    """Limits the number of pixels that are decoded at the same time."""

    def __init__(self, pixels: int) -> None:
        self._pixels = self._left = pixels
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Waits until the pixels are free, and reserves them for the block."""
        pixels = min(pixels, self._pixels)  # a larger image is decoded by itself
        with self._changed:
            self._changed.wait_for(lambda: pixels <= self._left)
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify_all()


def _reason(error: Exception) -> str:
    """Why a file cannot be decoded."""
    from PIL import Image, UnidentifiedImageError

    text = str(error)
    match error:
        case _Unreadable():
            return text
        case UnidentifiedImageError():
            return "not an image"
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            pixels = re.search(r"\d+", text)
            return f"too large: {int(pixels[0]):,} pixels" if pixels else "too large"
        case MemoryError():
            return "too large for the memory"
        case OSError(strerror=str() as problem):
            return problem.lower()
        case _ if "truncated" in text.lower():
            return "truncated"
        case _:
            return "too large inside" if "too large" in text else "damaged"


class _Search:
    """Lists images below a folder, by names relative to it. Names that begin with a dot are ignored.

    Only regular files are opened, because reading a pipe may never end. Without ``follow_links``, links
    are ignored. With it, each file and folder is listed once, if possible by a name without a link.
    """

    def __init__(self, root: Path, follow_links: bool) -> None:
        self.images: list[str] = []
        self.others = self.outside = self.broken = self.closed = 0
        self._root, self._real_root = root, root.resolve()
        self._seen: set[tuple[int, int]] | None = set() if follow_links else None
        links = deque(self._walk(""))
        while links:
            link = links.popleft()
            try:
                mode = (root / link).stat().st_mode
            except OSError:
                self.broken += 1
                continue
            if not follow_links:
                self._leave_out(link)
            elif stat.S_ISDIR(mode):
                links += self._walk(link)
            elif stat.S_ISREG(mode):
                self._take(link)

    def _walk(self, start: str) -> list[str]:
        """Takes the files of a folder and of those below it; returns the links there."""
        links, folders = [], [start]
        while folders:  # no recursion: folders may be nested deeper than Python's stack
            folder = folders.pop()
            try:
                if not self._is_new(folder):
                    continue
                with os.scandir(self._root / folder) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError as error:
                if not folder:
                    raise UserError(
                        f"data.path cannot be read: {error.strerror}", where=self._root
                    ) from error
                self.closed += 1
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    links.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_file(follow_symlinks=False):
                    self._take(name)
        return links

    def _take(self, file: str) -> None:
        if not file.lower().endswith(EXTENSIONS):
            self.others += 1
        elif self._is_new(file):
            self.images.append(file)

    def _is_new(self, name: str) -> bool:
        if self._seen is None:  # without links each has one name
            return True
        info = (self._root / name).stat()
        key = info.st_dev, info.st_ino
        new = key not in self._seen
        self._seen.add(key)
        return new

    def _leave_out(self, link: str) -> None:
        """Counts a link, unless its target is listed anyway."""
        target = (self._root / link).resolve()
        if target.is_file() and not link.lower().endswith(EXTENSIONS):
            self.others += 1
            return
        inside = target.is_relative_to(self._real_root)
        hidden = inside and any(p.startswith(".") for p in target.relative_to(self._real_root).parts)
        found = target.is_dir() or target.name.lower().endswith(EXTENSIONS)
        self.outside += not (inside and not hidden and found)


def _find(root: Path, follow_links: bool) -> tuple[list[str], list[str]]:
    """Image files below ``root`` in a fixed order, and notes on the others.

    Raises:
        UserError: there are none.
    """
    found = _Search(root, follow_links)
    counted = (
        ("other files", "files that are not images, ignored", found.others),
        ("links out of it", "links out of the folder, left out", found.outside),
        ("links to nothing", "links to nothing", found.broken),
        ("folders that cannot be read", "folders that cannot be read", found.closed),
    )
    following = "data.follow_links=true follows links"
    if not found.images:
        there = ", ".join(f"{what}: {count}" for what, _, count in counted if count)
        raise UserError(
            f"data.path has no images, {there or 'it is empty'}",
            where=root,
            hint=following
            if found.outside
            else f"use files with one of these extensions: {' '.join(EXTENSIONS)}",
        )
    notes = [f"{what}: {count}" for _, what, count in counted if count]
    if found.outside:
        notes.append(following)
    return sorted(found.images, key=lambda name: name.split("/")), notes


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB.

    Raises:
        _Unreadable: its values have no known range.
    """
    from PIL import Image

    if image.mode == "F":
        raise _Unreadable("floating-point pixels")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.int32)
        if values.min() < 0 or values.max() > 65535:
            raise _Unreadable("more than 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode in ("LAB", "HSV"):
        raise _Unreadable(f"{image.mode} colours")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
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


def _labels(files: list[str]) -> NDArray[np.int64] | None:
    """Numbers of the sub-folders; None unless every image is in one and there are two."""
    if not all("/" in file for file in files):
        return None
    names, labels = np.unique([file.partition("/")[0] for file in files], return_inverse=True)
    return labels.astype(np.int64) if len(names) > 1 else None


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _first(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
