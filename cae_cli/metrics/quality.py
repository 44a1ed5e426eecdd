"""Quality of reconstructions, independent of the loss that was trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

MSE_FLOOR = 1e-10  # 100 dB: an image reproduced exactly has no finite PSNR


def psnr(mse: Array) -> Array:
    """Peak signal-to-noise ratio of images in [0, 1] in decibel: -10 log10(MSE), at most 100."""
    return np.asarray(-10 * np.log10(np.maximum(mse, MSE_FLOOR)), np.float32)


def explained_variance(mse: Array, mean_mse: Array) -> float:
    """Share of the variance around the mean training image that reconstructions explain.

    EV = 1 - MSE / V, V = mean squared distance of the images from the mean training image. 1 is perfect,
    0 is the mean image, negative is worse. Close to 1 for networks that copy, whatever their filters.

    Args:
        mse: (n,) mean squared error of each reconstruction; NaN for none.
        mean_mse: (n,) mean squared error of the mean training image.
    """
    variance = float(np.mean(mean_mse, dtype=np.float64)) if len(mean_mse) else 0.0
    return 1 - float(np.mean(mse, dtype=np.float64)) / variance if variance else float("nan")


@dataclass(frozen=True)
class Mean:
    """A mean over images with its uncertainty.

    Attributes:
        value: the mean.
        margin: half the width of its 95 % confidence interval (1.96 standard errors); NaN for one image.
    """

    value: float
    margin: float


def mean_of(values: Array) -> Mean:
    """Mean and 95 % confidence interval of (n,) values, one per image."""
    values64 = np.asarray(values, np.float64)
    spread = values64.std(ddof=1) if len(values64) > 1 else float("nan")
    return Mean(float(values64.mean()), float(1.96 * spread / np.sqrt(len(values64))))


@dataclass(frozen=True)
class Quality:
    """Reconstruction of held-out images, and baselines that need no network.

    Attributes:
        images: how many were measured.
        mse, psnr, ssim: of the reconstructions, means over images; PSNR in decibel.
        mean_image_mse, mean_image_psnr, mean_image_ssim: of the mean training image.
        black_mse: of a black image.
        explained_variance: of held-out images.
        train_explained_variance: of training images.
        output_variance_share: variance of the output over images, relative to that of the images.
        output_mean: mean output pixel.
    """

    images: int
    mse: Mean
    psnr: Mean
    ssim: Mean
    mean_image_mse: float
    mean_image_psnr: float
    mean_image_ssim: float
    black_mse: float
    explained_variance: float
    train_explained_variance: float
    output_variance_share: float
    output_mean: float


def quality(
    mse: Array,
    ssim: Array,
    mean_mse: Array,
    mean_ssim: Array,
    black_mse: Array,
    train_mse: Array,
    train_mean_mse: Array,
    output_variance: Array | float,
    output_mean: Array | float,
) -> Quality:
    """Summarises the errors of each image; arguments as `introspection.probe` records them."""
    variance = float(np.mean(mean_mse, dtype=np.float64))
    return Quality(
        images=len(mse),
        mse=mean_of(mse),
        psnr=mean_of(psnr(mse)),
        ssim=mean_of(ssim),
        mean_image_mse=variance,
        mean_image_psnr=mean_of(psnr(mean_mse)).value,
        mean_image_ssim=mean_of(mean_ssim).value,
        black_mse=mean_of(black_mse).value,
        explained_variance=explained_variance(mse, mean_mse),
        train_explained_variance=explained_variance(train_mse, train_mean_mse),
        output_variance_share=float(output_variance) / variance if variance else float("nan"),
        output_mean=float(output_mean),
    )
