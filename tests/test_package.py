"""The wheel holds the configs and works from any folder, without the checkout."""

import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT, environment

pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True, env=environment(),
    )  # fmt: skip
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_config_the_page_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    configs = {f"cae_cli/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    packages = (ROOT / "cae_cli", ROOT / "hydra_plugins")
    files = [path for package in packages for path in package.rglob("*")]
    code = {str(path.relative_to(ROOT)) for path in files if path.suffix == ".py"}
    page = {str(p.relative_to(ROOT)) for p in files if p.suffix in (".html", ".css", ".js", ".typed")}
    assert names == configs | code | page and len(page) >= 5 and "cae_cli/py.typed" in names


def test_the_wheel_works_where_there_is_no_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "cae_cli", *arguments],
            cwd=elsewhere, capture_output=True, text=True,
            env={**environment(), "PYTHONPATH": str(tmp_path / "site")},
        )  # fmt: skip

    done = run("options", "loss/ssim")
    assert done.returncode == 0 and str(tmp_path / "site") in done.stdout
    assert "strength: 0.001" in run("train", "model=l2", "--cfg", "job").stdout
