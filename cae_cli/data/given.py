"""Images that a Python program holds, as a source that a config can name.

Arrays are written once into a file that is called by their content. So a run with them is one like any
other: it can be resumed and trained again, and runs with the same images have the same config.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data.archives import kind_of
from cae_cli.data.source import SOURCES
from cae_cli.data.zarr_store import ROOT
from cae_cli.errors import UserError, did_you_mean, printable
from cae_cli.options import written
from cae_cli.system.files import typed, writing
from cae_cli.system.guarded import GuardedPath

Array = NDArray[Any]

FOLDER = Path("runs/images")
NAMES = ("x_train", "y_train", "x_test", "y_test")
FORMS = "an array (n, height, width[, channels]), (train, test), a tf.data.Dataset, a path, or paths"


def overrides_of(given: Any, folder: Path = FOLDER) -> list[str]:
    """The overrides that choose images which a program holds.

    Args:
        given: images (n, h, w) or (n, h, w, c) of any type of number; a tuple (train, test) of them,
            each with labels as in ``keras.datasets.mnist.load_data()`` or without; a mapping with
            x_train and, where they exist, y_train, x_test, y_test, where y_train has labels, or the
            images that are to be made of those in x_train; a `tf.data.Dataset`, of batches or not, in
            place of an array; the path of a folder or a file of images; or paths.
        folder: where arrays and lists of paths are written.

    Raises:
        UserError: it is something else, or the file cannot be written.
    """
    if isinstance(given, str | os.PathLike):
        return _of_path(typed(os.fspath(given)))
    if _is_of_paths(given):
        return _of_list([typed(os.fspath(path)).absolute() for path in given], folder)
    arrays = {name: array for name, array in _named(given).items() if array is not None}
    for name in ("x_train", "x_test"):
        if name in arrays and arrays[name].ndim not in (3, 4):
            raise UserError(
                f"{name} must be images (n, height, width[, channels]), got {arrays[name].shape}",
                where="data=…",
                hint='labels are given by name: data={"x_train": x, "y_train": y}',
            )
    are_pairs = "y_train" in arrays and arrays["y_train"].ndim >= 3
    path = folder / f"{_digest(arrays)}.npz"
    _write(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    return [f"data={'pairs' if are_pairs else 'npz'}", f"data.path={written(path)}"]


def are_files(given: Any) -> bool:
    """Whether images are given by the path of a folder or a file, or by many paths."""
    return isinstance(given, str | os.PathLike) or _is_of_paths(given)


def array_of(given: Any) -> Array:
    """Images (n, h, w) or (n, h, w, c) that are not given by paths.

    Raises:
        UserError: they are no array and no data set of images.
    """
    return _part(given)[0]


def _of_path(path: Path) -> list[str]:
    """The source that reads a folder or a file."""
    if not path.exists() and path.name == str(path) in SOURCES:
        raise UserError(
            f"data is a path here, and there is no {path}",
            hint=f"name a source as a word: 'data={path}'",
        )
    kind = kind_of(path) if path.is_file() else None
    source = kind if kind in SOURCES and path.suffix.lower() != ".zip" else "image_folder"
    if path.is_dir() and any((path / name).is_file() for name in ROOT):
        source = "zarr"
    return [f"data={source}", f"data.path={written(path)}"]


def _is_of_paths(given: Any) -> bool:
    if isinstance(given, Mapping | tuple) or not isinstance(given, Iterable):
        return False
    first = next(iter(given), None) if hasattr(given, "__len__") else None
    return isinstance(first, str | os.PathLike)


def _of_list(paths: list[Path], folder: Path) -> list[str]:
    text = "".join(f"{path}\n" for path in paths)
    if text.count("\n") != len(paths):
        raise UserError("a path of an image has a line break", where="data=…", hint="rename the file")
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
    _write(path, lambda file: file.write_text(text, encoding="utf-8"))
    return ["data=image_folder", f"data.path={written(path)}"]


def _named(given: Any) -> dict[str, Array | None]:
    """The arrays by the names that they have in a file."""
    if isinstance(given, Mapping):
        for name in given:
            if name not in NAMES:
                raise UserError(
                    f"data has no part {printable(str(name))!r}", hint=did_you_mean(str(name), NAMES)
                )
        return {name: _array(array) for name, array in given.items()}
    train, test = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    x_train, y_train = _part(train)
    x_test, y_test = (None, None) if test is None else _part(test)
    return dict(zip(NAMES, (x_train, y_train, x_test, y_test), strict=True))


def _part(given: Any) -> tuple[Array, Array | None]:
    """Images and labels of one part."""
    if hasattr(given, "element_spec") and hasattr(given, "cardinality"):
        return _of_dataset(given)
    images, labels = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    return _array(images), None if labels is None else _array(labels)


def _array(given: Any) -> Array:
    """What a library holds, as an array; a tensor of PyTorch may carry its gradient."""
    if hasattr(given, "detach"):
        given = given.detach().cpu()
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as error:  # images of different sizes
        raise UserError(f"data is no array: {error}", hint=f"give {FORMS}") from error
    if array.dtype.kind == "V":  # bfloat16 and its like
        array = array.astype(np.float32)
    if array.dtype.kind not in "buif":
        raise UserError(
            f"data must be numbers, got {type(given).__name__} of {array.dtype}", hint=f"give {FORMS}"
        )
    return array


def _of_dataset(given: Any) -> tuple[Array, Array | None]:
    """Images of a `tf.data.Dataset`, and the second of each pair: labels, or images to be made of them.

    Images that are to be made of themselves, as autoencoders are fed, are no pairs.
    """
    if int(given.cardinality()) == -1:
        raise UserError("the data set repeats for ever", where="data=…", hint="use data=dataset.take(n)")
    parts: list[tuple[Array, ...]] = []
    for element in given:
        pair = tuple(element) if isinstance(element, tuple | list) else (element,)
        parts.append(tuple(map(_array, pair[:2])))
    if not parts:
        raise UserError("the data set is empty", where="data=…")
    is_batched = parts[0][0].ndim == 4 or (parts[0][0].ndim == 3 and parts[0][0].shape[2] > 4)
    join = np.concatenate if is_batched else np.stack
    try:
        columns = [join(column) for column in zip(*parts, strict=True)]
    except ValueError as error:
        raise UserError(
            f"the images of the data set have different sizes: {error}", where="data=…"
        ) from error
    images, *others = columns
    if others and others[0].ndim >= 3 and not np.array_equal(images, others[0]):
        return images, others[0]
    are_labels = bool(others) and others[0].ndim == 1 and others[0].dtype.kind in "iu"
    return images, others[0] if are_labels else None


def _digest(arrays: Mapping[str, Array]) -> str:
    """16 hexadecimal digits that follow from names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        for row in _rows(array):
            digest.update(row)
    return digest.hexdigest()[:16]


def _rows(array: Array) -> Iterator[memoryview]:
    """The values, some at a time: the whole may be no single block of memory."""
    for start in range(0, len(array), 256):
        yield np.ascontiguousarray(array[start : start + 256]).data.cast("B")


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file that follows from its name, unless it is there."""
    guarded = GuardedPath(path.parent) / path.name
    if not guarded.exists():
        with writing(path.parent), guarded.atomic() as temporary:
            write(temporary)
