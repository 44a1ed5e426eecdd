"""Random changes of the same kind as a fix: what a fix has to be better than.

A run that is trained again may come out better by chance, or because any other change would have
helped as well. So each fix is compared with a random change of as many options.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from cae_cli import experiment
from cae_cli.config import compose
from cae_cli.config.schema import GROUPS, SEVERAL, Config
from cae_cli.diagnosis.finding import Fix, Safety
from cae_cli.errors import UserError
from cae_cli.options import Range, key_of

# Groups that may change. Duration, number of images and seed stay: a random control has the budget of
# the run.
CHANGED = ("model", "loss", "regularization", "augmentation", "optimizer", "schedule")
DATA_KEYS = ("scale", "noise")

# What random search changes: an option of every group, and some values.
ANYTHING = (*(f"{group}=" for group in CHANGED), *(3 * ("a.value=",)))

FACTOR = 100.0  # a number without bounds changes by at most this factor
# Whole numbers are sizes of networks and windows, whose cost grows faster than linearly.
WHOLE_FACTOR = 4.0
FROM_ZERO = (1e-4, 1.0)  # the range of a number that was 0 or null
WHOLE_FROM_ZERO = (1.0, 16.0)
MAX_DRAWS = 200


@dataclass(frozen=True)
class _Option:
    """An option that may change: its key, type, range and current value."""

    key: str
    type: Any
    range: Range
    value: Any


@dataclass(frozen=True)
class RandomControl:
    """Draws random changes.

    Attributes:
        seed: a change is a pure function of the seed, the step and the run that is changed.
    """

    seed: int

    def draw(
        self,
        fix: Sequence[str],
        overrides: Sequence[str],
        step: int,
        checked: Callable[[Sequence[str]], Config],
        known: Sequence[Config] = (),
    ) -> tuple[str, ...] | None:
        """A random change of as many options as a fix changes, and of the same kinds.

        A choice of an option (``loss=bce``) is matched by another choice, a value
        (``optimizer.learning_rate=0.1``) by another value. All keys of a kind are equally likely.

        Args:
            fix: its overrides; `ANYTHING` for a draw from the whole space of options.
            overrides: of the run that is changed.
            step: number of the step, from 1; each step has its own draw.
            checked: composes a config from overrides and checks it.
            known: configs that were tried, and are not drawn again.

        Returns:
            Overrides; None if no fitting change was found.
        """
        rng = np.random.default_rng((self.seed, step))
        now = checked(overrides)
        choices, options = _choices(), _options(now)
        for _ in range(MAX_DRAWS):
            keys: set[str] = set()
            drawn: list[str] = []
            for override in fix:
                is_choice = key_of(override) in GROUPS
                if is_choice:
                    group = str(rng.choice([g for g in choices if g not in keys]))
                    keys.add(group)
                    drawn.append(f"{group}={_another(group, choices[group], now, rng)}")
                else:
                    left = [option for option in options if option.key not in keys]
                    option = left[rng.integers(len(left))]
                    keys.add(option.key)
                    drawn.append(f"{option.key}={_text(_value(option, rng))}")
            try:
                changed = checked(with_changes(overrides, drawn))
                experiment.check_early(changed)
            except UserError:
                continue  # options that do not fit together
            if changed != now and changed not in known:
                return tuple(drawn)
        return None


def with_changes(overrides: Sequence[str], changes: Sequence[str]) -> tuple[str, ...]:
    """The overrides of a run with changes; those that the changes replace are left out."""
    return tuple(Fix(tuple(changes), "", Safety.SAFE).applied(overrides))


def _choices() -> dict[str, list[str]]:
    """The options of each group that may change."""
    sources = compose.Sources()
    return {group: sorted(sources.options(group)) for group in CHANGED}


def _another(group: str, names: Sequence[str], now: Config, rng: np.random.Generator) -> str:
    """Another option of a group; a group of several gains or loses one."""
    if group not in SEVERAL:
        return str(rng.choice(names))  # the current one is rejected later, and drawn again
    had = list(getattr(now, group))
    name = str(rng.choice(names))
    if name not in SEVERAL[group]:  # none
        return name
    left = [one for one in had if one != name] if name in had else [*had, name]
    return f"[{','.join(left)}]" if left else "none"


def _options(now: Config) -> list[_Option]:
    """The options that may change, with their current values."""
    parts = [(group, getattr(now, group)) for group in CHANGED if group not in SEVERAL]
    for group in SEVERAL:
        parts += [(f"{group}.{name}", part) for name, part in getattr(now, group).items()]
    found = []
    for path, part in [*parts, ("data", now.data)]:
        hints = typing.get_type_hints(type(part))
        for field in fields(part):
            if path == "data" and field.name not in DATA_KEYS:
                continue
            if _has_no_effect(f"{path}.{field.name}", now):
                continue
            limits: Range = field.metadata["range"]
            if hints[field.name] is str and not limits.choices:
                continue  # free text
            value = getattr(part, field.name)
            found.append(_Option(f"{path}.{field.name}", _inner(hints[field.name]), limits, value))
    return found


def _has_no_effect(key: str, now: Config) -> bool:
    """Whether an option has no effect in this config, which would make the control too weak."""
    if key == "augmentation.target":
        a = now.augmentation
        return not (a.rotation or a.shift or a.zoom or a.flip)
    if key == "model.sampling_kernel":
        return now.model.downsampling != "strided" and now.model.upsampling != "transposed"
    return key == "optimizer.nesterov" and not getattr(now.optimizer, "momentum", 0)


def _inner(hint: Any) -> Any:
    """A type without None."""
    arguments = [a for a in typing.get_args(hint) if a is not type(None)]
    return hint if typing.get_origin(hint) is list or not arguments else arguments[0]


def _value(option: _Option, rng: np.random.Generator) -> Any:
    """A random value of an option."""
    limits = option.range
    if limits.choices:
        others = [choice for choice in limits.choices if choice != option.value]
        return others[rng.integers(len(others))]
    if option.type is bool:
        return not option.value
    if typing.get_origin(option.type) is list:
        least = int(limits.least or 0)
        powers = rng.integers(-2, 3, size=len(option.value))
        return [max(least, round(n * 2.0**p)) for n, p in zip(option.value, powers, strict=True)]
    low, high = _bounds(limits)
    is_whole = option.type is int
    if math.isfinite(low) and math.isfinite(high):
        drawn = float(rng.uniform(low, high))
    elif option.value:
        factor = WHOLE_FACTOR if is_whole else FACTOR
        drawn = _log_uniform(option.value / factor, option.value * factor, rng)
    else:
        drawn = _log_uniform(*(WHOLE_FROM_ZERO if is_whole else FROM_ZERO), rng)
    drawn = min(max(drawn, low), high)
    if not is_whole:
        return float(f"{drawn:.3g}")
    whole = round(drawn)
    return whole + 1 if limits.odd and whole % 2 == 0 else whole


def _bounds(limits: Range) -> tuple[float, float]:
    """The bounds of a number, open or closed."""
    lows = [end for end in (limits.least, limits.above) if end is not None]
    highs = [end for end in (limits.most, limits.below) if end is not None]
    return max(lows, default=-math.inf), min(highs, default=math.inf)


def _log_uniform(low: float, high: float, rng: np.random.Generator) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def _text(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
