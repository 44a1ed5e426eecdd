"""One image file to the pixels of its frames, with the values that the file holds.

Pillow decodes. It cuts 16-bit colour to 8 bits, so such files are decoded twice, once for the high
bytes and once for the low ones. tifffile reads the kinds of TIFF that Pillow does not know.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import medical, video
from cae_cli.system import memory

if TYPE_CHECKING:
    from PIL import Image

# (h, w) or (h, w, 3); uint8, uint16 (white is 65535), or numbers without a known white
Pixels = NDArray[Any]

# A few bytes can describe an image of any size. Pillow refuses more than 179 million pixels, and no more
# than these are decoded at the same time, or one larger image. Decoding takes up to 16 bytes per pixel
# (palette, RGBA, background, result), for photographs 8: less than two gigabytes for all other files.
MOST_PIXELS_AT_ONCE = 10**8
BYTES_PER_PIXEL = 16
UNCHECKED = 2**25  # bytes of the frames of a file, after which the memory that is left is looked at
LEAST_LEFT = 2**28  # bytes: as much as eight threads add between two looks

EXTENSIONS = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pgm"),
    *(".png", ".ppm", ".tif", ".tiff", ".webp"),
    *medical.EXTENSIONS,
    *video.EXTENSIONS,
)
# Pillow's formats of these extensions, recognised by content. Some others of Pillow start programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_NATIVE, _SWAPPED = ("L", "B") if sys.byteorder == "little" else ("B", "L")
# How the pixels of 16-bit colour are stored -> how Pillow finds their high bytes, and their low ones: in
# the other byte order. Of RGBa, which are multiplied by their alpha, it would undo that for each byte.
_BYTES = {
    f"{mode};16{order}": (f"{taken};16{order}", f"{taken};16{low}")
    for mode, taken in {"RGB": "RGB", "RGBA": "RGBA", "RGBX": "RGBX", "RGBa": "RGBA"}.items()
    for order, low in (("B", "L"), ("L", "B"), ("N", _SWAPPED))
}
POINTER = "a Git LFS pointer"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUBFILE_TYPE, _BITS, _PHOTOMETRIC, _PLANAR = 254, 258, 262, 284  # tags of TIFF
_ORIENTATION, _TURNED = 274, 5  # tag of EXIF: from this value on, rows and columns change places
_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {  # its values, and what undoes them
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
_NO_ALPHA, _MULTIPLIED = 0, 1  # what a further band of TIFF is: nothing known, or alpha of such colours
_UNPACKED, _ZLIB, _PACKBITS = 1, (8, 32946), 32773  # compressions of TIFF
_LUMINANCE = (0.299, 0.587, 0.114)  # as in Pillow's conversion from RGB to L


class Unreadable(Exception):
    """Why a file gives no image."""


@dataclass(frozen=True)
class Frame:
    """A frame of a file.

    Attributes:
        pixels: in the configured size and channels.
        size: (h, w) before it was resized.
        bands: how many are left out: those beyond colour that are no transparency.
    """

    pixels: Pixels
    size: tuple[int, int]
    bands: int = 0


class _Frames(list[Frame]):
    """The frames of a file, as long as there is memory for them."""

    def __init__(self) -> None:
        super().__init__()
        self._unchecked = 0

    def append(self, frame: Frame) -> None:
        """Adds a frame.

        Raises:
            Unreadable: too little memory is left.
        """
        super().append(frame)
        self._unchecked += frame.pixels.nbytes
        if self._unchecked > UNCHECKED:
            self._unchecked = 0
            free = memory.free()
            if free is not None and free < LEAST_LEFT:
                raise Unreadable(
                    "more frames than fit into memory: data.frames=100, or a data.image_size"
                )


@dataclass(frozen=True)
class Decoder:
    """Decodes files with the same options.

    Attributes:
        side: side in pixels that the shorter side is resized to; None: no resizing.
        crop: whether a resized image is cropped to the central square.
        channels: 1: grey; 3: colour; None: as the file is.
        frames: how many frames of a file, from its first one; None: all.
        room: limits the pixels that several threads decode at the same time.
    """

    side: int | None
    crop: bool
    channels: int | None
    frames: int | None
    room: Room

    def read(self, content: IO[bytes]) -> tuple[list[Frame], int]:
        """The frames of a file, and how many frames it has beyond them.

        Raises:
            UserError: a library that reads such files is not installed.
            Exception: of any other kind, by Pillow, tifffile and others: it cannot be decoded.
        """
        from PIL import Image, UnidentifiedImageError

        if (found := medical.opened(content) or video.opened(content)) is not None:
            return self._several(found)
        try:
            # Given a path, Pillow maps the file and swaps the sides of a rotated TIFF.
            with Image.open(content, formats=FORMATS) as opened:
                if not _is_planar(opened):
                    return self._pillow(opened, content)
        except UnidentifiedImageError:
            content.seek(0)
            start = content.read(32)
            if start.startswith(b"version https://git-lfs"):
                raise Unreadable(POINTER) from None
            if not start.startswith(_TIFF):
                raise
        return self._tiff(content)

    def _several(self, found: medical.Dicom | medical.Nifti | video.Film) -> tuple[list[Frame], int]:
        from PIL import Image

        _check_memory(found.pixels)
        count = found.frames if self.frames is None else min(self.frames, found.frames)
        frames = _Frames()
        with self.room.taken(found.pixels):
            for values in found.read(count):
                if values.ndim != 2 and values.shape[2:] != (3,):
                    raise Unreadable(f"frames of the shape {values.shape}")
                if isinstance(found, video.Film):
                    frames.append(self._shaped(Image.fromarray(values)))
                else:
                    frames.append(self._shaped_values(values))
        return frames, max(0, found.frames - len(frames))

    def _pillow(self, opened: Image.Image, content: IO[bytes]) -> tuple[list[Frame], int]:
        from PIL import ImageOps

        whole = opened.height, opened.width
        if self.side:
            # JPEG decodes at a half, quarter, eighth for a fraction of the time.
            opened.draft(None, (2 * self.side, 2 * self.side))
        is_smaller = (opened.height, opened.width) != whole
        numbers = _frame_numbers(opened)
        chosen = numbers[: self.frames]
        frames = _Frames()
        for i in chosen:
            opened.seek(i)
            pixels = opened.width * opened.height
            _check_memory(pixels)
            with self.room.taken(pixels):
                bands = _raw_mode(opened).count("X")  # RGBX, RGBXX
                if (values := _sixteen_bits(opened, content)) is not None:
                    frames.append(replace(self._shaped_values(values), bands=bands))
                    continue
                turned = is_smaller and opened.getexif().get(_ORIENTATION, 1) >= _TURNED
                frame: Image.Image = opened if len(chosen) == 1 else opened.copy()
                ImageOps.exif_transpose(frame, in_place=True)
                wide = _wide(frame, opened)
                shaped = self._shaped(_eight_bits(frame)) if wide is None else self._shaped_values(wide)
                if is_smaller:
                    shaped = replace(shaped, size=whole[::-1] if turned else whole)
                frames.append(replace(shaped, bands=bands))
        return frames, len(numbers) - len(chosen)

    def _tiff(self, content: IO[bytes]) -> tuple[list[Frame], int]:
        """Frames of the kinds of TIFF that Pillow does not know, such as floating-point colour."""
        import tifffile

        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it raises, too
        content.seek(0)
        with tifffile.TiffFile(content) as file:
            pages = [page for page in file.pages if not getattr(page, "is_reduced", False)]
            chosen = pages[: self.frames]
            frames = _Frames()
            for page in cast("list[Any]", chosen):
                _check_memory(page.size)
                with self.room.taken(page.size):
                    _check_strips(page, content)
                    values, bands = _bands_last(page.asarray(), page)
                    frames.append(replace(self._shaped_values(values), bands=bands))
        if not frames:
            raise Unreadable("no image")
        return frames, len(pages) - len(chosen)

    def _shaped(self, image: Image.Image) -> Frame:
        """The pixels of an image in mode L or RGB, in the configured size and channels."""
        pixels = np.asarray(self._resized(image.convert("L") if self.channels == 1 else image))
        return Frame(self._with_channels(pixels), (image.height, image.width))

    def _shaped_values(self, values: Pixels) -> Frame:
        """The same for an array of any type."""
        from PIL import Image

        size = values.shape[0], values.shape[1]
        if self.channels == 1 and values.ndim == 3:
            values = _rounded(values @ np.array(_LUMINANCE), values.dtype)
        if self.side:
            bands = np.atleast_3d(values).astype(np.float32)
            low, high = (end.reduce(bands, axis=None) for end in (np.fmin, np.fmax))  # NaN aside
            resized = [
                np.asarray(self._resized(Image.fromarray(np.ascontiguousarray(bands[..., i]))))
                for i in range(bands.shape[2])
            ]
            # Next to edges, bicubic interpolation leaves the range of the image.
            inside = np.clip(np.stack(resized, axis=2).squeeze(), low, high)
            values = _rounded(inside, values.dtype)
        return Frame(self._with_channels(values), size)

    def _with_channels(self, pixels: Pixels) -> Pixels:
        if self.channels is None and pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
            return pixels[..., 0]
        if self.channels == 3 and pixels.ndim == 2:
            return np.repeat(pixels[..., np.newaxis], 3, axis=2)
        return pixels

    def _resized(self, image: Image.Image) -> Image.Image:
        from PIL import Image, ImageOps

        side = self.side
        if not side:
            return image
        if self.crop:
            return ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
        shorter = min(image.size)
        width, height = (max(side, round(x * side / shorter)) for x in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)


class Room:
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


def reason(error: Exception) -> str:
    """Why a file cannot be decoded."""
    from PIL import Image, UnidentifiedImageError

    text = str(error)
    match error:
        case Unreadable() | medical.Refused():
            return text
        case UnidentifiedImageError():
            return "not an image"
        case Image.DecompressionBombError():
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


def _check_memory(pixels: int) -> None:
    """Raises an error for an image that may not fit; smaller ones pass without a look at the memory."""
    free = memory.free() if pixels > MOST_PIXELS_AT_ONCE // 2 else None
    if free is not None and pixels * BYTES_PER_PIXEL > free:
        raise MemoryError


def _frame_numbers(opened: Image.Image) -> list[int]:
    """The numbers of the frames; a TIFF may hold smaller copies of its images, which are none."""
    numbers = list(range(getattr(opened, "n_frames", 1)))
    if opened.format != "TIFF" or len(numbers) == 1:
        return numbers
    whole = []
    for i in numbers:
        opened.seek(i)
        if not _tag(opened, _SUBFILE_TYPE) & 1:
            whole.append(i)
    return whole or numbers


def _tag(opened: Image.Image, number: int) -> int:
    return int(opened.tag_v2.get(number, 0))  # type: ignore[attr-defined]


def _is_planar(opened: Image.Image) -> bool:
    """Whether the bands of a TIFF of more than 8 bits follow each other, of which Pillow takes bytes."""
    if opened.format != "TIFF" or _tag(opened, _PLANAR) != 2:
        return False
    bits = opened.tag_v2.get(_BITS, (1,))  # type: ignore[attr-defined]
    return len(bits) > 1 and max(bits) > 8


def _sixteen_bits(opened: Image.Image, content: IO[bytes]) -> NDArray[np.uint16] | None:
    """The pixels of 16-bit colour on white, (h, w, 3) or (h, w); None for any other image."""
    from PIL import Image

    raw = _raw_mode(opened)
    white, offset = _ppm(opened)
    if white > 255:
        content.seek(offset)
        values = np.frombuffer(content.read(6 * opened.width * opened.height), ">u2")
        values = values.reshape(opened.height, opened.width, 3)  # fails for a file that is cut off
        levels = _rounded(np.arange(white + 1) * (65535 / white), np.dtype(np.uint16))
        wide = levels.take(values, mode="clip")  # of all pixels, fractions would take much memory
    elif raw == "LA;16B":  # grey and alpha, of which each byte is taken as a channel of its own
        _set_raw_mode(opened, "RGBA")
        wide = np.ascontiguousarray(_upright(opened)).view(">u2").astype(np.uint16)  # (h, w, 2)
    elif raw in _BYTES:
        number = opened.tell()
        of_high, of_low = _BYTES[raw]
        _set_raw_mode(opened, of_high)
        high = _upright(opened)
        with Image.open(content, formats=FORMATS) as again:
            again.seek(number)
            _set_raw_mode(again, of_low)
            low = _upright(again)
        wide = high * np.uint16(256) + low
        if raw.startswith("RGBX"):
            return wide[..., :3]
        if raw.startswith("RGBa"):
            return _on_white(wide, multiplied=True)
        key = opened.info.get("transparency")
        if key is not None:
            wide[(wide == key).all(axis=2)] = 65535
    else:
        return None
    return _on_white(wide) if wide.shape[2] in (2, 4) else wide


def _on_white(wide: NDArray[np.uint16], *, multiplied: bool = False) -> NDArray[np.uint16]:
    """Integers of full range with alpha last, by which they are multiplied already or not, on white."""
    white = np.iinfo(wide.dtype).max
    alpha = wide[..., -1:] / white
    own = wide[..., :-1] if multiplied else wide[..., :-1] * alpha
    mixed = _rounded(own + white * (1 - alpha), wide.dtype)
    return mixed[..., 0] if mixed.shape[2] == 1 else mixed


def _upright(opened: Image.Image) -> NDArray[np.uint8]:
    from PIL import ImageOps

    # Not in place, which would stand in the way of the next frame.
    return np.asarray(ImageOps.exif_transpose(opened))


def _raw_mode(opened: Image.Image) -> str:
    """Pillow's name for how the pixels are stored in the file."""
    tile = getattr(opened, "tile", None)
    args = tile[0].args if tile else None
    found = args[0] if isinstance(args, tuple) and args else args
    return found if isinstance(found, str) else ""


def _ppm(opened: Any) -> tuple[int, int]:
    """The value of white in a binary PPM file in colour, and where its pixels begin; else 0, 0."""
    tile = opened.tile[0] if opened.format == "PPM" and opened.mode == "RGB" else None
    return (int(tile.args[1]), int(tile.offset)) if tile and tile.codec_name == "ppm" else (0, 0)


def _set_raw_mode(opened: Any, raw: str) -> None:
    """Lets Pillow take the pixels as if they were stored in another way."""
    opened.tile = [
        type(tile)(*tile[:3], (raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in opened.tile
    ]


def _wide(image: Image.Image, opened: Image.Image) -> Pixels | None:
    """The values of grey pixels of more than 8 bits; None for any other image.

    Args:
        image: an upright frame.
        opened: its file.
    """
    if image.mode == "F":
        return np.asarray(image)
    if not image.mode.startswith("I"):
        return None
    values = np.asarray(image)
    if image.mode == "I" and opened.format == "TIFF":
        return values  # 32 bits, or 16 bits with a sign: white is unknown
    wide = values.astype(np.uint16)
    if opened.format == "TIFF" and _tag(opened, _PHOTOMETRIC) == 0:
        return 65535 - wide  # 0 is white
    key = opened.info.get("transparency")
    return np.where(wide == key, np.uint16(65535), wide) if isinstance(key, int) else wide


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB, on white.

    Raises:
        Unreadable: its values have no known range.
    """
    from PIL import Image

    if image.mode in ("LAB", "HSV"):
        raise Unreadable(f"{image.mode} colours")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _check_strips(page: Any, content: IO[bytes]) -> None:
    """Checks that a TIFF page unpacks to no more than its pixels; tifffile would hold all of it.

    Raises:
        Unreadable: it unpacks to more, or is packed in a way that needs another program.
    """
    if page.compression not in (_UNPACKED, _PACKBITS, *_ZLIB):
        raise Unreadable(f"packed as {page.compression.name}, for these pixels")
    if page.compression in _ZLIB:
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            content.seek(offset)
            part = zlib.decompressobj().decompress(content.read(count), page.nbytes + 1)
            if len(part) > page.nbytes:
                raise Unreadable("too large inside")


def _bands_last(values: Pixels, page: Any) -> tuple[Pixels, int]:
    """The values of a TIFF page as (h, w) or (h, w, 3), on white, and how many bands are left out.

    Raises:
        Unreadable: another number of bands, or complex numbers.
    """
    if values.dtype.kind not in "buif":
        raise Unreadable(f"pixels of the type {values.dtype}")
    if page.axes.startswith("S"):
        values = np.moveaxis(values, 0, -1)
    orientation = page.tags.get(_ORIENTATION)
    if orientation is not None and orientation.value in _UPRIGHT:
        values = _UPRIGHT[orientation.value](values)
    left = 0
    if values.ndim == 3 and values.shape[2] in (2, 4) and page.extrasamples:
        kind = int(page.extrasamples[0])
        if kind == _NO_ALPHA:
            values, left = values[..., :-1], 1
        elif values.dtype.kind == "u":
            values = _on_white(values, multiplied=kind == _MULTIPLIED)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 and (values.ndim != 3 or values.shape[2] != 3):
        raise Unreadable(f"{values.shape[-1]} bands")
    if values.dtype.kind == "b":
        values = values * np.uint8(255)
    if page.photometric == 0 and values.dtype.kind == "u":  # 0 is white
        values = np.iinfo(values.dtype).max - values
    return values.astype(np.float32) if values.dtype.kind == "f" else values, left


def _rounded(values: NDArray[Any], dtype: np.dtype[Any]) -> Pixels:
    """Computed values in the type of the pixels."""
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    rounded: Pixels = np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return rounded
