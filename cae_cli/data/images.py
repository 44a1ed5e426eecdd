"""What the data stage delivers, and what a source delivers to it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pool:
    """What a source delivers, before scaling and splitting.

    Attributes:
        images: (n, h, w) or (n, h, w, c), any numeric dtype.
        labels: (n,) integers, or None.
        test_images: the source's own test part in the same form, or None.
        test_labels: its labels, or None.
        groups: (n,) integers; images of one group (patches of one photograph) stay on one side
            of the split. None: every image is its own group.
        white: the value that means white, where the source knows it (16 for scikit-learn's
            digits); None: it follows from the dtype and the values.
        notes: what was done or left out while reading, in words, for the run's log.
    """

    images: NDArray[np.generic]
    labels: NDArray[np.int64] | None = None
    test_images: NDArray[np.generic] | None = None
    test_labels: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    white: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Images:
    """Images ready for training: uint8 (255 is white) or float32 in [0, 1], all (n, h, w, c).

    Attributes:
        train: training images.
        validation: watched during training.
        test: the source's own test part, or None.
        train_labels, validation_labels, test_labels: (n,) integers, or None.
        source: the data option's name.
        notes: what was done to the data, in words.
    """

    train: NDArray[np.generic]
    validation: NDArray[np.generic]
    test: NDArray[np.generic] | None = None
    train_labels: NDArray[np.int64] | None = None
    validation_labels: NDArray[np.int64] | None = None
    test_labels: NDArray[np.int64] | None = None
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one image."""
        h, w, c = self.train.shape[1:]
        return h, w, c

    @property
    def held_out(self) -> NDArray[np.generic]:
        """Images for the final figures: the test part where the source has one, else validation."""
        return self.validation if self.test is None else self.test

    @property
    def held_out_name(self) -> str:
        """Which part `held_out` is: "test" or "validation"."""
        return "validation" if self.test is None else "test"

    def fingerprint(self) -> str:
        """SHA-256 of all pixels, shapes and dtypes, as hexadecimal digits."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            if part is None:
                continue
            digest.update(f"{part.shape}{part.dtype}".encode())
            for start in range(0, len(part), 256):  # a part may be larger than memory
                digest.update(np.ascontiguousarray(part[start : start + 256]).data)
        return digest.hexdigest()


def as_float(images: NDArray[np.generic]) -> NDArray[np.float32]:
    """Images as float32 in [0, 1]; uint8 is divided by 255, float32 is returned as it is."""
    if images.dtype == np.uint8:
        scaled: NDArray[np.float32] = np.multiply(images, np.float32(1 / 255), dtype=np.float32)
        return scaled
    return np.asarray(images, dtype=np.float32)


def images_at_a_time(shape: tuple[int, ...]) -> int:
    """How many images to put through a network at once, so that its maps stay below a gigabyte.

    Args:
        shape: (h, w, c) of an image.
    """
    pixels = int(np.prod(shape))
    return int(np.clip(2**18 // pixels, 1, 256))
