"""What a config file may contain, and what is refused from anyone.

A config file says what to train. It may not set options of Hydra, call a resolver such as
``${oc.env:HOME}``, or contain YAML beyond plain values, unless it is part of cae or the user adds
``--trust-configs``. `hydra_internals` calls the checks of this module.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, open_dict

from cae_cli.errors import UserError

FLAG = "--trust-configs"
_TRUST_HINT = f"set it on the command line or, if you trust the file, add {FLAG}"

MOST_LETTERS = 50_000  # of an override: Hydra's parser takes seconds for more

# Limits of a YAML file, larger than any config that a person writes.
MOST_BYTES = 256 * 1024
MOST_NODES = 20_000
DEEPEST = 50
# And of what its interpolations make of it.
MOST_EXPANDED = 1_000_000  # characters
DEEPEST_REFERENCE = 100
# Tags of plain values, which need not be written.
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(UserError):
    """Something that is not allowed in a config file, or from anyone."""


@dataclass(frozen=True)
class Trust:
    """Which config files and overrides are trusted.

    Attributes:
        files: config files may call resolvers and set options of Hydra (``--trust-configs``).
        overrides: the user typed the overrides; false where they come from the folder of a run.
    """

    files: bool = False
    overrides: bool = True


# -- command line ----------------------------------------------------------------------------------


def readable(arguments: Sequence[str]) -> None:
    """Checks arguments before Hydra parses them and writes them to files.

    Raises:
        UserError: one is not UTF-8 text, or too long.
    """
    for argument in arguments:
        if len(argument) > MOST_LETTERS:
            raise UserError(
                f"an override has {len(argument):,} characters, more than {MOST_LETTERS:,}",
                where=f"command line: {argument[:40]}…",
                hint="write long lists in a config file: cae train -cd FOLDER",
            )
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UserError(
                "not text in UTF-8, the encoding of all files of a run",
                where=f"command line: {argument.encode(errors='backslashreplace').decode()}",
                hint="rename the file or folder",
            ) from None


def is_hydras(override: Override) -> bool:
    """Whether an override sets an option of Hydra itself."""
    names = (override.key_or_group, override.package or "")
    return any(re.match(r"/*hydra(\W|$)", name) for name in names)


def check_untrusted(override: Override) -> None:
    """Checks an override that comes from the folder of a run.

    Raises:
        Refused: it sets an option of Hydra, or calls a resolver.
    """
    text = override.input_line or ""
    if is_hydras(override) or _calls(text.replace("\\", "")):
        raise Refused(
            f"{text}: only the command line may set options of Hydra or call resolvers",
            hint="start the run again with cae train",
        )


def _calls(text: Any) -> bool:
    """Whether text may call a resolver, such as ``${oc.env:HOME}`` or ``${${name}:HOME}``."""
    return isinstance(text, str) and ":" in text.partition("${")[2]


# -- config files ----------------------------------------------------------------------------------


def check_yaml(file: Path, name: str) -> None:
    """Checks the text of a YAML file, without constructing anything from it.

    Args:
        file: an existing path.
        name: how messages call it.

    Raises:
        UserError: not a file, too large, not UTF-8, or YAML other than plain text, numbers, lists and
            mappings: tags, anchors and aliases are refused. Names the file and the line.
    """
    if not file.is_file():  # reading a pipe or a device may never end
        raise UserError("a config must be a file", where=name)
    with file.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(f"the config is larger than {MOST_BYTES // 1024} kB", where=name)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError("the config is not text in UTF-8", where=f"{name}:{line}") from None
    try:
        depth = 0
        for number, event in enumerate(yaml.parse(text, Loader=_Parser)):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            tag = getattr(event, "tag", None)
            complaint = hint = None
            if anchor := getattr(event, "anchor", None):
                complaint = f"the anchor or alias {anchor} is refused"
                hint = "write the value out, or refer to a key: ${group.key}"
            elif tag not in (None, "!") and tag not in _TAGS:
                complaint = f"the tag {tag.replace('tag:yaml.org,2002:', '!!')} is refused"
                hint = "a config holds text, numbers, lists and mappings; no tag is needed"
            elif depth > DEEPEST:
                complaint = f"nested deeper than {DEEPEST}"
            elif number > MOST_NODES:
                complaint = f"more than {MOST_NODES:,} values"
            if complaint:
                where = f"{name}:{event.start_mark.line + 1}"
                raise UserError(f"not valid as a config: {complaint}", where=where, hint=hint)
    except yaml.YAMLError as error:
        raise yaml_error(error, name) from error


def yaml_error(error: Exception, name: str | None = None) -> UserError:
    """The message for an error of the YAML reader."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"{name or mark.name}:{mark.line + 1}" if mark else name
    return UserError(f"not valid YAML: {problem}", where=where)


def check_content(config: ConfigResult, name: str, *, trusted: bool) -> None:
    """Checks a config file that Hydra has read.

    Args:
        config: its content, its defaults list and its header.
        name: how messages call the file.
        trusted: the user added ``--trust-configs``.

    Raises:
        Refused: it sets an option of Hydra, or calls a resolver.
    """
    content: Any = OmegaConf.to_container(config.config, resolve=False)
    hydras = content.get("hydra") if isinstance(content, dict) else None
    if isinstance(hydras, dict) and "mode" in hydras:
        raise Refused(
            "hydra.mode must not be set in a config file", where=name, hint="cae train -m runs a sweep"
        )
    if trusted:
        return
    if isinstance(content, dict) and "hydra" in content:
        keys = list(hydras) if isinstance(hydras, dict) else []
        _refuse_hydras(", ".join(f"hydra.{key}" for key in keys) or "hydra", name)
    _check_package((config.header or {}).get("package"), name)
    for default in config.defaults_list or ():
        _check_default(default, name)
    for above, key, value in _items(content):
        if _calls(value):
            path = f"{above}.{key}".lstrip(".")
            raise Refused(
                f"{path}: a config file must not call a resolver, got {value[:60]!r}",
                where=name,
                hint=f"use ${{key}} for the value of another key, or {_TRUST_HINT}",
            )


def _refuse_hydras(key: str, name: str) -> None:
    raise Refused(f"{key}: a config file must not set options of Hydra", where=name, hint=_TRUST_HINT)


def _check_package(package: str | None, name: str) -> None:
    if "${" in (package or "") or re.search(r"(^|\.)hydra(\W|$)", package or ""):
        _refuse_hydras(f"@{package}", name)


def _check_default(default: InputDefault, name: str) -> None:
    """An entry of a defaults list may choose options, also a launcher, and compute nothing."""
    _check_package(default.package, name)
    group, values = "", [str(getattr(default, "path", None))]
    if isinstance(default, GroupDefault):
        group = (default.group or "").strip("/")
        values = [
            str(v) for v in (default.value if isinstance(default.value, list) else [default.value])
        ]
    for text in (group, *values):
        if _calls(text):
            raise Refused(
                f"defaults: {text} calls a resolver; only ${{group}} is allowed in a defaults list",
                where=name,
                hint="write the name of the option",
            )
    is_path = isinstance(default, ConfigDefault) and re.search(r"(^|/)hydra/", values[0])
    if is_path or re.search(r"(^|/)hydra(/|$)", group):
        # hydra_debug writes a file into the current folder
        safe = r"default|disabled|none|stdout" if group.endswith("_logging") else r"\w+"
        calls = re.search(r"(^|/)hydra/callbacks(/|$)", group)
        if is_path or calls or not all(re.fullmatch(safe, value) for value in values):
            _refuse_hydras(group or values[0], name)


# -- the composed config ---------------------------------------------------------------------------

_REFERENCE = re.compile(r"\$\{([^${}:]*)\}")  # the innermost of nested ones
_UNKNOWN = "\0"  # in place of a value that is not plain text


def check_expansion(node: DictConfig) -> None:
    """Checks on paper how large interpolations make a composed config, without resolving any.

    Raises:
        Refused: larger than `MOST_EXPANDED`, as when every key doubles the next one; or keys refer to
            each other in a circle, or through very many others.
    """
    tree = OmegaConf.to_container(node, resolve=False)
    sizes: dict[tuple[str, ...], int] = {}

    def size(path: tuple[str, ...], depth: int = 0) -> int:
        """Characters and nodes at a path."""
        if path in sizes:
            return sizes[path]
        key = ".".join(path)
        if depth > DEEPEST_REFERENCE:
            raise Refused(f"{key}: interpolations ${{…}} form a circle, or too long a chain")
        value = _at(tree, path)
        total = 1
        if isinstance(value, str):
            inner = list(_targets(tree, path, value))
            total = len(value)
        else:
            inner = [(*path, name) for above, name, _ in _items(value) if not above]
        total += sum(size(other, depth + 1) for other in inner)
        if total > MOST_EXPANDED:
            raise _too_large(key)
        return sizes.setdefault(path, total)

    size(())


def _too_large(key: str) -> Refused:
    return Refused(
        f"{key or 'the config'}: with its interpolations ${{…}} it is larger than "
        f"{MOST_EXPANDED:,} characters",
        hint="write shorter values",
    )


def _targets(tree: Any, path: tuple[str, ...], text: str) -> Iterator[tuple[str, ...]]:
    """The paths that text at ``path`` refers to, ``${a.${b}}`` too.

    Raises:
        Refused: which key is meant can be known only by resolving interpolations.
    """
    while references := _REFERENCE.findall(text):
        if any(_UNKNOWN in reference for reference in references):
            raise Refused(
                f"{'.'.join(path)}: in ${{a.${{b}}}}, b must be plain text", hint="write the key out"
            )
        targets = {reference: _target(path, reference) for reference in references}
        yield from (targets[reference] for reference in references)  # each as often as it stands there
        rest = _REFERENCE.sub("", text)
        if "${" not in rest:
            return
        inner = {reference: _plain_text(_at(tree, target)) for reference, target in targets.items()}
        if len(rest) + sum(len(inner[reference]) for reference in references) > MOST_EXPANDED:
            raise _too_large(".".join(path))
        for reference, plain in inner.items():
            text = text.replace(f"${{{reference}}}", plain)


def _plain_text(value: Any) -> str:
    return _UNKNOWN if isinstance(value, dict | list) or "${" in str(value) else str(value)


def _target(path: tuple[str, ...], reference: str) -> tuple[str, ...]:
    """The path that a reference in the value at ``path`` means: ``a.b``, ``.sibling``, ``list[0]``."""
    name = reference.strip()
    key = name.lstrip(".")
    dots = len(name) - len(key)
    base = path[: max(0, len(path) - dots)] if dots else ()
    return (*base, *(part for part in re.split(r"[.\[\]]+", key) if part))


def _at(tree: Any, path: Sequence[str]) -> Any:
    """The value at a path, None if there is none."""
    for part in path:
        if isinstance(tree, list) and part.isdecimal() and int(part) < len(tree):
            tree = tree[int(part)]
        elif isinstance(tree, dict):
            tree = next((inner for name, inner in tree.items() if str(name) == part), None)
        else:
            return None
    return tree


# The classes that options of Hydra's plugins name, besides the plugins themselves.
_CLASSES = frozenset(
    f"optuna.{name}"
    for name in (
        *(f"samplers.{kind}Sampler" for kind in ("TPE", "Random", "CmaEs", "NSGAII", "MOTPE", "Grid")),
        *(f"pruners.{kind}Pruner" for kind in ("Median", "Nop", "Percentile", "Hyperband")),
    )
)


def violations(node: DictConfig) -> Iterator[tuple[str, str]]:
    """What nobody may set, also on the command line: keys, and what is wrong with each.

    Callbacks run what they name. Files that are not trusted set none: `check_content` sees to that.

    Args:
        node: the composed config, with the node of Hydra.
    """
    for key in ("hydra.job.env_copy", "hydra.job.env_set"):
        if OmegaConf.select(node, key):
            yield key, "may run anything and is refused"
    for above, key, value in _items(OmegaConf.to_container(node, resolve=False)):
        is_callback = f"{above}.".startswith("hydra.callbacks.")
        if key == "_target_" and not is_callback and str(value) not in _classes(above):
            yield f"{above}.{key}".lstrip("."), f"may run anything and is refused: {value}"
    for key in ("hydra.job.name", "hydra.output_subdir"):  # become parts of paths
        value = OmegaConf.select(node, key)
        is_name = isinstance(value, str) and re.fullmatch(r"\.?\w[\w.-]*", value)
        if not is_name and not (value is None and key == "hydra.output_subdir"):
            yield key, f"must be a plain name, got {value!r}"


def _classes(key: str) -> Iterable[str]:
    kinds: dict[str, type] = {"hydra.launcher": Launcher, "hydra.sweeper": Sweeper}
    if key in kinds:
        plugins = Plugins.instance().discover(kinds[key])
        return [f"{plugin.__module__}.{plugin.__name__}" for plugin in plugins]
    return _CLASSES if key in ("hydra.sweeper.sampler", "hydra.sweeper.pruner") else ()


def _items(node: Any, key: str = "") -> Iterator[tuple[str, str, Any]]:
    """All items of a tree: the key of the node, the name in it, the value."""
    items: Any = ()
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    for name, inner in items:
        yield key, str(name), inner
        yield from _items(inner, f"{key}.{name}" if key else str(name))


def check_subdir(node: DictConfig, number: int) -> None:
    """Checks that the folder of a sweep's job is inside the folder of the sweep.

    Args:
        node: the job's composed config; gets the job's number.
        number: of the job.

    Raises:
        Refused: it is not.
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
            hint="remove hydra.sweep.subdir",
        )
