"""Whether a run is healthy, by criteria that are independent of the rules and have no options.

Rules name a problem; criteria state whether the run has one. A fix is checked against both, so a rule
that no longer fires does not by itself count as success.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cae_cli.diagnosis.case import LITTLE_EXPLAINED, Case
from cae_cli.diagnosis.finding import Diagnosis, Severity
from cae_cli.diagnosis.rules.latent import PassThrough
from cae_cli.metrics.collect import Metrics
from cae_cli.metrics.network import Network

SHARE_OF_LINEAR = 0.9  # of the explained variance of a linear decoder: healthy runs have 0.94 and more
MOST_INACTIVE = 0.39  # share of inactive maps in the worst layer


@dataclass(frozen=True)
class Criterion:
    """One metric next to the range of healthy runs.

    Attributes:
        name: of the metric.
        value: measured; NaN where it is not known.
        least, most: the range of healthy runs; infinite where it has no end.
        source: where the range comes from.
    """

    name: str
    value: float
    least: float
    most: float
    source: str

    @property
    def holds(self) -> bool:
        """Whether the value is in the range. An unknown value does not fail."""
        return math.isnan(self.value) or self.least <= self.value <= self.most


def perturbation_ranges(network: Network) -> dict[str, tuple[float, float]]:
    """The ranges of healthy runs in the perturbation tests, by name; infinite where they have no end."""
    passed, inf = network.most_copied, math.inf
    return {
        "latent swap": (0.5, inf),
        "pixel copy": (-inf, max(0.25, passed) if passed < 1 else 0.5),
        "noise gain": (-inf, max(PassThrough.most_noise, passed)),
    }


def criteria(metrics: Metrics, config: Mapping[str, Any]) -> tuple[Criterion, ...]:
    """The criteria of a run.

    Args:
        metrics: of the run.
        config: see `Case`. Only the facts of the loss are used.
    """
    quality, perturbation, inf = metrics.quality, metrics.perturbation, math.inf
    tests = perturbation_ranges(metrics.network)
    case = Case(metrics.dataset, metrics.network, config, metrics)
    is_finite = metrics.dynamics.diverged_at is None and math.isfinite(quality.explained_variance)
    of_linear = math.nan
    if perturbation.linear > LITTLE_EXPLAINED:
        of_linear = quality.explained_variance / perturbation.linear
    return (
        Criterion("finite", float(is_finite), 1, 1, "the training ended with finite numbers"),
        Criterion(
            "explained variance",
            quality.explained_variance,
            LITTLE_EXPLAINED,
            inf,
            "healthy runs explain 0.7 and more, the mean image 0",
        ),
        Criterion(
            "share of linear baseline",
            of_linear,
            0.8 if case.fact("loss.gives_up_squared_error") else SHARE_OF_LINEAR,
            inf,
            "healthy runs explain 0.97 and more of what a linear decoder explains, denoising ones 0.94",
        ),
        Criterion(
            "latent swap",
            perturbation.latent_swap,
            *tests["latent swap"],
            "healthy runs have 0.70 to 1.06; a decoder that ignores the latent code has 0",
        ),
        Criterion(
            "inactive maps",
            case.inactive,
            -inf,
            MOST_INACTIVE,
            "healthy runs have 0 to 0.25 in the worst layer, good narrow and penalised ones 0.375",
        ),
        Criterion(
            "pixel copy",
            perturbation.least_copied,
            *tests["pixel copy"],
            "healthy runs have 0 or less, or about what a linear description of this size passes; a "
            "U-Net has 0.75",
        ),
        Criterion(
            "train-test gap",
            case.gap if math.isfinite(case.gap) else math.nan,
            -inf,
            0.05,
            "healthy runs have 0.002 to 0.013 beyond a linear decoder, 16 training images 0.06 to 0.08",
        ),
    )


def is_healthy(diagnosis: Diagnosis, metrics: Metrics, config: Mapping[str, Any]) -> bool:
    """Whether there is no finding above a note, enough was checked, and every criterion holds.

    Args:
        diagnosis: of the run.
        metrics: of the run.
        config: as for `criteria`.
    """
    clean = not diagnosis.undecided and not diagnosis.reaches(Severity.WARNING)
    return clean and all(criterion.holds for criterion in criteria(metrics, config))
