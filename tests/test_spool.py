"""Images that are kept in a file are the same as images in memory."""

import errno
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cae_cli import data
from cae_cli.config.compose import checked
from cae_cli.data import spool
from cae_cli.errors import UserError
from tests.conftest import environment

RNG = np.random.default_rng(0)


def grey(count, shape=(6, 5)):
    return list(RNG.integers(0, 256, (count, *shape), dtype=np.uint8))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cae"


@pytest.mark.parametrize("in_memory", [0, 100, 2**20])
@pytest.mark.parametrize("colours", [(), (0,), (7,), (3, 8)])
def test_grey_images_become_colour_where_one_is(in_memory, colours):
    images = grey(9)
    for i in colours:
        images[i] = np.stack([images[i], 255 - images[i], images[i]], axis=2)
    full = spool.Spool(in_memory)
    for image in images:
        full.append(image)
    expected = [
        np.repeat(image[..., None], 3, axis=2) if colours and image.ndim == 2 else image
        for image in images
    ]
    array = full.array()
    np.testing.assert_array_equal(array, expected)
    assert isinstance(array, np.memmap) == (in_memory < 2**20)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float32])
def test_images_of_one_type_keep_their_values(dtype):
    collected = spool.Spool()
    for value in (-1, 1):
        collected.append(np.full((8, 8), value, dtype))
    images = collected.array()
    assert images.dtype == dtype and images[:, 0, 0].tolist() == [-1, 1]


def test_the_file_has_no_name_and_chosen_images_are_copied_in_order(cache, monkeypatch):
    monkeypatch.setattr(spool, "BLOCK", 70)  # two images at a time
    images = grey(9)
    full = spool.Spool(0)
    for image in images:
        full.append(image)
    order = np.array([7, 0, 3, 8, 1])
    array = full.array()
    chosen = spool.chosen(array, order)
    del full, array
    assert isinstance(chosen, np.memmap)
    np.testing.assert_array_equal(chosen, np.array(images)[order])
    assert cache.is_dir() and not list(cache.iterdir())


def test_a_folder_read_into_a_file_gives_the_same_images(tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, pixels in enumerate(grey(40, (16, 16))):
        picture = np.stack([pixels, pixels, pixels // 2], axis=2) if i == 25 else pixels
        Image.fromarray(picture).save(folder / f"{i:02}.png")
    options = checked(["data=image_folder", f"data.path={folder}", "data.patches=8"])[1].data
    in_memory = data.load(options)
    monkeypatch.setattr(spool.Spool.__init__, "__defaults__", (500,))
    on_disk = data.load(options)
    assert isinstance(on_disk.train, np.memmap) and not isinstance(in_memory.train, np.memmap)
    assert on_disk.fingerprint() == in_memory.fingerprint()
    np.testing.assert_array_equal(on_disk.validation, in_memory.validation)
    assert on_disk.notes == in_memory.notes


def test_a_full_disk_is_reported(monkeypatch):
    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool, "_nameless", Full)
    full = spool.Spool(0)
    with pytest.raises(UserError, match="more space than the disk has: No space left"):
        full.append(grey(1)[0])


def test_a_disk_that_is_full_at_the_last_byte_is_reported_too(monkeypatch):
    array = spool.Spool(0)
    for image in grey(9):
        array.append(image)
    images = array.array()

    class Nearly(io.BytesIO):
        room = 8 * 30  # of nine images; no more than 100 bytes are taken at once

        def write(self, data):
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            count = min(len(data), 100, self.room)
            self.room -= count
            return count

    monkeypatch.setattr(spool, "_nameless", Nearly)
    with pytest.raises(UserError, match="No space left"):
        spool.chosen(images, np.arange(9))


def test_what_is_kept_in_memory_is_counted_as_it_will_be_in_the_array():
    full = spool.Spool(600)
    pictures = RNG.integers(0, 256, (7, 60, 50, 3), dtype=np.uint8)
    for picture in pictures:
        full.append(picture[:6, :5, 0])  # a patch of a channel: 30 bytes
    assert all(image.base is None for image in full._waiting)
    full.append(pictures[0, :6, :5])  # of colour: all become 90 bytes
    assert isinstance(full.array(), np.memmap)


def test_without_a_cache_folder_another_place_is_found(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    full = spool.Spool(0)
    images = grey(3)
    for image in images:
        full.append(image)
    np.testing.assert_array_equal(full.array(), images)


def test_what_will_be_scaled_to_floats_is_counted_as_floats():
    for dtype, filed in ((np.uint8, False), (np.uint16, True), (np.float32, True)):
        full = spool.Spool(600)
        for image in grey(10):  # 300 values
            full.append(image.astype(dtype))
        assert isinstance(full.array(), np.memmap) == filed


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv.pop(1)),) * 2)  # mapped files do not count
from cae_cli.cli import main
main()
"""


@pytest.mark.soak
@pytest.mark.parametrize(("dtype", "count", "size"), [(">u1", 110, 1), (">u2", 28, 4)])
def test_a_folder_larger_than_memory_is_read_split_and_checked(dtype, count, size, tmp_path):
    limit = 1_600_000_000  # bytes, of which a gigabyte may be images before they go to the disk
    assert count * 4096**2 * size > limit
    (tmp_path / "images").mkdir()
    for i in range(count):
        rng = np.random.default_rng(i)
        image = np.kron(rng.integers(0, 256, (64, 64)).astype(dtype), np.ones((64, 64), dtype))
        head = b"P5 4096 4096 %d\n" % np.iinfo(dtype).max
        (tmp_path / "images" / f"{i:03}.pgm").write_bytes(head + image.astype(dtype).tobytes())
    words = ["check", "data=image_folder", "data.path=images", "data.patches=256"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *words],
        capture_output=True, text=True, cwd=tmp_path, timeout=600,
        env=environment(OPENBLAS_NUM_THREADS="1", XDG_CACHE_HOME=str(tmp_path / "cache")),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"of {count} groups are for validation" in done.stderr
