"""Edits of trainings, and trials of them."""

import json
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers as L

from benchmarks import treat as builds
from cae_cli import Diagnosis, experiment, treat
from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.finding import Fix
from cae_cli.diagnosis.trials import Trials
from cae_cli.errors import UserError
from cae_cli.external import edits, random_edits, surgery, trials
from cae_cli.external.training import Optimizer, Training, compiled_as, of_model
from cae_cli.external.treat import write_options
from cae_cli.runs.folder import Run
from tests.conftest import called, environment

pytestmark = pytest.mark.tf

NOISE = np.random.default_rng(0)
# Soft blobs of 16x16 pixels: what a small network learns in a few steps.
GRID = np.stack(np.meshgrid(*[np.arange(16)] * 2), -1)
CENTRES = NOISE.uniform(3, 13, (200, 1, 1, 2))
BLOBS = np.exp(-np.square(GRID - CENTRES).sum(-1) / 12)[..., None].astype(np.float32)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@keras.saving.register_keras_serializable()
class Leaky(L.Layer):
    """Adds a loss of its own."""

    def call(self, x):
        self.add_loss(100 * keras.ops.mean(keras.ops.square(x)))
        return x


def network(act="relu", out="sigmoid", **words):
    same = {"padding": "same", "activation": act, **words}
    return keras.Sequential([
        keras.Input((16, 16, 1)), L.Conv2D(8, 3, strides=2, **same), L.Conv2D(4, 3, name="code", **same),
        L.Conv2DTranspose(8, 3, strides=2, **same), L.Conv2D(1, 3, padding="same", activation=out),
    ])  # fmt: skip


def faulty() -> Training:
    """A training that nearly every edit changes."""
    image = keras.Input((16, 16, 1))
    x = L.Conv2D(8, 1, activation="tanh", kernel_initializer="zeros", kernel_regularizer="l2",
                 dtype="float16")(image)  # fmt: skip
    x = L.Dropout(0.5)(Leaky()(x))
    skip = x
    x = L.Conv2D(4, 3, strides=2, padding="same", name="code", trainable=False)(x)
    x = L.LeakyReLU()(x)
    x = L.ActivityRegularization(l1=0.1)(x)
    x = L.Conv2DTranspose(8, 1, strides=2, padding="same")(x)
    x = L.Concatenate()([x, skip])
    model = keras.Model(image, L.Activation("sigmoid")(L.Conv2D(1, 3, padding="same")(x)))
    model.compile(keras.optimizers.SGD(5.0, momentum=0.9), "mae")
    return of_model(model, 2 * BLOBS, BLOBS[::-1], shuffle=False, batch_size=90)


def healthy() -> Training:
    model = network()
    model.compile(keras.optimizers.Adam(0.001), "binary_crossentropy")
    return of_model(model, BLOBS)


EXCEPT = {"sigmoid output", "absolute error"}  # the faulty training has both
ALWAYS = {
    "linear output", "ELU", "LeakyReLU", "batch normalisation", "rate / 10", "rate x 10", "more steps",
    "he_normal initializers", "clipped gradients", "squared error", "absolute error", "wider code",
    "narrower code", "wider layers",
}  # fmt: skip


def test_every_edit_changes_a_faulty_training_and_only_some_a_usual_one():
    training = faulty()
    before = [w.numpy() for w in training.model.weights]
    found = {name: edit.change(training) for name, edit in edits.CATALOGUE.items()}
    assert {name for name, change in found.items() if change is None} == EXCEPT
    for name, change in found.items():
        assert change.before != change.after if change else name in EXCEPT
        assert change is None or change.training is not training
    assert all(np.array_equal(a, b) for a, b in zip(before, training.model.weights, strict=True))
    usual = healthy()
    assert {name for name, edit in edits.CATALOGUE.items() if edit.change(usual)} == ALWAYS


def test_edits_do_what_they_say():
    training = faulty()

    def edited(name):
        return edits.CATALOGUE[name].change(training)

    def kinds(name):
        return [type(layer).__name__ for layer in edited(name).training.layers]

    assert "Dropout" in kinds("linear output") and "Dropout" not in kinds("no dropout")
    assert "BatchNormalization" in kinds("batch normalisation")
    assert edited("no penalties").training.penalties == 0
    assert "ActivityRegularization" not in kinds("no penalties")
    assert {x.dtype_policy.name for x in edited("float32").training.layers} == {"float32"}
    assert edited("rate / 10").after == "optimizer=keras.optimizers.SGD(learning_rate=0.5, momentum=0.9)"
    assert edited("Adam at 0.001").training.optimizer.rate == pytest.approx(0.001)
    assert edited("shuffled batches").training.shuffle
    assert edited("target = input").training.y is None
    scaled = edited("images in reach").training
    assert scaled.x.max() <= 1 and scaled.targets.max() == pytest.approx(
        scaled.held_out_y.max(), abs=0.5
    )
    # As many epochs: the smaller the batches, the more steps.
    smaller = edited("smaller batches").training
    assert smaller.longer * smaller.batch_size == training.longer * training.batch_size
    width = [x.filters for x in edited("wider layers").training.layers if hasattr(x, "filters")]
    assert width == [16, 4, 16, 1]  # not those of the latent code and of the output
    assert edited("linear output").after == 'keras.layers.Activation("linear")'
    assert "leaky_relu" not in str([x.get_config() for x in edited("ELU").training.layers])
    # Without skips, another image in front of them changes nothing behind the latent code.
    cut = edited("no skips").training.model
    merged = next(layer for layer in cut.layers if isinstance(layer, L.Concatenate))
    assert not np.asarray(keras.Model(cut.inputs[0], merged.output)(BLOBS[:2]))[..., 8:].any()


def test_a_fix_of_the_diagnosis_names_an_edit_of_the_catalogue():
    constants = [value for value in vars(fixes).values() if isinstance(value, Fix)]
    made = [
        fixes.kernel_size(3, ""), fixes.kernel_size(5, ""), fixes.initializer("he_normal", ""),
        fixes.initializer("orthogonal", ""), fixes.layer_sizes("", channels=8),
    ]  # fmt: skip
    named = {fix.edit for fix in [*constants, *made]} - {""}
    assert named <= edits.CATALOGUE.keys() and len(named) >= 7


def test_a_training_follows_from_its_seed_and_leaves_random_states_alone():
    training = healthy()
    random.seed(1)
    np.random.seed(1)
    first = training.run(6, 3)
    drawn = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    assert drawn == (random.random(), np.random.random())
    again, other = training.run(6, 3), training.run(6, 4)
    assert training.explained(first) == training.explained(again) != training.explained(other)


def test_the_smoother_of_image_and_target_is_what_counts():
    noisy = BLOBS + NOISE.normal(0, 0.3, BLOBS.shape).astype(np.float32)
    model = network()
    model.compile("adam", "mse")
    assert np.array_equal(of_model(model, noisy, BLOBS).clean[0], BLOBS[:180])  # a denoiser
    assert np.array_equal(of_model(model, BLOBS, noisy).clean[0], BLOBS[:180])  # noisy targets


@pytest.fixture
def few(monkeypatch):
    """Three edits, a few steps each."""
    names = ("ReLU", "no penalties", "Adam at 0.001")
    monkeypatch.setattr(trials, "CATALOGUE", {name: edits.CATALOGUE[name] for name in names})
    monkeypatch.setattr(trials, "STEPS", 40)


DRAWN = random_edits.changes


def one_control(training, seed):
    yield next(DRAWN(training, seed))


@pytest.mark.soak
def test_the_edit_that_undoes_the_fault_is_the_proven_cause(few, monkeypatch):
    monkeypatch.setattr(random_edits, "changes", one_control)
    model = network(activity_regularizer=keras.regularizers.L1(10.0))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    before = [np.array(w) for w in model.weights]
    lines = []
    result = trials.tried(of_model(model, BLOBS), budget=600, linear=0.8, say=lines.append)
    found = result.trials
    assert [t.name for t in found.proven] == ["no penalties"] and len(found.proven[0].explained) == 2
    assert found.fails and found.verdict().startswith(
        "a fault that no rule knows; no penalties mends it"
    )
    assert "activity_regularizer" in found.proven[0].before
    assert "activity_regularizer" not in found.proven[0].after
    assert len(found.controls) == 1 and not found.ended and not found.untried
    assert {"images", "targets", "unchanged", "edit", "control"} == result.pictures.keys()
    assert len(lines) == 2 + len(found.edits) + 1 + 1  # unchanged and the proven one twice
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))


@pytest.mark.pictures
def test_treat_writes_what_it_proved_and_leaves_the_model_alone(few, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(random_edits, "changes", lambda *_: iter(()))
    model = network(activity_regularizer=keras.regularizers.L1(10.0))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(BLOBS, BLOBS, verbose=0)
    before = [np.array(w) for w in (*model.weights, *model.optimizer.variables)]
    name, states = L.Conv2D(1, 1).name, (random.getstate(), np.random.get_state()[1].tolist())
    treatment = treat(model, BLOBS, budget="1h", steps=40, folder=tmp_path)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    stem, _, number = name.rpartition("_")
    assert L.Conv2D(1, 1).name == f"{stem}_{int(number) + 1}"
    after = [*model.weights, *model.optimizer.variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert [t.name for t in treatment.trials.proven] == ["no penalties"]
    shown = capsys.readouterr().out
    assert "no penalties mends it" in treatment.report["verdict"] and "no penalties mends it" in shown
    assert '- keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", acti' in shown
    files = {path.name for path in treatment.folder.iterdir()}
    assert {"trials.json", "trials.npz", "trials.png", "summary.json", "status.json"} <= files
    run = Run(treatment.folder)
    assert Trials.of(run.trials()) == treatment.trials  # all that the report needs is in the folder
    outcome = experiment.report(run, silent=True, pictures=False)
    assert outcome.diagnosis.verdict == treatment.report["verdict"]
    run.write_trials({"unchanged": 3}, {})
    with pytest.raises(UserError, match=r"trials\.json is not a file of cae"):
        experiment.diagnose(run)
    with pytest.raises(UserError, match="budget must be a time like"):
        treat(model, BLOBS, budget="soon")


@pytest.mark.soak  # `treat` is called with the same trials above
def test_the_callback_tries_fixes_on_what_the_training_was_fed(few, monkeypatch, tmp_path):
    monkeypatch.setattr(random_edits, "changes", lambda *_: iter(()))
    monkeypatch.setattr(trials, "CATALOGUE", {"target = input": edits.CATALOGUE["target = input"]})
    model = network(act="elu", out="linear")
    model.compile(keras.optimizers.Adam(0.01), "mse")
    callback = Diagnosis(BLOBS, try_fixes="1h", folder=tmp_path, verbose=0)
    model.fit(BLOBS[:180], BLOBS[179::-1], epochs=7, verbose=0, callbacks=[callback])
    found = callback.trials
    assert found.steps == 40 and [t.name for t in found.proven] == ["target = input"]
    assert callback.report["verdict"].endswith(found.verdict().partition("; ")[2])
    with pytest.raises(UserError, match="budget must be"):
        Diagnosis(BLOBS, try_fixes=-1)


@pytest.mark.soak
def test_a_model_file_is_treated_as_it_was_compiled(few, monkeypatch, tmp_path):
    monkeypatch.setattr(random_edits, "changes", lambda *_: iter(()))
    model = network(activity_regularizer=keras.regularizers.L1(10.0))
    model.compile(keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError())
    model.fit(BLOBS, BLOBS, verbose=0)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", x_train=BLOBS[:180, ..., 0], x_test=BLOBS[180:, ..., 0])
    done = called(tmp_path, "treat", "model.keras", "data=npz", "data.path=x.npz", "--budget", "1h")
    assert done.code == 0, done.err
    [file] = tmp_path.glob("runs/treat/*/trials.json")
    found = Trials.of(json.loads(file.read_text()))
    assert "no penalties mends it" in done.out and done.folder == file.parent.relative_to(tmp_path)
    assert [t.name for t in found.proven] == ["no penalties"]
    assert "Adam at 0.001" in [t.name for t in found.edits]  # the file's rate is another one


def test_what_is_known_of_the_training_of_a_file_is_known_to_its_rules(tmp_path):
    run, optimizer = Run(tmp_path), Optimizer.of(keras.optimizers.SGD(0.01))
    run.write_setup({"command": [], "config": {}})
    run.write_training({"facts": {}})
    loss = "binary_crossentropy"
    training = Training(model=None, x=BLOBS, held_out=BLOBS, loss=loss, optimizer=optimizer)
    write_options(run, training, {})
    assert run.settings()["optimizer"]["usual_rate"] == 0.1
    assert run.settings()["facts"]["loss"]["survives_saturation"]


def test_a_model_file_is_treated_with_images_only(tmp_path):
    (tmp_path / "model.keras").touch()
    done = called(tmp_path, "treat", "model.keras")
    assert done.code == 2 and "images are needed to treat a model" in done.err


@pytest.mark.parametrize(
    ("config", "rate", "loss"),
    [
        ({"optimizer": {"class_name": "SGD", "config": {"learning_rate": 5.0}}}, 5.0, None),
        ({"optimizer_config": {"class_name": "Adam", "config": {}}, "loss": "mae"}, 0.001, "mae"),
        ({"optimizer": {"class_name": "Own>Adam2"}, "loss": "of_somebody"}, None, None),
        ({"optimizer": {"class_name": "get"}, "loss": {"class_name": "os.system"}}, None, None),
        ({"optimizer": 3, "loss": {"class_name": "function", "config": "mse"}}, None, "mse"),
        ({}, None, None),
    ],
)  # fmt: skip
def test_of_what_a_file_says_only_keras_own_parts_are_taken(config, rate, loss):
    found = compiled_as(config)
    assert (found["optimizer"].rate if "optimizer" in found else None) == (
        None if rate is None else pytest.approx(rate)
    )
    assert found.get("loss") == loss


def test_an_interrupt_keeps_what_was_measured(few, monkeypatch):
    def interrupted(line):
        if line.startswith("Adam"):
            raise KeyboardInterrupt

    model = network()
    model.compile("sgd", "mse")
    found = trials.tried(of_model(model, BLOBS), budget=600, say=interrupted).trials
    assert found.ended == "interrupted" and [t.name for t in found.edits] == []
    assert len(found.unchanged.explained) == 1


NOT_HERE = ("variational", "colour", "64 pixels")  # done above, or of other images


def layerless(name):
    return name in ("subclassed, with a training step",)


@pytest.mark.parametrize("name", builds.BUILDS)
def test_models_of_any_build_can_be_edited(name):
    model = builds.BUILDS[name]()
    loss = {} if layerless(name) else {"loss": "mse"}
    model.compile(keras.optimizers.SGD(0.1), **loss)
    side, channels = {"colour": (32, 3), "64 pixels": (64, 1)}.get(name, (28, 1))
    training = of_model(model, np.zeros((4, side, side, channels), np.float32))
    changed = {name for name, edit in edits.CATALOGUE.items() if edit.change(training)}
    assert {"Adam at 0.001", "rate x 10"} <= changed
    assert layerless(name) or {"linear output", "ELU", "he_normal initializers"} <= changed
    assert ("no penalties" in changed) == (name == "variational")
    assert ("no skips" in changed) == (name == "skip connection")


@pytest.mark.parametrize(
    "name",
    [
        "variational",
        *(pytest.param(n, marks=pytest.mark.soak) for n in builds.BUILDS if n not in NOT_HERE),
    ],
)
def test_models_of_any_build_are_trained_again(name):
    model = builds.BUILDS[name]()
    model.compile(keras.optimizers.Adam(), **({} if layerless(name) else {"loss": "mse"}))
    training = of_model(model, np.pad(BLOBS, ((0, 0), (6, 6), (6, 6), (0, 0))))
    first, again = (training.explained(training.run(3, 0)) for _ in range(2))
    assert first == again


def test_a_model_with_the_channels_first_is_refused_before_it_is_trained(tmp_path):
    conv = L.Conv2D(1, 3, padding="same", data_format="channels_first")
    with pytest.raises(UserError, match="the channels first") as caught:
        treat(
            keras.Sequential([keras.Input((1, 16, 16)), conv]), BLOBS[:, None, ..., 0], folder=tmp_path
        )
    assert "model.save" in caught.value.hint and not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_built_again_is_an_error():
    class Closed(keras.Model):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def call(self, x, training=False):
            return self.inner(x)

    model = Closed(network())
    model.compile("adam", "mse")
    with pytest.raises(surgery.CannotRebuild):
        of_model(model, BLOBS).run(1, 0)
    with pytest.raises(UserError, match="one shape"):
        of_model(network(), BLOBS[..., 0])
    with pytest.raises(UserError, match="200 images have 3 targets"):
        of_model(network(), BLOBS, BLOBS[:3])


def test_importing_starts_no_tensorflow():
    """Else a later run in the same process would get other threads, and other bits."""
    code = (
        "import pkgutil, importlib, cae_cli, tensorflow as tf\n"
        "for module in pkgutil.walk_packages(cae_cli.__path__, 'cae_cli.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "tf.config.threading.set_intra_op_parallelism_threads(1)\n"  # raises once it was started
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment()
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
