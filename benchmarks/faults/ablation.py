"""What each group of metrics is worth: the same runs diagnosed without it.

Nothing is trained again. The metrics of a group become unknown, so that rules skip or pass; a metric
without an unknown value becomes that of a healthy run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.faults.scoring import Verdict
from benchmarks.faults.trainings import Diagnosed, with_diagnosis
from cae_cli.diagnosis import diagnose
from cae_cli.metrics.collect import Metrics
from cae_cli.metrics.dynamics import dynamics
from cae_cli.metrics.maps import MapHealth
from cae_cli.metrics.spikes import NOWHERE

NAN = math.nan


@dataclass(frozen=True)
class Group:
    """Metrics that are removed together.

    Attributes:
        name: of the group.
        doc: what belongs to it.
        without: metrics -> the same without the group.
    """

    name: str
    doc: str
    without: Callable[[Metrics], Metrics]


def _without_baselines(metrics: Metrics) -> Metrics:
    perturbation = replace(
        metrics.perturbation,
        linear=NAN,
        linear_train=NAN,
        skill_score=NAN,
        grey=NAN,
        zero_latent=NAN,
        mean_latent=NAN,
        projection=NAN,
    )
    return replace(
        metrics,
        perturbation=perturbation,
        quality=replace(metrics.quality, black_mse=NAN),
        dataset=replace(metrics.dataset, black=NAN),
    )


def _without_history(metrics: Metrics) -> Metrics:
    unknown = dynamics({}, steps=None, first_val_loss=NAN, last_val_loss=NAN, diverged_at=None)
    return replace(metrics, dynamics=unknown, loss_spike=NOWHERE)


def _without_dataset(metrics: Metrics) -> Metrics:
    # With a contrast of 0 no rule looks at the variance over images.
    dataset = replace(
        metrics.dataset,
        low=0.0,
        high=1.0,
        image_std=0.0,
        flat=0.0,
        distinct=1.0,
        repeated=0.0,
        correlation=NAN,
    )
    return replace(metrics, dataset=dataset, batches=None, order=None)


def _without_initial_state(metrics: Metrics) -> Metrics:
    layers = tuple(
        replace(layer, weight_change=NAN, p_value=NAN, inactive_at={}) for layer in metrics.layers
    )
    return replace(metrics, layers=layers)


def _without_maps(metrics: Metrics) -> Metrics:
    layers = tuple(
        replace(
            layer,
            maps=MapHealth(np.zeros_like(layer.maps.inactive), 0, 0),
            duplicates=0,
            prunable=NAN,
        )
        for layer in metrics.layers
    )
    return replace(metrics, layers=layers)


def _without_tests(metrics: Metrics) -> Metrics:
    perturbation = replace(
        metrics.perturbation, latent_swap=NAN, pixel_copy=NAN, noise_gain=NAN, repeat=NAN
    )
    return replace(metrics, perturbation=perturbation)


def _without_gap(metrics: Metrics) -> Metrics:
    quality, perturbation = metrics.quality, metrics.perturbation
    # A value that is not finite means a useless network, not a gap: it stays.
    same = replace(quality, train_explained_variance=quality.explained_variance)
    return replace(
        metrics, quality=same, perturbation=replace(perturbation, linear_train=perturbation.linear)
    )


GROUPS = (
    Group(
        "baselines",
        "linear decoder, linear autoencoder, and constant outputs (black, grey, mean image)",
        _without_baselines,
    ),
    Group(
        "training history",
        "losses, gradients, updates and penalties per step, and the number of steps",
        _without_history,
    ),
    Group("dataset", "duplicates, range, noise, flat images, first batches", _without_dataset),
    Group(
        "initial state",
        "weights before training, feature maps after the first steps",
        _without_initial_state,
    ),
    Group("feature maps", "inactive, constant and duplicate feature maps", _without_maps),
    Group(
        "perturbation tests",
        "latent swap, scrambled pixels, noise on the input",
        _without_tests,
    ),
    Group("generalisation gap", "training images compared with held-out ones", _without_gap),
)


def verdicts(diagnosed: Sequence[Diagnosed]) -> dict[str, tuple[Verdict, ...]]:
    """The verdicts without each group, by its name; in the same order."""
    return {group.name: tuple(_verdict(one, group) for one in diagnosed) for group in GROUPS}


def _verdict(one: Diagnosed, group: Group) -> Verdict:
    if one.result.metrics is None:
        return one.verdict
    return with_diagnosis(one.verdict, diagnose(group.without(one.result.metrics), one.config))
