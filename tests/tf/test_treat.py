"""A faulty run is treated for real, beside a random control; a signal keeps what there is."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cae_cli import cli
from cae_cli.runs.folder import Run
from cae_cli.runs.registry import find
from cae_cli.runs.sweep_folder import SweepFolder
from cae_cli.treatment.result import result
from tests.conftest import environment
from tests.tf.alike import differences

pytestmark = pytest.mark.tf

# A penalty under which all weights go to nothing.
WORDS = (
    "data=digits", "data.train=1024", "training.epochs=14", "training.snapshots=[0]",
    "optimizer.learning_rate=0.01", "model.activation=leaky_relu", "regularization=l2",
    "regularization.l2.strength=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    home = tmp_path_factory.mktemp("faulty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert cli.run(["train", *WORDS]) == 0
    return home


@pytest.fixture
def here(faulty, tmp_path, monkeypatch):
    shutil.copytree(faulty / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


@pytest.mark.pictures
@pytest.mark.soak
def test_a_faulty_run_is_fixed_and_the_experiment_repeats_the_fixed_run(here, capfd):
    run = find("last")
    assert "CAE206" in result(run).codes
    before = state(run.folder)
    assert cli.run(["treat", "last", "--max-fixes", "1", "--seeds", "1"]) == 0
    assert state(run.folder) == before
    out = capfd.readouterr().out
    folder = here / out.splitlines()[-1]
    told = json.loads((folder / "treatment.json").read_text())
    assert told["outcome"] == "fixed" and told["arms"]["treatment"]["first_fixed"], out
    assert "fixed by regularization.l2.strength=" in out
    assert len(told["arms"]["control"]["steps"]) == 1 and told["before"][0]["problems"] > 1
    assert (folder / "treatment.png").stat().st_size > 10_000
    fixed = Run(folder / "treatment_1_s0")
    assert result(fixed).healthy and SweepFolder(folder).read().status == "ok"

    words = ["-cd", str(folder), "experiment=fixed", "hydra.run.dir=again"]
    assert cli.run(["train", *words]) == 0
    again = Run(here / "again")
    assert again.setup()["config"] == fixed.setup()["config"]
    assert set(differences(fixed.folder, again.folder)) <= {
        "summary.txt",
        "report.html",
    }  # names the command


@pytest.mark.soak
def test_a_signal_ends_it_with_what_there_is(here):
    run = find("last")
    setup = json.loads(run.setup_file.shown.read_text())
    setup["config"]["training"]["epochs"] = 3000
    run.setup_file.shown.write_text(json.dumps(setup))
    process = subprocess.Popen(
        [sys.executable, "-m", "cae_cli", "treat", "last"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here, env=environment(),
        start_new_session=True,
    )  # fmt: skip
    for _ in range(2400):
        if process.poll() is not None or list((here / "runs" / "treat").rglob("metrics.csv")):
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err, err
    folder = here / out.strip().splitlines()[-1]
    told = json.loads((folder / "treatment.json").read_text())
    assert told["cut"] == "interrupted" and told["arms"]["treatment"]["steps"] == []
    assert "CAE206" in out and "interrupted; so far: nothing was tried" in out
    assert SweepFolder(folder).read().status == "interrupted"
    states = [Run(job).status().get("status") for job in folder.iterdir() if job.is_dir()]
    assert "interrupted" in states and "running" not in states
    assert (folder / "treatment.png").is_file()
