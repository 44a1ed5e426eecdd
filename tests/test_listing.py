"""Image files in archives, alone, or not there at all."""

import sys
import tarfile
import zipfile

import numpy as np
import pytest
import tifffile

from cae_cli.data import load
from tests.test_data import configured
from tests.test_data_sources import grey, refused, save


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    for i in range(6):
        save(folder / f"{'ab'[i % 2]}/{i}.png", grey(seed=i))
    (folder / "readme.txt").write_text("words")
    (folder / ".hidden.png").write_bytes(b"x")
    return folder


def packed(folder, form):
    path = folder.with_name(f"photos.{form}")
    if form == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.rglob("*"), reverse=True):
                archive.write(file, file.relative_to(folder.parent))
            archive.writestr("__MACOSX/photos/a/._0.png", b"x")
    else:
        with tarfile.open(path, "w:" + form.removeprefix("tar").removeprefix(".")) as archive:
            archive.add(folder, "./photos")
    return path


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.xz"])
def test_an_archive_is_read_like_its_folder(form, folder):
    plain = configured("image_folder", path=str(folder)).read()
    pool = configured("image_folder", path=str(packed(folder, form))).read()

    def pairs(pool):
        return sorted(zip(map(np.ndarray.tobytes, pool.images), pool.labels, strict=True))

    assert pairs(pool) == pairs(plain)
    assert pool.notes == plain.notes == ("files that are not images, ignored: 1",)


def test_what_is_wrong_in_an_archive_is_left_out_with_its_reason(folder):
    path = packed(folder, "zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("photos/a/empty.png", b"")
        archive.writestr("photos/a/cut.png", (folder / "a/0.png").read_bytes()[:-40])
        archive.writestr("photos/a/odd.png", (folder / "a/0.png").read_bytes(), zipfile.ZIP_LZMA)
    pool = configured("image_folder", path=str(path), unreadable=0.5).read()
    assert len(pool.images) == 6
    for problem in ("cut.png (truncated)", "empty.png (empty)", "odd.png (unusual compression)"):
        assert f"photos/a/{problem}" in pool.notes[1]


def test_nothing_of_an_archive_is_written_to_the_disk(folder, monkeypatch):
    path = folder.with_name("evil.tar")
    with tarfile.open(path, "w") as archive:
        for name in ("../../evil.png", "/evil.png", "/tmp/more.png"):
            archive.add(folder / "a/0.png", name)
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = {*folder.parent.rglob("*")}
    pool = configured("image_folder", path=str(path)).read()
    assert len(pool.images) == 2  # what leads upwards begins with a dot
    assert {*folder.parent.rglob("*")} == before


def test_an_archive_without_images_is_explained(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", b"words")
    error = refused("image_folder", path=str(tmp_path / "a.zip"))
    assert error.what == "data.path has no images, other files: 1"
    assert ".png" in error.hint


def test_one_file_is_cut_into_patches_or_read_by_its_frames(tmp_path):
    save(tmp_path / "photo.png", grey(64, 64))
    images = load(configured("image_folder", path=str(tmp_path / "photo.png"), patches=16))
    assert len(images.train) + len(images.validation) == 16
    stack = np.random.default_rng(0).integers(0, 65536, (20, 12, 12), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack)
    images = load(configured("image_folder", path=str(tmp_path / "stack.tif"), frames="all"))
    assert len(images.train) == 18
    assert any("all images come from one file" in note for note in images.notes)
    hints = {"photo.png": "data.patches=28 cuts it", "stack.tif": "data.frames=all reads all"}
    for name, hint in hints.items():
        error = refused("image_folder", path=str(tmp_path / name))
        assert error.what == "data.path is a single image"
        assert hint in error.hint


def test_pointers_of_git_lfs_are_recognised(folder):
    for file in folder.rglob("*.png"):
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    error = refused("image_folder", path=str(folder))
    assert "(a Git LFS pointer)" in error.what
    assert error.hint == "git lfs pull"


@pytest.mark.parametrize("form", ["struct", "bytes"])
def test_a_column_of_image_files_in_parquet(form, folder, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    files = sorted(folder.rglob("[0-9].png"), key=lambda file: file.name)
    content = [file.read_bytes() for file in files]
    images = content if form == "bytes" else [{"bytes": c, "path": None} for c in content]
    table = pyarrow.table({"id": range(6), "image": images, "label": [i % 2 for i in range(6)]})
    parquet.write_table(table, tmp_path / "a.parquet")
    pool = configured("image_folder", path=str(tmp_path / "a.parquet")).read()
    assert sorted(zip(map(np.ndarray.tobytes, pool.images), pool.labels, strict=True)) == sorted(
        (grey(seed=i).tobytes(), i % 2) for i in range(6)
    )
    assert pool.notes == ("images are the column image, labels label",)
    parquet.write_table(table.select(["id"]), tmp_path / "b.parquet")
    error = refused("image_folder", path=str(tmp_path / "b.parquet"))
    assert error.what == "data.path has no column of image files, but id"
    (tmp_path / "c.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-30])
    assert "damaged" in refused("image_folder", path=str(tmp_path / "c.parquet")).hint


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    assert (
        refused("image_folder", path=str(tmp_path / "a.parquet")).hint
        == "pip install 'cae-cli[parquet]'"
    )
