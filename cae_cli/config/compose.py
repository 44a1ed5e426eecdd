"""Composes configs with Hydra, and says what is wrong with one in words that need no Hydra.

Every job is composed and checked before the first one starts, so that a typo in the last value of a
sweep costs a second and not a night.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import (
    ConfigCompositionException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cae_cli.config.loader import Loader
from cae_cli.config.schema import GROUPS, VARIANTS, Config, parse
from cae_cli.config.trust import Trust, causes, readable, refusal
from cae_cli.errors import RunFailed, UserError, did_you_mean, nearest
from cae_cli.options import OptionError, describe, key_of

PACKAGE = Path(__file__).parents[1]
# In an installed package the configs are inside it, in a checkout they stand beside it.
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"

# Hydra's plugins, and the extra of this package that brings each.
EXTRAS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/ray": "ray",
    "hydra/sweeper/optuna": "optuna",
}

MOST_CHECKED = 64  # jobs of a sweep that are all composed beforehand; larger grids: value by value
MOST_JOBS = 10_000  # Hydra writes all of them down before the first one starts


@dataclass(frozen=True)
class Sources:
    """Where configs come from.

    Attributes:
        config_name: of the primary config.
        folders: folders of the user's own configs, beside ours; ours win where names are the same.
        trust: whom to believe, besides the overrides.
    """

    config_name: str = "config"
    folders: tuple[Path, ...] = ()
    trust: Trust = field(default_factory=Trust)

    def find(self, group: str, name: str) -> Path | None:
        """The file of an option."""
        for folder in (CONFIGS, *self.folders):
            path = folder / group / f"{name}.yaml"
            if path.is_file():
                return path
        return None

    def options(self, group: str) -> dict[str, Path]:
        """The options of a group and their files; those that start with _ are parts of others."""
        found: dict[str, Path] = {}
        for folder in (CONFIGS, *self.folders):
            for path in sorted((folder / group).glob("*.yaml")):
                if not path.name.startswith("_") and path.is_file():
                    found.setdefault(path.stem, path)
        return found


def with_new_keys(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra has to be given them, so that ``rules.CAE401.threshold=.5`` may be typed.

    Rules have no values in configs/, their own thresholds stand where they are explained: to Hydra
    each is a key to be added.
    """
    return [f"++{o}" if o.startswith("rules.") else o for o in overrides]


def as_typed(override: str) -> str:
    """An override without what `with_new_keys` put in front of it."""
    return override.removeprefix("++") if override.startswith("++rules.") else override


def composed(overrides: Sequence[str], sources: Sources | None = None) -> DictConfig:
    """Composes a config, Hydra's own node included.

    Raises:
        UserError: it cannot be composed.
    """
    sources = sources or Sources()
    with errors_in_words(overrides, sources):
        return _compose(overrides, sources)[0]


def checked(overrides: Sequence[str], sources: Sources | None = None) -> tuple[DictConfig, Config]:
    """Composes a config and checks it against the schema.

    Raises:
        UserError: it cannot be composed, or an option is wrong; names the file it came from.
    """
    sources = sources or Sources()
    with errors_in_words(overrides, sources):
        node, loader = _compose(overrides, sources)
    try:
        return node, parse(node)
    except OptionError as error:
        if said := refusal(error):
            raise said from error
        error.where = loader.origin(error.key)
        raise
    except OmegaConfBaseException as error:
        told = rephrase(error, overrides, sources)
        told.where = told.where or loader.origin(error.full_key or "")
        raise told from error


def jobs(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a sweep, as Hydra's basic sweeper makes them.

    A grid of more than `MOST_CHECKED` jobs is thinned: every value of every key, the others at
    their first.
    """
    choices = _choices(overrides)
    if math.prod(map(len, choices)) <= MOST_CHECKED:
        return [list(job) for job in itertools.product(*choices)]
    first = [values[0] for values in choices]
    thinned = [first]
    for position, values in enumerate(choices):
        thinned += [[*first[:position], v, *first[position + 1 :]] for v in values[1:]]
    return thinned


def count(overrides: Sequence[str]) -> int:
    """How many jobs a sweep has."""
    return math.prod(map(len, _choices(overrides)))


def _choices(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides that each key is swept over; one where it is not swept."""
    choices: list[list[str]] = []
    for override in parsed(overrides):
        if not override.is_sweep_override():
            choices.append([override.input_line or ""])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            values = itertools.islice(override.sweep_string_iterator(), MOST_JOBS + 1)
            choices.append([f"{key}={value}" for value in values])
        # an interval is for sweepers that draw from it
    if math.prod(map(len, choices)) > MOST_JOBS:
        raise UserError(
            f"the sweep has more than {MOST_JOBS:,} jobs",
            where=f"its keys: {', '.join(swept_keys(overrides))}",
            hint="fewer values, or several sweeps",
        )
    return choices


def with_sweeper_params(overrides: Sequence[str], sources: Sources) -> list[str]:
    """The overrides of a sweep with those that a config sets in ``hydra.sweeper.params``."""
    node = composed(jobs(overrides)[0], sources)
    params = OmegaConf.select(node, "hydra.sweeper.params") or {}
    given = {override.key_or_group for override in parsed(overrides)}
    return [*(f"{key}={value}" for key, value in params.items() if key not in given), *overrides]


def swept_keys(overrides: Sequence[str]) -> list[str]:
    """Keys that have several values."""
    return [o.key_or_group for o in parsed(overrides) if o.is_sweep_override()]


def parsed(overrides: Sequence[str]) -> list[Override]:
    """The overrides as Hydra reads them.

    Raises:
        UserError: one cannot be read.
    """
    readable(overrides)
    with errors_in_words(overrides, Sources()):
        result: list[Override] = OverridesParser.create().parse_overrides(list(overrides))
        return result


def _compose(overrides: Sequence[str], sources: Sources) -> tuple[DictConfig, Loader]:
    loader = loader_of(sources)
    node = Hydra("train", loader).compose_config(
        sources.config_name, with_new_keys(overrides), RunMode.RUN, from_shell=False
    )
    loader.overrides = overrides  # as they were typed, for messages
    return node, loader


def loader_of(sources: Sources) -> Loader:
    """Hydra's loader of configs for our folders and the user's."""
    # What hydra.initialize_config_dir does, and the user's folders where Hydra's --config-dir puts them.
    version.setbase("1.3")
    search_path = create_config_search_path(str(CONFIGS))
    for folder in sources.folders:
        search_path.prepend(
            "command-line", f"file://{folder.resolve()}", SearchPathQuery(provider="schema")
        )
    return Loader(search_path, sources.trust)


@contextmanager
def errors_in_words(overrides: Sequence[str], sources: Sources) -> Iterator[None]:
    """Turns what Hydra, OmegaConf or the YAML reader raise into words.

    Raises:
        UserError: instead of theirs.
    """
    try:
        yield
    except (UserError, RunFailed):
        raise
    # Whatever Hydra trips over while it composes, it is something that the user wrote.
    except Exception as error:
        told = rephrase(error, overrides, sources)
        notes = (note for cause in causes(error) for note in getattr(cause, "__notes__", ()))
        told.where = told.where or next(notes, None)
        raise told from error


def _yaml_error(error: Exception) -> UserError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"{mark.name}:{mark.line + 1}" if mark else None
    return UserError(f"not valid YAML: {problem}", where=where)


def rephrase(error: Exception, overrides: Sequence[str], sources: Sources) -> UserError:
    """What Hydra, OmegaConf or the YAML reader raised, in words, with the nearest name."""
    if said := refusal(error):
        return said
    text = str(error)
    if isinstance(error, OSError) and error.filename:
        return UserError(f"cannot read a config: {error.strerror}", where=error.filename)
    if "Config group override must be" in text:
        given = next((o for o in overrides if key_of(o) in GROUPS and not _is_choice(o)), "")
        return UserError(
            f"{key_of(given)} has no value",
            where=f"command line: {given}",
            hint=f"choose one: cae options {key_of(given)}",
        )
    if isinstance(error, OverrideParseException):
        return UserError(
            f"cannot read the override {error.override!r}",
            where=f"command line: {error.override}",
            hint="write key=value; put quotes around a value with spaces, commas or brackets: "
            "'key=[1,2]'",
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error.missing_cfg_file, overrides, sources)
    cause: Any = error.__cause__ if isinstance(error, ConfigCompositionException) else error
    key = getattr(cause, "full_key", None)
    match = re.search(r"Could not override '([^']+)'", text)
    if match:
        return _unknown_key(match.group(1), overrides, sources)
    if "Multiple values for" in text:
        match = re.search(r"Multiple values for ([\w/@.]+)", text)
        group = match.group(1).rstrip(".") if match else "a group"
        return UserError(
            f"{group} is given more than once",
            hint="leave out all but one; several values of a sweep are written group=a,b with -m",
        )
    if isinstance(error, RecursionError):
        return UserError("an override or a config is nested too deeply, or stands for itself")
    if "Ambiguous value" in text or "Sweep parameters" in text:
        match = re.search(r"'([^']+)'", text)
        given = match.group(1) if match else "an override"
        return UserError(
            f"{given} has several values",
            where=_line_with(given, overrides),
            hint="cae train -m … trains one run for each; a list is written 'key=[a,b]'",
        )
    if type(cause).__module__.partition(".")[0] == "yaml":
        return _yaml_error(cause)
    if cause is not None and cause is not error:
        text = str(cause) or text  # Hydra's own line only says that there was an error
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    first = lines[0]
    match = re.match(r"In '([^']+)': \w+ raised while composing config:$", first)
    if match and len(lines) > 1:  # which config, and below what was wrong
        found = sources.find(*match.group(1).rpartition("/")[::2])
        return UserError(lines[1][0].lower() + lines[1][1:], where=found or match.group(1))
    return UserError(
        f"{key}: {first}" if key else first[0].lower() + first[1:],
        hint="HYDRA_FULL_ERROR=1 shows the whole error",
    )


def _missing(file: str, overrides: Sequence[str], sources: Sources) -> UserError:
    """A config file that is not there, named as Hydra names it ("loss/sim")."""
    group, _, name = file.strip("/").rpartition("/")
    if not group:
        names = [path.stem for folder in (CONFIGS, *sources.folders) for path in folder.glob("*.yaml")]
        return UserError(f"there is no config {name!r}", hint=did_you_mean(name, names))
    for folder in (CONFIGS, *sources.folders):
        path = folder / group / f"{name}.yaml"
        if path.is_symlink() or path.exists():
            return UserError("a config must be a file", where=path)
    hint = "it may be a plugin that is not installed"
    if extra := EXTRAS.get(file.strip("/")):
        hint = f"it is a plugin that is not installed: pip install 'cae-cli[{extra}]'"
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
    found = next((o for o in overrides if o.lstrip("+~").startswith(start)), None)
    return f"command line: {found}" if found else None


def _unknown_key(key: str, overrides: Sequence[str], sources: Sources) -> UserError:
    """An override of something that is not there: what was meant, or which option has it."""
    where = _line_with(f"{key}=", overrides) or _line_with(key, overrides)
    group, _, rest = key.partition(".")
    if not rest:
        return UserError(
            f"there is no option {key!r}",
            where=where,
            hint=did_you_mean(key, [*GROUPS, "seed", "task_name", "tags"]),
        )
    if group not in GROUPS:
        return UserError(f"there is no option {key!r}", where=where, hint=did_you_mean(group, GROUPS))
    others = [o for o in overrides if key_of(o) != key]
    try:
        node, _ = _compose(others, sources)
    except Exception:
        return UserError(f"{key} is not an option", where=where, hint=f"cae options {group}")
    parent, _, name = key.rpartition(".")
    siblings = OmegaConf.select(node, parent)
    names = [str(n) for n in siblings] if isinstance(siblings, DictConfig) else []
    names = [n for n in names if n != "name"]
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
    return UserError(f"{key} is not an option", where=where, hint=did_you_mean(name, names))
