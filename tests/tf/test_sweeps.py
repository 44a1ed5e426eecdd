"""Sweeps as processes: what a crash, a signal and a second call come to."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from cae_cli.runs.folder import Run
from cae_cli.runs.sweep_folder import SweepFolder
from cae_cli.sweep.fingerprint import FILE
from cae_cli.sweep.job import value_of
from tests.conftest import ROOT, called, environment
from tests.tf.alike import differences

pytestmark = pytest.mark.tf

SMALL = ("data=digits", "data.train=256", "model.filters=[8]", "training.epochs=4",
         "regularization=[dropout,noise,batchnorm]", "augmentation=light")  # fmt: skip
LONG = ("data=digits", "data.train=1024", "model.filters=[8]", "training.epochs=3000",
        "training.snapshots=[0]")  # fmt: skip


class Sweep:
    """``cae train -m`` as a process, and all processes that it starts."""

    def __init__(self, cwd: Path, *words: str, **env: str) -> None:
        self.mark = f"CAE_TEST_SWEEP={uuid.uuid4()}"
        name, _, value = self.mark.partition("=")
        script = cwd / "bin" / "cae"  # as pip makes it
        script.parent.mkdir(exist_ok=True)
        script.write_text("from cae_cli.cli import main\nif __name__ == '__main__':\n    main()\n")
        self.process = subprocess.Popen(
            [sys.executable, script, "train", "-m", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=environment(**{name: value}, **env),
            start_new_session=True,
        )

    def alive(self) -> list[int]:
        """All processes that have inherited the environment of this one."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self.mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def gone(self, seconds: float = 10) -> bool:
        """Whether all of them end in some seconds."""
        for _ in range(round(seconds / 0.1)):
            if not self.alive():
                return True
            time.sleep(0.1)
        return False

    def end(self) -> tuple[int, str, str]:
        """Waits for the end: exit code, standard output, standard error."""
        try:
            out, err = self.process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            for pid in self.alive():
                os.kill(pid, signal.SIGKILL)
            raise
        return self.process.returncode, out, err


def swept(cwd: Path, *words: str, **env: str) -> tuple[int, str, str]:
    return Sweep(cwd, *words, **env).end()


def wait_for(condition, seconds: float = 120) -> None:
    for _ in range(round(seconds / 0.05)):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def trained(cwd: Path, epochs: int) -> list[Path]:
    """Jobs that have trained so many epochs."""
    found = []
    for path in cwd.rglob("metrics.csv"):
        if len(path.read_text().splitlines()) >= epochs + 2:
            found.append(path.parent)
    return sorted(found)


def status(folder: Path) -> tuple[str, str]:
    content = Run(folder).status()
    return content["status"], content["reason"] or ""


@pytest.mark.soak
def test_a_crash_costs_one_job_and_failed_jobs_run_again(tmp_path):
    # A network that no memory holds, a rate at which the loss is not finite, a job that is killed
    # from outside, and behind all of them one that is well.
    pairs = (
        "{model.kernel_size:100000,optimizer.learning_rate:0.1,training.epochs:4},"
        "{model.kernel_size:3,optimizer.learning_rate:1e12,training.epochs:4},"
        "{model.kernel_size:3,optimizer.learning_rate:0.1,training.epochs:3000},"
        "{model.kernel_size:3,optimizer.learning_rate:0.1,training.epochs:4}"
    )
    words = ("data=digits", "data.train=256", "model.filters=[8]", "optimizer=sgd",
             "model.output_activation=linear", "training.snapshots=[0]", "hydra.sweep.dir=sweep",
             f"sweep.pairs=[{pairs}]")  # fmt: skip
    # Where free memory is unknown, no check refuses the large network, and TensorFlow finds out.
    unknown = "from cae_cli.system import memory\nmemory.free = lambda: None\n"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(unknown)
    env = {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    sweep = Sweep(tmp_path, *words, **env)
    wait_for(lambda: trained(tmp_path, 6))
    [victim] = trained(tmp_path, 6)
    os.kill(Run(victim).status()["pid"], signal.SIGKILL)
    code, out, err = sweep.end()
    assert code == 1 and sweep.gone() and "Traceback" not in err
    place = SweepFolder(tmp_path / "sweep")
    large, fast, killed, well = (place.job(job).shown for job in place.read().jobs)
    assert killed == victim and place.read().status == "failed"
    assert status(well) == ("ok", "")
    assert status(killed) == ("failed", "killed by SIGKILL (out of memory?)")
    assert status(fast)[0] == "failed" and "not finite" in status(fast)[1]
    assert Run(fast).summary()["diagnosis"]["findings"][0]["code"] == "CAE201"
    assert status(large)[0] == "failed" and "Traceback" in Run(large).log.shown.read_text()
    for folder in (large, fast, killed):
        assert f"{folder.name}: failed: " in err
        assert str(value_of(Run(folder), "val/psnr")) == "nan"
    assert "epoch" not in err.replace("epochs", "") and "epoch 4/4" in (well / "job.log").read_text()
    assert "4 jobs, 3 not finished" in out and out.strip().splitlines()[-1] == "sweep"

    told = called(tmp_path, "sweep", "status", "sweep")
    assert told.code == 1 and "4 jobs: 1 ok, 3 failed, not in progress" in told.out
    assert f"{killed.name}: failed: killed by SIGKILL (out of memory?)" in told.out

    # The same command again, without the job that takes long.
    before = (well / "metrics.csv").stat().st_mtime_ns
    code, _, err = swept(tmp_path, *words, "sweep.exclude=[{training.epochs:3000}]", **env)
    assert code == 1 and "1 job of 3 already finished" in err
    assert (well / "metrics.csv").stat().st_mtime_ns == before
    for folder, again in ((large, True), (fast, True), (killed, False)):
        assert status(folder)[0] == "failed"
        assert folder.with_name(f"{folder.name}.failed-1").is_dir() == again
    assert [place.job(job).shown for job in place.read().jobs] == [large, fast, well, killed]


@pytest.mark.soak  # `test_launcher` ends jobs by signals, `test_experiment` a run
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_ends_all_jobs_and_leaves_no_process(tmp_path, number, code):
    sweep = Sweep(tmp_path, *LONG, "seed=range(0,5)", "hydra.launcher.n_jobs=2")
    wait_for(lambda: len(trained(tmp_path, 3)) == 2)
    began = time.monotonic()
    if number == signal.SIGTERM:
        sweep.process.send_signal(number)
    else:  # as a terminal does: to all of them
        os.killpg(sweep.process.pid, number)
    ended, out, err = sweep.end()
    assert ended == code and "Traceback" not in err and "interrupted" in err
    assert time.monotonic() - began < 60 and sweep.gone()
    [folder] = tmp_path.glob("runs/train/*")
    assert SweepFolder(folder).read().status == "interrupted"
    jobs = [SweepFolder(folder).job(job) for job in SweepFolder(folder).read().jobs]
    assert len(jobs) == 5
    for job in jobs[:2]:
        passed = signal.SIGTERM if number == signal.SIGHUP else number
        assert status(job) == ("interrupted", f"interrupted by signal {passed:d}")
        assert Run(job).can_go_on() and not list(job.shown.rglob(".unfinished-*"))
    assert "5 jobs" in out and "Run the same command to resume" in err


@pytest.mark.pictures
@pytest.mark.parametrize("longer", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_killed_sweep_resumes_bit_identically_and_a_longer_one_skips_finished_jobs(tmp_path, longer):
    words = (*SMALL, "loss=mae", "seed=1,2", "hydra.launcher.n_jobs=2")
    here = tmp_path / "here"
    here.mkdir()
    sweep = Sweep(here, *words)
    wait_for(lambda: trained(here, 2))
    sweep.process.kill()
    sweep.process.communicate()
    assert sweep.gone()
    [folder] = here.glob("runs/train/*")
    before = {job.folder: status(folder / job.folder)[0] for job in SweepFolder(folder).read().jobs
              if (folder / job.folder / "status.json").exists()}  # fmt: skip
    assert "interrupted" in before.values() and "running" not in before.values()
    code, out, err = swept(here, *words)
    assert code == 0, err
    assert here / out.strip().splitlines()[-1] == folder and f"{folder.name}; hydra.sweep.dir=" in err
    names = [job.folder for job in SweepFolder(folder).read().jobs]
    assert names == ["seed=1", "seed=2"]
    for name in names if longer else names[1:]:  # as a run by itself, whatever cores it had
        done = called(tmp_path, "train", *SMALL, "loss=mae", name, f"hydra.run.dir='{name}'")
        assert done.code == 0, done.err
        assert set(differences(tmp_path / name, folder / name)) <= {
            "summary.txt",
            "report.html",
        }  # names the command
    other = folder / "seed=1"
    metrics = Run(other).read_metrics()
    assert value_of(Run(other), "val/psnr") == metrics["val/psnr"][Run(other).training()["best_epoch"]]

    if not longer:
        return
    stamps = {path: path.stat().st_mtime_ns for name in names for path in (folder / name).rglob("*")}
    code, out, err = swept(here, *SMALL, "loss=mae", "seed=range(1,4)")
    assert code == 0 and "2 jobs of 3 already finished" in err, err
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    jobs = [row for row in table(folder) if row["row"] == "job"]
    assert len(SweepFolder(folder).read().jobs) == len(jobs) == 3
    done = called(here, "train", "-m", *SMALL, "loss=mae", "seed=range(1,4)", "hydra.launcher.n_jobs=2")
    assert done.code == 0 and "3 jobs of 3 already finished" in done.err and "3 jobs" in done.out
    assert [path.name for path in here.glob("runs/train/*")] == [folder.name]


def table(folder: Path) -> list[dict[str, str]]:
    """The leaderboard without the time that jobs took."""
    with SweepFolder(folder).table.shown.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.soak  # `test_crowd` has a sweep among runs
def test_two_sweeps_of_the_same_second_do_not_disturb_each_other(tmp_path):
    words = ("data=digits", "data.train=128", "model.filters=[8]", "training.epochs=1", "seed=0,1")
    both = [Sweep(tmp_path, *words) for _ in range(2)]
    ends = [sweep.end() for sweep in both]
    assert [code for code, _, _ in ends] == [0, 0], ends
    first, second = (tmp_path / out.strip().splitlines()[-1] for _, out, _ in ends)
    assert first != second
    for name in ("seed=0", "seed=1"):
        assert status(first / name)[0] == status(second / name)[0] == "ok"
        assert not differences(first / name, second / name)


def test_a_job_that_takes_too_long_is_ended_and_no_module_of_the_current_folder_is_run(tmp_path):
    for module in ("keras", "multiprocessing", "matplotlib", "cae_cli", "hydra_plugins"):
        (tmp_path / f"{module}.py").write_text(f"open('canary_{module}', 'w').close()\n")
    code, _, err = swept(tmp_path, *LONG, "seed=0", "hydra.launcher.timeout=4", "hydra.sweep.dir=sweep")
    assert code == 1 and "it exceeded hydra.launcher.timeout=4 s" in err
    job = tmp_path / "sweep" / "job"
    assert status(job) == ("interrupted", "it exceeded hydra.launcher.timeout=4 s")
    assert json.loads((job / FILE).read_text())["config"]
    assert not list(tmp_path.glob("canary*"))
