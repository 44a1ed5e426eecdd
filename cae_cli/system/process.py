"""Which process works on a run, and whether it still does where no lock tells."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def identity() -> dict[str, Any]:
    """This process: machine, number, boot of the machine, and start time in clock ticks since then.

    ``boot`` also names the process namespace, because every container has numbers of its own. Both are
    None where the system does not tell them.
    """
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "boot": _boot(),
        "process_started": _started(os.getpid()),
    }


def is_alive(known: Mapping[str, Any]) -> bool | None:
    """Whether the process of an `identity` still runs; None if this machine cannot know."""
    boot, pid, started = (known.get(key) for key in ("boot", "pid", "process_started"))
    if boot is None or started is None or boot != _boot() or not isinstance(pid, int):
        return None
    return bool(_started(pid) == started)


def _boot() -> str | None:
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    return None


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks since the boot; None if there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The name of the program, in parentheses, may hold anything.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return None
