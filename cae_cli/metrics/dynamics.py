"""Training dynamics: sizes of steps, parts of the loss, and how much it still falls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SMALLEST_RATIO = 1e-12  # of a kernel that did not change in float32
FIRST_LOSSES = 5  # steps for the share of the penalty


@dataclass(frozen=True)
class TrainingDynamics:
    """The course of a training; NaN or None where it was not recorded.

    Attributes:
        steps: of the optimizer, in complete epochs; None: unknown.
        first_val_loss: before training.
        last_val_loss: of the epoch whose weights were measured.
        reported_loss: the loss that the training reported for held-out images.
        recomputed_loss: the same loss by its definition.
        diverged_at: the step whose loss or gradient was not finite, or None.
        early_update: median of `update_ratio` over kernels and the first eight steps. Healthy with Adam:
            -2.1 to -1.8 at 0.001, -1.3 at 0.01.
        early_peak: median over kernels of the largest of the first eight: one step that is too large
            shows here, even if no gradient is left afterwards.
        last_update: median over kernels at the first step of the last epoch.
        penalty_share: penalty over the whole loss in the first five steps. Later, the weights it fell on
            are gone. NaN where it cannot be known.
        penalty_pull: norm of the gradient of the penalties over that of the data loss, median of the
            first eight steps, for the kernel where it is largest. 0 without penalties.
        slope: share of the whole fall of the loss in its last quarter.
        gradient_ratio: mean gradient norm of the first kernel over that of the last, in the last epoch.
    """

    steps: int | None
    first_val_loss: float
    last_val_loss: float
    reported_loss: float
    recomputed_loss: float
    diverged_at: int | None
    early_update: float
    early_peak: float
    last_update: float
    penalty_share: float
    slope: float
    gradient_ratio: float
    penalty_pull: float = float("nan")


def update_ratio(before: Array, after: Array) -> float:
    """Size of a step relative to the kernel: log10(mean |after - before| / mean |before|).

    Healthy: -3 (Karpathy's rule of thumb) to -1.8. At -1.2 a step changes a fifteenth of every weight.
    At least -12, which also stands for a kernel that did not change. Kernels have any shape.
    """
    size = float(np.abs(before).mean())
    moved = float(np.abs(after - before).mean())
    if not size:
        return 0.0 if moved else float(np.log10(SMALLEST_RATIO))
    return float(np.log10(max(moved / size, SMALLEST_RATIO)))


def dynamics(
    arrays: Mapping[str, NDArray[Any]],
    *,
    steps: int | None,
    first_val_loss: float,
    last_val_loss: float,
    diverged_at: int | None,
    reported_loss: float = float("nan"),
    recomputed_loss: float = float("nan"),
) -> TrainingDynamics:
    """Summarises the ``dynamics/...`` arrays of `training.recorder`; for the rest see the class."""
    empty = np.zeros((0, 0), np.float32)
    gradients = arrays.get("dynamics/gradients", empty)
    updates = arrays.get("dynamics/updates", empty)
    early = arrays.get("dynamics/early_updates", empty)
    return TrainingDynamics(
        steps=steps,
        first_val_loss=first_val_loss,
        last_val_loss=last_val_loss,
        reported_loss=reported_loss,
        recomputed_loss=recomputed_loss,
        diverged_at=diverged_at,
        early_update=_median(early),
        early_peak=_median(early.max(axis=0)) if early.size else float("nan"),
        last_update=_median(updates[-1:]),
        penalty_share=penalty_share(arrays.get("dynamics/early_losses", np.zeros((0, 2)))),
        slope=slope(arrays.get("dynamics/losses", np.zeros(0))),
        gradient_ratio=_first_over_last(gradients[-1]) if gradients.size else float("nan"),
        penalty_pull=_strongest(arrays.get("dynamics/early_pulls", empty)),
    )


def penalty_share(losses: NDArray[Any]) -> float:
    """Penalty over the whole loss in the first steps, 0 to 1, from (s, 2) data losses and penalties."""
    data, penalty = losses[:FIRST_LOSSES].sum(axis=0, dtype=np.float64) if len(losses) else (0, 0)
    whole = abs(data) + penalty
    return float(penalty / whole) if whole else float("nan")


def slope(losses: NDArray[Any]) -> float:
    """Fall of the losses (s,) from their third to their fourth quarter, as a share of the whole fall.

    The whole fall runs from the first of 64 parts to the last quarter, so losses with and without a
    floor are comparable. About 0.01 in healthy runs of 1,024 steps, 0.02 to 0.03 after 200, 0.29 for a
    straight line; NaN for fewer than eight losses, or if they did not fall.
    """
    quarter = len(losses) // 4
    if quarter < 2:
        return float("nan")
    first = float(losses[: max(1, len(losses) // 64)].mean(dtype=np.float64))
    third = float(losses[2 * quarter : 3 * quarter].mean(dtype=np.float64))
    fourth = float(losses[3 * quarter :].mean(dtype=np.float64))
    return (third - fourth) / (first - fourth) if first > fourth else float("nan")


def _median(values: NDArray[Any]) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _strongest(pulls: NDArray[Any]) -> float:
    """Largest median over the steps (s, m), of kernels where it is known."""
    medians = np.median(pulls, axis=0) if pulls.size else np.zeros(0)
    return float(max(medians[~np.isnan(medians)], default=float("nan")))


def _first_over_last(norms: NDArray[Any]) -> float:
    return float(norms[0] / norms[-1]) if norms[-1] > 0 else float("nan")
