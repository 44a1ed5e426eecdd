"""Many images of one size: in memory, or where that would take too much, in a file without a name.

The file is mapped, so that NumPy works on it as on any array, and the operating system keeps in memory
what there is room for. It goes when the last array that needs it goes, or with the process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import UserError

# Bytes of pixels, as they will be in the array, that are kept in memory.
IN_MEMORY = 2**30
BLOCK = 2**26  # bytes that are copied at once

Image = NDArray[np.uint8]  # (h, w) or (h, w, 3)


class Spool:
    """Takes images one by one; grey ones become colour if there is one of colour among them."""

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._most = in_memory
        self._waiting: list[Image] = []  # not yet in the file
        self._colour = False
        self._file: Any = None
        self._shape: tuple[int, ...] = ()  # of an image in the file
        self._written = 0

    def append(self, image: Image) -> None:
        """Adds an image, (h, w) or (h, w, 3).

        Raises:
            UserError: the disk is full.
        """
        # A view, of a patch or a channel, would keep all that it is a part of.
        self._waiting.append(image if image.base is None else image.copy())
        self._colour |= image.ndim == 3
        h, w = image.shape[:2]
        waiting = len(self._waiting) * h * w * (3 if self._colour else 1)
        if waiting > (self._most if self._file is None else BLOCK):
            self._write()

    def array(self) -> NDArray[np.uint8]:
        """All images, (n, h, w) or (n, h, w, 3).

        Raises:
            UserError: the disk is full.
        """
        if self._file is None:
            waiting, self._waiting = self._waiting[::-1], []
            images = np.empty((len(waiting), *self._shaped(waiting[0]).shape), np.uint8)
            for i in range(len(images)):  # never twice in memory
                images[i] = self._shaped(waiting.pop())
            return images
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
            self._put(grey)
        self._put(self._waiting)
        self._waiting = []

    def _put(self, images: Iterable[Image]) -> None:
        for image in map(self._shaped, images):
            self._shape = image.shape
            _write(self._file, image)
            self._written += 1


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
        return tempfile.TemporaryFile(buffering=0, dir=folder)
    except OSError:
        return tempfile.TemporaryFile(buffering=0)


def _write(file: Any, images: NDArray[Any]) -> None:
    rest = np.ascontiguousarray(images).data.cast("B")
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise UserError(
            f"the images need more room than the disk has: {error.strerror}",
            hint="a smaller data.image_size, or XDG_CACHE_HOME=<folder on a larger disk>",
        ) from error


def _mapped(file: Any, shape: tuple[int, ...], dtype: Any = np.uint8) -> NDArray[Any]:
    """What is in the file; the array stays when the file is closed."""
    return np.memmap(file, dtype, mode="r", shape=shape)
