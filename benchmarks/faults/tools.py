"""What simpler tools would report for the same runs, from the same files.

Each tool is reimplemented as a set of checks with its published thresholds. Tools for classifiers use
accuracy; the explained variance of validation images, which is also 1 at best and 0 for a constant
output, replaces it. A tool names a symptom, not a cause. It counts as right if the fault can cause the
symptom: the most generous interpretation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.faults.scoring import Rate, ShortScores, Verdict, rate
from benchmarks.faults.trainings import Diagnosed
from cae_cli.errors import UserError
from cae_cli.runs.folder import Run

Series = NDArray[np.float64]
Symptoms = tuple[str, ...]  # of a run, the one that is named first at the beginning

NO_LEARNING = (
    "CAE101", "CAE102", "CAE201", "CAE202", "CAE203", "CAE205", "CAE206", "CAE207", "CAE208", "CAE209",
    "CAE210", "CAE211", "CAE301", "CAE302", "CAE601", "CAE602", "CAE603", "CAE605",
)  # fmt: skip
# Codes that each symptom may be caused by.
SYMPTOMS: dict[str, tuple[str, ...]] = {
    "loss does not fall": NO_LEARNING,
    "slow convergence": NO_LEARNING,
    "not finite": ("CAE201", "CAE207", "CAE102"),
    "exploding gradient": ("CAE201", "CAE207", "CAE102"),
    "vanishing gradient": (
        "CAE203", "CAE205", "CAE206", "CAE208", "CAE209", "CAE301", "CAE605", "CAE202",
    ),
    "dead filters": ("CAE205", "CAE206", "CAE207", "CAE401", "CAE301"),
    "oscillating loss": ("CAE207", "CAE201", "CAE210"),
    "overfitting": ("CAE501", "CAE106", "CAE210"),
    "weights do not change": ("CAE208", "CAE209", "CAE205", "CAE203"),
    "weights change too much": ("CAE207", "CAE201", "CAE102"),
    "learning rate out of range": ("CAE207", "CAE208", "CAE201"),
    "input out of range": ("CAE102",),
    "missing activation": ("CAE602", "CAE603", "CAE604"),
}  # fmt: skip


@dataclass(frozen=True)
class Signals:
    """The data of a run that tools use; NaN and empty arrays where nothing was recorded.

    Attributes:
        train_loss: (e,) mean data loss of the training images per epoch.
        val_loss: (e + 1,) loss of the validation images, first before training.
        val_mse: (e + 1,) their squared error.
        variance: their mean squared distance from the mean image.
        gradients: (e, m) mean gradient norm of each kernel per epoch.
        updates: (e, m) log10 of the step size relative to the kernel, at the start of each epoch.
        inactive: largest share of inactive maps of a hidden layer, 0 to 1.
        input_range: smallest and largest input value.
        diverged: the training ended with a loss or gradient that is not finite.
        config: of the run.
    """

    train_loss: Series
    val_loss: Series
    val_mse: Series
    variance: float
    gradients: NDArray[np.float32]
    updates: NDArray[np.float32]
    inactive: float
    input_range: tuple[float, float]
    diverged: bool
    config: Mapping[str, Any]

    @property
    def is_finite(self) -> bool:
        """Whether every loss is a number."""
        return not self.diverged and bool(
            np.isfinite(self.train_loss).all() and np.isfinite(self.val_loss).all()
        )

    @property
    def accuracy(self) -> Series:
        """(e,) explained variance of validation images after each epoch, at least 0."""
        with np.errstate(all="ignore"):
            share = 1 - self.val_mse[1:] / self.variance
        return np.asarray(np.clip(np.nan_to_num(share, nan=0.0, neginf=0.0), 0, 1))


@dataclass(frozen=True)
class Tool:
    """A simpler tool.

    Attributes:
        name: of the tool.
        doc: its thresholds, their source, and what was adapted.
        check: signals -> symptoms, the one that it would name first at the beginning.
    """

    name: str
    doc: str
    check: Callable[[Signals], list[str]]


def _nothing(_: Signals) -> list[str]:
    return []


def _validation_loss(signals: Signals) -> list[str]:
    if not signals.is_finite:
        return ["not finite"]
    first, last, best = signals.val_loss[0], signals.val_loss[-1], float(np.min(signals.val_loss))
    if last >= first:
        return ["loss does not fall"]
    return ["overfitting"] if len(signals.val_loss) > 2 and last > 1.05 * best else []


# Parameters of AUTOTRAINER, named as in its code.
BETA_1, BETA_2, BETA_3, GAMMA, ZETA, ETA, DELTA, THETA = 1e-3, 1e-4, 70.0, 0.7, 0.03, 0.2, 0.01, 0.7


def _autotrainer(signals: Signals) -> list[str]:
    if not signals.is_finite or signals.val_loss[-1] >= 1e5:
        return ["exploding gradient"]
    accuracy = signals.accuracy
    rises = float(np.max(np.diff(accuracy), initial=0.0))
    if accuracy.max(initial=0.0) < THETA or rises < DELTA:
        if signals.inactive >= GAMMA:
            return ["dead filters"]
        first, last = signals.gradients[-1][[0, -1]] if signals.gradients.size else (math.nan, math.nan)
        ratio = first / last if last > 0 else math.nan
        if ratio > BETA_3:
            return ["exploding gradient"]
        if ratio < BETA_1 and first < BETA_2:
            return ["vanishing gradient"]
        return ["slow convergence"] if rises < DELTA else []
    return ["oscillating loss"] if _oscillates(accuracy) else []


def _oscillates(accuracy: Series) -> bool:
    """Whether pairs of a local maximum and a minimum lie ZETA apart in a share ETA of the epochs."""
    inner, before, after = accuracy[1:-1], accuracy[:-2], accuracy[2:]
    highs = inner[(inner >= before) & (inner >= after)]
    lows = inner[(inner <= before) & (inner <= after)]
    apart = sum(high - low >= ZETA for high, low in zip(highs, lows, strict=False))
    return bool(apart and apart >= ETA * len(accuracy))


def _debugger(signals: Signals) -> list[str]:
    symptoms = []
    if not signals.is_finite or not np.isfinite(signals.gradients).all():
        symptoms.append("not finite")
    if signals.gradients.size and float(np.nanmin(signals.gradients[-1])) < 1e-7:
        symptoms.append("vanishing gradient")
    if signals.inactive > 0.5:
        symptoms.append("dead filters")
    if signals.updates.size and float(np.nanmin(signals.updates[-1])) < -8:
        symptoms.append("weights do not change")
    if signals.updates.size and float(np.nanmax(signals.updates)) > 1:
        symptoms.append("weights change too much")
    losses = signals.train_loss[np.isfinite(signals.train_loss)]
    # The loss must fall by at least 0.1 % from one epoch to the next.
    if len(losses) > 1 and float(np.max((losses[:-1] - losses[1:]) / np.abs(losses[:-1]))) < 1e-3:
        symptoms.append("loss does not fall")
    with np.errstate(all="ignore"):
        gaps = (signals.val_loss[1:] - signals.train_loss) / signals.train_loss
    if (gaps > 0.1).sum() > 1:
        symptoms.append("overfitting")
    return symptoms


def _umlaut(signals: Signals) -> list[str]:
    symptoms = []
    rate_ = float((signals.config.get("optimizer") or {}).get("learning_rate") or math.nan)
    low, high = signals.input_range
    if low < -1 or high > 1:
        symptoms.append("input out of range")
    if rate_ > 1e-2 or rate_ < 1e-7:
        symptoms.append("learning rate out of range")
    if not signals.is_finite:
        symptoms.append("not finite")
    if (signals.config.get("model") or {}).get("activation") in ("linear", None):
        symptoms.append("missing activation")
    # In at least half of the epochs: a single one would be an alarm for every noisy run.
    train, val = np.diff(signals.train_loss), np.diff(signals.val_loss[1:])
    if len(val) and ((val > 0) & (train <= 0)).mean() >= 0.5:
        symptoms.append("overfitting")
    return symptoms


TOOLS = (
    Tool("always healthy", "reports no symptom for any run", _nothing),
    Tool(
        "validation loss",
        "the loss is not finite, never falls below its initial value, or ends 5 % above its minimum",
        _validation_loss,
    ),
    Tool(
        "AUTOTRAINER",
        "Zhang et al., AUTOTRAINER: An Automatic DNN Training Problem Detection and Repair System, ICSE "
        "2021, with the defaults of its code: gradient of the first kernel over that of the last below "
        "1e-3 with the first below 1e-4 (vanishing) or above 70 (exploding), 70 % inactive (dead ReLU), "
        "accuracy never above 0.7 or never rising by 0.01 (slow convergence), swings of 0.03 in a fifth "
        "of the epochs (oscillating). Adapted: explained variance for accuracy; mean gradient norms of "
        "the last epoch for those of one batch; inactive maps for zeros in the gradient",
        _autotrainer,
    ),
    Tool(
        "SageMaker Debugger",
        "built-in rules with their documented defaults: ExplodingTensor (not finite), VanishingGradient "
        "(below 1e-7), DeadRelu (half of a layer), WeightUpdateRatio (below 1e-8 or above 10), "
        "LossNotDecreasing (less than 0.1 %), Overfit (validation loss 10 % above the training loss, "
        "more than once). Adapted: checks once per epoch, not every 500 steps; a loss that does not "
        "fall counts only if it never falls, else every noisy run would be an alarm; inactive maps for "
        "inactive ReLUs",
        _debugger,
    ),
    Tool(
        "UMLAUT",
        "Schoop, Huang and Hartmann, UMLAUT: Debugging Deep Learning Programs using Program Structure "
        "and Model Behavior, CHI 2021, with the thresholds of its code: inputs beyond -1 to 1, learning "
        "rate beyond 1e-7 to 1e-2, losses that are not finite, hidden layers without an activation, "
        "validation loss up while the training loss is down. Left out: softmax before cross-entropy and "
        "high accuracy, which concern classifiers. Adapted: overfitting counts from half of the epochs",
        _umlaut,
    ),
)


def signals(run: Run, config: Mapping[str, Any]) -> Signals:
    """The signals in the files of a finished run.

    Args:
        run: the run.
        config: of the run.

    Raises:
        UserError: the files cannot be read.
    """
    metrics = run.read_metrics()
    arrays = run.read_arrays(run.arrays, _Wanted())
    spreads = [spread for name, spread in arrays.items() if name.startswith("map_std/")]
    empty = np.zeros((0, 0), np.float32)
    return Signals(
        train_loss=metrics["train/data_loss"][1:],
        val_loss=metrics["val/loss"],
        val_mse=metrics["val/mse"],
        variance=float(np.mean(arrays["mean_mse"], dtype=np.float64)),
        gradients=arrays.get("dynamics/gradients", empty),
        updates=arrays.get("dynamics/updates", empty),
        # A map that is the same at every pixel of every image: a ReLU that never opens.
        inactive=max((float((std < 1e-5).mean()) for std in spreads[:-1] or spreads), default=0.0),
        input_range=(
            float(arrays.get("batches/input_low", np.array(0.0))),
            float(arrays.get("batches/input_high", np.array(1.0))),
        ),
        diverged=run.training()["diverged_at"] is not None,
        config=config,
    )


class _Wanted:
    """Names of the arrays that tools use."""

    def __contains__(self, name: object) -> bool:
        return str(name).startswith(("map_std/", "dynamics/", "batches/")) or name == "mean_mse"


def symptoms(diagnosed: Sequence[Diagnosed]) -> dict[str, tuple[Symptoms, ...]]:
    """What each tool reports for each run, by its name; () for a run that was never trained."""
    of_runs = [_signals(one) for one in diagnosed]
    return {
        tool.name: tuple(tuple(tool.check(shown)) if shown else () for shown in of_runs)
        for tool in TOOLS
    }


def _signals(one: Diagnosed) -> Signals | None:
    if one.result.metrics is None:
        return None
    try:
        return signals(one.result.run, one.config)
    except (UserError, KeyError, IndexError):
        return None


def scores(verdicts: Sequence[Verdict], symptoms: Sequence[Symptoms]) -> ShortScores:
    """Compares the symptoms that a tool reports with what the cases expect."""
    pairs = list(zip(verdicts, symptoms, strict=True))

    def alarms(expect: str) -> Rate:
        return rate(bool(own) for v, own in pairs if v.expect == expect)

    return ShortScores(
        right=rate(
            bool(own and set(SYMPTOMS[own[0]]) & set(v.causes))
            for v, own in pairs
            if v.expect == "faulty"
        ),
        found=alarms("faulty"),
        healthy_alarms=alarms("healthy"),
        borderline_alarms=alarms("borderline"),
    )
