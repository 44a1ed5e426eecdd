"""Latent codes in files: written batch by batch, so that there may be more of them than memory holds."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cae_cli.data import as_float
from cae_cli.errors import UserError, printable
from cae_cli.features.network import Array, Network, sides
from cae_cli.features.source import Source
from cae_cli.features.tables import parquet_library, write_csv
from cae_cli.introspection.behaviour import squares
from cae_cli.system import npz
from cae_cli.system.guarded import GuardedPath

SUFFIXES = (".npy", ".npz", ".parquet")
ROW_GROUP = 2**24  # bytes of codes in a row group
DAMAGED = "the file is damaged, or not one of cae encode"


def check(path: Path) -> None:
    """Checks, before anything is computed, that codes can be written to such a file.

    Raises:
        UserError: the suffix is unknown, or a library is missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"codes can be written as {', '.join(SUFFIXES)}, not as {printable(path.name)}",
            where="--out",
            hint="--out codes.npz",
        )
    if path.suffix.lower() == ".parquet":
        parquet_library(path)


def write(
    network: Network,
    source: Source,
    path: Path,
    *,
    pooled: bool = False,
    flat: bool = False,
    done: Callable[[int], None] = lambda done: None,
) -> tuple[list[Path], NDArray[np.float32]]:
    """Encodes all images of a source and writes the codes.

    The error of an image is that of its reconstruction from its target, where it has one.

    ``.npz`` has the arrays ``codes``, ``index``, ``error`` and, where there are such, ``split``,
    ``label``, ``name``; ``.npy`` has the codes, and a ``.csv`` beside it the others; ``.parquet`` has
    flat codes in the column ``code``.

    Args:
        network: encodes.
        source: the images.
        path: of the file; see `check`.
        pooled: the mean of each map, (n, channels), in place of the maps.
        flat: (n, values) in place of maps.
        done: is told how many images are done.

    Returns:
        The files, and the mean squared error of each image, (n,).

    Raises:
        UserError: codes that are no maps cannot be pooled.
        OSError: they cannot be written; nothing is left then.
    """
    shape = network.code_shape
    if pooled and len(shape) == 1:
        raise UserError(
            f"the code of the network is {shape[0]} values and no maps: there is nothing to pool",
            where="--pool",
            hint="leave out --pool",
        )
    if pooled:
        shape = shape[-1:]
    elif flat or path.suffix.lower() == ".parquet":
        shape = (int(np.prod(shape)),)
    errors = np.empty(len(source), np.float32)
    columns = source.columns()
    about = {
        "network": printable(network.name),
        "warning": printable(network.warning or ""),
        "code_shape": sides(network.code_shape),
        "codes": "mean of each map" if pooled else "whole",
        "error": f"from the {source.wanted}",
    }

    def codes() -> Iterator[Array]:
        """The codes of each batch; the errors are known behind it."""
        start = 0
        for part in source.parts:
            for at, given, code, made in network.passes(part.images):
                n = len(given)
                target = given if part.targets is None else as_float(part.targets[at])
                errors[start : start + n] = squares(made - target)
                start += n
                yield (code.mean(axis=(1, 2)) if pooled else code).reshape(n, *shape)
                done(start)

    with ExitStack() as stack:
        temporary = stack.enter_context(GuardedPath.of(path).atomic())
        if path.suffix.lower() == ".parquet":
            _write_parquet(temporary, codes(), errors, columns, about, shape)
            return [path], errors
        if path.suffix.lower() == ".npz":
            _write_npz(temporary, codes(), errors, columns, about, shape)
            return [path], errors
        beside = path.with_suffix(".csv")
        table = stack.enter_context(GuardedPath.of(beside).atomic())
        with temporary.open("wb") as file:
            _write_array(file, codes(), (len(source), *shape))
        write_csv(table, {**columns, "error": errors}, about)
        return [path, beside], errors


def _write_array(file: IO[bytes], batches: Iterator[Array], shape: tuple[int, ...]) -> None:
    """An array in the format of ``np.save``, part by part: a full disk is an error and no crash."""
    header = {"descr": npy.dtype_to_descr(np.dtype("<f4")), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, header)
    for batch in batches:
        file.write(np.ascontiguousarray(batch, "<f4").data.cast("B"))


def _write_npz(
    path: Path,
    batches: Iterator[Array],
    errors: Array,
    columns: Mapping[str, NDArray[Any]],
    about: Mapping[str, str],
    shape: tuple[int, ...],
) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("codes.npy", "w", force_zip64=True) as file:
            _write_array(file, batches, (len(errors), *shape))
        for name, array in {**columns, "error": errors, "about": np.array(json.dumps(about))}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                npy.write_array(file, np.asanyarray(array), allow_pickle=False)


def _write_parquet(
    path: Path,
    batches: Iterator[Array],
    errors: Array,
    columns: Mapping[str, NDArray[Any]],
    about: Mapping[str, str],
    shape: tuple[int, ...],
) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    (values,) = shape
    text = {name: array.dtype.kind == "U" for name, array in columns.items()}
    fields = [pa.field(name, pa.string() if text[name] else pa.int64()) for name in columns]
    fields += [pa.field("error", pa.float32()), pa.field("code", pa.list_(pa.float32(), values))]
    schema = pa.schema(fields, metadata=dict(about))
    waiting: list[Array] = []
    start = 0

    def group() -> Any:
        nonlocal start
        codes = np.concatenate(waiting)
        waiting.clear()
        at = slice(start, start + len(codes))
        start = at.stop
        arrays = [pa.array([printable(str(v)) for v in array[at]]) if text[name] else pa.array(array[at])
                  for name, array in columns.items()]  # fmt: skip
        flat = pa.array(codes.reshape(-1))
        code = pa.FixedSizeListArray.from_arrays(flat, values)
        return pa.table([*arrays, pa.array(errors[at]), code], schema=schema)

    with path.open("wb") as file, ParquetWriter(file, schema) as writer:
        for batch in batches:
            waiting.append(batch)
            if sum(x.nbytes for x in waiting) >= ROW_GROUP:
                writer.write_table(group())
        if waiting:
            writer.write_table(group())


def read(path: Path) -> tuple[NDArray[Any], list[str] | None]:
    """Codes of a file that `write` wrote, and names for them; None: it has none.

    Args:
        path: ``.npy``, ``.npz`` with an array ``codes``, or ``.parquet`` with a column ``code``.

    Raises:
        UserError: there is no such file, or it holds no codes.
    """
    if not path.is_file():
        raise UserError("there is no such file", where=path, hint="cae encode RUN --out codes.npz")
    try:
        match path.suffix.lower():
            case ".npz":
                with path.open("rb") as file:
                    arrays = npz.read(file, path, ("codes", "name", "index", "split"))
                return arrays["codes"], _names(arrays, len(arrays["codes"]))
            case ".npy":
                with path.open("rb") as file:
                    return npz.array(file, path.stat().st_size, "the array", path), None
            case ".parquet":
                return _read_parquet(path)
    except UserError:
        raise
    except Exception as error:  # of a damaged file
        raise UserError(DAMAGED, where=path, hint="cae encode RUN --out codes.npz") from error
    raise UserError(
        f"codes are read from {', '.join(SUFFIXES)}, not from {printable(path.name)}",
        where=path,
        hint="cae encode RUN --out codes.npz",
    )


def _read_parquet(path: Path) -> tuple[NDArray[Any], list[str] | None]:
    parquet = parquet_library(path)
    table = parquet.read_table(path)
    code = table.column("code").combine_chunks()
    codes = np.asarray(code.values, np.float32).reshape(len(code), -1)
    known = {name: np.array(table.column(name)) for name in ("name", "index", "split")
             if name in table.column_names}  # fmt: skip
    return codes, _names(known, len(codes))


def _names(arrays: Mapping[str, NDArray[Any]], count: int) -> list[str] | None:
    if "name" in arrays:
        return [str(name) for name in arrays["name"]]
    if "index" not in arrays:
        return None
    index = [f"{int(i):06d}" for i in arrays["index"]]
    if "split" not in arrays:
        return index
    return [f"{split}/{i}" for split, i in zip(arrays["split"], index, strict=True)][:count]
