"""The base of all image sources: shared options, the catalogue, and paths."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from cae_cli.data.images import Pool
from cae_cli.errors import UserError, nearest
from cae_cli.options import Catalogue, OptionError, option, override_to_paste
from cae_cli.system.files import typed


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """A source of images, with the options that all sources share.

    To add a source, write its class with a method ``read``, enter it with ``@SOURCES.add``, and
    write its values in ``configs/data/<name>.yaml``.
    """

    # Whether the images are in random order already, which does not depend on their number.
    shuffled: ClassVar[bool] = False

    train: int | None = option("maximum number of training images; null: all", least=1)
    validation: float = option("share of the training part held out for validation", above=0, below=1)
    test: int | None = option("maximum number of test images; null: all", least=1)
    noise: float = option("standard deviation of noise added to the images in [0, 1]", least=0)
    seed: int = option("seed of the split, the noise and generated images", least=0, most=2**63 - 1)
    scale: str = option(
        "scaling to [0, 1]: by type and range (auto), divided by 255 (byte) or 65535 (word), "
        "from [-1, 1] (signed), smallest to 0 and largest to 1 (minmax), not at all (none)",
        choices=("auto", "none", "byte", "word", "signed", "minmax"),
    )

    def read(self) -> Pool:
        """All images, unscaled.

        Raises:
            UserError: they cannot be read.
        """
        raise NotImplementedError

    def read_of(self, shape: tuple[int, int, int]) -> Pool:
        """All images for a network that takes images of this shape, unscaled.

        Args:
            shape: (h, w, c). A source of files leaves out others and names them in a note.

        Raises:
            UserError: as for `read`.
        """
        return self.read()

    def known_shape(self) -> tuple[int, int, int] | None:
        """(h, w, c) of the images if it is known before they are read, else None."""
        return None

    def least_shape(self) -> tuple[int, int, int] | None:
        """(h, w, c) that the images have at least, if it is known before they are read, else None."""
        return self.known_shape()

    def size_option(self) -> str | None:
        """The option that decides the size of the images, with its value, if there is one."""
        return None

    def signature(self) -> str:
        """A digest of the names, sizes and times of all files that are read; none but lists is opened.

        Empty if the source reads no files of the user.
        """
        roots = self.roots()
        if not roots:
            return ""
        digest = hashlib.sha256()
        for root in roots:
            for file in _files_of(root):
                try:
                    info = file.stat()
                except (OSError, ValueError):  # ValueError: a list may hold anything
                    continue
                entry = f"{os.path.relpath(file, root)}\0{info.st_size}\0{info.st_mtime_ns}\0"
                digest.update(entry.encode(errors="surrogateescape"))
        return digest.hexdigest()

    def roots(self) -> list[Path]:
        """The files, lists of files and folders that are read; sources that read more name it here."""
        paths = (getattr(self, key, None) for key in ("path", "target"))
        return [typed(path) for path in paths if path]

    def rng(self, purpose: str) -> np.random.Generator:
        """A random generator that depends on the seed and its purpose only."""
        return np.random.default_rng([self.seed, *purpose.encode()])

    def validation_count(self, train: int) -> int:
        """How many validation images belong to ``train`` training images."""
        return max(1, round(self.validation / (1 - self.validation) * train))


LFS = "git lfs pull"  # fetches the file that a pointer of Git LFS stands for

SOURCES: Catalogue[DataOptions] = Catalogue("data")


def _files_of(root: Path) -> Iterator[Path]:
    """A file, and those that it names if it is a list of them; or all files of a folder."""
    if not root.is_file():
        yield from _files_below(root)
        return
    yield root
    if root.suffix.lower() == ".txt":
        with contextlib.suppress(OSError, ValueError):  # no list
            yield from listed(root)


def listed(path: Path) -> list[Path]:
    """The files that a text file names, one in each line; relative paths start at its folder.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Path(os.path.normpath(path.absolute().parent / line)) for line in lines if line.strip()]


def _files_below(root: Path) -> Iterator[Path]:
    """All files in a fixed order, through links too; each folder once."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        info = Path(folder).stat()
        if (info.st_dev, info.st_ino) in seen:  # a link to a parent folder
            folders.clear()
            continue
        seen.add((info.st_dev, info.st_ino))
        folders.sort()
        yield from (Path(folder, name) for name in sorted(files))


def file_at(path: str | None, example: str) -> Path:
    """The file that ``data.path`` names.

    Args:
        path: the option's value; ``~`` is the home folder.
        example: what such a path looks like, for the hint.

    Raises:
        UserError: no value, no such file, a folder, or a device that never ends.
    """
    found = existing(path, example)
    if found.is_dir():
        inside = _first_child(found, Path(example).suffix)
        raise UserError(
            "data.path must be a file, got a folder",
            where=found,
            hint=f"use {override_to_paste('data.path', inside or found / example)}",
        )
    if not found.is_file():  # opening it might wait for ever
        raise UserError(
            "data.path must be a file, got a device, a pipe or a socket",
            where=found,
            hint=f"use {override_to_paste('data.path', example)}",
        )
    return found


def folder_at(path: str | None, example: str) -> Path:
    """The folder that ``data.path`` names.

    Args:
        path: the option's value; ``~`` is the home folder.
        example: what such a path looks like, for the hint.

    Raises:
        UserError: no value, no such folder, or a file.
    """
    found = existing(path, example)
    if not found.is_dir():
        raise UserError(
            "data.path must be a folder, an image or an archive of images, got another file",
            where=found,
            hint="use data=npz or data=npy for arrays, or "
            f"a folder: {override_to_paste('data.path', found.parent)}",
        )
    return found


def _first_child(folder: Path, suffix: str) -> Path | None:
    """The first file of ``folder`` that ends in ``suffix``."""
    try:
        return min((p for p in folder.iterdir() if p.suffix == suffix), default=None)
    except OSError:
        return None


def existing(path: str | None, example: str, name: str = "data.path") -> Path:
    """The file or folder that ``data.path`` names.

    Args:
        path: the option's value; ``~`` is the home folder.
        example: what such a path looks like, for the hint.
        name: the option, where it is another one.

    Raises:
        UserError: no value, or nothing there.
    """
    if path is None or not path.strip():
        raise OptionError(name, "has no value", hint=f"use {override_to_paste(name, example)}")
    try:
        found = Path(path).expanduser()
        if found.exists():
            return found
    except (OSError, ValueError, RuntimeError) as error:  # no permission, too long, ~nobody
        raise UserError(f"{name} cannot be used: {error}", where=path) from error
    raise UserError(f"{name} does not exist", where=found, hint=_where_instead(found))


def _where_instead(missing: Path) -> str:
    """The nearest name that exists, else the folder that relative paths start from."""
    whole = Path.cwd() / missing
    ancestors = (p for p in whole.parents if p.is_dir())
    parent = next(ancestors, whole.parent)
    missing_part = whole.relative_to(parent).parts[0]
    try:
        close = nearest(missing_part, [p.name for p in parent.iterdir() if not p.name.startswith(".")])
    except OSError:
        close = None
    if close is not None:
        return f"did you mean {parent / close}?"
    if missing.is_absolute():
        return f"{parent} exists, {missing_part} in it does not"
    return f"relative paths start at {Path.cwd()}"
