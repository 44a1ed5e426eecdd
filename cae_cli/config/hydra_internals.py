"""Everything that uses private parts of Hydra.

``tests/test_hydra_internals.py`` names the part that a new version of Hydra has changed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra

from cae_cli.errors import RunFailed

if not hydra.__version__.startswith("1.3."):
    raise RunFailed(
        f"cae needs Hydra 1.3, and Hydra {hydra.__version__} is installed",
        hint="pip install 'hydra-core>=1.3.8,<1.4'",
    )

from hydra import version
from hydra._internal import hydra as hydra_main
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import (
    CachingConfigRepository,
    ConfigRepository,
    IConfigRepository,
)
from hydra._internal.core_plugins import basic_sweeper as basic_sweeper
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, setup_globals
from hydra.plugins.config_source import ConfigResult
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

from cae_cli.config.sources import CONFIGS, Sources
from cae_cli.config.trust import (
    FLAG,
    Refused,
    Trust,
    check_content,
    check_expansion,
    check_untrusted,
    check_yaml,
    readable,
    violations,
)
from cae_cli.options import as_typed, key_of

MOST_LOADS = 500  # of configs, three for each file of a defaults list; those of cae make some 80


def compose(overrides: Sequence[str], sources: Sources) -> tuple[DictConfig, Loader]:
    """Composes a config, with the node of Hydra; errors are those of Hydra, OmegaConf and YAML."""
    loader = loader_of(sources)
    node = loader.load_configuration(sources.config_name, list(overrides), RunMode.RUN, from_shell=False)
    return node, loader


def loader_of(sources: Sources) -> Loader:
    """A loader of the configs of cae, and of the user's where ``--config-dir`` would put them."""
    _set_up()
    search_path = create_config_search_path(str(CONFIGS))
    for folder in sources.folders:
        search_path.prepend(
            "command-line", f"file://{folder.resolve()}", SearchPathQuery(provider="schema")
        )
    return Loader(search_path, sources.trust)


def _set_up() -> None:
    version.setbase("1.3")
    setup_globals()
    JobRuntime.instance().set("name", "train")


def context_of(loader: Any, config: DictConfig | None = None) -> HydraContext:
    """What Hydra passes to launchers and jobs, with the callbacks of a job's config."""
    _set_up()
    return HydraContext(config_loader=loader, callbacks=Callbacks(config))


def flags_parser() -> ArgumentParser:
    """A parser of Hydra's flags."""
    parser: ArgumentParser = get_args_parser()
    return parser


def written(value: Any) -> str:
    """A value as Hydra writes it in an override."""
    return Override._get_value_element_as_str(value)


@contextmanager
def guarding(trust: Trust) -> Iterator[None]:
    """In the block, ``hydra.main`` loads configs with `Loader`."""
    main: Any = hydra_main
    stock = main.ConfigLoaderImpl
    main.ConfigLoaderImpl = functools.partial(Loader, trust=trust)
    try:
        yield
    finally:
        main.ConfigLoaderImpl = stock


def run(task: TaskFunction, overrides: Sequence[str], sources: Sources) -> None:
    """Runs one job as ``hydra.main`` does, and leaves loggers and ``sys.argv`` alone."""
    hydra = hydra_main.Hydra("train", loader_of(sources))
    hydra.run(sources.config_name, task, list(overrides), with_log_configuration=False)


@contextmanager
def isolated() -> Iterator[None]:
    """After the block, what Hydra and OmegaConf keep for the whole process is as it was before."""
    instances: dict[type, Any] = Singleton._instances
    kinds: list[type] = [GlobalHydra, HydraConfig, JobRuntime, version.VersionBase]
    before = {kind: instances.pop(kind) for kind in kinds if kind in instances}
    resolvers = dict(BaseContainer._resolvers)
    try:
        yield
    finally:
        for kind in kinds:
            instances.pop(kind, None)
        instances.update(before)
        BaseContainer._resolvers = resolvers


class _Files(CachingConfigRepository):
    """The config files that Hydra reads for one composition, each checked first."""

    delegate: ConfigRepository

    def __init__(self, delegate: ConfigRepository, trust: Trust) -> None:
        super().__init__(delegate)
        self.trust = trust
        self.loads = 0
        self.paths: dict[str, Path | None] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        is_new = config_path not in self.paths
        file = self.file(config_path)
        name = "" if file is None else shown(file)
        self.loads += 1
        if self.loads > MOST_LOADS:
            raise Refused(
                f"the defaults lists name more than {MOST_LOADS // 3} configs",
                where=name or None,
                hint="does a config name itself, or do two name each other?",
            )
        if file is None or not is_new:
            return super().load_config(config_path)
        is_ours = file.is_relative_to(CONFIGS)
        if config_path.startswith("hydra/") and not (is_ours or self.trust.files):
            # Hydra prefers such a file to its own of that name, even where nobody chose it.
            raise Refused(
                f"{config_path} is an option of Hydra, and a config file must not replace one",
                where=name,
                hint=f"remove the file or, if you trust it, add {FLAG}",
            )
        check_yaml(file, name)
        try:
            result = super().load_config(config_path)
        except Exception as error:
            error.add_note(name)  # `messages.rephrase` says what is wrong, this where
            raise
        if result is not None and not is_ours:
            check_content(result, name, trusted=self.trust.files)
        return result

    def file(self, config_path: str) -> Path | None:
        """The file of a config; None if it is part of an installed package, as Hydra's own are.

        Raises:
            Refused: it is outside its folder of configs.
        """
        if config_path not in self.paths:
            self.paths[config_path] = self._find(config_path)
        return self.paths[config_path]

    def _find(self, config_path: str) -> Path | None:
        source = self.delegate._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() in ("pkg", "structured"):
            return None
        root = os.path.normpath(source.path)
        path = Path(os.path.normpath(Path(root) / source._normalize_file_name(config_path)))
        if not path.is_relative_to(root):
            raise Refused(
                f"the config {config_path!r} is outside the folder of configs",
                where=root,
                hint="add a folder with -cd FOLDER",
            )
        return path

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self.paths.clear()  # hydra.searchpath was given


class Loader(ConfigLoaderImpl):
    """Hydra's loader of configs, with the checks of `trust`.

    Hydra composes a config several times on the way to a job, also in the worker processes of a
    launcher, each time with this loader.

    Args:
        config_search_path: folders and packages of configs.
        trust: which files and overrides are trusted.
    """

    def __init__(self, config_search_path: ConfigSearchPath, trust: Trust) -> None:
        super().__init__(config_search_path)
        self.trust = trust
        self.overrides: Sequence[str] = ()
        self.files: list[tuple[Path, Any]] = []  # and their content, in the order of merging
        self._jobs: dict[tuple[str, ...], bytes] = {}  # configs, pickled: a tenth of their size
        self._repo: _Files | None = None  # of the last composition

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """As Hydra does.

        Raises:
            Refused: a file or an override is not allowed.
        """
        self.overrides, self.files = list(overrides), []
        node = super().load_configuration(
            config_name, overrides, run_mode, from_shell, validate_sweep_overrides
        )
        check_expansion(node)
        for key, complaint in (*violations(node), *self._changed_logging(node)):
            raise Refused(f"{key} {complaint}", where=self.origin(key), hint=f"remove {key}")
        return node

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """As Hydra does. Its sweeper composes every job as a check, and a launcher once more."""
        key = tuple(sweep_overrides)
        if kept := self._jobs.pop(key, None):
            again: DictConfig = pickle.loads(kept)  # of this process
            return again
        node = super().load_sweep_config(master_config, sweep_overrides)
        with contextlib.suppress(pickle.PicklingError):  # of some plugins' options
            self._jobs[key] = pickle.dumps(node)
        return node

    def __getstate__(self) -> dict[str, Any]:
        """Workers of a launcher get no configs but their own."""
        return {**vars(self), "_jobs": {}, "_repo": None}

    def origin(self, key: str) -> str | None:
        """Where the value of ``key`` is set: the override, or the file."""
        plain = key.partition("[")[0]
        source = "command line" if self.trust.overrides else "command of the run"
        for override in reversed(self.overrides):
            own = key_of(override)
            is_within = key.startswith(f"{own}.") and ("." in own or "{" in override)
            if own in (key, plain) or own.startswith(f"{key}.") or is_within:
                return f"{source}: {as_typed(override)}"
        parts = plain.split(".")
        for length in range(len(parts), 0, -1):  # a key without a value: the file of its group
            for file, content in reversed(self.files):
                if _has(content, parts[:length]):
                    return shown(file)
        return None

    def _changed_logging(self, node: DictConfig) -> Iterator[tuple[str, str]]:
        """Loggers can import and call anything, so they are those of an installed package."""
        tree: Any = OmegaConf.to_container(node, resolve=False)
        repo = self._repo
        assert repo is not None
        for name in ("job_logging", "hydra_logging"):
            option = f"hydra/{name}/{node.hydra.runtime.choices.get(f'hydra/{name}')}"
            config = repo.load_config(option)
            content = None if config is None else OmegaConf.to_container(config.config, resolve=False)
            if tree["hydra"][name] != content or repo.file(option) is not None:
                yield f"hydra.{name}", f"may run anything and is refused; choose one: hydra/{name}=…"

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        readable(overrides)
        # configs/ has no values for rules, so to Hydra each is a key to be added.
        added = [f"++{o}" if o.startswith("rules.") else o for o in overrides]
        parsed = OverridesParser.create().parse_overrides(overrides=added)
        for override, typed in zip(parsed, overrides, strict=True):
            override.input_line = typed
            if not self.trust.overrides:
                check_untrusted(override)
        self._repo = repo = _Files(self.repository, self.trust)
        self._process_config_searchpath(config_name, parsed, repo)
        return parsed, repo

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        assert isinstance(repo, _Files) and default.config_path is not None
        result = super()._load_single_config(default, repo)
        if file := repo.file(default.config_path):
            self.files.append((file, OmegaConf.to_container(result.config, resolve=False)))
        return result


def _has(content: Any, parts: Sequence[str]) -> bool:
    for part in parts:
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


def shown(path: Path) -> str:
    """A path relative to the current folder, if it is inside."""
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(path)
