"""Images in NumPy's files, and the data sets that Keras downloads as such files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cae_cli.data.images import Pool
from cae_cli.data.source import SOURCES, DataOptions, file_at
from cae_cli.errors import UserError, did_you_mean
from cae_cli.options import option

Array = NDArray[Any]

LAYOUT = "arrays x_train, y_train, x_test, y_test; only x_train must be there"


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
        with _explained(path):
            array = np.load(path, allow_pickle=False)
        return Pool(images=array)


@dataclass(frozen=True, kw_only=True)
class _Downloaded(DataOptions):
    """What the data sets of Keras share."""

    keras_name: ClassVar[str]

    path: str | None = option("an .npz file in Keras' layout; null: Keras downloads the images")

    def read(self) -> Pool:
        """Both parts with their labels, uint8.

        Raises:
            UserError: the file is of no use, or the download failed.
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
                hint=f"data.path=<file.npz> ({LAYOUT}), or images that need no network: data=glyphs",
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
        key: the array's name. ``x_train`` brings y_train, x_test and y_test along where they are;
            any other name may mean anything, and comes alone.

    Raises:
        UserError: no such array, a damaged file, pickled objects.
    """
    _check_kind(path, "npz", "np.savez")
    # NumPy would leave a damaged file open that it opened itself.
    with _explained(path), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        if key not in arrays:
            raise UserError(
                f"data.key={key} is not in the file, which has {_contents(arrays)}",
                where=path,
                hint=did_you_mean(key, arrays) if arrays else None,
            )
        if key != "x_train":
            return Pool(images=arrays[key])
        notes: list[str] = []
        has_test = "x_test" in arrays
        return Pool(
            images=arrays[key],
            labels=_labels(arrays.get("y_train"), "y_train", notes),
            test_images=arrays["x_test"] if has_test else None,
            test_labels=_labels(arrays.get("y_test"), "y_test", notes) if has_test else None,
            notes=tuple(notes),
        )


def _labels(labels: Array | None, name: str, notes: list[str]) -> NDArray[np.int64] | None:
    """Labels (n,) from (n,) or (n, 1) whole numbers; None and a note if they are no such thing."""
    if labels is None:
        return None
    if labels.dtype.kind in "biu" and labels.ndim and labels.size == len(labels):
        return labels.reshape(-1).astype(np.int64)
    notes.append(f"{name} left out: {labels.dtype} {labels.shape} are not whole numbers (n,)")
    return None


def _contents(arrays: Mapping[str, Array]) -> str:
    shown = []
    for name in arrays:
        try:
            shown.append(f"{name} {arrays[name].shape}")
        except ValueError:
            shown.append(f"{name} (pickled objects)")
    return ", ".join(shown) or "no arrays"


# How the files begin; an .npz file is a zip file, which may be empty
_KINDS = {b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"\x93NUMPY": "npy", b"\x80": "pickle"}


def _check_kind(path: Path, wanted: str, writer: str) -> None:
    """Goes by how the file begins, whatever its name.

    Raises:
        UserError: it is no such file.
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
    hint = f"data={kind} data.path={path}" if kind else f"write it with {writer}"
    raise UserError(f"data.path is not an .{wanted} file", where=path, hint=hint)


def _pickled(path: Path) -> UserError:
    return UserError(
        "data.path holds pickled objects, which are not loaded: they can run any code",
        where=path,
        hint="save images of one size as one array: np.stack(images)",
    )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns the many ways in which a file can be damaged into one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zipfile, zlib, NumPy's header parser: each has its own
        if "allow_pickle" in str(error):
            raise _pickled(path) from error
        raise UserError(
            f"data.path cannot be read: {_first_line(error)}",
            where=path,
            hint="the file is damaged or incomplete: copy or write it again",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
