"""Images that a function of the user's own Python file gives: ``data=python data.path=mine.py:load``.

The file runs where these words are read from the command line, as that of ``--rules`` does, and what it
gives is kept as an .npz file that the config names instead. So no config and no folder of a run can name
code, and a run is resumed or repeated with the images that it had.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cae_cli.data.given import FOLDER, overrides_of
from cae_cli.errors import UserError, counted, printable
from cae_cli.options import OptionError, key_of
from cae_cli.system import memory
from cae_cli.system.files import typed

WORD = "data=python"
EXAMPLE = "data.path=mine.py:load"
FORMS = "images (n, h, w) or (n, h, w, c), (x, y), an iterator of images, or paths"
LOOKED = 64  # images of an iterator between two looks at the free memory


def replaced(words: Sequence[str], folder: Path = FOLDER) -> list[str]:
    """The words of a command line, with a file in place of ``data=python`` and its path.

    Args:
        words: overrides as a person typed them.
        folder: where the images are kept.

    Raises:
        UserError: there is no such function, it fails, or what it gives are no images.
    """
    if WORD not in words:
        return list(words)
    paths = [word.partition("=")[2] for word in words if key_of(word) == "data.path"]
    if not paths:
        raise OptionError("data.path", "has no value", hint=f"use {EXAMPLE}")
    others = [word for word in words if word != WORD and key_of(word) != "data.path"]
    return [*overrides_of_function(paths[-1], folder), *others]


def overrides_of_function(spec: str, folder: Path = FOLDER) -> list[str]:
    """Calls a function and keeps the images that it gives.

    Args:
        spec: the path of a Python file, a colon, and the name of a function without arguments; ``load``
            where no name is given.
        folder: where the images are kept.

    Returns:
        The overrides that choose them: of pairs, where the function gives two arrays of images.

    Raises:
        UserError: as for `replaced`.
    """
    file, colon, name = spec.strip("'\"").rpartition(":")
    path, name = (typed(file), name) if colon else (typed(name), "load")
    given = _given(path, name)
    if not isinstance(given, tuple | dict) and isinstance(given, Iterator):
        with _explained(path, f"the images of {name}()"):
            given = _collected(given, path)
    pair = isinstance(given, tuple) and len(given) == 2
    x, y = given if pair else (given, None)
    if given is None:
        raise UserError(f"{name}() gives None", where=path, hint=f"return {FORMS}")
    try:
        words = overrides_of(given if y is None else {"x_train": x, "y_train": y}, folder)
    except UserError as error:
        raise UserError(
            f"{name}() gives no images: {error.what}", where=path, hint=f"return {FORMS}"
        ) from error
    return ["data=pairs", *words[1:]] if y is not None and np.ndim(y) in (3, 4) else words


def _given(path: Path, name: str) -> Any:
    """What the function gives, with the file's folder on Python's path as if it were the program."""
    if not path.is_file():
        raise UserError("no such Python file", where=path, hint=f"use {WORD} {EXAMPLE}")
    with _beside(path), _explained(path, "the file"):
        module = _loaded(path)
        function: Callable[[], Any] | None = getattr(module, name, None)
        if not callable(function):
            there = [key for key in vars(module) if callable(getattr(module, key)) and key[0] != "_"]
            raise UserError(
                f"the file has no function {printable(name)}",
                where=path,
                hint=f"it has {', '.join(there[:5])}" if there else f"def load(): return {FORMS}",
            )
    with _beside(path), _explained(path, f"{name}()"):
        return function()


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"cae_data_{path.stem}", path.absolute())
    if spec is None or spec.loader is None:
        raise UserError("not a Python file", where=path, hint=f"use {WORD} {EXAMPLE}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[None]:
    """The modules beside a file can be imported in the block; what it prints is no result."""
    folder = str(path.absolute().parent)
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


@contextlib.contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """Reports an error of the user's code with its file and line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        own = str(path.absolute())
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        first = printable((str(error).splitlines() or [""])[0])[:200]
        raise UserError(
            f"{what} failed: {type(error).__name__}{': ' if first else ''}{first}",
            where=path if line is None else f"{path}:{line}",
        ) from error


def _collected(images: Iterator[Any], path: Path) -> Any:
    """The images of an iterator as one array."""
    found: list[Any] = []
    for image in images:
        array = np.asarray(image)
        if found and array.shape != found[0].shape:
            raise UserError(
                f"image {len(found)} has the shape {array.shape}, those before it {found[0].shape}",
                where=path,
                hint="give images of one size, or an array of patches",
            )
        found.append(array)
        if len(found) % LOOKED == 0:  # twice: np.stack copies them
            memory.check(
                len(found) * array.nbytes,
                f"another {counted(len(found), 'image')}",
                path,
                "an iterator must end; give fewer or smaller images",
            )
    if not found:
        raise UserError("the iterator gives no images", where=path, hint=f"return {FORMS}")
    return np.stack(found)
