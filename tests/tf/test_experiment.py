"""Whole runs, as processes, on real images."""

import csv
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import SCHEMA_VERSION
from cae_cli.system import memory
from tests.conftest import environment

pytestmark = pytest.mark.tf

# A few seconds of training beside TensorFlow's start.
SMALL = ("data.train=256", "training.epochs=2")
DIGITS = ("data=digits", *SMALL, "model.filters=[8]")


def digest(folder: Path) -> dict[str, bytes]:
    """The bits of the kernels of a run."""
    run = Run(folder)
    arrays = run.read_arrays(run.arrays)
    return {name: array.tobytes() for name, array in arrays.items() if "kernel/" in name}


@pytest.fixture
def finished(trained_once):
    """One run that several tests look at: the standard output, the error output, and the folder."""
    done, folder = trained_once("finished", "model=l2", "loss=ssim", *SMALL, "tags=[a]", process=True)
    return done.out, done.err, folder


def test_a_run_writes_everything_it_promises(finished):
    _, _, folder = finished
    layers = ["encoder_1", "encoder_2", "decoder_1", "decoder_2", "output"]
    for name in (
        *("status.json", "run.json", "training.json", "metrics.csv", "arrays.npz", "train.log"),
        *("views.npz", "report.html"),
        *("summary.json", "summary.txt", "reconstructions.png", "curves.png", "filters_by_epoch.png"),
        *("checkpoints/best.keras", "checkpoints/last.keras", ".hydra/config.yaml"),
        *(f"{kind}/{layer}.png" for kind in ("filters", "maps") for layer in layers),
        *(f"snapshots/epoch_000{n}.npz" for n in (0, 1, 2)),
    ):
        assert (folder / name).is_file(), name
    assert Run(folder).status()["status"] == "ok"
    assert not [path for path in folder.rglob("*") if path.name.startswith(".") and path.is_file()]
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            picture.verify()


def test_a_run_records_what_was_run(finished):
    setup = Run(finished[2]).setup()
    assert setup["command"] == ["cae", "train", "model=l2", "loss=ssim", *SMALL, "tags=[a]"]
    assert setup["config"]["regularization"] == {"l2": {"strength": 0.001}}
    assert setup["config"]["loss"]["name"] == "ssim" and setup["config"]["seed"] == 0
    assert setup["data"]["train"] == 256 and len(setup["data"]["fingerprint"]) == 64
    assert setup["packages"]["tensorflow"] and setup["machine"]["cores"] == os.cpu_count()
    log = Run(finished[2]).log.shown.read_text()
    assert setup["data"]["notes"] and all(f"INFO {note}" in log for note in setup["data"]["notes"])


def test_the_summary_is_on_the_screen_and_in_the_folder(finished):
    out, _, folder = finished
    assert "summary diagnosis: " in out
    text = (folder / "summary.txt").read_text()
    for words in ("PSNR", "mean image"):
        assert words in out and words in text
    for words in ("encoder_1", "decoder_2", "Perturbation tests"):
        assert words in text
    assert "\x1b" not in out
    assert "summary diagnosis: " in text
    summary = json.loads((folder / "summary.json").read_text())
    quality = summary["metrics"]["quality"]
    assert summary["schema"] == SCHEMA_VERSION and 0 < quality["ssim"]["value"] < 1
    assert f"{quality['psnr']['value']:.2f}" in text


def test_metrics_have_a_line_for_every_epoch(finished):
    with (finished[2] / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["0", "1", "2"]
    assert float(lines[2]["val/loss"]) < float(lines[0]["val/loss"])
    assert float(lines[2]["train/penalty"]) > 0 and lines[0]["train/loss"] == ""


def test_the_screen_shows_no_noise_of_tensorflow(finished):
    _, err, folder = finished
    lines = err.splitlines()
    assert lines[0] == "reading images …" and "epoch 2/2" in err
    noise = ("oneDNN", "cuda", "E0000", "I0000", "WARNING", "Warning", "absl")
    assert not [line for line in lines if any(word in line for word in noise)]
    assert (folder / "train.log").stat().st_size > 0


def test_a_run_can_be_reported_again_without_tensorflow(finished):
    _, _, folder = finished
    before = (folder / "summary.json").read_bytes()
    (folder / "curves.png").unlink()
    code = (
        "import sys; sys.argv = ['cae', 'report', sys.argv[1]]\n"
        "from cae_cli.cli import main\n"
        "try: main()\n"
        "finally: print('TF', 'tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=environment()
    )
    assert "TF False" in done.stdout and "summary diagnosis" in done.stdout
    assert (folder / "curves.png").is_file()
    assert (folder / "summary.json").read_bytes() == before


def test_the_saved_network_gives_the_recorded_reconstructions(finished):
    import keras

    run = Run(finished[2])
    arrays = run.read_arrays(run.arrays)
    model = keras.models.load_model(run.last.shown, safe_mode=True)
    assert np.asarray(model(arrays["example_images"])) == pytest.approx(
        arrays["example_outputs"], abs=1e-5
    )


RANDOM = (*DIGITS, "regularization=[dropout,noise]", "augmentation=light")


@pytest.mark.soak  # so is a job of a sweep in `test_sweeps`, in a process of its own
def test_equal_seeds_give_equal_bits_in_any_process(cae, cae_process, tmp_path):
    first, again = (run("train", *RANDOM, "seed=1") for run in (cae_process, cae))
    assert first.code == again.code == 0
    assert digest(tmp_path / first.folder) == digest(tmp_path / again.folder)


@pytest.mark.pictures
@pytest.mark.soak  # the job of a sweep in `test_sweeps` is compared with a run, too
def test_equal_seeds_give_equal_bits_as_any_job(cae, tmp_path):
    alone, sweep = cae("train", *RANDOM, "seed=1"), cae("train", "-m", *RANDOM, "seed=0,1")
    assert alone.code == sweep.code == 0
    jobs = sorted(path for path in (tmp_path / sweep.folder).iterdir() if path.is_dir())
    assert digest(jobs[0]) != digest(jobs[1]) == digest(tmp_path / alone.folder)
    picture = (tmp_path / alone.folder / "reconstructions.png").read_bytes()
    assert picture == (jobs[1] / "reconstructions.png").read_bytes()


def test_an_option_that_one_job_does_not_have_stops_a_sweep_before_it_starts(cae, tmp_path):
    (tmp_path / "flat.npy").write_bytes(b"no array")
    done = cae("train", "-m", "data=digits,npy", "data.train=256", "seed=0,1", "training.epochs=1",
               "+data.path=flat.npy")  # fmt: skip
    assert done.code == 2  # digits have no path
    assert not (tmp_path / "runs").exists()


@pytest.mark.soak  # in `test_sweeps` jobs fail for several reasons
def test_a_failing_job_does_not_stop_the_others(cae, tmp_path):
    done = cae("train", "-m", "optimizer.learning_rate=1e12,1e-3", "optimizer=sgd",
               "model.output_activation=linear", *DIGITS)  # fmt: skip
    assert done.code == 1
    assert "2 jobs, 1 not finished" in done.out
    folder = tmp_path / done.folder
    first, second = (folder / f"optimizer.learning_rate={rate}" for rate in ("1000000000000.0", "0.001"))
    assert Run(first).status()["status"] == "failed" and Run(second).status()["status"] == "ok"
    assert Run(first).summary()["diagnosis"]["findings"][0]["code"] == "CAE201"


def test_a_diverged_run_is_diagnosed_fails_and_is_not_resumed(cae, tmp_path):
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "far.yaml").write_text(
        "defaults: [sgd, _self_]\nlearning_rate: 1e12\n"
    )
    done = cae("train", "-cd", "mine", "optimizer=far", "model.output_activation=linear", *DIGITS)
    assert done.code == 1
    assert "CAE201" in done.out and "optimizer.learning_rate=0.1" in done.out
    run = Run(tmp_path / done.folder)
    assert run.status()["status"] == "failed"
    assert re.search(r"diverged: \w+ not finite at step \d+; likely cause: ", run.status()["reason"])
    assert re.match(
        r"the training diverged: (loss|gradient|weights) not finite at step \d+; likely",
        run.status()["reason"],
    )
    assert run.training()["diverged_at"] == int(re.search(r"at step (\d+)", run.status()["reason"])[1])
    kernels = {k: v for k, v in run.read_arrays(run.arrays).items() if "kernel/" in k}
    assert kernels and all(np.isfinite(kernel).all() for kernel in kernels.values())
    left = run.training()["measured_epoch"]
    assert run.read_metrics()["val/mse"][left] == pytest.approx(
        run.read_arrays(run.arrays)["mse"].mean(), rel=1e-3
    )
    resumed = cae("resume", str(done.folder))
    assert resumed.code == 2
    assert "the training diverged, and would diverge again" in resumed.err
    # What the diagnosis prescribes is a command that runs, with the user's own configs too.
    line = next(line for line in done.out.splitlines() if line.strip().startswith("cae train"))
    assert cae(*shlex.split(line)[1:]).code == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [  # `test_kills` sends the others
        (signal.SIGHUP, 129),
        *(pytest.param(n, 128 + n, marks=pytest.mark.soak) for n in (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_a_second_process_is_refused_and_a_signal_finishes_the_folder(cae, tmp_path, number, code):
    process = subprocess.Popen(
        [sys.executable, "-m", "cae_cli", "train", *DIGITS, "training.epochs=3000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment(),
    )  # fmt: skip
    for _ in range(600):
        time.sleep(0.1)
        metrics = list(tmp_path.rglob("metrics.csv"))
        if metrics and len(metrics[0].read_text().splitlines()) >= 4:
            break
    second = cae("resume", str(metrics[0].parent))
    assert process.poll() is None
    assert second.code == 2 and "the run is in progress" in second.err
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err and "interrupted" in err
    run = Run(metrics[0].parent)
    assert run.status()["status"] == "interrupted"
    assert run.last.shown.is_file() and run.best.shown.is_file()
    assert len(run.read_metrics()["epoch"]) >= 3
    assert not list(run.folder.rglob(".*.keras"))


def test_a_full_disk_is_one_line_and_leaves_what_was_written(cae, tmp_path):
    # A limit on the size of files stands in for a full disk: writing fails the same way.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30000, hard))
    try:
        done = cae("train", *DIGITS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.code == 2, done.err
    assert "error: cannot write the run: file too large" in done.err
    assert "Traceback" not in done.err
    [status] = tmp_path.rglob("status.json")
    assert Run(status.parent).status()["status"] == "failed"


@pytest.mark.soak
def test_two_jobs_with_one_name_get_two_folders(cae, tmp_path):
    done = cae("train", "-m", *DIGITS, "seed=0,1", "hydra.sweep.subdir=same")
    assert done.code == 0 and "the options have changed since same" in done.err
    assert {f.name for f in (tmp_path / done.folder).iterdir() if f.is_dir()} == {"same", "same-2"}


def test_two_jobs_never_share_a_folder(cae):
    done = cae("train", "-m", *DIGITS, "seed=0,1", "hydra.sweep.subdir=same", "hydra/launcher=basic")
    assert done.code == 1 and "another run is in this folder already" in done.err


def test_a_network_too_large_for_memory_is_one_line(cae, tmp_path, monkeypatch):
    done = cae("train", "model.kernel_size=100000", *DIGITS)
    assert done.code == 2 and "training with model.kernel_size=100000 would need" in done.err
    monkeypatch.setattr(memory, "free", lambda: None)  # unknown, so TensorFlow finds out
    done = cae("train", "model.kernel_size=100000", *DIGITS)
    assert done.code == 1 and "Traceback" not in done.err
    assert done.err.splitlines()[-2].startswith("error: ")


def test_a_run_never_writes_over_another(cae, finished, tmp_path):
    shutil.copytree(finished[2], tmp_path / "here")
    before = digest(tmp_path / "here")
    done = cae("train", *DIGITS, "hydra.run.dir=here", "seed=1")
    assert done.code == 2 and "not empty" in done.err
    assert digest(tmp_path / "here") == before


def test_early_stopping_describes_the_best_epoch(cae, tmp_path):
    done = cae("train", *DIGITS, "training.epochs=40", "training.early_stopping=1",
               "optimizer=sgd", "optimizer.learning_rate=3")  # fmt: skip
    assert done.code == 0, done.err
    run = Run(tmp_path / done.folder)
    training, metrics = run.training(), run.read_metrics()
    assert training["stopped_early"] and len(metrics["epoch"]) < 41
    row = training["best_epoch"]
    assert run.summary()["metrics"]["quality"]["mse"]["value"] == pytest.approx(
        metrics["val/mse"][row], rel=1e-3
    )


@pytest.mark.soak
def test_the_collapse_of_the_plain_network_on_dark_digits_is_diagnosed(cae, shared, tmp_path):
    done = cae("train", "experiment=reference_1_baseline", "data=mnist", f"data.path={shared}/mnist.npz",
               "data.train=4096", "data.test=300", "training.epochs=1")  # fmt: skip
    assert done.code == 0, done.err
    assert "these filters are not meaningful: the output is the same for every image" in done.out
    assert "the output is black for every image: its MSE is" in " ".join(done.out.split())
    assert "loss=bce" in done.out
    first = Run(tmp_path / done.folder).summary()["diagnosis"]["findings"][0]
    assert first["code"] == "CAE301"
    fixed = cae("train", *Run(tmp_path / done.folder).setup()["command"][2:], "loss=bce")
    # What is left is that one epoch is short.
    assert "CAE301" not in fixed.out and "training ended too early" in fixed.out


@pytest.mark.soak
def test_a_network_that_sees_no_neighbours_is_worse_than_a_linear_one(cae, tmp_path):
    done = cae("train", "model.kernel_size=1", "model.filters=[32]", "training.epochs=3")
    assert done.code == 0, done.err
    summary = Run(tmp_path / done.folder).summary()
    assert "CAE303" in [finding["code"] for finding in summary["diagnosis"]["findings"]]
    assert (
        "model.kernel_size=3" in done.out and summary["metrics"]["perturbation"]["skill_score"] < -0.06
    )


def test_the_default_network_learns_the_default_data(trained_once):
    quality = Run(trained_once("hostile", "experiment=smoke")[1]).summary()["metrics"]["quality"]
    assert quality["explained_variance"] > 0.6
    assert quality["psnr"]["value"] > quality["mean_image_psnr"] + 3


@pytest.mark.soak
def test_photographs_are_split_by_file_and_learned(cae, shared, tmp_path):
    done = cae("train", "data=image_folder", f"data.path={shared}/photos", "data.patches=32",
               "data.train=1024", "training.epochs=2", "loss=ssim")  # fmt: skip
    assert done.code == 0, done.err
    run = Run(tmp_path / done.folder)
    assert run.summary()["metrics"]["quality"]["explained_variance"] > 0.5
    assert any("of 14 groups" in note for note in run.setup()["data"]["notes"])
