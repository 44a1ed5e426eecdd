"""JSON files of runs and sweeps: written atomically, read with their schema checked."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from cae_cli.errors import UserError, to_paste
from cae_cli.system.guarded import GuardedPath

# Of the JSON files and arrays of a run. Increase it when older files would be misread.
SCHEMA_VERSION = 3

MOST_JSON = 2**22  # bytes of a file; Python needs up to 40 times as much for what is in it
DEEPEST = 32  # lists and objects within each other; files of cae have 9


def write_json(path: GuardedPath, content: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically; see `plain` for what it may hold."""
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    if any("\ud800" <= c <= "\udfff" for c in text):  # in file names that are not UTF-8
        text = json.dumps(plain(content), indent=2, allow_nan=False)
    with path.atomic() as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: GuardedPath) -> dict[str, Any]:
    """What `write_json` wrote, whatever its schema.

    Raises:
        Missing: there is none.
        UserError: it is damaged or foreign, or no regular file.
    """
    try:
        content = json.loads(path.read_text(MOST_JSON))
    except FileNotFoundError as error:
        raise Missing(
            f"{path.name} is missing", where=path.parent, hint="is this the folder of a run?"
        ) from error
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror}", where=path) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path.name} is not valid JSON", where=path, hint="the file is damaged or incomplete"
        ) from error
    if not isinstance(content, dict) or _is_deeper(content, DEEPEST):
        raise foreign(path)
    return content


def _is_deeper(content: dict[str, Any], most: int) -> bool:
    """Whether lists and objects are nested deeper, so that recursion might reach Python's limit."""
    level: list[Any] = [content]
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


class Missing(UserError):
    """There is no such file."""


class OlderVersion(UserError):
    """A file was written by an older version of cae."""


def read_versioned(path: GuardedPath, schema: int = SCHEMA_VERSION) -> dict[str, Any]:
    """What `write_json` wrote with this schema.

    Raises:
        OlderVersion: its schema is an older one.
        UserError: it is missing, damaged, foreign or of a newer version.
    """
    content = read_json(path)
    version = content.get("schema")
    if not isinstance(version, int):
        raise foreign(path)
    if version > schema:
        raise UserError(
            f"{path.name} was written by a newer version of cae", where=path, hint="update cae"
        )
    if version < schema:
        raise OlderVersion(
            f"{path.name} was written by an older version of cae",
            where=path,
            hint=f"train it again: {to_paste('cae', 'rerun', path.parent)}",
        )
    return content


def read_any_version(path: GuardedPath) -> dict[str, Any]:
    """What `read_versioned` reads, and files of an older version as well."""
    try:
        return read_versioned(path)
    except OlderVersion:
        return read_json(path)


def foreign(path: GuardedPath) -> UserError:
    """The error for a file that cae did not write."""
    hint = "it was changed or is another program's; move it away or use another folder"
    return UserError(f"{path.name} is not a file of cae", where=path, hint=hint)


def plain(value: Any) -> Any:
    """Dataclasses, arrays and containers as JSON can hold them; NaN becomes None, other objects text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
