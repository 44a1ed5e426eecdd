"""Real file systems that are full, or become read-only, in the middle of a run."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from cae_cli import cli
from cae_cli.runs.folder import Run
from cae_cli.system.guarded import UNFINISHED
from tests.conftest import environment

pytestmark = [pytest.mark.tf, pytest.mark.pictures]

SMALL = ("data=digits", "data.train=192", "model.filters=[8]", "training.epochs=3", "hydra.run.dir=run")


@contextlib.contextmanager
def disk_of(kilobytes, folder):
    """A file system of a few kilobytes, where this user may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    with contextlib.suppress(FileNotFoundError):
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    if not mounted:
        pytest.skip("this user may not mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def whole_files(folder):
    """Every file but the logs can be read to its end; their names."""
    names = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        names.append(path.name)
        if path.name.startswith(UNFINISHED):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                assert [arrays[name].size for name in arrays.files]
        elif path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
    return names


# From too small for the first file to too small for the last picture.
@pytest.mark.soak
@pytest.mark.parametrize(
    "kilobytes",
    [40, 180, *(pytest.param(n, marks=pytest.mark.soak) for n in (90, 130, 260, 450, 600, 720))],
)
def test_a_full_disk_ends_a_run_with_one_line(tmp_path, kilobytes, monkeypatch, capfd):
    with disk_of(kilobytes, tmp_path / "disk") as disk:
        monkeypatch.chdir(disk)
        assert cli.run(["train", *SMALL]) == 2
        error = capfd.readouterr().err
        [line] = [line for line in error.splitlines() if line.startswith("error:")]
        assert line == "error: cannot write the run: no space left on device"
        assert "Traceback" not in error
        if not (disk / "run").exists():  # nothing was trained yet
            return
        names = whole_files(disk / "run")
        status = Run(disk / "run").status()
        assert "status.json" in names and status["status"] == "failed"
        assert not any(name.startswith(UNFINISHED) for name in names)
        assert status["reason"] == "cannot write the run: no space left on device"
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert cli.run(["resume", "run"]) == 0
        assert Run(disk / "run").status()["status"] == "ok"
        monkeypatch.chdir("/")


def test_a_folder_that_becomes_read_only_ends_a_run_with_one_line(tmp_path):
    command = [sys.executable, "-m", "cae_cli", "train", *SMALL, "training.epochs=2000"]
    if os.getuid() == 0:  # who may write everywhere, unless that is taken away
        if shutil.which("setpriv") is None:
            pytest.skip("root cannot be kept from writing here")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    process = subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(),
    )  # fmt: skip
    folder = tmp_path / "run"
    while process.poll() is None and len(list(folder.glob("checkpoints/state_*"))) < 2:
        time.sleep(0.02)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    _, error = process.communicate(timeout=120)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert process.returncode == 2
    [line] = [line for line in error.splitlines() if line.startswith("error:")]
    assert line == "error: cannot write the run: permission denied" and "Traceback" not in error
    whole_files(folder)
    status = Run(folder).status()  # its own word could not be written: that its process is gone shows
    assert status["status"] == "interrupted" and "process ended without reporting" in status["reason"]
    assert len(Run(folder).read_metrics()["epoch"]) >= 2 and Run(folder).checkpoint() is not None
