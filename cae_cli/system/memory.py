"""How much memory there is, and whether what a file asks for fits into it.

A few kilobytes can stand for terabytes: a header that says so, or zeros that were compressed. Who reads
a stranger's file asks here before anything is allocated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cae_cli.errors import UserError

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def check(needed: int, what: str, where: object, hint: str) -> None:
    """Nothing, if so much memory can be had.

    Args:
        needed: bytes.
        what: needs them; a stranger's text in it is printable already.
        where: the file.
        hint: what to do instead.

    Raises:
        UserError: there is less.
    """
    there = free()
    if there is not None and needed > there:
        raise UserError(
            f"{what} would need {amount(needed)} of memory, this machine has {amount(there)} free",
            where=where,
            hint=hint,
        )


def free(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still take, None where nothing says so.

    It is the smallest of what the machine has, what its control groups (of a container, of a job) leave
    and what its own limit leaves.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    known = [*_of_machine(root), *_of_groups(root), *_of_process(root)]
    return max(0, min(known)) if known else None


def amount(count: int) -> str:
    """Bytes in words: "1.2 TB"."""
    if count >= 1000 ** len(UNITS):  # as headers may say
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
    try:  # no Linux: all there is, free or not
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return


def _of_groups(root: Path) -> Iterator[int]:
    """What the process' control groups leave, its own and those above it, of both versions."""
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
        taken = int((folder / used).read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return
    # Files that nobody uses any more give way.
    yield most - taken + sum(int(line.split()[1]) for line in lines if line.startswith(f"{cached} "))


def _of_process(root: Path) -> Iterator[int]:
    """What ``ulimit -v`` leaves."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most != resource.RLIM_INFINITY:
            pages = int((root / "proc/self/statm").read_text().split()[0])
            yield most - pages * resource.getpagesize()
    except (ImportError, OSError, ValueError, IndexError):
        return
