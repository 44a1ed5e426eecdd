"""The best linear autoencoder with as many latent values: principal components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MOST_PIXELS = 16_384  # of an image


@dataclass(frozen=True)
class Projection:
    """The best linear autoencoder with a latent code of some values, fitted on training images.

    Attributes:
        mean: (pixels,) of the training images.
        basis: (pixels, dims) orthonormal.
    """

    mean: Array
    basis: Array

    @classmethod
    def of(cls, train: Array, dims: int) -> Projection | None:
        """The projection on the first principal components of the training images.

        Baldi, Hornik, "Neural networks and principal component analysis", Neural Networks 2(1), 1989.
        Time grows with the cube of min(m, pixels): 2,000 images are enough.

        Args:
            train: (m, h, w, c).
            dims: values of the latent code; as many as pixels leave no error.

        Returns:
            None where the images are too large, or not more than ``dims``.
        """
        m, pixels = len(train), int(np.prod(train.shape[1:]))
        if pixels > MOST_PIXELS or dims >= m:
            return None
        mean = train.reshape(m, pixels).mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(mean, _components(train.reshape(m, pixels) - mean, min(dims, pixels)))

    def mse(self, images: Array) -> Array:
        """Mean squared error of each image, (n, h, w, c) to (n,)."""
        centred = images.reshape(len(images), -1) - self.mean
        left = centred - (centred @ self.basis) @ self.basis.T
        return np.asarray(np.square(left).mean(axis=1), np.float32)


def projection_mse(train: Array, measured: Sequence[Array], dims: int) -> list[Array]:
    """Error of the best linear autoencoder with a latent code of ``dims`` values; see `Projection.of`.

    Args:
        train: (m, h, w, c).
        measured: sets of images, each (n, h, w, c).
        dims: values of the latent code.

    Returns:
        (n,) mean squared error of each image of each set; NaN where there is no projection.
    """
    projection = Projection.of(train, dims)
    if projection is None:
        return [np.full(len(images), np.nan, np.float32) for images in measured]
    return [projection.mse(images) for images in measured]


def _components(centred: Array, dims: int) -> Array:
    """(pixels, dims) orthonormal principal components of (m, pixels), from the smaller Gram matrix."""
    m, pixels = centred.shape
    if pixels <= m:
        vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1]  # ascending
        return np.asarray(vectors[:, pixels - dims :], np.float32)
    vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))[1]
    # Strongest first, as QR keeps the first directions; it undoes what rounding did to the weak ones.
    strongest = vectors[:, ::-1][:, :dims].astype(np.float32)
    spanned = centred.T @ strongest
    spanned /= np.maximum(np.linalg.norm(spanned, axis=0), np.finfo(np.float32).tiny)
    return np.asarray(np.linalg.qr(spanned)[0], np.float32)
