"""A training on pairs: what the network gets, and what it is judged against."""

import json
import shutil

import numpy as np
import pytest

from cae_cli.data import as_float
from cae_cli.external import treat
from cae_cli.external.model import FileOptions
from cae_cli.features import open_network
from cae_cli.introspection import load
from cae_cli.runs.folder import Run
from cae_cli.training.recorder import Recorder
from tests.conftest import called
from tests.test_pairs import are_negatives, read

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on images and their negatives, float32 and uint8; its folder; and its first batches."""
    home = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (96, 3, 4), np.uint8)
    x = coarse.repeat(4, axis=1).repeat(4, axis=2)  # (n, 12, 16)
    np.savez(home / "x.npz", noisy=x, clean=1 - x / np.float32(255))
    batches = []
    with pytest.MonkeyPatch.context() as patch:
        plain = Recorder.batches

        def kept(self, inputs, targets):
            batches.append((inputs, targets))
            plain(self, inputs, targets)

        patch.setattr(Recorder, "batches", kept)
        done = called(
            *(home, "train", "data=pairs", "data.path=x.npz", "data.key=noisy", "data.target_key=clean"),
            *("training.epochs=2", "training.batch_size=16", "model.filters=[4]", "augmentation=flip"),
        )
    assert done.code == 0, done.err
    images = read(home / "x.npz", key="noisy", target_key="clean")
    return Run(home / done.folder), images, batches


def test_both_images_of_a_pair_are_flipped_alike(trained):
    _, images, batches = trained
    known = {image.tobytes() for image in as_float(images.train_inputs)}
    assert batches
    inputs, targets = (np.concatenate(part) for part in zip(*batches, strict=True))
    assert np.allclose(inputs + targets, 1, atol=1e-5)
    share = np.mean([image.tobytes() in known for image in inputs])
    assert 0.25 < share < 0.75  # the others are mirrored


def test_the_output_is_compared_with_the_target(trained):
    run, images, _ = trained
    assert are_negatives(images)
    model = load(run.folder / "checkpoints/last.keras", None)
    outputs = np.asarray(model(as_float(images.validation_inputs)))
    mse = np.square(outputs - images.validation).mean()
    assert run.read_metrics()["val/mse"][-1] == pytest.approx(mse, rel=1e-4)
    arrays = run.read_arrays(run.arrays)
    assert arrays["mse"].mean() == pytest.approx(mse, rel=1e-4)
    assert np.array_equal(arrays["example_images"], images.validation[:8])
    assert np.array_equal(arrays["example_inputs"], as_float(images.validation_inputs[:8]))
    assert run.training()["paired"] is True


def test_a_denoiser_is_used_on_noise_that_leaves_the_range(tmp_path):
    """Its inputs are prepared as in training, and its errors are those from the targets."""
    rng = np.random.default_rng(0)
    clean = rng.random((48, 2, 2), np.float32).repeat(4, axis=1).repeat(4, axis=2)
    noisy = clean + rng.normal(0, 0.3, clean.shape).astype(np.float32)
    np.savez(tmp_path / "x.npz", noisy=noisy, clean=clean)
    np.save(tmp_path / "noisy.npy", noisy)
    of_pairs = "data=pairs", "data.path=x.npz", "data.key=noisy", "data.target_key=clean"
    done = called(
        *(tmp_path, "train", *of_pairs, "training.epochs=1", "training.batch_size=16"),
        *("model.filters=[4]", "training.snapshots=[]"),
    )
    assert done.code == 0, done.err
    run = Run(tmp_path / done.folder)
    tables = {}
    for name, words in (
        ("own", ()),
        ("pairs", of_pairs),
        ("alone", ("data=npy", "data.path=noisy.npy")),
    ):
        done = called(tmp_path, "encode", "last", *words, "--out", f"{name}.npz")
        assert done.code == 0, done.err
        tables[name] = np.load(tmp_path / f"{name}.npz")
        wanted = "images" if name == "alone" else "targets"
        assert f"from the {wanted}" in done.err
        assert json.loads(str(tables[name]["about"]))["error"] == f"from the {wanted}"
    own = tables["own"]
    measured = run.read_arrays(run.arrays)["mse"]
    assert np.array_equal(own["error"][own["split"] == "validation"], measured)
    assert np.array_equal(tables["pairs"]["error"][own["index"]], own["error"])
    for name in ("pairs", "alone"):
        assert np.array_equal(tables[name]["codes"][own["index"]], own["codes"])
    assert tables["alone"]["error"].mean() > own["error"].mean() + 0.05  # the noise
    done = called(tmp_path, "export", "last", "--format", "keras")
    assert done.code == 0, done.err


def test_a_run_without_the_scale_of_its_inputs_can_be_used(trained, tmp_path):
    run, images, _ = trained
    network = open_network(run)
    assert (network.scale, network.target_scale) == (images.input_scale, images.scale)
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    setup = json.loads((copy / "run.json").read_text())
    del setup["data"]["input_scale"]  # a run of before
    (copy / "run.json").write_text(json.dumps(setup))
    old = open_network(Run(copy))
    assert old.scale == old.target_scale == images.scale
    x = images.train_inputs[:3]
    assert np.array_equal(old.encode(old.prepare(x)), network.encode(network.prepare(x)))


def test_fixes_are_tried_on_pairs(trained, tmp_path, monkeypatch):
    run, images, _ = trained
    monkeypatch.setattr(treat, "measure_file", lambda path, *_: load(path, None))
    monkeypatch.setattr(treat, "write_options", lambda *_: None)
    monkeypatch.setattr(treat, "proven", lambda run, training, **_: training)
    path = run.folder / "checkpoints/last.keras"
    training = treat.treat_file(
        path, images, FileOptions(span=(0, 255)), Run(tmp_path), {}, budget=1.0, steps=3
    )
    assert np.allclose(training.x, 255 * as_float(images.train_inputs))
    assert np.allclose(training.targets, 255 * images.train, atol=1e-4)
    assert np.allclose(training.held_out, 255 * as_float(images.validation_inputs))
