"""Arrays of images in whatever order of axes they were saved, and how one of several is chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cae_cli.data.images import Pool
from cae_cli.data.source import DataOptions
from cae_cli.errors import UserError, nearest, printable
from cae_cli.options import OptionError, option, override_to_paste
from cae_cli.system import npz

Array = NDArray[Any]

MOST_NAMED = 20  # arrays in a message


@dataclass(frozen=True, kw_only=True)
class ArrayOptions(DataOptions):
    """Options of the sources that read arrays."""

    axes: str = option(
        "order of the axes: images n, rows h, columns w, channels c, which may be missing: nhwc, nchw "
        "(PyTorch), hwcn (MATLAB), ncwh (MATLAB's files as HDF5)",
        choices=("nhwc", "nchw", "hwcn", "ncwh"),
    )
    shape: list[int] | None = option(
        "of images stored as flat rows: their axes, such as [28,28]; null: they are not",
        least=1,
    )
    bands: list[int] | None = option(
        "channels to read, counted from 0, such as [2,1,0]; null: all", least=0, nonempty=True
    )

    def arranged(self, pool: Pool) -> Pool:
        """The pool with images (n, h, w) or (n, h, w, c).

        Raises:
            OptionError: ``shape`` or ``bands`` do not fit the images.
        """
        test = None if pool.test_images is None else self._arranged(pool.test_images)
        return replace(pool, images=self._arranged(pool.images), test_images=test)

    def _arranged(self, images: Array) -> Array:
        if self.shape is not None:
            if images.ndim < 1 or math.prod(images.shape[1:]) != math.prod(self.shape):
                raise OptionError(
                    "data.shape",
                    f"has {math.prod(self.shape)} values for each image, got images {images.shape}",
                    hint="leave out data.shape, unless images are stored as flat rows",
                )
            images = images.reshape(len(images), *self.shape)
        if images.ndim in (3, 4):
            letters = self.axes if images.ndim == 4 else self.axes.replace("c", "")
            images = images.transpose([letters.index(letter) for letter in "nhwc" if letter in letters])
        if self.bands is None:
            return images
        channels = images.shape[3] if images.ndim == 4 else 1
        if max(self.bands) >= channels:
            raise OptionError(
                "data.bands",
                f"must be less than {channels}, the number of channels, got {max(self.bands)}",
                hint="count channels from 0",
            )
        if images.ndim == 3 and len(self.bands) > 1:
            images = images[..., np.newaxis]
        return images[..., self.bands] if images.ndim == 4 else images


class Named(Protocol):
    """A file of arrays with names."""

    @property
    def members(self) -> Mapping[str, Any]:
        """The names."""

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of an array, without its values."""

    def read(self, name: str) -> Array:
        """An array."""


def pool_of(arrays: Named, key: str | None, where: object, name: str = "data.key") -> Pool:
    """Images of one array of a file; with x_train also y_train, x_test and y_test where they exist.

    Args:
        arrays: the file.
        key: name of the array; None: x_train, or the only one that can hold images.
        where: the file, for messages.
        name: the option that ``key`` is the value of.

    Raises:
        UserError: no such array, or None fits several.
    """
    notes: list[str] = []
    if key is None:
        key = "x_train"
        if key not in arrays.members:
            key = _only(arrays, where, name)
            notes.append(f"images are the array {printable(key)[: npz.LONGEST_NAME]}")
    if key not in arrays.members:
        raise UserError(
            f"{name}={printable(key)} is not in the file, which has {_contents(arrays)}",
            where=where,
            hint=_use(name, nearest(key, _names(arrays)) or _likely(arrays)),
        )
    if key != "x_train":
        return Pool(images=arrays.read(key), notes=tuple(notes))
    images, labels, test_images, test_labels = (
        arrays.read(array) if array in arrays.members else None
        for array in (key, "y_train", "x_test", "y_test")
    )
    assert images is not None
    return Pool(
        images=images,
        labels=integers(labels, "y_train", notes),
        test_images=test_images,
        test_labels=None if test_images is None else integers(test_labels, "y_test", notes),
        notes=tuple(notes),
    )


def integers(labels: Array | None, name: str, notes: list[str]) -> NDArray[np.int64] | None:
    """Labels (n,) from (n,) or (n, 1) whole numbers; None and a note for anything else."""
    if labels is None:
        return None
    if labels.dtype.kind in "biu" and labels.ndim and labels.size == len(labels):
        return labels.reshape(-1).astype(np.int64)
    found = f"{printable(str(labels.dtype))[: npz.LONGEST_NAME]} {_short(labels.shape)}"
    pairs = "; data=pairs takes it as what is to be made of the images" * (labels.ndim in (3, 4))
    notes.append(f"{name} ignored: {found} are not integers (n,){pairs}")
    return None


def _only(arrays: Named, where: object, name: str) -> str:
    if len(arrays.members) == 1:
        return next(iter(arrays.members))
    likely = _likely_names(arrays)
    if len(likely) == 1:
        return likely[0]
    raise UserError(
        f"the file has no array x_train, but {_contents(arrays)}",
        where=where,
        hint=_use(name, _likely(arrays)),
    )


def _likely(arrays: Named) -> str | None:
    """The first array that looks like images, else the first one."""
    return next(iter([*_likely_names(arrays), *_names(arrays)]), None)


def _likely_names(arrays: Named) -> list[str]:
    """The first names of arrays with three or four axes of numbers."""
    found = []
    for name in list(arrays.members)[:MOST_NAMED]:
        try:
            shape, dtype = arrays.header(name)
        except Exception:  # of a damaged file, which complains when it is read
            continue
        if len(shape) in (3, 4) and dtype.kind in "buif":
            found.append(name)
    return found


def _use(name: str, key: str | None) -> str:
    if key is None:
        return "save the images in it as one array of numbers"
    return f"use {override_to_paste(name, key)}"


def _names(arrays: Named) -> list[str]:
    """The first names, to be shown."""
    return [printable(name)[: npz.LONGEST_NAME] for name in list(arrays.members)[:MOST_NAMED]]


def _contents(arrays: Named) -> str:
    """The first arrays with their shapes, in words."""
    shown = []
    for name, member in zip(_names(arrays), arrays.members, strict=False):
        try:
            shape, dtype = arrays.header(member)
            shown.append(f"{name} (pickled objects)" if dtype.hasobject else f"{name} {_short(shape)}")
        except Exception:  # of a damaged file
            shown.append(f"{name} (damaged)")
    more = len(arrays.members) - len(shown)
    return (", ".join(shown) or "no arrays") + (f" and {more:,} more" if more else "")


def _short(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) < 8 and all(n < 10**15 for n in shape) else f"{len(shape)} axes"
