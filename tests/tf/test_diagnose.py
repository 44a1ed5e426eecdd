"""Other people's networks: files, a callback in their own fit; and short trainings of our own."""

import json

import numpy as np
import pytest

from cae_cli import data
from cae_cli.config.compose import checked
from cae_cli.data import as_float
from cae_cli.runs.reader import Entry
from tests.conftest import called
from tests.test_streams import both_unread

pytestmark = pytest.mark.tf
keras = pytest.importorskip("keras")
layers = keras.layers


@pytest.fixture(scope="module")
def glyphs():
    """(1,200, 28, 28, 1) letters and digits in [0, 1]."""
    images = data.load(checked(["data.train=1100"])[1].data)
    return np.concatenate([as_float(images.train), as_float(images.validation)])[:1200]


def plain_network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="code"),
            layers.Conv2DTranspose(16, 4, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="sigmoid"),
        ]
    )


def network_with_skips():
    keras.utils.set_random_seed(0)
    image = keras.Input((28, 28, 1))
    first = layers.Conv2D(16, 3, padding="same", activation="relu")(image)
    code = layers.Conv2D(8, 3, strides=4, padding="same", activation="relu")(first)
    up = layers.UpSampling2D(4)(code)
    joined = layers.Concatenate()([up, first])
    return keras.Model(image, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(joined))


def fitted(model, images, tmp_path, *, targets=None, **fit):
    from cae_cli import Diagnosis

    watch = Diagnosis(images, folder=tmp_path / "keras", verbose=0)
    model.compile(fit.pop("optimizer", keras.optimizers.Adam(0.003)), fit.pop("loss", "mse"))
    targets = images if targets is None else targets
    model.fit(images, targets, validation_split=0.1, verbose=0, callbacks=[watch], **fit)
    return watch


@pytest.mark.pictures
def test_the_callback_sees_what_a_run_of_our_own_sees(glyphs, tmp_path):
    model = plain_network()
    before = model.get_weights()
    watch = fitted(model, glyphs, tmp_path, epochs=5)
    assert watch.report["verdict"] == watch.outcome.diagnosis.verdict
    assert json.dumps(watch.report)
    metrics = watch.outcome.metrics
    assert (
        metrics.batches.pair == 0 and 0 <= metrics.batches.input_low <= metrics.batches.input_high <= 1
    )
    assert metrics.dynamics.steps == 5 * 34
    assert metrics.dynamics.early_update > -3
    assert metrics.network.latent_shape == (7, 7, 8)
    assert {layer.name for layer in metrics.layers} >= {"code"}
    # Maps of the last layer are channels of the image, and no duplicates of one another.
    assert metrics.layers[0].duplicates is not None and metrics.layers[-1].duplicates is None
    # What it says of the network is true of the network.
    held_out = glyphs[-120:]
    error = np.square(model.predict(held_out, verbose=0) - held_out).mean()
    assert metrics.quality.mse.value == pytest.approx(error, rel=1e-4)
    moved = np.linalg.norm(model.get_weights()[0] - before[0]) / np.linalg.norm(before[0])
    assert metrics.layers[0].weight_change == pytest.approx(moved, rel=1e-4)
    assert not {"CAE103", "CAE207", "CAE208"} & {s.code for s in watch.outcome.diagnosis.skipped}
    for name in (
        "summary.txt",
        "summary.json",
        "baselines.png",
        "training_dynamics.png",
        "perturbation_tests.png",
        "filters_vs_init.png",
    ):
        assert (watch.folder / name).is_file()


def test_the_callback_leaves_the_training_as_it_is_and_needs_no_reader(glyphs, tmp_path):
    watched, alone = plain_network(), plain_network()
    for model in (watched, alone):
        model.compile("adam", "mse")
    from cae_cli import Diagnosis

    watch = Diagnosis(glyphs, folder=tmp_path)
    for model, callbacks in ((watched, [watch]), (alone, [])):
        keras.utils.set_random_seed(1)
        with both_unread("pipe"):
            model.fit(glyphs[:320], glyphs[:320], epochs=2, verbose=0, callbacks=callbacks)
    assert watch.report["verdict"]
    for ours, theirs in zip(watched.get_weights(), alone.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)


def test_images_that_were_given_are_compared_once_and_not_copied(glyphs, tmp_path, monkeypatch):
    from cae_cli import Diagnosis

    x = glyphs[:160]
    watch = Diagnosis((x, x.copy()), folder=tmp_path, verbose=0)
    compared, equal = [], np.array_equal

    def counted(a, b):
        compared.append(np.ndim(a) == 4 and np.shares_memory(a, x))
        return equal(a, b)

    monkeypatch.setattr(np, "array_equal", counted)
    model = plain_network()
    model.compile("adam", "mse")
    model.fit(x, x, batch_size=8, validation_data=(glyphs[400:420],) * 2, verbose=0, callbacks=[watch])
    assert sum(compared) < 10 and watch.report  # in twenty steps
    images = watch._images.images
    assert len(images.train) == 160 and len(images.validation) == 20
    assert np.shares_memory(images.train, x)


@pytest.mark.soak
def test_shuffled_targets_are_seen_in_what_fit_was_fed(glyphs, tmp_path):
    shuffled = glyphs[np.random.default_rng(0).permutation(len(glyphs))]
    watch = fitted(plain_network(), glyphs, tmp_path, targets=shuffled, epochs=5)
    assert watch.report["diagnosis"]["findings"][0]["code"] == "CAE103"


@pytest.mark.soak
def test_denoising_is_not_taken_for_shuffled_targets(glyphs, tmp_path):
    noise = 0.3 * np.random.default_rng(0).standard_normal(glyphs.shape)
    noisy = np.clip(glyphs + noise, 0, 1).astype(np.float32)
    watch = fitted(plain_network(), noisy, tmp_path, targets=glyphs, epochs=3)
    assert watch.outcome.metrics.batches.pair > 0.1
    assert "CAE103" in watch.report["diagnosis"]["passed"]


def test_a_second_fit_continues_the_training_in_a_folder_of_its_own(glyphs, tmp_path):
    model = plain_network()
    some = glyphs[:320]
    watch = fitted(model, some, tmp_path, epochs=2)
    first, steps = watch.folder, watch.outcome.metrics.dynamics.steps
    model.fit(some, some, validation_split=0.1, epochs=1, verbose=0, callbacks=[watch])
    assert watch.folder != first and (first / "summary.json").is_file()
    assert (steps, watch.outcome.metrics.dynamics.steps) == (18, 27)
    assert list(watch.run.read_metrics()["epoch"]) == [0, 1, 2, 3]
    assert Entry(first).status == Entry(watch.folder).status == "ok"


@pytest.mark.soak
def test_bytes_behind_a_sigmoid_are_seen(glyphs, tmp_path):
    watch = fitted(plain_network(), 255 * glyphs, tmp_path, epochs=5)
    first = watch.report["diagnosis"]["findings"][0]
    assert first["code"] == "CAE102" and "sigmoid" in first["message"]


def test_a_learning_rate_that_is_too_high_is_diagnosed_in_terms_of_keras(glyphs, tmp_path):
    watch = fitted(plain_network(), glyphs, tmp_path, optimizer=keras.optimizers.Adam(0.5), epochs=5)
    assert watch.report["diagnosis"]["findings"][0]["code"] == "CAE207"
    assert "learning_rate=0.001" in (watch.folder / "summary.txt").read_text()
    assert "cae train" not in (watch.folder / "summary.txt").read_text()


@pytest.fixture(scope="module")
def saved(glyphs, tmp_path_factory):
    """A folder with two saved networks and images."""
    folder = tmp_path_factory.mktemp("saved")
    np.savez(folder / "glyphs.npz", x_train=(glyphs * 255).astype(np.uint8))
    for name, model in (("plain", plain_network()), ("skips", network_with_skips())):
        model.compile(keras.optimizers.Adam(0.003), "mse")
        model.fit(glyphs[:1000], glyphs[:1000], epochs=6, verbose=0)
        model.save(folder / f"{name}.keras")
    of_bytes = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            keras.saving.load_model(folder / "plain.keras"),
            layers.Rescaling(255.0),
        ]
    )
    of_bytes.save(folder / "bytes.keras")
    return folder


def diagnosed(folder, *arguments):
    done = called(folder, "diagnose", *arguments, "--json")
    return done, json.loads(done.out) if done.out else None


IMAGES = ("data=npz", "data.path=glyphs.npz")


@pytest.fixture(scope="module")
def plain(saved):
    """The diagnosis of the plain network."""
    done, report = diagnosed(saved, "plain.keras", *IMAGES)
    assert done.code == 0, done.err
    return report


def test_a_saved_network_is_judged_without_its_history(plain):
    skipped = {s["code"]: s["reason"] for s in plain["diagnosis"]["skipped"]}
    assert skipped["CAE207"] == skipped["CAE103"] == "the training was not recorded"
    assert "CAE502" in plain["diagnosis"]["passed"]
    assert plain["metrics"]["quality"]["explained_variance"] > 0.7


def test_a_network_without_convolutions_is_refused_and_leaves_no_folder(saved):
    dense = keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(784), layers.Reshape((28, 28, 1))]
    )
    dense.save(saved / "dense.keras")
    before = set((saved / "runs" / "diagnose").glob("*")) if (saved / "runs").exists() else set()
    done, _ = diagnosed(saved, "dense.keras", *IMAGES)
    assert done.code == 2 and "no convolutions" in done.err
    assert set((saved / "runs" / "diagnose").glob("*")) == before


def test_skip_connections_are_detected_and_can_set_the_exit_code(saved):
    done, report = diagnosed(saved, "skips.keras", *IMAGES, "--fail-on", "error")
    assert done.code == 1
    assert report["diagnosis"]["findings"][0]["code"] == "CAE502"


def test_another_range_is_detected_and_can_be_given(saved, plain):
    _, wrong = diagnosed(saved, "bytes.keras", *IMAGES)
    first = wrong["diagnosis"]["findings"][0]
    assert first["code"] == "CAE112"
    assert first["fixes"][0]["keras"] == "x = 255 * x  # cae: --range=0,255"
    _, right = diagnosed(saved, "bytes.keras", *IMAGES, "--range=0,255", "--latent", "code")
    assert "CAE112" in right["diagnosis"]["passed"] and "CAE112" in plain["diagnosis"]["passed"]
    explained = [r["metrics"]["quality"]["explained_variance"] for r in (wrong, right, plain)]
    assert explained[1] == pytest.approx(explained[2], abs=1e-3) and explained[0] < explained[1]


def test_a_model_that_scales_its_input_alone_is_opened_with_two_ranges(saved, plain):
    """Behind Rescaling(1/255) the images are bytes and the output is from 0 to 1."""
    inside = keras.saving.load_model(saved / "plain.keras")
    keras.Sequential([keras.Input((28, 28, 1)), layers.Rescaling(1 / 255), inside]).save(
        saved / "scales.keras"
    )
    _, right = diagnosed(saved, "scales.keras", *IMAGES, "--range=0,255,0,1", "--latent", "code")
    explained = [r["metrics"]["quality"]["explained_variance"] for r in (right, plain)]
    assert "CAE112" in right["diagnosis"]["passed"]
    assert explained[0] == pytest.approx(explained[1], abs=1e-3)


def faulty(cae, tmp_path):
    """A run with too low a learning rate, in a folder with a name as a sweep gives it."""
    done = cae(
        "train", "data.train=512", "model.filters=[8]", "training.epochs=8", "optimizer=adadelta",
        "optimizer.learning_rate=0.0001",
    )  # fmt: skip
    return (tmp_path / done.folder).rename(tmp_path / "0_loss=mse")


@pytest.mark.soak
def test_a_frozen_encoder_says_what_random_filters_are_worth(cae, tmp_path):
    folder = faulty(cae, tmp_path)
    diagnosed = cae("diagnose", str(folder), "--frozen-encoder", "rules.CAE401.enabled=false")
    assert diagnosed.code == 0, diagnosed.err
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["diagnosis"]["disabled"] == ["CAE401"]
    assert summary["metrics"]["frozen"] is not None
    assert "frozen random encoder" in diagnosed.out
    # A report shows the stored diagnosis; a new diagnosis applies the rule again.
    reported = cae("report", str(folder))
    assert "CAE401" in reported.out.partition("disabled")[2]
    assert reported.out.startswith((folder / "summary.txt").read_text().rstrip())
    assert "disabled" not in cae("diagnose", str(folder)).out


@pytest.mark.soak
def test_short_trainings_find_what_helps(cae, tmp_path):
    folder = faulty(cae, tmp_path)
    treated = cae("treat", str(folder), "--short")
    assert treated.code == 0, treated.err
    record = json.loads((tmp_path / treated.folder / "treatment.json").read_text())
    shorts = record["short"]
    assert shorts[0]["overrides"] == [] and len(shorts) > 3
    itself = max(shorts[0]["explained"] or 0, 0)
    helped = [short["overrides"] for short in shorts if (short["explained"] or 0) > itself + 0.05]
    assert ["optimizer.learning_rate=1"] in helped and "helps most" in record["verdict"]
