"""Free memory, and whether the content of a file fits into it.

A file of a few kilobytes can need terabytes, by the shape in its header or by compression. The size is
checked here before memory is allocated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cae_cli.errors import UserError

UNASKED = 2**20  # bytes that take less time to allocate than to ask for
UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def check(needed: int, what: str, where: object, hint: str) -> None:
    """Checks that so much memory is free.

    Args:
        needed: bytes.
        what: what needs them, as printable text.
        where: the file.
        hint: the next step.

    Raises:
        UserError: less memory is free.
    """
    if needed <= UNASKED:
        return
    available = free()
    if available is not None and needed > available:
        raise UserError(
            f"{what} would need {amount(needed)} of memory, this machine has {amount(available)} free",
            where=where,
            hint=hint,
        )


def free(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still allocate, or None if unknown.

    The minimum of the free memory of the machine, of its control groups (of a container, a job) and of
    the limit of the process.

    Args:
        root: folder with ``proc`` and ``sys``.
    """
    known = [*_of_machine(root), *_of_groups(root), *_of_process(root)]
    return max(0, min(known)) if known else None


def amount(count: int) -> str:
    """Bytes with a unit: "1.2 TB"."""
    if count >= 1000 ** len(UNITS):  # possible in a header
        return f"over 1000 {UNITS[-1]}"
    power = (len(str(count)) - 1) // 3
    value = count / 1000**power
    return f"{value:.1f} {UNITS[power]}" if power and value < 10 else f"{value:.0f} {UNITS[power]}"


def _of_machine(root: Path) -> Iterator[int]:
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield 1024 * int(line.split()[1])
                return
    except (OSError, ValueError, IndexError):
        pass
    try:  # not Linux: total memory, free or not
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return


def _of_groups(root: Path) -> Iterator[int]:
    """Free memory of the control group of the process and its parents, in versions 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = root / "sys/fs/cgroup"
        if not controllers:
            names = "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top /= "memory"
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        group = top / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield from _of_group(folder, *names)


def _of_group(folder: Path, limit: str, used: str, cached: str) -> Iterator[int]:
    try:
        most = int((folder / limit).read_text())  # "max" is no number
        in_use = int((folder / used).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return
    # The file cache can be evicted.
    yield most - in_use + sum(int(line.split()[1]) for line in lines if line.startswith(f"{cached} "))


def _of_process(root: Path) -> Iterator[int]:
    """Free memory under ``ulimit -v``."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            pages = int((root / "proc/self/statm").read_text().split()[0])
            yield most - pages * resource.getpagesize()
    except (ImportError, OSError, ValueError, IndexError):
        return
