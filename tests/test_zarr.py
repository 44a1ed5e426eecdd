"""Zarr stores: both versions, how chunks are packed, and what is refused."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cae_cli.data.given import overrides_of
from cae_cli.data.images import Pool
from cae_cli.errors import UserError
from tests.test_data import configured

X = np.random.default_rng(0).integers(0, 256, (20, 16, 12), dtype=np.uint8)


def store(path: Path, version: int = 3, **arrays: Any) -> Path:
    """A store with a chunk for each four images."""
    zarr = pytest.importorskip("zarr", "3.0")
    root = zarr.open_group(str(path), mode="w", zarr_format=version)
    for name, array in arrays.items():
        packing = {"compressors": array[1]} if isinstance(array, tuple) else {}
        values = array[0] if packing else array
        made = root.create_array(
            name, shape=values.shape, chunks=(4, *values.shape[1:]), dtype=values.dtype, **packing
        )
        made[...] = values
    return path


def read(path: Path, **changes: Any) -> Pool:
    return configured("zarr", path=str(path), **changes).read()


def refused(path: Path, **changes: Any) -> UserError:
    with pytest.raises(UserError) as error:
        read(path, **changes)
    assert error.value.hint
    return error.value


@pytest.mark.parametrize("version", [2, 3])
def test_arrays_of_both_versions(tmp_path, version):
    labels = np.arange(20)
    path = store(tmp_path / "a.zarr", version, x_train=X, y_train=labels, x_test=X[:4])
    pool = read(path)
    assert np.array_equal(pool.images, X) and np.array_equal(pool.labels, labels)
    assert np.array_equal(pool.test_images, X[:4])
    path = store(tmp_path / "b.zarr", version, **{"0/raw": X, "mean": X[0, 0]})
    pool = read(path)
    assert np.array_equal(pool.images, X) and pool.notes == ("images are the array 0/raw",)
    assert "0/raw (20, 16, 12)" in refused(path, key="raw").what
    assert overrides_of(path)[0] == "data=zarr"


def test_an_array_alone_and_axes_of_another_order(tmp_path):
    zarr = pytest.importorskip("zarr", "3.0")
    zarr.save_array(str(tmp_path / "a.zarr"), np.repeat(X[:, None], 3, axis=1))
    assert read(tmp_path / "a.zarr", axes="nchw").images.shape == (20, 16, 12, 3)


def packings() -> list[tuple[int, Any]]:
    codecs = pytest.importorskip("zarr.codecs")
    numcodecs = pytest.importorskip("numcodecs")
    of_two = [numcodecs.Blosc(), numcodecs.GZip(), numcodecs.Zlib(), numcodecs.Zstd()]
    of_three = [codecs.BloscCodec(), codecs.GzipCodec(), codecs.ZstdCodec(checksum=True)]
    return [(2, None), (3, None), *((2, c) for c in of_two), *((3, c) for c in of_three)]


def test_every_packing_is_read_and_a_chunk_that_is_too_large_is_refused(tmp_path):
    big = np.zeros((20, 512, 1024), np.uint8)
    for i, (version, packing) in enumerate(packings()):
        path = store(tmp_path / f"{i}.zarr", version, x=(X, packing))
        assert np.array_equal(read(path).images, X), packing
        if packing is None:
            continue
        # The same metadata, with chunks of an array that is far larger.
        bomb = store(tmp_path / f"bomb{i}.zarr", version, x=(big + np.uint8(1), packing))
        for file in (path / "x").rglob("*"):
            if file.is_file() and file.name not in ("zarr.json", ".zarray", ".zattrs"):
                file.write_bytes((bomb / file.relative_to(path)).read_bytes())
        assert "unpacks to too much" in refused(path).what, packing


def test_chunks_that_may_run_code_are_refused(tmp_path):
    path = store(tmp_path / "a.zarr", 2, x=X)
    described = json.loads((path / "x/.zarray").read_text())
    for changed, why in (
        ({"compressor": {"id": "pickle", "protocol": 5}}, "pickle"),
        ({"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}], "fill_value": None}, "pickle"),
        ({"compressor": {"id": "lzma"}}, "packed by lzma"),
        ({"filters": [{"id": "zlib", "level": 1}]}, "packed by zlib, blosc"),
    ):
        (path / "x/.zarray").write_text(json.dumps({**described, **changed}))
        assert why in refused(path, key="x").what


def test_stores_that_lead_elsewhere_or_are_damaged_are_refused(tmp_path):
    path = store(tmp_path / "a.zarr", x=X)
    described = json.loads((path / "x/zarr.json").read_text())
    (path / "x/zarr.json").write_text(json.dumps({**described, "shape": [10**9, 16, 12]}))
    assert "would need 192 GB" in refused(path).what
    (path / "x/zarr.json").write_text("{")
    refused(path)
    (path / "x/zarr.json").unlink()
    (path / "x/zarr.json").symlink_to("/etc/hostname")
    assert "links" in refused(path).what
    (tmp_path / "none").mkdir()
    assert "not a zarr store" in refused(tmp_path / "none").what


def test_without_zarr_the_way_to_it_is_said(tmp_path, monkeypatch):
    (tmp_path / "zarr.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "zarr", None)
    error = refused(tmp_path)
    assert "not installed" in error.what and error.hint == "pip install 'cae-cli[zarr]'"


def test_trailing_streams_of_gzip_are_refused(tmp_path):
    numcodecs = pytest.importorskip("numcodecs")
    path = store(tmp_path / "a.zarr", 2, x=(X, numcodecs.GZip()))
    file = path / "x/0.0.0"
    file.write_bytes(file.read_bytes() + gzip.compress(bytes(2**20)))
    assert "unpacks to too much" in refused(path).what
