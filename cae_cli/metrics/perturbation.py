"""Perturbation tests: what a network does when its input or its latent code is changed.

They tell a network that describes images from one that copies pixels or ignores its latent code. They
use some hundred held-out images x with reconstructions f(x), latent codes z and decoder dec; V is the
mean squared distance of the images from the mean training image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.metrics.local_linear import cell_means, local_linear_mse
from cae_cli.metrics.quality import explained_variance

Array = NDArray[np.float32]

NOISE = 0.02  # small compared with the contrast of an image, large compared with rounding
MID_TONES = (0.15, 0.85)  # a saturated pixel passes no noise on, whatever the network does
FEWEST_MID_TONES = 1000
# The global linear decoder is fitted where that takes 2,000 images a second of one core at most.
MOST_PRODUCTS = 2**20  # unknowns of a pixel times these and the pixels
SAMPLES_PER_FEATURE = 2


@dataclass(frozen=True)
class Perturbation:
    """Results of the tests and of linear baselines; NaN where it was not measured.

    Attributes:
        linear: explained variance of the linear decoder, see `linear_mse`.
        linear_train: the same for the training images it was fitted on.
        skill_score: (EV - linear) / (1 - linear): 0 is the linear decoder, 1 perfect.
        latent_swap: mean (dec(z of the next image) - dec(z))² over the mean (x_next - x)² of the images;
            0 if the decoder ignores the latent code, about 1 if its output is the other image. NaN
            where all images are equal.
        pixel_copy: share of the contrast within images that is reproduced after a permutation of their
            pixels: 0 or below for networks that describe images, near 1 for those that copy anything.
            Not relative to V, because a permutation keeps differences in brightness.
        pixel_copy_margin: half the width of its 95 % confidence interval over images.
        grey: explained variance of a flat image of the right mean grey.
        noise_gain: share of small noise that passes to the output; 1 for the identity.
        zero_latent: explained variance with a latent code of zeros.
        mean_latent: explained variance with the mean latent code for every image.
        repeat: mean (f(x) - f(x) again)² / 2V: above 0 for latent codes that are drawn at random.
        training_mode: explained variance with batch normalisation as in training, minus that of the
            finished network: above 0 if its running averages do not fit the images.
        training_mode_train: the same for training images, which the running averages are those of.
        projection: explained variance of the best linear autoencoder of the same size (principal
            components).
    """

    linear: float
    linear_train: float
    skill_score: float
    latent_swap: float
    pixel_copy: float
    grey: float
    noise_gain: float
    zero_latent: float
    mean_latent: float
    repeat: float
    training_mode: float
    projection: float
    pixel_copy_margin: float = 0.0
    training_mode_train: float = math.nan  # NaN for runs of older versions as well

    @property
    def least_copied(self) -> float:
        """The pixel copy less its margin: what limits are compared with."""
        return self.pixel_copy - self.pixel_copy_margin


def perturbation(
    *,
    mse: Array,
    mean_mse: Array,
    linear_mse: Array,
    linear_train_mse: Array,
    train_mean_mse: Array,
    latent_swap_change: Array,
    pixel_shuffle_mse: Array,
    grey_mse: Array,
    noise_response: Array,
    noise_pixels: Array,
    zero_latent_mse: Array,
    mean_latent_mse: Array,
    repeat_change: Array,
    training_mode_mse: Array,
    projection_mse: Array,
    next_image_mse: Array | None = None,
    train_mse: Array | None = None,
    train_training_mode_mse: Array | None = None,
) -> Perturbation:
    """Summarises what `introspection.probe` recorded of n held-out images.

    All arguments are (n,), but those of training images are (m,), those in training mode may be of fewer
    images, and ``mse``, ``mean_mse`` and ``train_mean_mse`` of more, of which the first are used. Runs
    of older versions lack those with a default: two images then differ by 2V, as independent ones do.
    """
    n = len(linear_mse)
    mse, mean_mse = mse[:n], mean_mse[:n]
    explained, linear = (explained_variance(m, mean_mse) for m in (mse, linear_mse))
    pixels = float(noise_pixels.sum())
    variance = float(mean_mse.mean())
    # Neighbours in a folder may be patches of one photograph, which differ less than any two images.
    apart = 2 * variance if next_image_mse is None else float(next_image_mse.mean())
    return Perturbation(
        linear=linear,
        linear_train=explained_variance(linear_train_mse, train_mean_mse[: len(linear_train_mse)]),
        skill_score=(explained - linear) / (1 - linear) if linear < 1 else float("nan"),
        # One image has no other's code.
        latent_swap=float(latent_swap_change.mean()) / apart
        if variance and apart and n > 1
        else float("nan"),
        pixel_copy=explained_variance(pixel_shuffle_mse, grey_mse),
        grey=explained_variance(grey_mse, mean_mse),
        noise_gain=float(noise_response.sum()) / (NOISE * pixels)
        if pixels >= FEWEST_MID_TONES
        else float("nan"),
        zero_latent=explained_variance(zero_latent_mse, mean_mse),
        mean_latent=explained_variance(mean_latent_mse, mean_mse),
        repeat=float(repeat_change.mean()) / (2 * variance) if variance else float("nan"),
        training_mode=_gain(training_mode_mse, mse, mean_mse),
        projection=explained_variance(projection_mse, mean_mse),
        pixel_copy_margin=_margin(pixel_shuffle_mse, grey_mse),
        training_mode_train=math.nan
        if train_mse is None or train_training_mode_mse is None
        else _gain(train_training_mode_mse, train_mse, train_mean_mse),
    )


def _gain(other: Array, mse: Array, mean_mse: Array) -> float:
    """Explained variance of the first images with other errors, minus that with their own."""
    k = len(other)
    return explained_variance(other, mean_mse[:k]) - explained_variance(mse[:k], mean_mse[:k])


def _margin(mse: Array, mean_mse: Array) -> float:
    """1.96 standard errors of an explained variance, which is a ratio of two means over n images.

    By linearisation (Cochran, Sampling Techniques, 1977, 6.4). 0 where it cannot be known.
    """
    n, whole = len(mse), float(np.sum(mean_mse, dtype=np.float64))
    if n < 2 or not whole:
        return 0.0
    ratio = float(np.sum(mse, dtype=np.float64)) / whole
    left = np.asarray(mse, np.float64) - ratio * np.asarray(mean_mse, np.float64)
    return float(1.96 * np.sqrt(n) * left.std(ddof=1) / whole)


def linear_mse(
    train: Array,
    measured: Sequence[Array],
    grid: tuple[int, int],
    *,
    given: Array | None = None,
    given_measured: Sequence[Array] | None = None,
    means: tuple[Array, Array] | None = None,
) -> list[Array]:
    """Error of the best linear decoder of the images averaged over the cells of a grid.

    A baseline without learned filters: a fixed average and the least-squares decoder of the training
    images. Where that is no cheap problem, the best local one, see `metrics.local_linear`.

    Args:
        train: (m, h, w, c).
        measured: sets of images, each (n, h, w, c).
        grid: (rows, columns) of the latent code.
        given: what is averaged in place of the training images, as of a denoiser; None: these.
        given_measured: the same for each set.
        means: (h, w, c) mean training image and mean of what is given, of more images than ``train``;
            None: of these.

    Returns:
        (n,) mean squared error of each image of each set; NaN where the training images are too few.
    """
    given = train if given is None else given
    pairs = list(zip(measured if given_measured is None else given_measured, measured, strict=True))
    pixels = int(np.prod(train.shape[1:]))
    grid = min(grid[0], train.shape[1]), min(grid[1], train.shape[2])
    features = grid[0] * grid[1] * train.shape[3] + 1
    if features * (features + pixels) > MOST_PRODUCTS:
        mean, given_mean = means or (train.mean(axis=0), given.mean(axis=0))
        return local_linear_mse(train, given, pairs, grid, mean=mean, given_mean=given_mean)
    if len(train) < SAMPLES_PER_FEATURE * features:
        return [np.full(len(images), np.nan, np.float32) for images in measured]

    def design(images: Array) -> Array:
        cells = cell_means(images, grid).reshape(len(images), -1)
        return np.concatenate([cells, np.ones((len(images), 1), np.float32)], axis=1)

    weights = np.linalg.lstsq(design(given), train.reshape(len(train), -1), rcond=None)[0]
    errors = [design(inputs) @ weights - images.reshape(len(images), -1) for inputs, images in pairs]
    return [np.asarray(np.square(error).mean(axis=1), np.float32) for error in errors]


def noise_signs(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Random +1 and -1 of a shape: the noise for `noise_response`, before it is scaled by `NOISE`."""
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), size=shape)


def noise_response(
    images: Array, outputs: Array, noisy_outputs: Array, signs: Array
) -> tuple[Array, Array]:
    """How much of the noise on the mid-tones of each image comes out again.

    Args:
        images: (n, h, w, c) without noise.
        outputs: of the network for them.
        noisy_outputs: of the network for ``images + NOISE * signs``.
        signs: the noise, +1 and -1.

    Returns:
        The sum of (noisy output - output) * sign over the pixels between the `MID_TONES` of each image,
        (n,), and the number of such pixels, (n,). The gain is the sum of the first over `NOISE` times
        that of the second.
    """
    mid = (images > MID_TONES[0]) & (images < MID_TONES[1])
    response = ((noisy_outputs - outputs) * signs * mid).sum(axis=(1, 2, 3))
    return response.astype(np.float32), mid.sum(axis=(1, 2, 3)).astype(np.float32)
