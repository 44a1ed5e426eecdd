"""Everything that is measured of one run, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.measures.causal import Causal, causal
from cae_cli.measures.filters import displacement
from cae_cli.measures.maps import MapHealth, map_health
from cae_cli.measures.quality import Quality, quality


@dataclass(frozen=True)
class Layer:
    """One convolution.

    Attributes:
        name: the layer's name.
        filters: how many it has.
        kernel: (k, k, inputs) of one filter.
        maps: which of its maps are blank.
        displacement: how far training moved its kernel.
    """

    name: str
    filters: int
    kernel: tuple[int, int, int]
    maps: MapHealth
    displacement: float


@dataclass(frozen=True)
class Course:
    """How the training went.

    Attributes:
        steps: of the optimizer, in whole epochs.
        first_val_loss: before training.
        last_val_loss: of the epoch whose weights were measured.
        diverged_at: the step whose loss or gradient was not finite, or None.
    """

    steps: int
    first_val_loss: float
    last_val_loss: float
    diverged_at: int | None


@dataclass(frozen=True)
class Measures:
    """What the rules judge."""

    quality: Quality
    causal: Causal
    layers: tuple[Layer, ...]
    course: Course


def measure(
    arrays: Mapping[str, NDArray[Any]],
    metrics: Mapping[str, NDArray[np.float64]],
    training: Mapping[str, Any],
) -> Measures:
    """Measures a run.

    Args:
        arrays: what `cae_cli.probe` recorded.
        metrics: columns of metrics.csv.
        training: training.json.
    """
    names = [key.removeprefix("kernel/") for key in arrays if key.startswith("kernel/")]
    return Measures(
        quality=quality(
            mse=arrays["mse"],
            ssim=arrays["ssim"],
            mean_mse=arrays["mean_mse"],
            mean_ssim=arrays["mean_ssim"],
            black_mse=arrays["black_mse"],
            train_mse=arrays["train_mse"],
            train_mean_mse=arrays["train_mean_mse"],
            output_variance=float(arrays["output_variance"]),
            output_mean=float(arrays["output_mean"]),
        ),
        causal=causal(
            mse=arrays["mse"],
            mean_mse=arrays["mean_mse"],
            train_mean_mse=arrays["train_mean_mse"],
            **{k.removeprefix("causal/"): v for k, v in arrays.items() if k.startswith("causal/")},
        ),
        layers=tuple(_layer(name, arrays) for name in names),
        course=Course(
            steps=int(metrics["step"][-1]),
            first_val_loss=float(metrics["val/loss"][0]),
            last_val_loss=float(metrics["val/loss"][int(training["measured_epoch"])]),
            diverged_at=training["diverged_at"],
        ),
    )


def _layer(name: str, arrays: Mapping[str, NDArray[Any]]) -> Layer:
    kernel = arrays[f"kernel/{name}"]  # (k, k, inputs, filters)
    return Layer(
        name=name,
        filters=kernel.shape[3],
        kernel=(kernel.shape[0], kernel.shape[1], kernel.shape[2]),
        maps=map_health(arrays[f"map_std/{name}"], arrays[f"map_image_std/{name}"]),
        displacement=displacement(kernel, arrays[f"initial_kernel/{name}"]),
    )
