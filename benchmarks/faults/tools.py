"""What simpler tools would say of the same patients, from the same files.

Each tool is a set of checks of our own after its published thresholds. Tools for classifiers look at
accuracy; explained variance of validation images, also 1 at best and 0 for a constant answer, takes its
place. A tool names a symptom and not a cause. It is right where its symptom is one that the fault can
have: the widest reading, so that no tool looks worse than it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.faults.scoring import Judged, Rate, rate
from benchmarks.faults.trainings import Looked
from cae_cli.errors import UserError
from cae_cli.runs.folder import Run

Series = NDArray[np.float64]

NO_LEARNING = (
    "CAE101", "CAE102", "CAE201", "CAE202", "CAE203", "CAE205", "CAE206", "CAE207", "CAE208", "CAE209",
    "CAE210", "CAE211", "CAE301", "CAE302", "CAE601", "CAE602", "CAE603", "CAE605",
)  # fmt: skip
# What each symptom may come from.
SYMPTOMS: dict[str, tuple[str, ...]] = {
    "loss does not fall": NO_LEARNING,
    "slow convergence": NO_LEARNING,
    "not finite": ("CAE201", "CAE207", "CAE102"),
    "exploding gradient": ("CAE201", "CAE207", "CAE102"),
    "vanishing gradient": (
        "CAE203",
        "CAE205",
        "CAE206",
        "CAE208",
        "CAE209",
        "CAE301",
        "CAE605",
        "CAE202",
    ),
    "dead filters": ("CAE205", "CAE206", "CAE207", "CAE401", "CAE301"),
    "oscillating loss": ("CAE207", "CAE201", "CAE210"),
    "overfitting": ("CAE501", "CAE106", "CAE210"),
    "weights do not change": ("CAE208", "CAE209", "CAE205", "CAE203"),
    "weights change too much": ("CAE207", "CAE201", "CAE102"),
    "learning rate out of range": ("CAE207", "CAE208", "CAE201"),
    "input out of range": ("CAE102",),
    "missing activation": ("CAE602", "CAE603", "CAE604"),
}


@dataclass(frozen=True)
class Guess:
    """What a tool says of a patient.

    Attributes:
        symptoms: that it finds, first first; () where it finds nothing.
    """

    symptoms: tuple[str, ...]

    @property
    def codes(self) -> tuple[str, ...]:
        """What the first symptom may come from."""
        return SYMPTOMS[self.symptoms[0]] if self.symptoms else ()


@dataclass(frozen=True)
class Signals:
    """What a tool can see of a run; NaN and empty arrays where nothing was written down.

    Attributes:
        train_loss: (e,) data loss of the training images in each epoch.
        val_loss: (e + 1,) loss of the validation images, before training first.
        val_mse: (e + 1,) their squared error.
        variance: their squared distance from the mean image.
        gradients: (e, m) mean gradient norm of each kernel in each epoch.
        updates: (e, m) log10 of the size of a step over that of its kernel, at each epoch's beginning.
        dead: largest share of dead maps of a hidden layer.
        input_range: smallest and largest value that was fed.
        diverged: the training ended at a loss or a gradient that is not finite.
        config: of the run.
    """

    train_loss: Series
    val_loss: Series
    val_mse: Series
    variance: float
    gradients: NDArray[np.float32]
    updates: NDArray[np.float32]
    dead: float
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
        name: of it.
        doc: which thresholds it has and where they come from, and what was adapted.
        look: signals -> symptoms, the one that it would name first first.
    """

    name: str
    doc: str
    look: Callable[[Signals], list[str]]


def _nothing(_: Signals) -> list[str]:
    return []


def _validation_loss(seen: Signals) -> list[str]:
    if not seen.is_finite:
        return ["not finite"]
    first, last, best = seen.val_loss[0], seen.val_loss[-1], float(np.min(seen.val_loss))
    if last >= first:
        return ["loss does not fall"]
    return ["overfitting"] if len(seen.val_loss) > 2 and last > 1.05 * best else []


# AUTOTRAINER: names of its parameters as in its code.
BETA_1, BETA_2, BETA_3, GAMMA, ZETA, ETA, DELTA, THETA = 1e-3, 1e-4, 70.0, 0.7, 0.03, 0.2, 0.01, 0.7


def _autotrainer(seen: Signals) -> list[str]:
    if not seen.is_finite or seen.val_loss[-1] >= 1e5:
        return ["exploding gradient"]
    accuracy = seen.accuracy
    rises = float(np.max(np.diff(accuracy), initial=0.0))
    if accuracy.max(initial=0.0) < THETA or rises < DELTA:
        if seen.dead >= GAMMA:
            return ["dead filters"]
        first, last = seen.gradients[-1][[0, -1]] if seen.gradients.size else (math.nan, math.nan)
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


def _debugger(seen: Signals) -> list[str]:
    found = []
    if not seen.is_finite or not np.isfinite(seen.gradients).all():
        found.append("not finite")
    if seen.gradients.size and float(np.nanmin(seen.gradients[-1])) < 1e-7:
        found.append("vanishing gradient")
    if seen.dead > 0.5:
        found.append("dead filters")
    if seen.updates.size and float(np.nanmin(seen.updates[-1])) < -8:
        found.append("weights do not change")
    if seen.updates.size and float(np.nanmax(seen.updates)) > 1:
        found.append("weights change too much")
    losses = seen.train_loss[np.isfinite(seen.train_loss)]
    # A fall of .1 per cent at least, between looks that lie an epoch apart.
    if len(losses) > 1 and float(np.max((losses[:-1] - losses[1:]) / np.abs(losses[:-1]))) < 1e-3:
        found.append("loss does not fall")
    with np.errstate(all="ignore"):
        gaps = (seen.val_loss[1:] - seen.train_loss) / seen.train_loss
    if (gaps > 0.1).sum() > 1:
        found.append("overfitting")
    return found


def _umlaut(seen: Signals) -> list[str]:
    found = []
    rate_ = float((seen.config.get("optimizer") or {}).get("learning_rate") or math.nan)
    low, high = seen.input_range
    if low < -1 or high > 1:
        found.append("input out of range")
    if rate_ > 1e-2 or rate_ < 1e-7:
        found.append("learning rate out of range")
    if not seen.is_finite:
        found.append("not finite")
    if (seen.config.get("model") or {}).get("activation") in ("linear", None):
        found.append("missing activation")
    # Said of every epoch at which it is so; of one alone it would be said of every noisy run.
    train, val = np.diff(seen.train_loss), np.diff(seen.val_loss[1:])
    if len(val) and ((val > 0) & (train <= 0)).mean() >= 0.5:
        found.append("overfitting")
    return found


TOOLS = (
    Tool("always healthy", "says of every run that it is well", _nothing),
    Tool(
        "validation loss",
        "what is read off the curve: it is not finite, never falls below its beginning, or ends 5 % "
        "above its best",
        _validation_loss,
    ),
    Tool(
        "AUTOTRAINER",
        "Zhang et al., AUTOTRAINER: An Automatic DNN Training Problem Detection and Repair System, ICSE "
        "2021, with the defaults of its code: gradient of the first kernel over that of the last below "
        "1e-3 with the first below 1e-4 (vanishing) or above 70 (exploding), 70 % dead (dying ReLU), "
        "accuracy never above .7 or never rising by .01 (slow convergence), swings of .03 in a fifth of "
        "the epochs (oscillating). Adapted: explained variance for accuracy; mean gradient norms of the "
        "last epoch for those of one batch; dead maps for zeros in the gradient",
        _autotrainer,
    ),
    Tool(
        "SageMaker Debugger",
        "built-in rules with their documented defaults: ExplodingTensor (not finite), VanishingGradient "
        "(below 1e-7), DeadRelu (half of a layer), WeightUpdateRatio (below 1e-8 or above 10), "
        "LossNotDecreasing (less than .1 %), Overfit (validation loss 10 % above the training loss, "
        "more than once). Adapted: looks at the ends of epochs, not every 500 steps; a loss that does "
        "not fall counts only if it never does, else every noisy run would have it; dead maps for "
        "inactive ReLUs",
        _debugger,
    ),
    Tool(
        "UMLAUT",
        "Schoop, Huang and Hartmann, UMLAUT: Debugging Deep Learning Programs using Program Structure "
        "and Model Behavior, CHI 2021, with the thresholds of its code: inputs beyond -1 to 1, learning "
        "rate beyond 1e-7 to 1e-2, losses that are not finite, hidden layers without an activation, "
        "validation loss up while the training loss is down. Left out: softmax before cross-entropy and "
        "high accuracy, which are of classifiers. Adapted: overfitting counts from half the epochs on",
        _umlaut,
    ),
)  # fmt: skip


def signals(run: Run, config: Mapping[str, Any]) -> Signals:
    """What the files of a run show.

    Args:
        run: that was trained.
        config: of it.

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
        # A map that is the same everywhere, for every image: a ReLU that never opens.
        dead=max((float((std < 1e-5).mean()) for std in spreads[:-1] or spreads), default=0.0),
        input_range=(
            float(arrays.get("batches/input_low", np.array(0.0))),
            float(arrays.get("batches/input_high", np.array(1.0))),
        ),
        diverged=run.training()["diverged_at"] is not None,
        config=config,
    )


class _Wanted:
    """The arrays that tools look at."""

    def __contains__(self, name: object) -> bool:
        return str(name).startswith(("map_std/", "dynamics/", "batches/")) or name == "mean_mse"


def all_guesses(looked: Sequence[Looked]) -> dict[str, tuple[Guess, ...]]:
    """What each tool says of each patient, by the tool's name; of what was never trained, nothing."""
    seen = [_seen(one) for one in looked]
    return {
        tool.name: tuple(Guess(()) if one is None else Guess(tuple(tool.look(one))) for one in seen)
        for tool in TOOLS
    }


def _seen(one: Looked) -> Signals | None:
    if one.result.metrics is None:
        return None
    try:
        return signals(one.result.run, one.config)
    except (UserError, KeyError, IndexError):
        return None


@dataclass(frozen=True)
class Figures:
    """How well a tool does.

    Attributes:
        right: sick ones whose fault can have the symptom that is named first.
        found: sick ones where anything is named.
        false_alarms: healthy ones where anything is.
        border_alarms: ones at the border where anything is.
    """

    right: Rate
    found: Rate
    false_alarms: Rate
    border_alarms: Rate


def figures(patients: Sequence[Judged], guesses: Sequence[Guess]) -> Figures:
    """Compares a tool's guesses with what is known."""
    pairs = list(zip(patients, guesses, strict=True))

    def of(expect: str) -> list[tuple[Judged, Guess]]:
        return [(p, g) for p, g in pairs if p.expect == expect]

    return Figures(
        right=rate(bool(set(g.codes) & set(p.causes)) for p, g in of("sick")),
        found=rate(bool(g.symptoms) for _, g in of("sick")),
        false_alarms=rate(bool(g.symptoms) for _, g in of("healthy")),
        border_alarms=rate(bool(g.symptoms) for _, g in of("border")),
    )
