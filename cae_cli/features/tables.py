"""Tables in files: CSV with what stands behind the numbers in lines of comment, or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import UserError, printable
from cae_cli.system.guarded import GuardedPath

SUFFIXES = (".csv", ".parquet")
Columns = Mapping[str, NDArray[Any]]


def parquet_library(where: object) -> Any:
    """The module ``pyarrow.parquet``.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "Parquet needs pyarrow, which is not installed",
            where=where,
            hint="pip install 'cae-cli[parquet]'",
        ) from error
    return pyarrow.parquet


def check(path: Path) -> None:
    """Raises UserError unless a table can be written to such a file."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"tables can be written as {' or '.join(SUFFIXES)}, not as {printable(path.name)}",
            where="--out",
            hint="--out table.csv",
        )
    if path.suffix.lower() == ".parquet":
        parquet_library(path)


def write(path: Path, columns: Columns, about: Mapping[str, str]) -> None:
    """Writes a table, which replaces an earlier one.

    Args:
        path: see `check`.
        columns: (n,) each.
        about: what stands behind the numbers, in lines before a CSV and in the metadata of Parquet.

    Raises:
        OSError: it cannot be written; nothing is left then.
    """
    with GuardedPath.of(path).atomic() as temporary:
        if path.suffix.lower() == ".csv":
            write_csv(temporary, columns, about)
            return
        parquet = parquet_library(path)
        import pyarrow as pa

        plain = {k: list(map(printable, v)) if v.dtype.kind == "U" else v for k, v in columns.items()}
        table = pa.table(plain).replace_schema_metadata(
            {key: printable(value) for key, value in about.items()}
        )
        with temporary.open("wb") as file:
            parquet.write_table(table, file)


def write_csv(path: Path, columns: Columns, about: Mapping[str, str]) -> None:
    """Writes a CSV file after lines ``# key: value``; numbers have all digits, NaN is left empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        for key, value in about.items():
            file.write(f"# {key}: {printable(value)}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(map(_cell, row))


def _cell(value: Any) -> str:
    if isinstance(value, np.floating):
        return "" if np.isnan(value) else f"{value:.9g}"
    return printable(str(value))
