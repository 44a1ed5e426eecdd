"""Reads cases from files, and checks them to the letter.

A word that this reader does not know is refused: a misspelt key would otherwise make another patient of
a case without anybody noticing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from benchmarks.faults.case import EXPECTED, PARTS, Case, Source, Training, joined
from benchmarks.faults.corruption import check_name
from cae_cli.config.untangle import untangled
from cae_cli.diagnosis import RULES
from cae_cli.errors import UserError, did_you_mean
from cae_cli.options import key_of
from cae_cli.system.files import typed

SOURCES_FILE = "data.yaml"

_CASE = ("expect", "causes", "also", "treatable", "blind", "config", "variants")
_VARIANT = ("part", "data", "seeds", "config", "corrupt")
_SOURCE = ("config", "doc")
_NAME = r"[a-z0-9]+(?:_[a-z0-9]+)*"  # dots part what a run's folder is named by


def read(places: Sequence[Path]) -> tuple[Case, ...]:
    """The cases of files, and of all files in folders.

    Args:
        places: files, or folders of them. The sources of the images stand in ``data.yaml`` beside a
            file, or in the folder above.

    Returns:
        The cases, sorted by name.

    Raises:
        UserError: a file that cannot be read or says what it must not; names the file and the key.
    """
    found: dict[str, Case] = {}
    sources: dict[Path, Mapping[str, Source]] = {}
    for file in (file for place in places for file in _files(typed(place))):
        beside = _sources_of(file)
        if beside not in sources:
            sources[beside] = read_sources(beside)
        case = read_case(file, sources[beside])
        if found.get(case.name, case).file != case.file:
            raise UserError(
                f"two cases are called {case.name}",
                where=file,
                hint=f"the other: {found[case.name].file}",
            )
        found[case.name] = case
    return tuple(found[name] for name in sorted(found))


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        files = [p for p in sorted(place.glob("*.yaml")) if p.name != SOURCES_FILE]
        if not files:
            raise UserError("there are no cases in this folder", where=place, hint="files NAME.yaml")
        return files
    if not place.exists():
        hint = None
        if place.parent.is_dir():
            hint = did_you_mean(place.name, [p.name for p in place.parent.glob("*.yaml")], "there are")
        raise UserError("there is no such case", where=place, hint=hint)
    return [place]


def _sources_of(file: Path) -> Path:
    for folder in (file.parent, file.resolve().parent.parent):
        if (folder / SOURCES_FILE).is_file():
            return folder / SOURCES_FILE
    raise UserError(
        f"{SOURCES_FILE} is missing, which says where the images are",
        where=file.parent,
        hint="write it beside the case or in the folder above: name: {config: [data=…], doc: …}",
    )


def read_sources(file: Path) -> dict[str, Source]:
    """The sources of images, by name.

    Raises:
        UserError: the file cannot be read, or says what it must not.
    """
    found = {}
    for name, value in _tree(file).items():
        node = _Node(file, str(name), value)
        node.only(_SOURCE)
        if not re.fullmatch(_NAME, str(name)):
            raise node.wrong("a source's name is made of small letters, digits and _")
        config = node.words("config", needed=True)
        if not any(key_of(word) == "data" for word in config):
            raise node.wrong("must choose a source of images", "config", hint="config: [data=…]")
        found[str(name)] = Source(str(name), config, node.text("doc"))
    return found


def read_case(file: Path, sources: Mapping[str, Source]) -> Case:
    """One case.

    Args:
        file: its file.
        sources: what ``data`` of a variant may name.

    Raises:
        UserError: names the file and the key that is wrong.
    """
    node = _Node(file, "", _tree(file))
    node.only(_CASE)
    if not re.fullmatch(_NAME, file.stem):
        raise UserError("a case's name is made of small letters, digits and _", where=file)
    expect = node.one("expect", EXPECTED)
    sick = expect == "sick"
    causes, also = (node.codes(key) for key in ("causes", "also"))
    if sick != bool(causes):
        what = "must name what is right" if sick else f"has no place where {expect} is expected"
        raise node.wrong(what, "causes")
    if also and not sick:
        raise node.wrong(f"has no place where {expect} is expected", "also")
    treatable = node.flag("treatable", default=sick)
    if treatable and not sick:
        raise node.wrong("nothing is to be treated here", "treatable", hint="leave it out")
    blind = node.flag("blind", default=True)
    case = Case(file.stem, file, _first_comment(file), expect, causes, also, treatable, blind)
    trainings = tuple(
        training
        for number, variant in enumerate(node.nodes("variants"))
        for training in _trainings(case, number, variant, node.words("config"), sources)
    )
    _check_apart(trainings, file)
    object.__setattr__(case, "trainings", trainings)  # each of them knows its case
    return case


def _trainings(
    case: Case, number: int, node: _Node, words: tuple[str, ...], sources: Mapping[str, Source]
) -> list[Training]:
    node.only(_VARIANT)
    part, source = node.one("part", PARTS), sources[node.one("data", sources)]
    seeds = node.get("seeds")
    if not isinstance(seeds, list) or not seeds or not all(_is_seed(seed) for seed in seeds):
        raise node.wrong("must be a list of whole numbers from 0", "seeds", hint="seeds: [0, 1, 2]")
    if len(set(seeds)) != len(seeds):
        raise node.wrong("has a seed twice", "seeds")
    corrupt = node.get("corrupt")
    if corrupt is not None:
        with_place = node.place("corrupt")
        if not isinstance(corrupt, str):
            raise node.wrong(f"must be a name, got {corrupt!r}", "corrupt")
        check_name(corrupt, with_place)
    config = joined(words, node.words("config"))
    return [Training(case, number, part, source, seed, config, corrupt) for seed in seeds]


def _is_seed(seed: object) -> bool:
    return isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**31


def _check_apart(trainings: Sequence[Training], file: Path) -> None:
    """No figure may come from a training that thresholds were set by."""
    seen: dict[tuple[Any, ...], Training] = {}
    for training in trainings:
        same = (training.source.name, training.seed, frozenset(training.config), training.corrupt)
        other = seen.setdefault(same, training)
        if other is not training:
            raise UserError(
                f"variants {other.number} and {training.number} are the same training",
                where=f"{file}: variants[{training.number}]",
                hint="other seeds, or other images",
            )


def _first_comment(file: Path) -> str:
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    text = " ".join(filter(None, lines))
    if not text:
        raise UserError(
            "the case does not say why",
            where=file,
            hint="its first line is a comment: # Why it is sick.",
        )
    return text


class _Strict(yaml.SafeLoader):  # type: ignore[misc]
    """YAML of plain values, each key once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, list | dict) or name in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {name} is there twice, or is no name", problem_mark=key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return]


def _tree(file: Path) -> dict[Any, Any]:
    untangled(file, str(file))
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), Loader=_Strict)
    except (yaml.YAMLError, ValueError) as error:  # a date that is none
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"not valid YAML: {problem}", where=where) from error
    if not isinstance(tree, dict):
        raise UserError("the file must say key: value", where=file)
    return tree


@dataclass(frozen=True)
class _Node:
    """A mapping of a file, which says where it stands when something in it is wrong."""

    file: Path
    path: str
    value: Any

    def place(self, key: str = "") -> str:
        """File and key."""
        return f"{self.file}: {'.'.join(filter(None, (self.path, key)))}"

    def wrong(self, what: str, key: str = "", *, hint: str | None = None) -> UserError:
        """The error to raise."""
        name = key or self.path
        return UserError(f"{name} {what}", where=self.place(key), hint=hint)

    def only(self, known: Collection[str]) -> None:
        """Refuses everything but a mapping with these keys."""
        if not isinstance(self.value, dict):
            raise UserError(
                f"must say key: value, got {str(self.value)[:60]!r}",
                where=self.place(),
                hint=f"its keys: {', '.join(known)}",
            )
        for key in self.value:
            if key not in known:
                raise UserError(
                    f"there is no key {str(key)[:60]!r}",
                    where=self.place(str(key)[:60]),
                    hint=did_you_mean(str(key), known, "the keys are"),
                )

    def get(self, key: str) -> Any:
        """A value, None where it is not said."""
        return self.value.get(key)

    def one(self, key: str, choices: Collection[str]) -> str:
        """One of some names."""
        value = self.get(key)
        if not isinstance(value, str) or value not in choices:
            got = "has no value" if value is None else f"is none of the known ones: {str(value)[:60]!r}"
            hint = f"one of {', '.join(choices)}"
            if isinstance(value, str):
                hint = did_you_mean(value, choices, "one of")
            raise self.wrong(got, key, hint=hint)
        return value

    def text(self, key: str) -> str:
        """A sentence."""
        value = self.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong("must be text", key)
        return value.strip()

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(f"must be true or false, got {value!r}", key)
        return value

    def _list(self, key: str, is_fine: Callable[[Any], bool], hint: str) -> tuple[Any, ...]:
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.wrong("must be a list", key, hint=hint)
        for item in value:
            if not is_fine(item):
                raise self.wrong(f"must not have {str(item)[:60]!r} in it", key, hint=hint)
        return tuple(value)

    def words(self, key: str, *, needed: bool = False) -> tuple[str, ...]:
        """Overrides, none of them for what the files say elsewhere."""
        # A plain key: no +, ~ or package, by which the same key could be said twice.
        hint = "[key=value, …]; one with brackets or commas in quotes: ['model.filters=[16,16]']"
        words = self._list(
            key, lambda w: isinstance(w, str) and bool(re.match(r"[A-Za-z_][\w.]*=.", w)), hint
        )
        if needed and not words:
            raise self.wrong("has no value", key, hint=hint)
        elsewhere = {"seed": "seeds: [0, 1]", "hydra": "the clinic runs the trainings itself"}
        if self.path.startswith("variants") or not self.path:
            elsewhere |= {"data": "data: NAME of a variant", "data.path": "data: NAME of a variant"}
        for word in words:
            name = key_of(word)
            for barred, instead in elsewhere.items():
                if name == barred or (barred == "hydra" and name.startswith("hydra.")):
                    raise self.wrong(f"must not set {name}", key, hint=instead)
        keys = [key_of(word) for word in words]
        if twice := next((k for k in keys if keys.count(k) > 1), None):
            raise self.wrong(f"sets {twice} twice", key)
        return words

    def codes(self, key: str) -> tuple[str, ...]:
        """Codes of rules."""
        known = {rule.code for rule in RULES}
        codes = self._list(key, lambda code: isinstance(code, str), "[CAE101]")
        for code in codes:
            if code not in known:
                raise self.wrong(f"has {code}, which is no rule", key, hint=did_you_mean(code, known))
        if len(set(codes)) != len(codes):
            raise self.wrong("has a code twice", key)
        return codes

    def nodes(self, key: str) -> list[_Node]:
        """The mappings of a list, at least one."""
        value = self.get(key)
        if not isinstance(value, list) or not value:
            raise self.wrong("must be a list with a variant at least", key)
        return [_Node(self.file, f"{key}[{i}]", item) for i, item in enumerate(value)]
