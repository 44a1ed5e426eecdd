"""The parts of sweeps that need no process: which jobs there are, where they go, where they run."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from cae_cli import cli
from cae_cli.config import compose
from cae_cli.config.compose import checked
from cae_cli.errors import Interrupted, UserError
from cae_cli.runs.folder import Run
from cae_cli.sweep import fingerprint, grid, pool, slots
from cae_cli.sweep.fingerprint import Fingerprint, JobFolder, claim_folder, trained_by
from cae_cli.sweep.job import job_folder
from cae_cli.sweep.pool import PreparedJob
from cae_cli.sweep.session import identity
from cae_cli.system import signals
from cae_cli.system.files import at_work
from cae_cli.system.guarded import GuardedPath
from cae_cli.training import backend
from tests.conftest import environment

# -- which jobs there are --------------------------------------------------------------------------


def jobs(*words):
    others, own, _ = grid.taken_out(words)
    found = compose.jobs(others)
    own.check(others, found)
    return [set(job) for job in own.jobs(found)]


def test_pairs_belong_together_and_combine_with_other_keys():
    found = jobs(
        "sweep.pairs=[{model:baseline,loss:mse},{model:l2,loss:ssim}]", "seed=0,1", "data=digits"
    )
    assert len(found) == 4
    assert {"model=l2", "loss=ssim", "seed=1", "data=digits"} in found
    assert not [job for job in found if {"model=l2", "loss=mse"} <= job]


def test_values_of_pairs_may_be_lists_numbers_and_texts():
    [job] = jobs("sweep.pairs=[{regularization:[l2,dropout],optimizer.learning_rate:1e-3,tags:['a b']}]")
    _, config = checked(sorted(job))
    assert set(config.regularization) == {"l2", "dropout"} and config.tags == ["a b"]
    assert config.optimizer.learning_rate == 0.001


def test_combinations_can_be_left_out():
    found = jobs("model=baseline,l2", "loss=mse,ssim", "seed=0,1", "sweep.exclude=[{model:l2,loss:mse}]")
    assert len(found) == 6 and not [job for job in found if {"model=l2", "loss=mse"} <= job]
    found = jobs("optimizer.learning_rate=0.1,1e-3", "seed=0,1",
                 "sweep.exclude=[{optimizer.learning_rate:0.001,seed:1},{seed:0}]")  # fmt: skip
    assert found == [{"optimizer.learning_rate=0.1", "seed=1"}]


@pytest.mark.parametrize(
    ("words", "complaint", "hint"),
    [
        (["sweep.pairs=model"], "sweep.pairs must be a list of groups", "sweep.pairs=[{model:"),
        (["sweep.pairs=[model=l2 loss=mse]"], "sweep.pairs must be a list of groups", "colon"),
        (["sweep.pairs=[{model:l2},{loss:mse}]"], "all pairs must have the same keys", "model:baseline"),
        (["model=l2", "sweep.pairs=[{model:l2}]"], "model is given twice: in sweep.pairs", ""),
        (["seed=0,1", "sweep.exclude=[{sead:1}]"], "no job sets sead", "did you mean seed?"),
        (["loss=mse,mae", "sweep.exclude=[{loss:msee}]"], "no job has loss=msee", "did you mean mse?"),
        (["seed=0", "sweep.exclude=[{seed:0}]"], "excludes every job", ""),
        (["hydra/sweeper=optuna", "sweep.pairs=[{seed:0}]"], "need the default sweeper", "leave out"),
        (
            ["seed=0,1", "sweep.exclude=[]", "sweep.pairs=a,b"],
            "sweep.pairs must be a list of groups",
            "",
        ),
    ],
)
def test_what_cannot_be_chosen_is_an_error_with_the_nearest_name(words, complaint, hint):
    with pytest.raises(UserError) as caught:
        jobs(*words)
    assert complaint in caught.value.what and hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("words", "complaint", "hint"),
    [
        (["-m", "sweep.pairs=[{model:baselin,seed:0}]"], "model has no option 'baselin'", "baseline"),
        (["-m", "sweep.pairs=[{optimizer.learning_rat:1}]"], "optimizer.learning_rat", "learning_rate"),
        (["sweep.pairs=[{seed:0}]"], "sweep.pairs needs a sweep", "-m"),
        (["-m", "seed=0,1", "hydra.launcher.n_jobs=0"], "hydra.launcher.n_jobs must be at least 1", ""),
        (["-m", "seed=0,1", "hydra.launcher.timeout=0"], "hydra.launcher.timeout must be greater", ""),
        (["-m", "seed=0,1", "hydra.sweep.subdir=a/b"], "hydra.sweep.subdir must be the name", ""),
        (["-m", "optimized_metric=val/psn"], "optimized_metric must be one of val/psnr", ""),
        (["-m", "hydra/launcher=joblib"], "hydra/launcher has no option 'joblib'", "cae-cli[joblib]'"),
        (["-m", "hydra/launcher=ray"], "has no option 'ray'", "pip install 'cae-cli[ray]'"),
        (["-m", "hydra/sweeper=optuna"], "has no option 'optuna'", "pip install 'cae-cli[optuna]'"),
    ],
)
def test_a_sweep_is_checked_before_its_first_job(tmp_path, monkeypatch, capsys, words, complaint, hint):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["train", *words]) == 2
    error = capsys.readouterr().err
    assert complaint in error and hint in error and "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_the_first_job_of_pairs_can_be_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["train", "-m", "--cfg", "job", "sweep.pairs=[{loss:mae,seed:7}]"]) == 0
    assert "name: mae" in capsys.readouterr().out


def test_the_sweeper_for_pairs_is_made_by_hydra_after_it_has_run_its_plugins_again():
    code = (
        "import cae_cli.config.hydra_internals\n"
        "from hydra.core.plugins import Plugins\n"
        "found = Plugins.instance().class_name_to_class\n"
        "made = found['hydra_plugins.cae.grid_sweeper.GridSweeper'](None, None, [{'seed': 1}])\n"
        "print(made.grid.keys)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "['seed']\n", ran.stderr


# -- the same sweep, the same job ------------------------------------------------------------------


def sweep(*words):
    return ["cae", "train", "-m", *words]


def test_the_same_sweep_has_the_same_fixed_words_and_the_same_swept_keys():
    one = identity(sweep("data=digits", "seed=0,1", "loss=mse,mae"))
    assert one == identity(sweep("loss=mse,mae,ssim", "seed=range(0,9)", "data=digits"))
    for same in ("hydra.launcher.n_jobs=1", "optimized_metric=val/psnr", "hydra.sweep.dir=x"):
        assert one == identity(sweep("data=digits", "seed=0,1", "loss=mse,mae", same))
    for others in (
        ("data=digits", "seed=0,1"),
        ("data=digits", "seed=0,1", "loss=mse"),
        ("data=digits", "seed=0,1", "loss=mse,mae", "training.epochs=3"),
        ("-cd", "mine", "data=digits", "seed=0,1", "loss=mse,mae"),
    ):
        assert one != identity(sweep(*others))


def test_a_folder_is_named_by_what_was_swept_and_never_shared_by_two():
    assert job_folder("loss=mse,seed=0") == "loss=mse,seed=0"
    assert job_folder("") == "job"
    names = [job_folder(f"tags=[a{end}]") for end in ("/", "-", " ", "]")]
    assert len(set(names)) == 4 and not [n for n in names if "/" in n or n.startswith(".")]
    longer = [job_folder("x" * 80 + end) for end in "ab"]
    assert len(set(longer)) == 2 and max(map(len, longer)) < 70


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """The fingerprint of a job whose images are in a file."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((64, 8, 8), np.uint8))
    fingerprint._signature.cache_clear()

    def of(*words):
        fingerprint._signature.cache_clear()
        return Fingerprint.of(checked(["data=npy", "data.path=x.npy", *words])[1])

    return of


def finished(run, status="ok", reason=None):
    run.set_status("running")
    run.set_status(status, reason)


def test_a_finished_job_stays_and_one_that_differs_gets_a_new_folder(tmp_path, mark):
    first = claim_folder(GuardedPath(tmp_path) / "job", mark())
    assert not first.finished and first.note is None
    finished(first.run)
    assert claim_folder(GuardedPath(tmp_path) / "job", mark()).finished
    assert claim_folder(GuardedPath(tmp_path) / "job", mark("tracker=mlflow")).finished
    assert claim_folder(
        tmp_path / "job", mark("optimized_metric=val/psnr")
    ).finished  # changes no result
    second = claim_folder(GuardedPath(tmp_path) / "job", mark("seed=3"))
    assert second.run.folder.name == "job-2" and not second.finished
    assert second.note == "the options have changed since job"
    finished(second.run)
    assert claim_folder(GuardedPath(tmp_path) / "job", mark("seed=3")).run.folder.name == "job-2"
    assert claim_folder(GuardedPath(tmp_path) / "job", mark()).run.folder.name == "job"
    os.utime("x.npy", ns=(1, 1))
    third = claim_folder(GuardedPath(tmp_path) / "job", mark())
    assert third.run.folder.name == "job-3" and "the data files have changed" in third.note
    code = claim_folder(GuardedPath(tmp_path) / "job", replace(mark(), code="other"))
    assert code.run.folder.name == "job-4" and code.note == "the code has changed since job-3"


@pytest.mark.parametrize("left", [(), (".unfinished-1.json", ".unfinished-reserve")])
def test_a_folder_that_a_kill_left_empty_is_taken_over(tmp_path, mark, left):
    job = GuardedPath(tmp_path) / "job"
    job.make()
    for name in left:
        (tmp_path / "job" / name).touch()
    with at_work(job):  # somebody is about to write
        assert claim_folder(job, mark()).run.folder.name == "job-2"
    claimed = claim_folder(job, mark("seed=3"))
    assert claimed.run.folder.name == "job" and claimed.note is None
    assert claim_folder(job, mark("seed=3")).run.folder.name == "job"


def test_a_folder_with_anything_else_is_not_taken_over(tmp_path, mark):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "notes.txt").touch()
    assert claim_folder(GuardedPath(tmp_path) / "job", mark()).run.folder.name == "job-2"


def test_what_failed_is_set_aside_and_what_was_cut_short_is_left(tmp_path, mark):
    run = claim_folder(GuardedPath(tmp_path) / "job", mark()).run
    run.write_setup({"config": compose_config(mark), "command": []})
    finished(run, "failed", "it was so")
    again = claim_folder(GuardedPath(tmp_path) / "job", mark())
    assert again.run.folder == run.folder and not again.run.status()
    assert Run(tmp_path / "job.failed-1").status()["reason"] == "it was so"
    again.run.write_setup({"config": compose_config(mark), "command": []})
    finished(again.run, "interrupted", "by a signal")
    kept = claim_folder(GuardedPath(tmp_path) / "job", mark())
    assert kept.run.status()["status"] == "interrupted" and kept.run.is_set_up()
    finished(kept.run, "failed", "once more")
    claim_folder(GuardedPath(tmp_path) / "job", mark())
    assert Run(tmp_path / "job.failed-2").status()["reason"] == "once more"


def compose_config(_):
    from cae_cli.config.schema import plain

    return plain(checked(["data=npy", "data.path=x.npy"])[1])


def test_a_job_that_was_trained_for_longer_by_hand_is_another_one(tmp_path, mark):
    run = claim_folder(GuardedPath(tmp_path) / "job", mark()).run
    longer = compose_config(mark)
    longer["training"]["epochs"] += 1
    run.write_setup({"config": longer, "command": []})
    finished(run)
    assert claim_folder(GuardedPath(tmp_path) / "job", mark()).run.folder.name == "job-2"
    assert claim_folder(
        tmp_path / "job", mark(f"training.epochs={longer['training']['epochs']}")
    ).finished


def test_a_folder_of_something_else_is_left_alone(tmp_path, mark):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "mine.txt").write_text("mine")
    found = claim_folder(GuardedPath(tmp_path) / "job", mark())
    assert found.run.folder.name == "job-2" and "something else is in job" in found.note
    assert (tmp_path / "job" / "mine.txt").read_text() == "mine"


def test_files_of_a_folder_are_known_by_name_size_and_time(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "1.png").write_bytes(b"one")
    (tmp_path / "images" / "loop").symlink_to(tmp_path / "images")
    data = checked(["data=image_folder", f"data.path={tmp_path}/images"])[1].data
    seen = [data.signature()]
    (tmp_path / "images" / "a" / "2.png").write_bytes(b"two")
    seen.append(data.signature())
    (tmp_path / "images" / "a" / "2.png").rename(tmp_path / "images" / "3.png")
    seen.append(data.signature())
    os.utime(tmp_path / "images" / "3.png", ns=(1, 1))
    seen.append(data.signature())
    assert len(set(seen)) == 4 and data.signature() == seen[-1]
    assert checked(["data=digits"])[1].data.signature() == ""


def test_files_that_a_list_names_and_those_beside_a_file_are_known_too(tmp_path):
    def signatures(data, *files):
        """Of the options, before and after each file is there."""
        seen = [data.signature()]
        for name in files:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"one")
            seen.append(data.signature())
            assert data.signature() == seen[-1]
        return len(set(seen))

    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "some.txt").write_text("../photos/1.png\n\n../photos/2.png\n\0\n")
    words = [f"data.path={tmp_path}/lists/some.txt", f"data.target={tmp_path}/lists/some.txt"]
    for data in (["data=image_folder", words[0]], ["data=pairs", *words]):
        assert signatures(checked(data)[1].data, "photos/1.png", "photos/2.png", "photos/3.png") == 3
        shutil.rmtree(tmp_path / "photos")
    (tmp_path / "lists" / "other.txt").write_bytes(b"\xff")
    no_list = checked(["data=image_folder", f"data.path={tmp_path}/lists/other.txt"])[1].data
    assert no_list.signature()
    train = "train-images-idx3-ubyte"
    idx = checked(["data=idx", f"data.path={tmp_path}/idx/{train}"])[1].data
    others = [train.replace("images-idx3", "labels-idx1"), train.replace("train", "t10k")]
    others += [others[0].replace("train", "t10k"), "notes"]
    assert signatures(idx, *(f"idx/{name}" for name in (train, *others))) == 5


# -- where jobs run --------------------------------------------------------------------------------


@pytest.fixture
def cores(monkeypatch):
    def have(*numbers):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(numbers), raising=False)

    return have


def test_cores_are_divided_among_jobs(cores):
    cores(2, 3, 5, 8)
    assert [slot.cores for slot in slots.slots_for(2, 9, [])] == [(2, 5), (3, 8)]
    assert [slot.cores for slot in slots.slots_for(6, 9, [])] == [(2,), (3,), (5,), (8,), (2,), (3,)]
    assert [slot.cores for slot in slots.slots_for(1, 9, [])] == [()]  # all of them
    assert len(slots.slots_for(4, 3, [])) == 3 and len(slots.slots_for(None, 9, [])) <= 4


def test_a_gpu_has_one_job_unless_configured_otherwise(cores):
    cores(0, 1)
    assert [slot.gpu for slot in slots.slots_for(None, 9, ["0", "1", "2"])] == ["0", "1", "2"]
    assert [slot.gpu for slot in slots.slots_for(4, 9, ["0", "1"])] == ["0", "1", "0", "1"]


def test_gpus_are_found_without_tensorflow(tmp_path):
    driver = tmp_path / "gpus"
    assert backend.visible_gpus({"CUDA_VISIBLE_DEVICES": "0"}, driver) == []
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (driver / name).mkdir(parents=True)
    assert backend.visible_gpus({}, driver) == ["0", "1"]
    for value, found in (("1", ["1"]), ("", []), ("-1", []), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]),
                         ("0,-1,1", ["0"])):  # fmt: skip
        assert backend.visible_gpus({"CUDA_VISIBLE_DEVICES": value}, driver) == found


def test_fewer_cores_leave_batches_and_threads_what_they_are(cores, monkeypatch):
    cores(0, 1, 2, 3)
    monkeypatch.setattr(backend, "_cores", None)
    kept = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, some: kept.append(some), raising=False)
    backend.keep_to((1,))
    cores(1)
    assert kept == [(1,)] and backend.cores() == 4


def test_a_job_is_interrupted_once_however_many_signals_come():
    with signals.raised(once=True):
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted):  # the first is remembered
            signals.check()
    signals._received.clear()


def test_a_status_that_cannot_be_written_does_not_end_the_other_jobs(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job = PreparedJob((), None, claim_folder(tmp_path / "job", Fingerprint("", "", "")), epochs=1)
    job.process = SimpleNamespace(exitcode=1)
    pool._record_end(job, None)
    assert job.run.status()["status"] == "failed"
    monkeypatch.setattr(Run, "set_status", full)
    job.run.status_file.unlink()
    pool._record_end(job, None)
    assert not job.run.status()


# -- what is kept where only the training counts ------------------------------------------------------


def test_what_a_training_imports_is_what_its_fingerprint_reads():
    code = (
        "import sys, cae_cli.training.backend, cae_cli.training.fit, cae_cli.introspection.probe\n"
        "import cae_cli.model.build, cae_cli.data\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('cae_cli.')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    read = {str(file) for file in trained_by()}
    assert set(ran.stdout.split()) <= read
    assert not [file for file in read if "diagnosis" in file or "report" in file]


def test_a_training_is_kept_when_only_the_verdict_may_differ(tmp_path):
    def mark(*words):
        return Fingerprint.of(compose.checked(words)[1], verdict=False)

    first = claim_folder(GuardedPath(tmp_path) / "job", mark(), verdict=False)
    first.run.set_status("ok")
    same = mark("rules.CAE401.threshold=.5", "task_name=other", "tags=[a]")
    assert claim_folder(GuardedPath(tmp_path) / "job", same, verdict=False).finished
    assert not claim_folder(GuardedPath(tmp_path) / "job", mark("seed=1"), verdict=False).finished
    assert Fingerprint.of(compose.checked([])[1]) != mark()


def test_a_training_that_diverged_is_finished_where_only_the_training_counts(tmp_path):
    config = compose.checked([])[1]
    for judged in (True, False):
        mark = Fingerprint.of(config, verdict=judged)
        run = claim_folder(GuardedPath(tmp_path) / str(judged), mark, verdict=judged).run
        run.write_training({"diverged_at": 3})
        run.set_status("failed", "the training diverged")
        assert (
            claim_folder(GuardedPath(tmp_path) / str(judged), mark, verdict=judged).finished
            is not judged
        )


def test_jobs_are_forked_from_a_server_however_long_the_name_of_the_temporary_folder_is(tmp_path):
    folder = tmp_path / ("t" * 120)
    folder.mkdir()
    script = """if True:
        import multiprocessing, os
        from cae_cli.sweep import pool
        assert pool._forks() or pool.backend.visible_gpus()
        job = multiprocessing.get_context("forkserver").Process(target=os._exit, args=(7,))
        job.start()
        job.join()
        assert job.exitcode == 7
    """
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(TMPDIR=str(folder)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_job_is_not_said_to_be_running_when_its_server_has_died(tmp_path):
    run = Run(tmp_path / "job")
    run.root.make()
    script = """if True:
        import sys, time
        from pathlib import Path
        from cae_cli.errors import RunFailed
        from cae_cli.runs.folder import Run
        with Run(Path(sys.argv[1])).running():
            print(flush=True)
            time.sleep(1)
            raise RunFailed("ended by itself")
    """
    command = [sys.executable, "-c", script, str(run.folder)]
    job = PreparedJob((), OmegaConf.create({}), JobFolder(run), 1)
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        process.stdout.readline()
        assert run.status()["status"] == "running"
        pool._wait_for_orphan(job)
        assert run.status()["status"] == "failed"
