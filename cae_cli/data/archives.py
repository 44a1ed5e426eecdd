"""Images in NumPy files, and the data sets that Keras downloads as such files."""

from __future__ import annotations

import contextlib
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cae_cli.data.images import Pool
from cae_cli.data.source import SOURCES, DataOptions, file_at
from cae_cli.errors import UserError, did_you_mean, printable
from cae_cli.options import option, override_to_paste
from cae_cli.system import npz

Array = NDArray[Any]

LAYOUT = "arrays x_train, y_train, x_test, y_test; only x_train is required"
MOST_NAMED = 20  # arrays in a message


@SOURCES.add("npz")
@dataclass(frozen=True, kw_only=True)
class Npz(DataOptions):
    """Your own images in an ``.npz`` file."""

    path: str | None = option("the file")
    key: str = option("name of the array of images; with x_train also y_train, x_test, y_test")

    def read(self) -> Pool:
        """Images of the array ``key``.

        Raises:
            UserError: no such file or array, a damaged file, pickled objects.
        """
        return read_npz(file_at(self.path, "images.npz"), self.key)


@SOURCES.add("npy")
@dataclass(frozen=True, kw_only=True)
class Npy(DataOptions):
    """Your own images in an ``.npy`` file."""

    path: str | None = option("the file: one array (n, h, w) or (n, h, w, c)")

    def read(self) -> Pool:
        """Images of the file.

        Raises:
            UserError: no such file, a damaged file, pickled objects.
        """
        path = file_at(self.path, "images.npy")
        _check_kind(path, "npy", "np.save")
        with _explained(path), path.open("rb") as file:
            return Pool(images=npz.array(file, path.stat().st_size, "the array", path))


@dataclass(frozen=True, kw_only=True)
class _Downloaded(DataOptions):
    """Options of the data sets that Keras downloads."""

    keras_name: ClassVar[str]

    path: str | None = option("an .npz file in Keras' layout; null: Keras downloads the images")

    def read(self) -> Pool:
        """Both parts with their labels, uint8.

        Raises:
            UserError: the file cannot be used, or the download failed.
        """
        if self.path is not None:
            return read_npz(file_at(self.path, f"{self.keras_name}.npz"), "x_train")
        try:
            # Keras reports its progress to stdout, which is for results.
            with contextlib.redirect_stdout(sys.stderr):
                from keras import datasets

                parts = getattr(datasets, self.keras_name).load_data()
        except Exception as error:  # of the network, the disk, the archive, the checksum
            raise UserError(
                f"{self.keras_name} cannot be downloaded: {_first_line(error)}",
                hint=f"use data.path=<file.npz> ({LAYOUT}), or data=glyphs, which needs no network",
            ) from error
        (x_train, y_train), (x_test, y_test) = parts
        notes: list[str] = []
        return Pool(
            images=x_train,
            labels=_labels(y_train, "y_train", notes),
            test_images=x_test,
            test_labels=_labels(y_test, "y_test", notes),
            notes=tuple(notes),
        )


@SOURCES.add("mnist")
@dataclass(frozen=True, kw_only=True)
class Mnist(_Downloaded):
    """Handwritten digits (LeCun, Cortes, Burges)."""

    keras_name: ClassVar[str] = "mnist"


@SOURCES.add("fashion_mnist")
@dataclass(frozen=True, kw_only=True)
class FashionMnist(_Downloaded):
    """Articles of clothing (Xiao, Rasul, Vollgraf 2017)."""

    keras_name: ClassVar[str] = "fashion_mnist"


@SOURCES.add("cifar10")
@dataclass(frozen=True, kw_only=True)
class Cifar10(_Downloaded):
    """Small colour photographs of ten classes (Krizhevsky 2009)."""

    keras_name: ClassVar[str] = "cifar10"


def read_npz(path: Path, key: str) -> Pool:
    """Images of one array of an ``.npz`` file.

    Args:
        path: a file that exists.
        key: name of the array. With ``x_train``, y_train, x_test and y_test are read too where they
            exist; with any other name, only that array.

    Raises:
        UserError: no such array, a damaged file, pickled objects.
    """
    _check_kind(path, "npz", "np.savez")
    with _explained(path), path.open("rb") as file, zipfile.ZipFile(file) as archive:
        arrays = npz.Arrays(archive, path)
        if key not in arrays.members:
            names = _names(arrays)
            raise UserError(
                f"data.key={key} is not in the file, which has {_contents(arrays)}",
                where=path,
                hint=did_you_mean(key, names) if names else None,
            )
        if key != "x_train":
            return Pool(images=arrays.read(key))
        notes: list[str] = []
        images, labels, test_images = arrays.read(key), arrays.get("y_train"), arrays.get("x_test")
        test_labels = None if test_images is None else arrays.get("y_test")
        return Pool(
            images=images,
            labels=_labels(labels, "y_train", notes),
            test_images=test_images,
            test_labels=_labels(test_labels, "y_test", notes),
            notes=tuple(notes),
        )


def _names(arrays: npz.Arrays) -> list[str]:
    """The first names, to be shown."""
    return [printable(name)[: npz.LONGEST_NAME] for name in list(arrays.members)[:MOST_NAMED]]


def _contents(arrays: npz.Arrays) -> str:
    """The first arrays with their shapes, in words."""
    shown = []
    for name, member in zip(_names(arrays), arrays.members, strict=False):
        try:
            shape, dtype = arrays.header(member)
            shown.append(f"{name} (pickled objects)" if dtype.hasobject else f"{name} {_short(shape)}")
        except Exception:  # see `_explained`
            shown.append(f"{name} (damaged)")
    more = len(arrays.members) - len(shown)
    return (", ".join(shown) or "no arrays") + (f" and {more:,} more" if more else "")


def _labels(labels: Array | None, name: str, notes: list[str]) -> NDArray[np.int64] | None:
    """Labels (n,) from (n,) or (n, 1) whole numbers; None and a note for anything else."""
    if labels is None:
        return None
    if labels.dtype.kind in "biu" and labels.ndim and labels.size == len(labels):
        return labels.reshape(-1).astype(np.int64)
    found = f"{printable(str(labels.dtype))[: npz.LONGEST_NAME]} {_short(labels.shape)}"
    notes.append(f"{name} ignored: {found} are not integers (n,)")
    return None


def _short(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) < 8 and all(n < 10**15 for n in shape) else f"{len(shape)} axes"


# How the files begin; an .npz file is a zip file, which may be empty
_KINDS = {
    **{b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"\x93NUMPY": "npy", b"\x80": "pickle"},
    **{b"\x1f\x8b": "gzip", b"\0\0\x08\x03": "idx"},
}


def _check_kind(path: Path, wanted: str, writer: str) -> None:
    """Checks the first bytes of a file, whatever its name.

    Raises:
        UserError: it is not a file of that kind.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise UserError(f"data.path cannot be read: {error.strerror}", where=path) from error
    kind = next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)
    if kind == wanted:
        return
    if kind == "pickle":
        raise _pickled(path)
    what = f"data.path is not an .{wanted} file"
    if kind == "gzip":
        raise UserError(f"{what} but a gzip file", where=path, hint=f"{_GZIP}; for MNIST use {_MNIST}")
    if kind == "idx":
        raise UserError(f"{what} but an IDX file of MNIST", where=path, hint=f"use {_MNIST}")
    hint = (
        f"use data={kind} {override_to_paste('data.path', path)}" if kind else f"write it with {writer}"
    )
    raise UserError(what, where=path, hint=hint)


_GZIP = "unpack it with gunzip"
_MNIST = f"data=mnist, which downloads it, or data.path=<file.npz> ({LAYOUT})"


def _pickled(path: Path) -> UserError:
    return UserError(
        "data.path holds pickled objects, which are not loaded because they can run any code",
        where=path,
        hint="save images of one size as one array: np.stack(images)",
    )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Reports a damaged file in one sentence."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except npz.Pickled as error:
        raise _pickled(path) from error
    except npz.Refused as error:
        raise UserError(f"data.path {error}", where=path, hint=error.hint) from error
    except Exception as error:  # zipfile, zlib, NumPy's header parser: each has its own
        raise UserError(
            f"data.path cannot be read: {_first_line(error)}",
            where=path,
            hint="the file is damaged or incomplete; copy it or write it again",
        ) from error


def _first_line(error: Exception) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0].rstrip("."))[:200]
