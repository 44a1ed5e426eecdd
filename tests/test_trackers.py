"""What trackers get of a run: each thing once, from what its folder holds, and no failure reaches it."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from cae_cli.errors import UserError
from cae_cli.report.terminal import Screen
from cae_cli.runs.folder import Run
from cae_cli.system.files import at_work
from cae_cli.trackers import TRACKERS, NoTracker, following, record
from cae_cli.trackers.record import Recording
from cae_cli.trackers.tracker import Session, reason
from tests.conftest import ROOT
from tests.summaries import write_summary

EPOCHS = [
    {"epoch": e, "step": 10 * e, "train/loss": np.nan if e == 0 else 1 / e, "val/psnr": 10.0 + e}
    for e in range(4)
]
# A library that does what a test wants when a session is opened.
FAKE = """
import os, sys, time
class SummaryWriter:
    def __init__(self, folder, filename_suffix): {}
"""


def make_run(folder, epochs=4, status="ok", **config):
    """A run folder without a training: config, epochs, snapshots; a summary if it has ended."""
    folder.mkdir(parents=True)
    run = Run(folder)
    whole = {"task_name": "digits", "seed": 3, "tags": ["first"], "loss": {"name": "ssim"}, **config}
    run.write_setup({"command": ["cae", "train", "loss=ssim", "seed=3"], "config": whole})
    add_epochs(run, epochs)
    if status == "ok":
        write_summary(run, 20.0, ssim=0.8, explained=0.9, meaningful=0.5, code="CAE211")
        run.page.parent.make()
        with run.page.atomic() as path:
            path.write_text("<p>page</p>")
    run.set_status(status)
    return run


def add_epochs(run, epochs):
    run.write_metrics(EPOCHS[:epochs])
    arrays = {"kernel/encoder_1": np.eye(3).reshape(3, 3, 1, 1), "outputs": np.zeros((2, 8, 8, 1))}
    for epoch in (0, epochs - 1):
        run.write_arrays(run.snapshot(epoch), arrays)


def events(folder):
    """What the event files of a folder hold, in order: (tag, step, value)."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(Path(folder).rglob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:  # length (8 bytes), its checksum (4), the event, its checksum (4)
            end = 12 + int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12:end])
            data = data[end + 4 :]
            yield from ((value.tag, event.step, value) for value in event.summary.value)


def scalars(folder):
    """The scalars of event files: {tag: [(step, value), …]}."""
    found = {}
    for tag, step, value in events(folder):
        if value.WhichOneof("value") == "simple_value":
            found.setdefault(tag, []).append((step, value.simple_value))
    return found


def options(name, **changes):
    given = {"project": "cae", "uri": None, "timeout": 60, "model": True, **changes}
    return TRACKERS[name](**given)


def with_library(monkeypatch, folder, body):
    """From now on a process that starts has a tensorboardX whose writer does this."""
    folder.mkdir()
    (folder / "tensorboardX.py").write_text(FAKE.format(body))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")


class TestTensorBoard:
    @pytest.fixture(autouse=True)
    def library(self):
        pytest.importorskip("tensorboardX")

    def test_each_epoch_is_written_once_however_often_the_run_is(self, cae, tmp_path):
        run = make_run(tmp_path / "runs/digits/2026-01-31_18-00-00_d3tg", 2, "interrupted")
        assert cae("log", "last", "--to", "tensorboard").code == 0
        before = scalars(run.folder)
        assert before["val/psnr"] == [(0, 10.0), (1, 11.0)]
        assert before["train/loss"] == [(1, 1.0)]  # what was not measured is left out
        add_epochs(run, 4)
        write_summary(run, 20.0, ssim=0.8, explained=0.9, meaningful=0.5, code="CAE211")
        run.set_status("ok")
        for _ in range(2):
            done = cae("log", "last", "--to", "tensorboard")
            assert done.code == 0 and "tensorboard --logdir" in done.out
        after = scalars(run.folder)
        assert after["val/psnr"] == [(e, 10.0 + e) for e in range(4)]
        assert after["result/psnr"] == [(0, 20.0)]
        pictures = [(tag, step) for tag, step, v in events(run.folder) if v.HasField("image")]
        assert pictures == [("visual/filters_and_reconstructions", step) for step in (0, 1, 3)]

    def test_what_a_person_looks_for_is_there(self, cae, tmp_path):
        run = make_run(tmp_path / "run")
        assert cae("log", "run", "--to", "tensorboard").code == 0
        texts = {
            tag: value.tensor.string_val[0].decode()
            for tag, _, value in events(run.folder)
            if value.HasField("tensor")
        }
        assert str(run.folder) in texts["run/text_summary"] and "first" in texts["run/text_summary"]
        assert (
            "loss=ssim" in texts["run/text_summary"]
            and '"seed": 3' in texts["whole_config/text_summary"]
        )
        assert "CAE211: a problem" in texts["diagnosis/text_summary"]
        assert "_hparams_/session_start_info" in {tag for tag, _, _ in events(run.folder)}

    def test_jobs_of_a_sweep_stand_beside_each_other(self, cae, tmp_path):
        for name in ("loss=mse", "loss=ssim"):
            make_run(tmp_path / "runs/t/2026-01-31_18-00-00_k3fa" / name)
        done = cae("log", "k3fa", "--to", "tensorboard", "--project", "mine", "--uri", "board")
        assert (
            done.code == 0 and done.out.startswith("tensorboard --logdir") and done.out.count("\n") == 1
        )
        folders = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("events*")}
        above = "board/mine/2026-01-31_18-00-00_k3fa"
        assert folders == {f"{above}/loss=mse", f"{above}/loss=ssim"}

    def test_a_link_in_the_folder_of_a_stranger_is_not_followed(self, cae, tmp_path):
        run = make_run(tmp_path / "run")
        (tmp_path / "secret").write_text("secret")
        run.page.unlink()
        (run.folder / "report.html").symlink_to(tmp_path / "secret")
        done = cae("log", "run", "--to", "tensorboard")
        assert done.code == 1 and "report.html" in done.err
        assert not any(b"secret" in p.read_bytes() for p in run.folder.rglob("events*"))

    def test_logging_imports_no_tensorflow(self, tmp_path):
        run = make_run(tmp_path / "run")
        code = (
            "import sys; from pathlib import Path; from cae_cli import cli, trackers\n"
            "from cae_cli.runs.folder import Run; from cae_cli.trackers.record import Recording\n"
            "t = trackers.TRACKERS['tensorboard'](project='cae', uri=None, timeout=9, model=True)\n"
            f"Recording(Run(Path({str(run.folder)!r})), t, lambda _: None).close(); print(*sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "tensorboardX" in done.stdout.split()
        assert not {"tensorflow", "keras"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise OSError(28, 'No space left on device')", "No space left on device"),
        ("raise ValueError('http://me:pass' + 'word@host is down')", "http://…@host is down"),
        ("sys.exit('enough')", "SystemExit: enough"),
        ("os._exit(3)", "ended with code 3 (epoch 1)"),
        ("os.kill(os.getpid(), 9)", "ended with code -9"),
        ("time.sleep(600)", "no answer within 1 s"),
        ("print('noise', flush=True); raise ImportError('half installed')", "half installed"),
    ],
)
def test_a_library_that_fails_is_one_line_and_nothing_else(tmp_path, monkeypatch, capfd, body, said):
    with_library(monkeypatch, tmp_path / "library", body)
    run = make_run(tmp_path / "run", 2, "running")
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    began = time.monotonic()
    with following(options("tensorboard", timeout=1), run, Screen()) as after_epoch:
        after_epoch()
        after_epoch()
    assert time.monotonic() - began < 30
    lines = [line for line in capfd.readouterr().err.splitlines() if "writing to" not in line]
    assert len(lines) == 1 and said in lines[0], lines
    assert lines[0].startswith("! tracker=tensorboard: ") and "cae log" in lines[0]
    now = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    assert {path: now[path] for path in before} == before


def test_what_the_training_raises_is_raised(tmp_path, monkeypatch):
    with_library(monkeypatch, tmp_path / "library", "time.sleep(600)")
    run = make_run(tmp_path / "run", 2, "running")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), following(options("tensorboard"), run, Screen()) as epoch:
        epoch()
        raise KeyboardInterrupt
    assert time.monotonic() - began < 20  # and not the minute that the tracker may take


def test_without_a_tracker_no_process_is_started(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process"))
    with following(NoTracker(), make_run(tmp_path / "run"), Screen()) as after_epoch:
        after_epoch()


def test_two_processes_do_not_write_a_run_at_once(cae, tmp_path):
    pytest.importorskip("tensorboardX")
    run = make_run(tmp_path / "run")
    (run.root / "trackers").make()
    with at_work(run.root / "trackers"):
        done = cae("log", "run", "--to", "tensorboard")
    assert done.code == 1 and "another process works in this folder" in done.err


class Nothing(Session):
    """A session that keeps nothing."""

    id, where = "1", "https://host/1"

    def metrics(self, epochs):
        pass

    def image(self, name, epoch, path):
        pass

    def result(self, result):
        pass

    def close(self, status, ended):
        pass


def recorded(run):
    tracker = options("tensorboard")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tracker), "open", lambda self, facts, known: Nothing())
        Recording(run, tracker, lambda what: None).close()


def test_a_file_larger_than_memory_is_not_read(tmp_path):
    run = make_run(tmp_path / "run")
    with (run.folder / "report.html").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(UserError, match=r"report\.html would need 4\.4 TB of memory"):
        recorded(run)


@pytest.mark.parametrize(
    ("where", "is_shown"),
    [
        ("https://host/1", True),
        ("tensorboard --logdir 'my runs/a'", True),
        ("tensorboard --logdir x; reboot", False),
        ("tensorboard --logdir $(reboot)", False),
        ("tensorboard --logdir --samples_per_plugin=x", False),
        ("tensorboard", False),
        ("python evil.py", False),
        ("https://host/$(reboot)", False),
        ("https://host/\x1b[2J", False),
        ("'", False),
    ],
)
def test_what_notes_of_a_stranger_say_is_shown_only_if_it_is_harmless_to_paste(
    tmp_path, where, is_shown
):
    run = make_run(tmp_path / "run")
    recorded(run)
    [notes] = (run.folder / "trackers").iterdir()
    notes.write_text(json.dumps(json.loads(notes.read_text()) | {"where": where}))
    with nullcontext() if is_shown else pytest.raises(UserError, match="is not a file of cae"):
        recorded(run)


@pytest.mark.parametrize("known", ["/elsewhere", "board/cae/../../x", "board/other/run", "x"])
def test_notes_of_a_stranger_lead_to_no_other_folder(tmp_path, monkeypatch, known):
    monkeypatch.chdir(tmp_path)
    facts = record._facts(make_run(tmp_path / "run", task_name="../../x"))
    assert "/" not in facts.name
    with pytest.raises(UserError, match="a folder that is not in board/cae"):
        options("tensorboard", uri="board").open(facts, known)
    assert not Path(known).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--to names the tracker"),
        (["--to", "mlfow"], "did you mean mlflow?"),
        (["--to", "none"], "there is no tracker 'none'"),
        (["--to", "mlflow", "--uri", "postgresql://me:secret@host/db"], "must not hold a user name"),
        (["--to", "tensorboard", "--project", " "], "must not be empty"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_so(cae, tmp_path, arguments, said):
    make_run(tmp_path / "run")
    done = cae("log", "run", *arguments)
    assert done.code == 2 and said in done.err


def test_a_missing_library_is_an_error_before_the_first_step(cae, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = cae("train", "experiment=smoke", "tracker=mlflow")
    assert done.code == 2 and "pip install 'cae-cli[mlflow]'" in done.err
    assert "reading images" not in done.err


def test_a_reason_is_one_short_line_without_passwords():
    assert reason(ValueError("\n first \n second")) == "ValueError: first"
    assert reason(OSError("https://me:pw@host/x")) == "OSError: https://…@host/x"
    assert len(reason(ValueError("x" * 1000))) < 310


@pytest.mark.filterwarnings("ignore")  # of the library, which reads back in this process
class TestMLflow:
    def test_a_run_in_a_database_has_everything_once(self, cae, tmp_path, monkeypatch):
        mlflow = pytest.importorskip("mlflow")
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        monkeypatch.chdir(tmp_path)
        uri = f"sqlite:///{tmp_path}/mine.db"
        run = make_run(tmp_path / "run", 2, "interrupted")
        assert cae("log", "run", "--to", "mlflow", "--uri", uri).code == 0
        add_epochs(run, 4)
        write_summary(run, 20.0, ssim=0.8, explained=0.9, meaningful=0.5, code="CAE211")
        run.set_status("ok")
        for _ in range(2):
            done = cae("log", "run", "--to", "mlflow", "--uri", uri)
            assert done.code == 0
        client = mlflow.MlflowClient(tracking_uri=uri)
        [found] = client.search_runs([client.get_experiment_by_name("cae").experiment_id])
        history = client.get_metric_history(found.info.run_id, "val/psnr")
        assert [(m.step, m.value) for m in history] == [(e, 10.0 + e) for e in range(4)]
        assert found.info.status == "FINISHED" and found.data.params["loss.name"] == "ssim"
        assert found.data.tags["cae.findings"] == "CAE211"
        assert found.data.tags["cae.changed"] == "loss=ssim seed=3"
        assert found.data.metrics["result/psnr"] == 20.0 and "tag.first" in found.data.tags
        names = {file.path for file in client.list_artifacts(found.info.run_id)}
        assert {"summary.txt", "summary.json", "images"} <= names
        folder = tmp_path.as_posix()
        assert done.out == f"mlflow ui --backend-store-uri sqlite:///{folder}/mine.db\n"
        machine = ("user", "source", "git")
        assert not [k for k in found.data.tags if k.startswith(tuple(f"mlflow.{m}" for m in machine))]

    def test_a_server_that_never_answers_costs_its_time_limit(self, tmp_path, capfd):
        pytest.importorskip("mlflow")
        run = make_run(tmp_path / "run", 2, "running")
        with socket.create_server(("127.0.0.1", 0)) as server:  # takes the call and says nothing
            uri = f"http://127.0.0.1:{server.getsockname()[1]}"
            began = time.monotonic()
            with following(options("mlflow", uri=uri, timeout=20), run, Screen()) as after_epoch:
                after_epoch()
            assert time.monotonic() - began < 90
        lines = [line for line in capfd.readouterr().err.splitlines() if "writing to" not in line]
        assert len(lines) == 1 and lines[0].startswith("! tracker=mlflow: ")


class TestWandB:
    def test_offline_run_holds_the_epochs_and_asks_nothing(self, cae, tmp_path, monkeypatch):
        pytest.importorskip("wandb")
        monkeypatch.chdir(tmp_path)
        run = make_run(tmp_path / "run")
        done = cae("log", "run", "--to", "wandb", WANDB_MODE="offline", MY_SECRET="hush-hush")
        assert done.code == 0 and "wandb sync" in done.out and not done.err.count("login")
        [file] = tmp_path.rglob("*.wandb")
        data = file.read_bytes()
        assert all(text in data for text in (b"val/psnr", b"CAE211", b"loss", str(run.folder).encode()))
        kept = [path for path in (tmp_path / "wandb").rglob("*") if path.suffix in (".json", ".txt")]
        assert not [p.name for p in kept if p.name != "config.yaml"], "of the machine"
        assert b"hush-hush" not in data and sys.executable.encode() not in data
        before = set(tmp_path.rglob("*.wandb"))
        assert cae("log", "run", "--to", "wandb", WANDB_MODE="offline").code == 0
        assert set(tmp_path.rglob("*.wandb")) == before


class TestTrackio:
    def test_a_local_run_has_each_epoch_once(self, cae, tmp_path, monkeypatch):
        pytest.importorskip("trackio")
        import sqlite3

        run = make_run(tmp_path / "run", 2, "interrupted")
        assert cae("log", "run", "--to", "trackio", "--uri", "board").code == 0
        add_epochs(run, 4)
        run.set_status("ok")
        for _ in range(2):
            assert cae("log", "run", "--to", "trackio", "--uri", "board").code == 0
        [file] = (tmp_path / "board").rglob("cae*.db")
        with sqlite3.connect(file) as database:
            rows = database.execute("select step, metrics from metrics order by step, id").fetchall()
        values = [(step, json.loads(m)["val/psnr"]) for step, m in rows if "val/psnr" in json.loads(m)]
        assert values == [(e, 10.0 + e) for e in range(4)]
