"""Reads images from a source and splits them into training, validation and test parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import archives, bundled, folder, formats, glyphs  # noqa: F401  (they fill SOURCES)
from cae_cli.data.images import Images, Pool, Scale, as_float, images_at_a_time, images_that_fit
from cae_cli.data.pixels import check, scale, scale_alike
from cae_cli.data.source import SOURCES, DataOptions
from cae_cli.data.split import split
from cae_cli.errors import UserError

__all__ = [
    "SOURCES", "DataOptions", "Images", "Pool", "Scale", "as_float", "images_at_a_time",
    "images_that_fit", "load", "scale_alike",
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
    try:
        pool = scale(check(options.read(), where), options.scale, where)
        images = split(pool, options, name)
        return noisy(images, options) if options.noise else images
    except MemoryError as error:
        raise UserError(
            "the images need more memory than this machine has free",
            where=where,
            hint="use fewer images, smaller images (data.image_size=… for folders), or uint8 images",
        ) from error


def noisy(images: Images, options: DataOptions) -> Images:
    """All parts with Gaussian noise of standard deviation ``options.noise``, clipped to [0, 1].

    Raises:
        UserError: the values were not scaled to [0, 1].
    """
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
