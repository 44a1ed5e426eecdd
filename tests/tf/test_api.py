"""The command line as Python functions: the same runs, in a process that is left as it was."""

import concurrent.futures
import inspect
import logging
import os
import random
import signal
import sys
from pathlib import Path
from typing import ClassVar

import hydra
import keras
import numpy as np
import pytest
import tensorflow as tf
from hydra.core.global_hydra import GlobalHydra
from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

import cae_cli
from cae_cli.data import as_float
from cae_cli.report import terminal
from cae_cli.runs.folder import Run
from tests.conftest import ROOT, called
from tests.tf.conftest import configured

pytestmark = pytest.mark.tf


class Heard(Callback):
    """A callback of Hydra."""

    events: ClassVar[list[str]] = []

    def on_run_start(self, **_):
        self.events.append("run")

    def on_job_end(self, job_return, **_):
        self.events.append(job_return.status.name)


WORDS = ("model.filters=[4]", "training.epochs=2", "regularization=dropout", "seed=7")


@pytest.fixture(scope="module")
def images():
    """(96, 8, 8) uint8: digits."""
    pool = configured("data=digits", "data.train=96").data.read()
    return np.asarray(np.round(as_float(pool.images[:96]) * 15), np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def command(home, images):
    """What the command trains on the same images."""
    np.savez(home / "x.npz", x_train=images)
    done = called(home, "train", "data=npz", "data.path=x.npz", "data.scale=minmax", *WORDS)
    assert done.code == 0, done.err
    return home / done.folder


def train(home, images, folder=None):
    words = ["+hydra.callbacks.mine._target_=tests.tf.test_api.Heard"]
    words += [f"hydra.run.dir=runs/{folder}"] if folder else []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        return cae_cli.train(*WORDS, "data.scale=minmax", *words, data=images, verbose=0)


def bits(folder):
    run = Run(folder)
    arrays = run.read_arrays(run.arrays)
    return {name: array.tobytes() for name, array in arrays.items()}


def names(folder):
    """The files of a run that need no drawing."""
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {file for file in files if file.suffix not in (".png", ".html")}


def state():
    """What a caller may rely on."""
    root = logging.getLogger()
    return {
        "loggers": (root.level, tuple(root.handlers), tuple(h.formatter for h in root.handlers)),
        "ours": [getattr(logging.getLogger("cae_cli"), x) for x in ("level", "propagate", "handlers")],
        "disabled": [getattr(x, "disabled", None) for x in logging.root.manager.loggerDict.values()],
        "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "place": (Path.cwd(), list(sys.argv), dict(os.environ), sys.stdout, sys.stderr),
        "files": [os.fstat(descriptor)[:3] for descriptor in (0, 1, 2)],
        "hydra": (id(GlobalHydra.instance().hydra), str(hydra.compose("config"))),
        "resolvers": OmegaConf.create({"a": "${now:x}"}).a,
        "keras": (keras.mixed_precision.global_policy().name, keras.config.floatx()),
        "eager": tf.config.functions_run_eagerly(),
    }


def draws():
    """The next random numbers of everything that has a seed, and whether unseeded ones are allowed."""
    return [
        random.random(), np.random.random(), float(tf.random.uniform(())),
        float(keras.random.uniform(())), keras.layers.Dense(2).name,
    ]  # fmt: skip


def are_next(drawn, expected):
    """Whether they are the same numbers, and the name is the next one after that of the first draw."""
    numbers = [int(names[-1].partition("_")[2] or 0) for names in (expected, drawn)]
    return drawn[:-1] == expected[:-1] and numbers[1] == numbers[0] + 1


def seeded():
    for seed in (random.seed, np.random.seed):
        seed(1)
    keras.utils.set_random_seed(1)


@pytest.fixture
def own_work(tmp_path, monkeypatch):
    """A caller with settings of its own for everything."""
    (tmp_path / "config.yaml").write_text("a: ${now:x}\n")
    monkeypatch.setattr(sys, "argv", ["notebook", "--flag"])
    logging.getLogger("somebody.else").info("made")
    OmegaConf.register_new_resolver("now", lambda pattern: "mine", replace=True)
    options = keras.config.floatx(), keras.mixed_precision.global_policy()
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        OmegaConf.register_new_resolver("now", lambda pattern: "mine", replace=True)
        keras.mixed_precision.set_global_policy("mixed_float16")
        keras.config.set_floatx("float16")
        tf.config.run_functions_eagerly(True)
        yield
    tf.config.run_functions_eagerly(False)
    keras.config.set_floatx(options[0])
    keras.mixed_precision.set_global_policy(options[1])
    logging.getLogger().removeHandler(handler)
    OmegaConf.clear_resolver("now")


def test_a_training_in_a_thread_after_other_work_is_that_of_the_command(
    home, images, command, own_work, capfd
):
    seeded()
    expected = draws()
    seeded()
    before = state()
    capfd.readouterr()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        run = pool.submit(train, home, images).result()
    assert state() == before
    assert are_next(draws(), expected)
    assert bits(run.path) == bits(command)
    assert capfd.readouterr() == ("", "")  # verbose=0


def test_a_second_training_is_that_of_the_command_and_disturbs_no_random_state(home, images, command):
    seeded()
    expected = draws()
    seeded()
    Heard.events.clear()
    run = train(home, images)
    assert Heard.events == ["run", "COMPLETED"]
    assert are_next(draws(), expected)
    assert bits(run.path) == bits(command)
    # Images in memory: the command that repeats the run finds them.
    setup = Run(run.path).setup()
    assert setup["command"][2] == "data=npz"
    files = list((home / "runs" / "images").iterdir())
    assert [f"data.path=runs/images/{files[0].name}"] == setup["command"][3:4] and len(files) == 1
    assert names(run.path) == names(command)
    config, expected = (
        (folder / ".hydra" / "config.yaml").read_text() for folder in (run.path, command)
    )
    assert config == expected.replace("path: x.npz", f"path: runs/images/{files[0].name}")
    assert called(home, "rerun", str(run.path), "--cfg", "job").code == 0


@pytest.mark.soak
def test_an_interrupted_training_is_resumed_by_the_command(home, images, command, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(terminal.Screen, "epoch", interrupt)
        train(home, images, folder="interrupted")
    monkeypatch.chdir(home)
    run = cae_cli.open_run("runs/interrupted")
    assert run.status == "interrupted" and (run.path / "checkpoints" / "last.keras").is_file()
    assert called(home, "resume", "runs/interrupted").code == 0
    assert run.status == "ok" and bits(run.path) == bits(command)


def test_a_run_can_be_asked_for_everything_that_its_folder_holds(home, command, monkeypatch):
    monkeypatch.chdir(home)
    run = cae_cli.open_run(command)
    assert run.path == cae_cli.open_run(run.path).path and run.status == "ok"
    assert run.verdict == run.diagnosis.verdict and run.verdict in repr(run)
    assert run.verdict in " ".join(run.report.split())
    assert run.summary["metrics"]["quality"]["psnr"]["value"] == run.metrics.quality.psnr.value
    assert run.history["epoch"].tolist() == [0, 1, 2]
    assert run.config["seed"] == 7
    assert run.figures["filters/encoder_1"] == run.path / "filters" / "encoder_1.png"
    assert "srcdoc=" in run._repr_html_() and all(path.is_file() for path in run.figures.values())
    assert cae_cli.open_run("last").path.parent == run.path.parent


def test_a_run_lends_its_network(home, images, command):
    run = cae_cli.open_run(command)
    x = images / images.max()
    assert run.latent(images[:3]).shape == (3, 4, 4, 4)
    assert np.allclose(run.reconstruct(images), run.model.predict(x[..., None], verbose=0), atol=1e-5)
    assert run.model is run.model


def test_a_model_in_memory_is_diagnosed_as_its_file(home, images, command, monkeypatch):
    monkeypatch.chdir(home)
    model, x = cae_cli.open_run(command).model, images / images.max()
    weights = model.get_weights()
    seeded()
    expected = draws()
    seeded()
    inner = cae_cli.diagnose(model, x, verbose=0)
    assert are_next(draws(), expected) and all(map(np.array_equal, model.get_weights(), weights))
    outer = cae_cli.diagnose(command / "checkpoints" / "last.keras", x, verbose=0)
    drawn = {"dropout_noise": 0, "hidden_dropout_noise": 0}
    measured = [{**run.summary["metrics"], **drawn} for run in (inner, outer)]
    assert measured[0] == measured[1] and inner.verdict == outer.verdict  # but for what dropout draws
    assert inner.metrics.quality.images == len(images) and inner.path.parent.name == "diagnose"
    with pytest.raises(cae_cli.UserError, match="16x16"):
        cae_cli.diagnose(model, np.random.default_rng(0).random((4, 16, 16)), verbose=0)


def test_the_errors_of_a_sweep_come_from_its_process(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cae_cli.UserError) as caught:
        cae_cli.train_sweep("loss=mse,nope", "seed=0,1")
    assert caught.value.what == "loss has no option 'nope'"
    assert caught.value.where == "command line: loss=nope" and "mse_ssim" in caught.value.hint
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("loss.windw=1",), ("model=l3",), ("optimizer.learning_rate=-1",), ("--fast",)]
)
def test_a_mistake_is_an_exception_with_the_words_of_the_command_line(words, cae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(cae_cli.UserError) as caught:
        cae_cli.train(*words, verbose=0)
    error = caught.value
    shown = f"error: {error.what}\n  --> {error.where}\nhint: {error.hint}\n"
    assert cae("train", *words).err == shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "options", "what"),
    [
        (("-m", "seed=0,1"), {}, "one run"),
        (("--cfg", "job"), {}, "--cfg belongs to the command line"),
        (("data=digits",), {"data": "x.npz"}, "given twice"),
        ((7,), {}, "must be text"),
    ],
)
def test_words_that_make_no_sense_in_a_program_are_refused(words, options, what):
    with pytest.raises(cae_cli.UserError, match=what):
        cae_cli.train(*words, **options)


def test_everything_that_is_exported_exists_and_is_described():
    text = (ROOT / "docs" / "python.md").read_text()
    for name in cae_cli.__all__:
        assert inspect.getdoc(getattr(cae_cli, name)) and name in dir(cae_cli)
        assert f"`{name}" in text or f"cae_cli.{name}" in text, name
