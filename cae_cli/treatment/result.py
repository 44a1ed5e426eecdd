"""The result of one training: its diagnosis, and how much is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cae_cli import experiment
from cae_cli.diagnosis import Diagnosis, Finding
from cae_cli.diagnosis.health import Criterion, criteria, is_healthy
from cae_cli.errors import UserError
from cae_cli.metrics.collect import Metrics
from cae_cli.metrics.score import score
from cae_cli.runs.folder import Run
from cae_cli.runs.opening import reading

# The least gain in score that counts while as much is wrong as before. Seeds differ by less.
MIN_GAIN = 0.05


@dataclass(frozen=True)
class Result:
    """One training with its diagnosis.

    Attributes:
        run: the training.
        diagnosis: of the run; None if it has no usable files.
        metrics: of the run, or None. Their score never uses a frozen encoder, so that scores of
            different runs can be compared.
        criteria: of the run, or ().
        healthy: see `diagnosis.health.is_healthy`.
        problems: number of causes and of failing criteria, plus one if the verdict is open; infinite
            without a diagnosis.
        reason: why there is no diagnosis, else "".
    """

    run: Run
    diagnosis: Diagnosis | None
    metrics: Metrics | None
    criteria: tuple[Criterion, ...]
    healthy: bool
    problems: float
    reason: str = ""

    @property
    def causes(self) -> list[Finding]:
        """The findings above a note that follow from no other, in order."""
        return self.diagnosis.causes if self.diagnosis else []

    @property
    def codes(self) -> set[str]:
        """Codes of the causes."""
        return {finding.code for finding in self.causes}

    @property
    def failing(self) -> list[str]:
        """Names of the criteria that fail."""
        return [criterion.name for criterion in self.criteria if not criterion.holds]

    @property
    def score(self) -> float:
        """Meaningfulness, 0 to 1; 0 if it was not measured."""
        value = self.metrics.score.value if self.metrics else math.nan
        return 0.0 if math.isnan(value) else value


def result(run: Run) -> Result:
    """Diagnoses a training from its files; nothing is written."""
    status: Mapping[str, Any] = {}
    try:
        with reading(run):
            status = run.status()
            if status.get("status") not in ("ok", "failed"):
                raise UserError(f"its status is {status.get('status', 'unknown')}")
            with np.errstate(all="ignore"):  # networks that diverged have infinite weights and errors
                outcome = experiment.diagnose(run)
            config = run.settings()
    except UserError as error:
        reason = str(status.get("reason") or error.what)
        return Result(run, None, None, (), False, math.inf, reason)
    return result_of(run, outcome.diagnosis, _without_frozen_encoder(outcome.metrics), config)


def result_of(run: Run, diagnosis: Diagnosis, metrics: Metrics, config: Mapping[str, Any]) -> Result:
    """The result of a training whose metrics and diagnosis are known.

    Args:
        run: the training.
        diagnosis: of the run.
        metrics: of the run.
        config: as for `diagnosis.diagnose`.
    """
    checked = criteria(metrics, config)
    failing = sum(not criterion.holds for criterion in checked)
    problems = float(len(diagnosis.causes) + failing + diagnosis.undecided)
    healthy = is_healthy(diagnosis, metrics, config)
    return Result(run, diagnosis, metrics, checked, healthy, problems)


def _without_frozen_encoder(metrics: Metrics) -> Metrics:
    """The metrics with the score that the run has without the baseline of a frozen encoder."""
    if metrics.frozen is None:
        return metrics
    whole = score(
        explained=metrics.quality.explained_variance,
        base=metrics.flat,
        latent_swap=metrics.perturbation.latent_swap,
        pixel_copy=metrics.perturbation.pixel_copy,
        inactive=1 - metrics.score.alive,
    )
    return replace(metrics, frozen=None, score=whole)


def problems(results: Sequence[Result]) -> float:
    """Mean number of problems over seeds."""
    return float(np.mean([result.problems for result in results]))


def mean_score(results: Sequence[Result]) -> float:
    """Mean score over seeds."""
    return float(np.mean([result.score for result in results]))


def is_better(after: Sequence[Result], before: Sequence[Result]) -> bool:
    """Whether a change is worth keeping: fewer problems, or as many and a clearly higher score."""
    if problems(after) != problems(before):
        return problems(after) < problems(before)
    return mean_score(after) - mean_score(before) > MIN_GAIN
