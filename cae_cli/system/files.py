"""Folders that are claimed and locked by one process, and errors of writing.

Both rely on the operating system: creating a folder is atomic, and the lock of a process is released
when it ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cae_cli.errors import UserError
from cae_cli.system.guarded import GuardedPath, Unsafe, guard

try:
    import fcntl
except ImportError:  # Windows: folders are not locked
    fcntl = None  # type: ignore[assignment]

PATIENCE = 1.0  # seconds to wait for a folder: a reader that tests the lock holds it for a moment

# Errors of the disk or of permissions, and not of this program.
CANNOT_WRITE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.EIO,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENAMETOOLONG,
}


def typed(text: str | Path) -> Path:
    """A path as the user typed it, with ``~`` expanded; ``~nobody`` is not changed."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def claim(parent: Path | GuardedPath, *, now: datetime | None = None) -> GuardedPath:
    """Creates a new folder ``<date>_<time>_<suffix>`` in ``parent``, never shared by two processes.

    Raises:
        UserError: the folder cannot be created.
    """
    above = guard(parent)
    stamp = f"{now or datetime.now():%Y-%m-%d_%H-%M-%S}"
    make(above)
    while True:
        folder = above / f"{stamp}_{_suffix()}"
        if make(folder):
            return folder


def make(folder: Path | GuardedPath) -> bool:
    """Creates a folder and its parents, if they do not exist.

    Returns:
        Whether this process created it.

    Raises:
        UserError: it cannot be created.
    """
    try:
        return guard(folder).make()
    except OSError as error:
        raise cannot_write(error, folder) from error


def _suffix() -> str:
    """Four letters and digits without similar ones such as l and 1: 810,000 combinations."""
    return "".join(secrets.choice("23456789abcdefghjkmnpqrstvwxyz") for _ in range(4))


@contextlib.contextmanager
def writing(path: Path | GuardedPath) -> Iterator[None]:
    """Reports a failure to write as a `UserError`; other errors pass.

    Raises:
        UserError: no permission, read-only file system, disk or quota full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise cannot_write(error, path) from error


def refused(error: OSError) -> UserError | None:
    """The error for a path, a disk, permissions or limits that end a command; None if it is another."""
    if error.errno not in CANNOT_WRITE | {errno.ENOENT, errno.EEXIST, errno.ELOOP}:
        return None
    return UserError(
        f"the operating system refuses it: {(error.strerror or str(error)).lower()}",
        where=error.filename,
        hint="check the path, the disk, the permissions and the limits of the process",
    )


def cannot_write(error: OSError, path: Path | GuardedPath) -> UserError:
    """The error for a failure to write."""
    reason = (error.strerror or str(error)).lower()
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    elsewhere = "use another folder: hydra.run.dir=<folder> (in a sweep hydra.sweep.dir=<folder>)"
    return UserError(
        f"cannot write the run: {reason}",
        where=error.filename or path,
        hint=f"free disk space, or {elsewhere}" if full else elsewhere,
    )


# Folders that this process has locked, by device and inode: file descriptor and nesting depth.
_at_work: dict[tuple[int, int], tuple[int, int]] = {}


@contextlib.contextmanager
def at_work(folder: GuardedPath) -> Iterator[None]:
    """Locks a folder for the block. Blocks may be nested.

    The lock is on the folder itself, so a crash leaves no file behind, and the operating system releases
    it when the process ends.

    Raises:
        UserError: another process has locked the folder.
    """
    with folder.opened() as opened:
        identity = opened.identity()
        descriptor, depth = _at_work.get(identity) or (_held(folder, opened.descriptor), 0)
    _at_work[identity] = descriptor, depth + 1
    try:
        yield
    finally:
        descriptor, depth = _at_work.pop(identity)
        if depth > 1:
            _at_work[identity] = descriptor, depth - 1
        elif descriptor >= 0:
            os.close(descriptor)


def _held(folder: GuardedPath, opened: int | None) -> int:
    """A descriptor that locks the folder; -1 if the file system has no locks."""
    if fcntl is None or opened is None:
        return -1
    descriptor = os.dup(opened)
    for left in range(round(PATIENCE / 0.05), -1, -1):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if left:
                time.sleep(0.05)
        except OSError:  # a network file system without locks
            break
    else:
        os.close(descriptor)
        raise UserError(
            "another process works in this folder",
            where=folder,
            hint="wait until it ends, or choose another folder",
        )
    os.close(descriptor)
    return -1


def is_in_use(folder: GuardedPath) -> bool | None:
    """Whether a process has locked the folder; None if that is unknown."""
    try:
        with folder.opened() as opened:
            if opened.identity() in _at_work:
                return True
            if fcntl is None or opened.descriptor is None:
                return None
            try:
                fcntl.flock(opened.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                fcntl.flock(opened.descriptor, fcntl.LOCK_UN)
                return False
            except BlockingIOError:
                return True
    except (OSError, Unsafe):
        return None
