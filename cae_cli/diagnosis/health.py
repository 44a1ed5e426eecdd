"""Whether a run is healthy, by criteria that no rule looks at and nobody can move.

Rules say what is wrong; these say whether anything is. A treatment is judged by both, so a rule that
stops firing does not by itself count as a cure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cae_cli.diagnosis.case import LITTLE_EXPLAINED, Case
from cae_cli.diagnosis.finding import Diagnosis, Finding, Severity
from cae_cli.metrics.collect import Metrics

SIMILARITY = ("ssim", "ms_ssim")  # losses that give up squared error


@dataclass(frozen=True)
class Criterion:
    """One measure beside what healthy runs show.

    Attributes:
        name: what it is about, in a word or two.
        value: what was measured; NaN where it is not known.
        least: of a healthy run; infinite where there is no end.
        most: the same.
        source: where the range comes from.
    """

    name: str
    value: float
    least: float
    most: float
    source: str

    @property
    def holds(self) -> bool:
        """Whether the value is in the range. What is not known does not fail."""
        return math.isnan(self.value) or self.least <= self.value <= self.most


def criteria(metrics: Metrics, config: Mapping[str, Any]) -> tuple[Criterion, ...]:
    """The criteria of a run.

    Args:
        metrics: of the run.
        config: the run's composed config as plain containers; {} for a model that this tool did not
            train. Only the name of the loss is looked at.
    """
    quality, perturbation = metrics.quality, metrics.perturbation
    case = Case(metrics.dataset, metrics.network, config, metrics)
    is_finite = metrics.dynamics.diverged_at is None and math.isfinite(quality.explained_variance)
    of_similarity = case.option("loss.name") in SIMILARITY
    # Held-out images may be harder for anybody: what a linear decoder loses on them does not count.
    harder = max(0.0, perturbation.linear_train - perturbation.linear)  # 0 where either is not known
    gap = quality.train_explained_variance - quality.explained_variance - harder
    return (
        Criterion("finite", float(is_finite), 1, 1, "the training came to its end, with numbers"),
        Criterion(
            "explained",
            quality.explained_variance,
            LITTLE_EXPLAINED,
            math.inf,
            "healthy runs explain .7 and more; the mean image 0",
        ),
        Criterion(
            "beside linear",
            quality.explained_variance / perturbation.linear
            if perturbation.linear > LITTLE_EXPLAINED
            else math.nan,
            0.8 if of_similarity else 0.9,
            math.inf,
            "healthy runs explain .97 and more of what a linear decoder does, denoising ones .94",
        ),
        Criterion(
            "code used",
            perturbation.latent_swap,
            0.5,
            math.inf,
            "healthy runs have .70 to 1.06; a decoder that ignores its code 0",
        ),
        Criterion(
            "inactive maps",
            case.inactive,
            -math.inf,
            0.39,
            "healthy runs have 0 to .25 in the worst layer, narrow and penalised ones that do well .375",
        ),
        Criterion(
            "copied",
            perturbation.pixel_copy,
            -math.inf,
            0.25,
            "healthy runs have 0 or less; a U-Net .75",
        ),
        Criterion(
            "gap",
            gap if math.isfinite(gap) else math.nan,
            -math.inf,
            0.05,
            "healthy runs have .002 to .013 beyond a linear decoder's; 16 training images .06 to .08",
        ),
    )


def causes(diagnosis: Diagnosis) -> list[Finding]:
    """The findings above a note that follow from no other, in order."""
    return [
        finding
        for finding in diagnosis.findings
        if finding.severity is not Severity.NOTE and finding.consequence_of is None
    ]


def is_healthy(diagnosis: Diagnosis, metrics: Metrics, config: Mapping[str, Any]) -> bool:
    """Whether nothing above a note was found, enough could be looked at, and every criterion holds.

    Args:
        diagnosis: of the run.
        metrics: of the run.
        config: as for `criteria`.
    """
    return (
        not diagnosis.reaches(Severity.WARNING)
        and not diagnosis.undecided
        and all(criterion.holds for criterion in criteria(metrics, config))
    )
