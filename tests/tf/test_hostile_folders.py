"""A run folder from a stranger: nothing in it leads outside, blocks, or fills the memory."""

import os
import random
import shutil
from pathlib import Path

import pytest

from cae_cli.errors import UserError
from cae_cli.runs.folder import Run
from cae_cli.sweep.fingerprint import Fingerprint, claim_folder
from cae_cli.system.guarded import GuardedPath
from tests.conftest import called
from tests.tf.hostile import KINDS, check, names_of, plant

pytestmark = pytest.mark.tf

CASES = int(os.environ.get("CAE_FUZZ", "0"))
RUN = "runs/smoke/hostile"
READING = [
    ["runs", "ls"],
    ["runs", "show", RUN],
    ["runs", "tag", RUN, "seen"],
    ["compare", RUN, "runs/smoke/other", "--picture", "picture.png"],
    ["rerun", RUN, "--cfg", "job"],
    ["sweep", "status", "runs/smoke"],
    ["diagnose", RUN],
    ["resume", RUN],
]
USING = [
    ["encode", RUN, "--out", "codes.npz"],
    ["reconstruct", RUN, "--out", "made"],
    ["export", RUN, "--format", "keras"],
]
DRAWING = ["report", RUN]
REMOVING = ["runs", "rm", RUN, "--yes"]
TRAINING = ["resume", RUN, "training.epochs=6"]
FROZEN = ["diagnose", RUN, "--frozen-encoder"]


@pytest.fixture
def smoke(trained_once):
    return trained_once("hostile", "experiment=smoke")[1]


@pytest.fixture
def here(tmp_path, smoke):
    """Two copies of a finished run, of which one is to be changed, and a folder outside."""
    return fresh(tmp_path / "here", smoke)


def fresh(here, smoke):
    shutil.rmtree(here, ignore_errors=True)
    for name in ("hostile", "other"):
        shutil.copytree(smoke, here / "runs" / "smoke" / name)
    (here / "outside").mkdir()
    return here


def names():
    """Of the files and folders of a run; without one, as it was when this list was written."""
    return (
        ".hydra", "arrays.npz", "checkpoints", "checkpoints/best.keras", "checkpoints/last.keras",
        "checkpoints/state_000004.npz", "checkpoints/state_000005.npz", "filters",
        "filters/encoder_1.png", "fingerprint.json", "frozen_encoder", "frozen_encoder.json", "job.log",
        "maps", "metrics.csv", "run.json", "snapshots", "snapshots/epoch_0000.npz",
        "snapshots/epoch_0005.npz", "status.json", "summary.json", "summary.txt", "tags.json",
        "train.log", "training.json", "curves.png", "views.npz", "report.html",
        "trials.json", "trials.npz", "trackers",
    )  # fmt: skip


def test_the_names_are_those_of_a_run(smoke):
    assert set(names()) <= {*names_of(smoke), "curves.png"}
    left = {n for n in names_of(smoke) if Path(n).suffix not in (".png", ".yaml", ".x")} - set(names())
    assert left <= {"snapshots/epoch_0001.npz"}


@pytest.mark.parametrize(("number", "name"), list(enumerate(names()))[::3])
def test_a_link_at_any_name_is_not_followed(here, number, name):
    """By four commands in turn; `make soak` tries all of them, in `test_anything_at_any_name`."""
    plant("link", here / RUN / name, here / "outside")
    commands = [READING[(number + i) % len(READING)] for i in (0, 3, 6)]
    check(here, [*commands, REMOVING], here / "outside")
    assert not (here / RUN).exists()


@pytest.mark.parametrize("name", ["train.log", "snapshots", "checkpoints"])
def test_a_training_does_not_write_through_a_link(here, name):
    plant("link", here / RUN / name, here / "outside")
    [done] = check(here, [TRAINING], here / "outside")
    assert done.code == 2 and f"{name} is a link" in done.err


@pytest.mark.parametrize("kind", ["link", "pipe", "sparse file"])
@pytest.mark.parametrize("name", ["checkpoints/best.keras", "run.json", "training.json"])
def test_a_network_is_not_used_through_anything_but_its_files(here, kind, name):
    plant(kind, here / RUN / name, here / "outside")
    for words in USING:
        [done] = check(here, [words], here / "outside")
        assert done.code == 2 and Path(name).name in done.err


def test_a_log_with_a_second_name_is_continued_in_a_copy(here):
    plant("hard link", here / RUN / "train.log", here / "outside")
    [done] = check(here, [TRAINING], here / "outside")
    assert done.code == 0 and (here / RUN / "train.log").stat().st_nlink == 1


@pytest.mark.parametrize("name", ["checkpoints", "snapshots"])
def test_a_file_in_place_of_a_folder_ends_a_training_with_one_line(here, name):
    plant("empty file", here / RUN / name, here / "outside")
    [done] = check(here, [TRAINING], here / "outside")
    assert done.code == 2 and f"{name} is a file, where a folder belongs" in done.err


@pytest.mark.pictures
def test_drawing_does_not_write_through_a_link(here):
    for name in ("filters", "curves.png"):
        plant("link", here / RUN / name, here / "outside")
    [done] = check(here, [DRAWING], here / "outside")
    assert done.code == 2 and "filters is a link" in done.err
    assert not (here / RUN / "curves.png").is_symlink()  # replaced, as it was drawn before


@pytest.mark.parametrize("kind", ["link to nothing", "pipe", "folder"])
def test_a_log_that_is_no_file_of_its_own_ends_the_command(here, kind):
    plant(kind, here / RUN / "train.log", here / "outside")
    [done] = check(here, [TRAINING], here / "outside")
    assert done.code == 2 and "train.log is a" in done.err
    assert Run(here / RUN).status()["status"] != "running"


def test_a_control_is_not_trained_in_a_linked_folder(here):
    plant("link", here / RUN / "frozen_encoder", here / "outside")
    [done] = check(here, [FROZEN], here / "outside")
    assert done.code == 2 and "frozen_encoder is a link" in done.err


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_anything_at_any_name(tmp_path, smoke, kind):
    """Of the commands a sixth in turn; `make soak SEED=1` to 5 try the others."""
    for number, name in enumerate(names(), list(KINDS).index(kind)):
        here = fresh(tmp_path / "here", smoke)
        plant(kind, here / RUN / name, here / "outside")
        writing = [DRAWING, TRAINING, FROZEN][number // 3 % 3]
        every = [*READING, USING[number // 3 % 3], writing]
        turn = (number + int(os.environ.get("CAE_SEED", "0"))) % 6
        check(here, [*every[turn::6], REMOVING], here / "outside")


@pytest.mark.parametrize("number", range(CASES or 40))
def test_a_folder_of_anything(tmp_path, smoke, number):
    """`make fuzz` tries other folders every time."""
    here = fresh(tmp_path / "here", smoke)
    choose = random.Random(None if CASES else number)
    planted = choose.sample(names_of(here / RUN), choose.choice([1, 1, 2, 5]))
    for name in sorted(planted, reverse=True):  # what is inside a folder first
        kind = choose.choice(list(KINDS))
        print(f"{kind} at {name}")
        (here / f"outside/{len(list((here / 'outside').iterdir()))}").mkdir()
        if not (here / RUN / name).parent.is_symlink():
            plant(kind, here / RUN / name, max((here / "outside").iterdir()))
    commands = choose.sample(READING, 3)
    check(here, [*commands, *([DRAWING] if number % 8 == 0 else []), REMOVING], here / "outside")


@pytest.mark.parametrize("name", ["job.log", ".hydra", ".hydra/config.yaml"])
def test_hydra_and_the_launcher_write_into_no_linked_file_of_a_job(here, smoke, name):
    fingerprint = Fingerprint("a", "b", "c")
    job = GuardedPath(here) / "job"
    claimed = claim_folder(job, fingerprint)
    claimed.run.set_status("interrupted")
    shutil.copyfile(here / RUN / "run.json", job.shown / "run.json")
    (job.shown / name).parent.mkdir(exist_ok=True)
    (job.shown / name).symlink_to(here / "outside" / "new")
    known = Fingerprint.read(claimed.run)
    assert known is not None
    with pytest.raises(UserError, match="is a link"):
        claim_folder(job, known)


def test_the_folder_of_all_runs_may_be_a_link(tmp_path, smoke):
    here = fresh(tmp_path / "here", smoke)
    (here / "runs").rename(tmp_path / "disk")
    (here / "runs").symlink_to(tmp_path / "disk")
    for words in (["resume", RUN, "training.epochs=6"], ["runs", "tag", RUN, "x"]):
        assert called(here, *words).code == 0, words
    (here / "run").symlink_to(here / RUN)  # typed by a person
    assert called(here, "diagnose", "run").code == 0
