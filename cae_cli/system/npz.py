"""NumPy files of strangers: what their headers say is checked before memory is allocated.

``np.load`` allocates what a header says, and unpacks with any method that an archive names.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter
from collections.abc import Container
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cae_cli.errors import printable
from cae_cli.system import memory

Array = NDArray[Any]

LARGEST_HEADER = 2**16  # bytes; of a longer one NumPy would read all that it says, up to 4 GB
LONGEST_NAME = 80
TOO_LARGE = "use fewer or smaller images, or a machine with more memory"


class Refused(ValueError):
    """A file that is not read.

    Args:
        problem: continues a sentence that begins with the file ("is truncated: …").
        hint: the next step.
    """

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.hint = hint


class Pickled(Refused):
    """A file with pickled objects, which can run any code."""

    def __init__(self) -> None:
        super().__init__("holds pickled objects", "save arrays of numbers")


class Arrays:
    """The arrays of an ``.npz`` file; the size of each is checked before it is read.

    Args:
        archive: the file.
        where: its path, for messages.
    """

    def __init__(self, archive: zipfile.ZipFile, where: object) -> None:
        self._archive, self._where = archive, where
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        self.members = {m.filename.removesuffix(".npy"): m for m in members}
        self._often = Counter(m.filename for m in members)

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of an array.

        Raises:
            ValueError: its header is not valid.
        """
        with self._opened(name) as file:
            shape, dtype, _ = _header(file)
        return shape, dtype

    def get(self, name: str) -> Array | None:
        """An array as by `read`, None if there is none of this name."""
        return self.read(name) if name in self.members else None

    def read(self, name: str) -> Array:
        """An array.

        Raises:
            ValueError: it is encrypted, repeated, truncated or pickled.
            UserError: it is larger than the free memory.
        """
        with self._opened(name) as file:
            return array(file, self.members[name].file_size, name, self._where)

    def _opened(self, name: str) -> IO[bytes]:
        member = self.members[name]
        shown = printable(member.filename)[:LONGEST_NAME]
        if self._often[member.filename] > 1:
            problem, hint = f"has {shown} {self._often[member.filename]} times", "write the file again"
        elif member.flag_bits & 1:
            problem, hint = f"is encrypted: {shown}", "unpack the file and write it again"
        # Python bounds what these two unpack to at once, and NumPy writes no other.
        elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problem, hint = f"has an unusual compression: {shown}", "unpack the file and write it again"
        else:
            return self._archive.open(member)
        raise Refused(problem, f"{hint} with np.savez")


def read(file: IO[bytes], where: object, only: Container[str] | None = None) -> dict[str, Array]:
    """The arrays of an ``.npz`` file.

    Args:
        file: opened for reading.
        where: its path, for messages.
        only: names of the arrays to read; None for all.

    Raises:
        UserError: they are larger than the free memory.
        Exception: many kinds for a damaged file; see `Arrays.read`.
    """
    with zipfile.ZipFile(file) as archive:
        arrays = Arrays(archive, where)
        names = [name for name in arrays.members if only is None or name in only]
        # Together they may be too large where each is not.
        memory.check(sum(arrays.members[n].file_size for n in names), "the file", where, TOO_LARGE)
        return {name: arrays.read(name) for name in names}


def array(file: IO[bytes], size: int, name: str, where: object) -> Array:
    """An array of a file in the format of ``np.save``.

    Args:
        file: at its beginning.
        size: of the file, bytes.
        name: of the array, for messages.
        where: path of the file, for messages.

    Raises:
        ValueError: it holds pickled objects, is truncated or damaged.
        UserError: it is larger than the free memory.
    """
    shape, dtype, start = _header(file)
    if dtype.hasobject:
        raise Pickled
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} has a negative size")
    needed, there = math.prod(shape) * dtype.itemsize, size - start
    if needed > there:
        raise Refused(
            f"is truncated: {name} should have {memory.amount(needed)}, "
            f"the file has {memory.amount(there)}",
            "the file is damaged or incomplete; copy it or write it again",
        )
    memory.check(needed, name, where, TOO_LARGE)
    file.seek(0)
    return npy.read_array(file, allow_pickle=False)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape and dtype in the header of an array, and the offset of its values.

    Raises:
        ValueError: the header is not valid.
    """
    start = io.BytesIO(file.read(LARGEST_HEADER))
    version = npy.read_magic(start)
    # Version 3 is version 2 with names of fields in UTF-8.
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        shape, _, dtype = read(start)
    except MemoryError as error:  # Python's parser, of brackets without end
        raise ValueError("the header is not valid") from error
    return shape, dtype, start.tell()
