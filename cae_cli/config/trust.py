"""Who may say what in a config: the person on the command line, a stranger in a file.

A file says what to train, and nothing else. It runs nothing, writes nowhere but below the current
folder, and learns nothing of the environment, wherever it lies: `loader` sees to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper

from cae_cli.errors import UserError

FLAG = "--trust-configs"

MOST_LETTERS = 50_000  # of an override: Hydra's parser takes seconds for more


class Refused(UserError):
    """Something that a config file, or anybody, may not do."""


@dataclass(frozen=True)
class Trust:
    """Whom to believe.

    Attributes:
        files: config files may read the environment and set Hydra's own keys (``--trust-configs``).
        words: the overrides were typed by a person; false where they come from a run's folder.
        environment: the variables that the person named on the command line.
    """

    files: bool = False
    words: bool = True
    environment: frozenset[str] = frozenset()

    @classmethod
    def in_words(cls, overrides: Sequence[str], *, files: bool = False) -> Trust:
        """The trust in what a person typed: it may read the variables that it names."""
        names = re.findall(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)", " ".join(overrides))
        return cls(files=files, environment=frozenset(names))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that OmegaConf or Hydra put theirs around."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def refusal(error: BaseException) -> Refused | None:
    """What was refused, behind an error."""
    return next((cause for cause in causes(error) if isinstance(cause, Refused)), None)


def readable(words: Sequence[str]) -> None:
    """Looks at words of a command line before Hydra parses them and writes them into files.

    Raises:
        UserError: one is no text, or endless.
    """
    for word in words:
        if len(word) > MOST_LETTERS:
            raise UserError(
                f"an override has {len(word):,} characters, more than {MOST_LETTERS:,}",
                where=f"command line: {word[:40]}…",
                hint="long lists belong into a file: cae train -cd FOLDER",
            )
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UserError(
                "not text in UTF-8, which the files of a run are written in",
                where=f"command line: {word.encode(errors='backslashreplace').decode()}",
                hint="a file or folder with such a name has to be renamed",
            ) from None


# -- what a file may say of Hydra ------------------------------------------------------------------

OUR_FOLDER = "runs/${task_name}"  # `config.parse` checks task_name
_OUR_SUBDIR = "${job_folder:${hydra.job.override_dirname}}"


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def is_name(value: Any) -> bool:
    """Whether something is one plain part of a path, a hidden one at most."""
    return isinstance(value, str) and bool(re.fullmatch(r"\.?[\w-][\w.-]*", value))


def _is_subdir(value: Any) -> bool:
    """A plain name with the job's number in it, or the one that configs/config.yaml gives."""
    name = r"[\w.,=+-]*\$\{hydra[.:]job\.num\}[\w.,=+-]*"
    return value == _OUR_SUBDIR or bool(re.fullmatch(name, str(value)))


def _is_plain(value: Any) -> bool:
    """Words or numbers, or a list of them, that stand for nothing but themselves."""
    return all(
        _is_number(item) or (isinstance(item, str) and "${" not in item)
        for item in (value if isinstance(value, list) else [value])
    )


def _are_params(params: Any) -> bool:
    """Overrides of a sweep, none of them for Hydra itself."""
    if params is not None and not isinstance(params, dict):
        return False
    for key, value in (params or {}).items():
        try:
            [override] = OverridesParser.create().parse_overrides([f"{key}=1"])
        except HydraException:
            return False
        if is_hydras(override) or not _is_plain(value):
            return False
    return True


# Everything that is not here is for the command line. Numbers run nothing: what a launcher or a sweeper
# is built with may be set as long as it is a number.
_ALLOWED: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    (r"(run|sweep)\.dir", lambda value: isinstance(value, str)),  # and see `Loader._check_folders`
    (r"sweep\.subdir", _is_subdir),
    (r"output_subdir", lambda value: value is None or is_name(value)),
    (r"job\.name", is_name),
    (r"job\.chdir", lambda value: not value),
    (r"job\.config\.override_dirname\.(kv|item)_sep", lambda value: value in ("=", ",", "_", "-", "+")),
    (r"job\.config\.override_dirname\.exclude_keys", _is_plain),
    (r"verbose", _is_plain),
    (r"(hydra_)?help\.\w+", lambda value: isinstance(value, str)),
    (r"(launcher|sweeper)\.\w+(\.\w+)?", _is_number),
    (r"sweeper\.direction", lambda value: set(_listed(value)) <= {"minimize", "maximize"}),
    (r"sweeper\.params", _are_params),
)


def _listed(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def forbidden(node: Any) -> Iterator[str]:
    """The keys below ``hydra`` that a file may not set to what it does.

    Args:
        node: what the file says below ``hydra``, not resolved.
    """
    for key, value in _said(node):
        if not any(re.fullmatch(name, key) and is_fine(value) for name, is_fine in _ALLOWED):
            yield f"hydra.{key}".rstrip(".")


def _said(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and key != "sweeper.params":
        for name, inner in node.items():
            yield from _said(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def is_below(folder: str) -> bool:
    """Whether a folder is below the current one; runs/ may be a link to a larger disk."""
    here = Path.cwd().resolve()
    try:
        path = (here / folder).resolve()
    except ValueError:  # a NUL byte
        return False
    is_inside = any(path.is_relative_to(base) for base in (here, (here / "runs").resolve()))
    return is_inside and not Path(folder).is_absolute()


def is_hydras(override: Override) -> bool:
    """Whether an override sets something of Hydra's own."""
    names = (override.key_or_group, override.package or "")
    return any(re.match(r"/*hydra(\W|$)", name) for name in names)


# -- what nobody may say ---------------------------------------------------------------------------

# What Hydra's plugins are built of, besides themselves.
_TARGETS = frozenset(
    f"optuna.{name}"
    for name in (
        *(f"samplers.{kind}Sampler" for kind in ("TPE", "Random", "CmaEs", "NSGAII", "MOTPE", "Grid")),
        *(f"pruners.{kind}Pruner" for kind in ("Median", "Nop", "Percentile", "Hyperband")),
    )
)
_LOGGING = {
    "class": {"logging.StreamHandler", "logging.FileHandler", "logging.NullHandler"},
    "()": {"colorlog.ColoredFormatter"},  # of Hydra's plugin for coloured logs
}
_STREAMS = {"ext://sys.stdout", "ext://sys.stderr"}


def targets(tree: Any) -> Iterator[tuple[str, Any]]:
    """Classes and functions that a config names and that are no plugin of Hydra, with their keys."""
    for place, name, value in parts(tree):
        if name == "_target_" and str(value) not in _known(place):
            yield f"{place}.{name}".lstrip("."), value


def _known(place: str) -> set[str] | frozenset[str]:
    kinds: dict[str, type] = {"hydra.launcher": Launcher, "hydra.sweeper": Sweeper}
    if place in kinds:
        plugins = Plugins.instance().discover(kinds[place])
        return {f"{plugin.__module__}.{plugin.__name__}" for plugin in plugins}
    return _TARGETS if place in ("hydra.sweeper.sampler", "hydra.sweeper.pruner") else frozenset()


def factories(logging: Any) -> Iterator[tuple[str, Any]]:
    """What ``logging`` would import or call and Hydra does not bring along, with its keys.

    Args:
        logging: what ``logging.config.dictConfig`` is to be given.
    """
    for place, name, value in parts(logging):
        is_code = name in _LOGGING and str(value) not in _LOGGING[name]
        is_link = isinstance(value, str) and re.match(r"\w+://", value) and value not in _STREAMS
        if is_code or is_link or name == ".":
            yield f"{place}.{name}".lstrip("."), value


def parts(node: Any, key: str = "") -> Iterator[tuple[str, str, Any]]:
    """All keys of a tree: below what, which, and its value."""
    items: Any = ()
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    for name, inner in items:
        yield key, str(name), inner
        yield from parts(inner, f"{key}.{name}" if key else str(name))
