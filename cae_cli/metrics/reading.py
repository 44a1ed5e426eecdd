"""Whether the pixels are where they belong: the same values, put in another order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.metrics.batches import neighbour_correlation

Array = NDArray[np.float32]

MEASURED = 256  # images; a wrong order shows in each of them
DIGITS = 6  # two orders that differ by a transposition only are equally smooth

# Mistakes, and what undoes them, both in words of (h, w, c) of the images as they are.
READINGS: dict[str, Callable[[Array], Array]] = {
    "channel planes were read as interleaved channels": lambda x: np.moveaxis(
        x.reshape(len(x), x.shape[3], *x.shape[1:3]), 1, 3
    ),
    "interleaved channels were read as channel planes": lambda x: np.moveaxis(x, 3, 1).reshape(x.shape),
    "height and width were swapped": lambda x: x.reshape(len(x), x.shape[2], x.shape[1], x.shape[3]),
    "rows were read as columns, in Fortran's order": lambda x: x.transpose(0, 3, 2, 1).reshape(x.shape),
    "columns were read as rows, in C's order": lambda x: x.reshape(
        len(x), *x.shape[:0:-1]
    ).transpose(0, 3, 2, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """The smoothest other order of the values of each image.

    Attributes:
        mistake: of `READINGS`, that would explain it; "" where there is no other order (square images of
            one channel), "unknown" where it was not measured.
        smoothness: `neighbour_correlation` after that mistake was undone.
        roughness: 1 - smoothness over the same for the images as they are: above 1 where their order is
            right; near 0.5 or below where it is wrong, because then one direction is torn.
    """

    mistake: str = "unknown"
    smoothness: float = float("nan")
    roughness: float = float("nan")


def reading(images: Array) -> Reading:
    """Compares images (n, h, w, c) with other orders of their values."""
    images = np.ascontiguousarray(images[:MEASURED])
    _, h, w, c = images.shape
    own = neighbour_correlation(images)
    found = {mistake: neighbour_correlation(undo(images)) for mistake, undo in _possible(h, w, c)}
    if not found or not np.isfinite([own, *found.values()]).all():
        return Reading("")
    best = max(found, key=lambda mistake: round(found[mistake], DIGITS))
    rough = 1 - own
    return Reading(best, found[best], (1 - found[best]) / rough if rough else float("inf"))


def _possible(h: int, w: int, c: int) -> list[tuple[str, Callable[[Array], Array]]]:
    """The readings that give images of these sides another order, apart from transposed images."""
    readings = list(READINGS.items())
    if c == 1:
        return readings[2:] if h != w else []  # no channels
    return readings if h != w else readings[:2] + readings[3:]  # no sides to swap
