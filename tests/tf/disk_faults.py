"""Operations on the files of a run that fail at a chosen call, and a record of them to cut anywhere.

The operations of Python are replaced, so what a C library writes by itself (HDF5) is not counted.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import io
import os
import random
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OPERATIONS = ("open", "write", "fsync", "rename", "flock", "mkdir")
ERRORS = {
    "open": (errno.EACCES, errno.EMFILE, errno.ENOSPC, errno.EIO),
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "fsync": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EIO, errno.EACCES, errno.ENOSPC),
    "flock": (errno.ENOLCK, errno.EIO),
    "mkdir": (errno.EACCES, errno.ENOSPC),
}


def _where(path: object, folder: int | None = None) -> str:
    """The path of an operation, which may be given by a descriptor."""
    with contextlib.suppress(OSError):
        if isinstance(path, int):
            return str(Path(f"/proc/self/fd/{path}").readlink())
        if folder is not None:
            return str(Path(f"/proc/self/fd/{folder}").readlink() / str(path))
    return str(path)


@dataclass
class Counter:
    """Counts the operations below a folder, and lets one of them fail.

    Attributes:
        folder: only operations below it count.
        operation: one of `OPERATIONS`; None: nothing fails.
        number: of the call that fails, from 1.
        error: the number of the error.
        lasting: every later call fails too, as on a disk that is full.
        counts: how many calls there were.
    """

    folder: Path
    operation: str | None = None
    number: int = 0
    error: int = 0
    lasting: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OPERATIONS, 0))

    def covers(self, path: str) -> bool:
        """Whether a path is the folder, or below it."""
        return path == str(self.folder) or path.startswith(f"{self.folder}/")

    def __call__(self, operation: str, path: str) -> None:
        if not self.covers(path):
            return
        self.counts[operation] += 1
        at = self.counts[operation]
        if operation == self.operation and (at == self.number or (self.lasting and at > self.number)):
            raise OSError(self.error, os.strerror(self.error), path)


class _Raw(io.FileIO):
    """A file whose writes are counted."""

    count: Counter
    path: str

    def write(self, data: Any, /) -> int:
        self.count("write", self.path)
        return super().write(data)


@contextlib.contextmanager
def counted(count: Counter) -> Iterator[None]:
    """Counts every operation on files."""
    real_open, real_os_open = io.open, os.open

    def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **others: Any) -> Any:
        writes = bool(set(mode) & set("wax+"))
        path = _where(file)
        if not isinstance(file, int):
            count("open", path)
        if not writes or not count.covers(path):
            return real_open(file, mode, buffering, *rest, **others)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""), others.pop("closefd", True))
        raw.count, raw.path = count, path
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffer
        return io.TextIOWrapper(buffer, *rest, **others)

    def os_opened(path: Any, flags: int, *rest: Any, **others: Any) -> int:
        count("open", _where(path, others.get("dir_fd")))
        return real_os_open(path, flags, *rest, **others)

    def before(operation: str, function: Any, at: Callable[..., str]) -> Any:
        def wrapped(*arguments: Any, **others: Any) -> Any:
            count(operation, at(*arguments, **others))
            return function(*arguments, **others)

        return wrapped

    def first(path: Any, *rest: Any, **others: Any) -> str:
        return _where(path, others.get("dir_fd", others.get("src_dir_fd")))

    def of_lock(descriptor: Any, *rest: Any) -> str:
        return _where(descriptor if isinstance(descriptor, int) else descriptor.fileno())

    patched = [
        (io, "open", opened),
        (builtins, "open", opened),
        (os, "open", os_opened),
        (os, "fsync", before("fsync", os.fsync, first)),
        (os, "replace", before("rename", os.replace, first)),
        (os, "rename", before("rename", os.rename, first)),
        (os, "mkdir", before("mkdir", os.mkdir, first)),
        (fcntl, "flock", before("flock", fcntl.flock, of_lock)),
    ]
    originals = [(module, name, getattr(module, name)) for module, name, _ in patched]
    for module, name, function in patched:
        setattr(module, name, function)
    try:
        yield
    finally:
        for module, name, function in originals:
            setattr(module, name, function)


@dataclass
class Disk:
    """What a run asks of the disk, in order, and what is there after a power cut.

    Names and contents reach a disk at any time after they were written, and for certain only when the
    file or folder was flushed.
    """

    folder: Path
    record: list[tuple[Any, ...]] = field(default_factory=list)

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Records what is done to files below the folder."""
        real = {name: getattr(os, name) for name in ("open", "fsync", "replace", "mkdir", "unlink")}

        def inside(path: object, folder: int | None) -> str | None:
            place = _where(path, folder)
            below = str(self.folder)
            return place[len(below) + 1 :] if place.startswith(below + "/") else None

        def opened(path: Any, flags: int, *rest: Any, **others: Any) -> int:
            descriptor = real["open"](path, flags, *rest, **others)
            name = inside(path, others.get("dir_fd"))
            if name and flags & os.O_CREAT:
                self.record.append(("create", name, os.fstat(descriptor).st_ino))
            return int(descriptor)

        def synced(descriptor: int) -> None:
            real["fsync"](descriptor)
            one = os.fstat(descriptor)
            place = Path(_where(descriptor))
            if stat.S_ISREG(one.st_mode):
                self.record.append(("content", one.st_ino, place.read_bytes()))
            elif place.is_relative_to(self.folder):
                self.record.append(("names", place.relative_to(self.folder).as_posix()))

        def replaced(old: Any, new: Any, **others: Any) -> None:
            names = inside(old, others.get("src_dir_fd")), inside(new, others.get("dst_dir_fd"))
            real["replace"](old, new, **others)
            if all(names):
                self.record.append(("rename", *names))

        def made(path: Any, *rest: Any, **others: Any) -> None:
            real["mkdir"](path, *rest, **others)
            if name := inside(path, others.get("dir_fd")):
                self.record.append(("mkdir", name))

        def removed(path: Any, **others: Any) -> None:
            name = inside(path, others.get("dir_fd"))
            real["unlink"](path, **others)
            if name:
                self.record.append(("unlink", name))

        patches = {"open": opened, "fsync": synced, "mkdir": made, "unlink": removed}
        patches["replace"] = replaced
        for name, function in patches.items():
            setattr(os, name, function)
        try:
            yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)

    def after_cut(self, at: int, to: Path, choose: random.Random | None) -> None:
        """Writes what the disk holds if the power fails after so many operations.

        Args:
            at: number of operations that were made.
            to: a new folder.
            choose: which names reached the disk though their folder was not flushed; None: none of them.
        """
        done = self.record[:at]
        names: dict[str, int | None] = {}  # of a folder None
        contents: dict[int, bytes] = {}
        for position, (kind, *what) in enumerate(done):
            if kind == "content":
                contents[what[0]] = what[1]
                continue
            if kind == "names":
                continue
            folder = Path(what[-1] if kind != "create" else what[0]).parent.as_posix()
            is_certain = ("names", folder) in done[position:]
            if not is_certain and (choose is None or choose.random() < 0.5):
                continue
            if kind == "create":
                names[what[0]] = what[1]
            elif kind == "mkdir":
                names[what[0]] = None
            elif kind == "unlink":
                names.pop(what[0], None)
            else:
                inode = names.pop(what[0], None) or self._inode(position)
                names[what[1]] = inode
        to.mkdir(parents=True)
        for name, inode in names.items():
            path = to / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if inode is None:
                path.mkdir(exist_ok=True)
            else:  # what was not flushed may be missing
                path.write_bytes(contents.get(inode, b""))

    def _inode(self, position: int) -> int | None:
        """The inode behind the old name of a rename."""
        name = self.record[position][1]
        created = [what for kind, *what in self.record[:position] if kind == "create"]
        return next((inode for known, inode in reversed(created) if known == name), None)
