"""Image files beyond 8-bit photographs: 16 bits, floating point, several pages, a hundred megapixels."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from cae_cli.data import load
from cae_cli.errors import UserError
from cae_cli.system import memory
from tests.test_data import configured
from tests.test_data_sources import colour, grey, read_folder, refused, save
from tests.test_hostile_data import chunk, one, png_of_16_bits

DEEP = np.random.default_rng(0).integers(0, 4096, (12, 12, 4), dtype=np.uint16)  # as of a 12-bit camera


def test_16_bit_grey_files_keep_every_level_and_are_the_same_images_as_an_array(tmp_path):
    wide = np.random.default_rng(1).integers(0, 4096, (20, 12, 12), dtype=np.uint16)
    np.save(tmp_path / "all.npy", wide)
    array = load(configured("npy", path=str(tmp_path / "all.npy")))
    for suffix in ("png", "tif", "pgm"):
        for i, image in enumerate(wide):
            save(tmp_path / suffix / f"{i:02}.{suffix}", image)
        images = load(configured("image_folder", path=str(tmp_path / suffix)))
        assert np.array_equal(images.train, array.train), suffix
        assert any("data.scale=minmax" in note for note in images.notes)
    minmax = load(configured("image_folder", path=str(tmp_path / "tif"), scale="minmax"))
    assert len(np.unique(minmax.train)) > 1000
    assert minmax.train.max() == 1


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_16_bit_png_of_every_kind(bands, interlaced, tmp_path):
    wide = DEEP[:8, :8, :bands].copy()
    if bands in (2, 4):
        wide[..., -1] = 65535
    header = b"\0\0\0\x08\0\0\0\x08\x10" + bytes(({1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, interlaced))
    adam7 = (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    )  # fmt: skip
    passes = adam7 if interlaced else ((0, 0, 1, 1),)
    lines = b"".join(
        b"\0" + line.astype(">u2").tobytes() for y, x, dy, dx in passes for line in wide[y::dy, x::dx]
    )
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    expected = wide[..., 0] if bands < 3 else wide[..., :3]
    assert np.array_equal(one(tmp_path), expected)


def test_half_transparent_16_bit_colour_is_on_white(tmp_path):
    wide = DEEP.copy()
    wide[..., 3] = 32768
    tifffile.imwrite(tmp_path / "a.tif", wide, photometric="rgb", extrasamples=["unassalpha"])
    expected = wide[..., :3] * 0.5 + 65535 * 0.5
    assert np.abs(one(tmp_path) - expected).max() < 2


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib", "tiff_lzw"])
@pytest.mark.parametrize("bands", [1, 3])
def test_16_bit_tiff_in_both_byte_orders_packed_and_plain(order, compression, bands, tmp_path):
    values = DEEP[..., 0] if bands == 1 else DEEP[..., :3]
    if compression == "tiff_lzw":
        if bands == 3 or order == ">":
            pytest.skip("no writer here")
        Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
    else:
        tifffile.imwrite(tmp_path / "a.tif", values, byteorder=order, compression=compression)
    read = one(tmp_path)
    assert read.dtype == np.uint16
    assert np.array_equal(read, values)


def test_0_may_be_white_in_16_bit_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", DEEP[..., 0], photometric="miniswhite")
    assert np.array_equal(one(tmp_path), 65535 - DEEP[..., 0])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_bands_one_after_the_other_and_white_at_0(order, compression, tmp_path):
    how = {"byteorder": order, "compression": compression}
    planes = np.moveaxis(DEEP[..., :3], -1, 0)
    (tmp_path / "rgb").mkdir()
    tifffile.imwrite(tmp_path / "rgb/a.tif", planes, photometric="rgb", planarconfig="separate", **how)
    assert np.array_equal(one(tmp_path / "rgb"), DEEP[..., :3])
    (tmp_path / "grey").mkdir()
    tifffile.imwrite(tmp_path / "grey/a.tif", DEEP[..., 0], photometric="miniswhite", **how)
    assert np.array_equal(one(tmp_path / "grey"), 65535 - DEEP[..., 0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_floating_point_colour_and_planes_are_upright_as_bytes_are(orientation, tmp_path):
    values = DEEP[:, :7, :3]
    kinds = {
        "bytes": ((values // 16).astype(np.uint8), "contig"),
        "float": ((values / 4096).astype(np.float32), "contig"),
        "planes": (np.moveaxis(values, -1, 0), "separate"),
    }
    for kind, (stored, planar) in kinds.items():
        (tmp_path / kind).mkdir()
        tifffile.imwrite(
            tmp_path / kind / "a.tif",
            stored,
            photometric="rgb",
            planarconfig=planar,
            extratags=[(274, "H", 1, orientation, True)],
        )
    expected = one(tmp_path / "bytes")
    assert np.array_equal(one(tmp_path / "planes") // 16, expected)
    assert np.array_equal((one(tmp_path / "float") * 4096).astype(int) // 16, expected)


@pytest.mark.parametrize("white", [4095, 65535])
def test_16_bit_colour_of_ppm(white, tmp_path):
    values = DEEP[:, :7, :3]
    whole = f"P6\n# of a camera\n7 12\n{white}\n".encode() + values.astype(">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(whole)
    assert np.array_equal(one(tmp_path), np.rint(values * (65535 / white)))
    (tmp_path / "a.ppm").write_bytes(whole[:-1])
    with pytest.raises(UserError, match="damaged"):
        one(tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_fourth_band_is_transparency_only_if_the_file_says_so(dtype, tmp_path):
    white = np.iinfo(dtype).max
    values = (DEEP // (1 if dtype == np.uint16 else 16)).astype(dtype)
    tifffile.imwrite(tmp_path / "infrared.tif", values, photometric="rgb", extrasamples=["unspecified"])
    pool = configured("image_folder", path=str(tmp_path)).read()
    assert pool.images.dtype == dtype
    assert np.array_equal(pool.images[0], values[..., :3])
    assert "bands beyond colour left out of 1 file: infrared.tif" in pool.notes[-1]
    values[..., 3] = white // 2
    values[..., :3] = values[..., :3] // 2
    (tmp_path / "alpha").mkdir()
    kinds = {"assocalpha": values[..., :3] + white / 2, "unassalpha": values[..., :3] / 2 + white / 2}
    for kind, expected in kinds.items():
        tifffile.imwrite(tmp_path / "alpha/a.tif", values, photometric="rgb", extrasamples=[kind])
        assert np.abs(one(tmp_path / "alpha") - expected).max() < 3, kind


def test_grey_tiff_of_16_bits_with_transparency(tmp_path):
    values = DEEP[..., :2].copy()
    values[..., 1] = 32768
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="minisblack", extrasamples=["unassalpha"],
        planarconfig="contig",
    )  # fmt: skip
    assert np.abs(one(tmp_path) - (values[..., 0] * 0.5 + 65535 * 0.5)).max() < 2


def test_the_transparent_grey_of_a_16_bit_png_is_white(tmp_path):
    values = DEEP[..., 0] + np.uint16(1)
    values[3, 4] = 0
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = b"\0\0\0\x0c\0\0\0\x0c\x10\0\0\0\0"
    parts = (b"IHDR", header), (b"tRNS", b"\0\0"), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    values[3, 4] = 65535
    assert np.array_equal(one(tmp_path), values)


@pytest.mark.parametrize("dtype", ["f4", "i4", "u2"])
def test_resized_images_stay_in_the_range_of_their_values(dtype, tmp_path):
    top = 0.8 if dtype == "f4" else 3000
    for i in range(12):
        values = np.zeros((90, 90), dtype)
        values[20:60, 10 + 3 * i : 40 + 3 * i] = top
        tifffile.imwrite(tmp_path / f"{i:02}.tif", values)
    read = read_folder(tmp_path, image_size=32)
    assert read.dtype == np.dtype(dtype)
    assert (read.min(), read.max()) == (0, np.dtype(dtype).type(top))
    if dtype == "f4":
        images = load(configured("image_folder", path=str(tmp_path), image_size=32))
        assert any("in [0, 1] already" in note for note in images.notes)


def test_a_file_that_is_too_large_is_not_called_damaged(tmp_path):
    with (tmp_path / "a.tif").open("wb") as file:
        file.truncate(2**31)
    told = refused("image_folder", path=str(tmp_path))
    assert "too large: 2.1 GB" in told.what
    assert "files of up to 1.1 GB are read" in str(told.hint)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(12, 12), (12, 12, 3), (3, 12, 12)])
def test_floating_point_tiff_keeps_its_values(dtype, shape, tmp_path):
    values = (np.arange(432).reshape(12, 12, 3) / 512).astype(dtype)
    values = {2: values[..., 0], 3: values}[len(shape)]
    stored = np.moveaxis(values, -1, 0) if shape[0] == 3 else values
    for i in range(5):
        tifffile.imwrite(
            tmp_path / f"{i}.tif", stored, photometric="minisblack" if values.ndim == 2 else "rgb"
        )  # fmt: skip
    read = read_folder(tmp_path)
    assert read.dtype == np.float32
    assert np.array_equal(read[0], values)


def test_signed_and_wide_integers_keep_their_values_and_need_a_scale(tmp_path):
    for i in range(6):
        tifffile.imwrite(tmp_path / f"{i}.tif", DEEP[..., 0].astype(np.int32) * 100 - 7 * i)
    told = refused("image_folder", path=str(tmp_path))
    assert "black and white are unknown" in told.what
    assert "data.scale=minmax" in str(told.hint)
    images = load(configured("image_folder", path=str(tmp_path), scale="minmax"))
    assert len(np.unique(images.train[0])) > 130


@pytest.mark.parametrize("values", [DEEP[..., 0], DEEP[..., :3], DEEP[..., 0] / 4096])
def test_deep_images_are_resized_and_cut_like_others(values, tmp_path):
    values = np.kron(values, np.ones((8, 16) + (1,) * (values.ndim - 2))).astype(values.dtype)
    values = values.astype(np.float32) if values.dtype.kind == "f" else values
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if values.ndim == 3 else "minisblack")
    small = one(tmp_path, image_size=24)
    assert small.shape == (24, 24, *values.shape[2:])
    assert small.dtype == values.dtype
    assert values.min() <= small.mean() <= values.max()
    patches = read_folder(tmp_path, image_size=24, patches=8)
    assert patches.shape == (18, 8, 8, *values.shape[2:])
    assert abs(one(tmp_path, channels=1).mean() / values.mean() - 1) < 0.05


def test_8_and_16_bits_meet_at_white_and_numbers_of_other_kinds_are_refused(tmp_path):
    save(tmp_path / "a.png", np.array([[0, 255], [1, 128]], np.uint8))
    save(tmp_path / "b.png", np.array([[0, 65535], [1, 128]], np.uint16))
    pool = configured("image_folder", path=str(tmp_path)).read()
    assert pool.images.tolist() == [[[0, 65535], [257, 128 * 257]], [[0, 65535], [1, 128]]]
    assert "8-bit files beside 16-bit files: 255 and 65535 are both white" in pool.notes
    tifffile.imwrite(tmp_path / "c.tif", np.eye(2, dtype=np.float32))
    told = refused("image_folder", path=str(tmp_path))
    assert "uint8 in a.png, uint16 in b.png" in told.what or "float32 in c.tif" in told.what
    assert "a folder for each kind" in str(told.hint)


STACK = np.random.default_rng(2).integers(0, 65536, (5, 12, 12), dtype=np.uint16)


@pytest.mark.parametrize(("frames", "count"), [("first", 1), ("all", 5), ("2", 2), ("9", 5)])
def test_pages_of_a_stack_are_read_as_configured_and_what_is_left_out_is_said(frames, count, tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", STACK)
    tifffile.imwrite(tmp_path / "single.tif", STACK[0])
    pool = configured("image_folder", path=str(tmp_path), frames=frames).read()
    assert np.array_equal(pool.images, [STACK[0], *STACK[:count]])
    left = f"{5 - count} frames left out of 1 file with more than {count}; data.frames=all reads them"
    assert list(pool.notes) == ([left] if count < 5 else [])
    assert pool.more == (f"data.frames=all reads {5 - count} more frames" if count < 5 else "")
    # Pages of one file are alike, so they are not shared out between training and validation.
    assert (None if pool.groups is None else pool.groups.tolist()) == (
        None if count == 1 else [0] + [1] * count
    )


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif"])
def test_frames_of_every_kind_of_animation_are_read(kind, tmp_path):
    frames = [Image.fromarray(colour(seed=i)) for i in range(3)]
    frames[0].save(
        tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:], duration=50, lossless=True
    )
    read = read_folder(tmp_path, frames="all")
    assert len(read) == 3
    if kind != "gif":
        assert np.array_equal(read, [colour(seed=i) for i in range(3)])
    else:  # 256 colours for each frame
        assert np.abs(read.astype(int) - [colour(seed=i) for i in range(3)]).mean() < 20


def test_a_smaller_copy_in_a_tiff_is_no_page(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(grey(32, 32), subfiletype=0)
        file.write(grey(16, 16), subfiletype=1)
    assert np.array_equal(one(tmp_path, frames="all"), grey(32, 32))


@pytest.mark.parametrize("frames", ["last", "0", "-1", "1.5", ""])
def test_frames_of_no_meaning_are_refused(frames, tmp_path):
    save(tmp_path / "a.png", grey())
    told = refused("image_folder", path=str(tmp_path), frames=frames)
    assert "data.frames must be first, all, or how many" in told.what
    assert told.hint == "use data.frames=all"


def test_bands_that_are_no_colours_are_named(tmp_path):
    values = np.ones((12, 12, 5), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    assert "a.tif (5 bands)" in refused("image_folder", path=str(tmp_path)).what


def test_a_tiff_that_unpacks_to_more_than_its_pixels_is_not_unpacked(tmp_path):
    values = np.ones((12, 12, 3), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        tag = page.tags["StripByteCounts"]
        bomb = zlib.compress(bytes(2**22))
        with (tmp_path / "a.tif").open("r+b") as written:
            size = written.seek(0, 2)
            written.write(bomb)
            for name, value in (("StripOffsets", size), ("StripByteCounts", len(bomb))):
                written.seek(page.tags[name].valueoffset)
                written.write(value.to_bytes(4 if tag.dtype == 4 else 2, "little"))
    assert "a.tif (too large inside)" in refused("image_folder", path=str(tmp_path)).what


def test_what_does_not_fit_into_memory_is_not_decoded(tmp_path, monkeypatch):
    save(tmp_path / "a.png", grey(40, 40))
    monkeypatch.setattr("cae_cli.data.decoding.MOST_PIXELS_AT_ONCE", 1000)
    monkeypatch.setattr(memory, "free", lambda: 1600 * 15)
    assert "a.png (too large for the memory)" in refused("image_folder", path=str(tmp_path)).what
    monkeypatch.setattr(memory, "free", lambda: 1600 * 17)
    assert np.array_equal(one(tmp_path), grey(40, 40))


@pytest.mark.soak
def test_a_hundred_megapixels_are_cut_into_patches(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.tile(grey(1000, 1000), (10, 10)), compression="zlib")
    tifffile.imwrite(tmp_path / "b.tif", np.tile(DEEP[:10, :10, 0], (1000, 1000)), compression="zlib")
    pool = configured("image_folder", path=str(tmp_path), patches=1000).read()
    assert pool.images.shape == (200, 1000, 1000)
    assert np.array_equal(pool.images[0], grey(1000, 1000) * np.uint16(257))


def test_a_folder_of_16_bits_larger_than_memory_is_scaled_in_a_file(tmp_path, monkeypatch):
    from cae_cli.data import spool

    for i in range(12):
        (tmp_path / f"{i:02}.png").write_bytes(png_of_16_bits(DEEP[..., :3] + np.uint16(i)))
    plain = load(configured("image_folder", path=str(tmp_path)))
    monkeypatch.setattr(spool.Spool.__init__, "__defaults__", (500,))
    images = load(configured("image_folder", path=str(tmp_path)))
    assert isinstance(images.train, np.memmap)
    assert images.train.dtype == np.float32
    assert images.fingerprint() == plain.fingerprint()


def test_a_full_disk_is_reported_before_images_are_scaled(tmp_path, monkeypatch):
    from cae_cli.data import spool

    def full(*_):
        raise OSError(28, "No space left on device")

    for i in range(12):
        save(tmp_path / f"{i:02}.png", DEEP[..., 0] + np.uint16(i))
    monkeypatch.setattr(spool.Spool.__init__, "__defaults__", (500,))
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(UserError, match="more space than the disk has"):
        load(configured("image_folder", path=str(tmp_path)))
