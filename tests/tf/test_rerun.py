"""A run once more: the same bits, or one change and nothing else; words for runs in other commands."""

import shutil

import pytest

from cae_cli import cli
from cae_cli.runs.folder import Run
from cae_cli.runs.registry import Registry, find, flat
from tests.tf.alike import differences
from tests.tf.conftest import DIGITS

pytestmark = pytest.mark.tf


@pytest.fixture
def here(trained_once, tmp_path, monkeypatch):
    """A folder with a run below runs/."""
    home, folder = tmp_path / "runs" / "train", trained_once("digits", *DIGITS)[1]
    shutil.copytree(folder, home / folder.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.soak  # the config alone is tested in `tests/test_rerun`
@pytest.mark.pictures
def test_a_run_once_more_gives_the_same_bits(here, capfd):
    old = find("last")
    assert cli.run(["rerun", "last"]) == 0
    new = find("last")
    assert new.folder != old.folder and new.folder.parent == old.folder.parent
    assert capfd.readouterr().out.splitlines()[-1] == str(new.folder)
    assert new.setup()["config"] == old.setup()["config"]
    # The words of the command have another order, and are a part of the text.
    assert set(differences(old.folder, new.folder)) <= {"summary.txt", "report.html"}
    assert cli.run(["compare", "1", "2", "--exit-code"]) == 0


@pytest.mark.soak
def test_a_change_is_the_only_difference_of_the_config(here, capfd):
    assert cli.run(["rerun", "1", "loss=mse", "seed=4", "--runs", "runs"]) == 0
    old, new = (find(word) for word in ("1", "last"))
    a, b = (flat(run.setup()["config"]) for run in (old, new))
    assert {k for k in a.keys() | b.keys() if a.get(k) != b.get(k)} == {
        "loss.name", "loss.delta", "seed",
    }  # fmt: skip
    assert b["loss.name"] == "mse" and b["seed"] == 4
    assert differences(old.folder, new.folder)
    alone = [w for w in DIGITS if not w.startswith(("loss", "seed"))]
    assert cli.run(["train", *alone, "loss=mse", "seed=4", "hydra.run.dir=alone"]) == 0
    assert set(differences(new.folder, here / "alone")) <= {"summary.txt", "report.html"}
    capfd.readouterr()
    assert cli.run(["compare", "1", "2", "--picture", "side.png"]) == 0
    assert "val/loss is not comparable: loss=huber" in capfd.readouterr().out
    assert (here / "side.png").read_bytes().startswith(b"\x89PNG")


def test_other_commands_accept_names_of_a_run(here, capfd):
    [entry] = Registry().entries
    for words in (["report", "last"], ["diagnose", entry.id, "rules.CAE303.enabled=false"],
                  ["resume", "1"]):  # fmt: skip
        assert cli.run(words) == 0
        assert capfd.readouterr().out.splitlines()[-1] == str(entry.folder)
    assert cli.run(["resume", entry.id[:3], "training.epochs=5"]) == 0
    assert Run(entry.folder).setup()["config"]["training"]["epochs"] == 5
    assert cli.run(["runs", "show", "last"]) == 0
    shown = capfd.readouterr().out
    assert "loss=huber" in shown and "regularization=[dropout,batchnorm]" in shown
