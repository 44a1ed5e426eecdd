"""Sweeps: read from folders in any state, ranked, explained, drawn."""

from __future__ import annotations

import base64
import csv
import errno
import itertools
import json
import os
import re
import shutil
import statistics
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from scipy import stats

import cae_cli
from cae_cli import sweep
from cae_cli.diagnosis.finding import Severity
from cae_cli.errors import UserError
from cae_cli.report import terminal
from cae_cli.report.figures import contact
from cae_cli.report.sections import shortened
from cae_cli.runs import json_files
from cae_cli.runs.folder import Run
from cae_cli.runs.sweep_folder import Objective, PlannedJob, SweepFile, SweepFolder
from cae_cli.system import guarded
from tests.summaries import write_summary

SHAPE = (12, 12, 1)
IMAGES = np.random.default_rng(0).random((8, *SHAPE), np.float32)


def write_job(
    folder,
    overrides,
    psnr,
    *,
    ssim=0.5,
    meaningful=0.4,
    black=0.2,
    fingerprint="f",
    status="ok",
    reason=None,
    code="",
    images=IMAGES,
    common=("data=glyphs",),
    config=None,
):
    """A run's folder, as far as a sweep looks at it; all numbers are made up from the PSNR."""
    folder.mkdir(parents=True)
    run = Run(folder)
    run.set_status("running")
    run.write_setup(
        {
            "command": ["cae", "train", *overrides, *common],
            "config": config or {},
            "data": {"source": "glyphs", "shape": list(SHAPE), "fingerprint": fingerprint},
        }
    )
    if status == "ok":
        write_summary(
            run, psnr, ssim=ssim, explained=psnr / 40, meaningful=meaningful, black=black, code=code
        )
        rng = np.random.default_rng(1)
        run.write_arrays(
            run.arrays,
            {
                "kernel/encoder_1": rng.normal(size=(3, 3, 1, 8)).astype(np.float32),
                "map_std/encoder_1": rng.random(8, np.float32),
                "example_images": images,
                "example_outputs": images / 2,
            },
        )
    if status != "running":
        run.set_status(status, reason)
    return folder


def write_sweep(folder, overrides, swept, target=None):
    """sweep.json, and the names of the jobs' folders."""
    folder.mkdir(exist_ok=True)
    jobs = tuple(PlannedJob(",".join(words), tuple(words)) for words in overrides)
    command = ("cae", "train", "-m")
    SweepFolder(folder).write(SweepFile(command, tuple(swept), "running", target, jobs))
    return [folder / job.folder for job in jobs]


LOSSES, MODELS = ("mse", "mae", "ssim"), ("baseline", "l2")


def psnr_of(loss, model, seed):
    effect = {"mse": 20.0, "mae": 19.9, "ssim": 18.0}[loss] + {"baseline": 0, "l2": 0.01}[model]
    noise = np.sin(7 * seed + 11 * LOSSES.index(loss) + 5 * MODELS.index(model))
    return effect + [0.0, 0.8, -0.5][seed] + 0.1 * noise


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A finished sweep of 3 losses, 2 models and 3 seeds."""
    folder = tmp_path_factory.mktemp("finished") / "sweep"
    product = list(itertools.product(LOSSES, MODELS, range(3)))
    words = [[f"loss={loss}", f"model={model}", f"seed={s}"] for loss, model, s in product]
    paths = write_sweep(folder, words, ["loss", "model", "seed"])
    for path, own, (loss, model, s) in zip(paths, words, product, strict=True):
        psnr = psnr_of(loss, model, s)
        write_job(
            path, own, psnr, ssim=0.5 + 0.1 * (loss == "ssim") + 0.01 * np.sin(psnr), code="CAE211"
        )
    return folder


def test_a_sweep_is_rows_for_a_program(tmp_path):
    values = {"a=1,seed=0": 20.0, "a=1,seed=1": 22.0, "a=2,seed=0": 25.0, "a=2,seed=1": 27.0}
    folder = tmp_path / "sweep"
    write_sweep(folder, [name.split(",") for name in values], ["a", "seed"])
    for name, psnr in values.items():
        write_job(folder / name, name.split(","), psnr)
    found = cae_cli.Sweep(folder)
    first, second = found.leaderboard
    assert (first["rank"], first["a"], first["psnr"], first["seeds"]) == (1, "2", 26.0, 2)
    assert second["psnr"] == 21.0 and second["psnr_margin"] == pytest.approx(12.7062, abs=1e-3)
    assert first["runs"] == ["a=2,seed=0", "a=2,seed=1"] and "4 jobs" in repr(found)
    assert [run.path for run in found.runs] == [folder / name for name in values]


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    """No power is cut here, so that nobody waits for the disk."""
    monkeypatch.setattr(guarded, "_to_disk", lambda descriptor: None)


@pytest.fixture
def grid(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "sweep")


def text_of(folder):
    return terminal.as_text(sweep.rebuild(folder))


def leaderboard(folder):
    return json.loads((folder / "leaderboard.json").read_text())


def table(folder, kind):
    with (folder / "leaderboard.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["row"] == kind]


# -- sweep.json --------------------------------------------------------------------------------------


def test_a_sweep_is_read_as_it_was_written(tmp_path):
    jobs = (PlannedJob("loss=mse", ("loss=mse",)), PlannedJob("loss=mae", ("loss=mae",)))
    file = SweepFile(("cae", "train", "-m"), ("loss",), "ok", Objective("val/psnr", "max"), jobs)
    SweepFolder(tmp_path).write(file)
    assert SweepFolder(tmp_path).read() == file


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"schema": 2}, "newer version"),
        ({"schema": "1"}, "not a file of cae"),
        ({"jobs": [{"folder": "../other", "overrides": []}]}, "not a file of cae"),
        ({"jobs": [{"folder": "/etc", "overrides": []}]}, "not a file of cae"),
        ({"jobs": [{"folder": "..", "overrides": []}]}, "not a file of cae"),
        ({"jobs": [{"folder": "a\0b", "overrides": []}]}, "not a file of cae"),
        ({"jobs": [{"folder": "a", "overrides": []}] * 2}, "not a file of cae"),
        ({"jobs": [{"folder": "a", "overrides": "loss=mse"}]}, "not a file of cae"),
        ({"jobs": 7}, "not a file of cae"),
        ({"swept": None}, "not a file of cae"),
        ({"status": ["ok"]}, "not a file of cae"),
        ({"optimized_metric": {"name": "val/psnr", "goal": "most"}}, "not a file of cae"),
    ],
)
def test_a_foreign_sweep_file_is_refused_and_the_jobs_are_found_without_it(grid, change, what):
    path = grid / "sweep.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=what):
        SweepFolder(grid).read()
    text = text_of(grid)
    assert ("18 jobs, all finished" in text and "sweep.json was" in text) or "sweep.json is" in text


# -- leaderboard -------------------------------------------------------------------------------------


def test_the_leaderboard_is_what_the_jobs_files_say(grid):
    sweep.rebuild(grid)
    figures = {}
    for path in grid.glob("*/summary.json"):
        loss, model, seed = (word.partition("=")[2] for word in path.parent.name.split(","))
        quality = json.loads(path.read_text())["metrics"]["quality"]
        of_seed = {"psnr": quality["psnr"]["value"], "ssim": quality["ssim"]["value"]}
        of_seed |= {"mse": quality["mse"]["value"], "explained": quality["explained_variance"]}
        figures.setdefault((loss, model), {})[seed] = of_seed
    order = sorted(figures, key=lambda c: -statistics.mean(f["psnr"] for f in figures[c].values()))
    rows = table(grid, "configuration")
    assert [(row["loss"], row["model"]) for row in rows] == order
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    first = figures[order[0]]
    for row, saved in zip(rows, leaderboard(grid)["configurations"], strict=True):
        own = figures[row["loss"], row["model"]]
        assert (row["seed"], row["seeds"], row["inactive"], row["status"]) == (
            "",
            "3",
            "0.125",
            "3 of 3 ok",
        )
        for name in ("psnr", "ssim", "mse", "explained"):
            values = [f[name] for f in own.values()]
            sem = statistics.stdev(values) / 3**0.5
            expected = (statistics.mean(values), statistics.stdev(values), stats.t.ppf(0.975, 2) * sem)
            assert [float(row[f"{name}{k}"]) for k in ("", "_std", "_margin")] == pytest.approx(expected)
            assert [saved["figures"][name][k] for k in ("value", "std", "margin")] == pytest.approx(
                expected
            )
        if row["rank"] == "1":
            continue
        pairs = [own[s]["psnr"] - first[s]["psnr"] for s in own]
        assert float(row["psnr_behind"]) == pytest.approx(statistics.mean(pairs))
        low, high = stats.t.interval(0.95, 2, statistics.mean(pairs), stats.sem(pairs))
        assert (row["tied"] == "1") == (low <= 0 <= high)
        assert saved["tied"] == (low <= 0 <= high)
    assert {row["tied"] for row in rows} == {"0", "1"}
    jobs = table(grid, "job")
    assert len(jobs) == 18
    for row in jobs:
        written = json.loads((grid / row["folder"] / "summary.json").read_text())
        assert float(row["psnr"]) == pytest.approx(written["metrics"]["quality"]["psnr"]["value"])
        assert (row["status"], row["code"], row["problem"]) == ("ok", "CAE211", "a problem")


def test_a_leaderboard_may_be_larger_than_the_json_files_that_are_read(finished, tmp_path, monkeypatch):
    folder = tmp_path / "sweep"
    shutil.copytree(finished, folder)
    monkeypatch.setattr(json_files, "MOST_JSON", 8000)  # bytes; that of each job has fewer
    shown = terminal.as_text(sweep.rebuild(folder))
    assert (folder / "leaderboard.json").stat().st_size > 8000
    assert "mae" in shown
    page = (folder / "report.html").read_text()
    [content] = re.findall(
        r'download="leaderboard.json" href="data:application/json;base64,([^"]+)"', page
    )
    assert json.loads(base64.b64decode(content)) == json.loads((folder / "leaderboard.json").read_text())


def test_the_screen_shows_order_ties_reasons_and_where_the_figures_are(grid):
    text = text_of(grid)
    lines = text.splitlines()
    assert "18 jobs, all finished" in text
    assert "ranked by PSNR, on 100 test images 12x12x1" in text
    ranked = [line for line in lines if line[:1].isdigit() and "CAE211" in line]
    assert [line[0] for line in ranked] == list("123456")
    assert [line[2] for line in ranked] == [
        "≈" if c["tied"] else " " for c in leaderboard(grid)["configurations"]
    ]
    assert "≈: no significant difference from the first (3 seeds, paired)" in text
    assert "contact.png" in lines[-1] and (grid / "contact.png").is_file()


def cells_of(text, title, key, value):
    """A line of the table of effects as {column: cell}."""
    lines = text.splitlines()
    start = lines.index(title) + 1
    heads = re.split(r"\s{2,}", lines[start].strip())
    found, last = {}, ""
    for line in lines[start + 1 :]:
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) < 3:  # below the table
            break
        if line[0] != " ":
            last, *cells = cells
        found[last, cells[0]] = cells[1:]
    assert heads[:3] == ["key", "value", "instead of"]
    return dict(zip(heads[2:], found[key, value], strict=False))


def test_effects_are_a_table_with_a_line_for_each_value(grid):
    text = text_of(grid)
    saved = json.loads((grid / "effects.json").read_text())
    found = saved["effects"]["psnr"]["keys"]["loss"]
    pairs = [
        statistics.mean(psnr_of("ssim", m, s) - psnr_of("mse", m, s) for m in ("baseline", "l2"))
        for s in range(3)
    ]
    difference = found["differences"][saved["values"]["loss"].index("ssim") - 1]
    assert difference["value"] == pytest.approx(statistics.mean(pairs))
    assert difference["margin"] == pytest.approx(stats.t.ppf(0.975, 2) * stats.sem(pairs))
    ssim = cells_of(text, "effects on PSNR", "loss", "ssim")
    margin = difference["margin"]
    assert ssim["instead of"] == "mse"
    assert ssim["PSNR / dB"] == f"{difference['value']:+.2f} ± {margin:.2f}*"
    assert re.fullmatch(r"\+0\.\d+ ± 0\.\d+\*", ssim["SSIM"])
    l2 = cells_of(text, "effects on PSNR", "model", "l2")
    assert l2["instead of"] == "baseline" and "*" not in l2["PSNR / dB"]
    shares = {key: own["share"] for key, own in saved["effects"]["psnr"]["keys"].items()}
    assert l2["share"] == f"{shares['model']:.0%}"
    assert f"{shares['loss']:.0%}" in text
    assert f"seeds {saved['effects']['psnr']['seed_share']:.0%}" in " ".join(text.split())


def test_differences_of_one_seed_may_be_chance(tmp_path):
    words = [[f"loss={loss}"] for loss in ("mse", "mae")]
    for path, own in zip(write_sweep(tmp_path / "s", words, ["loss"]), words, strict=True):
        write_job(path, own, 20.0 + len(own[0]) + (own == ["loss=mae"]))
    text = text_of(tmp_path / "s")
    assert "the differences may be chance. Use seed=0,1,2" in text
    assert cells_of(text, "effects on PSNR", "loss", "mae")["PSNR / dB"] == "+1.00"
    assert not set("±≈*") & set(text) and "share" not in text
    assert not any(c["tied"] for c in leaderboard(tmp_path / "s")["configurations"])


def test_splits_are_averaged_and_compared_in_pairs(tmp_path):
    product = list(itertools.product(["mse", "mae"], range(3)))
    words = [[f"loss={loss}", f"data.seed={s}"] for loss, s in product]
    paths = write_sweep(tmp_path / "s", words, ["loss", "data.seed"])
    for path, own, (loss, s) in zip(paths, words, product, strict=True):
        psnr = 20 + 5 * s + 0.3 * (loss == "mae") + 0.001 * s * len(path.name)
        write_job(path, own, psnr, black=0.2 + 0.01 * s, fingerprint=f"{s}")
    text = text_of(tmp_path / "s")
    assert "3 sets of them" in text and "different tables" not in text
    first, second = leaderboard(tmp_path / "s")["configurations"]
    assert first["values"] == {"loss": "mae"} and not second["tied"]
    assert second["behind"]["value"] == pytest.approx(-0.3, abs=0.02)


def test_jobs_measured_on_other_images_are_not_ranked_against_each_other(tmp_path):
    words = [
        [f"data={data}", f"loss={loss}"] for data in ("digits", "glyphs") for loss in ("mse", "mae")
    ]
    paths = write_sweep(tmp_path / "s", words, ["data", "loss"])
    for k, (path, own) in enumerate(zip(paths, words, strict=True)):
        write_job(
            path, own, 20.0 + k, black=0.1 + (k > 1), fingerprint=f"{k > 1}", images=IMAGES + (k > 1)
        )
    shown = text_of(tmp_path / "s")
    text = " ".join(shown.split())
    assert text.count("ranked by PSNR") == 2
    # In a table of one kind of data there is no column for it.
    assert "loss PSNR / dB" in text and "data loss" not in text
    assert "Configurations of different tables cannot be compared" in text
    assert [c["rank"] for c in leaderboard(tmp_path / "s")["configurations"]] == [1, 2, 1, 2]
    assert cells_of(shown, "effects on PSNR", "data", "glyphs")["PSNR / dB"] == "–"
    assert cells_of(shown, "effects on PSNR", "loss", "mae")["PSNR / dB"] == "+1.00"
    assert "–: no two finished jobs differ in this key alone" in text


def test_more_training_images_and_the_same_test_images_are_ranked_together(tmp_path):
    words = [[f"data.train={n}"] for n in (100, 200, 400)]
    paths = write_sweep(tmp_path / "s", words, ["data.train"])
    for k, (path, own) in enumerate(zip(paths, words, strict=True)):
        write_job(path, own, 20.0 + k, fingerprint=f"{k}")
    text_of(tmp_path / "s")
    assert [c["rank"] for c in leaderboard(tmp_path / "s")["configurations"]] == [1, 2, 3]


def test_keys_that_always_change_together_are_explained_together(tmp_path):
    words = [["model=baseline", "loss=mse"], ["model=l2", "loss=ssim"]]
    words = [[*own, f"seed={s}"] for own in words for s in range(3)]
    paths = write_sweep(tmp_path / "s", words, ["model", "loss", "seed"])
    for k, (path, own) in enumerate(zip(paths, words, strict=True)):
        write_job(path, own, 20.0 - (k > 2) + 0.01 * k * k)
    cells = cells_of(text_of(tmp_path / "s"), "effects on PSNR", "model,loss", "l2,ssim")
    assert cells["instead of"] == "baseline,mse" and cells["PSNR / dB"].startswith("-0.")


def test_keys_that_depend_on_each_other_are_part_of_the_rest(tmp_path):
    product = list(itertools.product("ab", "xy", range(4)))
    words = [[f"one={a}", f"two={b}", f"seed={s}"] for a, b, s in product]
    paths = write_sweep(tmp_path / "s", words, ["one", "two", "seed"])
    for path, own, (a, b, s) in zip(paths, words, product, strict=True):
        write_job(path, own, 20.0 + ((a == "a") == (b == "x")) + 0.01 * s + 0.001 * (s * ord(a) % 5))
    text = text_of(tmp_path / "s")
    assert "noise and interactions 100%" in " ".join(text.split())
    assert cells_of(text, "effects on PSNR", "one", "b")["share"] == "0%"


def test_of_many_values_the_best_are_shown(tmp_path):
    product = list(itertools.product(range(20), range(2)))
    words = [[f"model.latent_channels={x}", f"seed={s}"] for x, s in product]
    paths = write_sweep(tmp_path / "s", words, ["model.latent_channels", "seed"])
    for path, own, (x, s) in zip(paths, words, product, strict=True):
        write_job(path, own, 20 - abs(x - 7) + s + 0.001 * x * s)
    text = text_of(tmp_path / "s")
    assert cells_of(text, "effects on PSNR", "model.latent_channels", "7")["PSNR / dB"][:5] == "+7.00"
    assert "11 more values in effects.json" in text
    with pytest.raises(KeyError):
        cells_of(text, "effects on PSNR", "model.latent_channels", "19")


@pytest.mark.parametrize(
    ("target", "first", "said"),
    [
        (None, "mse", "ranked by PSNR"),
        (Objective("val/ssim", "max"), "ssim", "ranked by SSIM"),
        (Objective("meaningful", "max"), "mse", "ranked by meaningful"),
        (Objective("val/psnr", "min"), "ssim", "ranked by PSNR"),
        (Objective("val/loss", "min"), "mse", "val/loss cannot be compared between losses"),
    ],
)
def test_the_metric_is_psnr_unless_the_sweep_is_made_for_another(grid, target, first, said):
    file = SweepFolder(grid).read()
    SweepFolder(grid).write(SweepFile(file.command, file.swept, "ok", target, file.jobs))
    assert said in text_of(grid)
    assert leaderboard(grid)["configurations"][0]["values"]["loss"] == first


# -- jobs in any state -------------------------------------------------------------------------------


def cut(name):
    def damage(job):
        path = job / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def replaced(name, **change):
    def damage(job):
        content = json.loads((job / name).read_text())
        (job / name).write_text(json.dumps({**content, **change}))

    return damage


def written(name, text):
    return lambda job: (job / name).write_text(text)


def in_its_place(job):
    shutil.rmtree(job)
    job.write_text("a file")


DAMAGE = {
    "cut status": (cut("status.json"), "unreadable", "status.json is not valid JSON"),
    "cut summary": (cut("summary.json"), "unreadable", "summary.json is not valid JSON"),
    "cut run": (cut("run.json"), "unreadable", "run.json is not valid JSON"),
    "no summary": (lambda j: (j / "summary.json").unlink(), "unreadable", "summary.json is missing"),
    "no run": (lambda j: (j / "run.json").unlink(), "unreadable", "run.json is missing"),
    "no status": (lambda j: (j / "status.json").unlink(), "not started", ""),
    "empty": (lambda j: [f.unlink() for f in j.iterdir()], "not started", ""),
    "gone": (shutil.rmtree, "not started", ""),
    "a file": (in_its_place, "unreadable", "where a folder belongs"),
    "newer": (replaced("summary.json", schema=99), "unreadable", "newer version"),
    "older": (replaced("summary.json", schema=1), "unreadable", "older version"),
    "list": (written("summary.json", "[1, 2]"), "unreadable", "not a file of cae"),
    "foreign": (written("summary.json", '{"schema": 3}'), "unreadable", "not a file of cae"),
    "deep": (written("run.json", "[" * 100_000), "unreadable", "not valid JSON"),
    "not text": (lambda j: (j / "run.json").write_bytes(b"\xff\xfe\0"), "unreadable", "not valid JSON"),
    "status of another kind": (
        replaced("status.json", status=["ok"]),
        "unreadable",
        "not a file of cae",
    ),
    "measures of another kind": (
        replaced("summary.json", metrics=[1]),
        "unreadable",
        "not a file of cae",
    ),
    "data of another kind": (replaced("run.json", data=7), "unreadable", "does not describe the images"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_job_is_reported_and_the_others_are_ranked(grid, kind):
    damage, status, problem = DAMAGE[kind]
    hurt = grid / "loss=mse,model=l2,seed=1"
    damage(hurt)
    text = " ".join(text_of(grid).split())
    assert "18 jobs, 1 not finished" in text and hurt.name in text and status in text
    assert problem in text
    [row] = [row for row in table(grid, "job") if row["folder"] == hurt.name]
    assert (row["status"], row["psnr"]) == (status, "")
    [own] = [r for r in table(grid, "configuration") if (r["loss"], r["model"]) == ("mse", "l2")]
    assert (own["seeds"], own["status"]) == ("2", "2 of 3 ok")
    assert float(own["psnr"]) == pytest.approx(statistics.mean(psnr_of("mse", "l2", s) for s in (0, 2)))


@pytest.mark.parametrize(
    "damage",
    [
        cut("arrays.npz"),
        lambda job: (job / "arrays.npz").unlink(),
        written("arrays.npz", "no arrays"),
        lambda job: np.savez(
            job / "arrays.npz", example_images=np.zeros(3), example_outputs=np.zeros(3)
        ),
        lambda job: np.savez(
            job / "arrays.npz",
            example_images=IMAGES,
            example_outputs=IMAGES,
            **{"kernel/encoder_1": np.array("text"), "map_std/encoder_1": np.zeros(2)},
        ),
    ],
)
def test_damaged_pictures_cost_a_job_its_row_and_not_its_rank(grid, damage):
    damage(grid / "loss=mse,model=l2,seed=1")
    assert "18 jobs, all finished" in text_of(grid)
    Image.open(grid / "contact.png").verify()


@pytest.mark.parametrize(
    "metrics",
    [
        {"quality": {"psnr": {"value": "20"}}},
        {"quality": {"psnr": 3}},
        {"layers": "encoder"},
        {"layers": [7, {"name": 3, "maps": {"inactive": "no"}}]},
        {"score": None},
        {"score": {"value": 1e999}},
    ],
)
def test_measures_of_another_kind_count_as_not_measured(grid, metrics):
    path = grid / "loss=mse,model=l2,seed=1" / "summary.json"
    content = json.loads(path.read_text())
    for key, value in metrics.items():
        old = content["metrics"][key]
        content["metrics"][key] = {**old, **value} if isinstance(old, dict) and value else value
    path.write_text(json.dumps(content))
    assert "18 jobs, all finished" in text_of(grid)


@pytest.mark.parametrize(
    "findings",
    ["text", [3], [{"severity": "terrible"}], [{"severity": ["error"]}], [{"code": "CAE211"}], None],
)
def test_findings_of_another_kind_are_none(grid, findings):
    for path in grid.glob("*/summary.json"):
        content = json.loads(path.read_text())
        content["diagnosis"]["findings"] = findings
        path.write_text(json.dumps(content))
    assert "none found" in text_of(grid)
    assert not sweep.read(grid).reaches(Severity.NOTE)


def test_failed_and_interrupted_jobs_are_reported_with_a_reason_and_not_counted(tmp_path):
    words = [[f"seed={s}"] for s in range(5)]
    paths = write_sweep(tmp_path / "s", words, ["seed"])
    write_job(paths[0], words[0], 20.0, code="CAE211")
    write_job(paths[1], words[1], 0.0, status="failed", reason="the training diverged")
    write_job(paths[2], words[2], 0.0, status="interrupted", reason="interrupted by signal 15")
    write_job(paths[3], words[3], 0.0, status="running")  # and its process is gone
    text = " ".join(text_of(tmp_path / "s").split())
    assert "5 jobs, 4 not finished" in text
    assert "failed seed=1: the training diverged" in text
    assert "interrupted seed=2: interrupted by signal 15" in text
    assert "interrupted seed=3: its process ended without reporting" in text
    assert "not started seed=4" in text
    [row] = table(tmp_path / "s", "configuration")
    assert (float(row["psnr"]), row["seeds"], row["status"]) == (20.0, "1", "1 of 5 ok")


def test_a_sweep_is_as_bad_as_its_worst_finding(grid):
    found = sweep.read(grid)
    assert found.reaches(Severity.WARNING) and found.reaches(Severity.NOTE)
    assert not found.reaches(Severity.ERROR)


def test_a_sweep_of_which_nothing_finished_has_a_leaderboard_of_nothing(tmp_path):
    words = [[f"loss={loss}"] for loss in ("mse", "mae")]
    folder = tmp_path / "s"
    paths = write_sweep(folder, words, ["loss"])
    write_job(paths[0], words[0], 0.0, status="failed", reason="no images")
    (folder / "contact.png").write_bytes(b"of an earlier time")
    text = text_of(folder)
    assert "2 jobs, 2 not finished" in text and "ranked" not in text and "contact" not in text
    assert not (folder / "contact.png").exists()
    assert [c["rank"] for c in leaderboard(folder)["configurations"]] == [None, None]


def test_a_sweep_without_jobs_is_no_error(tmp_path):
    write_sweep(tmp_path / "s", [], [])
    assert "0 jobs, all finished" in text_of(tmp_path / "s")


# -- folders without sweep.json ----------------------------------------------------------------------


def test_without_a_sweep_file_the_commands_say_what_was_swept(grid):
    before = text_of(grid)
    (grid / "sweep.json").unlink()
    (grid / "notes").mkdir()
    assert sweep.read(grid).swept == ("loss", "model", "seed")
    # The order of the jobs is that of their names, so that another value may come first.
    assert sorted(text_of(grid).splitlines()[2:10]) == sorted(before.splitlines()[2:10])


def test_without_commands_that_name_the_same_keys_the_configs_say_it(tmp_path):
    for k, (size, seed) in enumerate(itertools.product((3, 5), (0, 1))):
        config = {"seed": seed, "model": {"kernel_size": size, "filters": [4]}, "regularization": {}}
        own = ["model.kernel_size=5"] if size == 5 else []
        write_job(tmp_path / f"{k}_job", own, 20.0 + k, config=config, common=())
    found = sweep.read(tmp_path)
    assert found.swept == ("seed", "model.kernel_size")
    assert [job.values["model.kernel_size"] for job in found.jobs] == ["3", "3", "5", "5"]


def test_a_choice_is_shown_by_its_name_and_not_by_the_options_it_sets(tmp_path):
    losses = [{"name": "mse"}, {"name": "ssim", "window": 7}, {"name": "ssim", "window": 11}]
    for k, (loss, kinds) in enumerate(itertools.product(losses, ({}, {"l2": {"strength": 0.1}}))):
        config = {"loss": loss, "regularization": kinds, "model": {"filters": [4]}}
        write_job(tmp_path / f"{k}", ["+x=1"] * k, 20.0 + k, config=config, common=())
    found = sweep.read(tmp_path)
    assert found.swept == ("loss", "regularization", "loss.window")
    assert [tuple(job.values.values()) for job in found.jobs[:4]] == [
        ("mse", "none", ""),
        ("mse", "l2", ""),
        ("ssim", "none", "7"),
        ("ssim", "l2", "7"),
    ]


def test_numbered_jobs_of_an_older_sweep_are_in_the_order_of_their_numbers(tmp_path):
    for k in (0, 2, 10, 1):
        write_job(tmp_path / f"{k}_seed={k}", [f"seed={k}"], 20.0)
    assert [job.values["seed"] for job in sweep.read(tmp_path).jobs] == ["0", "1", "2", "10"]


def test_a_folder_that_is_none_is_the_users_to_mend(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        sweep.rebuild(tmp_path / "none")


# -- files and screen --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["leaderboard.csv", "leaderboard.json", "effects.json", "contact.png"])
@pytest.mark.parametrize("why", ["folder", "disk"])
def test_what_cannot_be_written_is_reported_and_leaves_no_partial_file(grid, name, why, monkeypatch):
    if why == "folder":
        (grid / name).mkdir()
    else:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        monkeypatch.setattr(guarded._Folder, "replace", Mock(side_effect=full))
    expected = {"folder": f"{name} is a folder, where a file", "disk": "cannot write the leaderboard"}
    with pytest.raises(UserError, match=expected[why]):
        sweep.rebuild(grid)
    assert not list(grid.glob(".unfinished*"))


def test_the_same_jobs_give_the_same_files(grid):
    names = ("leaderboard.csv", "leaderboard.json", "effects.json", "contact.png")
    text_of(grid)
    before = [(grid / name).read_bytes() for name in names]
    text_of(grid)
    assert [(grid / name).read_bytes() for name in names] == before


@pytest.mark.parametrize("keys", [1, 3, 9])
def test_the_table_fits_eighty_columns_and_the_file_has_the_whole_names(tmp_path, keys):
    long = [f"a_group.with_a_long_name_{k}=and_a_value_that_goes_on_and_on" for k in range(keys)]
    words = [[*(f"{word}_{v}" for word in long), f"seed={s}"] for v in "xy" for s in range(2)]
    swept = [word.partition("=")[0] for word in words[0]]
    jobs = tuple(PlannedJob(f"{k}", tuple(own)) for k, own in enumerate(words))
    SweepFolder(tmp_path).write(SweepFile(("cae",), tuple(swept), "ok", None, jobs))
    for k, own in enumerate(words):
        write_job(tmp_path / f"{k}", own, 20.0 + k, code="CAE211")
    lines = terminal.as_text(sweep.rebuild(tmp_path), 80).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("ranked by"))
    assert all(len(line) <= 80 for line in lines[start : start + 4])
    assert [line[0] for line in lines[start + 2 : start + 4]] == ["1", "2"]
    assert table(tmp_path, "configuration")[0][swept[0]] == "and_a_value_that_goes_on_and_on_y"


def test_of_many_configurations_the_first_are_shown_and_all_are_in_the_file(tmp_path):
    words = [[f"model.filters={n}"] for n in range(30)]
    for path, own in zip(write_sweep(tmp_path / "s", words, ["model.filters"]), words, strict=True):
        write_job(path, own, 20.0 + int(path.name.partition("=")[2]))
    text = text_of(tmp_path / "s")
    assert "10 more in leaderboard.csv" in text
    assert len(table(tmp_path / "s", "configuration")) == 30


def test_control_characters_of_strangers_are_shown_and_not_sent_to_the_terminal(tmp_path):
    words = [["loss=\x1b[31mred", "seed=0"], ["loss=[bold]mse", "seed=0"]]
    jobs = tuple(PlannedJob(f"{k}\x1b]0;title\x07", tuple(own)) for k, own in enumerate(words))
    SweepFolder(tmp_path).write(SweepFile(("cae",), ("loss", "seed"), "ok", None, jobs))
    write_job(tmp_path / jobs[0].folder, words[0], 20.0)
    write_job(tmp_path / jobs[1].folder, words[1], 19.0, code="\x1b[2J")
    text = text_of(tmp_path)
    write_job(tmp_path / "other", words[1], 19.0)
    shutil.rmtree(tmp_path / jobs[1].folder)
    text += text_of(tmp_path)
    assert "\x1b" not in text and "\x07" not in text
    assert "[bold]mse" in text and "\\x1b[31mred" in text


@pytest.mark.skipif(os.name == "nt", reason="names are bytes on Unix only")
def test_a_folder_whose_name_is_not_utf_8_is_read(tmp_path):
    folder = tmp_path / os.fsdecode(b"sw\xffep")
    write_job(folder / os.fsdecode(b"a\xff"), ["loss=mse"], 20.0)
    write_job(folder / "b", ["loss=mae"], 21.0)
    assert "2 jobs, all finished" in text_of(folder)
    assert "a\\udcff" in (folder / "leaderboard.csv").read_text()


# -- contact sheet -----------------------------------------------------------------------------------


def drawn(monkeypatch, folder):
    """Names of the rows of the contact sheet, and its tiles."""
    kept = {}
    real = contact.grid

    def keeping(title, rows, names, **more):
        kept.update(rows=rows, names=names, **more)
        return real(title, rows, names, **more)

    monkeypatch.setattr(contact, "grid", keeping)
    sweep.rebuild(folder)
    return kept


def test_the_contact_sheet_has_every_job_in_order_below_the_same_images(grid, monkeypatch):
    failed = grid / "loss=ssim,model=l2,seed=2"
    shutil.rmtree(failed)
    write_job(failed, ["loss=ssim"], 0, status="failed", reason="the training diverged")
    kept = drawn(monkeypatch, grid)
    assert kept["names"][0] == "held-out images" and len(kept["names"]) == 19
    order = [row["folder"] for row in table(grid, "job")]
    assert [name.splitlines()[0].replace(", ", ",") for name in kept["names"][1:]] == order
    gap = next(i for i, name in enumerate(kept["names"]) if "failed: the training diverged" in name)
    assert all(tile is None for tile in kept["rows"][gap])
    first = contact.MOST_FILTERS + 1
    original = kept["rows"][0][first]
    assert np.abs(kept["rows"][1][first] - original / 2).max() < 0.01
    assert [tile is not None for tile in kept["rows"][1][:first]] == [True] * 8 + [False]


def test_jobs_with_other_images_stand_below_their_own(tmp_path, monkeypatch):
    words = [["data=a"], ["data=b"]]
    paths = write_sweep(tmp_path / "s", words, ["data"])
    write_job(paths[0], words[0], 20.0)
    wide = np.random.default_rng(3).random((5, 10, 30, 3), np.float32)
    write_job(paths[1], words[1], 21.0, black=0.7, fingerprint="g", images=wide)
    kept = drawn(monkeypatch, tmp_path / "s")
    assert kept["names"].count("held-out images") == 2 and list(kept["groups"]) == [2, 2]
    assert len({tile.shape for row in kept["rows"] for tile in row if tile is not None}) == 1


def test_networks_that_diverged_are_drawn_too(grid):
    run = Run(grid / "loss=mse,model=l2,seed=1")
    arrays = run.read_arrays(run.arrays)
    arrays["kernel/encoder_1"][:] = np.nan
    arrays["example_outputs"][:] = np.inf
    run.write_arrays(run.arrays, arrays)
    text_of(grid)
    Image.open(grid / "contact.png").verify()


def test_a_thousand_jobs_are_read_ranked_and_the_sheet_stays_small(tmp_path):
    template = write_job(tmp_path / "template", ["loss=mse"], 20.0)
    folder = tmp_path / "s"
    product = list(itertools.product(range(20), range(10), range(5)))
    words = [[f"model.filters={a}", f"loss.window={b}", f"seed={s}"] for a, b, s in product]
    paths = write_sweep(folder, words, ["model.filters", "loss.window", "seed"])
    for path, (a, b, s) in zip(paths, product, strict=True):
        shutil.copytree(template, path)
        content = json.loads((path / "summary.json").read_text())
        psnr = 20 + 0.1 * a + 0.03 * b + s + 0.01 * np.sin(a * b * s)
        content["metrics"]["quality"]["psnr"]["value"] = psnr
        (path / "summary.json").write_text(json.dumps(content))
    text = text_of(folder)
    assert "1000 jobs, all finished" in text
    assert leaderboard(folder)["configurations"][0]["values"]["model.filters"] == "19"
    assert len(table(folder, "job")) == 1000
    with Image.open(folder / "contact.png") as picture:
        assert picture.height < 80 * (contact.MOST_JOBS + 2) and picture.width < 2000


def test_leaving_the_middle_out_keeps_both_ends():
    assert shortened("abcdefghij", 5) == "ab…ij" and shortened("abc", 3) == "abc"
    assert [len(shortened("x" * 30, n)) for n in range(1, 30)] == list(range(1, 30))
