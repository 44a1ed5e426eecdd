import json
import math
import threading
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.run import Run, atomic, claim, plain, surroundings, writing


def test_folders_claimed_in_the_same_second_differ(tmp_path):
    now = datetime(2026, 1, 2, 3, 4, 5)
    claimed: list[Path] = []
    threads = [
        threading.Thread(target=lambda: claimed.append(claim(tmp_path / "a", now=now)))
        for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(claimed)) == 40
    assert all(path.is_dir() and path.name.startswith("2026-01-02_03-04-05_") for path in claimed)


def test_a_taken_name_is_passed_over(tmp_path, monkeypatch):
    suffixes = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("cae_cli.run._suffix", lambda: next(suffixes))
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
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_readable_by_others_as_usual(tmp_path):
    plain_file = tmp_path / "plain"
    plain_file.write_text("")
    with atomic(tmp_path / "atomic") as temporary:
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
    assert "Traceback" in run.log.read_text()


def test_metrics_are_read_as_they_were_written(tmp_path):
    run = Run(tmp_path)
    run.append_metrics({"epoch": 0, "train/loss": math.nan})
    run.append_metrics({"epoch": 1, "train/loss": 0.25})
    columns = run.read_metrics()
    assert columns["epoch"].tolist() == [0, 1]
    assert math.isnan(columns["train/loss"][0]) and columns["train/loss"][1] == 0.25


def test_arrays_are_read_as_they_were_written(tmp_path):
    run = Run(tmp_path)
    run.write_arrays(run.arrays, {"kernel/encoder_1": np.arange(6.0).reshape(2, 3)})
    assert run.read_arrays(run.arrays)["kernel/encoder_1"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_pickles_are_not_loaded(tmp_path):
    run = Run(tmp_path)
    np.savez(run.arrays, evil=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"arrays\.npz cannot be read"):
        run.read_arrays(run.arrays)


def test_damaged_files_are_named(tmp_path):
    run = Run(tmp_path)
    run.arrays.write_bytes(b"PK\x03\x04 and then nothing")
    run.metrics.write_text("epoch,loss\n1,abc\n")
    with pytest.raises(UserError, match=r"arrays\.npz cannot be read"):
        run.read_arrays(run.arrays)
    with pytest.raises(UserError, match=r"metrics\.csv cannot be read"):
        run.read_metrics()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "missing"), ("{", "not valid JSON"), ('{"schema": 99}', "newer version"), ("[]", "newer")],
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


def test_a_run_of_an_older_version_is_told_how_to_be_made_again(tmp_path):
    (tmp_path / "run.json").write_text('{"schema": 1, "command": ["cae", "train", "loss=my loss"]}')
    with pytest.raises(UserError, match="older version") as error:
        Run(tmp_path).setup()
    assert error.value.hint == "train it again: cae train 'loss=my loss'"


@pytest.mark.parametrize("layer", ["/tmp/x", "../x", "a/b", "..", ""])
def test_a_layers_name_is_no_way_out_of_the_folder(tmp_path, layer):
    for path_of in (Run(tmp_path).filters, Run(tmp_path).maps):
        with pytest.raises(UserError, match="cannot be read"):
            path_of(layer)
