"""Atomic files, and folders that are locked by one process.

These rely on the operating system: renaming a file and creating a folder are atomic, and the lock of a
process is released when it ends, however it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from cae_cli.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: folders are not locked
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".unfinished-"  # prefix of files that are still being written
PATIENCE = 1.0  # seconds to wait for a folder: a reader that tests the lock holds it for a moment

CANNOT_WRITE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOTDIR,
}


def typed(text: str | Path) -> Path:
    """A path as the user typed it, with ``~`` expanded; ``~nobody`` is not changed."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def claim(parent: Path, *, now: datetime | None = None) -> Path:
    """Creates a new folder ``<date>_<time>_<suffix>`` in ``parent``, never shared by two processes.

    Raises:
        UserError: the folder cannot be created.
    """
    stamp = f"{now or datetime.now():%Y-%m-%d_%H-%M-%S}"
    make(parent)
    while True:
        folder = parent / f"{stamp}_{_suffix()}"
        with contextlib.suppress(FileExistsError), writing(parent):
            folder.mkdir()
            return folder


def make(folder: Path) -> bool:
    """Creates a folder and its parents, if they do not exist.

    Returns:
        Whether this process created it.

    Raises:
        UserError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True)
        return True
    except OSError as error:
        if isinstance(error, FileExistsError) and folder.is_dir():
            return False
        raise cannot_write(error, folder) from error


def _suffix() -> str:
    """Four letters and digits without similar ones such as l and 1: 810,000 combinations."""
    return "".join(secrets.choice("23456789abcdefghjkmnpqrstvwxyz") for _ in range(4))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
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


def cannot_write(error: OSError, path: Path) -> UserError:
    """The error for a failure to write."""
    reason = (error.strerror or str(error)).lower()
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    elsewhere = "use another folder: hydra.run.dir=<folder> (in a sweep hydra.sweep.dir=<folder>)"
    return UserError(
        f"cannot write the run: {reason}",
        where=error.filename or path,
        hint=f"free disk space, or {elsewhere}" if full else elsewhere,
    )


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file that replaces ``path`` when the block ends without error.

    At every moment, even of a power failure, ``path`` is either the old or the complete new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept because Keras and NumPy depend on it.
    handle, name = tempfile.mkstemp(prefix=UNFINISHED, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _to_disk(temporary)  # otherwise the new name may reach the disk before the content
        temporary.replace(path)
        _to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not supported by a network file system
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Folders that this process has locked, by their real paths: file descriptor and nesting depth.
_at_work: dict[Path, tuple[int, int]] = {}


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Locks a folder for the block. Blocks may be nested.

    The lock is on the folder itself, so a crash leaves no file behind, and the operating system releases
    it when the process ends.

    Raises:
        UserError: another process has locked the folder.
    """
    real = folder.resolve()
    descriptor, depth = _at_work.get(real) or (_held(real), 0)
    _at_work[real] = descriptor, depth + 1
    try:
        yield
    finally:
        descriptor, depth = _at_work.pop(real)
        if depth > 1:
            _at_work[real] = descriptor, depth - 1
        elif descriptor >= 0:
            os.close(descriptor)


def _held(folder: Path) -> int:
    """A descriptor that locks the folder; -1 if the file system has no locks."""
    if fcntl is None:
        return -1
    descriptor = os.open(folder, os.O_RDONLY)
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
            "another process works on this run",
            where=folder,
            hint="wait until it ends; status.json has its process id and machine",
        )
    os.close(descriptor)
    return -1


def is_in_use(folder: Path) -> bool | None:
    """Whether a process has locked the folder; None if that is unknown."""
    if folder.resolve() in _at_work:
        return True
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
