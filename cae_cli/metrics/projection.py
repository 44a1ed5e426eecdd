"""The best linear autoencoder with as many latent values: principal components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MOST_PIXELS = 16_384  # of an image


def projection_mse(train: Array, measured: Sequence[Array], dims: int) -> list[Array]:
    """Error of the best linear autoencoder with a latent code of ``dims`` values.

    That is the projection on the first principal components of the training images (Baldi, Hornik,
    "Neural networks and principal component analysis", Neural Networks 2(1), 1989). Time grows with the
    cube of min(m, pixels): 2,000 images are enough.

    Args:
        train: (m, h, w, c).
        measured: sets of images, each (n, h, w, c).
        dims: values of the latent code; as many as pixels leave no error.

    Returns:
        (n,) mean squared error of each image of each set; NaN where the images are too large or
        the training images not more than ``dims``.
    """
    m, pixels = len(train), int(np.prod(train.shape[1:]))
    if pixels > MOST_PIXELS or dims >= m:
        return [np.full(len(images), np.nan, np.float32) for images in measured]
    mean = train.reshape(m, pixels).mean(axis=0, dtype=np.float64).astype(np.float32)
    basis = _components(train.reshape(m, pixels) - mean, min(dims, pixels))
    errors = []
    for images in measured:
        centred = images.reshape(len(images), pixels) - mean
        left = centred - (centred @ basis) @ basis.T
        errors.append(np.asarray(np.square(left).mean(axis=1), np.float32))
    return errors


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
