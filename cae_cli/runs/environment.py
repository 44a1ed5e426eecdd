"""What a run was made with: git commit, package versions and machine."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("tensorflow", "keras", "hydra-core", "omegaconf", "numpy", "pillow", "scikit-learn")


def surroundings() -> dict[str, Any]:
    """Git commit, package versions and machine, for run.json."""
    return {
        "git": _git(),
        "packages": {name: version(name) for name in ("cae-cli", *PACKAGES)},
        "machine": {
            "python": sys.version.split()[0],
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """The commit of the checkout that holds the code, else of the current folder; None without one.

    ``dirty`` is true if tracked files differ from the commit.
    """
    checkout = Path(__file__).parents[2]
    folder = checkout if (checkout / ".git").exists() else Path.cwd()

    def git(*arguments: str) -> str:
        return subprocess.run(
            # An untrusted checkout could name a program to run as its file-system monitor. Without
            # --no-optional-locks a full disk leaves a lock file in the user's repository.
            ["git", "--no-optional-locks", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
