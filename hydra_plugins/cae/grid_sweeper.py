"""``hydra/sweeper=grid``: Hydra's sweeper with pairs and exclusions, by `cae_cli.sweep.grid`."""

# No postponed annotations: Hydra runs this file before the module is known, and dataclasses look there.

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override

# The module and not its classes: Hydra runs its plugins again before this one, which replaces them.
from cae_cli.config.hydra_internals import basic_sweeper


@dataclass
class GridSweeperConf(basic_sweeper.BasicSweeperConf):
    """The keys below ``hydra.sweeper``; ``sweep.pairs`` and ``sweep.exclude`` set the last two."""

    _target_: str = "hydra_plugins.cae.grid_sweeper.GridSweeper"
    pairs: list[Any] = field(default_factory=list)
    exclude: list[Any] = field(default_factory=list)


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=GridSweeperConf, provider="cae")


class GridSweeper(basic_sweeper.BasicSweeper):
    """Every combination of values and pairs, except for the excluded ones.

    Args:
        max_batch_size: see Hydra's sweeper.
        params: see Hydra's sweeper.
        pairs: overrides that belong together.
        exclude: combinations to leave out.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None = None,
        pairs: Any = (),
        exclude: Any = (),
    ) -> None:
        from cae_cli.sweep.grid import Grid

        super().__init__(max_batch_size, params)
        self.grid = Grid.of(pairs, exclude)

    def split_arguments(  # type: ignore[override]  # Hydra's is static, and called on the instance
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """The jobs, in batches."""
        [jobs] = basic_sweeper.BasicSweeper.split_arguments(overrides, None)
        return list(self.split_overrides_to_chunks(self.grid.jobs(jobs), max_batch_size))
