"""DICOM and NIfTI to the pixels of their frames, with the values that they mean.

Stored values become those of their unit (RescaleSlope, RescaleIntercept; scl_slope, scl_inter), such as
Hounsfield units. Headers are read by pydicom and nibabel; nothing larger than a header says is unpacked.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import UserError

Values = NDArray[Any]

EXTENSIONS = (".dcm", ".dicom", ".nii", ".nii.gz")
START = 132  # bytes that tell both from other files
_GZIP = b"\x1f\x8b"
_NIFTI = {348: (b"n+1\0", 344), 540: (b"n+2\0", 4)}  # size of the header: its mark, and where that is
_DEFLATED = "1.2.840.10008.1.2.1.99"  # a transfer syntax: the whole file may unpack to any size
MOST_HEADER = 2**24  # bytes before the values of a NIfTI file


class Refused(Exception):
    """Why a file gives no image."""


def is_dicom(path: Path) -> bool:
    """Whether a file is of DICOM by its content: such files often have no extension."""
    try:
        with path.open("rb") as file:
            return has_dicom(file)
    except OSError:
        return False


def has_dicom(content: IO[bytes]) -> bool:
    """The same for a file that is open at its begin."""
    return content.read(START)[128:] == b"DICM"


def opened(content: IO[bytes]) -> Dicom | Nifti | None:
    """The file as one of both; None if it is neither. The content is then at its begin."""
    start = content.read(START)
    content.seek(0)
    if start[128:] == b"DICM":
        return Dicom(content)
    head: bytes = start
    if start.startswith(_GZIP):
        head = gzip.GzipFile(fileobj=content).read(4)
        content.seek(0)
    size = next((s for s in _NIFTI if head[:4] in (s.to_bytes(4, "little"), s.to_bytes(4, "big"))), None)
    return None if size is None else Nifti(content, size, packed=start.startswith(_GZIP))


class Dicom:
    """A file of DICOM.

    Attributes:
        frames: how many it has.
        pixels: of a frame.

    Raises:
        Refused: it has no pixels, or may unpack to any size.
        UserError: pydicom is not installed.
    """

    def __init__(self, content: IO[bytes]) -> None:
        try:
            import pydicom
            from pydicom.filereader import read_dataset, read_preamble
        except ImportError as error:
            raise _missing("DICOM", "pydicom") from error

        read_preamble(content, force=False)
        meta = read_dataset(content, False, True, stop_when=lambda tag, *_: tag.group != 2)
        self._syntax = meta.get("TransferSyntaxUID")
        if self._syntax == _DEFLATED:
            raise Refused("a deflated DICOM file, which may unpack to any size")
        content.seek(0)
        self._data: Any = pydicom.dcmread(content)
        if "PixelData" not in self._data:
            raise Refused("DICOM without pixels of 8 to 32 bits")
        self.frames = int(self._data.get("NumberOfFrames") or 1)
        self.pixels = int(self._data.Rows) * int(self._data.Columns)

    def read(self, count: int) -> Iterator[Values]:
        """The first frames, (h, w) or (h, w, 3).

        Raises:
            Refused: they are packed in a way that needs another library.
        """
        from pydicom.pixels import apply_color_lut, apply_rescale, pixel_array

        data = self._data
        kind = str(data.get("PhotometricInterpretation", ""))
        for i in range(count):
            try:
                values = pixel_array(data, index=i)
            except (RuntimeError, NotImplementedError) as error:
                name = getattr(self._syntax, "name", "an unknown way")
                raise Refused(f"packed as {name}, which needs a library that is not there") from error
            if kind == "PALETTE COLOR":
                values = apply_color_lut(values, data)
            if kind == "MONOCHROME1":  # the smallest value is white
                stored = int(data.BitsStored)
                values = (-1 if data.PixelRepresentation else 2**stored - 1) - values
            scaled = _scaled(data, i)
            if "RescaleSlope" in scaled:
                values = apply_rescale(values, scaled).astype(np.float32)
            yield values


def _scaled(data: Any, frame: int) -> Any:
    """Where the slope and intercept of a frame stand: in the file, for the frame, or for all frames."""
    if "PerFrameFunctionalGroupsSequence" not in data:
        return data
    groups = (
        data.PerFrameFunctionalGroupsSequence[frame],
        *data.get("SharedFunctionalGroupsSequence", ()),
    )
    found = (group.PixelValueTransformationSequence[0] for group in groups
             if "PixelValueTransformationSequence" in group)  # fmt: skip
    return next(found, data)


class Nifti:
    """A file of NIfTI, packed or not: the frames of its volumes are their slices along the third axis.

    Attributes:
        frames: how many it has.
        pixels: of a frame.

    Raises:
        Refused: it is no volume of numbers.
        UserError: nibabel is not installed.
    """

    def __init__(self, content: IO[bytes], size: int, *, packed: bool) -> None:
        try:
            import nibabel
        except ImportError as error:
            raise _missing("NIfTI", "nibabel") from error

        self._content, self._packed = content, packed
        block = self._unpacked().read(size)
        mark, at = _NIFTI[size]
        if block[at : at + 4] != mark:
            raise Refused("NIfTI with its values in another file; convert it to .nii")
        kind = nibabel.Nifti1Header if size == 348 else nibabel.Nifti2Header
        header = kind(block)
        self._shape = tuple(map(int, header.get_data_shape()))
        self._dtype: np.dtype[Any] = header.get_data_dtype()
        self._offset = int(header.get_data_offset())
        self._slope = header.get_slope_inter()
        if self._dtype.kind not in "buif" or self._dtype.itemsize > 8:
            raise Refused(f"values of the type {self._dtype}")
        if len(self._shape) < 2 or 0 in self._shape or not 0 <= self._offset <= MOST_HEADER:
            raise Refused(f"no volume: {self._shape}")
        self.frames = math.prod(self._shape[2:])
        self.pixels = self._shape[0] * self._shape[1]

    def _unpacked(self) -> IO[bytes]:
        self._content.seek(0)
        return gzip.open(self._content) if self._packed else self._content  # type: ignore[return-value]

    def read(self, count: int) -> Iterator[Values]:
        """The first frames, (h, w): upright for files in the usual order, right to left, back to front.

        Raises:
            Refused: the file ends before its values do.
        """
        slope, intercept = (1.0 if x is None else x for x in self._slope)
        size = self.pixels * self._dtype.itemsize
        file = self._unpacked()
        file.read(self._offset)
        for _ in range(count):
            content = file.read(size)
            if len(content) < size:
                raise Refused("truncated")
            values = np.frombuffer(content, self._dtype).reshape(self._shape[:2], order="F").T[::-1]
            if (slope, intercept) != (1.0, 0.0):
                values = values * np.float32(slope) + np.float32(intercept)
            native = values.dtype.newbyteorder("=")
            yield values.astype(np.float32 if native.kind == "f" else native)


def _missing(what: str, package: str) -> UserError:
    return UserError(
        f"reading {what} needs {package}, which is not installed", hint="pip install 'cae-cli[medical]'"
    )
