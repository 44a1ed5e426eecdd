"""What a stranger may put into a run folder in place of its files, and what must not come of it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.conftest import Done, called

CANARY = "a-canary-that-nobody-may-read"
SECONDS = 60  # for one command; far more than any needs
MEMORY = 2**31  # bytes that one command may allocate

# Names that commands make, in addition to those that a run has.
MADE = ("tags.json", "job.log", "fingerprint.json", "frozen_encoder", "frozen_encoder.json",
        "trials.json", "trials.npz", "trackers")  # fmt: skip


def names_of(run: Path) -> list[str]:
    """Every file and folder of a run, and what commands add to it."""
    found = {path.relative_to(run).as_posix() for path in run.rglob("*")}
    return sorted(found | set(MADE))


def plant(kind: str, path: Path, outside: Path) -> None:
    """Puts something else in the place of a file or folder of a run.

    Args:
        kind: a key of `KINDS`.
        path: in the run; it need not exist.
        outside: a folder outside of the run; holds what links lead to.
    """
    copy = outside / path.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        path.rename(copy)
    else:
        copy.write_text("")
    is_read = kind == "hard link"  # it cannot be told from a file of the run
    if copy.is_file() and not copy.is_symlink() and copy.stat().st_size < 2**22 and not is_read:
        _mark(copy)
    KINDS[kind](path, copy)


def _mark(file: Path) -> None:
    """Puts the canary where commands would show it."""
    if file.suffix == ".txt":
        file.write_text(CANARY)
    elif file.suffix == ".json":
        content = json.loads(file.read_text() or "{}")
        content |= {"verdict": CANARY, "tags": [CANARY], "reason": CANARY}
        if "config" in content:
            content["config"]["task_name"] = CANARY
        file.write_text(json.dumps(content))


def _link_to_nothing(path: Path, copy: Path) -> None:
    path.symlink_to(copy.with_name(f"new-{copy.name}"))


def _hard_link(path: Path, copy: Path) -> None:
    path.hardlink_to(copy) if copy.is_file() else path.symlink_to(copy)


def _socket(path: Path, copy: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(here)


def _device(path: Path, copy: Path) -> None:
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        path.symlink_to("/dev/zero")


def _folder(path: Path, copy: Path) -> None:
    path.mkdir()
    (path / "inner").write_text("")


def _sparse(path: Path, copy: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**34)


def _bomb(path: Path, copy: Path) -> None:
    """An .npz file that says to hold 6 GB, and holds some of it."""
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1500000000,), }".ljust(117) + "\n"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("mse.npy", "w", force_zip64=True) as file,
    ):
        file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
        for _ in range(64):
            file.write(bytes(2**20))


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "link": lambda path, copy: path.symlink_to(copy),
    "link to nothing": _link_to_nothing,
    "hard link": _hard_link,
    "link to a device": lambda path, copy: path.symlink_to("/dev/zero"),
    "link to itself": lambda path, copy: path.symlink_to(path.name),
    "pipe": lambda path, copy: os.mkfifo(path),
    "socket": _socket,
    "device": _device,
    "folder": _folder,
    "empty file": lambda path, copy: path.write_bytes(b""),
    "sparse file": _sparse,
    "bomb": _bomb,
}


def state_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """Content, mode and time of everything in a folder."""
    state = {}
    for path in sorted([folder, *folder.rglob("*")]):
        one = path.lstat()
        is_small = stat.S_ISREG(one.st_mode) and one.st_size < 2**22
        content = path.read_bytes() if is_small else b""
        state[path.as_posix()] = (content, one.st_mode, one.st_mtime_ns, one.st_size)
    return state


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """At most `MEMORY` more than now."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def check(here: Path, commands: Sequence[Sequence[str]], outside: Path) -> list[Done]:
    """Runs commands and checks that each ends as promised and leaves what is outside alone."""
    before = state_of(outside)
    results = []
    for words in commands:
        with limited_memory():
            done = called(here, *words, timeout=SECONDS)
        text = done.out + done.err
        assert done.code in (0, 1, 2), (words, text)
        assert "Traceback" not in text and CANARY not in text, (words, text)
        errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == (1 if done.code == 2 else 0), (words, text)
        assert state_of(outside) == before, (words, text)
        results.append(done)
    return results
