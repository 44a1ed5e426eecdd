"""Feature maps: which of them depend on the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# A map is inactive if its spread is below this share of the median map of its layer, or below this.
INACTIVE_SHARE = 0.01
INACTIVE_SPREAD = 1e-5
STEEPEST = {"sigmoid": 0.25, "tanh": 1.0}  # slope of activations that saturate at both ends
DUPLICATE = 0.98  # absolute correlation; 1 - 0.98² = 4 % of the variance are then its own
ROUNDING = 1e-12  # of the mean square: what is left of a variance below it is rounding


class ChannelSpread:
    """Spread of each channel of a layer, from batches of its maps, which are not kept.

    Args:
        with_products: whether `correlation` is needed.
    """

    def __init__(self, *, with_products: bool = True) -> None:
        self.with_products = with_products
        self.count = 0
        self.total: NDArray[np.float64] | None = None  # (h, w, c)
        self.total_square: NDArray[np.float64] | None = None  # (h, w, c)
        self.products: NDArray[np.float64] | None = None  # (c, c)

    def add(self, maps: Array) -> None:
        """Adds maps of some images, (n, h, w, c)."""
        maps64 = maps.astype(np.float64)
        if self.total is None or self.total_square is None:
            self.total, self.total_square = (np.zeros(maps64.shape[1:]) for _ in range(2))
        with np.errstate(all="ignore"):
            if self.with_products:
                flat = maps64.reshape(-1, maps64.shape[3])  # (n * h * w, c)
                products = flat.T @ flat
                self.products = products if self.products is None else self.products + products
            for own in maps64:  # large maps: nothing of their size is made anew
                self.total += own
                self.total_square += np.square(own, out=own)
        self.count += len(maps)

    def _moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.total is None or self.total_square is None:
            raise ValueError("no maps were added")
        return self.total / self.count, self.total_square / self.count

    def std(self) -> Array:
        """(c,) standard deviation over images and positions."""
        mean, square = self._moments()
        with np.errstate(all="ignore"):  # maps of a network that diverged
            variance = square.mean(axis=(0, 1)) - mean.mean(axis=(0, 1)) ** 2
        return np.asarray(np.sqrt(np.maximum(variance, 0)), np.float32)

    def mean(self) -> Array:
        """(c,) mean over images and positions."""
        return np.asarray(self._moments()[0].mean(axis=(0, 1)), np.float32)

    def image_std(self) -> Array:
        """(c,) standard deviation over images, root mean square over positions; NaN for one image."""
        mean, square = self._moments()
        if self.count < 2:
            return np.full(mean.shape[2], np.nan, np.float32)
        with np.errstate(all="ignore"):
            variance = np.maximum(square - mean**2, 0)
            return np.asarray(np.sqrt(variance.mean(axis=(0, 1))), np.float32)

    def correlation(self) -> Array:
        """(c, c) Pearson correlation of channels over images and positions.

        Channels without spread, or with values that are not finite, have 0 with all others.
        """
        if self.total is None or self.products is None:
            raise ValueError("no maps were added")
        h, w, _ = self.total.shape
        pixels = self.count * h * w
        with np.errstate(all="ignore"):
            mean = self.total.sum(axis=(0, 1)) / pixels
            square = np.diag(self.products) / pixels
            variance = square - mean**2
            spread = np.isfinite(variance) & (variance > ROUNDING * square)
            std = np.sqrt(np.where(spread, variance, 1))
            correlation = (self.products / pixels - np.outer(mean, mean)) / np.outer(std, std)
        correlation = np.where(np.outer(spread, spread), np.clip(correlation, -1, 1), 0)
        np.fill_diagonal(correlation, 1)
        return np.asarray(correlation, np.float32)


def mean_slope(activation: str | None, mean: Array, std: Array) -> float:
    """Mean slope of a sigmoid or tanh over a layer's maps, at most `STEEPEST`; NaN for others.

    Both are functions of the value y: y (1 - y) and 1 - y².

    Args:
        activation: its name.
        mean: (c,) of the maps over images and positions.
        std: (c,) of the same.
    """
    square = np.square(mean, dtype=np.float64) + np.square(std, dtype=np.float64)
    if activation == "sigmoid":
        return float((mean - square).mean())
    return float((1 - square).mean()) if activation == "tanh" else float("nan")


def movement(before: Array, after: Array) -> float:
    """How far a step moved the maps of a layer: mean |after - before| / standard deviation of before.

    Over all images, positions and filters, (n, h, w, c). From 1 on a step moves a map further than it
    varies, so it can take a filter at once to where no image activates it.
    """
    spread = float(before.std(dtype=np.float64))
    return float(np.abs(after - before).mean(dtype=np.float64)) / max(spread, INACTIVE_SPREAD)


@dataclass(frozen=True)
class MapHealth:
    """Maps of a layer.

    Attributes:
        inactive: (c,) True for maps that do not depend on the image.
        dead: number of maps that are flat, within and over images.
        constant: number of maps with a pattern that is the same for every image.
    """

    inactive: NDArray[np.bool_]
    dead: int
    constant: int

    @property
    def inactive_share(self) -> float:
        """Share of inactive maps, 0 to 1."""
        return float(self.inactive.mean())


def map_health(std: Array, image_std: Array) -> MapHealth:
    """Which maps of a layer are inactive; healthy networks have at most a quarter in their worst layer.

    A map is dead if its standard deviation over images and positions is below 1 % of that of the layer's
    median map, or below 1e-5; it is constant if only its spread over images is.

    Args:
        std: (c,) spread over images and positions.
        image_std: (c,) spread over images.
    """
    limit = max(INACTIVE_SPREAD, INACTIVE_SHARE * float(np.median(std)))
    dead = std < limit
    inactive = dead | (image_std < limit)
    return MapHealth(inactive=inactive, dead=int(dead.sum()), constant=int((inactive & ~dead).sum()))


def duplicates(correlation: Array, inactive: NDArray[np.bool_], limit: float = DUPLICATE) -> int:
    """How many maps duplicate an earlier one, 0 to c - 1.

    A duplicate is not compared with later maps, so a chain of ever less similar maps is not one map.

    Args:
        correlation: (c, c) of the maps.
        inactive: (c,) maps to leave out.
        limit: of the absolute correlation.
    """
    alive = np.flatnonzero(~inactive)
    kept: list[int] = []
    for i in alive.tolist():
        if not (np.abs(correlation[i, kept]) > limit).any():
            kept.append(i)
    return len(alive) - len(kept)
