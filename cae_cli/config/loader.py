"""Hydra's loader of configs, with three looks more.

At the text of a file before it is read (`untangle`), at what a file says of Hydra before it is merged,
and at the whole before anybody uses it. Hydra composes a config several times on its way to a job,
also in the worker processes of a launcher, and every time through here.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal import hydra as hydra_main
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import (
    CachingConfigRepository,
    ConfigRepository,
    IConfigRepository,
)
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault, ResultDefault
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, Node, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cae_cli.config.trust import (
    FLAG,
    OUR_FOLDER,
    Refused,
    Trust,
    factories,
    forbidden,
    is_below,
    is_hydras,
    is_name,
    parts,
    readable,
    refusal,
    targets,
)
from cae_cli.config.untangle import untangled
from cae_cli.options import key_of

MOST_LOADS = 500  # of configs, three for each file of a defaults list; ours make some 80


class _Files(CachingConfigRepository):
    """The config files that Hydra reads for one composition, looked at before it does."""

    delegate: ConfigRepository

    def __init__(self, delegate: ConfigRepository, trust: Trust) -> None:
        super().__init__(delegate)
        self.trust = trust
        self.loads = 0
        self.found: dict[str, Path | None] = {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        is_new = config_path not in self.found
        file = self.file(config_path)
        self.loads += 1
        if self.loads > MOST_LOADS:
            raise Refused(
                f"the defaults lists name more than {MOST_LOADS // 3} configs",
                where=None if file is None else _short(file),
                hint="does a config name itself, or two of them each other?",
            )
        if is_new and file is not None:
            if config_path.startswith("hydra/") and not self.trust.files:
                # Hydra prefers it to what it has by that name, even where nobody chose anything.
                raise Refused(
                    f"{config_path} is an option of Hydra's own, and a config file may not be one",
                    where=_short(file),
                    hint=f"leave the file out or, if you trust it, add {FLAG}",
                )
            untangled(file, _short(file))
        try:
            result = super().load_config(config_path)
        except Exception as error:
            if file is not None:
                error.add_note(_short(file))  # `compose.rephrase` says what is wrong, this where
            raise
        if is_new and file is not None and result is not None:
            for default in result.defaults_list or ():
                _check_default(default, file)
        return result

    def file(self, config_path: str) -> Path | None:
        """The file of a config; None where it is part of installed code, as Hydra's own are.

        Raises:
            Refused: it is outside the folder that it was looked for in.
        """
        if config_path not in self.found:
            self.found[config_path] = self._find(config_path)
        return self.found[config_path]

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
                hint="-cd FOLDER adds a folder",
            )
        return path

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        primary = [path for path in self.found if f"config_path={path}" in self.cache]
        self.found = {path: self.found[path] for path in primary}  # others may be elsewhere now


def _check_default(default: InputDefault, file: Path) -> None:
    """An entry of a defaults list may name other groups' choices, and nothing that is computed."""
    texts: list[Any] = []
    if isinstance(default, GroupDefault):
        texts.append(default.group)
        texts += default.value if isinstance(default.value, list) else [default.value]
    elif isinstance(default, ConfigDefault):
        texts.append(default.path)
    computed = [text for text in texts if isinstance(text, str) and "${" in text and ":" in text]
    for text in [*computed, *([default.package] if "${" in (default.package or "") else [])]:
        raise Refused(
            f"defaults: {text} is computed, and only ${{group}} may stand in a defaults list",
            where=_short(file),
            hint="name the option",
        )


class Loader(ConfigLoaderImpl):
    """Hydra's loader of configs, which believes what a person typed and no file.

    Args:
        config_search_path: where configs are looked for.
        trust: whom else to believe.
    """

    def __init__(self, config_search_path: ConfigSearchPath, trust: Trust) -> None:
        super().__init__(config_search_path)
        self.trust = trust
        self.overrides: Sequence[str] = ()
        self.files: list[tuple[Path, dict[Any, Any]]] = []  # in the order in which they were merged
        self._jobs: dict[tuple[str, ...], bytes] = {}  # configs, pickled: a tenth of their size

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """As Hydra does, and refuses what may not be.

        Raises:
            Refused: a file, or anybody, said what it may not.
        """
        global _last
        _last = self
        self.overrides, self.files = list(overrides), []
        node = super().load_configuration(
            config_name, overrides, run_mode, from_shell, validate_sweep_overrides
        )
        tree: Any = OmegaConf.to_container(node, resolve=False)
        self._check_targets(node, tree)
        self._check_logging(node, tree)
        self._check_names(node)
        self._check_folders(node)
        return node

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """As Hydra does. Its sweeper asks for every job to see that none is wrong, a launcher again."""
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
        return {**vars(self), "_jobs": {}}

    def origin(self, key: str) -> str | None:
        """Where the value of ``key`` was given: on the command line, or the file that has it."""
        plain = key.partition("[")[0]
        words = "command line" if self.trust.words else "command of the run"
        for override in reversed(self.overrides):
            own = key_of(override)
            is_within = key.startswith(f"{own}.") and ("." in own or "{" in override)
            if own in (key, plain) or own.startswith(f"{key}.") or is_within:
                return f"{words}: {override}"
        parts = plain.split(".")
        for length in range(len(parts), 0, -1):  # what has no value has something above it
            for file, content in reversed(self.files):
                if _has(content, parts[:length]):
                    return _short(file)
        return None

    def typed(self, key: str) -> bool:
        """Whether the command line says ``key``, or chooses an option that does."""
        own = [re.split(r"[@=]", o.lstrip("+~"))[0].replace("/", ".") for o in self.overrides]
        return any(k and (k == key or key.startswith(f"{k}.") or k.startswith(f"{key}.")) for k in own)

    def refuse(self, key: str, why: str, hint: str | None = None) -> Refused:
        """The error of a key that may not be what it is."""
        return Refused(f"{key} {why}", where=self.origin(key), hint=hint or f"leave {key} out")

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        readable(overrides)
        parsed = OverridesParser.create().parse_overrides(overrides=overrides)
        for override in parsed:
            if not self.trust.words and is_hydras(override):
                raise Refused(
                    f"{override.input_line}: words from a run's folder may not say this of Hydra",
                    hint="make the run again with cae train",
                )
        repo = _Files(self.repository, self.trust)
        self._process_config_searchpath(config_name, parsed, repo)
        return parsed, repo

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: CachingConfigRepository
    ) -> None:
        # Hydra imports a package that is named here, before anything is composed.
        assert isinstance(repo, _Files)
        result = repo.load_config(config_name) if config_name else None
        file = repo.file(config_name) if config_name else None
        if file is not None and result is not None:
            self._check_file(file, OmegaConf.to_container(result.config, resolve=False))
        super()._process_config_searchpath(config_name, parsed_overrides, repo)

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        assert isinstance(repo, _Files) and default.config_path is not None
        result = super()._load_single_config(default, repo)
        file = repo.file(default.config_path)
        if file is None:
            return result
        content = OmegaConf.to_container(result.config, resolve=False)
        if isinstance(content, dict):
            self.files.append((file, content))
        self._check_file(file, content)
        return result

    def _check_file(self, file: Path, content: Any) -> None:
        """What a file says of Hydra is harmless, unless the person trusts it."""
        if not isinstance(content, dict) or "hydra" not in content:
            return
        for key in forbidden(content["hydra"]):
            if key == "hydra.mode":
                raise Refused(f"{key} is not for a file", where=_short(file), hint="cae train -m")
            if not self.trust.files:
                raise Refused(
                    f"{key}: a config file may not set it so",
                    where=_short(file),
                    hint=f"give it on the command line ({key}=…) or, if you trust the file, add {FLAG}",
                )

    def _check_targets(self, node: DictConfig, tree: Any) -> None:
        """Classes by name are Hydra's plugins, and nothing else is built or called."""
        for key in ("hydra.callbacks", "hydra.job.env_copy", "hydra.job.env_set"):
            if OmegaConf.select(node, key):
                raise self.refuse(key, "may run anything and is refused")
        for key, value in targets(tree):
            raise self.refuse(key, f"may run anything and is refused: {value}")

    def _check_logging(self, node: DictConfig, tree: Any) -> None:
        """Logs go to the screen and into the run's folder, by what Hydra brings along."""
        for name in ("job_logging", "hydra_logging"):
            key = f"hydra.{name}"
            raw = tree["hydra"][name]
            for found, value in factories({"hydra": {name: _as_in_a_job(node, name, raw)}}):
                raise self.refuse(found, f"may run anything and is refused: {value}")
            for place, part, value in parts(raw, key):
                inside = str(value).startswith("${hydra.runtime.output_dir}/")
                if part == "filename" and not (inside or self.trust.files or self.typed(key)):
                    raise self.refuse(
                        f"{place}.{part}",
                        f"is outside the run's folder: {value}",
                        f"on the command line it may be any: hydra/{name}=…",
                    )

    def _check_names(self, node: DictConfig) -> None:
        """What becomes part of a path is a plain name."""
        for key in ("hydra.job.name", "hydra.output_subdir"):
            value = OmegaConf.select(node, key)
            if not is_name(value) and not (value is None and key == "hydra.output_subdir"):
                raise self.refuse(key, f"must be a plain name, got {value!r}")

    def _check_folders(self, node: DictConfig) -> None:
        """Runs are written below the current folder, unless the person says where."""
        for key in ("hydra.run.dir", "hydra.sweep.dir"):
            if self.trust.files or self.typed(key):
                continue
            try:
                folder = OmegaConf.select(node, key)
            except OmegaConfBaseException as error:
                if said := refusal(error):
                    raise said from error
                continue  # `commands.train` asks once more, and says what is wrong
            raw = node.hydra.run if key == "hydra.run.dir" else node.hydra.sweep
            if raw._get_node("dir")._value() != OUR_FOLDER and not is_below(str(folder)):
                raise self.refuse(
                    key,
                    f"must be a folder below the current one, got {folder!r}",
                    f"on the command line it may be any: {key}=…",
                )


def _has(content: Any, parts: Sequence[str]) -> bool:
    for part in parts:
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


def _short(path: Path) -> str:
    """Relative to the current folder where that is shorter."""
    resolved = path.resolve()
    return str(resolved.relative_to(Path.cwd())) if resolved.is_relative_to(Path.cwd()) else str(path)


def _as_in_a_job(node: DictConfig, name: str, raw: Any) -> Any:
    """What ``logging`` will be given: interpolations resolved, with what only a job has made up."""
    if "${" not in str(raw):
        return raw
    job = copy.deepcopy(node)
    with open_dict(job):
        job.hydra.runtime.output_dir = "."
        job.hydra.job.num = 0
        job.hydra.job.id = "0"
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(job)
    try:
        return OmegaConf.to_container(job.hydra[name], resolve=True)
    finally:
        HydraConfig.instance().cfg = before


def check_subdir(node: DictConfig, number: int) -> None:
    """Looks at the folder of a sweep's job.

    Args:
        node: the job's composed config; gets the job's number.
        number: of the job.

    Raises:
        UserError: it would not be inside the folder of the sweep.
    """
    with open_dict(node):
        node.hydra.job.num = number
        node.hydra.job.id = str(number)
    subdir = str(OmegaConf.select(node, "hydra.sweep.subdir"))
    path = Path(os.path.normpath(subdir))
    if not subdir.strip() or path.is_absolute() or path.parts[:1] in ((), ("..",)):
        raise Refused(
            f"hydra.sweep.subdir must be inside the folder of the sweep, got {subdir!r}",
            where=f"job {number}",
            hint="leave hydra.sweep.subdir out",
        )


# The loader that composed last: it knows which variables may be read, and which file asks for one.
_last: Loader | None = None


def adopt(loader: Loader) -> None:
    """Lets a job's process ask the loader that composed its config, in another process."""
    global _last
    _last = loader


def _environment(name: str, *default: Any, _node_: Node) -> str | None:
    """``oc.env``: a variable of the environment, if the person asked for it.

    In place of OmegaConf's resolver of that name, whatever way leads to it: ``${${x}.env:HOME}`` too.
    """
    trust = _last.trust if _last is not None else Trust()
    if not (trust.files or name in trust.environment):
        key = _node_._get_full_key(None)
        hint = f"write ${{oc.env:{name}}} there, in quotes; or, if you trust the file, add {FLAG}"
        raise Refused(
            f"{key}: only the command line may read the environment variable {name}",
            where=_last.origin(key) if _last is not None else None,
            hint=hint if trust.words else "make the run again with cae train",
        )
    if name in os.environ:
        return os.environ[name]
    if not default:
        raise KeyError(f"there is no environment variable {name}")
    return None if default[0] is None else str(default[0])


OmegaConf.register_new_resolver("oc.env", _environment, replace=True)


@contextmanager
def guarding(trust: Trust) -> Iterator[None]:
    """Lets Hydra's own ``main`` load configs with `Loader`."""
    main: Any = hydra_main
    stock = main.ConfigLoaderImpl
    main.ConfigLoaderImpl = functools.partial(Loader, trust=trust)
    try:
        yield
    finally:
        main.ConfigLoaderImpl = stock
