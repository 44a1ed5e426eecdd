"""All metrics of one run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from inspect import signature
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cae_cli.metrics.batches import BatchStatistics
from cae_cli.metrics.dataset import DatasetStatistics
from cae_cli.metrics.dynamics import TrainingDynamics, dynamics
from cae_cli.metrics.filters import p_value, structure, weight_change
from cae_cli.metrics.latent import LatentUse
from cae_cli.metrics.loss_minimum import LossMinimum
from cae_cli.metrics.maps import MapHealth, map_health, mean_slope
from cae_cli.metrics.network import Network, network
from cae_cli.metrics.order import BatchOrder
from cae_cli.metrics.perturbation import Perturbation, perturbation
from cae_cli.metrics.preparation import Preparation
from cae_cli.metrics.quality import Quality, quality
from cae_cli.metrics.reach import ReachStatistics
from cae_cli.metrics.sample import Sample
from cae_cli.metrics.score import Score, score
from cae_cli.metrics.spectrum import Spectrum
from cae_cli.metrics.spikes import LossSpike, loss_spike

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]

# A filter is prunable if its removal raises the error by less than this share of what is explained.
PRUNABLE = 0.001


@dataclass(frozen=True)
class Layer:
    """One convolution.

    Attributes:
        name: the layer's name.
        filters: how many it has.
        kernel: (k, k, inputs) of one filter.
        maps: which of its maps are inactive.
        inactive_at: share of inactive maps after some steps of the training, by step.
        duplicates: number of maps that duplicate another one; None where that tells nothing: in the
            last layer, whose maps are the channels of the image, and with kernels of 1x1.
        activation: name of its activation; None if it is unknown.
        slope_at: `metrics.maps.mean_slope` of its activation after some steps, by step; {} where it has
            none that saturates.
        largest_move: largest `metrics.maps.movement` of the first 32 steps; NaN where it is unknown.
        weight_change: `metrics.filters.weight_change`; NaN where the initial kernel is unknown.
        structure: `metrics.filters.structure` of its kernel.
        p_value: of that structure among kernels that the initializer drew again.
        prunable: share of the measured filters whose removal changes almost nothing.
    """

    name: str
    filters: int
    kernel: tuple[int, int, int]
    maps: MapHealth
    inactive_at: Mapping[int, float]
    duplicates: int | None
    weight_change: float
    structure: float
    p_value: float
    prunable: float
    activation: str | None = None
    slope_at: Mapping[int, float] = field(default_factory=dict)
    largest_move: float = math.nan


@dataclass(frozen=True)
class Labels:
    """`metrics.labels.probe_accuracy` of the encoder after and before training; NaN without labels."""

    trained: float
    initial: float


@dataclass(frozen=True)
class Metrics:
    """What the rules check.

    Attributes:
        batches: None where the training was not recorded.
        order: of the images in the batches; None where it was not recorded.
        frozen: explained variance of the same network trained with its initial encoder; None where that
            was not trained.
        dropout_noise: share of the variance of the output that dropout draws in training mode, 0 to 1;
            NaN without dropout.
        hidden_dropout_noise: the same of dropout that does not mask the image itself.
        reach: pixels that nothing reads, and pixels that the image cannot change.
        loss: where the loss of the training is smallest.
        sample: how much was measured; None where the run does not say.
        preparation: of the images for a network that was not trained here.
        trained_on: the images that were measured were trained on, because there are no others.
        evaluated: what the network was trained on is not known, and all images were measured.
        paired: the user said that inputs and targets differ, and gave both.
    """

    quality: Quality
    perturbation: Perturbation
    layers: tuple[Layer, ...]
    dynamics: TrainingDynamics
    loss_spike: LossSpike
    network: Network
    dataset: DatasetStatistics
    spectrum: Spectrum
    latent: LatentUse
    labels: Labels
    batches: BatchStatistics | None
    order: BatchOrder | None
    frozen: float | None
    score: Score
    dropout_noise: float = math.nan
    hidden_dropout_noise: float = math.nan
    reach: ReachStatistics = field(default_factory=ReachStatistics)
    loss: LossMinimum = field(default_factory=LossMinimum)
    sample: Sample | None = None
    preparation: Preparation = field(default_factory=Preparation)
    trained_on: bool = False
    evaluated: bool = False
    paired: bool = False

    @property
    def flat(self) -> float:
        """Explained variance of the best answer that needs no learning: the mean image, or flat ones.

        Where the images differ in brightness most, as patches of photographs, flat ones are good.
        """
        return flat(self.perturbation)


def flat(tests: Perturbation) -> float:
    """See `Metrics.flat`; 0 to 1."""
    return max(0.0, tests.grey) if math.isfinite(tests.grey) else 0.0


def measure(
    arrays: Arrays,
    epochs: Mapping[str, NDArray[np.float64]],
    training: Mapping[str, Any],
    *,
    frozen: float | None = None,
) -> Metrics:
    """Computes the metrics of a run.

    Args:
        arrays: of `introspection.probe` and `training.recorder`.
        epochs: columns of metrics.csv; empty for a model whose training was not recorded.
        training: training.json.
        frozen: see `Metrics`.
    """
    names = [key.removeprefix("kernel/") for key in arrays if key.startswith("kernel/")]
    tests = perturbation(
        mse=arrays["mse"],
        mean_mse=arrays["mean_mse"],
        train_mse=arrays["train_mse"],
        train_mean_mse=arrays["train_mean_mse"],
        **_group("perturbation/", arrays),
    )
    reconstruction = quality(**{name: arrays[name] for name in signature(quality).parameters})
    activations = training["network"].get("activations", {})
    layers = [_layer(name, arrays, activations.get(name)) for name in names]
    if len(layers) > 1:
        layers[-1] = replace(layers[-1], duplicates=None)
    return Metrics(
        quality=reconstruction,
        perturbation=tests,
        layers=tuple(layers),
        dynamics=_dynamics(arrays, epochs, training),
        loss_spike=loss_spike(arrays.get("dynamics/losses", np.zeros(0))),
        network=network(training["network"]),
        dataset=_numbers(DatasetStatistics, _group("dataset/", arrays)),
        spectrum=_numbers(Spectrum, _group("spectrum/", arrays)),
        latent=_numbers(LatentUse, _group("latent/", arrays)),
        labels=Labels(*(float(arrays.get(f"labels/{k}", math.nan)) for k in ("trained", "initial"))),
        batches=_numbers(BatchStatistics, batches) if (batches := _group("batches/", arrays)) else None,
        order=_numbers(BatchOrder, order) if (order := _group("order/", arrays)) else None,
        frozen=frozen,
        score=score(
            explained=reconstruction.explained_variance,
            base=flat(tests) if frozen is None else max(frozen, flat(tests)),
            latent_swap=tests.latent_swap,
            pixel_copy=tests.pixel_copy,
            inactive=max((layer.maps.inactive_share for layer in layers), default=0.0),
        ),
        dropout_noise=float(arrays.get("dropout_noise", math.nan)),
        hidden_dropout_noise=float(arrays.get("hidden_dropout_noise", math.nan)),
        reach=_numbers(ReachStatistics, _group("reach/", arrays)),
        loss=_numbers(LossMinimum, _group("loss/", arrays)),
        sample=_numbers(Sample, sample) if (sample := _group("sample/", arrays)) else None,
        preparation=_numbers(Preparation, _group("preparation/", arrays)),
        trained_on=training.get("held_out") == "training",
        evaluated=training.get("held_out") == "evaluation",
        paired=training.get("paired") is True,
    )


def _dynamics(
    arrays: Arrays, epochs: Mapping[str, NDArray[np.float64]], training: Mapping[str, Any]
) -> TrainingDynamics:
    nan = float("nan")
    if not epochs:
        return dynamics(arrays, steps=None, first_val_loss=nan, last_val_loss=nan, diverged_at=None)
    last = int(training["measured_epoch"])
    loss = epochs["val/loss"]
    first_loss, last_loss = arrays.get("dynamics/held_out_losses", (loss[0], loss[last]))
    # A validation metric with the same definition as the loss knows the range of the images.
    same = training.get("facts", {}).get("loss", {}).get("validation_metric")
    return dynamics(
        arrays,
        steps=int(epochs["step"][-1]),
        first_val_loss=float(first_loss),
        last_val_loss=float(last_loss),
        diverged_at=training["diverged_at"],
        reported_loss=float(loss[last] if np.isfinite(loss[last]) else epochs["train/loss"][last]),
        recomputed_loss=1 - float(epochs[f"val/{same}"][last]) if same else nan,
    )


def _layer(name: str, arrays: Arrays, activation: str | None) -> Layer:
    kernel = arrays[f"kernel/{name}"]  # (k, k, inputs, filters)
    initial = arrays.get(f"initial_kernel/{name}")
    utility = arrays.get(f"utility/{name}", np.zeros(0))
    known = utility[np.isfinite(utility)]
    stds, image_stds = (arrays.get(f"look_{kind}/{name}") for kind in ("std", "image_std"))
    means = arrays.get(f"look_mean/{name}")
    inactive_at: dict[int, float] = {}
    slope_at: dict[int, float] = {}
    if stds is not None and image_stds is not None:
        steps = arrays["dynamics/look_steps"]
        for step, std, image_std in zip(steps, stds, image_stds, strict=True):
            inactive_at[int(step)] = map_health(std, image_std).inactive_share
        if means is not None:
            for step, mean, std in zip(steps, means, stds, strict=True):
                slope_at[int(step)] = mean_slope(activation, mean, std)
    moves = arrays.get(f"map_moves/{name}", np.zeros(0))
    statistic = structure(kernel)
    return Layer(
        name=name,
        filters=kernel.shape[3],
        kernel=(kernel.shape[0], kernel.shape[1], kernel.shape[2]),
        maps=map_health(arrays[f"map_std/{name}"], arrays[f"map_image_std/{name}"]),
        inactive_at=inactive_at,
        # Filters of 1x1 on one channel are always multiples of one another.
        duplicates=int(arrays[f"map_duplicates/{name}"]) if max(kernel.shape[:2]) > 1 else None,
        weight_change=math.nan if initial is None else weight_change(kernel, initial),
        structure=statistic,
        p_value=p_value(statistic, arrays.get(f"null/{name}", np.zeros(0, np.float32))),
        prunable=float((known < PRUNABLE).mean()) if len(known) else math.nan,
        activation=activation,
        slope_at={step: slope for step, slope in slope_at.items() if math.isfinite(slope)},
        largest_move=float(moves.max()) if len(moves) else math.nan,
    )


def _group(prefix: str, arrays: Arrays) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _numbers(cls: type[T], arrays: Arrays) -> T:
    """A dataclass of numbers, from arrays of one number each; older runs lack those with a default."""
    known = [field for field in fields(cls) if field.name in arrays or field.default is MISSING]  # type: ignore[arg-type]
    return cls(**{field.name: arrays[field.name].item() for field in known})
