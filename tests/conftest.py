"""What several test files need: real images where they are there, and the program as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Done:
    """A finished process."""

    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The run folder: the last line of standard output."""
        return Path(self.out.strip().splitlines()[-1])


Cae = Callable[..., Done]


def environment(**extra: str) -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if k not in ("HYDRA_FULL_ERROR", "NO_COLOR", "FORCE_COLOR")
    }
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **extra}


@pytest.fixture
def cae(tmp_path: Path) -> Cae:
    """Runs ``cae …`` in an empty folder."""

    def run(*arguments: str, timeout: float = 300, **env: str) -> Done:
        process = subprocess.run(
            [sys.executable, "-m", "cae_cli", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(**env),
            timeout=timeout,
        )
        return Done(process.returncode, process.stdout, process.stderr)

    return run


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images."""
    if not SHARED.is_dir():
        pytest.skip("no real images beside the checkout")
    return SHARED
