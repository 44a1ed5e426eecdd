"""Everything that is measured of one run, put together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cae_cli.metrics.batches import Fed
from cae_cli.metrics.dataset import Survey
from cae_cli.metrics.dynamics import Course, course
from cae_cli.metrics.filters import displacement, p_value, structure
from cae_cli.metrics.latent import CodeUse
from cae_cli.metrics.maps import MapHealth, map_health
from cae_cli.metrics.network import Network, network
from cae_cli.metrics.perturbation import Causal, causal
from cae_cli.metrics.quality import Quality, quality
from cae_cli.metrics.score import Score, score
from cae_cli.metrics.spectrum import Spectrum
from cae_cli.metrics.spikes import Relapse, relapse

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]

# A filter whose removal raises the error by less than this share of what is explained does nothing.
USELESS = 0.001


@dataclass(frozen=True)
class Layer:
    """One convolution.

    Attributes:
        name: the layer's name.
        filters: how many it has.
        kernel: (k, k, inputs) of one filter.
        maps: which of its maps are blank.
        blank_at: blank share of its maps after some steps of the training, by step.
        duplicates: maps that repeat another one.
        displacement: how far training moved its kernel; NaN where nobody knows where it began.
        structure: `measures.filters.structure` of its kernel.
        p_value: of that structure among redraws from the layer's initializer.
        useless: share of the filters whose removal changes next to nothing, of those looked at.
    """

    name: str
    filters: int
    kernel: tuple[int, int, int]
    maps: MapHealth
    blank_at: Mapping[int, float]
    duplicates: int
    displacement: float
    structure: float
    p_value: float
    useless: float


@dataclass(frozen=True)
class Labels:
    """Accuracy of a linear classifier on the code; NaN where there are no labels.

    Attributes:
        trained: of the trained encoder.
        initial: of the same encoder before training.
    """

    trained: float
    initial: float


@dataclass(frozen=True)
class Measures:
    """What the rules judge.

    Attributes:
        fed: what the first steps of the training were fed; None where nobody watched.
        frozen: explained variance of the same network trained with its encoder frozen as it was
            drawn; None where that was not tried.
    """

    quality: Quality
    causal: Causal
    layers: tuple[Layer, ...]
    course: Course
    relapse: Relapse
    network: Network
    survey: Survey
    spectrum: Spectrum
    code: CodeUse
    labels: Labels
    fed: Fed | None
    frozen: float | None
    score: Score


def measure(
    arrays: Arrays,
    metrics: Mapping[str, NDArray[np.float64]],
    training: Mapping[str, Any],
    *,
    frozen: float | None = None,
) -> Measures:
    """Measures a run.

    Args:
        arrays: what `cae_cli.introspection.probe` and `cae_cli.training.recorder` recorded.
        metrics: columns of metrics.csv; empty for a model whose training nobody watched.
        training: training.json.
        frozen: explained variance of the control with a frozen encoder, if there is one.
    """
    names = [key.removeprefix("kernel/") for key in arrays if key.startswith("kernel/")]
    answers = causal(
        mse=arrays["mse"],
        mean_mse=arrays["mean_mse"],
        train_mean_mse=arrays["train_mean_mse"],
        **_below("causal/", arrays),
    )
    reached = quality(
        mse=arrays["mse"],
        ssim=arrays["ssim"],
        mean_mse=arrays["mean_mse"],
        mean_ssim=arrays["mean_ssim"],
        black_mse=arrays["black_mse"],
        train_mse=arrays["train_mse"],
        train_mean_mse=arrays["train_mean_mse"],
        output_variance=float(arrays["output_variance"]),
        output_mean=float(arrays["output_mean"]),
    )
    layers = tuple(_layer(name, arrays) for name in names)
    return Measures(
        quality=reached,
        causal=answers,
        layers=layers,
        course=_course(arrays, metrics, training),
        relapse=relapse(arrays.get("course/losses", np.zeros(0))),
        network=network(training["network"]),
        survey=_gathered(Survey, _below("survey/", arrays)),
        spectrum=_gathered(Spectrum, _below("spectrum/", arrays)),
        code=_gathered(CodeUse, _below("code/", arrays)),
        labels=Labels(*(float(arrays.get(f"labels/{k}", math.nan)) for k in ("trained", "initial"))),
        fed=_gathered(Fed, fed) if (fed := _below("fed/", arrays)) else None,
        frozen=frozen,
        score=score(
            explained=reached.explained_variance,
            base=0.0 if frozen is None else frozen,
            code_shuffle=answers.code_shuffle,
            pixel_copy=answers.pixel_copy,
            blank=max((layer.maps.blank_share for layer in layers), default=0.0),
        ),
    )


def _course(
    arrays: Arrays, metrics: Mapping[str, NDArray[np.float64]], training: Mapping[str, Any]
) -> Course:
    nan = float("nan")
    if not metrics:
        return course(arrays, steps=None, first_val_loss=nan, last_val_loss=nan, diverged_at=None)
    last = int(training["measured_epoch"])
    loss = metrics["val/loss"]
    # This loss has a yardstick of the same definition beside it, which knows the range of the images.
    same = 1 - metrics["val/ssim"] if training["loss"] == "ssim" else None
    return course(
        arrays,
        steps=int(metrics["step"][-1]),
        first_val_loss=float(loss[0]),
        last_val_loss=float(loss[last]),
        diverged_at=training["diverged_at"],
        reported_loss=float(loss[last] if np.isfinite(loss[last]) else metrics["train/loss"][last]),
        recomputed_loss=nan if same is None else float(same[last]),
    )


def _layer(name: str, arrays: Arrays) -> Layer:
    kernel = arrays[f"kernel/{name}"]  # (k, k, inputs, filters)
    initial = arrays.get(f"initial_kernel/{name}")
    utility = arrays.get(f"utility/{name}", np.zeros(0))
    known = utility[np.isfinite(utility)]
    stds, image_stds = (arrays.get(f"look_{kind}/{name}") for kind in ("std", "image_std"))
    looks: dict[int, float] = {}
    if stds is not None and image_stds is not None:
        steps = arrays["course/look_steps"]
        for step, std, image_std in zip(steps, stds, image_stds, strict=True):
            looks[int(step)] = map_health(std, image_std).blank_share
    found = structure(kernel)
    return Layer(
        name=name,
        filters=kernel.shape[3],
        kernel=(kernel.shape[0], kernel.shape[1], kernel.shape[2]),
        maps=map_health(arrays[f"map_std/{name}"], arrays[f"map_image_std/{name}"]),
        blank_at=looks,
        duplicates=int(arrays[f"map_duplicates/{name}"]),
        displacement=math.nan if initial is None else displacement(kernel, initial),
        structure=found,
        p_value=p_value(found, arrays.get(f"null/{name}", np.zeros(0, np.float32))),
        useless=float((known < USELESS).mean()) if len(known) else math.nan,
    )


def _below(prefix: str, arrays: Arrays) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _gathered(cls: type[T], arrays: Arrays) -> T:
    """A dataclass of numbers from arrays of one number each."""
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    return cls(**{name: arrays[name].item() for name in names})
