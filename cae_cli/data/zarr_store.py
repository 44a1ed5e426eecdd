"""Arrays of a zarr store, a folder with a file for each chunk."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data.archives import explained
from cae_cli.data.arrays import ArrayOptions, pool_of
from cae_cli.data.images import Pool
from cae_cli.data.source import SOURCES, existing
from cae_cli.errors import UserError, printable
from cae_cli.options import option
from cae_cli.system import memory, npz

ROOT = (".zarray", ".zgroup", "zarr.json")
_METADATA = (*ROOT, ".zattrs", ".zmetadata")
MOST_METADATA = 2**24  # bytes of such a file
LEAST_ROOM = 2**16  # bytes that a chunk may unpack to, however small it should be

# What unpacks a chunk; others may run code (pickle) or unpack to any size.
_PACKED = ("blosc", "gzip", "zlib", "zstd")
_ALLOWED = {*_PACKED, "bytes", "crc32c", "shuffle", "transpose"}


@SOURCES.add("zarr")
@dataclass(frozen=True, kw_only=True)
class Zarr(ArrayOptions):
    """Your own images in a zarr store of version 2 or 3, a folder."""

    path: str | None = option("the folder of the store")
    key: str | None = option(
        "path of the array of images; with x_train also y_train, x_test, y_test; null: x_train, or the "
        "only one that can be images"
    )

    def read(self) -> Pool:
        """Images of the array ``key``.

        Raises:
            UserError: no such store or array, a damaged one, or one that is packed in an unusual way;
                zarr is not installed.
        """
        path = existing(self.path, "images.zarr")
        if not any((path / name).is_file() for name in ROOT):
            raise UserError(
                "data.path is not a zarr store",
                where=path,
                hint="a store is a folder with a file zarr.json, .zgroup or .zarray",
            )
        try:
            import zarr
            from zarr.storage import LocalStore
        except ImportError as error:
            raise UserError(
                "reading zarr needs zarr 3, which is not installed",
                where=path,
                hint="pip install 'cae-cli[zarr]'",
            ) from error

        with explained(path):
            files = list(_files(path))
            for file in files:
                if file.name in _METADATA and file.stat().st_size > MOST_METADATA:
                    raise npz.Refused(
                        f"has {memory.amount(file.stat().st_size)} of metadata", "write the store again"
                    )
            root = zarr.open(LocalStore(path, read_only=True), mode="r")
            return self.arranged(pool_of(_Arrays(root, path, files), self.key, path))


def _files(path: Path) -> Iterator[Path]:
    """The files of a store; a link might lead to any other file."""
    for found in path.rglob("*"):
        if found.is_symlink():
            raise npz.Refused("has links to other files", "copy the store without links")
        if found.is_file():
            yield found


class _Arrays:
    """The arrays of a store, by their path in it; an array alone is called ``images``."""

    def __init__(self, root: Any, path: Path, files: list[Path]) -> None:
        import zarr

        self._path, self._files = path, files
        found = {"images": root} if isinstance(root, zarr.Array) else dict(root.members(max_depth=None))
        self.members = {name: x for name, x in found.items() if isinstance(x, zarr.Array)}

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        array = self.members[name]
        return array.shape, array.dtype

    def read(self, name: str) -> NDArray[Any]:
        array, shown = self.members[name], printable(name)[: npz.LONGEST_NAME]
        if array.dtype.kind not in "biuf":
            raise npz.Refused(f"has {shown} of {array.dtype}, not of numbers", "write it as numbers")
        memory.check(array.nbytes, shown, self._path, npz.TOO_LARGE)
        self._check_chunks(array, shown)
        return np.asarray(array[...])

    def _check_chunks(self, array: Any, shown: str) -> None:
        """Checks that no chunk unpacks to more than a chunk has."""
        codecs = list(_codecs(array.metadata.to_dict()))
        others = [codec for codec in codecs if codec not in _ALLOWED]
        packed = [codec for codec in codecs if codec in _PACKED]
        if others or len(packed) > 1:
            raise npz.Refused(
                f"has {shown} packed by {printable(', '.join(others or packed))[:80]}",
                "write the array again with one of blosc, zstd and gzip, without shards",
            )
        room = max(LEAST_ROOM, math.prod(array.chunks) * array.dtype.itemsize)
        folder = self._path / array.path
        for file in self._files:
            inside = folder in file.parents and file.name not in _METADATA
            if packed and inside and _unpacked(file, packed[0], room) > room:
                raise npz.Refused(
                    f"has a chunk of {shown} that unpacks to too much",
                    "write the array again with one of blosc, zstd and gzip",
                )


def _codecs(metadata: dict[str, Any]) -> Iterator[str]:
    """The names of what packs the chunks of an array, in both versions."""
    for codec in metadata.get("codecs") or ():
        yield str(codec["name"])
    for codec in (*(metadata.get("filters") or ()), metadata.get("compressor")):
        if codec is not None:
            yield str(codec["id"] if isinstance(codec, dict) else codec.codec_id)


def _unpacked(file: Path, codec: str, room: int) -> float:
    """Bytes that a chunk unpacks to; more than ``room`` where that is too many or not known."""
    with file.open("rb") as content:
        if codec in ("gzip", "zlib"):
            unpacking = zlib.decompressobj(wbits=47)
            size = len(unpacking.decompress(content.read(), room + 1))
            return math.inf if unpacking.unused_data[8:] else size
        start = content.read(18)
    if codec == "blosc":
        return int.from_bytes(start[4:8], "little")
    # The frame of zstd: RFC 8878, 3.1.1.1
    if start[:4] != b"\x28\xb5\x2f\xfd":
        return math.inf
    single, width = start[4] & 32, (0, 2, 4, 8)[start[4] >> 6]
    at = 5 + (not single) + (0, 1, 2, 4)[start[4] & 3]
    width = width or bool(single)
    size = int.from_bytes(start[at : at + width], "little") + 256 * (width == 2)
    return size if width else math.inf
