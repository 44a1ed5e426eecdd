"""Going on with a run: exactly, only where it makes sense, and never two processes at once."""

import os
import shutil
import signal

import numpy as np
import pytest

from cae_cli import cli
from cae_cli.errors import Interrupted
from cae_cli.runs.folder import Run
from cae_cli.training.history import Checkpoint
from tests.tf.alike import differences
from tests.tf.conftest import DIGITS

pytestmark = pytest.mark.tf


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(folder, *words):
    return cli.run(["train", *DIGITS, f"hydra.run.dir={folder}", *words])


def interrupted_in(monkeypatch, epoch):
    """A training that is interrupted as soon as an epoch has ended."""
    original = Checkpoint.arrays

    def arrays(self):
        if self.epochs[-1].epoch == epoch:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    monkeypatch.setattr(Checkpoint, "arrays", arrays)


@pytest.fixture
def undisturbed(trained_once):
    """A run of four epochs that several tests compare with; it is not to be changed."""
    return trained_once("digits", *DIGITS)[1]


@pytest.mark.pictures
def test_a_longer_training_is_the_one_that_was_planned_so(here, undisturbed, capfd):
    assert train("run", "training.epochs=2") == 0
    assert cli.run(["resume", "run", "training.epochs=4"]) == 0
    assert "resuming after epoch 2" in capfd.readouterr().err
    assert set(differences(undisturbed, here / "run")) <= {
        "summary.txt",
        "report.html",
    }  # names the command
    assert Run(here / "run").setup()["command"][-1] == "training.epochs=4"
    assert Run(here / "run").setup()["config"] == Run(undisturbed).setup()["config"]


@pytest.mark.pictures
def test_a_signal_leaves_no_part_of_a_file_and_a_damaged_checkpoint_costs_an_epoch(
    here, undisturbed, monkeypatch, capfd
):
    with monkeypatch.context() as patch:
        interrupted_in(patch, 3)
        with pytest.raises(Interrupted):
            train("run")
    assert not [p for p in (here / "run").rglob("*") if p.name.startswith(".unfinished")]
    status = Run(here / "run").status()
    assert status["status"] == "interrupted" and "signal 15" in status["reason"]
    states = sorted((here / "run" / "checkpoints").glob("state_*"))
    assert [s.name for s in states] == ["state_000001.npz", "state_000002.npz"]
    states[-1].write_bytes(states[-1].read_bytes()[:-1000])
    assert cli.run(["resume", "run"]) == 0
    assert "resuming after epoch 1" in capfd.readouterr().err
    assert "state_000002.npz cannot be read" in (here / "run" / "train.log").read_text()
    assert set(differences(undisturbed, here / "run")) <= {"report.html"}  # names the folder


@pytest.mark.soak
@pytest.mark.pictures
def test_a_run_without_a_checkpoint_starts_again(here, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted_in(patch, 1)
        with pytest.raises(Interrupted):
            train("run")
    assert not list((here / "run" / "checkpoints").glob("state_*"))
    assert cli.run(["resume", "run"]) == 0
    assert set(differences(undisturbed, here / "run")) <= {"report.html"}  # names the folder


def test_a_finished_run_is_shown_and_not_trained(here, undisturbed, capsys):
    shutil.copytree(undisturbed, "run")
    before = Run(here / "run").status()
    assert cli.run(["resume", "run"]) == 0
    shown = capsys.readouterr()
    assert "has already finished" in shown.err and "summary diagnosis" in shown.out
    assert Run(here / "run").status() == before


@pytest.mark.soak
def test_steps_decide_the_length_whatever_the_epochs_say(here, undisturbed, monkeypatch, capsys):
    # 6 steps in an epoch: 9 steps end within the second one, 24 are the four epochs of the other run.
    with monkeypatch.context() as patch:
        interrupted_in(patch, 1)
        with pytest.raises(Interrupted):
            train("run", "training.steps=9", "training.epochs=1")
    assert cli.run(["resume", "run"]) == 0
    run = Run(here / "run")
    assert run.read_metrics()["step"].tolist() == [0, 6, 9]
    assert "training.steps=9 decides the length: 2 epochs of 6 steps" in capsys.readouterr().err
    assert cli.run(["resume", "run", "training.epochs=4"]) == 2
    assert "training.epochs=4 changes nothing" in capsys.readouterr().err
    assert cli.run(["resume", "run", "training.steps=8"]) == 2
    assert "training.steps must be at least 9" in capsys.readouterr().err
    assert cli.run(["resume", "run", "training.steps=24"]) == 0
    other = Run(undisturbed)
    np.testing.assert_equal(run.read_metrics(), other.read_metrics())
    kernels, others = (r.read_arrays(r.arrays) for r in (run, other))
    assert all(np.array_equal(kernels[k], others[k]) for k in others if k.startswith("kernel/"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["loss=mae"], "loss cannot change when a run is resumed"),
        (["optimizer.learning_rate=1"], "optimizer.learning_rate cannot change"),
        (
            ["training.epochs=3"],
            "training.epochs must be at least 4, the number of epochs already trained",
        ),
        (["training.epochs=4,5"], "training.epochs needs one value"),
        (["training.epochs=many"], "training.epochs must be a whole number"),
        (["training.early_stopping=3"], "training.early_stopping cannot be switched on or off"),
        (["training.epochz=9"], "training.epochz cannot change"),
        (["+x.y=1"], "x.y cannot change"),
        (["~training.epochs"], "training.epochs needs one value"),
        (["rules.CAE999.enabled=false"], "rules.CAE999 is not a rule"),
    ],
)
def test_only_the_length_of_a_run_can_change(here, undisturbed, capsys, words, complaint):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")}
    assert cli.run(["resume", str(undisturbed), *words]) == 2
    assert f"error: {complaint}" in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*")}


def test_other_images_are_refused(here, monkeypatch, capsys):
    x = np.random.default_rng(0).integers(0, 256, (64, 8, 8), dtype=np.uint8)
    np.save("x.npy", x)
    words = ("data=npy", "data.path=x.npy", "model.filters=[8]", "training.epochs=1",
             "hydra.run.dir=run")  # fmt: skip
    assert cli.run(["train", *words]) == 0
    np.save("x.npy", x[::-1])
    assert cli.run(["resume", "run", "training.epochs=2"]) == 2
    error = capsys.readouterr().err
    assert "the images have changed since the run started" in error and "--> x.npy" in error
    np.save("x.npy", x)
    run = Run(here / "run")
    setup = run.setup()
    run.write_setup({key: value for key, value in setup.items() if key != "data"})
    assert cli.run(["resume", "run", "training.epochs=2"]) == 2
    assert "does not say on which images" in capsys.readouterr().err
    run.write_setup(setup)
    assert cli.run(["resume", "run", "training.epochs=2"]) == 0


@pytest.mark.parametrize(
    "change",
    [shutil.rmtree, pytest.param(lambda run: shutil.move(run, "moved"), marks=pytest.mark.soak)],
    ids=["removed", "moved"],
)
def test_a_run_that_is_moved_or_removed_while_it_trains_says_so(here, monkeypatch, capsys, change):
    monkeypatch.setattr(Run, "add_metrics", lambda self, rows: change("run"))
    assert train("run", "training.epochs=4") == 2
    assert "the folder of the run was moved or removed while it was trained\n" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(here)
    if (here / "moved").exists():
        assert cli.run(["resume", "moved"]) == 0


@pytest.mark.soak
def test_a_cosine_schedule_that_was_planned_shorter_is_reported(here, capsys):
    assert train("run", "training.epochs=2", "schedule=cosine") == 0
    assert cli.run(["resume", "run", "training.epochs=4"]) == 0
    error = capsys.readouterr().err
    assert "the learning rate of the first 2 epochs was scheduled for 12 steps" in error


def test_what_was_not_trained_here_is_refused(here, capsys):
    Run(here).write_setup({"command": [], "config": {}})
    assert cli.run(["resume", "."]) == 2
    assert "cae did not train this model" in capsys.readouterr().err
    assert cli.run(["resume", "nowhere"]) == 2
    assert "no such folder" in capsys.readouterr().err
