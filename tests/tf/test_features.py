"""A trained network in use: codes, reconstructions and errors are those that the run has measured."""

import argparse
import csv
import json
import os
import random
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.utils import check_array

import cae_cli
from cae_cli import data
from cae_cli.commands import networks
from cae_cli.config.compose import checked
from cae_cli.config.schema import parse
from cae_cli.data import spool
from cae_cli.errors import UserError
from cae_cli.features import codes, open_network
from cae_cli.features.pictures import png_names
from cae_cli.features.source import own_images
from cae_cli.introspection.behaviour import squares
from cae_cli.runs.folder import Run
from tests.conftest import called
from tests.test_damaged_setup import GONE, paths, replaced
from tests.tf.conftest import DIGITS
from tests.tf.test_hostile_models import bomb, unusual

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def folder(trained_once):
    return trained_once("digits", *DIGITS)[1]


@pytest.fixture(scope="module")
def network(folder):
    return open_network(Run(folder))


@pytest.fixture(scope="module")
def images(folder):
    return data.load(parse(Run(folder).setup()["config"]).data)


def test_the_error_of_each_image_has_the_bits_that_the_run_measured(network, images, folder):
    recorded = Run(folder).read_arrays(Run(folder).arrays)["mse"]
    held_out = images.held_out[: len(recorded)]
    assert len(held_out) % network.batch > 0  # the last batch is filled up
    x = data.as_float(held_out)
    assert np.array_equal(squares(network.reconstruct(held_out) - x), recorded)
    errors = [squares(made - given) for _, given, _, made in network.passes(held_out)]
    assert np.array_equal(np.concatenate(errors), recorded)


def test_codes_are_those_of_the_encoder_in_plain_keras(network, images):
    x = data.as_float(images.held_out[:20])
    expected = np.asarray(network.autoencoder.encoder()(x))
    codes = network.encode(images.held_out[:20])
    assert codes.shape == (20, *network.code_shape)
    np.testing.assert_allclose(codes, expected, rtol=1e-5, atol=1e-6)
    assert expected.std() > 0.01
    assert np.array_equal(
        np.concatenate([c for _, _, c, _ in network.passes(images.held_out[:20])]), codes
    )
    np.testing.assert_allclose(
        network.decode(codes.reshape(20, -1)), network.reconstruct(x), rtol=1e-5, atol=1e-6
    )


def test_images_are_prepared_as_those_of_the_training(network, images):
    raw = load_digits().images  # 0 to 16
    prepared = network.prepare(raw)
    assert all((prepared == image).all(axis=(1, 2, 3)).any() for image in images.held_out)
    lone = next(image for image in raw if image.max() < 16)  # its own range says nothing
    assert network.prepare(lone[None]).max() == lone.max() / 16
    assert np.array_equal(network.prepare(np.full((1, 8, 8), 9, np.uint8)), np.full((1, 8, 8, 1), 9))
    with pytest.raises(UserError, match="8x8x1, these are 9x8x1"):
        network.prepare(np.zeros((1, 9, 8), np.uint8))


def saved(path, *, skips=False):
    """A small network on images from -1 to 1, in a file."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 12, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", strides=2)(x)
    code = layers.Conv2D(2, 3, padding="same", name="code")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(code)
    if skips:
        x = layers.Concatenate()([x, image])
    keras.Model(image, layers.Conv2D(3, 3, padding="same", activation="tanh")(x)).save(path)
    return path


def test_a_model_file_has_its_own_range_and_no_square_images(tmp_path):
    import keras

    path = saved(tmp_path / "model.keras")
    network = open_network(path, span=(-1.0, 1.0))
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), np.uint8)
    model = keras.models.load_model(path)
    expected = np.asarray(model(x / 127.5 - 1)) / 2 + 0.5
    np.testing.assert_allclose(network.reconstruct(network.prepare(x)), expected, atol=1e-5)
    np.testing.assert_allclose(network.decode(network.encode(x)), expected, atol=1e-5)
    assert network.code_shape == (4, 6, 2)


def test_a_decoder_that_needs_the_image_is_refused(tmp_path):
    network = open_network(saved(tmp_path / "model.keras", skips=True))
    with pytest.raises(UserError, match="skip connections"):
        network.decode(np.zeros((1, *network.code_shape), np.float32))


@pytest.fixture(scope="module")
def encoded(folder, tmp_path_factory):
    """All images of the run, encoded on the command line."""
    home = tmp_path_factory.mktemp("encoded")
    done = called(home, "encode", str(folder), "--out", "codes.npz")
    assert done.code == 0, done.err
    return done, home / "codes.npz"


def test_without_data_all_splits_of_the_run_are_encoded(encoded, network, images, folder):
    table = np.load(encoded[1])
    assert list(dict.fromkeys(table["split"])) == ["train", "validation"]
    for split in ("train", "validation"):
        mine = table["split"] == split
        assert np.array_equal(table["codes"][mine], network.encode(getattr(images, split)))
    recorded = Run(folder).read_arrays(Run(folder).arrays)["mse"]
    assert np.array_equal(table["error"][table["split"] == "validation"], recorded)
    digits = load_digits()
    assert np.array_equal(table["label"], digits.target[table["index"]].astype(str))
    first = digits.images[table["index"][0]] / 16
    assert np.array_equal(first.astype(np.float32), data.as_float(images.train)[0, ..., 0])


def test_all_kinds_of_files_hold_the_same(encoded, network, images, folder, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    whole = np.load(encoded[1])
    monkeypatch.setattr(codes, "ROW_GROUP", 1000)
    source = own_images(network, parse(Run(folder).setup()["config"]).data)
    codes.write(network, source, tmp_path / "codes.parquet")
    codes.write(network, source, tmp_path / "codes.npy", pooled=True)
    codes.write(network, source, tmp_path / "flat.npz", flat=True)
    with parquet.ParquetFile(tmp_path / "codes.parquet") as file:
        assert file.num_row_groups == len(list(network.passes(images.train))) + 1
        table = file.read()
    for name in ("index", "split", "label", "error"):
        assert np.array_equal(np.array(table.column(name)), whole[name]), name
    flat = np.stack(table.column("code").to_numpy())
    assert np.array_equal(flat, whole["codes"].reshape(len(flat), -1))
    assert np.array_equal(np.load(tmp_path / "flat.npz")["codes"], flat)
    assert np.array_equal(np.load(tmp_path / "codes.npy"), whole["codes"].mean(axis=(1, 2)))
    lines = (tmp_path / "codes.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if line[0] != "#"))
    assert np.array_equal(np.array([r["error"] for r in rows], np.float32), whole["error"])
    assert [row["label"] for row in rows] == whole["label"].tolist()
    for name in ("codes.parquet", "flat.npz"):
        values, names = codes.read(tmp_path / name)
        assert np.array_equal(values, flat)
        assert names[:1] == [f"train/{whole['index'][0]:06d}"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """40 files of digits in folders of classes, a damaged one and one of another size."""
    folder, digits = tmp_path_factory.mktemp("photos"), load_digits()
    for i in range(40):
        path = folder / f"digit {digits.target[i]}" / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.uint8(digits.images[i] * 255 / 16)).save(path)
    (folder / "digit 0" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("L", (12, 8)).save(folder / "digit 0" / "wide.png")
    return folder


def test_a_folder_is_encoded_with_its_names_and_what_does_not_fit_is_named(
    photos, network, folder, tmp_path, monkeypatch
):
    words = ("encode", str(folder), "data=image_folder", f"data.path={photos}", "--out")
    done = called(tmp_path, *words, "codes.npz")
    assert done.code == 0, done.err
    assert "1 image left out: not 8x8: digit 0/wide.png (12x8)" in done.err
    assert "1 unreadable file left out: digit 0/damaged.png" in done.err
    table = np.load(tmp_path / "codes.npz")
    assert len(table["name"]) == 40
    for name, label, code, error in zip(
        *(table[k] for k in ("name", "label", "codes", "error")), strict=True
    ):
        assert name.startswith(f"{label}/")
        pixels = np.asarray(Image.open(photos / name))[None, ..., None]
        assert np.array_equal(network.encode(pixels)[0], code)
        assert error == squares(network.reconstruct(pixels) - data.as_float(pixels))[0]
    monkeypatch.setattr(spool.Spool.__init__, "__defaults__", (0,))  # the images go to the disk
    assert called(tmp_path, *words, "streamed.npz").code == 0
    streamed = np.load(tmp_path / "streamed.npz")
    assert all(np.array_equal(streamed[name], table[name]) for name in table.files if name != "about")


def test_pictures_have_the_names_of_the_originals_and_decoding_makes_the_same(photos, folder, tmp_path):
    words = (str(folder), "data=image_folder", f"data.path={photos}", "--out")
    assert called(tmp_path, "encode", *words, "codes.npz").code == 0
    assert called(tmp_path, "reconstruct", *words, "made").code == 0
    assert called(tmp_path, "decode", str(folder), "codes.npz", "--out", "decoded").code == 0
    made = {path.relative_to(tmp_path / "made") for path in (tmp_path / "made").rglob("*.png")}
    originals = {path.relative_to(photos) for path in photos.rglob("*.png")}
    assert made == {path for path in originals if path.stem.isdigit()}
    for path in made:
        one, other = (np.asarray(Image.open(tmp_path / at / path), int) for at in ("made", "decoded"))
        assert np.abs(one - other).max() <= 1
    again = called(tmp_path, "reconstruct", *words, "made")
    assert (again.code, again.err.splitlines()[0]) == (2, "error: the folder exists already")


@pytest.mark.parametrize(
    "words, expected",
    [
        (("loss=mse", "--out", "codes.npz"), "loss cannot change"),
        (("--out", "codes.txt"), "codes can be written as .npy, .npz, .parquet"),
        ((), "--out is missing"),
        (("data=npy", "data.path=wide.npy", "--out", "codes.npz"), "these are 8x9x1"),
        (("--out", "codes.npz", "--pool", "--flat"), "exclude each other"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_no_file(words, expected, folder, tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((3, 8, 9), np.uint8))
    done = called(tmp_path, "encode", str(folder), *words)
    errors = [line for line in done.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert done.code == 2
    assert expected in errors[0] and len(errors) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wide.npy"]


def test_a_full_disk_and_a_missing_library_leave_nothing_half_written(folder, tmp_path, monkeypatch):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, before[1]))
    try:
        done = called(tmp_path, "encode", str(folder), "--out", "codes.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.code == 2 and "file too large" in done.err, done.err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    done = called(tmp_path, "encode", str(folder), "--out", "codes.parquet")
    assert done.code == 2 and "pip install 'cae-cli[parquet]'" in done.err
    assert not list(tmp_path.iterdir())


def test_what_is_known_against_a_network_is_said(folder, network, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    setup = json.loads((copy / "run.json").read_text())
    del setup["data"]["scale"]  # an older run
    (copy / "run.json").write_text(json.dumps(setup))
    summary = json.loads((copy / "summary.json").read_text())
    summary["verdict"] = "these filters are not meaningful: noise"
    summary["diagnosis"]["findings"] = [{"code": "CAE301", "severity": "error", "problem": "noise"}]
    (copy / "summary.json").write_text(json.dumps(summary))
    np.save(tmp_path / "x.npy", np.full((2, 8, 8), 9, np.uint8))
    words = ("encode", "run", "data=npy", "data.path=x.npy", "--out", "codes.npy")
    done = called(tmp_path, *words)
    assert done.code == 0, done.err
    assert "! this network is not to be trusted: these filters are not meaningful: noise" in done.err
    assert "# warning: these filters are not meaningful: noise" in (tmp_path / "codes.csv").read_text()
    assert np.array_equal(
        np.load(tmp_path / "codes.npy")[0], network.encode(np.full((1, 8, 8, 1), 9, np.uint8))[0]
    )
    shutil.rmtree(copy / "checkpoints")
    done = called(tmp_path, *words)
    assert done.code == 2 and "the run has no network" in done.err


def changed(folder, tmp_path, name, change):
    """A copy of the run in which a JSON file is another one."""
    shutil.copytree(folder, tmp_path / "run")
    content = json.loads((tmp_path / "run" / name).read_text())
    change(content)
    (tmp_path / "run" / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "the images of the run have changed"),
        ({"scale": {"black": 0, "white": "1", "dtype": "uint8"}}, "no scale of images"),
        ({"scale": {"black": 1, "white": 1, "dtype": "uint8"}}, "no scale of images"),
        ({"scale": {"black": 0, "white": 10**400, "dtype": "uint8"}}, "contradict each other"),
        ({"scale": [0, 1]}, "no scale of images"),
        (None, "the images of the run have changed"),
    ],
)
def test_a_description_of_images_that_is_none_is_one_line(folder, tmp_path, data, said):
    changed(folder, tmp_path, "run.json", lambda setup: setup.update(data=data))
    done = called(tmp_path, "encode", "run", "--out", "codes.npz")
    assert done.code == 2 and done.err.count("error: ") == 1 and said in done.err


@pytest.mark.parametrize("cases", [3, pytest.param(150, marks=pytest.mark.soak)])
def test_a_network_is_used_or_refused_whatever_the_files_of_its_run_say(folder, tmp_path, cases):
    """`make soak SEED=1` changes them in other places."""
    choose = random.Random(os.environ.get("CAE_SEED", "0"))
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    for _ in range(cases):
        name = choose.choice(["run.json", "training.json", "summary.json", "status.json"])
        content = (folder / name).read_text()
        place = choose.choice(list(paths(json.loads(content)))[1:])
        value = choose.choice([None, -1, 10**400, 1e308, "\x1b[2J", [1, "a"], {"a": 1}, GONE])
        (copy / name).write_text(json.dumps(replaced(json.loads(content), place, value)))
        done = called(tmp_path, "encode", "run", "--out", "codes.npz")
        shown = (name, place, value, done.err)
        assert done.code in (0, 2) and done.err.count("error: ") == done.code // 2, shown
        assert "\x1b" not in done.err + done.out and len(done.err) < 2000, shown
        (copy / name).write_text(content)


def test_a_network_of_holes_larger_than_memory_is_not_copied(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "run")
    for name in ("best", "last"):
        with (tmp_path / f"run/checkpoints/{name}.keras").open("wb") as file:
            file.truncate(2**42)
    monkeypatch.setattr(shutil, "copyfileobj", lambda *files: pytest.fail("it is copied"))
    done = called(tmp_path, "encode", "run", "--out", "codes.npz")
    assert done.code == 2 and "the model would need 8.8 TB of memory" in done.err


def test_a_network_of_a_run_that_needs_all_memory_is_refused(folder, tmp_path):
    changed(folder, tmp_path, "training.json", lambda t: t["network"].update(latent_layer="code"))
    for name in ("best", "last"):
        bomb("upsampling", tmp_path / f"run/checkpoints/{name}.keras")
    done = called(tmp_path, "encode", "run", "--out", "codes.npz")
    assert done.code == 2 and "would need 1.1 TB of memory" in done.err


@pytest.mark.parametrize(
    "words", [("export", "odd.keras", "--format", "keras"), ("encode", "odd.keras", "--out", "c.npz")]
)
def test_a_network_that_cannot_compute_an_image_is_one_line(tmp_path, words):
    unusual("integers").save(tmp_path / "odd.keras")
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8), np.uint8))
    done = called(tmp_path, *words, "data=npy", "data.path=x.npy")
    assert done.code == 2 and done.err.count("error: the model cannot compute an image: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odd.keras", "x.npy"]


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("no/where", "no such file or directory"),
        ("file/made", "file exists"),
        ("a" * 300, "file name too long"),
    ],
)
def test_a_place_where_nothing_can_be_written_is_one_line(folder, tmp_path, monkeypatch, out, said):
    (tmp_path / "file").write_text("")
    if out == "no/where":  # as in /proc
        monkeypatch.setattr(os, "mkdir", lambda path, *_, **__: os.open(f"{path}/no", os.O_RDONLY))
    np.save(tmp_path / "x.npy", np.zeros((2, 8, 8), np.uint8))
    done = called(tmp_path, "reconstruct", str(folder), "data=npy", "data.path=x.npy", "--out", out)
    assert done.code == 2 and f"error: the operating system refuses it: {said}" in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"file", "x.npy"}


@pytest.mark.parametrize("out", ["", "."])
def test_a_file_without_a_name_is_one_line(folder, tmp_path, out):
    done = called(tmp_path, "export", str(folder), "--format", "keras", "--out", out)
    assert done.code == 2 and "hint: --out network.keras" in done.err


def test_a_verdict_that_is_no_text_is_escaped_on_the_screen_and_in_a_table(folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    verdict = "\ud800\x1b[2J"
    changed(folder, tmp_path, "summary.json", lambda summary: summary.update(verdict=verdict))
    done = called(tmp_path, "score", "run", "--out", "scores.parquet")
    escaped = r"\ud800\x1b[2J"
    assert done.code == 0 and verdict not in done.err + done.out
    assert f"not to be trusted: {escaped}" in done.err and f"trusted: {escaped}" in done.out
    assert parquet.read_schema(tmp_path / "scores.parquet").metadata[b"warning"].decode() == escaped


def test_other_images_are_read_as_those_of_the_run(network, monkeypatch):
    words = ("data=npz", "data.path=a.npz", "data.key=x", "data.axes=nchw", "data.train=9")
    own = checked([*words, "data.noise=0.1", "data.scale=byte"])[1].data
    monkeypatch.setattr(networks, "own_options", lambda network: own)

    def read(*words):
        return networks._options(network, words, argparse.Namespace(trust_configs=False))

    other = read("data.path=b.npz")  # another file of the same kind
    assert (other.path, other.key, other.axes) == ("b.npz", None, "nchw")
    assert (other.train, other.noise, other.scale) == (None, 0, "auto")
    fewer = read("data.train=5")  # some of its own
    assert (fewer.path, fewer.key, fewer.axes, fewer.train) == ("a.npz", "x", "nchw", 5)
    assert read("data=npz", "data.path=b.npz", "data.axes=nhwc").axes == "nhwc"
    folder = read("data=image_folder", "data.path=c")
    assert (folder.channels, folder.image_size) == (1, None)


def test_names_of_strangers_lead_to_no_other_folder():
    names = ["../../a.png", "/etc/b.jpg", "c.png", "c.jpg", "c.png#1", "..", "x/./d\0.gif", "c.png"]
    made = list(png_names(names))
    assert made == [
        "a.png", "etc/b.png", "c.png", "c.jpg.png", "c_1.png", "000005.png", "x.png",
        "c.png.png",
    ]  # fmt: skip


def test_a_number_sign_in_a_name_is_part_of_it():
    names = ["photos#2/cat.png", "photos#2/cat#3.png", "a#b/film.avi#12", "#1", "x#"]
    assert list(png_names(names)) == [
        "photos#2/cat.png", "photos#2/cat#3.png", "a#b/film_12.png", "#1.png", "x#.png",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def scored(folder, tmp_path_factory):
    """Images of the run with one of noise among them, and noise as anomalies."""
    home, rng = tmp_path_factory.mktemp("scored"), np.random.default_rng(0)
    x = np.uint8(load_digits().images[:60] * 255 / 16)
    x[37] = 255 * rng.integers(0, 2, (8, 8))
    np.savez(home / "x.npz", x_train=x, y_train=np.arange(60) == 37)
    np.save(home / "noise.npy", 255 * rng.integers(0, 2, (12, 8, 8), np.uint8))
    done = called(
        home, "score", str(folder), "data=npz", "data.path=x.npz", "--normal", "0",
        "anomalies=npy", "anomalies.path=noise.npy", "--false-alarms", "0.1", "--out", "scores.csv",
    )  # fmt: skip
    assert done.code == 0, done.err
    return done, home


def test_a_planted_anomaly_has_the_largest_error(scored, network):
    done, home = scored
    lines = (home / "scores.csv").read_text().splitlines()
    about = dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))
    rows = list(csv.DictReader(line for line in lines if not line.startswith("# ")))
    assert [row["source"] for row in rows] == ["images"] * 60 + ["anomalies"] * 12
    given = rows[:60]
    assert max(range(60), key=lambda k: float(given[k]["error"])) == 37
    assert [k for k in range(72) if rows[k]["anomalous"] == "1"] == [37, *range(60, 72)]
    assert all(
        (float(row["error"]) > float(about["threshold"])) == (row["alarm"] == "1") for row in rows
    )
    assert given[37]["alarm"] == "1"
    x = np.load(home / "x.npz")["x_train"][..., None]
    errors = squares(network.reconstruct(x) - data.as_float(x))
    assert np.array_equal(np.array([row["error"] for row in given], np.float32), errors)
    assert "13 of 13 anomalies" in done.out
    assert about["worth"] in done.out
    with Image.open(home / "scores.png") as picture:
        assert np.asarray(picture).std() > 10


def test_the_baselines_are_those_of_the_training_images(scored, network, images):
    from sklearn.decomposition import PCA

    _, home = scored
    rows = list(
        csv.DictReader(x for x in (home / "scores.csv").read_text().splitlines() if x[:2] != "# ")
    )
    x = data.as_float(np.load(home / "x.npz")["x_train"])
    train = data.as_float(images.train).reshape(len(images.train), -1)
    mean = np.square(x.reshape(60, -1) - train.mean(axis=0)).mean(axis=1)
    np.testing.assert_allclose([float(row["mean_image_error"]) for row in rows[:60]], mean, rtol=1e-4)
    values = int(np.prod(network.code_shape))
    slow = PCA(min(values, len(train) // 2, 32), svd_solver="full").fit(train)
    left = x.reshape(60, -1) - slow.inverse_transform(slow.transform(x.reshape(60, -1)))
    expected = np.square(left).mean(axis=1)
    np.testing.assert_allclose(
        [float(row["components_error"]) for row in rows[:60]], expected, rtol=1e-3, atol=1e-7
    )


@pytest.mark.parametrize(
    "words, expected",
    [
        (("--false-alarms", "0.01"), "needs 99 held-out images, the run has 21"),
        (("--false-alarms", "1"), "between 0 and 1"),
        (("--normal", "ten"), "no image has the label ten"),
        (("--out", "scores.txt"), "tables can be written as .csv or .parquet"),
    ],
)
def test_a_score_that_cannot_be_is_one_line(words, expected, folder, tmp_path):
    done = called(tmp_path, "score", str(folder), "--out", "scores.csv", *words)
    errors = [line for line in done.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert (done.code, len(errors)) == (2, 2), done.err
    assert expected in errors[0]
    assert not list(tmp_path.iterdir())


def test_the_nearest_images_are_those_of_a_slow_search(photos, network, folder, tmp_path):
    query = photos / "digit 3" / "13.png"
    done = called(
        tmp_path, "nearest", str(folder), str(query), "data=image_folder", f"data.path={photos}",
        "--count", "4", "--out", "nearest.csv",
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = (tmp_path / "nearest.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if line[:2] != "# "))
    files = sorted(path for path in photos.rglob("*.png") if path.stem.isdigit())
    pixels = np.stack([np.asarray(Image.open(path)) for path in files])[..., None]
    known = {"code": network.encode(pixels), "pixels": data.as_float(pixels)}
    for by, values in known.items():
        mine = [row for row in rows if row["by"] == by]
        difference = (values - values[files.index(query)]).reshape(40, -1)
        distance = np.sqrt(np.square(difference).mean(axis=1))
        order = np.argsort(distance, kind="stable")[:4]
        assert [photos / row["name"] for row in mine] == [files[k] for k in order]
        np.testing.assert_allclose(
            [float(r["distance"]) for r in mine], distance[order], rtol=1e-5, atol=1e-7
        )
    assert rows[0]["distance"] == "0"  # itself
    with Image.open(tmp_path / "nearest.png") as picture:
        assert np.asarray(picture).std() > 10


def test_the_encoder_is_a_step_of_a_pipeline(folder, network, images, tmp_path, monkeypatch):
    import pickle

    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    encoder = cae_cli.Encoder(folder)
    x = data.as_float(images.validation)
    codes = encoder.fit(x).transform(x)
    assert np.array_equal(codes, network.encode(images.validation).reshape(len(x), -1))
    assert np.array_equal(encoder.transform(x.reshape(len(x), -1)), codes)
    assert list(encoder.get_feature_names_out()[:2]) == ["code_0", "code_1"]
    assert len(encoder.get_feature_names_out()) == codes.shape[1]
    assert np.array_equal(encoder.inverse_transform(codes).reshape(x.shape), network.decode(codes))
    recorded = Run(folder).read_arrays(Run(folder).arrays)["mse"]
    assert np.array_equal(encoder.score_samples(x), -recorded)
    stored = pickle.dumps(encoder)
    assert len(stored) < 1000  # a path and no network
    for other in (clone(encoder), pickle.loads(stored), cae_cli.Encoder(str(folder))):
        assert np.array_equal(other.transform(x), codes)
    pooled = encoder.set_params(pool=True).transform(x)
    np.testing.assert_allclose(pooled, network.encode(x).mean(axis=(1, 2)), rtol=1e-6)
    line = make_pipeline(cae_cli.Encoder(folder), LogisticRegression(max_iter=200))
    digits = load_digits()
    line.fit(digits.images[:150], digits.target[:150])
    assert line.score(digits.images[150:300], digits.target[150:300]) > 0.5


# Checks of scikit-learn that the encoder fails, and why.
EXCEPTIONS = dict.fromkeys(
    ("check_n_features_in_after_fitting", "check_n_features_in"),
    "the number of features is that of the images of the run, not of what the check brings",
)


class AnyRows(cae_cli.Encoder):
    """Rows of any length, as the checks of scikit-learn bring them, are cut or filled with zeros."""

    def _prepared(self, X):
        rows = check_array(X, ensure_2d=False, allow_nd=True, estimator=self)
        if rows.ndim == 2:
            fitting = np.zeros((len(rows), 64), np.float32)
            fitting[:, : rows.shape[1]] = np.clip(rows[:, :64], 0, 1)
            rows = fitting
        return super()._prepared(rows)


@pytest.mark.soak
def test_scikit_learn_finds_no_other_fault(folder):
    from sklearn.utils.estimator_checks import check_estimator

    found = check_estimator(
        AnyRows(folder), expected_failed_checks=EXCEPTIONS, on_fail=None, on_skip=None
    )
    failed = {r["check_name"]: repr(r["exception"])[:150] for r in found if r["status"] == "failed"}
    assert not failed, failed
    assert sum(r["status"] == "passed" for r in found) >= 40
    assert {r["check_name"] for r in found if r["status"] == "xfail"} == set(EXCEPTIONS)
    with pytest.raises(ValueError, match="X has 65 features, but Encoder is expecting 64"):
        cae_cli.Encoder(folder).transform(np.zeros((2, 65)))
