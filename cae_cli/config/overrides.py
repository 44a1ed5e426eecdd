"""The config of a finished run as overrides of ``cae train``.

They are made key by key from what the schema knows. A run folder may come from a stranger, so nothing
else in its config reaches the command line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cae_cli.config import compose
from cae_cli.config.compose import Sources
from cae_cli.config.schema import DEVIATIONS, GROUPS, SEVERAL, VARIANTS, Config, plain
from cae_cli.config.trust import Trust
from cae_cli.diagnosis import RULES
from cae_cli.errors import UserError, did_you_mean
from cae_cli.options import key_of, written
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import read_any_version
from cae_cli.runs.registry import flat

_ABSENT = object()


@dataclass(frozen=True)
class RunOverrides:
    """The config of a run as overrides of ``cae train``.

    Attributes:
        overrides: what differs from the defaults of this version and from the user's changes.
        unknown: keys of the old config that are no longer options.
        new: options that the old config does not have, with the values that they get.
    """

    overrides: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    new: Mapping[str, Any] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """What the user should know of keys that are not the same in this version."""
        notes = []
        if self.unknown:
            notes.append(
                f"! these keys are no longer options and are ignored: {', '.join(self.unknown)}"
            )
        if self.new:
            values = ", ".join(f"{key}={value}" for key, value in self.new.items())
            notes.append(f"! these options are newer than the run and get their defaults: {values}")
        return notes


class _OldConfigError(UserError):
    """A mistake in the config of the run, as opposed to one in the user's changes."""


def overrides_of_run(
    run: Run, changes: Sequence[str] = (), sources: Sources | None = None
) -> RunOverrides:
    """The overrides that reproduce the config of a run. See `overrides_of`.

    Raises:
        UserError: as `overrides_of`; names run.json where the mistake is in there.
    """
    try:
        return overrides_of(read_any_version(run.setup_file)["config"], changes, sources)
    except _OldConfigError as error:
        error.where = f"{run.setup_file}: {error.where}" if error.where else str(run.setup_file)
        raise


def overrides_of(
    config: Mapping[str, Any], changes: Sequence[str] = (), sources: Sources | None = None
) -> RunOverrides:
    """The overrides that, followed by the changes, reproduce a config.

    Args:
        config: of run.json.
        changes: the user's overrides, for a single run. Where they choose another option of a group,
            the old values of that group are dropped.
        sources: where options are looked up, and which of them are trusted.

    Raises:
        UserError: the changes are wrong, or the old config is.
    """
    sources = sources or Sources()
    untrusted = replace(sources, trust=Trust(overrides=False))
    default = compose.composed([], untrusted)
    replaced = _replaced_groups(changes, default, sources)
    choices, unknown = _choices(config, replaced, default)
    before = _checked_old(choices, untrusted)
    after = compose.checked([*choices, *changes], sources)[1] if changes else before
    base, changed = flat(plain(before)), flat(plain(after))
    set_by_user = {key_of(change) for change in changes}
    old = flat({name: inner for name, inner in config.items() if name != "rules"})
    overrides = list(choices)
    for key, value in old.items():
        group = key.partition(".")[0]
        if group in replaced or (group in SEVERAL and key not in base):
            unknown += [key] * (group not in replaced and not _is_dropped(key, unknown))
        elif key not in base:
            unknown.append(key)
        elif key.endswith(".name") and group in VARIANTS:
            continue
        elif key in set_by_user or not _equal(base[key], changed.get(key, _ABSENT)):
            continue  # set by the changes, directly or by an option that sets many keys
        elif not _equal(value, base[key]):
            overrides.append(f"{key}={_value(key, value)}")
    of_rules, unknown_rules = _of_rules(config.get("rules"), set_by_user)
    overrides += of_rules
    if overrides != choices:
        _checked_old(overrides, untrusted)
    new = {
        key: value
        for key, value in base.items()
        if key not in old and key.partition(".")[0] not in replaced and key not in set_by_user
    }
    return RunOverrides(tuple(overrides), (*unknown, *unknown_rules), new)


def _checked_old(overrides: Sequence[str], sources: Sources) -> Config:
    """The config of overrides that were made from a run's file."""
    try:
        return compose.checked(overrides, sources)[1]
    except UserError as error:
        where = (error.where or "").removeprefix("command of the run: ")
        raise _OldConfigError(error.what, where=where or None, hint=error.hint) from error


def _replaced_groups(changes: Sequence[str], default: DictConfig, sources: Sources) -> set[str]:
    """Groups whose option the user chooses, directly or by a model or an experiment."""
    picks = [change for change in changes if key_of(change) in GROUPS]
    replaced = {key_of(pick) for pick in picks} - set(DEVIATIONS)
    if not picks:
        return replaced
    picked = compose.composed(picks, sources)
    return replaced | {
        group
        for group in GROUPS
        if group not in DEVIATIONS and _option(default, group) != _option(picked, group)
    }


def _option(node: DictConfig, group: str) -> Any:
    """Which option of a group a composed config has."""
    if group in SEVERAL:
        return set(node.get(group) or ())  # Hydra does not record a list
    return OmegaConf.select(node, f"hydra.runtime.choices.{group}")


def _choices(
    config: Mapping[str, Any], replaced: set[str], default: DictConfig
) -> tuple[list[str], list[str]]:
    """Overrides that choose the options of the old config, defaults left out; and unknown names."""
    overrides: list[str] = []
    unknown: list[str] = []
    for group, catalogue in VARIANTS.items():
        node = config.get(group)
        name = node.get("name") if isinstance(node, dict) else None
        if group in replaced or name is None:
            continue
        if not isinstance(name, str) or name not in catalogue:
            raise _OldConfigError(
                f"{group}={str(name)[:60]} is no longer an option",
                where=f"{group}.name",
                hint=f"choose one after RUN: {group}=…; {did_you_mean(str(name), catalogue)}",
            )
        overrides += [f"{group}={name}"] * (name != OmegaConf.select(default, f"{group}.name"))
    for group, several in SEVERAL.items():
        node = config.get(group)
        if group in replaced or not isinstance(node, dict):
            continue
        names = [str(name) for name in node if name in several]
        unknown += [f"{group}.{name}" for name in node if name not in several]
        if set(names) != _option(default, group):
            overrides.append(f"{group}=[{','.join(names)}]" if names else f"{group}=none")
    return overrides, unknown


def _is_dropped(key: str, unknown: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in unknown)


def _of_rules(given: Any, set_by_user: set[str]) -> tuple[list[str], list[str]]:
    """Options of single rules as overrides, and the keys that are none."""
    codes = {rule.code for rule in RULES}
    overrides, unknown = [], []
    for key, value in flat(given).items() if isinstance(given, dict) else ():
        code, _, name = key.partition(".")
        if code not in codes or name not in ("threshold", "enabled"):
            unknown.append(f"rules.{key}")
        elif value is not None and value is not True and f"rules.{key}" not in set_by_user:
            overrides.append(f"rules.{key}={_value(f'rules.{key}', value)}")
    return overrides, unknown


def _equal(a: Any, b: Any) -> bool:
    """Whether two values are the same; 1 is 1.0, and true is not 1."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _value(key: str, value: Any) -> str:
    """A value in Hydra's grammar, quoted so that no part of it has a special meaning.

    Raises:
        UserError: it is no plain value.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{','.join(_value(key, item) for item in value)}]"
    text = str(value)
    if not isinstance(value, str) or "${" in text:
        raise _OldConfigError(
            f"{key} must be a plain value in the file of a run, got {text[:60]!r}",
            where=key,
            hint=f"set it after RUN: {key}=…",
        )
    return written(text)
