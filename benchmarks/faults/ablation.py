"""What each group of measures is worth: the same patients judged without it.

Nothing is trained again. The group's values become unknown, so that rules skip or pass; where a measure
has no value that means unknown, it becomes that of a healthy run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.faults.scoring import Judged
from benchmarks.faults.trainings import Looked, said
from cae_cli.diagnosis import diagnose
from cae_cli.metrics.collect import Metrics
from cae_cli.metrics.dynamics import dynamics
from cae_cli.metrics.maps import MapHealth
from cae_cli.metrics.spikes import NOWHERE

NAN = math.nan


@dataclass(frozen=True)
class Group:
    """Measures that are taken away together.

    Attributes:
        name: of the group.
        doc: what belongs to it.
        without: measures -> the same without the group.
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
    unwatched = dynamics({}, steps=None, first_val_loss=NAN, last_val_loss=NAN, diverged_at=None)
    return replace(metrics, dynamics=unwatched, loss_spike=NOWHERE)


def _without_data(metrics: Metrics) -> Metrics:
    # Without contrast within the images nothing is said of the variance over them.
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
    return replace(metrics, dataset=dataset, batches=None)


def _without_beginning(metrics: Metrics) -> Metrics:
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
    # What is not finite says that the network is of no use, not that there is a gap.
    same = replace(quality, train_explained_variance=quality.explained_variance)
    return replace(
        metrics, quality=same, perturbation=replace(perturbation, linear_train=perturbation.linear)
    )


GROUPS = (
    Group(
        "anchors",
        "the linear decoder, the linear autoencoder, black, grey and mean answers beside the network",
        _without_baselines,
    ),
    Group(
        "history",
        "losses, gradients, updates and penalties over the steps, and how many there were",
        _without_history,
    ),
    Group("data", "the images: repeats, range, noise, flat ones, what was fed", _without_data),
    Group(
        "beginning",
        "the weights before training, and the maps after the first steps",
        _without_beginning,
    ),
    Group("maps", "dead, constant and equal feature maps", _without_maps),
    Group(
        "tests",
        "the decoder with another image's code, scrambled pixels, noise",
        _without_tests,
    ),
    Group("gap", "training images beside held-out ones", _without_gap),
)


def all_judged(looked: Sequence[Looked]) -> dict[str, tuple[Judged, ...]]:
    """The patients as they are judged without each group, by its name; in the same order."""
    return {group.name: tuple(_judged(one, group) for one in looked) for group in GROUPS}


def _judged(one: Looked, group: Group) -> Judged:
    if one.result.metrics is None:
        return one.judged
    return said(one.judged, diagnose(group.without(one.result.metrics), one.config))
