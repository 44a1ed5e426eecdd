"""Random changes of the same kind as a fix: what a treatment has to be better than.

Whatever is trained again may come out better: by chance, or because anything else would have helped
too. So beside a fix stands a change of as many options that nobody thought about.
"""

from __future__ import annotations

import math
import shlex
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

# What may be changed. Not how long is trained, nor the number of images, nor a seed: a random control has the
# budget of the run.
CHANGED = ("model", "loss", "regularization", "augmentation", "optimizer", "schedule")
OF_DATA = ("scale", "noise")

FACTOR = 100.0  # a number without ends moves within this factor of what it was
# Whole numbers are sizes of networks and windows, whose cost grows with them faster than they do.
WHOLE_FACTOR = 4.0
FROM_NOTHING = (1e-4, 1.0)  # where the option was 0 or null
WHOLE_FROM_NOTHING = (1.0, 16.0)
TRIES = 200


@dataclass(frozen=True)
class _Option:
    """An option that may be changed: its key, type, range, and the value it has."""

    key: str
    type: Any
    range: Range
    value: Any


@dataclass(frozen=True)
class RandomControl:
    """Proposes random changes.

    Attributes:
        seed: what is drawn is a pure function of it, of the place, and of the run that is changed.
    """

    seed: int

    def beside(
        self,
        overrides: Sequence[str],
        words: Sequence[str],
        place: int,
        checked: Callable[[Sequence[str]], Config],
        known: Sequence[Config] = (),
    ) -> tuple[str, ...] | None:
        """A random change of as many options as a fix changes, and of the same kinds.

        Of a choice (``loss=bce``) another choice is the same kind, of a value
        (``optimizer.learning_rate=.1``) another value; keys are drawn evenly among those of a kind.

        Args:
            overrides: of the fix.
            words: the overrides of the run that is changed.
            place: of the step, from 1; another one draws others.
            checked: makes a checked config of words.
            known: configs that were tried, and are not to be tried again.

        Returns:
            Overrides; None if nothing that fits was found.
        """
        rng = np.random.default_rng((self.seed, place))
        now = checked(words)
        choices, options = _choices(), _options(now)
        for _ in range(TRIES):
            keys: set[str] = set()
            drawn: list[str] = []
            for override in overrides:
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
                changed = checked(treated(words, drawn))
                experiment.check_early(changed)
            except UserError:
                continue  # options that do not fit together
            if changed != now and changed not in known:
                return tuple(drawn)
        return None


def treated(words: Sequence[str], overrides: Sequence[str]) -> tuple[str, ...]:
    """The words of a run with overrides; what they replace is left out."""
    command = Fix(tuple(overrides), "", Safety.SAFE).command(words)
    return tuple(shlex.split(command))


def _choices() -> dict[str, list[str]]:
    """The names that may stand behind each group."""
    sources = compose.Sources()
    return {group: sorted(sources.options(group)) for group in CHANGED}


def _another(group: str, names: Sequence[str], now: Config, rng: np.random.Generator) -> str:
    """Another option of a group; of one that holds several, one more or one less."""
    if group not in SEVERAL:
        return str(rng.choice(names))  # what it is already changes nothing, and is drawn again
    had = list(getattr(now, group))
    name = str(rng.choice(names))
    if name not in SEVERAL[group]:  # none
        return name
    left = [one for one in had if one != name] if name in had else [*had, name]
    return f"[{','.join(left)}]" if left else "none"


def _options(now: Config) -> list[_Option]:
    """The options that may be changed, as the config has them."""
    parts = [(group, getattr(now, group)) for group in CHANGED if group not in SEVERAL]
    for group in SEVERAL:
        parts += [(f"{group}.{name}", part) for name, part in getattr(now, group).items()]
    found = []
    for path, part in [*parts, ("data", now.data)]:
        hints = typing.get_type_hints(type(part))
        for field in fields(part):
            if path == "data" and field.name not in OF_DATA:
                continue
            if _is_idle(f"{path}.{field.name}", now):
                continue
            limits: Range = field.metadata["range"]
            if hints[field.name] is str and not limits.choices:
                continue  # text that stands for nothing known
            value = getattr(part, field.name)
            found.append(_Option(f"{path}.{field.name}", _inner(hints[field.name]), limits, value))
    return found


def _is_idle(key: str, now: Config) -> bool:
    """Whether an option does nothing beside the others: such a random control would be too easily beaten."""
    if key == "augmentation.target":
        a = now.augmentation
        return not (a.rotation or a.shift or a.zoom or a.flip)
    if key == "model.sampling_kernel":
        return now.model.downsampling != "strided" and now.model.upsampling != "transposed"
    return key == "optimizer.nesterov" and not getattr(now.optimizer, "momentum", 0)


def _inner(hint: Any) -> Any:
    """A type without its null."""
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
    low, high = _ends(limits)
    is_whole = option.type is int
    if math.isfinite(low) and math.isfinite(high):
        drawn = float(rng.uniform(low, high))
    elif option.value:
        factor = WHOLE_FACTOR if is_whole else FACTOR
        drawn = _log_uniform(option.value / factor, option.value * factor, rng)
    else:
        drawn = _log_uniform(*(WHOLE_FROM_NOTHING if is_whole else FROM_NOTHING), rng)
    drawn = min(max(drawn, low), high)
    if not is_whole:
        return float(f"{drawn:.3g}")
    whole = round(drawn)
    return whole + 1 if limits.odd and whole % 2 == 0 else whole


def _ends(limits: Range) -> tuple[float, float]:
    """The least and the most that a number may be; what it must be above or below counts as an end."""
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
