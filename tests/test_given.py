"""Images that a Python program holds, as a source that a config can name."""

import numpy as np
import pytest
from PIL import Image

from cae_cli import data
from cae_cli.config.compose import checked
from cae_cli.data.given import overrides_of
from cae_cli.errors import UserError

X = np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3), np.uint8)
Y = np.arange(40) % 4


class Dataset:
    """As far as a `tf.data.Dataset` is asked."""

    element_spec = None

    def __init__(self, *elements, size=1):
        self.elements, self.size = elements, size

    def cardinality(self):
        return self.size

    def __iter__(self):
        return iter(self.elements)


def loaded(tmp_path, given, *more):
    words = overrides_of(given, tmp_path / "images")
    return data.load(checked([*words, *more])[1].data)


@pytest.fixture
def plain(tmp_path):
    """What the file gives that a person would have saved."""
    np.savez(tmp_path / "x.npz", x_train=X[:30], y_train=Y[:30], x_test=X[30:], y_test=Y[30:])
    return data.load(checked(["data=npz", f"data.path={tmp_path}/x.npz"])[1].data)


@pytest.mark.parametrize(
    "given",
    [
        ((X[:30], Y[:30]), (X[30:], Y[30:])),
        {"x_train": X[:30], "y_train": Y[:30], "x_test": X[30:], "y_test": Y[30:]},
        (Dataset((X[:20], Y[:20]), (X[20:30], Y[20:30])), Dataset(*zip(X[30:], Y[30:], strict=True))),
    ],
    ids=["as Keras loads them", "by name", "data sets of batches and of images"],
)
def test_images_in_memory_are_those_of_a_file(tmp_path, plain, given):
    images = loaded(tmp_path, given)
    assert images.fingerprint() == plain.fingerprint()
    assert np.array_equal(images.train_labels, plain.train_labels)
    assert np.array_equal(images.test_labels, plain.test_labels)


def test_a_data_set_of_two_images_each_is_pairs_unless_both_are_the_same(tmp_path):
    noisy = X // 2
    images = loaded(tmp_path, Dataset(*zip(noisy, X, strict=True)))
    assert images.are_pairs and len(images.train) + len(images.validation) == 40
    assert {bytes(x) for x in images.train} <= {bytes(x) for x in X}
    assert not loaded(tmp_path, Dataset(*zip(X, X, strict=True))).are_pairs


def test_equal_images_are_one_file_and_others_another(tmp_path):
    first = overrides_of(X, tmp_path)
    assert overrides_of([*X], tmp_path) == first == overrides_of(X[::-1][::-1], tmp_path)
    assert (
        overrides_of((X[:30], X[30:]), tmp_path) != first != overrides_of(X.astype(np.int16), tmp_path)
    )
    assert len(list(tmp_path.iterdir())) == 3


def test_paths_choose_the_source_that_reads_them(tmp_path):
    for i, image in enumerate(X):
        (tmp_path / "photos" / f"{i % 4}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / f"{i % 4}" / f"{i:02}.png")
    np.save(tmp_path / "x.npy", X)
    assert loaded(tmp_path, str(tmp_path / "x.npy")).source == "npy"
    whole = loaded(tmp_path, tmp_path / "photos")
    files = sorted((tmp_path / "photos").rglob("*.png"))
    listed = loaded(tmp_path, [str(path) for path in files])
    assert listed.fingerprint() == whole.fingerprint()
    assert np.array_equal(listed.train_labels, whole.train_labels)
    few = loaded(tmp_path, files[:20])
    assert len(few.train) + len(few.validation) == 20


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Y, "must be images"),
        ((X, Y), "labels are given by name"),
        ({"x_trian": X}, "did you mean x_train"),
        (np.array(["a", "b"], object), "names no file"),
        ([X[0], X[1][:5]], "no array"),
        (Dataset(X, size=-1), "for ever"),
        (Dataset(X[0], X[1][:5]), "different sizes"),
        (None, "must be numbers"),
        ("mnist", "data=mnist"),
    ],
)
def test_what_is_no_images_is_refused(tmp_path, given, words):
    with pytest.raises(UserError, match=words):
        loaded(tmp_path, given)


@pytest.mark.parametrize("axes", [3, 4])
def test_images_in_place_of_labels_are_targets(tmp_path, axes):
    clean = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
    clean = clean if axes == 4 else clean[..., 0]
    noisy = 255 - clean
    found = overrides_of({"x_train": noisy, "y_train": clean}, tmp_path)
    assert found[0] == "data=pairs"
    images = data.load(checked(found)[1].data)
    assert images.are_pairs and images.shape == (8, 8, 1)
    assert np.array_equal(images.given, 255 - images.train)
    labels = {"x_train": noisy, "y_train": np.arange(60)}
    assert overrides_of(labels, tmp_path)[0] == "data=npz"
