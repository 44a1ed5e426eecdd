"""Typed options: a stage declares its options as a dataclass, and a config is checked against it.

A field has the type, the range and the meaning of an option; the default value is in ``configs/``.
Names, types and ranges are checked before TensorFlow is loaded.
"""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cae_cli.errors import UserError, did_you_mean, to_paste

T = TypeVar("T")

# Bounds of every number, declared or not: float32 computes with such numbers, and with their squares.
LARGEST = 1e12
LARGEST_WHOLE = 10**15
# Options that are paths, which may be typed as they are.
PATH_KEYS = ("data.path", "data.target", "anomalies.path")
SMALLEST = 1e-9  # of a number that must be greater than 0


class OptionError(UserError):
    """A wrong option; its dotted path ``key`` lets messages name the file that sets it."""

    def __init__(self, key: str, complaint: str, *, hint: str | None = None) -> None:
        super().__init__(f"{key} {complaint}", hint=hint)
        self.key = key


@dataclass(frozen=True)
class Range:
    """The allowed values of an option, beyond its type. For a list they apply to every item.

    Where a bound is not declared, that of all numbers holds: `LARGEST` and its like.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    odd: bool = False
    nonempty: bool = False
    largest: float = LARGEST  # of a number without a declared bound

    def complaint(self, value: Any) -> str | None:
        """Why ``value`` is out of range ("must be at least 3"), or None."""
        if value is None:
            return None
        if isinstance(value, (list, tuple)):
            if self.nonempty and not value:
                return "must not be empty"
            return next((c for c in map(self.complaint, value) if c), None)
        if self.choices and value not in self.choices:
            return f"must be one of {', '.join(map(str, self.choices))}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if self.least is not None and value < self.least:
            return f"must be at least {_short(self.least)}"
        if self.most is not None and value > self.most:
            return f"must be at most {_short(self.most)}"
        if self.above is not None and value <= self.above:
            return f"must be greater than {_short(self.above)}"
        if self.below is not None and value >= self.below:
            return f"must be less than {_short(self.below)}"
        if self.odd and value % 2 == 0:
            return "must be odd"
        if self.above == 0 and value < SMALLEST:
            return f"must be at least {_short(SMALLEST)}"
        largest = self.largest if isinstance(value, float) else LARGEST_WHOLE
        if self.most is None and value > largest:
            return f"must be at most {_short(largest)}"
        if self.least is None and value < -largest:
            return f"must be at least {_short(-largest)}"
        return None

    def __str__(self) -> str:
        parts = []
        if self.choices:
            parts.append("one of " + ", ".join(map(str, self.choices)))
        for sign, bound in (
            ("≥", self.least),
            (">", self.above),
            ("≤", self.most),
            ("<", self.below),
        ):
            if bound is not None:
                parts.append(f"{sign} {_short(bound)}")
        if self.odd:
            parts.append("odd")
        return ", ".join(parts)


def _short(number: float) -> str:
    """A bound in digits, whole numbers in full."""
    return str(number) if isinstance(number, int) else f"{number:g}"


def option(doc: str, **limits: Any) -> Any:
    """Declares an option as a dataclass field; ``limits`` are the fields of `Range`."""
    return field(metadata={"doc": doc, "range": Range(**limits)})


@dataclass(frozen=True)
class OptionInfo:
    """One option as documentation shows it."""

    name: str
    type: str
    range: str
    doc: str


def describe(cls: type) -> list[OptionInfo]:
    """The options that ``cls`` declares, in order."""
    hints = typing.get_type_hints(cls)
    return [
        OptionInfo(f.name, type_name(hints[f.name]), str(f.metadata["range"]), f.metadata["doc"])
        for f in fields(cls)
        if "doc" in f.metadata
    ]


def type_name(hint: Any) -> str:
    """The name of a type for readers who do not know Python ("integer or null", "list of numbers")."""
    names = {int: "integer", float: "number", str: "text", bool: "true or false"}
    if hint in names:
        return names[hint]
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        parts = [a for a in typing.get_args(hint) if a is not type(None)]
        return " or ".join([*map(type_name, parts), "null"])
    if typing.get_origin(hint) is list:
        return f"list of {type_name(typing.get_args(hint)[0])}s"
    return str(hint)


def build(cls: type[T], node: Any, path: str, *, ignore: tuple[str, ...] = ()) -> T:
    """Checks a composed config node against the options that ``cls`` declares.

    Args:
        cls: a dataclass whose fields were made by `option`.
        node: the config node (a mapping), interpolations resolvable.
        path: the node's dotted path, for messages ("loss").
        ignore: keys of the node that are not options of ``cls`` (``name``).

    A key that may be null may be missing: files written before the option existed stay valid.

    Returns:
        An instance of ``cls``.

    Raises:
        UserError: unknown or missing key, wrong type, value out of range.
    """
    if not isinstance(node, Mapping | DictConfig):
        raise not_a_group(path, node)
    given = {str(k): v for k, v in _plain(node, path).items() if k not in ignore}
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in given:
        if key not in known:
            raise OptionError(
                f"{path}.{key}" if path else key, "is not an option", hint=did_you_mean(key, known)
            )
    values: dict[str, Any] = {}
    for name, f in known.items():
        key = f"{path}.{name}" if path else name
        if name not in given and _may_be_null(hints[name]):
            given[name] = None
        if name not in given or given[name] == "???":
            raise OptionError(key, "has no value", hint=f"set it: {key}=…")
        hint = f"{name}: {f.metadata['doc']}"
        try:
            value = _convert(given[name], hints[name], key)
        except OptionError as error:
            error.hint = error.hint or hint
            raise
        limits: Range = f.metadata["range"]
        if complaint := limits.complaint(value):
            raise OptionError(key, f"{complaint}, got {given[name]!r}", hint=hint)
        values[name] = value
    return cls(**values)


def key_of(override: str) -> str:
    """The key that an override of the command line sets: "loss.window" of "+loss.window=7"."""
    return override.partition("=")[0].lstrip("+~")


def written(text: object) -> str:
    """Text as the value of an override, in quotes only where Hydra's grammar needs them."""
    value = str(text)
    special = value.lower() in ("null", "true", "false", "nan")
    return value if re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", value) and not special else quoted(value)


def override_to_paste(key: str, value: object) -> str:
    """The override that gives a key this text, to be pasted into a shell."""
    return to_paste(as_typed(f"{key}={written(value)}"))


def for_hydra(override: str, *, sweep: bool = False) -> str:
    """An override as typed, with a path in the quotes that Hydra's grammar needs.

    So a path is typed as for any other program, whatever it contains. Left as they are: null, what is in
    quotes already or escaped, an interpolation, and in a sweep a function. A path that exists is meant.

    Args:
        override: of the command line.
        sweep: whether commas separate several values.
    """
    key, _, value = override.partition("=")
    if key.lstrip("+") not in PATH_KEYS or value.lower() in ("", "null"):
        return override
    special = r"""^['"]|\$\{|\\""" + (r"""|^\w+\(|,.*['"]""" if sweep else "")
    if re.search(special, value) and not _exists(value):
        return override
    several = sweep and "," in value and not _exists(value)
    return f"{key}={','.join(map(written, value.split(',') if several else [value]))}"


def as_typed(override: str, *, sweep: bool = False) -> str:
    """The inverse of `for_hydra`: a path without quotes, unless it needs them."""
    key, _, value = override.partition("=")
    plain = f"{key}={value[1:-1]}"
    return plain if value[:1] == "'" and for_hydra(plain, sweep=sweep) == override else override


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # no permission, too long, ~nobody
        return False


def quoted(value: object) -> str:
    """Text in quotes as the value of an override."""
    # Backslashes count only before a quote, and at the end.
    text = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), str(value))
    return f"'{text}'"


def not_a_group(path: str, value: Any) -> OptionError:
    """The error for a value where the options of a group are expected (``loss: ssim``)."""
    return OptionError(
        path,
        f"must be a group of options, got {str(value)!r}",
        hint=f"in a file, choose an option in the defaults list: - override /{path}: …",
    )


def _plain(node: Mapping[Any, Any] | DictConfig, path: str) -> dict[Any, Any]:
    if not isinstance(node, DictConfig):
        return dict(node)
    try:
        plain = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or path
        raise OptionError(
            key,
            f"cannot be resolved: {str(error).splitlines()[0]}",
            hint="an interpolation ${…} must name a key of this config",
        ) from error
    assert isinstance(plain, dict)
    return plain


_TYPES = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a mapping"
}  # fmt: skip


def _may_be_null(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _convert(value: Any, hint: Any, key: str) -> Any:
    """``value`` as type ``hint``. Integers pass as numbers; nothing else is guessed."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        if value is None:
            return None
        rest = [a for a in typing.get_args(hint) if a is not type(None)]
        return _convert(value, rest[0], key)
    if typing.get_origin(hint) in (list, tuple):
        if not isinstance(value, list | tuple | ListConfig):
            raise OptionError(
                key, f"must be a list, got {value!r}", hint=f"write it in brackets: '{key}=[…]'"
            )
        item = typing.get_args(hint)[0]
        return [_convert(v, item, f"{key}[{i}]") for i, v in enumerate(value)]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf  # which no range allows
    if hint is float and isinstance(value, str):
        try:  # YAML 1.1 reads 1e-3 as text
            return float(value)
        except ValueError:
            pass
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # a folder called 2024
    shown = "null" if value is None else repr(value)
    raise OptionError(key, f"must be {_TYPES[hint]}, got {shown}")


class Catalogue(dict[str, type[T]]):
    """The options of one config group by name, such as those of ``loss=``.

    Args:
        group: the config group's name.
    """

    def __init__(self, group: str) -> None:
        super().__init__()
        self.group = group

    def add(self, name: str) -> Callable[[type[T]], type[T]]:
        """Decorator that registers a class under ``name``."""

        def enter(cls: type[T]) -> type[T]:
            if name in self:
                raise ValueError(f"{self.group}={name} exists already")
            self[name] = cls
            return cls

        return enter
