"""Composes configs with Hydra and checks them.

Every job of a sweep is composed and checked before the first one starts, so that a typo in the last
value costs a second and not a night.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cae_cli.config import hydra_internals
from cae_cli.config.messages import rephrase
from cae_cli.config.schema import Config, parse
from cae_cli.config.sources import CONFIGS as CONFIGS
from cae_cli.config.sources import Sources as Sources
from cae_cli.config.trust import readable
from cae_cli.errors import RunFailed, UserError
from cae_cli.options import OptionError

MOST_CHECKED = 64  # jobs of a sweep that are all composed beforehand; larger grids: value by value
MOST_JOBS = 10_000  # Hydra writes all of them down before the first one starts


def composed(overrides: Sequence[str], sources: Sources | None = None) -> DictConfig:
    """Composes a config, with the node of Hydra.

    Raises:
        UserError: it cannot be composed.
    """
    sources = sources or Sources()
    with rephrased_errors(overrides, sources):
        return hydra_internals.compose(overrides, sources)[0]


def checked(overrides: Sequence[str], sources: Sources | None = None) -> tuple[DictConfig, Config]:
    """Composes a config and checks it against the schema.

    Raises:
        UserError: it cannot be composed, or an option is wrong; names the override or the file.
    """
    sources = sources or Sources()
    with rephrased_errors(overrides, sources):
        node, loader = hydra_internals.compose(overrides, sources)
    try:
        return node, parse(node)
    except OptionError as error:
        error.where = loader.origin(error.key)
        raise
    except OmegaConfBaseException as error:
        message = rephrase(error, overrides, sources)
        message.where = message.where or loader.origin(error.full_key or "")
        raise message from error


def jobs(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a sweep, as Hydra's basic sweeper makes them.

    A grid of more than `MOST_CHECKED` jobs is thinned: every value of every key, with the first value
    of the others.
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
    """For each key its overrides: one for each value that it is swept over."""
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
            hint="use fewer values, or several sweeps",
        )
    return choices


def with_sweeper_params(overrides: Sequence[str], sources: Sources) -> list[str]:
    """The overrides of a sweep, after those that a config sets in ``hydra.sweeper.params``."""
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
    with rephrased_errors(overrides, Sources()):
        result: list[Override] = OverridesParser.create().parse_overrides(list(overrides))
        return result


@contextmanager
def rephrased_errors(overrides: Sequence[str], sources: Sources) -> Iterator[None]:
    """Rephrases what Hydra, OmegaConf or the YAML reader raise in the block.

    Raises:
        UserError: instead. Whatever goes wrong while a config is composed comes from what the user
            wrote.
    """
    try:
        yield
    except (UserError, RunFailed):
        raise
    except Exception as error:
        raise rephrase(error, overrides, sources) from error
