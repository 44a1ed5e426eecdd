"""Where configs come from: the folder of this package, and folders of the user."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cae_cli.config.trust import Trust

_PACKAGE = Path(__file__).parents[1]
# An installed package contains its configs; in a checkout they lie next to it.
CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


@dataclass(frozen=True)
class Sources:
    """Where configs come from.

    Attributes:
        config_name: name of the primary config.
        folders: config folders of the user. Where names are the same, the file of cae is used.
        trust: which config files and overrides are trusted.
    """

    config_name: str = "config"
    folders: tuple[Path, ...] = ()
    trust: Trust = field(default_factory=Trust)

    def find(self, group: str, name: str) -> Path | None:
        """The file of an option."""
        paths = (folder / group / f"{name}.yaml" for folder in (CONFIGS, *self.folders))
        return next(filter(Path.is_file, paths), None)

    def options(self, group: str) -> dict[str, Path]:
        """The options of a group and their files, without shared parts (_common.yaml)."""
        options: dict[str, Path] = {}
        for folder in (CONFIGS, *self.folders):
            for path in sorted((folder / group).glob("*.yaml")):
                if not path.name.startswith("_") and path.is_file():
                    options.setdefault(path.stem, path)
        return options
