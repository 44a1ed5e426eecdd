"""Every operation on a file of a run may fail, and the power may fail between any two of them."""

import json
import os
import random
import shutil

import numpy as np
import pytest

from cae_cli.runs.folder import Run
from cae_cli.system.guarded import UNFINISHED
from tests.conftest import called
from tests.tf.alike import differences
from tests.tf.disk_faults import ERRORS, OPERATIONS, Counter, Disk, counted

pytestmark = [pytest.mark.tf, pytest.mark.pictures]

TINY = (
    "train", "data=digits", "data.train=64", "data.validation=0.5", "training.epochs=3",
    "training.batch_size=32", "model.filters=[4]", "training.early_stopping=2", "hydra.run.dir=run",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, absl_writes_to_the_real_standard_error):
    """A run that nothing happened to, and how often it does what."""
    home = tmp_path_factory.mktemp("undisturbed")
    count = Counter(home / "run")
    with counted(count):
        done = called(home, *TINY)
    assert done.code == 0, done.err
    assert all(count.counts.values()), count.counts
    return home / "run", count.counts


def fails(home, undisturbed, operation, number, error, *, lasting):
    """A training in which a call fails: it ends as promised, and can be resumed to the same bits."""
    run, _ = undisturbed
    count = Counter(home / "run", operation, number, error, lasting)
    with counted(count):
        done = called(home, *TINY)
    words = (operation, number, error, lasting, done.err)
    assert "Traceback" not in done.err and done.code in (0, 2), words
    assert [line.startswith("error: ") for line in done.err.splitlines()].count(True) == done.code // 2
    if done.code == 0:  # a file that is not needed, such as the log
        # What cannot be removed at the very end is removed by whoever resumes the run.
        unlike = {n for n in differences(run, home / "run") if not n.startswith(UNFINISHED)}
        assert unlike == set(), words
        return
    left = Run(home / "run")
    status = left.status().get("status") if left.folder.exists() else None
    assert status in (None, "failed", "interrupted"), words
    if left.folder.exists() and left.is_set_up():
        resumed = called(home, "resume", "run")
        assert resumed.code == 0, (words, resumed.err)
        assert set(differences(run, home / "run")) == set(), words


CASES = {"open": 0.6, "write": 0.6, "rename": 0.6, "fsync": 0.15, "flock": 0.15, "mkdir": 0.15}
SHORT = ("open",)


@pytest.mark.parametrize(
    ("operation", "share"),
    [pytest.param(*c, marks=[] if c[0] in SHORT else pytest.mark.soak) for c in CASES.items()],
)
def test_an_operation_that_fails_once_or_for_ever(tmp_path, undisturbed, operation, share):
    number = max(1, round(share * undisturbed[1][operation]))
    fails(tmp_path, undisturbed, operation, number, ERRORS[operation][0], lasting=share > 0.5)


PARTS = 10


@pytest.mark.soak
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_fails_at_every_call(tmp_path, undisturbed, operation, lasting, part):
    """Of the calls some, evenly spread: `make soak SEED=1` and so on try the others."""
    total, step = undisturbed[1][operation], (12 if lasting else 4) * (4 if operation == "write" else 1)
    numbers = range(1 + int(os.environ.get("CAE_SEED", "0")) % step, total + 1, step)[part::PARTS]
    problems = []
    for number in numbers:
        error = ERRORS[operation][number % len(ERRORS[operation])]
        home = tmp_path / str(number)
        home.mkdir()
        try:
            fails(home, undisturbed, operation, number, error, lasting=lasting)
        except Exception as problem:
            problems.append((number, error, problem))
        shutil.rmtree(home)
    assert not problems, f"{len(problems)} of {len(numbers)}"


@pytest.fixture(scope="module")
def disk(tmp_path_factory, absl_writes_to_the_real_standard_error):
    home = tmp_path_factory.mktemp("disk")
    disk = Disk(home / "run")
    with disk.recorded():
        assert called(home, *TINY).code == 0
    return disk


def whole(folder):
    """Checks that all files can be read to their end; the epoch of the last checkpoint."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".log":
            content = path.read_bytes()
            assert content, path
            if path.suffix == ".json":
                json.loads(content)
            elif path.suffix == ".npz":
                with np.load(path) as arrays:
                    assert [arrays[name].size for name in arrays.files]
    checkpoint = Run(folder).checkpoint()
    return 0 if checkpoint is None else int(checkpoint["epochs"][-1][0])


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.soak)])
def test_after_a_power_cut_files_are_whole_and_a_checkpoint_is_usable(tmp_path, disk, step):
    epochs = []
    for at in range(len(disk.record), -1, -step):
        for choose in (None, random.Random(at)):
            folder = tmp_path / f"{at}-{choose is None}"
            disk.after_cut(at, folder, choose)
            epochs.append(whole(folder))
            if choose is None:
                kept = [n for kind, n, *_ in disk.record[:at] if kind == "names"].count("checkpoints")
                assert epochs[-1] > 0 or kept < 6, at
    assert max(epochs) == 3


@pytest.mark.parametrize(
    "share", [0.5, *(pytest.param(n / 20, marks=pytest.mark.soak) for n in range(2, 20))]
)
def test_after_a_power_cut_a_run_is_resumed_to_the_same_bits(tmp_path, disk, undisturbed, share):
    at = round(share * len(disk.record))
    disk.after_cut(at, tmp_path / "run", random.Random(at))
    if not Run(tmp_path / "run").is_set_up():
        return
    done = called(tmp_path, "resume", "run")
    assert done.code == 0, done.err
    assert set(differences(undisturbed[0], tmp_path / "run")) == set()
