"""Reads and checks the files of cases.

An unknown key is an error: a misspelt key would otherwise silently change the training of a case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import yaml  # type: ignore[import-untyped]

from benchmarks.faults.case import (
    Case,
    CaseOptions,
    Source,
    SourceOptions,
    Training,
    VariantOptions,
    joined,
)
from benchmarks.faults.corruption import check_name
from cae_cli.config.trust import check_yaml
from cae_cli.diagnosis import RULES
from cae_cli.errors import UserError, did_you_mean
from cae_cli.options import OptionError, build, key_of
from cae_cli.system.files import typed

T = TypeVar("T")

SOURCES_FILE = "data.yaml"
NAME = r"[a-z0-9]+(?:_[a-z0-9]+)*"  # no dot: dots separate the parts of a run folder's name
# Values of keys that may be left out; `fixable` defaults to whether the case is faulty.
CASE_DEFAULTS: dict[str, Any] = {"causes": [], "second_fault": [], "adjusted": False, "config": []}
VARIANT_DEFAULTS: dict[str, Any] = {"config": [], "corrupt": None}


def read(paths: Iterable[Path]) -> tuple[Case, ...]:
    """Reads case files, and all case files of folders.

    Args:
        paths: files or folders. The sources of the images are in ``data.yaml`` in the folder of a file
            or in its parent folder.

    Returns:
        The cases, sorted by name.

    Raises:
        UserError: a file cannot be read or has a wrong value; names the file and the key.
    """
    cases: dict[str, Case] = {}
    sources: dict[Path, Mapping[str, Source]] = {}
    for file in (file for path in paths for file in _files(typed(path))):
        sources_file = _sources_file(file)
        if sources_file not in sources:
            sources[sources_file] = read_sources(sources_file)
        case = read_case(file, sources[sources_file])
        other = cases.setdefault(case.name, case)
        if other.file != file:
            hint = f"the other one is {other.file}"
            raise UserError(f"two cases are named {case.name}", where=file, hint=hint)
    return tuple(cases[name] for name in sorted(cases))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.yaml")) if file.name != SOURCES_FILE]
        if not files:
            raise UserError("the folder has no cases", where=path, hint="a case is a file NAME.yaml")
        return files
    if not path.exists():
        names = [file.name for file in path.parent.glob("*.yaml")]
        raise UserError(
            "the case file does not exist", where=path, hint=did_you_mean(path.name, names, "use one of")
        )
    return [path]


def _sources_file(file: Path) -> Path:
    for folder in (file.parent, file.resolve().parent.parent):
        if (folder / SOURCES_FILE).is_file():
            return folder / SOURCES_FILE
    raise UserError(
        f"{SOURCES_FILE} is missing",
        where=file.parent,
        hint="define the images in this folder or its parent: NAME: {config: [data=...], doc: ...}",
    )


def read_sources(file: Path) -> dict[str, Source]:
    """Reads the sources of images, by name.

    Raises:
        UserError: the file cannot be read or has a wrong value.
    """
    sources = {}
    for name, node in _tree(file).items():
        _check_name(name, f"{file}: {name}")
        options = _built(SourceOptions, node, file, str(name))
        _check_overrides(options.config, f"{file}: {name}.config", reserved={"seed": "seeds: [0, 1]"})
        if not options.doc.strip():
            hint = "describe the images in a sentence"
            raise UserError("doc is empty", where=f"{file}: {name}.doc", hint=hint)
        if not any(key_of(override) == "data" for override in options.config):
            where = f"{file}: {name}.config"
            raise UserError("config must choose images", where=where, hint="config: [data=glyphs]")
        sources[name] = Source(name, tuple(options.config), options.doc)
    return sources


def read_case(file: Path, sources: Mapping[str, Source]) -> Case:
    """Reads one case.

    Args:
        file: the case file.
        sources: what ``data`` of a variant may name.

    Raises:
        UserError: names the file and the wrong key.
    """
    tree = _tree(file)
    _check_name(file.stem, file)
    is_faulty = tree.get("expect") == "faulty"
    options = _built(CaseOptions, {**CASE_DEFAULTS, "fixable": is_faulty, **tree}, file)
    for key in ("causes", "second_fault"):
        _check_codes(getattr(options, key), key, f"{file}: {key}")
    if is_faulty and not options.causes:
        hint = "causes: [CAE101] lists the codes that are right"
        raise UserError("a faulty case needs causes", where=f"{file}: causes", hint=hint)
    if not is_faulty:
        for key in ("causes", "second_fault", "fixable"):
            if getattr(options, key):
                hint = f"remove {key}, or write expect: faulty"
                raise UserError(
                    f"a {options.expect} case cannot have {key}", where=f"{file}: {key}", hint=hint
                )
    _check_overrides(options.config, f"{file}: config")
    case = Case(file.stem, file, _first_comment(file), options)
    trainings = tuple(
        training
        for number, node in enumerate(options.variants)
        for training in _trainings(case, number, node, options.config, sources)
    )
    _check_distinct(trainings, file)
    object.__setattr__(case, "trainings", trainings)  # trainings and their case refer to each other
    return case


def _trainings(
    case: Case, number: int, node: Any, config: list[str], sources: Mapping[str, Source]
) -> list[Training]:
    path = f"variants[{number}]"
    where = f"{case.file}: {path}"
    options = _built(VariantOptions, {**VARIANT_DEFAULTS, **node}, case.file, path)
    if options.data not in sources:
        hint = did_you_mean(options.data, sources, "use one of")
        raise UserError(f"there is no source {options.data!r}", where=f"{where}.data", hint=hint)
    if len(set(options.seeds)) != len(options.seeds):
        raise UserError("a seed is listed twice", where=f"{where}.seeds")
    if options.corrupt is not None:
        check_name(options.corrupt, f"{where}.corrupt")
    _check_overrides(options.config, f"{where}.config")
    overrides = joined(config, options.config)
    source = sources[options.data]
    return [
        Training(case, number, options.part, source, seed, overrides, options.corrupt)
        for seed in options.seeds
    ]


def _built(cls: type[T], node: Any, file: Path, path: str = "") -> T:
    """Options of a mapping in a file; an error names the file, the key and what may be there."""
    if not isinstance(node, dict):
        keys = ", ".join(field.name for field in fields(cls))  # type: ignore[arg-type]
        raise UserError(f"{path} must be a mapping", where=f"{file}: {path}", hint=f"its keys: {keys}")
    try:
        return build(cls, node, path)
    except OptionError as error:
        key = error.key.rpartition(".")[2].partition("[")[0]
        field = next((field for field in fields(cls) if field.name == key), None)  # type: ignore[arg-type]
        if field is not None:
            value, choices = node.get(key), field.metadata["range"].choices
            error.hint = f"{key}: {field.metadata['doc']}"
            if choices and isinstance(value, str):
                error.hint = did_you_mean(value, choices, "use one of")
        raise UserError(error.what, where=f"{file}: {error.key}", hint=error.hint) from None


def _check_name(name: object, where: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise UserError("a name consists of lower-case letters, digits and _", where=where)


def _check_codes(codes: list[str], key: str, where: str) -> None:
    known = {rule.code for rule in RULES}
    for code in codes:
        if code not in known:
            hint = did_you_mean(code, known, "use one of")
            raise UserError(f"{key} has {code}, but no rule has this code", where=where, hint=hint)
    if len(set(codes)) != len(codes):
        raise UserError(f"{key} has a code twice", where=where)


def _check_overrides(
    overrides: list[str], where: str, reserved: Mapping[str, str] | None = None
) -> None:
    """Overrides are plain ``key=value``, each key once and none that has its own place in the file."""
    if reserved is None:
        reserved = dict.fromkeys(("data", "data.path"), "use data: NAME of a variant")
        reserved["seed"] = "use seeds: [0, 1] of a variant"
    keys = []
    for override in overrides:
        # No +, ~ or package: they would allow the same key twice.
        if not re.match(r"[A-Za-z_][\w.]*=.", override):
            hint = "write [key=value, ...], and quote values with brackets: ['model.filters=[16,16]']"
            raise UserError(f"{override[:60]!r} is not an override", where=where, hint=hint)
        key = key_of(override)
        if key in reserved:
            raise UserError(f"config must not set {key}", where=where, hint=reserved[key])
        if key.partition(".")[0] == "hydra":
            hint = "remove it: the benchmark sets Hydra's options"
            raise UserError(f"config must not set {key}", where=where, hint=hint)
        if key in keys:
            raise UserError(f"config sets {key} twice", where=where)
        keys.append(key)


def _check_distinct(trainings: Sequence[Training], file: Path) -> None:
    """No training may count twice, or be in the test part if thresholds were set with it."""
    first: dict[tuple[Any, ...], Training] = {}
    for training in trainings:
        identity = (training.source.name, training.seed, frozenset(training.config), training.corrupt)
        other = first.setdefault(identity, training)
        if other is not training:
            raise UserError(
                f"variants {other.variant} and {training.variant} are the same training",
                where=f"{file}: variants[{training.variant}]",
                hint="use other seeds or other images",
            )


def _first_comment(file: Path) -> str:
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    text = " ".join(filter(None, lines))
    if not text:
        hint = "start the file with a comment: # Why this is faulty, healthy or borderline."
        raise UserError("the case gives no reason", where=file, hint=hint)
    return text


class _Strict(yaml.SafeLoader):  # type: ignore[misc]
    """YAML of plain values, each key once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, list | dict) or name in keys:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {name} is repeated or is not a name", problem_mark=key.start_mark
                )
            keys.add(name)
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return]


def _tree(file: Path) -> dict[Any, Any]:
    check_yaml(file, str(file))
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), Loader=_Strict)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"not valid YAML: {problem}", where=where) from error
    if not isinstance(tree, dict):
        raise UserError("the file must consist of key: value", where=file)
    return tree
