"""A training on pairs: what the network gets, and what it is judged against."""

import numpy as np
import pytest

from cae_cli.data import as_float
from cae_cli.external import treat
from cae_cli.external.model import FileOptions
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
