"""The sources: drawn, bundled, in NumPy's files, downloaded, in folders."""

from __future__ import annotations

import pickle
import subprocess
import sys
import types
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cae_cli.data import as_float, glyphs, load
from cae_cli.errors import UserError
from tests.test_data import configured

SHARED = Path(__file__).parents[2] / "shared" / "data"


def save(path: Path, array: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def grey(height: int = 12, width: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def colour(height: int = 12, width: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def read_folder(path: Path, **changes: Any) -> np.ndarray:
    return configured("image_folder", path=str(path), **changes).read().images


def refused(name: str, **changes: Any) -> UserError:
    with pytest.raises(UserError) as error:
        load(configured(name, **changes))
    assert not error.value.what.endswith(".")
    assert error.value.hint
    return error.value


def test_importing_the_sources_is_cheap() -> None:
    heavy = {"tensorflow", "keras", "sklearn", "matplotlib", "PIL", "scipy"}
    code = f"import sys, cae_cli.data; print({heavy!r} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


# Glyphs


def test_every_font_draws_every_character_differently() -> None:
    mask_of = glyphs._masks(56)
    for font in glyphs.FONTS:
        drawn = {mask_of(font, c, 0).tobytes() for c in glyphs.CHARACTERS}
        # A missing character would be an empty image or the same box over and over. In some fonts
        # two letters are the same but for their place on the line.
        assert len(drawn) >= len(glyphs.CHARACTERS) - 2
        assert all(mask_of(font, c, 0).width > 2 for c in glyphs.CHARACTERS)


def test_glyphs_are_whole_varied_and_fill_the_image() -> None:
    pool = configured("glyphs", train=1000, background="dark").read()
    images = pool.images
    assert pool.labels is not None
    assert set(pool.labels) == set(range(62))
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    assert (border.max(axis=1) > 128).mean() < 0.05  # strokes that touch the border
    for axis in (1, 2):
        extent = (images > 64).any(axis=axis).sum(axis=1)
        assert extent.mean() > 14
        assert extent.std() > 2
    assert (images[:, 0, 0] == 0).mean() > 0.99
    assert len({image.tobytes() for image in images}) == len(images)


def test_backgrounds_are_what_they_are_called() -> None:
    ends = {}
    for background in ("random", "dark", "light"):
        images = as_float(configured("glyphs", train=400, background=background).read().images)
        ends[background] = images.min(axis=(1, 2)), images.max(axis=(1, 2)), images[:, 0, 0]
    assert (ends["dark"][0] == 0).all()
    assert (ends["dark"][1] > 0.5).mean() > 0.99
    assert (ends["light"][1] == 1).all()
    low, high, corner = ends["random"]
    assert ((high - low) > 0.25).mean() > 0.99
    assert 0.4 < (corner < (low + high) / 2).mean() < 0.6


@pytest.mark.parametrize("size", [8, 21, 64])
def test_glyphs_come_in_any_size(size: int) -> None:
    assert load(configured("glyphs", train=10, size=size)).shape == (size, size, 1)


def test_as_many_glyphs_are_drawn_as_configured() -> None:
    assert len(configured("glyphs").read().images) == 8192 + 910


def test_glyphs_without_number_are_60000(monkeypatch: pytest.MonkeyPatch) -> None:
    assert glyphs.MANY == 60_000
    monkeypatch.setattr(glyphs, "MANY", 100)
    images = load(configured("glyphs", train=None))
    assert (len(images.train), len(images.validation)) == (90, 10)


def test_more_glyphs_than_memory_holds_are_refused_at_once() -> None:
    with pytest.raises(UserError, match=r"1,111,111,111,111 glyphs would need 1\.1 PB of memory"):
        configured("glyphs", train=10**12).read()


def test_missing_fonts_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    assert "cannot be read" in refused("glyphs", train=5).what


# Bundled


def test_digits_reach_white() -> None:
    images = load(configured("digits"))
    assert images.shape == (8, 8, 1)
    assert images.train.max() == 1
    assert len(images.train) + len(images.validation) == 1797


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 28), (1, 16), (1, 301)])
def test_patches_of_one_strip_stay_on_one_side(channels: int, side: int) -> None:
    source = configured("patches", channels=channels, side=side)
    pool = source.read()
    assert pool.groups is not None
    images = load(source)
    assert images.shape == (side, side, channels)
    assert len(set(pool.groups)) >= 2
    groups = {image.tobytes(): g for image, g in zip(pool.images, pool.groups, strict=True)}
    if len(groups) == len(pool.images):  # no two patches are equal
        sides = [{groups[x.tobytes()] for x in part} for part in (images.train, images.validation)]
        assert not sides[0] & sides[1]


# NumPy's files


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "images.npz"
    x = np.stack([grey(8, 8, seed=i) for i in range(40)])
    y = np.arange(40)[:, None]
    np.savez(path, x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:], other=x[:20])
    return path


def test_npz_gives_both_parts_with_labels(archive: Path) -> None:
    images = load(configured("npz", path=str(archive)))
    assert len(images.train) + len(images.validation) == 30
    assert images.test is not None
    assert len(images.test) == 10
    assert images.test_labels is not None
    assert images.test_labels.tolist() == list(range(30, 40))


def test_another_array_of_an_npz_comes_alone(archive: Path) -> None:
    pool = configured("npz", path=str(archive), key="other").read()
    assert len(pool.images) == 20
    assert pool.test_images is None
    assert pool.labels is None


def test_a_missing_array_names_those_there_are(archive: Path) -> None:
    error = refused("npz", path=str(archive), key="x_trian")
    assert "x_train (30, 8, 8)" in error.what
    assert error.hint == "use data.key=x_train"


def test_labels_that_are_no_numbers_are_left_out_and_noted(tmp_path: Path) -> None:
    x = np.stack([grey(8, 8, seed=i) for i in range(9)])
    np.savez(tmp_path / "a.npz", x_train=x, y_train=np.array(["cat"] * 9))
    pool = configured("npz", path=str(tmp_path / "a.npz")).read()
    assert pool.labels is None
    assert "y_train ignored" in pool.notes[0]


def test_npy_gives_its_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([colour(8, 8, seed=i) for i in range(9)]))
    assert load(configured("npy", path=str(tmp_path / "a.npy"))).shape == (8, 8, 3)


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    ragged = np.array([grey(8, 8), grey(9, 9)], dtype=object)
    np.save(tmp_path / "a.npy", ragged, allow_pickle=True)
    np.savez(tmp_path / "a.npz", x_train=ragged)
    (tmp_path / "b.npy").write_bytes(pickle.dumps([1, 2]))
    for name, file in (("npy", "a.npy"), ("npz", "a.npz"), ("npy", "b.npy")):
        error = refused(name, path=str(tmp_path / file))
        assert "pickled objects, which are not loaded" in error.what
        assert error.where == str(tmp_path / file)


def test_pickles_do_not_hide_the_other_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([None]), b=grey())
    assert "a (pickled objects), b (12, 12)" in refused("npz", path=str(tmp_path / "a.npz")).what


def test_damaged_files_are_explained(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    np.save(tmp_path / "whole.npy", grey(40, 40))
    array = (tmp_path / "whole.npy").read_bytes()
    files = {
        "cut.npz": whole[: len(whole) // 2],
        "flipped.npz": whole[:300] + bytes(200) + whole[500:],
        "short.npz": whole[:10],
        "text.npz": b"not an archive",
        "empty.npz": b"",
        "cut.npy": array[:500],
        "header.npy": array[:20] + bytes(40) + array[60:],
        "empty.npy": b"",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        error = refused(name[-3:], path=str(tmp_path / name))
        assert error.what.startswith("data.path")
        assert error.where == str(tmp_path / name)


def test_an_empty_npz_has_no_arrays(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no arrays"):
        np.savez(tmp_path / "a.npz")
        configured("npz", path=str(tmp_path / "a.npz")).read()


def test_npz_and_npy_mistaken_for_each_other_are_reported(archive: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", grey())
    assert "data=npz" in str(refused("npy", path=str(archive)).hint)
    assert "data=npy" in str(refused("npz", path=str(tmp_path / "a.npy")).hint)


@pytest.mark.parametrize("name", ["npz", "npy", "image_folder"])
@pytest.mark.parametrize("path", [None, "", "  "])
def test_a_path_without_value_is_an_error(name: str, path: str | None) -> None:
    error = refused(name, path=path)
    assert error.what == "data.path has no value"
    assert str(error.hint).startswith("use data.path=")


def test_a_mistyped_path_gets_the_nearest_name(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refused("npz", path=str(tmp_path / "imgaes.npz"))
    assert error.hint == f"did you mean {archive}?"
    (tmp_path / "pictures").mkdir()
    error = refused("image_folder", path=str(tmp_path / "picture" / "cats"))
    assert error.hint == f"did you mean {tmp_path / 'pictures'}?"
    assert "in it does not" in str(refused("npz", path=str(tmp_path / "zzzzzz")).hint)
    monkeypatch.chdir(tmp_path)
    assert refused("npz", path="zzzzzz").hint == f"relative paths start at {tmp_path}"


def test_impossible_paths_are_mistakes_of_the_user() -> None:
    for path in ("x" * 5000, "a\0b", "~nobody_of_this_name/x"):
        with pytest.raises(UserError, match=r"data\.path"):
            configured("npz", path=path).read()


def test_folders_and_files_are_not_taken_for_each_other(archive: Path) -> None:
    error = refused("npz", path=str(archive.parent))
    assert "must be a file, got a folder" in error.what
    assert error.hint == f"use data.path={archive}"
    assert refused("image_folder", path=str(archive)).hint == "use data=npz for arrays"
    text = archive.with_name("a.txt")
    text.write_text("words")
    assert (
        "must be a folder, an image or an archive of images"
        in refused("image_folder", path=str(text)).what
    )


def test_the_home_folder_may_be_written_as_tilde(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(archive.parent))
    assert len(configured("npz", path="~/images.npz").read().images) == 30


# Downloads


def fake_keras(monkeypatch: pytest.MonkeyPatch, load_data: Any) -> None:
    names = ("mnist", "fashion_mnist", "cifar10")
    keras = types.ModuleType("keras")
    sets = {n: types.SimpleNamespace(load_data=load_data) for n in names}
    keras.datasets = types.SimpleNamespace(**sets)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keras", keras)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), OSError(), Exception("404")])
def test_a_failed_download_says_what_to_do(
    name: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_data() -> Any:
        raise error

    fake_keras(monkeypatch, load_data)
    told = refused(name)
    assert told.what.startswith(f"{name} cannot be downloaded")
    assert "data.path=" in str(told.hint)
    assert "x_train" in str(told.hint)


def test_a_download_gives_both_parts_and_keeps_stdout_clean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_data() -> Any:
        print("Downloading data …")
        x = np.stack([colour(8, 8, seed=i) for i in range(30)])
        return (x, np.arange(30)[:, None]), (x[:5], np.arange(5)[:, None])

    fake_keras(monkeypatch, load_data)
    images = load(configured("cifar10", test=3))
    assert len(images.train) + len(images.validation) == 30
    assert images.test is not None
    assert len(images.test) == 3
    assert images.train_labels is not None
    assert images.train_labels.shape == (27,)
    assert capsys.readouterr().out == ""


def test_a_local_file_stands_in_for_a_download(archive: Path) -> None:
    assert load(configured("mnist", path=str(archive))).source == "mnist"


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_real_archives(name: str) -> None:
    path = SHARED / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    images = load(configured(name, path=str(path), test=100))
    assert images.train.shape == (54_000, 28, 28, 1)
    assert images.validation.shape == (6_000, 28, 28, 1)
    assert images.train.dtype == np.uint8
    assert images.test is not None
    assert len(images.test) == 100


def test_real_photographs() -> None:
    if not (SHARED / "photos").is_dir():
        pytest.skip("no photographs there")
    source = configured("image_folder", path=str(SHARED / "photos"), image_size=128, patches=32)
    images = load(source)
    assert images.shape == (32, 32, 1)
    assert len(images.train) + len(images.validation) == 14 * 16
    assert len(images.validation) == 2 * 16


# Folders


def test_a_folder_gives_its_images_in_order_with_sub_folders_as_labels(tmp_path: Path) -> None:
    arrays = [grey(seed=i) for i in range(4)]
    names = ("dogs/b.png", "cats/z.PNG", "cats/deep/a.bmp", "dogs/a.tif")
    for name, array in zip(names, arrays, strict=True):
        save(tmp_path / name, array)
    save(tmp_path / ".hidden" / "x.png", grey())
    save(tmp_path / "cats" / ".x.png", grey())
    (tmp_path / "dogs" / "notes.txt").write_text("no image")
    pool = configured("image_folder", path=str(tmp_path)).read()
    expected = [arrays[i] for i in (2, 1, 3, 0)]
    assert np.array_equal(pool.images, np.stack(expected))
    assert pool.labels is not None
    assert pool.labels.tolist() == [0, 0, 1, 1]
    assert pool.groups is None
    assert pool.notes == ("files that are not images, ignored: 1",)


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", grey(seed=i))
    pool = configured("image_folder", path=str(tmp_path)).read()
    assert pool.images.shape == (3, 12, 12)
    assert pool.labels is None


def test_folders_without_images_are_explained(tmp_path: Path) -> None:
    assert "it is empty" in refused("image_folder", path=str(tmp_path)).what
    (tmp_path / "a.txt").write_text("x")
    error = refused("image_folder", path=str(tmp_path))
    assert "other files: 1" in error.what
    assert ".jpeg" in str(error.hint)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((16, 32), np.uint8)
    upright[:, 16:] = 255  # dark left, bright right
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    save(tmp_path / "a.jpg", upright, exif=exif, quality=95)
    read = read_folder(tmp_path)[0]
    assert read.shape == (32, 16)
    assert read[:8].max() < 50
    assert read[-8:].min() > 200


def test_palette_and_grey_stored_as_colour_are_recognised(tmp_path: Path) -> None:
    pixels = grey()
    Image.fromarray(pixels).convert("P").save(tmp_path / "a.png")
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "b.png")
    Image.fromarray(pixels).save(tmp_path / "c.gif")
    read = read_folder(tmp_path)
    assert read.shape == (3, 12, 12)
    assert np.array_equal(read[1], pixels)
    Image.fromarray(colour()).quantize(16).save(tmp_path / "d.png")
    assert read_folder(tmp_path).shape == (4, 12, 12, 3)


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    rgba = np.zeros((12, 12, 4), np.uint8)
    rgba[:, 6:, 3] = 255
    save(tmp_path / "rgba.png", rgba)
    Image.fromarray(rgba).convert("LA").save(tmp_path / "la.png")
    palette = Image.fromarray(np.repeat([[0, 1]], 12, axis=0).repeat(6, axis=1).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.save(tmp_path / "p.png", transparency=0)
    for read in read_folder(tmp_path):
        assert (read[:, :6] == 255).all()
        assert (read[:, 6:] == 0).all()


def test_cmyk_becomes_colour(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = read_folder(tmp_path)[0, 8, 8]
    assert red > 200
    assert max(green, blue) < 60


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(grey(seed=i)) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(read_folder(tmp_path)[0], grey(seed=0))


@pytest.mark.parametrize(
    ("channels", "shape"), [(None, (2, 12, 12, 3)), (1, (2, 12, 12)), (3, (2, 12, 12, 3))]
)
def test_channels_are_as_configured(
    channels: int | None, shape: tuple[int, ...], tmp_path: Path
) -> None:
    save(tmp_path / "a.png", grey())
    save(tmp_path / "b.png", colour())
    assert read_folder(tmp_path, channels=channels).shape == shape


def test_two_channels_are_refused(tmp_path: Path) -> None:
    assert "data.channels must be one of 1, 3" in refused("image_folder", channels=2).what


def test_images_are_scaled_by_the_shorter_side_and_cropped(tmp_path: Path) -> None:
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 255
    save(tmp_path / "a.png", wide)
    save(tmp_path / "b.jpg", np.repeat(np.repeat(wide, 20, axis=0), 20, axis=1))
    read = read_folder(tmp_path, image_size=10)
    assert read.shape == (2, 10, 10)
    assert read[:, :, 2:-2].min() > 200


def test_patches_tile_the_image_and_stay_together(tmp_path: Path) -> None:
    a, b = grey(35, 51, seed=1), grey(32, 16, seed=2)
    save(tmp_path / "a.png", a)
    save(tmp_path / "b.png", b)
    save(tmp_path / "c.png", grey(15, 90))
    pool = configured("image_folder", path=str(tmp_path), patches=16).read()
    assert pool.images.shape == (2 * 3 + 2, 16, 16)
    assert pool.groups is not None
    assert pool.groups.tolist() == [0] * 6 + [1] * 2
    assert np.array_equal(pool.images[0], a[1:17, 1:17])
    assert np.array_equal(pool.images[7], b[16:])
    assert "1 file (c.png) left out: smaller than a patch" in pool.notes[0]


def test_patches_of_resized_images(tmp_path: Path) -> None:
    save(tmp_path / "a.png", grey(64, 96))
    assert read_folder(tmp_path, image_size=32, patches=16).shape == (6, 16, 16)
    error = refused("image_folder", path=str(tmp_path), image_size=8, patches=16)
    assert "at most data.image_size" in error.what


def test_patches_larger_than_all_images_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", grey())
    assert "no image is as large" in refused("image_folder", path=str(tmp_path), patches=64).what


def test_different_sizes_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png", grey(12, 14))
    save(tmp_path / "b.png", grey(16, 14))
    error = refused("image_folder", path=str(tmp_path))
    assert "14x12 in a.png, 14x16 in b.png" in error.what
    assert "data.image_size=64" in str(error.hint)


def damage(folder: Path) -> None:
    whole = save(folder / "x_cut.png", grey(64, 64)).read_bytes()
    (folder / "x_cut.png").write_bytes(whole[: len(whole) // 2])
    jpeg = save(folder / "x_cut.jpg", colour(64, 64)).read_bytes()
    (folder / "x_cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "x_empty.png").touch()
    (folder / "x_text.jpg").write_text("not an image")


def test_a_few_unreadable_files_are_skipped_and_named(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / f"{i}.png", grey(seed=i))
    damage(tmp_path)
    pool = configured("image_folder", path=str(tmp_path), unreadable=0.4).read()
    assert len(pool.images) == 6
    assert pool.notes[0] == (
        "4 unreadable files left out: x_cut.jpg (truncated), x_cut.png (truncated), "
        "x_empty.png (empty), x_text.jpg (not an image)"
    )
    error = refused("image_folder", path=str(tmp_path))
    assert "4 of 10 files cannot be read: x_cut.jpg (truncated)" in error.what
    assert "data.unreadable=0.4" in str(error.hint)


def test_nothing_but_unreadable_files_is_refused(tmp_path: Path) -> None:
    damage(tmp_path)
    error = refused("image_folder", path=str(tmp_path), unreadable=1.0)
    assert "none of 4 files can be read" in error.what


def test_absurdly_large_images_count_as_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.png", grey())
    save(tmp_path / "b.png", grey(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)  # Pillow refuses twice as many
    pool = configured("image_folder", path=str(tmp_path), unreadable=0.5).read()
    assert len(pool.images) == 1
    assert "b.png (too large: 1,600 pixels)" in pool.notes[0]
