"""Folders as data sets come: parts, labels, masks beside images, a few files in colour."""

from pathlib import Path

import numpy as np
import pytest

from cae_cli.data import load
from cae_cli.data.images import TEST, TRAIN, VALIDATION
from cae_cli.data.layout import layout
from cae_cli.errors import UserError
from tests.test_data import configured, rows
from tests.test_data_sources import colour, grey, save


def tree(root, **folders):
    """Grey images, so many in each folder, all different."""
    for k, (folder, count) in enumerate(folders.items()):
        for i in range(count):
            save(root / folder.replace("__", "/") / f"{i:02}.png", grey(seed=1000 * k + i))
    return root


def read(root, **changes):
    return load(configured("image_folder", path=str(root), **changes))


def images_of(*folders):
    """The images of files, as rows."""
    return rows(
        np.stack([grey(seed=1000 * k + i) for k, count in folders for i in range(count)])[..., None]
    )


def test_folders_named_train_val_and_test_are_the_parts(tmp_path):
    root = tree(tmp_path, test__a=3, train__a=10, train__b=10, val__b=4)
    images = read(root)
    assert rows(images.train) == images_of((1, 10), (2, 10))
    assert rows(images.validation) == images_of((3, 4))
    assert rows(images.test) == images_of((0, 3))
    labels = images.train_labels, images.validation_labels, images.test_labels
    assert [np.bincount(part, minlength=2).tolist() for part in labels] == [[10, 10], [0, 4], [3, 0]]
    said = "folders are the parts: 20 train, 4 validation, 3 test; data.split=random mixes them"
    assert said in images.notes


def test_the_parts_can_be_mixed(tmp_path):
    images = read(tree(tmp_path, train=10, val=10), split="random")
    assert images.test is None
    assert (len(images.train), len(images.validation)) == (18, 2)
    assert set(images.train_labels) == {0, 1}
    assert not any("parts" in note for note in images.notes)


def test_without_a_folder_for_validation_some_training_images_are_held_out(tmp_path):
    images = read(tree(tmp_path, Training=20, testing=5), validation=0.25)
    assert rows(images.train) | rows(images.validation) == images_of((0, 20))
    assert len(images.validation) == 5
    assert rows(images.test) == images_of((1, 5))
    assert images.train_labels is None


def test_patches_and_limits_keep_to_the_parts(tmp_path):
    root = tmp_path
    for folder, seeds in (("train", range(4)), ("test", range(4, 6))):
        for seed in seeds:
            save(root / folder / f"{seed}.png", grey(16, 24, seed=seed))
    images = read(root, patches=8, validation=0.25, test=7)
    # Three whole photographs of six patches for training, one for validation.
    assert (len(images.train), len(images.validation), len(images.test)) == (18, 6, 7)
    test = rows(np.stack([grey(16, 24, seed=s)[y:y + 8, x:x + 8] for s in (4, 5)
                          for y in (0, 8) for x in (0, 8, 16)])[..., None])  # fmt: skip
    assert rows(images.test) < test
    assert not test & (rows(images.train) | rows(images.validation))
    root = tree(tmp_path / "limited", train=12, val=8, test=2)
    images = read(root, train=6, validation=0.25)
    assert (len(images.train), len(images.validation)) == (6, 2)
    assert rows(images.train) < images_of((0, 12))
    assert rows(images.validation) < images_of((1, 8))


def test_a_part_with_too_few_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="too few images: 1 for training and 3 for validation"):
        read(tree(tmp_path, train=1, val=3))


TRAIN_VAL = [TRAIN, VALIDATION]


@pytest.mark.parametrize(("files", "parts", "labels"), [
    (["train/a.png", "val/a.png"], TRAIN_VAL, None),
    (["set/train/a.png", "set/val/a.png"], TRAIN_VAL, None),
    (["images/train/x/a.png", "images/val/y/a.png"], TRAIN_VAL, ["x", "y"]),
    (["train/images/a.png", "val/images/a.png"], TRAIN_VAL, None),
    (["Train/a.png", "VALID/a.png", "Test/a.png"], [TRAIN, VALIDATION, TEST], None),
    (["train/a.png", "b.png"], None, None),  # not every image is in a part
    (["train/a.png", "more/a.png"], None, ["train", "more"]),
    (["val/a.png", "test/a.png"], None, ["val", "test"]),  # nothing to train on
    (["train/x/a.png", "train/y/a.png"], None, ["x", "y"]),
    (["cats/a.png", "dogs/train/a.png"], None, ["cats", "dogs"]),
    (["all/cats/a.png", "all/dogs/a.png"], None, ["cats", "dogs"]),
    (["train", "val.png"], None, None),
])  # fmt: skip
def test_what_folders_mean(files, parts, labels):
    found = layout(files, Path("root"), split=True)
    assert (found.parts, found.labels) == (parts, labels)


@pytest.mark.parametrize(("files", "said"), [
    (["images/a.jpg", "images/b.jpg", "masks/a.png", "masks/b.png"],
     "masks/ seems to hold masks of the images in images/, and both are read; are they meant? "
     "data.path=root/images reads the images"),
    (["x/img/a.jpg", "x/img/b.jpg", "x/GT/a_mask.png"], "GT/ seems to hold masks of the images in img/, "
     "and both are read; are they meant? data.path=root/x/img reads"),
    (["train/images/a.png", "train/masks/a.png", "test/images/b.png", "test/masks/b.png"],
     "and both are read; are they meant? move masks/ elsewhere to read the images alone"),
    (["a.png", "a_mask.png", "b.png", "b-mask.png"],
     "2 files seem to be masks of the files next to them, such as a_mask.png: move them"),
])  # fmt: skip
def test_masks_beside_images_are_said(files, said):
    assert said in "\n".join(layout(files, Path("root"), split=True).notes)


def test_files_outside_of_all_parts_are_said_where_they_are_few():
    parts = [f"train/{i}.png" for i in range(8)] + ["test/a.png"]
    (note,) = layout([*parts, "overview.png"], Path("root"), split=True).notes
    assert "all are mixed: 1 file in none of them: overview.png; move such files into a part" in note
    assert layout([*parts, "overview.png"], Path("root"), split=False).notes == ()
    assert layout([*parts, *(f"more/{i}.png" for i in range(9))], Path("root"), split=True).notes == ()


def test_the_scale_is_that_of_the_training_images(tmp_path):
    rng = np.random.default_rng(0)
    for part, top, count in (("train", 100, 20), ("test", 250, 5)):
        for i in range(count):
            save(tmp_path / part / f"{i}.png", rng.integers(0, top, (12, 12), np.uint8))
    images = read(tmp_path, scale="minmax")
    assert max(images.train.max(), images.validation.max()) == images.test.max() == 1
    assert "held-out images have values beyond those of the training images: clipped" in images.notes


@pytest.mark.parametrize("files", [
    ["cats/1.png", "dogs/1.png"], ["label/a.png", "images/b.png", "images/c.png"],
    ["a.png", "b_mask.png", "c.png", "d.png"], ["a.png", "a_label.png", *(f"{i}.png" for i in range(9))],
])  # fmt: skip
def test_what_only_sounds_like_masks_is_not_said(files):
    assert layout(files, Path("root"), split=True).notes == ()


def test_a_few_colour_files_in_a_grey_folder_are_said(tmp_path):
    root = tree(tmp_path, scans=8)
    for name in ("x", "y"):
        save(root / f"scans/{name}.png", colour())
    notes = read(root).notes
    assert (
        "2 of 10 files have colour (scans/x.png, scans/y.png), so all images get three channels; "
        "data.channels=1 makes them grey"
    ) in notes
    for channels in (1, 3):
        assert not any("have colour" in note for note in read(root, channels=channels).notes)
    for i in range(6):
        save(root / f"scans/z{i}.png", colour(seed=i))
    assert not any("have colour" in note for note in read(root).notes)  # grey ones among photographs
