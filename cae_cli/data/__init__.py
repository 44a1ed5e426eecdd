"""Reads images from a source and splits them into training, validation and test parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import (  # noqa: F401  (they fill SOURCES)
    archives,
    bundled,
    folder,
    formats,
    glyphs,
    pairs,
    zarr_store,
)
from cae_cli.data.images import Images, Pool, Scale, as_float, images_at_a_time, images_that_fit
from cae_cli.data.pixels import check, pool_alike, scale, scale_alike
from cae_cli.data.source import SOURCES, DataOptions
from cae_cli.data.split import split
from cae_cli.errors import UserError
from cae_cli.options import OptionError

__all__ = [
    "SOURCES", "DataOptions", "Images", "Pool", "Scale", "as_float", "images_at_a_time",
    "images_that_fit", "load", "load_alike", "scale_alike",
]  # fmt: skip


def load(options: DataOptions) -> Images:
    """Reads, checks, scales and splits images, and adds noise.

    Args:
        options: a source with its options.

    Returns:
        The images; equal options (and equal files) give equal images.

    Raises:
        UserError: the images cannot be read, or no network can learn from them.
    """
    where = getattr(options, "path", None)
    name = next(name for name, cls in SOURCES.items() if cls is type(options))
    with _enough_memory(where):
        pool = scale(check(options.read(), where), options.scale, where)
        images = split(pool, options, name)
        return noisy(images, options) if options.noise else images


def load_alike(
    options: DataOptions,
    shape: tuple[int, int, int],
    known: Scale | None,
    targets: Scale | None = None,
) -> Pool:
    """All images of a source for a network that has learned: not split, no noise added.

    Args:
        options: a source with its options; with another ``scale`` than auto, that is done.
        shape: (h, w, c) that the network takes.
        known: what was done to the values that it was given in training; None: not known.
        targets: what was done to those that it was to make of them, where they are others.

    Returns:
        Images (n, h, w, c), uint8 or float32 in [0, 1]; of pairs the inputs may leave it.

    Raises:
        UserError: they cannot be read, or have another shape.
    """
    where = getattr(options, "path", None)
    with _enough_memory(where):
        pool = check(options.read_of(shape), where, varied=False)
        if pool.images.shape[1:] != shape:
            wanted, found = ("x".join(map(str, s)) for s in (shape, pool.images.shape[1:]))
            raise UserError(
                f"the network takes images of {wanted}, these are {found}",
                where=where,
                hint="resize them, or choose their channels with data.bands or data.channels",
            )
        if options.scale != "auto":
            return scale(pool, options.scale, where)
        return pool_alike(pool, known, targets, where)


@contextmanager
def _enough_memory(where: object) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise UserError(
            "the images need more memory than this machine has free",
            where=where,
            hint="use fewer images, smaller images (data.image_size=… for folders), or uint8 images",
        ) from error


def noisy(images: Images, options: DataOptions) -> Images:
    """All parts with Gaussian noise of standard deviation ``options.noise``, clipped to [0, 1].

    Raises:
        UserError: the values were not scaled to [0, 1], or the images are pairs.
    """
    if images.are_pairs:
        raise OptionError(
            "data.noise",
            "is noise of the images that are to be made, too",
            hint="use data.noise=0, or add the noise to the inputs before they are saved",
        )
    if options.scale == "none" and not 0 <= images.train.min() <= images.train.max() <= 1:
        raise UserError(
            "data.noise needs images in [0, 1], and data.scale=none leaves "
            f"{images.train.min():g} to {images.train.max():g}",
            hint="use data.scale=auto or data.noise=0",
        )

    def with_noise(part: NDArray[Any], name: str) -> NDArray[np.float32]:
        # Row by row: the first images get the same noise however many there are.
        noise = options.rng(f"noise {name}").standard_normal(part.shape, dtype=np.float32)
        noise *= np.float32(options.noise)
        noise += as_float(part)
        return np.clip(noise, 0, 1, out=noise)

    return replace(
        images,
        train=with_noise(images.train, "train"),
        validation=with_noise(images.validation, "validation"),
        test=None if images.test is None else with_noise(images.test, "test"),
        notes=(*images.notes, f"Gaussian noise of {options.noise:g} added, clipped to [0, 1]"),
    )
