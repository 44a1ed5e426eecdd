"""Image files of a folder."""

from __future__ import annotations

import logging
import math
import os
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cae_cli.data.decoding import (
    MOST_PIXELS_AT_ONCE,
    POINTER,
    Decoder,
    Frame,
    Pixels,
    Room,
    reason,
)  # fmt: skip
from cae_cli.data.images import Pool
from cae_cli.data.layout import layout
from cae_cli.data.listing import LARGEST_FILE, Place, place_of
from cae_cli.data.source import LFS, SOURCES, DataOptions, existing
from cae_cli.data.spool import Spool
from cae_cli.errors import UserError, counted, first_few, printable
from cae_cli.options import OptionError, option
from cae_cli.system import memory

logger = logging.getLogger(__name__)

MOST_THREADS = 8  # each decodes one image
# Bytes of Pillow's memory blocks. With smaller blocks, each thread would keep its peak memory.
BLOCK = 2**26
MOST_LOGGED = 1000  # unreadable files


@dataclass
class Reading:
    """The result of reading the files, in order."""

    sizes: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)  # file, frame: (h, w)
    images: Spool = field(default_factory=Spool)
    files: list[int] = field(default_factory=list)  # which file each image came from
    places: list[tuple[int, int, int]] = field(default_factory=list)  # in it: frame, row, column
    types: dict[np.dtype[Any], int] = field(default_factory=dict)  # of pixels: the first such file
    colour: set[int] = field(default_factory=set)  # files
    bands: set[int] = field(default_factory=set)  # files of which a band is left out
    more: int = 0  # files with frames that are left out
    left: int = 0  # those frames
    size: tuple[int, ...] = ()  # (h, w) of the first image, or of all that are wanted
    centred: bool = True  # patches, what is left over is shared between both borders
    other: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)  # of another size: file, size
    unreadable: list[str] = field(default_factory=list)  # each with the reason
    small: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class FileOptions(DataOptions):
    """Options of the sources that read image files."""

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
    frames: str = option("frames of each file: first, all, or how many from the first one")
    channels: int | None = option("1: grey, 3: colour; null: 3 if any image has colour", choices=(1, 3))
    split: str = option(
        "folders: folders named train, val and test are the parts, if every image is in one; random: "
        "they are not",
        choices=("folders", "random"),
    )
    unreadable: float = option("maximum share of unreadable files", least=0, most=1)
    follow_links: bool = option("follow links to files and folders, each file once; false: ignore links")

    @property
    def are_files(self) -> bool:
        """Whether the images are read from image files, which can be resized and cut."""
        return True

    def least_shape(self) -> tuple[int, int, int] | None:
        """Square, and grey unless the option says otherwise."""
        side = self.patches or self.image_size
        return None if side is None else (side, side, self.channels or 1)

    def size_option(self) -> str | None:
        """Patches are cut after resizing."""
        if self.patches:
            return f"data.patches={self.patches}"
        return f"data.image_size={self.image_size}" if self.image_size else None


@SOURCES.add("image_folder")
@dataclass(frozen=True, kw_only=True)
class ImageFolder(FileOptions):
    """Your own image files, whole or cut into patches; names of sub-folders are labels or parts.

    Images are rotated as their EXIF data say. Transparent pixels become white. Animations, films and
    files of several pages give their first frame. 16-bit and floating-point values are kept as they are.
    """

    path: str | None = option(
        "folder of the image files, with its sub-folders; or a .zip or .tar of such a folder; or a "
        ".parquet with a column of them; or one file, to be cut into patches or with several frames"
    )

    def read(self) -> Pool:
        """Images (n, h, w) or (n, h, w, 3), one group for each file with several images.

        Raises:
            UserError: no images, too many unreadable ones, images of different sizes or kinds.
        """
        return self._read(None)

    def read_of(self, shape: tuple[int, int, int]) -> Pool:
        """As `read`; images of another size than ``shape`` are left out and named.

        Raises:
            UserError: as for `read`; no image has this size.
        """
        return self._read(shape[:2])

    def _read(self, size: tuple[int, int] | None) -> Pool:
        root = existing(self.path, "folder/with/images")
        with place_of(root, self.follow_links) as place:
            return self.read_place(place, root, size)[0]

    def read_place(
        self, place: Place, root: Path, size: tuple[int, int] | None, *, centred: bool = True
    ) -> tuple[Pool, Reading]:
        """The images of a place, and from which of its files each was read.

        Args:
            place: its files are read in their order.
            root: the folder or file, for messages.
            size: (h, w) of the images that are wanted, others are left out and named; None: all must
                have one size.
            centred: what patches leave over is shared between both borders; false: they begin in the
                upper left corner.

        Raises:
            UserError: as for `read`.
        """
        if self.patches and self.image_size and self.patches > self.image_size:
            raise OptionError(
                "data.patches",
                f"must be at most data.image_size, got {self.patches} and {self.image_size}",
                hint=f"use data.patches={self.image_size}, or a larger data.image_size",
            )
        decoder = self._decoder()
        files, notes = place.files, [*place.notes]
        reading = Reading(size=size or (), centred=centred)
        self._read_all(reading, place, decoder)
        if reading.unreadable:
            self._complain(reading.unreadable, len(files), root, notes)
        if reading.small:
            small = f"{counted(len(reading.small), 'file')} ({first_few(reading.small)})"
            notes.append(f"{small} left out: smaller than a patch")
        others = [f"{printable(files[i])} ({_size(shape)})" for i, shape in reading.other]
        if size and others and not reading.files:
            raise UserError(
                f"no image is {_size(size)}, as the network needs them: {first_few(others)}",
                where=root,
                hint=f"data.image_size={size[0]} resizes them, data.patches={size[0]} cuts them"
                if size[0] == size[1]
                else "resize them to this size",
            )
        if not reading.files:
            raise UserError(
                f"no image is as large as a patch of {self.patches}x{self.patches}",
                where=root,
                hint="use a smaller data.patches, or a larger data.image_size",
            )
        if others and size:
            notes.append(
                f"{counted(len(others), 'image')} left out: not {_size(size)}: {first_few(others)}"
            )
        elif others:
            raise UserError(
                f"the images have different sizes: {_size(reading.size)} in "
                f"{printable(files[reading.files[0]])}, {_size(reading.other[0][1])} in "
                f"{printable(files[reading.other[0][0]])}",
                where=root,
                hint="data.image_size=64 makes them equal, data.patches=28 cuts them into patches",
            )
        if len(reading.files) == 1 and root.is_file() and not size:
            raise UserError(
                "data.path is a single image",
                where=root,
                hint="data.frames=all reads all its frames"
                if reading.more
                else "data.patches=28 cuts it into patches",
            )
        _check_types(reading.types, files, root, notes)
        more = f"data.frames=all reads {counted(reading.left, 'more frame')}" if reading.more else ""
        if reading.more:
            notes.append(
                f"{counted(reading.left, 'frame')} left out of {counted(reading.more, 'file')} "
                f"with more than {decoder.frames}; data.frames=all reads them"
            )
        notes += _colour(reading, len(files) - len(reading.unreadable), files, self.channels)
        if reading.bands:
            names = [printable(files[i]) for i in sorted(reading.bands)]
            notes.append(
                f"! bands beyond colour left out of {counted(len(names), 'file')}: {first_few(names)}; "
                "data=npy with data.bands reads any bands"
            )
        read, of_image = np.unique(reading.files, return_inverse=True)
        folder = root if root.is_dir() else None
        found = layout([files[i] for i in read], folder, split=self.split == "folders")
        notes += found.notes
        parts = None if found.parts is None else np.array(found.parts)[of_image]
        if parts is not None:
            counts = zip(("train", "validation", "test"), np.bincount(parts, minlength=3), strict=True)
            notes.append(
                f"folders are the parts: {', '.join(f'{n} {part}' for part, n in counts if n)}; "
                "data.split=random mixes them"
            )
        labels = words = None
        if found.labels is not None:
            words, of_file = np.unique(found.labels, return_inverse=True)
            labels = of_file[of_image].astype(np.int64)
        several = self.patches or len(read) < len(reading.files)
        pool = Pool(
            images=reading.images.array(),
            labels=labels,
            parts=parts,
            groups=np.array(reading.files) if several else None,
            notes=tuple(notes),
            names=_names(files, reading.files),
            label_names=None if words is None else tuple(map(str, words)),
            more=more,
        )
        return pool, reading

    def _read_all(self, reading: Reading, place: Place, decoder: Decoder) -> None:
        from PIL import Image

        files = place.files
        Image.init()  # not in several threads at once
        core = Image.core  # type: ignore[attr-defined]
        core.set_block_size(max(BLOCK, core.get_block_size()))
        threads = min(os.cpu_count() or 1, MOST_THREADS)
        at_once = 4 * threads if self.image_size else threads  # whole pictures may be large

        def decoded(name: str) -> tuple[list[Frame], int] | str:
            try:
                with place.open(name) as content:
                    return decoder.read(content)
            except UserError as error:  # a library is missing
                error.where = printable(name)
                raise
            except Exception as error:  # decoders raise what they like at damaged files
                return reason(error)

        # Pillow decodes without Python's lock.
        with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
            # Pillow's warnings about unusual files do not help here.
            warnings.simplefilter("ignore")
            for start in range(0, len(files), at_once):
                some = files[start : start + at_once]
                for i, frames in enumerate(pool.map(decoded, some), start):
                    self._take(reading, i, frames, printable(files[i]))

    def _take(self, reading: Reading, i: int, decoded: tuple[list[Frame], int] | str, name: str) -> None:
        if isinstance(decoded, str):
            reading.unreadable.append(f"{name} ({decoded})")
            return
        frames, left = decoded
        reading.more += left > 0
        reading.left += left
        found = []
        for k, frame in enumerate(frames):
            reading.sizes[i, k] = frame.size
            cut = [(0, 0, frame.pixels)]
            if self.patches:
                cut = _patches(frame.pixels, self.patches, centred=reading.centred)
            found += [((k, row, column), image) for row, column, image in cut]
            if frame.bands:
                reading.bands.add(i)
        if not found:
            reading.small.append(name)
        for place, image in found:
            reading.size = reading.size or image.shape[:2]
            if image.shape[:2] != reading.size:
                reading.other.append((i, image.shape))
                continue
            reading.types.setdefault(image.dtype, i)
            if image.ndim == 3:
                reading.colour.add(i)
            reading.images.append(image)
            reading.files.append(i)
            reading.places.append(place)

    def _decoder(self) -> Decoder:
        frames = {"first": 1, "all": None}.get(self.frames, 0)
        if frames == 0 and re.fullmatch("[1-9][0-9]{0,8}", self.frames):
            frames = int(self.frames)
        if frames == 0:
            raise OptionError(
                "data.frames",
                f"must be first, all, or how many frames of each file, got {self.frames}",
                hint="use data.frames=all",
            )
        return Decoder(
            self.image_size, not self.patches, self.channels, frames, Room(MOST_PIXELS_AT_ONCE)
        )

    def _complain(self, files: list[str], total: int, root: Path, notes: list[str]) -> None:
        if len(files) == total:
            raise UserError(
                f"none of {total} files can be read: {first_few(files)}",
                where=root,
                hint=LFS if POINTER in files[0] else _what_to_do(files[0]),
            )
        if len(files) > self.unreadable * total:
            raise UserError(
                f"{len(files)} of {total} files cannot be read: {first_few(files)}",
                where=root,
                hint=f"remove them, or use data.unreadable={math.ceil(100 * len(files) / total) / 100}",
            )
        notes.append(f"{counted(len(files), 'unreadable file')} left out: {first_few(files)}")
        for file in files[:MOST_LOGGED]:
            logger.warning("unreadable, left out: %s", file)
        if len(files) > MOST_LOGGED:
            logger.warning("unreadable, left out: %d more", len(files) - MOST_LOGGED)


def _what_to_do(unreadable: str) -> str:
    """How files can be read, by the reason why the first of them cannot."""
    if "too large" in unreadable:
        return f"files of up to {memory.amount(LARGEST_FILE)} are read, and films of any length"
    return "check whether they are damaged, or not images"


def _check_types(
    types: dict[np.dtype[Any], int], files: list[str], root: Path, notes: list[str]
) -> None:
    """Checks that one scale fits all images; white is known for 8 and 16 bits, so these may be mixed.

    Raises:
        UserError: other kinds of numbers beside each other.
    """
    if set(types) == {np.dtype(np.uint8), np.dtype(np.uint16)}:
        notes.append("8-bit files beside 16-bit files: 255 and 65535 are both white")
    elif len(types) > 1:
        (one, i), (other, k) = list(types.items())[:2]
        raise UserError(
            f"the images hold different kinds of numbers: {one} in {printable(files[i])}, "
            f"{other} in {printable(files[k])}",
            where=root,
            hint="put them into a folder for each kind, since no scale fits both",
        )


def _names(files: list[str], of_image: list[int]) -> list[str]:
    """The name of the file of each image; those of a file with several are counted from 0."""
    several = np.bincount(of_image)
    names, at = [], 0
    for k, i in enumerate(of_image):
        at = at + 1 if k and of_image[k - 1] == i else 0
        names.append(f"{files[i]}#{at}" if several[i] > 1 else files[i])
    return names


def _patches(pixels: Pixels, side: int, *, centred: bool) -> list[tuple[int, int, Pixels]]:
    """Patches side by side with their row and column."""
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    top, left = (pixels.shape[0] - rows * side) // 2, (pixels.shape[1] - columns * side) // 2
    if not centred:
        top = left = 0
    return [
        (row, column, pixels[y : y + side, x : x + side])
        for row, y in enumerate(range(top, top + rows * side, side))
        for column, x in enumerate(range(left, left + columns * side, side))
    ]


def _colour(reading: Reading, total: int, files: list[str], channels: int | None) -> Iterator[str]:
    """A note where a few files in colour make all images so."""
    if channels is None and 0 < 2 * len(reading.colour) < total:
        names = [printable(files[i]) for i in sorted(reading.colour)]
        yield (
            f"{len(names)} of {total} files have colour ({first_few(names)}), so all images get three "
            "channels; data.channels=1 makes them grey"
        )


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
