"""How much of the images lies in pixels that the network does not read or cannot draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ReachStatistics:
    """Shares of the variance of the images, 0 to 1; NaN where a layer is not known.

    Attributes:
        unread: share in pixels on which no value of the output depends.
        unreached: share in pixels of the output that the image cannot change.
        rows: rows of the image of which no pixel is read.
        columns: the same of its columns.
        pixels: share of the pixels that are not read, whatever they show.
    """

    unread: float = math.nan
    unreached: float = math.nan
    rows: int = 0
    columns: int = 0
    pixels: float = 0.0


def reach_statistics(
    unread: Mask, unreached: Mask, given: NDArray[Any], images: NDArray[Any], *, is_exact: bool
) -> ReachStatistics:
    """Measures both masks on images.

    Args:
        unread: (h, w) pixels that nothing reads.
        unreached: (h, w) pixels of the output that the image cannot change.
        given: (n, h, w, c) what the network is given.
        images: (n, h, w, c) what it is to make of it.
        is_exact: whether every layer is known; then pixels that nothing reads are all that there are.
    """
    shares = [_share(mask, values) for mask, values in ((unread, given), (unreached, images))]
    if not is_exact and not any(shares):
        shares = [math.nan, math.nan]
    rows, columns = (int(unread.all(axis=axis).sum()) for axis in (1, 0))
    return ReachStatistics(shares[0], shares[1], rows, columns, float(unread.mean()))


def _share(mask: Mask, images: NDArray[Any]) -> float:
    """Share of the variance over images that lies in these pixels."""
    if not mask.any():
        return 0.0
    variance = images.var(axis=0, dtype=np.float64).sum(axis=-1)
    return float(variance[mask].sum() / variance.sum()) if variance.sum() > 0 else 0.0
