"""The best local linear decoder: a linear transposed convolution from the grid of the latent code.

The linear baseline of large images. The least-squares problem of `perturbation.linear_mse` has as many
unknowns as cells times pixels. Here each cell is decoded from the cells around it, by the same weights
everywhere, so that the unknowns do not grow with the image, and every position is a sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Array64 = NDArray[np.float64]

# Cells that a cell is decoded from, along each axis: two on either side, the reach of a bicubic
# interpolation. More explain hardly more (docs/concepts.md).
REACH = 5
SMALLEST = 1e-10  # of the squared singular values of the cells around a cell, over the largest
BATCH_VALUES = 2**20  # values of images that are arranged at once
AXES = np.s_[:, None, :, None], np.s_[None, :, None, :]


def cell_means(images: Array, grid: tuple[int, int]) -> Array:
    """Images averaged over the cells of a grid.

    Args:
        images: (n, h, w, c).
        grid: (rows, columns), at most (h, w). Sides that they do not divide give cells whose sizes
            differ by a pixel.

    Returns:
        (n, rows, columns, c).
    """
    for axis, cells in ((1, grid[0]), (2, grid[1])):
        edges = np.arange(cells + 1) * images.shape[axis] // cells
        sums = np.add.reduceat(images, edges[:-1], axis=axis)
        shape = [1, 1, 1, 1]
        shape[axis] = cells
        images = sums / np.diff(edges).reshape(shape).astype(np.float32)
    return images


def local_linear_mse(
    train: Array,
    given: Array,
    pairs: Sequence[tuple[Array, Array]],
    grid: tuple[int, int],
    *,
    mean: Array,
    given_mean: Array,
) -> list[Array]:
    """Error of the best local linear decoder of images averaged over the cells of a grid.

    An image is the mean image plus what the cells of the given image, less those of the mean, add to it;
    beyond the border nothing does. Solved by normal equations, batch by batch: the memory is that of the
    arguments and of a batch.

    Args:
        train: (m, h, w, c).
        given: what is averaged to make them from.
        pairs: what is given and the images, each (n, h, w, c), that the decoder is measured on.
        grid: (rows, columns), at most (h, w).
        mean: (h, w, c) mean training image.
        given_mean: (h, w, c) mean of what is given.

    Returns:
        (n,) mean squared error of each image of each pair; NaN where there are fewer positions than
        unknowns of a pixel.
    """
    unknowns = REACH**2 * mean.shape[2]
    if len(train) * grid[0] * grid[1] < unknowns:
        return [np.full(len(images), np.nan, np.float32) for _, images in pairs]
    blocks = Blocks(mean.shape[:2], grid)
    mean_cells = cell_means(given_mean[None], grid)

    def batches(inputs: Array, images: Array) -> Iterator[tuple[Array64, Array64]]:
        """Cells around each cell (positions, unknowns), and its pixels (positions, pixels)."""
        at_once = max(1, BATCH_VALUES // mean.size)
        for start in range(0, len(images), at_once):
            here = slice(start, start + at_once)
            around = neighbourhoods(cell_means(inputs[here], grid) - mean_cells)
            yield around, blocks.cut(images[here] - mean).astype(np.float64)

    gram = np.zeros((unknowns, unknowns))
    product = np.zeros((unknowns, blocks.pixels * mean.shape[2]))
    for around, pixels in batches(given, train):
        gram += around.T @ around
        product += around.T @ pixels
    weights = np.linalg.pinv(gram, rcond=SMALLEST, hermitian=True) @ product
    return [
        np.concatenate(
            [blocks.mean_square(around @ weights - pixels) for around, pixels in batches(*pair)]
        )
        for pair in pairs
    ]


def neighbourhoods(cells: Array) -> Array64:
    """The `REACH` x `REACH` cells around each, (n, rows, columns, c) to (n * rows * columns, values)."""
    side = REACH // 2
    padded = np.pad(cells.astype(np.float64), ((0, 0), (side, side), (side, side), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (REACH, REACH), axis=(1, 2))
    return windows.reshape(-1, REACH**2 * cells.shape[3])  # (n, rows, columns, c, REACH, REACH) before


class Blocks:
    """The pixels of each cell.

    Where a grid does not divide the sides, cells differ by a pixel. All blocks have the size of the
    largest cell and begin where their cell begins; the pixels beyond a smaller cell do not count.

    Args:
        sides: (h, w) of an image.
        grid: (rows, columns) of the cells.

    Attributes:
        pixels: of a block.
    """

    def __init__(self, sides: tuple[int, ...], grid: tuple[int, int]) -> None:
        self._at: list[NDArray[np.intp]] = []  # (cells, pixels of a block) along each axis
        inside = []
        for side, cells in zip(sides, grid, strict=True):
            edges = np.arange(cells + 1) * side // cells
            block = np.arange(-(-side // cells))
            self._at.append(edges[:-1, None] + block)
            inside.append(block < np.diff(edges)[:, None])
        self.pixels = self._at[0].shape[1] * self._at[1].shape[1]
        both = inside[0][:, None, :, None] & inside[1][None, :, None, :]
        self._inside = both.reshape(-1, self.pixels, 1)

    def cut(self, images: Array) -> Array:
        """(n, h, w, c) to (n * rows * columns, pixels * c)."""
        rows, columns = (at[axes] for at, axes in zip(self._at, AXES, strict=True))
        return images[:, rows, columns].reshape(-1, self.pixels * images.shape[3])

    def mean_square(self, blocks: Array64) -> Array:
        """(n,) mean square over the pixels of each image, from blocks as `cut` makes them."""
        each = np.square(blocks).reshape(-1, *self._inside.shape[:2], blocks.shape[1] // self.pixels)
        sums = each.sum(axis=(1, 2, 3), where=self._inside)
        return np.asarray(sums / (self._inside.sum() * each.shape[3]), np.float32)
