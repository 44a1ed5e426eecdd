"""Errors of Hydra, OmegaConf and the YAML reader, rephrased for people who know none of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from cae_cli.config import hydra_internals
from cae_cli.config.schema import GROUPS, VARIANTS, General
from cae_cli.config.sources import CONFIGS, Sources
from cae_cli.config.trust import Refused, yaml_error
from cae_cli.errors import UserError, did_you_mean, nearest, to_paste
from cae_cli.options import describe, key_of

# Hydra's plugins, and the extra of this package that installs each.
EXTRAS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/ray": "ray",
    "hydra/sweeper/optuna": "optuna",
}


def rephrase(error: Exception, overrides: Sequence[str], sources: Sources) -> UserError:
    """What is wrong, where it stands as far as that is known, and the next step."""
    chain = list(_causes(error))
    if refused := next((cause for cause in chain if isinstance(cause, Refused)), None):
        return refused
    message = _rephrase(error, overrides, sources)
    notes = (note for cause in chain for note in getattr(cause, "__notes__", ()))
    message.where = message.where or next(notes, None)
    return message


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that OmegaConf or Hydra wrapped in it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _rephrase(error: Exception, overrides: Sequence[str], sources: Sources) -> UserError:
    text = str(error)
    if isinstance(error, OSError) and error.filename:
        return UserError(f"cannot read a config: {error.strerror}", where=error.filename)
    if "Config group override must be" in text:
        given = next((o for o in overrides if key_of(o) in GROUPS and not _is_choice(o)), "")
        return UserError(
            f"{key_of(given)} has no value",
            where=f"command line: {given}",
            hint=f"choose one: {to_paste('cae', 'options', key_of(given))}",
        )
    if isinstance(error, OverrideParseException):
        return UserError(
            f"cannot read the override {error.override!r}",
            where=f"command line: {error.override}",
            hint="write key=value; put quotes around a value with spaces, commas, brackets or =: "
            "'key=[1,2]'",
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error.missing_cfg_file, overrides, sources)
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match.group(1), overrides, sources)
    if "Multiple values for" in text:
        match = re.search(r"Multiple values for ([\w/@.]+)", text)
        group = match.group(1).rstrip(".") if match else "a group"
        return UserError(
            f"{group} is given more than once",
            hint="keep one of them; to sweep over several values, write group=a,b with -m",
        )
    if isinstance(error, RecursionError):
        return UserError("an override or a config is nested too deeply, or refers to itself")
    if "Ambiguous value" in text or "Sweep parameters" in text:
        match = re.search(r"'([^']+)'", text)
        given = match.group(1) if match else "an override"
        return UserError(
            f"{given} has several values",
            where=_line_with(given, overrides),
            hint="cae train -m … trains one run for each; write a list as 'key=[a,b]'",
        )
    cause: Any = error.__cause__ if isinstance(error, ConfigCompositionException) else error
    if type(cause).__module__.partition(".")[0] == "yaml":
        return yaml_error(cause)
    if cause is not None and cause is not error:
        text = str(cause) or text  # Hydra's own line only says that there was an error
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    first = lines[0]
    match = re.match(r"In '([^']+)': \w+ raised while composing config:$", first)
    if match and len(lines) > 1:  # names the config; the next line says what is wrong
        file = sources.find(*match.group(1).rpartition("/")[::2])
        return UserError(lines[1][0].lower() + lines[1][1:], where=file or match.group(1))
    key = getattr(cause, "full_key", None)
    return UserError(
        f"{key}: {first}" if key else first[0].lower() + first[1:],
        hint="HYDRA_FULL_ERROR=1 shows the whole error",
    )


def _missing(file: str, overrides: Sequence[str], sources: Sources) -> UserError:
    """A config file that does not exist, named as Hydra names it ("loss/sim")."""
    group, _, name = file.strip("/").rpartition("/")
    folders = (CONFIGS, *sources.folders)
    if not group:
        names = [path.stem for folder in folders for path in folder.glob("*.yaml")]
        return UserError(f"there is no config {name!r}", hint=did_you_mean(name, names))
    for path in (folder / group / f"{name}.yaml" for folder in folders):
        if path.is_symlink() or path.exists():
            return UserError("a config must be a file", where=path)
    hint = "it may be a plugin that is not installed"
    if extra := EXTRAS.get(file.strip("/")):
        hint = f"it is a plugin that is not installed: pip install 'cae-cli[{extra}]'"
    elif (group, name) == ("data", "python"):
        hint = "it runs Python code, and so is for the command line only, where you type it"
    elif not group.startswith("hydra/"):
        hint = did_you_mean(name, sources.options(group), f"the options of {group} are")
    return UserError(
        f"{group} has no option {name!r}",
        where=_line_with(f"{group}={name}", overrides),
        hint=hint,
    )


def _is_choice(override: str) -> bool:
    """Whether the value is a name or a list of names, as a group's must be."""
    value = OverridesParser.create().parse_override(override).value()
    return isinstance(value, str | list)


def _line_with(start: str, overrides: Sequence[str]) -> str | None:
    line = next((o for o in overrides if o.lstrip("+~").startswith(start)), None)
    return f"command line: {line}" if line else None


def _unknown_key(key: str, overrides: Sequence[str], sources: Sources) -> UserError:
    """An override of a key that does not exist: the nearest key, or the option that has it."""
    where = _line_with(f"{key}=", overrides) or _line_with(key, overrides)
    group, _, rest = key.partition(".")
    if group not in GROUPS or not rest:
        names = GROUPS if rest else [*GROUPS, *(info.name for info in describe(General))]
        hint = did_you_mean(group, names)
        if not rest and nearest(group, names) is None and (key_in_group := _in_a_group(key, sources)):
            hint = f"did you mean {key_in_group}?"
        return UserError(f"there is no option {key!r}", where=where, hint=hint)
    try:
        node, _ = hydra_internals.compose([o for o in overrides if key_of(o) != key], sources)
    except Exception:
        return UserError(f"{key} is not an option", where=where, hint=to_paste("cae", "options", group))
    parent, _, name = key.rpartition(".")
    siblings = OmegaConf.select(node, parent)
    names = [str(n) for n in siblings if n != "name"] if isinstance(siblings, DictConfig) else []
    if nearest(name, names) is None and group in VARIANTS:
        have = [n for n, cls in VARIANTS[group].items() if name in {o.name for o in describe(cls)}]
        if have:
            return UserError(
                f"{key} is not an option of {group}={OmegaConf.select(node, f'{group}.name')}",
                where=where,
                hint=f"it belongs to {', '.join(f'{group}={n}' for n in have)}",
            )
    if group == "regularization":
        chosen = rest.partition(".")[0]
        if chosen in sources.options(group) and not isinstance(siblings, DictConfig):
            return UserError(
                f"{key} is set, but regularization={chosen} is not chosen",
                where=where,
                hint=f"add regularization={chosen}",
            )
    close = nearest(name, names)
    hint = did_you_mean(name, names) if close is None else f"did you mean {parent}.{close}?"
    return UserError(f"{key} is not an option", where=where, hint=hint)


def _in_a_group(name: str, sources: Sources) -> str | None:
    """The key of the default config that somebody means who leaves out its group (epochs, lr)."""
    try:
        node, _ = hydra_internals.compose([], sources)
    except Exception:
        return None
    groups = [group for group in GROUPS if isinstance(node.get(group), DictConfig)]
    keys = {str(key): f"{group}.{key}" for group in reversed(groups) for key in node[group]}
    close = nearest(name, keys)
    return None if close is None else keys[close]
