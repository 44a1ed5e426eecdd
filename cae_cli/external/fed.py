"""The images that a training is fed, for a diagnosis that was given none."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cae_cli.diagnosis.case import FEWEST_IMAGES
from cae_cli.system import memory

Array = NDArray[np.float32]
Pair = tuple[Array, Array]  # inputs and targets, of several images both (n, h, w, c)

MOST_TRAINING, MOST_HELD_OUT = 2048, 1024  # images that are kept of each part
MOST_BYTES = 2**27  # that the images of one part take
FEWEST = 2 * FEWEST_IMAGES  # that are kept whatever their size: half of them may be held out
SPARE = 4  # times the memory of those must be free
REPEATS = 32  # images; a set with many equal ones (empty pages) has fewer of them in a row


class Fed:
    """Inputs and targets of the batches that pass, as far as they are kept.

    An image that is seen again is not kept again, as where images are drawn at random for each batch or
    the data set begins again: once `REPEATS` images in a row were seen before, no more are wanted. Flat
    images are kept before that: their share is a fault of its own.

    Args:
        most: images.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.closed = False
        self._pairs: list[Pair] = []  # of single images
        self._known: set[int] = set()  # contents, 64 bits of each
        self._again = 0  # how many of the last images were seen before

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, inputs: Array, targets: Array) -> None:
        """Keeps a batch, both (n, h, w, c), as far as there is room."""
        for pair in zip(inputs, targets, strict=True):
            if self.closed:
                return
            content = content_of(pair[1])
            self._again = self._again + 1 if content in self._known else 0
            self._known.add(content)
            if not self._again or not np.ptp(pair[1]):
                image = np.array(pair[0])
                self._pairs.append((image, image if np.array_equal(*pair) else np.array(pair[1])))
            self.closed = self._is_full(pair) or self._again >= REPEATS

    def _is_full(self, pair: Pair) -> bool:
        size = sum(part.nbytes for part in pair)
        if len(self) >= self.most:
            return True
        if (len(self) + 1) * size <= MOST_BYTES:
            return False
        available = memory.free()
        return len(self) >= FEWEST or available is None or available < SPARE * FEWEST * size

    def arrays(self) -> Pair:
        """Inputs and targets, both (n, h, w, c), in the order in which they passed."""
        inputs = np.stack([pair[0] for pair in self._pairs])
        if all(given is target for given, target in self._pairs):
            return inputs, inputs
        return inputs, np.stack([pair[1] for pair in self._pairs])


def content_of(image: Any) -> int:
    """What tells an image (h, w, c) from others: 64 bits."""
    return hash(np.asarray(image, np.float32).tobytes())


def pair_of(batch: Any) -> Pair | None:
    """Inputs and targets of a batch of ``fit``, both (n, h, w, c).

    Of several inputs and targets, the first image and the first target of its shape. Where there is no
    image among the targets (none at all, labels) a training step of the model's own reconstructs the
    input.

    Returns:
        None if the batch has no images, or if no target has the shape of one.
    """
    x, y = keras.utils.unpack_x_y_sample_weight(batch)[:2]
    inputs, targets = ([a for a in keras.tree.flatten(part) if _is_image(a)] for part in (x, y))
    for image in inputs:
        for target in targets or [image]:
            if target.shape == image.shape and len(image):
                return _array(image), _array(target)
    return None


def _is_image(value: Any) -> bool:
    return len(getattr(value, "shape", ())) == 4


def _array(value: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(value), np.float32)
