"""Files that are whole at every moment, and folders that one process works in.

The operating system does the work: a file takes its name when it is complete, a folder belongs to who
made it, and what a process holds is let go of when it ends, however it ends.
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
except ImportError:  # Windows: there two processes in one folder are not kept apart
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".unfinished-"  # how the names of files begin that are still being written
PATIENCE = 1.0  # seconds that a folder is waited for: a reader may be looking whether it is in use

CANNOT_WRITE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOTDIR,
}


def typed(word: str | Path) -> Path:
    """A path as people type it: ``~`` is the home folder, and ``~nobody`` stays what it is."""
    try:
        return Path(word).expanduser()
    except RuntimeError:
        return Path(word)


def claim(parent: Path, *, now: datetime | None = None) -> Path:
    """Makes a new folder ``<date>_<time>_<suffix>`` below ``parent``.

    The folder is claimed by making it, so that two processes never get the same one.

    Raises:
        UserError: the folder cannot be made.
    """
    stamp = f"{now or datetime.now():%Y-%m-%d_%H-%M-%S}"
    make(parent)
    while True:
        folder = parent / f"{stamp}_{_suffix()}"
        with contextlib.suppress(FileExistsError), writing(parent):
            folder.mkdir()
            return folder


def make(folder: Path) -> bool:
    """Makes a folder and those above it, if they are not there.

    Returns:
        Whether it was this process that made it.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True)
        return True
    except OSError as error:
        if isinstance(error, FileExistsError) and folder.is_dir():
            return False
        raise cannot_write(error, folder) from error


def _suffix() -> str:
    """Four letters and digits that cannot be misread for one another (some 700,000 of them)."""
    return "".join(secrets.choice("23456789abcdefghjkmnpqrstvwxyz") for _ in range(4))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure to write into an error a person can use; other errors pass.

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
    """What to say of a failure to write."""
    reason = (error.strerror or str(error)).lower()
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    elsewhere = "write elsewhere: hydra.run.dir=<folder> (in a multirun hydra.sweep.dir=<folder>)"
    return UserError(
        f"cannot write the run: {reason}",
        where=error.filename or path,
        hint=f"free some space, or {elsewhere}" if full else elsewhere,
    )


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without error.

    At every moment, a power cut's too, ``path`` is the old file or the whole new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Keras and NumPy look at the suffix, so it stays.
    handle, name = tempfile.mkstemp(prefix=UNFINISHED, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _to_disk(temporary)  # else the new name may reach the disk before the content does
        temporary.replace(path)
        _to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk and not only in its cache."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a network file system without that
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# Folders that this process is at work in, by their real paths: file descriptor and how often.
_at_work: dict[Path, tuple[int, int]] = {}


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder for the length of the block. Blocks may be nested.

    The operating system lets go of the folder when the process ends, however it ends: there is no
    file that a crash could leave behind.

    Raises:
        UserError: another process is at work in the folder.
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
    """A descriptor that holds the folder; -1 where the file system cannot."""
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
            "another process is at work in this run",
            where=folder,
            hint="wait until it has ended; status.json says which process on which machine",
        )
    os.close(descriptor)
    return -1


def is_in_use(folder: Path) -> bool | None:
    """Whether a process is at work in the folder; None where nobody can know."""
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
