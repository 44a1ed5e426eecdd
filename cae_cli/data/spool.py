"""Many images of one size, in memory or, if they are too large, in a memory-mapped temporary file.

NumPy works on the mapped file as on any array, and the operating system keeps in memory what fits. The
file has no name: it is deleted with the last array that uses it, or with the process.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import UserError

IN_MEMORY = 2**30  # bytes of the array that are kept in memory
BLOCK = 2**26  # bytes that are copied at once

Image = NDArray[Any]  # (h, w) or (h, w, 3)


class Spool:
    """Collects images one by one.

    Grey images become colour if any image has colour, and 8 bits become 16 if any image has 16. Images
    of other types must all be of one type.
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._most = in_memory
        self._waiting: list[Image] = []  # not yet in the file
        self._colour = False
        self._dtype: Any = None  # of all images so far
        self._file: Any = None
        self._shape: tuple[int, ...] = ()  # of an image in the file
        self._filed: Any = None  # dtype of the images in the file
        self._written = 0

    def append(self, image: Image) -> None:
        """Adds an image, (h, w) or (h, w, 3).

        Raises:
            UserError: the disk is full.
        """
        # A view of a patch or a channel would keep the whole image in memory.
        self._waiting.append(image if image.base is None else image.copy())
        self._colour |= image.ndim == 3
        before = image.dtype if self._dtype is None else self._dtype
        self._dtype = np.promote_types(before, image.dtype)
        h, w = image.shape[:2]
        values = len(self._waiting) * h * w * (3 if self._colour else 1)
        # All that is not 8-bit becomes float32 when it is scaled.
        bytes_later = values * (1 if self._dtype == np.uint8 else 4)
        if bytes_later > (self._most if self._file is None else BLOCK):
            self._write()

    def array(self) -> NDArray[Any]:
        """All images, (n, h, w) or (n, h, w, 3).

        Raises:
            UserError: the disk is full.
        """
        if self._file is None:
            waiting, self._waiting = self._waiting[::-1], []
            images = np.empty((len(waiting), *self._shaped(waiting[0]).shape), self._dtype)
            for i in range(len(images)):  # never twice in memory
                images[i] = self._shaped(waiting.pop())
            return images
        self._write()
        with self._file as file:
            return _mapped(file, (self._written, *self._shape), self._dtype)

    def _shaped(self, image: Image) -> Image:
        if image.dtype != self._dtype:
            known = image.dtype == np.uint8 and self._dtype == np.uint16  # white is 255 and 65535
            image = image.astype(self._dtype) * self._dtype.type(257 if known else 1)
        return np.repeat(image[..., None], 3, axis=2) if self._colour and image.ndim == 2 else image

    def _write(self) -> None:
        if self._file is None:
            self._file = _nameless()
        elif (self._colour and len(self._shape) == 2) or self._dtype != self._filed:
            with self._file as file:  # the first colour image after grey ones, the first of 16 bits
                before = _mapped(file, (self._written, *self._shape), self._filed)
            self._file, self._written = _nameless(), 0
            self._put(before)
        self._put(self._waiting)
        self._waiting = []

    def _put(self, images: Iterable[Image]) -> None:
        for image in map(self._shaped, images):
            self._shape, self._filed = image.shape, image.dtype
            _write(self._file, image)
            self._written += 1


def chosen(images: NDArray[Any], indices: NDArray[np.intp]) -> NDArray[Any]:
    """Copies images in the given order, in memory or, if the images are in a file, in a file.

    Raises:
        UserError: the disk is full.
    """
    if not isinstance(images, np.memmap):
        return images[indices]
    at_once = max(1, BLOCK // images[:1].nbytes)
    with _nameless() as file:
        for start in range(0, len(indices), at_once):
            _write(file, images[indices[start : start + at_once]])
        return _mapped(file, (len(indices), *images.shape[1:]), images.dtype)


def empty_like(images: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """An array of the same shape to be filled, in memory or, if the images are in a file, in a file.

    Raises:
        UserError: the disk is full.
    """
    if not isinstance(images, np.memmap):
        return np.empty(images.shape, dtype)
    size = math.prod(images.shape) * np.dtype(dtype).itemsize
    with _nameless() as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a hole would end the process when it is filled
        except OSError as error:
            raise _full(error) from error
        return np.memmap(file, dtype, mode="r+", shape=images.shape)


def _nameless() -> Any:
    """An open file without a name, in the user's cache because temporary folders may be in memory."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cae"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(buffering=0, dir=folder)
    except OSError:
        return tempfile.TemporaryFile(buffering=0)


def _write(file: Any, images: NDArray[Any]) -> None:
    rest = np.ascontiguousarray(images).data.cast("B")
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise _full(error) from error


def _full(error: OSError) -> UserError:
    return UserError(
        f"the images need more space than the disk has: {error.strerror}",
        hint="use a smaller data.image_size, or set XDG_CACHE_HOME to a folder on a larger disk",
    )


def _mapped(file: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """The content of a file as an array, which stays valid when the file is closed."""
    return np.memmap(file, dtype, mode="r", shape=shape)
