"""Looks at the text of a YAML file before anything is built of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from cae_cli.errors import UserError

# Larger than any config that a person writes. Hydra reads a file with a slow parser, several times.
MOST_BYTES = 256 * 1024
MOST_NODES = 20_000  # with every alias written out
DEEPEST = 50

# Text, numbers, lists, mappings: YAML's own, and what OmegaConf knows without a tag anyway.
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def untangled(file: Path, name: str) -> None:
    """Refuses a file that is no plain YAML, or that is larger than it looks.

    Nothing is built here: the events of the parser are counted. An alias counts as much as what it
    stands for, since OmegaConf copies that.

    Args:
        file: an existing file.
        name: what messages call it.

    Raises:
        UserError: names the file and the line.
    """
    if not file.is_file():  # reading a pipe or a device may never end
        raise UserError("a config must be a file", where=name)
    with file.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UserError(
            f"the config is larger than {MOST_BYTES // 1024} kB", where=name, hint="is it a config?"
        )
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError("the config is not text in UTF-8", where=f"{name}:{line}") from None
    try:
        _count(text, name)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        where = f"{name}:{mark.line + 1}" if mark else name
        raise UserError(f"not valid YAML: {problem}", where=where) from error


def _count(text: str, name: str) -> None:
    sizes: dict[str, int] = {}  # of what has an anchor, aliases written out
    open_: list[tuple[str, int]] = []  # what the parser is in: its anchor, nodes before it
    nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        where = f"{name}:{event.start_mark.line + 1}"
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!" and tag not in _TAGS:
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            raise UserError(
                f"not valid YAML: the tag {shown} is refused",
                where=where,
                hint="a config holds text, numbers, lists and mappings; no tag is needed",
            )
        anchor = getattr(event, "anchor", None) or ""
        if isinstance(event, yaml.AliasEvent):
            if anchor not in sizes:
                raise UserError(f"*{anchor} stands for nothing, or for itself", where=where)
            nodes += sizes[anchor]
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            sizes[anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            sizes.pop(anchor, None)
            open_.append((anchor, nodes))
            nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes[anchor] = nodes - before
        if len(open_) > DEEPEST:
            raise UserError(f"the config is nested deeper than {DEEPEST}", where=where)
        if nodes > MOST_NODES:
            raise UserError(
                f"the config has more than {MOST_NODES:,} values, aliases written out", where=where
            )
