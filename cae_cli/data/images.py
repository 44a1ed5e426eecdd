"""The result of a source, and of the whole data stage."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = 0, 1, 2  # parts of a pool

MOST_BYTES = 2**30  # that the layers of a network may need for one batch in inference


@dataclass(frozen=True)
class Scale:
    """What was done to the values of a source, so that it can be done to others.

    Attributes:
        black, white: the values that became 0 and 1.
        dtype: name of the type of the values, such as "uint8".
        clip: values outside became 0 and 1; false: they stayed outside.
    """

    black: float
    white: float
    dtype: str
    clip: bool = True


@dataclass(frozen=True)
class Pool:
    """The images of a source, before scaling and splitting.

    Attributes:
        images: (n, h, w) or (n, h, w, c), any numeric dtype.
        labels: (n,) integers, or None.
        test_images: the test part of the source in the same form, or None.
        test_labels: its labels, or None.
        groups: (n,) integers; images of one group (patches of one photograph) are all for training or
            all for validation. None: every image is a group.
        parts: (n,) of TRAIN, VALIDATION and TEST, where the source says which images are for what; None:
            they are drawn at random.
        white: the value of white if the source knows it (16 for scikit-learn's digits); None: it
            follows from the dtype and the values.
        notes: sentences for the log about what was changed or ignored while reading.
        scale: what was done to the values; None: nothing yet.
        names: (n,) of the files that the images come from; None: they come from no files.
        label_names: what the labels 0, 1, … stand for, where the source has words for them.
        inputs, test_inputs: what a network is given to make the images or the test images from, in the
            same form; None: the images.
        input_scale: what was done to the values of the inputs; None: nothing yet, or there are none.
        more: the option that reads images which were left out, with their number; "": none does.
    """

    images: NDArray[np.generic]
    labels: NDArray[np.int64] | None = None
    test_images: NDArray[np.generic] | None = None
    test_labels: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    parts: NDArray[np.int64] | None = None
    white: float | None = None
    notes: tuple[str, ...] = ()
    scale: Scale | None = None
    names: Sequence[str] | None = None
    label_names: tuple[str, ...] | None = None
    inputs: NDArray[np.generic] | None = None
    test_inputs: NDArray[np.generic] | None = None
    input_scale: Scale | None = None
    more: str = ""


@dataclass(frozen=True)
class Images:
    """Images ready for training: uint8 (255 is white) or float32 in [0, 1], all (n, h, w, c).

    Attributes:
        train: training images.
        validation: validation images.
        test: the test part of the source, or None.
        train_labels, validation_labels, test_labels: (n,) integers, or None.
        source: the data option's name.
        notes: sentences about what was done to the data.
        trained_on: the validation images were trained on too, because there are no others.
        train_inputs, validation_inputs, test_inputs: (n, h, w, c) uint8 or float32, what the network is
            given to make the images from, such as the same with noise, which may leave [0, 1]; None: the
            images.
        evaluated: nobody knows what the network was trained on, so all images are measured: ``train``
            and ``validation`` are the same ones.
        scale: what was done to the values of the source; None: not known.
        input_scale: what was done to those of the inputs; None: not known, or there are none.
        positions: of the images of each part in the source, (n,); its test part, if it has one, counts
            anew.
        names: of the files of the source, by position; None: they come from no files.
        label_names: what the labels 0, 1, … stand for, where the source has words for them.
        more: see `Pool`.
        groups: number of files that the training images and the held-out ones are patches or frames of;
            0 where each image stands for itself.
    """

    train: NDArray[np.generic]
    validation: NDArray[np.generic]
    test: NDArray[np.generic] | None = None
    train_labels: NDArray[np.int64] | None = None
    validation_labels: NDArray[np.int64] | None = None
    test_labels: NDArray[np.int64] | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    trained_on: bool = False
    train_inputs: NDArray[np.generic] | None = None
    validation_inputs: NDArray[np.generic] | None = None
    test_inputs: NDArray[np.generic] | None = None
    evaluated: bool = False
    scale: Scale | None = None
    input_scale: Scale | None = None
    positions: Mapping[str, NDArray[np.intp]] = field(default_factory=dict)
    names: Sequence[str] | None = None
    label_names: tuple[str, ...] | None = None
    more: str = ""
    groups: tuple[int, int] = (0, 0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one image."""
        h, w, c = self.train.shape[1:]
        return h, w, c

    @property
    def held_out(self) -> NDArray[np.generic]:
        """Images for the final metrics: the test part if the source has one, else validation."""
        return self.validation if self.test is None else self.test

    @property
    def given(self) -> NDArray[np.generic]:
        """What the network is given to make the training images from."""
        return self.train if self.train_inputs is None else self.train_inputs

    @property
    def held_out_given(self) -> NDArray[np.generic]:
        """What the network is given to make the held-out images from."""
        inputs = self.validation_inputs if self.test is None else self.test_inputs
        return self.held_out if inputs is None else inputs

    @property
    def are_pairs(self) -> bool:
        """Whether the network is given something else than the images that it is to make."""
        return self.train_inputs is not None

    @property
    def held_out_name(self) -> str:
        """Which part `held_out` is: "test", "validation", "evaluation", or "training" if trained on."""
        if self.evaluated:
            return "evaluation"
        if self.trained_on:
            return "training"
        return "validation" if self.test is None else "test"

    def sample(self, values: int = 2**21) -> NDArray[np.float32]:
        """Training images in [0, 1], always the same ones, drawn at random: up to so many values."""
        count = min(len(self.train), max(2, values // int(np.prod(self.shape))))
        chosen = np.random.default_rng(0).permutation(len(self.train))[:count]
        return as_float(self.train[np.sort(chosen)])

    def fingerprint(self) -> str:
        """SHA-256 of all pixels, shapes and dtypes, as hexadecimal digits."""
        digest = hashlib.sha256()
        for part in (
            *(self.train, self.validation, self.test),
            *(self.train_inputs, self.validation_inputs, self.test_inputs),
        ):
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


def images_at_a_time(shape: tuple[int, ...], fitting: int) -> int:
    """The batch size for inference, at least 1.

    Args:
        shape: (h, w, c) of an image.
        fitting: as many as `images_that_fit`.
    """
    pixels = int(np.prod(shape))
    return max(1, min(256, 2**18 // pixels, fitting))


def images_that_fit(each: int, free: int | None = None) -> int:
    """How many images may pass a network at once, at least 1: as many as need about a gigabyte.

    Args:
        each: bytes that the network needs for one image, at least.
        free: bytes of free memory, of which at most a quarter is used; None: the number depends on
            the network only.
    """
    most = MOST_BYTES if free is None else min(MOST_BYTES, free // 4)
    return max(1, most // each)
