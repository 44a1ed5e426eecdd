"""`cae check`: what it finds, its exit codes and its JSON, without TensorFlow."""

import json
import os
import re

import numpy as np
import pytest

from cae_cli import cli, experiment
from cae_cli.config import compose
from cae_cli.diagnosis import RULES
from cae_cli.errors import UserError
from cae_cli.runs.json_files import SCHEMA_VERSION
from cae_cli.system import memory
from cae_cli.training import backend
from tests.test_cli import loaded_after


def strokes(count, background=0.0, seed=0):
    """A few bright strokes on a ground, (n, 16, 16) uint8; on black, as dark as MNIST."""
    rng = np.random.default_rng(seed)
    images = np.full((count, 16, 16), background)
    for image in images:
        for _ in range(3):
            row, column, length = rng.integers(0, [15, 12, 8])
            image[row : row + 2, column : column + 3 + length] = rng.uniform(0.5, 1)
    return (255 * images).astype(np.uint8)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def dark(tmp_path):
    """Words that choose dark images."""
    np.savez(tmp_path / "dark.npz", x_train=strokes(600))
    return ["data=npz", "data.path=dark.npz"]


def check(*words):
    return cli.run(["check", *words])


def codes(out):
    return [finding["code"] for finding in json.loads(out)["diagnosis"]["findings"]]


def test_dark_images_are_forecast_and_fail_on_sets_the_exit_code(dark, capsys):
    assert check(*dark, "--json") == 0
    assert codes(capsys.readouterr().out) == ["CAE001"]
    assert check(*dark) == 0
    out = capsys.readouterr().out
    assert "before training: dark images may drive the output to black" in out
    assert "loss=bce" in out
    assert check(*dark, "--fail-on", "warning") == 1
    assert check(*dark, "--fail-on", "note") == 1
    assert check(*dark, "--fail-on", "error") == 0


@pytest.mark.parametrize(
    "word", ["loss=bce", "model.output_activation=linear", "regularization=batchnorm"]
)
def test_what_is_prescribed_helps(dark, word, capsys):
    assert check(*dark, word, "--fail-on", "warning", "--json") == 0
    assert codes(capsys.readouterr().out) == []


def test_images_that_are_not_dark_are_well(tmp_path, capsys):
    np.savez(tmp_path / "grey.npz", x_train=strokes(600, background=0.5))
    assert check("data=npz", "data.path=grey.npz", "--fail-on", "note") == 0
    assert "no problem found" in capsys.readouterr().out


def test_the_json_is_strict_and_whole(dark, capsys):
    assert check("--json", *dark) == 0

    def refuse(constant):
        raise ValueError(constant)

    found = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert found["schema"] == SCHEMA_VERSION
    diagnosis = found["diagnosis"]
    finding = diagnosis["findings"][0]
    assert finding["severity"] == "warning" and finding["message"] and finding["fixes"]
    assert finding["evidence"][0]["value"] > finding["evidence"][0]["threshold"] == -1
    before = {rule.code for rule in RULES if rule.when.name != "AFTER"}
    said = {*diagnosis["passed"], *(s["code"] for s in diagnosis["skipped"]), finding["code"]}
    assert said == before and diagnosis["disabled"] == []


def test_rules_can_be_disabled_and_moved_on_the_command_line(dark, capsys):
    assert check(*dark, "rules.CAE001.enabled=false", "--fail-on", "note", "--json") == 0
    assert json.loads(capsys.readouterr().out)["diagnosis"]["disabled"] == ["CAE001"]
    assert check(*dark, "rules.CAE001.threshold=0.5", "--fail-on", "note", "--json") == 0
    assert "CAE001" in json.loads(capsys.readouterr().out)["diagnosis"]["passed"]
    assert check(*dark, "rules.CAE01.enabled=false") == 2
    assert "rules.CAE01 is not a rule" in capsys.readouterr().err


def test_what_the_libraries_print_while_images_are_read_stays_off_the_screen(dark, monkeypatch, capfd):
    load = experiment.load_images

    def noisy(options):
        os.write(2, b"oneDNN custom operations are on")
        return load(options)

    monkeypatch.setattr(experiment, "load_images", noisy)
    assert check(*dark) == 0
    assert "oneDNN" not in capfd.readouterr().err


def test_a_mistake_is_reported_before_the_images_are_checked(tmp_path, capsys):
    assert check("data=npz", "data.path=nowhere.npz") == 2
    assert capsys.readouterr().out == ""
    np.savez(tmp_path / "few.npz", x_train=strokes(20))
    assert check("data=npz", "data.path=few.npz", "--json") == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "training.batch_size" in captured.err
    assert check("--fail-on", "anything") == 2


def test_nothing_is_left_behind_and_nothing_heavy_is_imported(dark, tmp_path):
    [modules] = loaded_after(["check", *map(str, dark)], folder=tmp_path)
    assert "cae_cli.commands.check" in modules
    assert not modules & {"tensorflow", "keras", "sklearn", "scipy"}
    assert [path.name for path in tmp_path.iterdir()] == ["dark.npz"]


@pytest.fixture
def short(monkeypatch):
    """A machine with 2 GB of free memory and no GPU."""
    monkeypatch.setattr(memory, "free", lambda: 2 * 10**9)
    monkeypatch.setattr(backend, "visible_gpus", list)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["model.kernel_size=1001"], "model.kernel_size=1001"),
        (["model.filters=[100000,100000]"], "model.filters=[100000, 100000]"),
        ([f"model.filters=[{','.join('8' * 60)}]"], "model.filters of 60 stages"),
        (["training.batch_size=1000000"], "training.batch_size=1000000"),
        (["model.convolutions=1000000"], "model.convolutions=1000000"),
        (["model.latent_channels=10000000"], "model.latent_channels=10000000"),
        (["model.attention_heads=1000000"], "model.attention_heads=1000000"),
        (["model=strided", "model.sampling_kernel=2000"], "model.sampling_kernel=2000"),
        (["data.size=512", "model.filters=[64,64]", "training.batch_size=32"], "data.size=512"),
        (["data=image_folder", "data.path=nowhere", "data.image_size=4096"], "data.image_size=4096"),
    ],
)
@pytest.mark.parametrize("command", ["check", "train"])
def test_what_does_not_fit_into_memory_is_refused_with_the_option(
    command, words, named, short, capsys, tmp_path
):
    assert cli.run([command, "data=glyphs", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("error: ") == err.count("hint: ") == 1
    assert f"error: training with {named} would need " in " ".join(err.split())
    assert "of memory, this machine has 2.0 GB free" in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_the_largest_batch_that_fits_is_named_and_accepted(short, capsys):
    assert check("data=glyphs", "training.batch_size=1000000") == 2
    batch = int(re.search(r"at most training.batch_size=(\d+)", capsys.readouterr().err)[1])
    config = compose.checked(["data=glyphs", f"training.batch_size={batch}"])[1]
    experiment.check_early(config)
    config = compose.checked(["data=glyphs", f"training.batch_size={batch + 1}"])[1]
    with pytest.raises(UserError, match=f"training.batch_size={batch + 1} would need"):
        experiment.check_early(config)


def test_images_whose_size_is_known_once_they_are_read_are_refused_too(tmp_path, short, capsys):
    np.savez(tmp_path / "wide.npz", x_train=np.tile(strokes(40), (1, 60, 60)))
    assert check("data=npz", "data.path=wide.npz", "model.filters=[512]") == 2
    assert "training with images of 960x960 would need" in capsys.readouterr().err


@pytest.mark.parametrize("unknown", ["memory", "gpu"])
def test_nothing_is_refused_where_the_memory_is_not_known(unknown, short, monkeypatch):
    if unknown == "gpu":
        monkeypatch.setattr(backend, "visible_gpus", lambda: ["0"])
    else:
        monkeypatch.setattr(memory, "free", lambda: None)
    experiment.check_early(compose.checked(["data=glyphs", "model.kernel_size=1001"])[1])
