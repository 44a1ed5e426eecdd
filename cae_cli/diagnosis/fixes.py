"""The catalogue of fixes that several rules propose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cae_cli.diagnosis.case import Case
from cae_cli.diagnosis.finding import Fix, Safety


def adding(case: Case, regularizer: str) -> str:
    """The override that adds a regularizer to those the run had."""
    names = [*(case.option("regularization") or {})]
    names += [regularizer] if regularizer not in names else []
    return _regularization(names)


def without(case: Case, regularizers: Iterable[str]) -> str:
    """The override that leaves out some of the regularizers that the run had."""
    left_out = set(regularizers)
    return _regularization([n for n in case.option("regularization") or {} if n not in left_out])


def slower(case: Case) -> Fix:
    """A tenth of the learning rate, or a usual one where that is still far too large."""
    rate = float(case.option("optimizer.learning_rate") or 0)
    if rate > 10 * case.usual_rate or not rate:
        return Fix(
            (f"optimizer.learning_rate={case.usual_rate:g}",), "a usual size of step", Safety.SAFE
        )
    return Fix((f"optimizer.learning_rate={rate / 10:g}",), "a tenth of the step", Safety.SAFE)


def faster(case: Case) -> Fix:
    """Ten times the learning rate, or a usual one where that is still far too small."""
    rate = float(case.option("optimizer.learning_rate") or 0)
    if rate < case.usual_rate / 10:
        return Fix(
            (f"optimizer.learning_rate={case.usual_rate:g}",), "a usual size of step", Safety.SAFE
        )
    return Fix((f"optimizer.learning_rate={10 * rate:g}",), "ten times the step", Safety.SAFE)


def longer(case: Case) -> Fix:
    """Three times the epochs."""
    epochs, steps = case.option("training.epochs"), case.option("training.steps")
    overrides = [f"training.epochs={3 * int(epochs or 1)}"]
    if steps:
        overrides.append(f"training.steps={3 * int(steps)}")
    return Fix(tuple(overrides), "train longer", Safety.SLOW)


def reviving(case: Case) -> list[Fix]:
    """What brings dead filters back."""
    why = "no filter can stay below zero"
    ways = [Fix((adding(case, "batchnorm"),), why, Safety.SAFE)]
    if case.network.hidden_activation == "relu":
        why = "a gradient below zero"
        ways.append(Fix(("model.activation=leaky_relu",), why, Safety.SAFE))
    return ways


def even_overlap(case: Case) -> list[Fix]:
    """What keeps transposed convolutions from overlapping unevenly."""
    kernel = int(case.option("model.sampling_kernel") or 3)
    ways = [Fix(("model.upsampling=nearest",), "no overlap at all", Safety.SAFE)]
    if kernel % 2:
        even = (f"model.sampling_kernel={kernel + 1}",)
        ways.insert(0, Fix(even, "an even overlap", Safety.SAFE))
    return ways


def deeper(case: Case) -> list[Fix]:
    """A stage more, where the stages are known."""
    filters = list(case.option("model.filters") or [])
    if not filters:
        return []
    more = ",".join(map(str, [*filters, filters[-1]]))
    return [Fix((f"model.filters=[{more}]",), "a stage more", Safety.TRADE)]


def tighter(case: Case) -> list[Fix]:
    """A code of half the image's values, if that is less than there are."""
    channels = case.network.latent_shape[-1]
    positions = case.network.latent_values / max(1, channels)
    fitting = max(1, int(case.network.image_values / (2 * positions)))
    if fitting >= channels:
        return []
    return [Fix((f"model.latent_channels={fitting}",), "a bottleneck", Safety.TRADE)]


def _regularization(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"regularization={names[0]}"
    return f"regularization=[{','.join(names)}]" if names else "regularization=none"
