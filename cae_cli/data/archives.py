"""Images in NumPy files, and the data sets that Keras downloads as such files."""

from __future__ import annotations

import contextlib
import gzip
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cae_cli.data.arrays import ArrayOptions, integers, pool_of
from cae_cli.data.images import Pool
from cae_cli.data.source import LFS, SOURCES, DataOptions, file_at
from cae_cli.errors import UserError, printable
from cae_cli.options import option, override_to_paste
from cae_cli.system import npz

LAYOUT = "arrays x_train, y_train, x_test, y_test; only x_train is required"


@SOURCES.add("npz")
@dataclass(frozen=True, kw_only=True)
class Npz(ArrayOptions):
    """Your own images in an ``.npz`` file."""

    path: str | None = option("the file")
    key: str | None = option(
        "name of the array of images; with x_train also y_train, x_test, y_test; null: x_train, or the "
        "only array that can be images"
    )

    def read(self) -> Pool:
        """Images of the array ``key``.

        Raises:
            UserError: no such file or array, a damaged file, pickled objects.
        """
        return self.arranged(read_npz(file_at(self.path, "images.npz"), self.key))


@SOURCES.add("npy")
@dataclass(frozen=True, kw_only=True)
class Npy(ArrayOptions):
    """Your own images in an ``.npy`` file."""

    path: str | None = option("the file: one array, usually (n, h, w) or (n, h, w, c)")

    def read(self) -> Pool:
        """Images of the file.

        Raises:
            UserError: no such file, a damaged file, pickled objects.
        """
        return self.arranged(read_npy(file_at(self.path, "images.npy")))


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
            labels=integers(y_train, "y_train", notes),
            test_images=x_test,
            test_labels=integers(y_test, "y_test", notes),
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


def read_npy(path: Path) -> Pool:
    """Images of an ``.npy`` file.

    Raises:
        UserError: a damaged file, pickled objects.
    """
    check_kind(path, "npy", "np.save")
    with explained(path), path.open("rb") as file:
        return Pool(images=npz.array(file, path.stat().st_size, "the array", path))


def read_npz(path: Path, key: str | None, name: str = "data.key") -> Pool:
    """Images of one array of an ``.npz`` file; see `pool_of`.

    Raises:
        UserError: no such array, a damaged file, pickled objects.
    """
    check_kind(path, "npz", "np.savez")
    with explained(path), path.open("rb") as file, zipfile.ZipFile(file) as archive:
        return pool_of(npz.Arrays(archive, path), key, path, name)


# How the files begin; an .npz file is a zip file, which may be empty
_KINDS = {
    **{b"PK\x03\x04": "npz", b"PK\x05\x06": "npz", b"\x93NUMPY": "npy", b"\x80": "pickle"},
    **{b"\x89HDF\r\n\x1a\n": "hdf5", b"MATLAB 7.3": "hdf5", b"MATLAB 5.0": "mat"},
    **{b"\x1f\x8b": "gzip", b"version https://git-lfs": "lfs"},
    **{bytes((0, 0, kind, axes)): "idx" for kind in (8, 9, 11, 12, 13, 14) for axes in (1, 2, 3, 4)},
}


def check_kind(path: Path, wanted: str, writer: str) -> None:
    """Checks the first bytes of a file, whatever its name.

    Raises:
        UserError: it is not a file of that kind.
    """
    try:
        with path.open("rb") as file:
            kind = _kind(file.read(64))
            if kind == "gzip":
                file.seek(0)
                with contextlib.suppress(OSError, EOFError, zlib.error), gzip.open(file) as unpacked:
                    kind = "idx" if _kind(unpacked.read(4)) == "idx" else kind
    except OSError as error:
        raise UserError(f"data.path cannot be read: {error.strerror}", where=path) from error
    what = f"data.path is not an .{wanted} file"
    match kind:
        case str() if kind == wanted:
            return
        case "pickle":
            raise _pickled(path)
        case "lfs":
            raise UserError("data.path is a Git LFS pointer, not the file itself", where=path, hint=LFS)
        case "gzip":
            raise UserError(f"{what} but a gzip file", where=path, hint="unpack it with gunzip")
        case None:
            raise UserError(what, where=path, hint=f"write it with {writer}")
    raise UserError(what, where=path, hint=f"use data={kind} {override_to_paste('data.path', path)}")


def kind_of(path: Path) -> str | None:
    """What a file is by its first bytes: the name of a source, "gzip", "pickle", "lfs", or None."""
    try:
        with path.open("rb") as file:
            return _kind(file.read(64))
    except OSError:
        return None


def _kind(start: bytes) -> str | None:
    return next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)


def _pickled(path: Path) -> UserError:
    return UserError(
        "data.path holds pickled objects, which are not loaded because they can run any code",
        where=path,
        hint="save images of one size as one array: np.stack(images); for CIFAR's files use data=cifar",
    )


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
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
