"""Arrays in files of other programs: HDF5, MATLAB, IDX (MNIST's), and CIFAR's pickles."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data.archives import check_kind, explained
from cae_cli.data.arrays import ArrayOptions, integers, pool_of
from cae_cli.data.images import Pool
from cae_cli.data.source import SOURCES, DataOptions, existing, file_at
from cae_cli.errors import UserError, printable
from cae_cli.options import option
from cae_cli.system import memory, npz

Array = NDArray[Any]

_IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
LARGEST_BATCH = 2**30  # bytes of a file of CIFAR


@SOURCES.add("hdf5")
@dataclass(frozen=True, kw_only=True)
class Hdf5(ArrayOptions):
    """Your own images in an HDF5 file, also that of MATLAB 7.3."""

    path: str | None = option("the file")
    key: str | None = option(
        "path of the data set of images; with x_train also y_train, x_test, y_test; null: x_train, or "
        "the only one"
    )

    def read(self) -> Pool:
        """Images of the data set ``key``.

        Raises:
            UserError: no such file or data set, a damaged file, or one that refers to other files.
        """
        import h5py

        path = file_at(self.path, "images.h5")
        check_kind(path, "hdf5", "h5py")
        with explained(path), h5py.File(path, "r") as file:
            return self.arranged(pool_of(_DataSets(file, path), self.key, path))


class _DataSets:
    """The data sets of an HDF5 file that lie in it; links and what lies in other files are left out."""

    def __init__(self, file: Any, where: object) -> None:
        import h5py

        self.members: dict[str, Any] = {}
        self._where = where

        def take(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and not (item.is_virtual or item.external):
                self.members[name] = item

        file.visititems(take)  # follows no link but those to objects in the file

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return self.members[name].shape or (), self.members[name].dtype

    def read(self, name: str) -> Array:
        found = self.members[name]
        memory.check(found.nbytes, printable(name)[: npz.LONGEST_NAME], self._where, npz.TOO_LARGE)
        return np.asarray(found[()])


@SOURCES.add("mat")
@dataclass(frozen=True, kw_only=True)
class Mat(ArrayOptions):
    """Your own images in a ``.mat`` file of MATLAB, up to version 7.2; newer ones are HDF5."""

    path: str | None = option("the file")
    key: str | None = option("name of the variable; null: x_train, or the only one that can be images")

    def read(self) -> Pool:
        """Images of the variable ``key``.

        Raises:
            UserError: no such file or variable, or a damaged file.
        """
        path = file_at(self.path, "images.mat")
        check_kind(path, "mat", "MATLAB's save -v7")
        with explained(path):
            return self.arranged(pool_of(_Variables(path), self.key, path))


class _Variables:
    """The arrays of numbers in a file of MATLAB."""

    def __init__(self, path: Path) -> None:
        from scipy.io import whosmat

        self._path = path
        # MATLAB's "single" and "double", and "logical"
        dtypes = {"single": "f4", "double": "f8", "logical": "?"}
        self.members = {
            name: (shape, np.dtype(dtypes.get(kind, kind)))
            for name, shape, kind in whosmat(path)
            if kind in dtypes or re.fullmatch(r"u?int\d+", kind)
        }

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return self.members[name]

    def read(self, name: str) -> Array:
        from scipy.io import loadmat

        shape, dtype = self.members[name]
        needed = math.prod(shape) * dtype.itemsize
        memory.check(needed, printable(name)[: npz.LONGEST_NAME], self._path, npz.TOO_LARGE)
        return np.asarray(loadmat(self._path, variable_names=[name])[name])


@SOURCES.add("idx")
@dataclass(frozen=True, kw_only=True)
class Idx(ArrayOptions):
    """Images in an IDX file, as MNIST and its relatives come, packed (``.gz``) or not.

    With ``train-images-idx3-ubyte`` also ``train-labels-idx1-ubyte`` and the two files of the test part,
    ``t10k-…`` or ``test-…``, where they lie beside it.
    """

    path: str | None = option("the file of images")

    def read(self) -> Pool:
        """Images of the file, with labels and the test part if there are any.

        Raises:
            UserError: no such file, or a damaged one.
        """
        path = file_at(self.path, "train-images-idx3-ubyte.gz")
        notes: list[str] = []
        images = read_idx(path)
        labels, test, of_test = _others(path)
        pool = Pool(
            images=images,
            labels=None if labels is None else integers(read_idx(labels), labels.name, notes),
            test_images=None if test is None else read_idx(test),
            test_labels=None if of_test is None else integers(read_idx(of_test), of_test.name, notes),
            notes=tuple(notes),
        )
        return self.arranged(pool)

    def roots(self) -> list[Path]:
        """The file of images, and those beside it that are read with it."""
        return [file for path in super().roots() for file in (path, *filter(None, _others(path)))]


def _others(path: Path) -> tuple[Path | None, Path | None, Path | None]:
    """Files beside one of images, where there are such: labels, test images, and their labels."""
    tests = (_beside(path, "train-images", f"{name}-images") for name in ("t10k", "test"))
    test = next(filter(None, tests), None)
    labels = "images-idx3", "labels-idx1"
    return _beside(path, *labels), test, None if test is None else _beside(test, *labels)


def _beside(path: Path, part: str, other: str) -> Path | None:
    found = path.parent / path.name.replace(part, other)
    return found if found != path and found.is_file() else None


def read_idx(path: Path) -> Array:
    """The array of an IDX file, packed or not.

    Raises:
        UserError: it is damaged, or larger than the free memory.
    """
    check_kind(path, "idx", "big-endian numbers after their sizes")
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with explained(path), gzip.open(path) if packed else path.open("rb") as file:
        _, _, kind, axes = file.read(4)
        shape = tuple(int.from_bytes(file.read(4), "big") for _ in range(axes))
        dtype = np.dtype(_IDX_TYPES[kind])
        needed = math.prod(shape) * dtype.itemsize
        memory.check(needed, "the array", path, npz.TOO_LARGE)
        content = file.read(needed)
        if len(content) < needed:
            raise npz.Refused(
                f"is truncated: it should have {memory.amount(needed)}, and has "
                f"{memory.amount(len(content))}",
                "copy it or download it again",
            )
        return np.frombuffer(content, dtype).reshape(shape)


@SOURCES.add("cifar")
@dataclass(frozen=True, kw_only=True)
class Cifar(DataOptions):
    """CIFAR-10 or CIFAR-100 in its own files for Python, unpacked or not. They run no code here."""

    path: str | None = option("the folder of the batches, cifar-10-python.tar.gz, or one batch")

    def read(self) -> Pool:
        """Both parts with their labels, uint8.

        Raises:
            UserError: there are no such files, or they are damaged.
        """
        path = existing(self.path, "cifar-10-python.tar.gz")
        with explained(path):
            batches = {name: _batch(content) for name, content in _batches(path)}
        test = [batches.pop(name) for name in list(batches) if name in ("test", "test_batch")]
        train = [batches[name] for name in sorted(batches)] or test
        if not train:
            raise UserError(
                "data.path has no batches of CIFAR",
                where=path,
                hint="the files are data_batch_1 to data_batch_5 and test_batch, or train and test",
            )
        test = test if batches else []
        images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
        return Pool(
            images=images,
            labels=labels,
            test_images=test[0][0] if test else None,
            test_labels=test[0][1] if test else None,
        )


_BATCHES = re.compile(r"data_batch_\d+|test_batch|train|test")


def _batches(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the batches in a folder, an archive or a file."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if _BATCHES.fullmatch(file.name) and file.is_file():
                yield file.name, _content(file.open("rb"), file.stat().st_size)
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                inside = archive.extractfile(member) if member.isfile() else None
                if inside is not None and _BATCHES.fullmatch(name):
                    yield name, _content(inside, member.size)
    elif path.is_file():
        yield path.name, _content(path.open("rb"), path.stat().st_size)


def _content(file: IO[bytes], size: int) -> bytes:
    if size > LARGEST_BATCH:
        raise npz.Refused(f"has a batch of {memory.amount(size)}", "CIFAR has 31 MB in each")
    with file:
        return file.read()


def _batch(content: bytes) -> tuple[Array, NDArray[np.int64]]:
    """Images (n, 32, 32, 3) and labels of a batch."""
    found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    data, labels = (
        next(found[name] for name in names if name in found)
        for names in ((b"data", "data"), (b"fine_labels", b"labels", "labels"))
    )
    images = data.pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.asarray(labels, np.int64)


class _Type:
    """Stands for a dtype. What pickles call is made here: NumPy's own can be led to any memory."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        self.name = name if isinstance(name, bytes) else name.encode()

    def __setstate__(self, state: object) -> None:
        """Its byte order is of no use for single bytes."""


class _Array:
    """Stands for an array of bytes."""

    def __init__(self, *_: object) -> None:
        self.pixels = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Type, bool, bytes]) -> None:
        """Version, shape, dtype, order and content."""
        _, shape, dtype, by_columns, content = state
        if dtype.name != b"u1":
            raise ValueError("an array is not of bytes")
        self.pixels = np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")


class _Unpickler(pickle.Unpickler):
    """Reads numbers, text, lists and arrays of bytes; what else there is might run code."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        match module.replace("._core", ".core"), name:
            case ("numpy.core.multiarray", "_reconstruct") | ("numpy", "ndarray"):
                return _Array
            case ("numpy", "dtype"):
                return _Type
            case ("_codecs", "encode"):  # of bytes, from Python 3
                return lambda text, _: text.encode("latin1")
        raise npz.Refused(
            f"refers to {printable(f'{module}.{name}')[:80]}, which may run any code",
            "use the files of the data set as they were published",
        )
