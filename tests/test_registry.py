"""The registry over plain files: words for runs, filters, damaged folders, tags, removal, comparison."""

import csv
import errno
import fcntl
import io
import json
import math
import os
import pty
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cae_cli import cli
from cae_cli.config.compose import checked
from cae_cli.config.schema import plain
from cae_cli.errors import UserError
from cae_cli.runs import query
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import SCHEMA_VERSION
from cae_cli.runs.reader import Entry
from cae_cli.runs.registry import Registry, find, flat, split
from cae_cli.runs.sweep_folder import PlannedJob, SweepFile, SweepFolder
from cae_cli.system.guarded import GuardedPath
from tests.conftest import environment
from tests.summaries import write_summary
from tests.test_cli import HEAVY, loaded_after
from tests.test_diagnosis import layer

LAYERS = (
    layer(filters=8, dead=2, duplicates=2, prunable=0.25),
    layer("encoder_2", filters=8, dead=2, duplicates=2, prunable=math.nan),
)


def config(**changes):
    whole = {
        "seed": 0,
        "task_name": "train",
        "tags": [],
        "data": {"name": "digits", "train": 192},
        "model": {"filters": [16, 8], "kernel_size": 3},
        "regularization": {},
        "loss": {"name": "mse"},
        "optimizer": {"name": "adam", "learning_rate": 0.001},
        "training": {"epochs": 2, "deterministic": True, "early_stopping": None},
        "rules": {},
    }
    for key, value in changes.items():
        group, _, name = key.partition("__")
        if name:
            whole[group][name] = value
        else:
            whole[group] = value
    return whole


def made(folder, begun, *words, status="ok", psnr=20.0, images="f00d" * 16, **changes):
    """A run as its own writers write it."""
    folder.mkdir(parents=True)
    choices = dict(word.split("=") for word in words if word.startswith("model="))
    run = Run(folder)
    run.set_status("running")
    run.write_setup(
        {
            "time": begun,
            "command": ["cae", "train", *words],
            "choices": {"model": "baseline", **choices},
            "config": config(**changes),
            "data": {"source": "digits", "shape": [8, 8, 1], "train": 192, "fingerprint": images},
            "git": {"commit": "0123456789abcdef", "dirty": False},
            "packages": {"cae-cli": "0.1.0", "numpy": "2.4.6"},
            "machine": {"cores": 2},
        }
    )
    if psnr is not None:
        write_summary(run, psnr, ssim=psnr / 40, explained=0.5, meaningful=psnr / 100, layers=LAYERS)
    run.set_status(status, None if status == "ok" else "because")
    return run


def test_layers_whose_duplicates_are_not_counted_do_not_count_in_their_share(tmp_path):
    layers = (layer(filters=8, duplicates=2), layer("shortcut", filters=8, duplicates=None))
    run = Run(tmp_path)
    write_summary(run, 20.0, ssim=0.5, explained=0.5, meaningful=0.2, layers=layers)
    assert Entry(tmp_path).figures["duplicates"] == 0.25


OLDEST = "train/2026-01-01_10-00-00_aaaa"
SECOND = "train/2026-01-01_11-00-00_abcd"
JOBS = ("loss=mse,seed=0", "loss=ssim,seed=0")
SWEEP = "train/2026-01-02_10-00-00_k3fa"
NEWEST = "night/2026-01-03_10-00-00_2345"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Five runs, two of them jobs of a sweep, one with a control run inside."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    made(runs / OLDEST, "2026-01-01T10:00:00", "loss=mse", psnr=21.0, tags=["old"])
    made(runs / SECOND, "2026-01-01T11:00:00", "model=l2", psnr=None, status="interrupted")
    for hour, name in enumerate(JOBS):
        ssim = {"loss": {"name": "ssim", "window": 7}, "regularization": {"l2": {"strength": 0.1}}}
        made(
            runs / SWEEP / name, f"2026-01-02T1{hour}:00:00", *name.split(","),
            psnr=25.0 - hour, **(ssim if hour else {}),
        )  # fmt: skip
    jobs = tuple(PlannedJob(name, tuple(name.split(","))) for name in reversed(JOBS))
    command = ("cae", "train", "-m", "loss=mse,ssim", "seed=0")
    SweepFolder(runs / SWEEP).write(SweepFile(command, ("loss",), "ok", None, jobs))
    made(runs / NEWEST, "2026-01-03T10:00:00", "data=npz", status="failed", task_name="night")
    made(runs / OLDEST / "frozen_encoder" / "2026-01-09_10-00-00_zzzz", "2026-01-09T10:00:00")
    (runs / "train" / "2026-01-04_10-00-00_wait").mkdir()  # claimed, and nothing in it yet
    return tmp_path


def named(word, root=None):
    return find(word, root).folder.as_posix()


@pytest.mark.parametrize(
    ("word", "folder"),
    [
        (f"runs/{OLDEST}", OLDEST),
        (f"runs/{OLDEST}/", OLDEST),
        (f"./runs/{OLDEST}", OLDEST),
        (OLDEST, OLDEST),
        ("2026-01-01_10-00-00_aaaa", OLDEST),
        ("2026-01-01_10", OLDEST),
        ("aaaa", OLDEST),
        ("aa", OLDEST),
        ("abc", SECOND),
        ("1", OLDEST),
        ("2", SECOND),
        ("5", NEWEST),
        ("2345", NEWEST),
        ("last", NEWEST),
        ("last-0", NEWEST),
        ("last-4", OLDEST),
        ("k3fa/loss=mse,seed=0", f"{SWEEP}/{JOBS[0]}"),
        ("k3fa/loss=s", f"{SWEEP}/{JOBS[1]}"),
        ("2026-01-02_10-00-00_k3fa/loss=s", f"{SWEEP}/{JOBS[1]}"),
        ("loss=ssim,seed=0", f"{SWEEP}/{JOBS[1]}"),
        ("night", NEWEST),
    ],
)
def test_a_run_is_selected_by_each_of_its_names(here, word, folder):
    assert named(word) == f"runs/{folder}"


def test_the_progress_of_a_sweep_is_shown_by_its_id_as_by_its_folder(here, capsys):
    assert cli.run(["sweep", "status", f"runs/{SWEEP}"]) == 0
    by_folder = capsys.readouterr().out
    assert cli.run(["sweep", "status", "k3fa"]) == 0
    assert capsys.readouterr().out == by_folder and "2 jobs: 2 ok" in by_folder


@pytest.mark.parametrize(("changes", "data", "stage"), [
    (["training.epochs=10"], {"train": 192}, "epoch 3/10"),
    (["training.steps=223", "training.batch_size=32"], {"train": 192}, "epoch 3/38"),
    (["training.epochs=10", "training.steps=223"], {"train": None}, "epoch 3/10"),
    (["training.epochs=10"], None, "epoch 3/10"),
    (["training.steps=223"], {"train": 0}, "epoch 3/?"),
    (["training.steps=223"], {"train": 10**400}, "epoch 3/?"),
])  # fmt: skip
def test_the_progress_of_a_job_counts_the_epochs_that_it_will_have(here, capsys, changes, data, stage):
    run = Run(here / "runs" / SWEEP / JOBS[0])
    changed(run.setup_file.shown, config=plain(checked(changes)[1]), data=data)
    run.write_metrics([{"epoch": k, "train/loss": 0.5} for k in range(4)])
    with run.running(resume=True):
        assert cli.run(["sweep", "status", "k3fa"]) == 0
    assert f"{stage}, loss 0.5000" in capsys.readouterr().out


def test_a_file_that_is_neither_a_run_nor_a_model_is_named(here, tmp_path):
    file = tmp_path / "note.txt"
    file.write_text("words")
    with pytest.raises(UserError, match="neither a run nor a model") as caught:
        find(str(file))
    assert caught.value.where == str(file) and ".keras" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("word", "what", "hint"),
    [
        ("a", "'a' may be one of 2 runs", "abcd (number 2), aaaa (number 1)"),
        ("k3fa", "'k3fa' may be one of 2 runs", "k3fa/loss=ssim,seed=0 (number 4)"),
        ("2026", "'2026' may be one of 5 runs", "2345 (number 5)"),
        ("x" * 5000, "no run is called 'xxx", ""),
        ("aaab", "no run is called 'aaab'", "did you mean aaaa?"),
        ("lsat", "no run is called 'lsat'", "did you mean last?"),
        ("6", "no run is called '6'", "there are 5 runs below runs"),
        ("0", "no run is called '0'", ""),
        ("last-5", "last-5: there are 5 runs", "cae runs ls"),
        ("runs", "the folder holds 5 runs and is not a run itself", "cae runs ls --runs runs"),
        (f"runs/{SWEEP}", "the folder holds 2 runs", ""),
        ("zzzz", "no run is called 'zzzz'", ""),
        ("", "no run is called ''", ""),
        ("no\0thing", "no run is called", ""),
        ("runs/nothing", "no such folder", ""),
    ],
)
def test_a_name_that_matches_several_runs_or_none_is_an_error_with_candidates(here, word, what, hint):
    with pytest.raises(UserError) as caught:
        find(word)
    assert what in caught.value.what and hint in (caught.value.hint or "")


def test_without_runs_no_name_matches(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for word in ("last", "1", "abcd"):
        with pytest.raises(UserError, match=r"there are no runs|no run is called"):
            find(word)


def test_a_folder_with_a_run_is_meant_before_a_number_or_a_name(here):
    made(here / "2", "2026-02-01T10:00:00")
    (here / "3").mkdir()
    assert named("2") == "2" and named("3") == f"runs/{SWEEP}/{JOBS[0]}"


def test_a_name_that_is_also_a_number_is_not_confused_with_it(here):
    made(here / "runs" / "4", "2026-01-05T10:00:00")
    with pytest.raises(UserError, match="'4' may be one of 2 runs"):
        find("4")
    assert named("runs/4") == "runs/4" and named("6") == "runs/4"
    made(here / "runs" / "train" / "2026-01-06_10-00-00_0003", "2026-01-06T10:00:00")
    assert named("0003").endswith("_0003") and named("3").endswith(JOBS[0])


def test_other_folders_of_runs_are_searched_if_they_are_given(here):
    made(here / "elsewhere" / "x", "2026-02-01T10:00:00")
    assert named("last", Path("elsewhere")) == "elsewhere/x" and named("last").endswith("_2345")
    with pytest.raises(UserError, match="no such folder"):
        Registry(Path("nowhere"))


def test_numbers_stay_when_runs_are_added_and_when_one_is_resumed(here):
    before = {e.name: e.number for e in Registry().entries}
    assert list(before) == [OLDEST, SECOND, *(f"{SWEEP}/{job}" for job in JOBS), NEWEST]
    made(here / "runs" / "x", "2026-03-01T10:00:00")
    Run(here / "runs" / SECOND).set_status("running")
    after = {e.name: e.number for e in Registry().entries}
    assert {name: after[name] for name in before} == before and after["x"] == 6


def test_arguments_of_a_command_are_distinguished_from_runs():
    assert split(["last", "loss=ssim"]) == (["last"], ["loss=ssim"])
    assert split(["k3fa/loss=mse,seed=0", "seed=1"]) == (["k3fa/loss=mse,seed=0"], ["seed=1"])
    assert split(["hydra/launcher=joblib", "last"]) == (["last"], ["hydra/launcher=joblib"])
    assert split(["data.path=a/b", "1"]) == (["1"], ["data.path=a/b"])


# -- filters ---------------------------------------------------------------------------------------


def numbers(*words, sort=None):
    entries = query.select(Registry().entries, [query.Condition.of(w) for w in words])
    return [e.number for e in (query.ordered(entries, sort) if sort else entries)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [1, 2, 3, 4, 5]),
        (["status=ok"], [1, 3, 4]),
        (["status!=ok"], [2, 5]),
        (["task=night"], [5]),
        (["tag=old"], [1]),
        (["tag!=old"], [2, 3, 4, 5]),
        (["loss=ssim"], [4]),
        (["loss!=ssim", "status=ok"], [1, 3]),
        (["loss.window=7"], [4]),
        (["loss.window>6.5"], [4]),
        (["loss.window>7"], []),
        (["loss.window>=7"], [4]),
        (["model=l2"], [2]),
        (["regularization=l2"], [4]),
        (["regularization=none"], [1, 2, 3, 5]),
        (["regularization.l2.strength<1"], [4]),
        (["model.filters=[16, 8]"], [1, 2, 3, 4, 5]),
        (["optimizer.learning_rate=1e-3", "psnr>24"], [3]),
        (["training.deterministic=true"], [1, 2, 3, 4, 5]),
        (["training.early_stopping=null"], [1, 2, 3, 4, 5]),
        (["psnr>20"], [1, 3, 4]),
        (["val/psnr<=21"], [1, 5]),
        (["inactive=0.25"], [1, 3, 4, 5]),
        (["prunable>=.25"], [1, 3, 4, 5]),
        (["since=2026-01-02T11:00"], [4, 5]),
        (["k3fa"], [3, 4]),
        (["data=npz"], []),
        (["because"], [2, 5]),
        (["no such text"], []),
    ],
)
def test_filters_choose_by_what_the_files_say(here, words, expected):
    assert numbers(*words) == expected


def test_the_chosen_option_of_a_group_is_known_where_an_experiment_chose_it(here):
    changed(Run(here / "runs" / NEWEST).setup_file.shown, choices={"model": "deep", "experiment": None})
    assert numbers("model=deep") == [5] and numbers("model=l2") == [2]
    assert numbers("model!=deep") == [1, 2, 3, 4] and numbers("experiment!=x") == [1, 2, 3, 4, 5]


def test_since_counts_back_from_now(here):
    made(here / "runs" / "x", (datetime.now().astimezone() - timedelta(hours=3)).isoformat())
    assert numbers("since=4h") == [6] and numbers("since=2h") == [] and numbers("since=1d") == [6]


def test_the_best_come_first_and_those_without_a_number_last(here):
    assert numbers(sort="psnr") == [3, 4, 1, 5, 2]
    assert numbers(sort="mse") == [3, 4, 1, 5, 2]
    assert numbers("status=ok", sort="val/ssim") == [3, 4, 1]


@pytest.mark.parametrize(
    ("word", "what", "hint"),
    [
        ("statsu=ok", "no run has 'statsu'", "did you mean status?"),
        ("loss.windw>7", "no run has 'loss.windw'", "did you mean loss.window?"),
        ("psnr>high", "psnr is compared with a number, got 'high'", "'psnr>20'"),
        ("since=yesterday", "since needs a span or a date, got =yesterday", "since=2d"),
        ("since>2d", "since needs a span or a date", ""),
    ],
)
def test_a_mistyped_filter_is_an_error_and_no_empty_list(here, capsys, word, what, hint):
    assert cli.run(["runs", "ls", word]) == 2
    error = capsys.readouterr().err
    assert f"error: {what}" in error and hint in error
    assert cli.run(["runs", "ls", "--sort", "psnrr"]) == 2
    assert "did you mean psnr?" in capsys.readouterr().err


# -- the list --------------------------------------------------------------------------------------


def listed(capsys, *words):
    assert cli.run(["runs", "ls", *words]) == 0
    return capsys.readouterr()


def test_the_list_has_a_line_for_each_run(here, capsys):
    lines = listed(capsys).out.splitlines()
    assert [line.split()[1] for line in lines[1:]] == [
        "aaaa", "abcd", *(f"k3fa/{job}" for job in JOBS), "2345",
    ]  # fmt: skip
    assert "interrupted" in lines[2] and "model=l2" in lines[2] and "because" in lines[2]
    assert "21.00  0.525" in lines[1] and "old" in lines[1] and "none found" in lines[1]
    assert [line.split()[0] for line in listed(capsys, "--limit", "2").out.splitlines()] == [
        "#", "4", "5",
    ]  # fmt: skip
    assert listed(capsys, "--sort", "psnr", "--limit", "1").out.splitlines()[1].split()[0] == "3"


def test_other_programs_get_all_of_it(here, capsys):
    runs = json.loads(listed(capsys, "--json").out)
    assert [run["number"] for run in runs] == [1, 2, 3, 4, 5]
    assert runs[3]["config"]["loss"] == {"name": "ssim", "window": 7}
    assert runs[0]["figures"]["psnr"] == 21.0 and runs[1]["figures"].keys() == {"seconds"}
    rows = list(csv.DictReader(io.StringIO(listed(capsys, "--csv", "status=ok").out)))
    assert [row["id"] for row in rows] == ["aaaa", *(f"k3fa/{job}" for job in JOBS)]
    assert float(rows[0]["psnr"]) == 21.0 and rows[0]["tags"] == "old"


def test_an_empty_list_is_reported(here, capsys, tmp_path_factory, monkeypatch):
    told = listed(capsys, "status=running")
    assert told.out == "" and "none of 5 runs" in told.err
    assert json.loads(listed(capsys, "status=running", "--json").out) == []
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    assert "there are no runs below runs" in listed(capsys).err


def on_a_terminal(*words, answer=b"", columns=80, cwd):
    """What a terminal of some columns shows of ``cae …``, and the exit code."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cae_cli", *words],
        stdin=slave, stdout=slave, stderr=slave, cwd=cwd,
        env=environment(COLUMNS=str(columns), TERM="xterm"),
    )  # fmt: skip
    os.close(slave)
    os.write(master, answer)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(master)
    return process.wait(), re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r", "")


def test_a_terminal_of_80_columns_has_a_run_on_a_line(here):
    words = ["optimizer.learning_rate=0.0005", "model.filters=[64,32,16]", "training.epochs=400"]
    made(here / "runs" / "train" / "2026-01-08_10-00-00_long", "2026-01-08T10:00:00", *words)
    shutil.rmtree(here / "runs" / SWEEP)  # names of jobs are never cut
    code, shown = on_a_terminal("runs", "ls", cwd=here)
    lines = shown.splitlines()
    assert code == 0 and len(lines) == 5 and max(map(len, lines)) <= 80
    assert "…" in lines[-1] and "long" in lines[-1]
    _, compared = on_a_terminal("compare", "1", "last", cwd=here)
    assert max(len(line) for line in compared.splitlines() if not line.startswith("!")) <= 80


def test_control_characters_in_names_are_shown_and_not_sent(here, capsys):
    made(here / "runs" / "a\x1b[31mb", "2026-02-01T10:00:00", "tags=[x\x1b[1m]", tags=["\x1b[1m"])
    for words in (["runs", "ls"], ["runs", "ls", "--csv"], ["runs", "ls", "--json"],
                  ["runs", "show", "last"], ["compare", "last", "1"],
                  ["runs", "tag", "last"]):  # fmt: skip
        cli.run(words)
        told = capsys.readouterr()
        assert "\x1b" not in told.out + told.err and "1b" in told.out + told.err, words


# -- folders that are not what they ought to be ----------------------------------------------------


def pipe_in_place_of(path):
    path.unlink()
    os.mkfifo(path)


def folder_in_place_of(path):
    path.unlink()
    path.mkdir()


def changed(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE = {
    "cut short": (
        lambda run: run.setup_file.shown.write_text(run.setup_file.shown.read_text()[:-9]),
        "run.json",
    ),
    "no text": (lambda run: run.summary_file.shown.write_bytes(b"\xff\xfe\0"), "summary.json"),
    "empty": (lambda run: run.status_file.shown.write_text(""), "status.json is not valid JSON"),
    "deep": (lambda run: run.summary_file.shown.write_text("[" * 10**5), "summary.json"),
    "a list": (lambda run: run.setup_file.shown.write_text("[1]"), "run.json is not a file of cae"),
    "foreign": (
        lambda run: run.setup_file.shown.write_text('{"model": 1}'),
        "run.json is not a file of cae",
    ),
    "newer": (
        lambda run: changed(run.setup_file.shown, schema=SCHEMA_VERSION + 1),
        "a newer version of cae",
    ),
    "newer summary": (lambda run: changed(run.summary_file.shown, schema=999), "a newer version of cae"),
    "no status": (lambda run: run.status_file.shown.unlink(), "status.json is missing"),
    "no setup": (lambda run: run.setup_file.shown.unlink(), "run.json is missing"),
    "no summary": (lambda run: run.summary_file.shown.unlink(), "summary.json is missing"),
    "a pipe": (lambda run: pipe_in_place_of(run.setup_file.shown), "run.json is a pipe"),
    "a folder": (lambda run: folder_in_place_of(run.status_file.shown), "status.json is a folder"),
    "a broken link": (
        lambda run: (run.summary_file.shown.unlink(), run.summary_file.shown.symlink_to("nowhere")),
        "summary.json is a link",
    ),
    "tags": (lambda run: run.tags_file.shown.write_text("{"), "tags.json is not valid JSON"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_named_with_its_file_and_stops_nothing(here, capsys, damage):
    harm, said = DAMAGE[damage]
    harm(Run(here / "runs" / OLDEST))
    told = listed(capsys)
    lines = told.out.splitlines()
    assert len(lines) == 6 and lines[1].split()[:2] == ["1", "aaaa"]
    problems = [line for line in told.err.splitlines() if line.startswith("! aaaa: ")]
    assert any(said in line and OLDEST in line for line in problems)
    for words in (["runs", "show", "1"], ["compare", "1", "3"], ["runs", "ls", "psnr>1"]):
        assert cli.run(words) == 0, words
    assert cli.run(["compare", "1", "3", "--exit-code"]) in (1, 2)
    assert cli.run(["rerun", "1", "--cfg", "job"]) in (0, 2)
    assert "Traceback" not in capsys.readouterr().err


NONSENSE = [None, 3, "text", [], [1], {}, {"name": {}}, {"value": []}, True, 10**400, {"a": {"a": 1}}]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda n: str(n)[:12])
def test_a_file_that_says_something_else_at_every_key_stops_nothing(here, capsys, nonsense):
    run = Run(here / "runs" / OLDEST)
    for path in (run.setup_file.shown, run.status_file.shown, run.summary_file.shown):
        content = json.loads(path.read_text())
        inner = content.get("metrics", {})
        for keys, tree in ((list(content), content), (list(inner), inner)):
            for key in keys:
                if key not in ("schema", "metrics"):
                    tree[key] = nonsense
        path.write_text(json.dumps(content))
    for words in ([], ["--json"], ["--csv"], ["--sort", "psnr"], ["loss=mse"], ["model=l2"], ["text"]):
        assert cli.run(["runs", "ls", *words]) == 0
    for words in (["runs", "show", "aaaa"], ["compare", "aaaa", "3"],
                  ["compare", "aaaa", "3", "--exit-code"],
                  ["runs", "tag", "aaaa", "x"], ["runs", "show", "aaaa", "--json"]):  # fmt: skip
        assert cli.run(words) in (0, 1), words
    assert "Traceback" not in capsys.readouterr().err


def test_links_and_folders_without_end_are_not_walked_through(here, capsys):
    (here / "runs" / "train" / "again").symlink_to(here / "runs")
    (here / "elsewhere").mkdir()
    made(here / "elsewhere" / "run", "2026-02-01T10:00:00")
    (here / "runs" / "train" / "linked").symlink_to(here / "elsewhere" / "run")
    deep = here / "runs" / "deep"
    for _ in range(40):
        deep /= "d"
    deep.mkdir(parents=True)
    assert len(listed(capsys).out.splitlines()) == 6


def test_runs_may_be_a_link_to_a_larger_disk(here, capsys):
    (here / "runs").rename(here / "disk")
    (here / "runs").symlink_to("disk")
    assert len(listed(capsys).out.splitlines()) == 6 and named("aaaa") == f"runs/{OLDEST}"


def test_a_run_of_an_older_version_is_listed_with_how_to_train_it_again(here, capsys, monkeypatch):
    run = Run(here / "runs" / OLDEST)
    for path in (run.setup_file.shown, run.status_file.shown, run.summary_file.shown):
        changed(path, schema=SCHEMA_VERSION - 1)
    told = listed(capsys)
    assert told.out.splitlines()[1].split()[1:2] == ["aaaa"]
    assert told.out.splitlines()[1].endswith(" ok")
    assert "21.00" not in told.out
    [line] = [line for line in told.err.splitlines() if line.startswith("!")]
    assert "older version of cae" in line and line.endswith(f"train it again: cae rerun runs/{OLDEST}")
    assert cli.run(["rerun", "aaaa", "--cfg", "job"]) == 0
    changed(run.status_file.shown, status="running", boot="another")
    without_locks(monkeypatch)
    assert removed("aaaa") == 2 and "the run may be in progress" in capsys.readouterr().err


def test_a_run_whose_process_is_gone_is_listed_as_interrupted(here, capsys):
    run = Run(here / "runs" / OLDEST)
    run.set_status("running")
    assert "interrupted" in listed(capsys).out.splitlines()[1]
    changed(run.status_file.shown, host="another", boot="another")  # a new container, another node
    assert "interrupted" in listed(capsys).out.splitlines()[1]
    run.check_idle()  # it can be resumed
    assert removed("aaaa") == 0


def test_a_run_whose_folder_cannot_be_opened_hides_no_other(here, capsys, monkeypatch):
    opened = GuardedPath.opened

    def refused(self):
        if OLDEST in str(self):
            raise PermissionError(13, "Permission denied")
        return opened(self)

    monkeypatch.setattr(GuardedPath, "opened", refused)
    told = listed(capsys)
    assert (
        len(told.out.splitlines()) == 6 and "! aaaa: status.json cannot be read: Permission" in told.err
    )


def test_a_thousand_runs_are_listed_numbered_and_found(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first = made(tmp_path / "first", "2026-01-01T00:00:00", "seed=0").folder
    text = first.joinpath("run.json").read_text()
    for i in range(1000):
        stamp = datetime(2026, 1, 1) + timedelta(minutes=i)
        folder = tmp_path / "runs" / f"t{i % 3}" / f"{stamp:%Y-%m-%d_%H-%M-%S}_{i:04d}x"
        shutil.copytree(first, folder)
        own = text.replace("2026-01-01T00:00:00", f"{stamp:%Y-%m-%dT%H:%M:%S}")
        folder.joinpath("run.json").write_text(own.replace('"seed": 0', f'"seed": {i}'))
    runs = json.loads(listed(capsys, "--json").out)
    assert [run["number"] for run in runs] == list(range(1, 1001))
    assert [run["config"]["seed"] for run in runs] == list(range(1000))
    assert len(listed(capsys).out.splitlines()) == 1001
    assert [e.number for e in Registry().entries if e.config["seed"] == 517] == [518]
    assert named("518").endswith("_0517x") and named("0999").endswith("_0999x")
    assert named("last").endswith("_0999x") and named("last-999").endswith("_0000x")
    assert len(listed(capsys, "seed>=990", "--limit", "5").out.splitlines()) == 6


# -- show, tags ------------------------------------------------------------------------------------


def test_a_run_is_shown_with_its_folder_last(here, capsys):
    assert cli.run(["runs", "show", "abcd"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"runs/{SECOND}"
    shown = dict(line.split(maxsplit=1) for line in lines[:-1])
    assert shown["status"] == "interrupted: because" and shown["command"] == "cae train model=l2"
    assert shown["next"] == f"cae resume runs/{SECOND}" and shown["run"] == "abcd, number 2"
    assert shown["images"] == "digits, 8x8x1, 192 train, f00df00d"
    assert cli.run(["runs", "show", "aaaa", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["psnr"] == 21.0


def test_tags_are_added_and_removed_beside_those_of_the_config(here, capsys):
    run = Run(here / "runs" / OLDEST)
    before = {p.name: p.read_bytes() for p in run.folder.iterdir() if p.is_file()}
    assert cli.run(["runs", "tag", "aaaa", "good", "first", "good"]) == 0
    assert capsys.readouterr().out == "old good first\n"
    assert cli.run(["runs", "tag", "aaaa", "-old"]) == 0 and numbers("tag=old") == []
    assert numbers("tag=good") == [1] and numbers("tag=first") == [1]
    capsys.readouterr()
    assert cli.run(["runs", "tag", "aaaa"]) == 0
    assert capsys.readouterr().out == "good first\n"
    after = {p.name: p.read_bytes() for p in run.folder.iterdir() if p.is_file()}
    assert after.pop("tags.json") and after == before


@pytest.mark.parametrize("tag", ["a b", "a,b", "a=b", "", "x" * 100, "a\nb", "\x1b"])
def test_an_invalid_tag_is_refused(here, capsys, tag):
    assert cli.run(["runs", "tag", "aaaa", tag]) == 2
    assert "a tag has at most 60 characters" in capsys.readouterr().err
    assert not Run(here / "runs" / OLDEST).tags_file.shown.exists()


def test_a_tag_that_is_not_there_cannot_be_removed(here, capsys):
    assert cli.run(["runs", "tag", "aaaa", "-odl"]) == 2
    assert "did you mean old?" in capsys.readouterr().err


# -- removal ---------------------------------------------------------------------------------------


def holding(folder):
    """A process that is at work in a folder until its input is closed."""
    code = (
        "import sys; from pathlib import Path; from cae_cli.system.files import at_work\n"
        "from cae_cli.system.guarded import GuardedPath\n"
        "with at_work(GuardedPath(Path(sys.argv[1]))): print('here', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "here\n"
    return process


def removed(*words):
    return cli.run(["runs", "rm", *words, "--yes"])


def test_runs_are_removed_whole_and_the_others_stay(here, capsys):
    assert removed("1", "2") == 0  # both are found before the first goes
    assert [e.name for e in Registry().entries][-1] == NEWEST and len(Registry().entries) == 3
    assert not (here / "runs" / OLDEST).exists() and not (here / "runs" / SECOND).exists()
    assert not [p for p in (here / "runs").rglob("*") if p.name.startswith(".removing")]
    assert f"removed runs/{OLDEST}" in capsys.readouterr().err


@pytest.mark.parametrize("inner", ["", "frozen_encoder/2026-01-09_10-00-00_zzzz"])
def test_a_run_that_another_process_works_in_is_not_removed(here, capsys, inner):
    process = holding(here / "runs" / OLDEST / inner)
    assert removed("aaaa") == 2
    assert "in use by a process" in capsys.readouterr().err and (here / "runs" / OLDEST).exists()
    process.communicate("")
    assert removed("aaaa") == 0 and not (here / "runs" / OLDEST).exists()


def without_locks(monkeypatch):
    """A network file system that has none."""

    def flock(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_without_locks_a_run_of_another_machine_is_removed_with_force_only(here, capsys, monkeypatch):
    without_locks(monkeypatch)
    run = Run(here / "runs" / OLDEST)
    run.set_status("running")
    for words in (["runs", "rm", "aaaa", "--yes"], ["resume", "aaaa"]):
        assert cli.run(words) == 2  # this very process works on it
        assert "the run is in progress" in capsys.readouterr().err
    changed(run.status_file.shown, host="a-node", boot="another")
    for words in (["runs", "rm", "aaaa", "--yes"], ["resume", "aaaa"]):
        assert cli.run(words) == 2 and run.folder.exists()
        told = capsys.readouterr().err
        assert "the run may be in progress" in told and "a-node" in told and "--force" in told
        assert re.search(r"written at \d{4}-\d\d-\d\d \d\d:\d\d", told)
    assert "running" in listed(capsys).out.splitlines()[1]
    assert cli.run(["runs", "rm", "aaaa", "--yes", "--force"]) == 0 and not run.folder.exists()


@pytest.mark.parametrize("change", [{"process_started": 1}, {"pid": 2**22 - 1}])
def test_without_locks_a_process_of_this_machine_that_is_gone_is_known_as_gone(
    here, capsys, monkeypatch, change
):
    without_locks(monkeypatch)
    run = Run(here / "runs" / OLDEST)
    run.set_status("running")
    assert "running" in listed(capsys).out.splitlines()[1]
    changed(run.status_file.shown, **change)  # a number is given again to another process
    assert "interrupted" in listed(capsys).out.splitlines()[1]
    assert removed("aaaa") == 0


def test_a_link_is_not_followed_to_remove_what_it_leads_to(here, capsys):
    outside = here / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    (here / "link").symlink_to(here / "runs" / OLDEST)
    (here / "runs" / OLDEST / "link").symlink_to(outside)
    assert removed("link") == 2 and (here / "runs" / OLDEST).exists()
    assert "a link is not followed" in capsys.readouterr().err
    assert removed("aaaa") == 0 and (outside / "precious").exists()


@pytest.mark.parametrize("files", [{}, {"precious": ""}, {"run.json": "{}"}, {"status.json": "{"}])
def test_what_is_no_run_is_not_removed(here, capsys, files):
    (here / "project").mkdir()
    for name, text in files.items():
        (here / "project" / name).write_text(text)
    assert removed("project") == 2 and (here / "project").is_dir()
    assert not files or all((here / "project" / name).exists() for name in files)
    assert removed("runs") == 2 and removed("runs/train") == 2 and removed(".") == 2
    assert len(Registry().entries) == 5


def test_a_damaged_run_can_be_removed(here):
    run = Run(here / "runs" / OLDEST)
    for path in (run.setup_file.shown, run.status_file.shown):
        path.write_text("{")
    assert removed("aaaa") == 0 and not run.folder.exists()


def test_the_current_folder_is_not_removed(here, monkeypatch, capsys):
    monkeypatch.chdir(here / "runs" / OLDEST)
    assert removed(".") == 2 and "the current folder is inside" in capsys.readouterr().err


def test_a_sweep_is_removed_only_by_its_own_name(here, capsys):
    assert removed("k3f") == 2 and "may be one of 2 runs" in capsys.readouterr().err
    assert cli.run(["runs", "rm", "k3fa"]) == 2
    told = capsys.readouterr().err
    assert "a sweep with 2 jobs, which are removed too" in told and "--yes" in told
    process = holding(here / "runs" / SWEEP / JOBS[1])
    assert removed("k3fa") == 2 and len(Registry().entries) == 5
    process.communicate("")
    assert removed(f"k3fa/{JOBS[0]}") == 0 and len(Registry().entries) == 4
    assert removed(f"runs/{SWEEP}") == 0 and not (here / "runs" / SWEEP).exists()
    assert len(Registry().entries) == 3


def test_removing_needs_confirmation_on_a_terminal(here):
    code, shown = on_a_terminal("runs", "rm", "aaaa", answer=b"n\n", cwd=here)
    assert code == 2 and "remove 1 folder? [y/N]" in shown and "nothing was removed" in shown
    assert f"runs/{OLDEST}  ok, tagged old" in shown and (here / "runs" / OLDEST).exists()
    code, _ = on_a_terminal("runs", "rm", "aaaa", answer=b"y\n", cwd=here)
    assert code == 0 and not (here / "runs" / OLDEST).exists()


def test_what_a_removal_that_was_cut_short_left_is_no_run_and_goes_with_the_next(here):
    left = here / "runs" / Path(OLDEST).with_name(f".removing-{Path(OLDEST).name}")
    shutil.copytree(here / "runs" / OLDEST, left)
    assert len(Registry().entries) == 5
    assert removed("aaaa") == 0 and not left.exists()


# -- compare and diff ------------------------------------------------------------------------------


def compared(capsys, *words):
    assert cli.run(["compare", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_runs_are_listed_side_by_side_with_the_best_marked(here, capsys):
    lines = compared(capsys, "aaaa", "k3fa/loss=mse,seed=0")
    assert "21.00 " in lines[1] and "25.00*" in lines[2] and "0.625*" in lines[2]
    assert "25.0%*" not in lines[1] + lines[2]  # the same for both
    assert not any(line.startswith("!") for line in lines)


def test_figures_of_other_images_are_not_to_be_compared(here, capsys):
    made(here / "runs" / "other", "2026-02-01T10:00:00", psnr=30.0, images="beef" * 16)
    lines = compared(capsys, "aaaa", "other", "5")
    assert not any("*" in line for line in lines[:4])
    [note] = [line for line in lines if line.startswith("! the images differ")]
    assert "are not comparable" in note and "aaaa, 2345: test images f00df00d" in note and "beef" in note


def test_losses_of_different_kinds_are_not_compared(here, capsys):
    for name in JOBS:
        run = Run(here / "runs" / SWEEP / name)
        run.write_metrics([{"epoch": e, "val/loss": v} for e, v in ((0, 3.0), (1, 1.5), (2, 2.0))])
        run.write_training({"measured_epoch": 1})
    lines = compared(capsys, "k3fa")
    assert "val/loss" not in lines[0]
    assert "! val/loss is not comparable: loss=mse, loss=ssim (window=7)" in lines
    run = Run(here / "runs" / OLDEST)
    run.write_metrics([{"epoch": 0, "val/loss": 1.25}])
    lines = compared(capsys, "1", "3")
    assert "val/loss" in lines[0] and "1.25000*" in lines[1] and "1.50000" in lines[2]


def test_a_sweep_is_compared_with_its_best_first(here, capsys):
    lines = compared(capsys, f"runs/{SWEEP}")
    assert [line.split()[0] for line in lines[1:3]] == [f"k3fa/{job}" for job in JOBS]
    assert "loss=ssim loss.window=7 regularization.l2.strength=0.1" in lines[2]
    assert "regularization.l2.strength" not in lines[1]
    lines = compared(capsys, "k3fa", "aaaa", "--by", "psnr", "--top", "2")
    assert len(lines) == 4 and "aaaa" not in "".join(lines)


def test_a_comparison_for_other_programs_has_full_numbers(here, capsys):
    rows = list(csv.DictReader(io.StringIO("\n".join(compared(capsys, "k3fa", "--csv")))))
    assert [float(row["psnr"]) for row in rows] == [25.0, 24.0]
    assert float(rows[0]["mse"]) == 10**-2.5 and rows[1]["loss"] == "loss=ssim (window=7)"
    assert rows[0]["images"] == "f00d" * 16


def test_a_picture_has_the_same_images_through_every_network(here, capsys):
    images = np.random.default_rng(0).random((8, 8, 8, 1), np.float32)
    for shade, name in enumerate(JOBS):
        arrays = {"example_images": images, "example_outputs": np.full_like(images, shade)}
        run = Run(here / "runs" / SWEEP / name)
        run.write_arrays(run.arrays, arrays)
    before = sorted(here.iterdir())
    compared(capsys, "k3fa")
    assert sorted(here.iterdir()) == before
    compared(capsys, "k3fa", "--picture", "side.png")
    with Image.open("side.png") as picture:
        grey = np.asarray(picture.convert("L"), float)
    middle = [grey[row, grey.shape[1] // 4 :].mean() for row in (3 * len(grey) // 6, 5 * len(grey) // 6)]
    assert middle[0] < 60 < 200 < middle[1]  # black by the first, white by the second
    run.write_arrays(run.arrays, {"example_images": 1 - images, "example_outputs": images})
    assert cli.run(["compare", "k3fa", "--picture", "other.png"]) == 2
    assert "have different example images" in capsys.readouterr().err and not Path("other.png").exists()


def test_a_comparison_needs_two_runs(here, capsys):
    for words in ([], ["aaaa"], ["aaaa", "1"], ["aaaa", f"runs/{OLDEST}"]):
        assert cli.run(["compare", *words]) == 2
        assert "two runs or a sweep" in capsys.readouterr().err
    assert cli.run(["compare", "1", "3", "--top", "0"]) == 2
    assert "whole number from 1" in capsys.readouterr().err


def test_differences_are_reported_in_text_and_by_the_exit_code(here, capsys):
    assert cli.run(["compare", "3", "4", "--exit-code"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "config" in lines and "  loss: mse → ssim" in lines
    assert "  loss.window: – → 7" in lines and "  regularization.l2.strength: – → 0.1" in lines
    assert "  psnr: 25 → 24" in lines and "images" not in lines and "code" not in lines
    assert cli.run(["compare", "3", "4"]) == 0
    assert capsys.readouterr().out.splitlines() == lines
    shutil.copytree(here / "runs" / OLDEST, here / "runs" / "copy")
    assert cli.run(["compare", "aaaa", "copy", "--exit-code"]) == 0
    told = capsys.readouterr()
    assert "→" not in told.out and "no difference in config, images" in told.err
    assert cli.run(["compare", "1", "3", "4", "--exit-code"]) == 2
    assert cli.run(["compare", "k3fa", "--exit-code"]) == 1  # a sweep of two runs
    assert "  loss: ssim → mse" in capsys.readouterr().out.splitlines()


def test_other_images_code_and_machines_are_differences(here, capsys):
    run = Run(here / "runs" / OLDEST)
    other = here / "runs" / "copy"
    shutil.copytree(run.folder, other)
    changed(other / "run.json", git={"commit": "fedcba9876543210", "dirty": True},
            packages={"cae-cli": "0.1.0", "numpy": "2.5.0"}, machine={"cores": 8},
            data={"source": "digits", "fingerprint": "0" * 64})  # fmt: skip
    assert cli.run(["compare", "aaaa", "copy", "--exit-code"]) == 1
    shown = capsys.readouterr().out
    for line in (
        "git.commit: 0123456789ab → fedcba987654",
        "git.dirty: false → true",
        "numpy: 2.4.6 → 2.5.0",
        "cores: 2 → 8",
        "fingerprint: f00df00df00d → 000000000000",
    ):
        assert f"  {line}\n" in shown  # fmt: skip
    assert "config" not in shown and "cae-cli" not in shown


def test_numbers_that_differ_in_their_last_digit_are_shown_as_different(here, capsys):
    other = here / "runs" / "copy"
    shutil.copytree(here / "runs" / OLDEST, other)
    summary = json.loads((other / "summary.json").read_text())
    summary["metrics"]["quality"]["psnr"]["value"] = np.nextafter(21.0, 22)
    (other / "summary.json").write_text(json.dumps(summary))
    assert cli.run(["compare", "aaaa", "copy", "--exit-code"]) == 1
    assert "psnr: 21.0 → 21.000000000000004" in capsys.readouterr().out


def test_a_config_is_flat_by_dotted_paths():
    assert flat({"a": {"b": 1, "c": [1, {"d": 2}]}, "e": {}}) == {"a.b": 1, "a.c": [1, {"d": 2}]}


# -- as processes ----------------------------------------------------------------------------------


def test_what_only_reads_files_imports_no_tensorflow(here):
    words = "runs ls psnr>1", "runs tag last x", "compare 1 3", "runs rm last --yes", "runs show last"
    *reading, showing = loaded_after(*map(str.split, words), folder=here)
    assert "cae_cli.runs.registry" in reading[0] and "hydra" not in reading[-1]
    assert not showing & set(HEAVY)  # after the others; it composes today's defaults


def test_a_list_goes_through_a_pipe_in_fixed_columns(here, cae):
    done = cae("runs", "ls", COLUMNS="40")
    lines = done.out.splitlines()
    assert done.code == 0 and len(lines) == 6 and "\x1b" not in done.out
    place = lines[0].index("status")
    assert [line[place:].split()[0] for line in lines[1:3]] == ["ok", "interrupted"]
    command = f"'{sys.executable}' -m cae_cli runs ls | head -1"
    process = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=here,
        env=environment(),
    )  # fmt: skip
    assert process.stderr == ""


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["runs"], "cae runs needs a sub-command", "ls"),
        (["runs", "lst"], "there is no cae runs 'lst'", "did you mean ls?"),
        (["runs", "show"], "one run, got 0", "cae runs show last"),
        (["runs", "show", "lsat"], "no run is called 'lsat'", "did you mean last?"),
        (["runs", "rm"], "one run, got 0", "cae runs rm last"),
        (["runs", "ls", "--limt", "3"], "unrecognized arguments: --limt", "cae runs --help"),
        (["runs", "ls", "--limit", "many"], "whole number from 1", ""),
        (["runs", "ls", "--runs", "nowhere"], "no such folder", ""),
        (["compare", "1"], "two runs or a sweep, got 1 run", "cae compare last-1 last"),
        (
            ["compare", "1", "2", "3", "--exit-code"],
            "--exit-code needs two runs, got 3",
            "cae compare last-1 last",
        ),
        (["rerun"], "one run, got 0", "cae rerun last seed=1"),
        (["report", "lsat"], "no run is called 'lsat'", "did you mean last?"),
        (["resume", "lsat"], "no run is called 'lsat'", "did you mean last?"),
        (["diagnose", "lsat"], "no run is called 'lsat'", "did you mean last?"),
        (["report", "k3fa"], "'k3fa' may be one of 2 runs", "name one of"),
    ],
)
def test_a_mistake_is_one_error_line_and_one_hint(here, capsys, words, what, hint):
    assert cli.run(words) == 2
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert told.out == "" and lines[0].startswith("error: ") and what in lines[0]
    assert not hint or any(line.startswith("hint: ") and hint in line for line in lines)
    assert len(lines) <= 3


def test_commands_that_diagnose_a_run_accept_its_names(here, capsys):
    for words in (["report", "aaaa"], ["diagnose", "1"], ["report", "aaaa", "--runs", "runs"]):
        assert cli.run(words) == 2  # there are no arrays to judge
        assert f"runs/{OLDEST}" in capsys.readouterr().err


def test_the_tab_key_knows_the_commands(cae):
    assert cae("-sc", "query=bash", COMP_LINE="cae run").out.split() == ["runs"]
    assert cae("-sc", "query=bash", COMP_LINE="cae rer").out.split() == ["rerun"]


def test_what_trains_a_run_again_takes_the_last_run_of_cae_train(here, capsys):
    """The callback, and the diagnosis of a file, leave runs that nobody can train again."""
    callback = Run(here / "runs/keras/2026-02-01_10-00-00_kera")
    callback.folder.mkdir(parents=True)
    callback.set_status("ok")
    known = {"loss": {"name": "mse"}, "optimizer": {"name": "adam", "learning_rate": 0.003}}
    callback.write_setup({"time": "2026-02-01T10:00:00", "command": [], "config": known})
    going = Run(here / "runs/keras/2026-02-02_10-00-00_goes")  # it has no run.json yet
    going.folder.mkdir()
    going.set_status("running")
    assert named("last").endswith("goes")
    assert find("last", trained=True).folder.name == NEWEST.rpartition("/")[2]
    assert find("last-1", trained=True).folder.name == JOBS[1]
    for command in ("rerun", "treat", "resume"):
        assert cli.run([command, "last-5"]) == 2
        assert "there are 5 runs of cae train" in capsys.readouterr().err
        assert cli.run([command, "kera"]) == 2
        assert "only runs of cae train can be" in capsys.readouterr().err
    assert cli.run(["runs", "ls", "task=keras", "status=ok"]) == 0
    assert "loss=mse optimizer=adam" in capsys.readouterr().out
