"""Many images of one size: in memory, or where that would take too much, in a file without a name.

The file is mapped, so that NumPy works on it as on any array, and the operating system keeps in memory
what there is room for. It goes when the last array that needs it goes, or with the process.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import UserError

# Bytes of pixels that are kept in memory.
IN_MEMORY = 2**30
BLOCK = 2**26  # bytes that are copied at once

Image = NDArray[np.uint8]  # (h, w) or (h, w, 3)


class Spool:
    """Takes images one by one; grey ones become colour if there is one of colour among them."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._most = in_memory
        self._waiting: list[Image] = []  # not yet in the file
        self._bytes = 0
        self._colour = False
        self._file: Any = None
        self._shape: tuple[int, ...] = ()  # of an image in the file
        self._written = 0

    def append(self, image: Image) -> None:
        """Adds an image, (h, w) or (h, w, 3).

        Raises:
            UserError: the disk is full.
        """
        self._waiting.append(image)
        self._colour |= image.ndim == 3
        self._bytes += image.nbytes
        if self._bytes > (self._most if self._file is None else BLOCK):
            self._write()

    def array(self) -> NDArray[np.uint8]:
        """All images, (n, h, w) or (n, h, w, 3).

        Raises:
            UserError: the disk is full.
        """
        if self._file is None:
            return np.stack([self._shaped(image) for image in self._waiting])
        self._write()
        with self._file as file:
            return _mapped(file, (self._written, *self._shape))

    def _shaped(self, image: Image) -> Image:
        return np.repeat(image[..., None], 3, axis=2) if self._colour and image.ndim == 2 else image

    def _write(self) -> None:
        if self._file is None:
            self._file = _nameless()
        elif self._colour and len(self._shape) == 2:  # the first one of colour, behind grey ones
            with self._file as file:
                grey = _mapped(file, (self._written, *self._shape))
            self._file, self._written = _nameless(), 0
            for start in range(0, len(grey), 256):
                self._put([self._shaped(image) for image in grey[start : start + 256]])
        if self._waiting:
            self._put([self._shaped(image) for image in self._waiting])
        self._waiting, self._bytes = [], 0

    def _put(self, images: list[Image]) -> None:
        self._shape = images[0].shape
        for image in images:
            _write(self._file, image)
        self._written += len(images)


def chosen(images: NDArray[Any], indices: NDArray[np.intp]) -> NDArray[Any]:
    """A copy of some images, in this order: in memory, or in a file if the images are in one.

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


def _nameless() -> Any:
    """An open file that nobody else sees, in the user's cache: temporary folders may be in memory."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cae"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)
    except OSError:
        return tempfile.TemporaryFile()


def _write(file: Any, images: NDArray[Any]) -> None:
    try:
        file.write(np.ascontiguousarray(images).data)
    except OSError as error:
        raise UserError(
            f"the images need more room than the disk has: {error.strerror}",
            hint="a smaller data.image_size, or XDG_CACHE_HOME=<folder on a larger disk>",
        ) from error


def _mapped(file: Any, shape: tuple[int, ...], dtype: Any = np.uint8) -> NDArray[Any]:
    """What is in the file; the array stays when the file is closed."""
    file.flush()
    return np.memmap(file, dtype, mode="r", shape=shape)
