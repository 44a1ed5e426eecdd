"""Which jobs a sweep has: every combination, of values in pairs too, but for those left out.

    cae train -m 'sweep.pairs=[{model:baseline,loss:mse},{model:l2,loss:ssim}]' seed=range(0,3)
    cae train -m model=baseline,l2 loss=mse,ssim 'sweep.exclude=[{model:l2,loss:mse}]'

Both are lists of groups of overrides, in the grammar of Hydra. Hydra's own sweeper knows neither:
`words` gives them to a sweeper that does.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import ListConfig, OmegaConf

from cae_cli.errors import UserError, did_you_mean
from cae_cli.options import key_of

PAIRS, EXCLUDE = "sweep.pairs", "sweep.exclude"
EXAMPLE = "[{model:baseline,loss:mse},{model:l2,loss:ssim}]"


@dataclass(frozen=True)
class Grid:
    """What a sweep has beyond the combinations of single keys.

    Attributes:
        pairs: overrides that belong together, by key; every job has those of one pair.
        excluded: no job has all overrides of one of these.
    """

    pairs: tuple[Mapping[str, str], ...] = ()
    excluded: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def of(cls, pairs: object, excluded: object) -> Grid:
        """From what Hydra's parser makes of ``[{key:value,…},…]``.

        Raises:
            UserError: it makes something else of it, or pairs have different keys.
        """
        grid = cls(_groups(PAIRS, pairs), _groups(EXCLUDE, excluded))
        for pair in grid.pairs:
            if pair.keys() != grid.pairs[0].keys():
                raise UserError(
                    f"{PAIRS}: every pair has the same keys, got {', '.join(grid.pairs[0])} and "
                    f"{', '.join(pair)}",
                    where="command line",
                    hint=f"'{PAIRS}={EXAMPLE}'",
                )
        return grid

    @property
    def keys(self) -> list[str]:
        """The keys that pairs have."""
        return list(self.pairs[0]) if self.pairs else []

    def jobs(self, jobs: Sequence[Sequence[str]]) -> list[list[str]]:
        """The jobs, each with every pair, without those that are left out."""
        pairs = [[f"{key}={value}" for key, value in pair.items()] for pair in self.pairs] or [[]]
        paired = [[*job, *pair] for pair in pairs for job in jobs]
        return [job for job in paired if not self._leaves_out(job)]

    def _leaves_out(self, job: Iterable[str]) -> bool:
        if not self.excluded:
            return False
        said = {key_of(word): _value(word) for word in job}
        return any(said.items() >= group.items() for group in self.excluded)

    def check(self, overrides: Sequence[str], jobs: Sequence[Sequence[str]]) -> None:
        """Looks at the whole.

        Args:
            overrides: the others of the command line.
            jobs: of these alone, none left out.

        Raises:
            UserError: a key is given twice; what is to be left out is not there, or is everything.
        """
        given = {key_of(word) for word in overrides}
        for key in self.keys:
            if key in given:
                raise UserError(f"{key} is in {PAIRS} and beside it", where="command line")
        said: dict[str, dict[str, None]] = {}
        for job in Grid(self.pairs).jobs(jobs):
            for word in job:
                said.setdefault(key_of(word), {})[_value(word)] = None
        for group in self.excluded:
            for key, value in group.items():
                where = f"command line: {EXCLUDE}"
                if key not in said:
                    raise UserError(
                        f"{EXCLUDE}: no job says {key}", where=where, hint=did_you_mean(key, said)
                    )
                if value not in said[key]:
                    raise UserError(
                        f"{EXCLUDE}: no job has {key}={value}",
                        where=where,
                        hint=did_you_mean(value, said[key], f"the values of {key} are"),
                    )
        if not self.jobs(jobs):
            raise UserError(f"{EXCLUDE} leaves no job", where="command line")


def taken_out(words: Sequence[str]) -> tuple[list[str], Grid, list[str]]:
    """Takes what is ours out of a command line.

    Returns:
        The other overrides; what ours say; and that in words which Hydra understands.

    Raises:
        UserError: one cannot be read.
    """
    said: dict[str, object] = {PAIRS: [], EXCLUDE: []}
    others, hydras = [], []
    for word in words:
        key = key_of(word)
        if key not in said:
            others.append(word)
            continue
        try:
            override = OverridesParser.create().parse_override(word)
            said[key] = override.value()
        except Exception as error:  # of Hydra and of ANTLR
            raise _unreadable(key, word) from error
        if override.is_sweep_override():
            raise _unreadable(key, word)
        hydras.append(f"hydra.sweeper.{key.removeprefix('sweep.')}={word.partition('=')[2]}")
    grid = Grid.of(said[PAIRS], said[EXCLUDE])
    if hydras and any(key_of(word) == "hydra/sweeper" for word in others):
        raise UserError(
            f"{PAIRS} and {EXCLUDE} are for grids, and hydra/sweeper chooses something else",
            where="command line",
            hint="leave out one of them",
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
        groups.append({str(name): Override._get_value_element_as_str(group[name]) for name in group})
    return tuple(groups)


@functools.lru_cache(4096)
def _value(word: str) -> str:
    """The value of an override as Hydra writes it."""
    value: Any = OverridesParser.create().parse_override(word).value()
    return Override._get_value_element_as_str(value)


def _unreadable(key: str, word: str) -> UserError:
    return UserError(
        f"{key} needs groups of key:value in a list",
        where=f"command line: {word}",
        hint=f"in quotes, and with a colon in the place of each =: '{key}={EXAMPLE}'",
    )
