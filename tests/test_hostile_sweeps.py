"""A sweep's folder from a stranger: the command that resumes it leads nowhere else."""

import contextlib
import shutil
from pathlib import Path

import pytest

from cae_cli.config.compose import Sources
from cae_cli.errors import UserError
from cae_cli.runs.sweep_folder import SweepFolder
from cae_cli.sweep import launcher, session
from cae_cli.sweep.session import SweepSession
from tests.conftest import within
from tests.tf.hostile import KINDS, state_of

SWEPT = ("data=glyphs", "seed=1,2")
THERE = "hydra.sweep.dir=there"
NAMES = ("multirun.yaml", "sweep.json", "sweep.log", "launcher.log", "leaderboard.csv",
         "leaderboard.json", "effects.json", "contact.png", "optimization_results.yaml")  # fmt: skip


def swept(*words):
    """``cae train -m`` with these overrides, in this process, with Hydra, without trainings."""
    command = ("cae", "train", "-m", *words)
    try:
        with within(60):
            SweepSession(command, words, Sources(), flags=["--multirun"], rules=None).run()
    except UserError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep in the folder ``there``, and a folder outside of it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "outside").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        without_trainings(patch)
        assert swept(*SWEPT, THERE) == ""
    assert {path.name for path in (folder / "there").iterdir() if path.is_dir()} == {"seed=1", "seed=2"}
    return folder


def without_trainings(patch):
    patch.setattr(launcher, "run_jobs", lambda *_, **__: None)
    patch.setattr(session.pool, "serving", lambda *_, **__: contextlib.nullcontext())


@pytest.fixture
def here(tmp_path, made, monkeypatch):
    """A copy of it."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    without_trainings(monkeypatch)
    return tmp_path / "here"


def test_hydra_writes_into_the_folder_of_a_sweep(here):
    """Which the tests below rely on."""
    (here / "there" / "multirun.yaml").unlink()
    assert swept(*SWEPT, THERE) == ""
    assert "seed=1,2" in (here / "there" / "multirun.yaml").read_text()


@pytest.mark.parametrize(("name", "kind"), [
    pytest.param(name, kind, marks=[] if name == NAMES[0] or kind == "link" else pytest.mark.soak)
    for name in NAMES
    for kind in ("link", "link to nothing", "hard link", "pipe", "folder", "socket")
])  # fmt: skip
def test_resuming_a_sweep_writes_to_nothing_outside(here, name, kind):
    path, copy = here / "there" / name, here / "outside" / name
    if path.exists():
        shutil.copyfile(path, copy)
        path.unlink()
    else:
        copy.write_text("outside")
    KINDS[kind](path, copy)
    before = {name: kept for name, kept in state_of(here / "outside").items() if name != str(copy)}
    content = copy.read_bytes()
    said = swept(*SWEPT, THERE)
    assert copy.read_bytes() == content and sorted(map(str, (here / "outside").iterdir())) == [str(copy)]
    assert {n: kept for n, kept in state_of(here / "outside").items() if n != str(copy)} == before
    if kind == "hard link":
        assert said == "" and copy.stat().st_nlink == 1
    elif name == "contact.png" and kind == "folder":  # it is removed as there is nothing to draw
        assert "contact.png is a folder" in said and "rm -r there/contact.png" in said
    elif kind != "folder":
        assert f"{name} is a" in said and f"there/{name}" in said


@pytest.mark.parametrize("kind", ["link", "hard link"])
@pytest.mark.parametrize("name", [".hydra/config.yaml", "job.log"])
def test_resuming_a_job_writes_to_nothing_outside(here, name, kind):
    path, copy = here / "there" / "seed=1" / name, here / "outside" / "copy"
    copy.write_text("outside")
    path.parent.mkdir(exist_ok=True)
    KINDS[kind](path, copy)
    said = swept(*SWEPT, THERE)
    assert copy.read_text() == "outside"
    assert (f"{path.name} is a link" in said) if kind == "link" else copy.stat().st_nlink == 1


def test_a_linked_sweep_is_resumed_only_if_it_is_named(here, capsys):
    (here / "runs").mkdir()
    (here / "runs" / "2031-01-01_00-00-00_aaaa").symlink_to(here / "there")
    before = state_of(here / "there")
    assert swept(*SWEPT, "hydra.sweep.dir=runs/2031-01-01_00-00-00_aaaa", "seed=1,2,3") == ""
    assert state_of(here / "there") != before
    parent = Path(str(SweepSession(("cae", "train", "-m", *SWEPT), SWEPT, Sources(),
                                   flags=["--multirun"], rules=None).node.hydra.sweep.dir))  # fmt: skip
    parent.mkdir(parents=True)
    (parent / "2031-01-01_00-00-00_aaaa").symlink_to(here / "there")
    before = state_of(here / "there")
    assert swept(*SWEPT) == "" and "resuming" not in capsys.readouterr().err
    assert state_of(here / "there") == before
    real = next(path for path in parent.iterdir() if not path.is_symlink())
    assert swept(*SWEPT) == "" and f"resuming {real}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [
    ["rm", "-rf", "important"], ["cae", "runs", "rm", "last", "--yes"],
    ["cae", "train", "-m", "--rules=rules.py", "--rules", "rules.py", "--trust-configs", "seed=1,2"],
])  # fmt: skip
def test_the_command_of_a_strangers_sweep_is_no_command_to_paste(here, command):
    folder = SweepFolder(here / "there")
    content = folder.read()
    folder.write(type(content)(**{**vars(content), "command": tuple(command)}))
    said = swept(*SWEPT, "loss=bce", THERE)
    assert "another sweep is in this folder" in said
    assert not any(word in said for word in ("rm ", "rules", "trust"))
    assert ("cae train -m seed=1,2" in said) == ("-m" in command)
