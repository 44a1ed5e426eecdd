"""The jobs of a sweep: every combination of values and pairs, except for the excluded ones.

    cae train -m 'sweep.pairs=[{model:baseline,loss:mse},{model:l2,loss:ssim}]' seed=range(0,3)
    cae train -m model=baseline,l2 loss=mse,ssim 'sweep.exclude=[{model:l2,loss:mse}]'

Both are lists of groups of overrides in the grammar of Hydra. Hydra's own sweeper supports neither;
`taken_out` passes them to the sweeper of this package.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import ListConfig, OmegaConf

from cae_cli.config.hydra_internals import written
from cae_cli.errors import UserError, did_you_mean
from cae_cli.options import key_of

PAIRS, EXCLUDE = "sweep.pairs", "sweep.exclude"
EXAMPLE = "[{model:baseline,loss:mse},{model:l2,loss:ssim}]"


@dataclass(frozen=True)
class Grid:
    """What a sweep has beyond the combinations of single keys.

    Attributes:
        pairs: values that belong together, by key; every job has the values of one pair.
        excluded: combinations that no job may have.
    """

    pairs: tuple[Mapping[str, str], ...] = ()
    excluded: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def of(cls, pairs: object, excluded: object) -> Grid:
        """From ``[{key:value,…},…]`` as Hydra parses it.

        Raises:
            UserError: it is something else, or pairs have different keys.
        """
        grid = cls(_groups(PAIRS, pairs), _groups(EXCLUDE, excluded))
        for pair in grid.pairs:
            if pair.keys() != grid.pairs[0].keys():
                raise UserError(
                    f"{PAIRS}: all pairs must have the same keys, got {', '.join(grid.pairs[0])} and "
                    f"{', '.join(pair)}",
                    where="command line",
                    hint=f"'{PAIRS}={EXAMPLE}'",
                )
        return grid

    @property
    def keys(self) -> list[str]:
        """The keys of the pairs."""
        return list(self.pairs[0]) if self.pairs else []

    def jobs(self, jobs: Sequence[Sequence[str]]) -> list[list[str]]:
        """Each job with each pair, without the excluded ones."""
        pairs = [[f"{key}={value}" for key, value in pair.items()] for pair in self.pairs] or [[]]
        paired = [[*job, *pair] for pair in pairs for job in jobs]
        return [job for job in paired if not self._leaves_out(job)]

    def _leaves_out(self, job: Iterable[str]) -> bool:
        if not self.excluded:
            return False
        values = {key_of(word): _value(word) for word in job}
        return any(values.items() >= group.items() for group in self.excluded)

    def check(self, overrides: Sequence[str], jobs: Sequence[Sequence[str]]) -> None:
        """Checks the grid as a whole.

        Args:
            overrides: the other overrides of the command line.
            jobs: the jobs of these overrides alone.

        Raises:
            UserError: a key is given twice, or an exclusion matches no job or all of them.
        """
        given = {key_of(word) for word in overrides}
        for key in self.keys:
            if key in given:
                raise UserError(
                    f"{key} is given twice: in {PAIRS} and as an override", where="command line"
                )
        known: dict[str, dict[str, None]] = {}
        for job in Grid(self.pairs).jobs(jobs):
            for word in job:
                known.setdefault(key_of(word), {})[_value(word)] = None
        for group in self.excluded:
            for key, value in group.items():
                where = f"command line: {EXCLUDE}"
                if key not in known:
                    raise UserError(
                        f"{EXCLUDE}: no job sets {key}", where=where, hint=did_you_mean(key, known)
                    )
                if value not in known[key]:
                    raise UserError(
                        f"{EXCLUDE}: no job has {key}={value}",
                        where=where,
                        hint=did_you_mean(value, known[key], f"the values of {key} are"),
                    )
        if not self.jobs(jobs):
            raise UserError(f"{EXCLUDE} excludes every job", where="command line")


def taken_out(words: Sequence[str]) -> tuple[list[str], Grid, list[str]]:
    """Separates `sweep.pairs` and `sweep.exclude` from the overrides of a command line.

    Returns:
        The other overrides; the grid; and the overrides that set it in Hydra.

    Raises:
        UserError: one of the two cannot be parsed.
    """
    given: dict[str, object] = {PAIRS: [], EXCLUDE: []}
    others, hydras = [], []
    for word in words:
        key = key_of(word)
        if key not in given:
            others.append(word)
            continue
        try:
            override = OverridesParser.create().parse_override(word)
            given[key] = override.value()
        except Exception as error:  # of Hydra and of ANTLR
            raise _unreadable(key, word) from error
        if override.is_sweep_override():
            raise _unreadable(key, word)
        hydras.append(f"hydra.sweeper.{key.removeprefix('sweep.')}={word.partition('=')[2]}")
    grid = Grid.of(given[PAIRS], given[EXCLUDE])
    if hydras and any(key_of(word) == "hydra/sweeper" for word in others):
        raise UserError(
            f"{PAIRS} and {EXCLUDE} need the default sweeper, but hydra/sweeper is set",
            where="command line",
            hint="leave out hydra/sweeper, or pairs and exclusions",
        )
    return others, grid, ["hydra/sweeper=grid", *hydras] if hydras else []


def _groups(key: str, given: object) -> tuple[Mapping[str, str], ...]:
    if isinstance(given, ListConfig):
        given = OmegaConf.to_container(given)
    if not isinstance(given, list | tuple):
        raise _unreadable(key, f"{key}={given}")
    groups = []
    for group in given:
        if not isinstance(group, dict) or not group:
            raise _unreadable(key, f"{key}: {group}")
        groups.append({str(name): written(group[name]) for name in group})
    return tuple(groups)


@functools.lru_cache(4096)
def _value(word: str) -> str:
    """The value of an override as Hydra writes it."""
    value: Any = OverridesParser.create().parse_override(word).value()
    return written(value)


def _unreadable(key: str, word: str) -> UserError:
    return UserError(
        f"{key} must be a list of groups of key:value",
        where=f"command line: {word}",
        hint=f"use quotes, and a colon instead of each =: '{key}={EXAMPLE}'",
    )
