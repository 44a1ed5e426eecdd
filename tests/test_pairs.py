"""Pairs of images: what the network is given, and what it is to make of it."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cae_cli import experiment
from cae_cli.config.compose import checked
from cae_cli.data import Images, Scale, as_float, load, load_alike
from cae_cli.data.layout import layout
from cae_cli.data.pairs import partners
from cae_cli.errors import UserError
from cae_cli.external.model import all_measured
from tests.test_data import configured
from tests.test_data_sources import grey, save


def read(path: Path, target: Path | None = None, **changes: Any) -> Images:
    other = {} if target is None else {"target": str(target)}
    return load(configured("pairs", path=str(path), **other, **changes))


def inverted(
    root: Path, names: str = "abcdefghij", size: tuple[int, int] = (12, 12)
) -> tuple[Path, Path]:
    """Folders of images and of their negatives."""
    for k, name in enumerate(names):
        image = grey(*size, seed=k)
        save(root / f"noisy/{name}.png", image)
        save(root / f"clean/{name}.png", 255 - image)
    return root / "noisy", root / "clean"


def are_negatives(images: Images) -> bool:
    inputs = images.train_inputs, images.validation_inputs, images.test_inputs
    targets = images.train, images.validation, images.test
    return all(
        t is None if x is None else np.allclose(as_float(x) + as_float(t), 1, atol=1e-6)
        for x, t in zip(inputs, targets, strict=True)
    )


def test_files_are_paired_by_name_and_stay_together(tmp_path):
    images = read(*inverted(tmp_path))
    assert (len(images.train), len(images.validation)) == (9, 1)
    assert are_negatives(images)
    assert images.train.dtype == images.train_inputs.dtype == np.uint8
    assert images.are_pairs and images.held_out_given is images.validation_inputs


def test_patches_parts_labels_and_frames_stay_together(tmp_path):
    for k, folder in enumerate(("train/x", "train/y", "test/x")):
        inverted(tmp_path / "one", "ab", (16, 24 + 8 * k))
        for name in "ab":
            for side in ("noisy", "clean"):
                path = tmp_path / side / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes((tmp_path / f"one/{side}/{name}.png").read_bytes())
    images = read(tmp_path / "noisy", tmp_path / "clean", patches=8, validation=0.25)
    assert (len(images.train) + len(images.validation), len(images.test)) == (28, 20)
    assert are_negatives(images)
    assert set(images.train_labels) | set(images.validation_labels) == {0, 1}


def test_names_without_a_partner_are_said(tmp_path):
    noisy, clean = inverted(tmp_path)
    for i in range(6):
        save(noisy / f"x{i}.png", grey())
    save(clean / "y.png", grey(99))  # of another size: it is not even read
    images = read(noisy, clean)
    assert are_negatives(images)
    first, second = images.notes[:2]
    assert first == (
        "! 6 inputs left out, as no target has the same name: x0.png, x1.png, x2.png, x3.png, x4.png, …"
    )
    assert second == "! 1 target left out, as no input has the same name: y.png"


def test_a_file_that_cannot_be_read_takes_its_partner_with_it(tmp_path):
    noisy, clean = inverted(tmp_path)
    (clean / "c.png").write_bytes(b"x")
    images = read(noisy, clean)
    assert len(images.train) + len(images.validation) == 9
    assert are_negatives(images)
    assert "1 pair left out: one of both cannot be used: c.png" in images.notes


@pytest.mark.parametrize(("one", "other", "pairs"), [
    (["a.png", "b.jpg"], ["a.png", "b.png", "c.png"], [("a.png", "a.png"), ("b.jpg", "b.png")]),
    (["a.jpg", "a.png"], ["a.png", "a.jpg"], [("a.jpg", "a.jpg"), ("a.png", "a.png")]),
    (["x/1_noisy.png", "x/2_noisy.png"], ["x/1_clean.png", "y/2_clean.png"],
     [("x/1_noisy.png", "x/1_clean.png")]),
    (["NOISY_010.PNG"], ["GT_010.PNG"], [("NOISY_010.PNG", "GT_010.PNG")]),
    (["a.jpg", "a.bmp"], ["a.png"], []),  # which of both it is nobody knows
    (["low_1.png", "high_2.png"], ["high_1.png", "low_2.png"], []),
])  # fmt: skip
def test_partners(one, other, pairs):
    assert partners(one, other) == pairs


@pytest.mark.parametrize(("make", "options", "what", "hint"), [
    (lambda x: x.resize((6, 12)), {}, "a.png have different sizes: 12x12 and 6x12", "image_size"),
    (lambda x: x.resize((18, 12)), {"image_size": 8}, "different proportions: 12x12 and 18x12", "cut"),
    (lambda x: x.resize((15, 15)), {"patches": 8}, "different sizes: 12x12 and 15x15", "image_size=15"),
    (lambda x: Image.merge("RGB", (x, x, x.rotate(90))), {}, "are 12x12x1, targets 12x12x3", "=3 or 1"),
])  # fmt: skip
def test_images_that_do_not_fit_are_refused(tmp_path, make, options, what, hint):
    noisy, clean = inverted(tmp_path)
    for path in clean.iterdir():
        with Image.open(path) as image:
            made = make(image)
        made.save(path)
    with pytest.raises(UserError) as error:
        read(noisy, clean, **options)
    assert what in error.value.what
    assert hint in error.value.hint


def test_small_inputs_are_enlarged_where_a_size_is_given(tmp_path):
    noisy, clean = inverted(tmp_path, size=(32, 48))
    for path in noisy.iterdir():
        with Image.open(path) as image:
            small = image.resize((24, 16), Image.Resampling.BOX)
        small.save(path)
    images = read(noisy, clean, image_size=16)
    assert images.shape == (16, 16, 1)
    assert (
        np.corrcoef(as_float(images.train).ravel(), as_float(images.train_inputs).ravel())[0, 1] < -0.8
    )


def test_patches_show_the_same_place_where_one_image_has_a_column_more(tmp_path):
    for i in range(2):  # a bright column of patches for each position
        large = np.zeros((1003, 1503), np.uint8)
        large[:] = np.arange(1503) // 6
        large[:500] //= 1 + i
        with Image.fromarray(large) as image:
            (tmp_path / "hr").mkdir(exist_ok=True)
            image.save(tmp_path / f"hr/{i}.png")
            save(tmp_path / f"lr/{i}.png", np.asarray(image.resize((1503 // 4, 1003 // 4))))
    pool = configured(
        "pairs", path=str(tmp_path / "lr"), target=str(tmp_path / "hr"), image_size=512, patches=64
    ).read()
    assert len(pool.images) == len(pool.inputs) == 2 * 8 * 11  # 768 and 767 columns of pixels
    differences = np.abs(pool.images.astype(int) - pool.inputs).mean(axis=(1, 2))
    assert differences.max() < 8
    assert "patches left out of 2 pairs, where one image has a row or a column more" in pool.notes[0]


def test_stacks_of_different_lengths_are_no_pairs(tmp_path):
    for folder, count in (("noisy", 5), ("clean", 4)):
        (tmp_path / folder).mkdir()
        for i in range(3):
            first, *others = (Image.fromarray(grey(seed=10 * i + k)) for k in range(count))
            first.save(tmp_path / folder / f"{i}.tif", save_all=True, append_images=others)
    with pytest.raises(UserError, match=r"the two files of 0\.tif have 5 and 4 frames"):
        read(tmp_path / "noisy", tmp_path / "clean", frames="all")
    assert len(read(tmp_path / "noisy", tmp_path / "clean", frames="4").train) == 8
    assert len(read(tmp_path / "noisy", tmp_path / "clean").train) == 2


def test_the_size_of_a_photograph_is_that_of_the_file(tmp_path):
    sides = {"noisy": (1085, 465), "clean": (3256, 1397)}  # decoded at a quarter: 814x350
    for folder, size in sides.items():
        (tmp_path / folder).mkdir()
        for i in range(12):
            image = Image.fromarray(grey(14, 33, seed=i)).resize(size if i == 5 else (256, 128))
            turned = Image.Exif()
            turned[274] = 6
            image.save(tmp_path / folder / f"{i}.jpg", exif=turned if i % 2 else Image.Exif())
    assert len(read(tmp_path / "noisy", tmp_path / "clean", image_size=64).train) > 9


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_archives_of_folders_are_paired_whatever_their_order(tmp_path, kind):
    noisy, clean = inverted(tmp_path)
    inverted(tmp_path / "more/x", "kl")
    paths = []
    for k, side in enumerate((noisy, clean)):
        root = tmp_path / f"archive {k}"
        shutil.copytree(side, root / side.name / "a")
        shutil.copytree(tmp_path / "more/x" / side.name, root / side.name / "b")
        paths.append(Path(shutil.make_archive(str(tmp_path / side.name), kind, root)))
    if kind == "gztar":  # as the file system lists them, which differs
        with tarfile.open(paths[0]) as archive:
            members = [(m, archive.extractfile(m).read()) for m in archive if m.isfile()]
        with tarfile.open(paths[0], "w:gz") as archive:
            for member, content in reversed(members):
                archive.addfile(member, io.BytesIO(content))
    images = read(*paths)
    assert len(images.train) + len(images.validation) == 12
    assert are_negatives(images)


def test_folders_without_common_names_are_refused(tmp_path):
    noisy, _ = inverted(tmp_path, "abc")
    _, clean = inverted(tmp_path / "other", "xyz")
    with pytest.raises(UserError, match=r"a\.png and x\.png are the first ones"):
        read(noisy, clean)
    with pytest.raises(UserError, match=r"target has no value"):
        read(noisy)


X = np.random.default_rng(0).random((20, 8, 8), dtype=np.float32)


@pytest.mark.parametrize("form", ["one file", "two keys", "two files", "npy", "mixed"])
def test_arrays_are_paired_by_their_order(tmp_path, form):
    y = 1 - X
    np.savez(tmp_path / "train.npz", x_train=X[:16], y_train=y[:16], x_test=X[16:], y_test=y[16:])
    np.savez(tmp_path / "keys.npz", noisy=X, clean=y, other=X[:3])
    np.savez(tmp_path / "x.npz", x_train=X[:16], x_test=X[16:])
    np.savez(tmp_path / "y.npz", x_train=y[:16], x_test=y[16:])
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", y)
    name, target, keys = {
        "one file": ("train.npz", None, {}),
        "two keys": ("keys.npz", None, {"key": "noisy", "target_key": "clean"}),
        "two files": ("x.npz", "y.npz", {}),
        "npy": ("x.npy", "y.npy", {}),
        "mixed": ("keys.npz", "y.npy", {"key": "noisy"}),
    }[form]
    images = read(tmp_path / name, target and tmp_path / target, **keys)
    assert are_negatives(images)
    assert (images.test is not None) == (form in ("one file", "two files"))
    assert not any("ignored" in note for note in images.notes)


def test_noise_beyond_the_range_of_the_images_is_kept(tmp_path):
    noise = np.random.default_rng(1).normal(0, 0.3, X.shape).astype(np.float32)
    np.savez(tmp_path / "a.npz", noisy=X + noise, clean=X)
    images = read(tmp_path / "a.npz", key="noisy", target_key="clean")
    assert images.train_inputs.min() < -0.2 and images.train_inputs.max() > 1.2
    difference = images.train_inputs - images.train
    assert difference.std() == pytest.approx(0.3, rel=0.1)


def test_inputs_are_measured_in_the_unit_of_their_targets(tmp_path):
    # A sensor of 12 bits in the dark, and photographs for masks of 0 and 1
    bright = (X * 4000).astype(np.uint16)
    np.savez(tmp_path / "a.npz", noisy=bright // 40, clean=bright)
    images = read(tmp_path / "a.npz", key="noisy", target_key="clean")
    assert images.train_inputs.max() == pytest.approx(100 / 65535, rel=0.05)
    np.savez(tmp_path / "b.npz", noisy=(X * 255).astype(np.uint8), clean=(X > 0.5).astype(np.uint8))
    images = read(tmp_path / "b.npz", key="noisy", target_key="clean")
    assert set(np.unique(images.train)) == {0, 1}
    assert as_float(images.train_inputs).max() == pytest.approx(1, abs=0.02)


def test_wrong_arrays_are_refused_with_the_way_out(tmp_path):
    np.savez(tmp_path / "a.npz", noisy=X, clean=X[:7], small=X[:, :4])
    for target, what, hint in (
        ("clean", "20 inputs and 7 targets", "at the same place"),
        ("small", "inputs are 8x8x1, targets 4x8x1", "enlarge"),
        ("cleam", "data.target_key=cleam is not in the file", "data.target_key=clean"),
    ):
        with pytest.raises(UserError) as error:
            read(tmp_path / "a.npz", key="noisy", target_key=target)
        assert what in error.value.what
        assert hint in error.value.hint
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(UserError, match=r"target has no value"):
        read(tmp_path / "x.npy")
    with pytest.raises(UserError, match=r"data\.noise"):
        read(tmp_path / "x.npy", tmp_path / "x.npy", noise=0.1)


@pytest.mark.parametrize("option", ["patches", "image_size", "channels"])
def test_options_of_image_files_do_not_pass_silently_with_arrays(tmp_path, option):
    np.savez(tmp_path / "a.npz", x_train=X, y_train=1 - X)
    with pytest.raises(UserError, match=f"data.{option} does nothing with pairs of arrays"):
        read(tmp_path / "a.npz", **{option: 8 if option != "channels" else 3})
    options = configured("pairs", path=str(tmp_path / "a.npz"))
    assert experiment.too_few(options, load(options)).endswith("is not checked; add images")
    with pytest.raises(UserError, match=r"data\.bands does nothing with pairs of image files"):
        read(*inverted(tmp_path), bands=[0])


def test_augmentation_that_moves_the_input_alone_is_refused(tmp_path):
    noisy, clean = inverted(tmp_path, "abcdefghijklmnopqrstuvwxyz")
    words = ["data=pairs", f"data.path={noisy}", f"data.target={clean}", "training.batch_size=8"]
    images = experiment.load_images(checked([*words, "augmentation=flip"])[1])
    assert images.are_pairs
    with pytest.raises(UserError) as error:
        experiment.load_images(checked([*words, "augmentation=flip", "augmentation.target=original"])[1])
    assert "augmentation.target=same" in error.value.hint


def test_a_model_that_nobody_trained_here_is_measured_on_pairs(tmp_path):
    measured = all_measured(read(*inverted(tmp_path)))
    assert len(measured.validation) == 10
    assert are_negatives(measured)


def test_a_trained_network_is_given_the_inputs(tmp_path):
    noisy, clean = inverted(tmp_path)
    pool = load_alike(configured("pairs", path=str(noisy), target=str(clean)), (12, 12, 1), None)
    assert np.array_equal(pool.inputs[0, ..., 0], grey(seed=0))
    assert np.array_equal(pool.images, 255 - pool.inputs)
    alone = load_alike(configured("pairs", path=str(noisy)), (12, 12, 1), None)
    assert alone.inputs is None
    assert np.array_equal(alone.images, pool.inputs)


@pytest.mark.parametrize(("inputs", "targets", "known"), [
    ((X * 255).astype(np.uint8), (X > 0.5).astype(np.uint8), Scale(0, 255, "uint8", clip=False)),
    (3 * X - 1, X, Scale(0, 1, "float32", clip=False)),
    ((X * 5000).astype(np.uint16), (X * 4000).astype(np.uint16), Scale(0, 65535, "uint16", clip=False)),
    (300 * X - 20, 255 * X, Scale(0, 255, "float32", clip=False)),
])  # fmt: skip
def test_images_are_later_prepared_as_the_inputs_were(tmp_path, inputs, targets, known):
    np.savez(tmp_path / "a.npz", noisy=inputs, clean=targets)
    np.save(tmp_path / "x.npy", inputs)
    images = read(tmp_path / "a.npz", key="noisy", target_key="clean")
    assert experiment.describe(images)["input_scale"] == images.input_scale == known
    scales = images.input_scale, images.scale
    options = configured("pairs", path=str(tmp_path / "a.npz"), key="noisy", target_key="clean")
    pairs = load_alike(options, (8, 8, 1), *scales)
    alone = load_alike(configured("npy", path=str(tmp_path / "x.npy")), (8, 8, 1), *scales)
    at = images.positions["train"]
    assert np.array_equal(pairs.inputs[at], images.train_inputs)
    assert np.array_equal(pairs.images[at], images.train)
    assert np.array_equal(alone.images[at], images.train_inputs)
    assert not any("clipped" in note for note in (*pairs.notes, *alone.notes))


def test_a_run_knows_that_a_target_has_changed(tmp_path):
    noisy, clean = inverted(tmp_path)
    options = configured("pairs", path=str(noisy), target=str(clean))
    before = options.signature()
    save(clean / "a.png", grey(20, 20))
    assert options.signature() != before


@pytest.mark.parametrize(("files", "said"), [
    (["noisy/a.png", "clean/a.png"], "data=pairs data.path=root/noisy data.target=root/clean"),
    (["x/LR/a_lr.png", "x/HR/a_hr.png"], "data=pairs data.path=root/x/LR data.target=root/x/HR"),
    (["noisy/a.png", "clean/b.png"], ""), (["noisy/a.png", "cats/a.png"], ""),
    (["small/1.png", "small/2.png", "large/2.png", "large/1.png", "other/3.png"], "data=pairs"),
])  # fmt: skip
def test_folders_that_look_like_pairs_are_asked_about(files, said):
    notes = layout(files, Path("root"), split=True).notes
    assert said in "".join(notes)
    assert bool(said) == bool(notes)
