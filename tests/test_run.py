import contextlib
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cae_cli import experiment
from cae_cli.config.compose import checked
from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.runs.environment import surroundings
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import plain
from cae_cli.system.files import claim, is_in_use, writing
from cae_cli.system.guarded import UNFINISHED, GuardedPath
from cae_cli.training.history import Checkpoint, Epoch, History
from cae_cli.training.optimizers import SCHEDULES
from tests.conftest import environment


def test_folders_claimed_in_the_same_second_differ(tmp_path):
    now = datetime(2026, 1, 2, 3, 4, 5)
    claimed: list[GuardedPath] = []
    threads = [
        threading.Thread(target=lambda: claimed.append(claim(tmp_path / "a", now=now)))
        for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(claimed)) == 40
    assert all(path.is_folder() and path.name.startswith("2026-01-02_03-04-05_") for path in claimed)


def test_a_taken_name_is_passed_over(tmp_path, monkeypatch):
    suffixes = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("cae_cli.system.files._suffix", lambda: next(suffixes))
    now = datetime(2026, 1, 2, 3, 4, 5)
    assert claim(tmp_path, now=now).name.endswith("aaaa")
    assert claim(tmp_path, now=now).name.endswith("bbbb")


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the run: not a directory"):
        claim(tmp_path / "file" / "runs")


def test_other_errors_than_of_writing_pass():
    with pytest.raises(FileNotFoundError), writing(Path()):
        Path("/no/such/file").read_text()


def test_a_file_is_old_or_new_and_never_half(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), GuardedPath.of(path).atomic() as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with GuardedPath.of(path).atomic() as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_readable_by_others_as_usual(tmp_path):
    plain_file = tmp_path / "plain"
    plain_file.write_text("")
    with GuardedPath.of(tmp_path / "atomic").atomic() as temporary:
        temporary.write_text("")
    assert (tmp_path / "atomic").stat().st_mode == plain_file.stat().st_mode


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (None, "ok", None),
        (UserError("no images", hint="x"), "failed", "no images"),
        (RunFailed("diverged"), "failed", "diverged"),
        (ValueError("odd"), "failed", "ValueError: odd"),
        (Interrupted(15), "interrupted", "interrupted by signal 15"),
        (KeyboardInterrupt(), "interrupted", "interrupted by the keyboard"),
    ],
)
def test_the_status_says_how_a_run_ended(tmp_path, error, status, reason):
    run = Run(tmp_path)
    if error is None:
        with run.running():
            assert run.status()["status"] == "running"
    else:
        with pytest.raises(type(error)), run.running():
            raise error
    assert run.status()["status"] == status
    assert run.status()["reason"] == reason
    assert run.status()["started"] and run.status()["ended"]


def test_an_unexpected_error_leaves_its_traceback_in_the_log(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(ValueError, match="odd"), run.running():
        raise ValueError("odd")
    assert "Traceback" in run.log.shown.read_text()


def test_control_characters_are_escaped_in_the_log(tmp_path):
    with pytest.raises(ValueError), Run(tmp_path).running():
        logging.getLogger("cae_cli.data").info("a file called %s", "\x1b[2J\u202e")
        raise ValueError("of a layer called \x1b]0;x")
    log = (tmp_path / "train.log").read_text()
    assert r"a file called \x1b[2J\u202e" in log and r"of a layer called \x1b]0;x" in log
    assert "\x1b" not in log and len(log.splitlines()) > 4  # a traceback has lines


def test_metrics_are_read_as_they_were_written(tmp_path):
    run = Run(tmp_path)
    run.write_metrics([{"epoch": 0, "train/loss": math.nan}, {"epoch": 1, "train/loss": 0.25}])
    columns = run.read_metrics()
    assert columns["epoch"].tolist() == [0, 1]
    assert math.isnan(columns["train/loss"][0]) and columns["train/loss"][1] == 0.25


def test_an_epoch_adds_its_row_and_the_file_is_that_of_all_rows(tmp_path, monkeypatch):
    """No row is made or formatted twice, and what another process has written is replaced."""
    runs = [Run(tmp_path / name) for name in ("whole", "by_epoch")]
    for run in runs:
        run.root.make()
        run.metrics.shown.write_text("epoch,step\n0,0\n1,4\n2,8\n")
    epochs = [Epoch(k, 3 * k, val_loss=1 / (k + 1), learning_rate=0.1) for k in range(6)]
    runs[0].write_metrics([epoch.row() for epoch in epochs])
    made: list[int] = []
    plain = Epoch.row
    monkeypatch.setattr(Epoch, "row", lambda epoch: made.append(epoch.epoch) or plain(epoch))
    run = runs[1]
    monkeypatch.setattr(run, "save_model", lambda model, best: None)
    images = SimpleNamespace(train=())
    screen = SimpleNamespace(steps=None, epoch=lambda row, images: made.remove(row["epoch"]))
    config = SimpleNamespace(training=SimpleNamespace(snapshots=()))
    probe = SimpleNamespace(autoencoder=SimpleNamespace(model=None))
    callbacks = experiment._callbacks(config, images, run, screen, probe, lambda: None)
    for count in range(3, 7):  # it is resumed after epoch 1
        callbacks.on_epoch(History(epochs[:count], left_at=count - 1))
        assert len(run.read_metrics()["epoch"]) == count
    assert made == [0, 1, 2, 3, 4, 5]
    assert run.metrics.shown.read_bytes() == runs[0].metrics.shown.read_bytes()


def test_a_checkpoint_holds_all_columns_of_its_epochs():
    epochs = (Epoch(0, 0, learning_rate=0.1), Epoch(1, 3, *np.arange(0.5, 9).tolist()))
    state = {"network": [np.ones(3)], "optimizer": [np.ones(1)]}
    again = Checkpoint.of(Checkpoint(epochs, state, {}).arrays()).epochs
    assert [*map(repr, again)] == [*map(repr, epochs)]  # NaN is NaN


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_reads_the_losses_once_for_an_epoch(name):
    class Losses(list):
        passes = 0

        def __iter__(self):
            self.passes += 1
            return super().__iter__()

    losses = Losses([1.0, 0.9, 0.95, 0.95, 0.95])
    schedule = checked([f"schedule={name}", "schedule.warmup_steps=4"])[1].schedule
    factors = schedule.rate_factors(range(100), 200, losses)
    assert losses.passes <= 1
    alone = [schedule.rate_factors([step], 200, list(losses)) for step in range(100)]
    assert factors == [factor for one in alone for factor in one]
    assert factors[0] < factors[3]


def test_arrays_are_read_as_they_were_written(tmp_path):
    run = Run(tmp_path)
    run.write_arrays(run.arrays, {"kernel/encoder_1": np.arange(6.0).reshape(2, 3)})
    assert run.read_arrays(run.arrays)["kernel/encoder_1"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_pickles_are_not_loaded(tmp_path):
    run = Run(tmp_path)
    np.savez(run.arrays.shown, evil=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"arrays\.npz cannot be read"):
        run.read_arrays(run.arrays)


def test_damaged_files_are_named(tmp_path):
    run = Run(tmp_path)
    run.arrays.shown.write_bytes(b"PK\x03\x04 and then nothing")
    run.metrics.shown.write_text("epoch,loss\n1,abc\n")
    with pytest.raises(UserError, match=r"arrays\.npz cannot be read"):
        run.read_arrays(run.arrays)
    with pytest.raises(UserError, match=r"metrics\.csv cannot be read"):
        run.read_metrics()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "missing"),
        ("{", "not valid JSON"),
        ('{"schema": 99}', "newer version"),
        ("[]", "not a file of cae"),
        ('{"a": ' + "[" * 400 + "]" * 400 + "}", "not a file of cae"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "not valid JSON"),
    ],
)
def test_a_summary_that_cannot_be_read_is_named(tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises(UserError, match=complaint):
        Run(tmp_path).summary()


def test_json_holds_what_python_holds(tmp_path):
    content = {
        "nan": math.nan,
        "array": np.eye(2),
        "number": np.float32(2),
        "path": Path("a"),
        "set": {1},
    }
    assert json.dumps(plain(content), allow_nan=False)
    assert plain(content) == {
        "nan": None,
        "array": [[1, 0], [0, 1]],
        "number": 2,
        "path": "a",
        "set": [1],
    }


def test_surroundings_say_what_ran():
    found = surroundings()
    assert found["packages"]["numpy"] == np.__version__
    assert found["machine"]["python"]


def test_a_run_of_an_older_version_gets_a_hint_how_to_repeat_it(tmp_path):
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "run.json").write_text('{"schema": 1, "command": ["cae", "train", "loss=mse"]}')
    with pytest.raises(UserError, match="older version") as error:
        Run(folder).setup()
    assert error.value.hint == f"train it again: cae rerun '{folder}'"


@pytest.mark.parametrize("layer", ["/tmp/x", "../x", "a/b", "..", ""])
def test_a_layers_name_is_no_way_out_of_the_folder(tmp_path, layer):
    for name in ("filters/{layer}.png", "maps/{layer}.png"):
        with pytest.raises(UserError, match="cannot be read"):
            Run(tmp_path).figure(name, layer)


HOLD = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from cae_cli.runs.folder import Run
with Run(Path(sys.argv[1])).running(resume=True):
    print("at work", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def another_process_in(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert process.stdout.readline() == "at work\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_two_processes_are_never_in_one_run(tmp_path):
    with another_process_in(tmp_path):
        assert Run(tmp_path).status()["status"] == "running" and is_in_use(GuardedPath(tmp_path))
        with pytest.raises(UserError, match="another process works in this folder"):
            Run(tmp_path).running(resume=True).__enter__()
        assert Run(tmp_path).status()["status"] == "running"


def test_what_a_killed_process_leaves_keeps_nobody_out(tmp_path):
    with another_process_in(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        status = Run(tmp_path).status()
        assert status["status"] == "interrupted" and "killed" in status["reason"]
        assert json.loads((tmp_path / "status.json").read_text())["status"] == "running"
    with Run(tmp_path).running(resume=True):
        assert Run(tmp_path).status()["status"] == "running"
    assert Run(tmp_path).status()["status"] == "ok"


def test_a_reader_in_between_keeps_nobody_out(tmp_path):
    stop = threading.Event()

    def read():
        while not stop.is_set():
            is_in_use(GuardedPath(tmp_path))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(3):
            with another_process_in(tmp_path):
                pass
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_a_run_is_not_begun_twice(tmp_path):
    with Run(tmp_path).running():
        pass
    with pytest.raises(UserError, match="another run is in this folder"):
        Run(tmp_path).running().__enter__()
    assert Run(tmp_path).status()["status"] == "ok"


def test_what_was_half_written_is_cleared_away(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    half = tmp_path / "checkpoints" / f"{UNFINISHED}abc.npz"
    half.write_bytes(b"PK")
    with Run(tmp_path).running(resume=True):
        assert not half.exists()
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"status.json", "train.log"}


def test_the_content_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor):
        calls.append(("fsync", Path(f"/proc/self/fd/{descriptor}").resolve()))
        sync(descriptor)

    def replaced(source, target, **folders):
        folder = Path(f"/proc/self/fd/{folders['src_dir_fd']}").resolve()
        calls.append(("replace", folder / source))
        return replace(source, target, **folders)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    with GuardedPath.of(tmp_path / "f.txt").atomic() as temporary:
        temporary.write_text("new")
    assert calls == [("fsync", temporary), ("replace", temporary), ("fsync", tmp_path)]


def test_of_two_checkpoints_the_newest_that_is_whole_is_taken(tmp_path):
    run = Run(tmp_path)
    assert run.checkpoint() is None
    for epoch in (1, 2, 3):
        run.write_checkpoint(epoch, {"epochs": np.array([[epoch]]), "network/0000": np.ones(1000)})
    states = sorted((tmp_path / "checkpoints").iterdir())
    assert [path.name for path in states] == ["state_000002.npz", "state_000003.npz"]
    assert run.checkpoint()["epochs"] == 3
    content = bytearray(states[1].read_bytes())
    for damage in ("cut", "flipped", "empty"):
        damaged = bytearray(content)
        if damage == "flipped":
            damaged[len(damaged) // 2] ^= 1  # in the middle of an array
        states[1].write_bytes({"cut": damaged[:-100], "empty": b""}.get(damage, damaged))
        assert run.checkpoint()["epochs"] == 2, damage
    states[0].write_bytes(b"")
    assert run.checkpoint() is None


def test_a_file_whose_content_needs_much_more_memory_than_itself_is_refused(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": 3, "x": [' + '{"":0},' * 600_000 + "0]}")
    (tmp_path / "metrics.csv").write_text("epoch,step\n" + "1\n" * 300_000)
    for read in (run.setup, run.read_metrics):
        with pytest.raises(UserError, match=r"larger than any file of cae|metrics\.csv cannot be read"):
            read()


def test_foreign_files_among_the_snapshots_are_no_snapshots(tmp_path):
    run = Run(tmp_path)
    run.write_arrays(run.snapshot(3), {"outputs": np.ones(1)})
    for name in ("epoch_abc.npz", "epoch_.npz", "epoch_1e3.npz", "epoch_²².npz", "notes.txt"):
        (tmp_path / "snapshots" / name).write_text("")
    assert list(run.snapshots()) == [3]


def test_names_that_are_not_utf_8_are_written_and_read(tmp_path):
    run = Run(tmp_path)
    run.write_setup({"path": "a\udcff", "more": "…"})
    assert run.setup()["path"] == "a\udcff" and run.setup()["more"] == "…"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe", b"[" * 200_000, b'{"schema": "2"}', b"null", b'{"schema": null}',
        b'{"schema": 2, "a": 1e999}x', b"{}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["status.json", "run.json", "summary.json", "training.json"])
def test_a_foreign_json_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    run = Run(tmp_path)
    read = {"status.json": run.status, "run.json": run.setup, "summary.json": run.summary}
    with pytest.raises(UserError, match=re.escape(name)):
        read.get(name, run.training)()


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(UserError, match=r"run\.json is a pipe"):
        Run(tmp_path).setup()
