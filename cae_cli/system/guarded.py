"""Paths inside a folder that a stranger may have made.

A run folder comes from an archive, a shared disk, another person. A link in it would lead reading,
writing or removing to any other place, and a pipe would block for ever. All files of runs and sweeps are
therefore reached through a `GuardedPath`.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cae_cli.errors import UserError, to_paste

UNFINISHED = ".unfinished-"  # prefix of files that are still being written
MOST_TEXT = 2**26  # bytes of a text file of a run
DEEPEST = 16  # folders within each other, below that of a run

_BY_DESCRIPTOR = os.open in os.supports_dir_fd  # not on Windows
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0) | _NOFOLLOW | os.O_RDONLY
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)


class Unsafe(UserError):
    """A link, pipe or device inside a run: it is not opened."""


@dataclass(frozen=True, order=True)
class GuardedPath:
    """A path inside a folder, opened relative to the folder's descriptor without following links.

    It is no `os.PathLike`, so that nothing can open it in another way. `shown` is for messages.

    Args:
        root: a folder, which may be a link or be reached through one.
        parts: names below it, of which none may be a link.
    """

    root: Path
    parts: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path) -> GuardedPath:
        """A file named by its path: its folder may be reached through links, the file is no link."""
        return cls(path.parent, (path.name,))

    def __truediv__(self, name: str) -> GuardedPath:
        inner = tuple(name.split("/"))
        if not all(is_name(part) for part in inner):
            raise ValueError(f"{name!r} is not the name of a file")
        return GuardedPath(self.root, self.parts + inner)

    def __str__(self) -> str:
        return str(self.shown)

    @property
    def shown(self) -> Path:
        """The path, to be shown."""
        return self.root.joinpath(*self.parts)

    @property
    def name(self) -> str:
        """The last name."""
        return self.parts[-1] if self.parts else self.root.name

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """The suffix of the name, with its dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> GuardedPath:
        """The folder that it is in; of the root, the folder above."""
        return GuardedPath(self.root, self.parts[:-1]) if self.parts else GuardedPath(self.root.parent)

    # -- what there is -----------------------------------------------------------------------------

    def stat(self) -> os.stat_result | None:
        """What is there, links not followed; None if there is nothing.

        Raises:
            Unsafe: it is inside of something that is not a folder.
        """
        if not self.parts:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return self.root.stat()
            return None
        try:
            with self.parent.opened() as folder:
                return folder.stat(self.name)
        except FileNotFoundError:
            return None

    def exists(self) -> bool:
        """Whether there is anything of this name."""
        return self.stat() is not None

    def is_folder(self) -> bool:
        """Whether it is a folder; links below the root do not count."""
        found = self.stat()
        return found is not None and stat.S_ISDIR(found.st_mode)

    def children(self, pattern: str = "*") -> list[GuardedPath]:
        """What is in this folder, by name; nothing if there is no such folder.

        Raises:
            Unsafe: it is not a folder.
        """
        try:
            with self.opened() as folder:
                names = folder.names()
        except FileNotFoundError:
            return []
        return [GuardedPath(self.root, (*self.parts, n)) for n in fnmatch.filter(names, pattern)]

    def walk(self, *, readable: bool = False) -> Iterator[GuardedPath]:
        """Everything inside this folder; links are not followed.

        Args:
            readable: folders that this user may not list are left out.

        Raises:
            Unsafe: folders are nested deeper than those of any run.
        """
        waiting = [self]
        while waiting:
            try:
                children = waiting.pop().children()
            except PermissionError:
                if not readable:
                    raise
                continue
            for child in children:
                yield child
                if child.is_folder():
                    if len(child.parts) - len(self.parts) > DEEPEST:
                        raise Unsafe(
                            "folders are nested deeper than those of any run",
                            where=self,
                            hint=f"remove it: {to_paste('rm', '-r', '--', self.shown)}",
                        )
                    waiting.append(child)

    def check(self, *, deep: bool = True) -> None:
        """Makes this folder safe for a library that writes into it by itself.

        Files directly in it get a content of their own, see `own`.

        Args:
            deep: look into the folders in it, too.

        Raises:
            Unsafe: something inside is neither a regular file nor a folder.
        """
        for inner in self.walk() if deep else self.children():
            found = inner.stat()
            if found is not None and not stat.S_ISDIR(found.st_mode):
                _check_regular(found, inner)
                if inner.parent == self:
                    inner.own()

    def own(self) -> None:
        """Gives a file that has other names elsewhere (hard links) a content of its own.

        Writing into it changes no other file then. A file that does not exist stays so.

        Raises:
            Unsafe: it is not a regular file, or has other names and is larger than any text of a run.
        """
        found = self.stat()
        if found is None or found.st_nlink == 1 or stat.S_ISDIR(found.st_mode):
            return
        with self.open() as file:
            content = file.read(MOST_TEXT + 1)
        if len(content) > MOST_TEXT:
            raise Unsafe(
                f"{self.name} is a hard link: writing would change another file too",
                where=self,
                hint=f"remove it: {to_paste('rm', self)}",
            )
        with self.atomic() as temporary:
            temporary.write_bytes(content)

    # -- reading -----------------------------------------------------------------------------------

    def open(self) -> IO[bytes]:
        """The file, opened for reading.

        Raises:
            FileNotFoundError: there is none.
            Unsafe: it is not a regular file, or is inside of something that is not a folder.
        """
        # Opening a pipe would wait for its other end.
        return os.fdopen(self._open(os.O_RDONLY | _NONBLOCK), "rb")

    def read_text(self, most: int = MOST_TEXT) -> str:
        """The content of the file, of UTF-8.

        Raises:
            FileNotFoundError, Unsafe: as for `open`.
            UserError: it has more than ``most`` bytes.
            ValueError: it is not UTF-8.
        """
        with self.open() as file:
            content = file.read(most + 1)
        if len(content) > most:
            hint = "it was changed or is another program's; move it away or use another folder"
            raise UserError(f"{self.name} is larger than any file of cae", where=self, hint=hint)
        return content.decode("utf-8")

    # -- writing -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def atomic(self) -> Iterator[Path]:
        """A temporary file that replaces this one when the block ends without error.

        At every moment, even of a power failure, there is either the old or the complete new file.

        Yields:
            its path, for libraries that open files by path.

        Raises:
            Unsafe: it is a folder, or is inside of something that is not a folder.
        """
        # The suffix is kept because Keras and NumPy depend on it.
        temporary = f"{UNFINISHED}{secrets.token_hex(6)}{self.suffix}"
        self.parent.make()
        with self.parent.opened() as folder:
            os.close(folder.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            try:
                yield self.parent.shown / temporary
                descriptor = folder.open(temporary, os.O_RDONLY)
                try:
                    _to_disk(descriptor)  # otherwise the new name may reach the disk before the content
                finally:
                    os.close(descriptor)
                with self._being_no_folder():
                    folder.replace(temporary, self.name)
                folder.to_disk()
            finally:
                with contextlib.suppress(FileNotFoundError):
                    folder.unlink(temporary)

    def append(self) -> IO[bytes]:
        """The file, opened to append to it, unbuffered; created if it does not exist.

        Raises:
            Unsafe: as for `own`.
        """
        self.parent.make()
        self.own()
        return os.fdopen(
            self._open(os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NONBLOCK), "ab", buffering=0
        )

    def make(self) -> bool:
        """Creates this folder, and those above it.

        Returns:
            Whether this process created it.

        Raises:
            Unsafe: there is something else than a folder of this name.
        """
        if not self.parts:
            try:
                self.root.mkdir(parents=True)
                return True
            except FileExistsError:
                if self.root.is_dir():
                    return False
                raise
        created = False
        above = self.parent
        if len(self.parts) > 1 or not above.is_folder():
            above.make()
        with self.parent.opened() as folder, contextlib.suppress(FileExistsError):
            folder.mkdir(self.name)
            created = True
        if not created:
            with self.opened():
                pass  # it is a folder
        return created

    def rename(self, name: str) -> GuardedPath:
        """Gives it another name in its folder, and returns the new path."""
        other = self.parent / name
        with self.parent.opened() as folder:
            folder.replace(self.name, name)
        return other

    def unlink(self) -> None:
        """Removes the file if it exists; of a link, the link.

        Raises:
            Unsafe: it is a folder.
        """
        with (
            contextlib.suppress(FileNotFoundError),
            self.parent.opened() as folder,
            self._being_no_folder(),
        ):
            folder.unlink(self.name)

    def remove(self) -> None:
        """Removes the folder with all its content; links are removed, not their targets."""
        with self.parent.opened() as folder:
            folder.remove(self.name)

    # -- descriptors ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def opened(self) -> Iterator[_Folder]:
        """This folder, opened.

        Raises:
            FileNotFoundError: there is none.
            Unsafe: it is not a folder, or is inside of something that is not.
        """
        try:
            folder = _Folder.of(self.root)
        except NotADirectoryError as error:
            raise _unsafe(GuardedPath(self.root), "folder") from error
        try:
            for depth, name in enumerate(self.parts):
                try:
                    inner = folder.inner(name)
                except OSError as error:
                    if isinstance(error, FileNotFoundError) or error.errno not in _NOT_A_FOLDER:
                        raise
                    raise _unsafe(GuardedPath(self.root, self.parts[: depth + 1]), "folder") from error
                folder.close()
                folder = inner
            yield folder
        finally:
            folder.close()

    @contextlib.contextmanager
    def _being_no_folder(self) -> Iterator[None]:
        """For what systems refuse for a folder: replacing it by a file, and removing it as one."""
        try:
            yield
        except (IsADirectoryError, PermissionError) as error:
            if self.is_folder():
                raise _unsafe(self, "file") from error
            raise

    def _open(self, flags: int) -> int:
        """A descriptor of the file, which is a regular one."""
        with self.parent.opened() as folder:
            try:
                descriptor = folder.open(self.name, flags)
            except OSError as error:
                if error.errno in _NOT_A_FILE:
                    raise _unsafe(self, "file") from error
                raise
        try:
            _check_regular(os.fstat(descriptor), self)
        except Unsafe:
            os.close(descriptor)
            raise
        return descriptor


@dataclass(frozen=True)
class _Folder:
    """An opened folder.

    Attributes:
        descriptor: its descriptor; None where the system has none.
        path: used instead where there is no descriptor, and in errors.
    """

    descriptor: int | None
    path: Path

    @classmethod
    def of(cls, path: Path) -> _Folder:
        if not _BY_DESCRIPTOR:
            if not path.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            return cls(None, path)
        return cls(os.open(path, _FOLDER & ~_NOFOLLOW), path)

    def inner(self, name: str) -> _Folder:
        """A folder in this one that is no link."""
        with self._named_in_errors(name):
            if self.descriptor is not None:
                return _Folder(os.open(name, _FOLDER, dir_fd=self.descriptor), self.path / name)
            inner, real = self.path / name, os.path.realpath(self.path)
            if not stat.S_ISDIR(inner.lstat().st_mode) or os.path.realpath(inner) != str(
                Path(real) / name
            ):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            return _Folder(None, inner)

    def identity(self) -> tuple[int, int]:
        """Device and inode: the same for every way to the folder."""
        found = self.path.stat() if self.descriptor is None else os.fstat(self.descriptor)
        return found.st_dev, found.st_ino

    @contextlib.contextmanager
    def _named_in_errors(self, name: str) -> Iterator[str]:
        """The name as the operating system needs it; errors get the whole path."""
        try:
            yield name if self.descriptor is not None else str(self.path / name)
        except OSError as error:
            error.filename = str(self.path / name)
            raise

    def open(self, name: str, flags: int) -> int:
        flags |= _NOFOLLOW | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        with self._named_in_errors(name) as path:
            if self.descriptor is None and Path(path).is_symlink():
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            return os.open(path, flags, 0o666, dir_fd=self.descriptor)

    def stat(self, name: str) -> os.stat_result:
        with self._named_in_errors(name) as path:
            return os.stat(path, dir_fd=self.descriptor, follow_symlinks=False)

    def names(self) -> list[str]:
        with os.scandir(self.path if self.descriptor is None else self.descriptor) as entries:
            return sorted(entry.name for entry in entries)

    def mkdir(self, name: str) -> None:
        with self._named_in_errors(name) as path:
            os.mkdir(path, dir_fd=self.descriptor)

    def unlink(self, name: str) -> None:
        with self._named_in_errors(name) as path:
            os.unlink(path, dir_fd=self.descriptor)

    def replace(self, old: str, new: str) -> None:
        path = new if self.descriptor is not None else str(self.path / new)
        with self._named_in_errors(old) as before:
            os.replace(before, path, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        with self._named_in_errors(name) as path:
            shutil.rmtree(path, dir_fd=self.descriptor)

    def to_disk(self) -> None:
        """Flushes the names in the folder to the disk."""
        if self.descriptor is not None:
            _to_disk(self.descriptor)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


def guard(path: Path | GuardedPath) -> GuardedPath:
    """The folder of a path, guarded from there on."""
    return path if isinstance(path, GuardedPath) else GuardedPath(path)


# What opening a file says of a link, a pipe that nobody reads, a folder.
_NOT_A_FILE = (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR)

# What opening a folder says of a link, a file, a pipe.
_NOT_A_FOLDER = (errno.ENOTDIR, errno.ELOOP, errno.EMLINK)


def is_name(name: str) -> bool:
    """Whether a text can be the name of a file in a folder."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return name == Path(name).name and bool(name.strip(".")) and "\0" not in name


def _check_regular(found: os.stat_result, path: GuardedPath) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _unsafe(path, "file", found)


def _unsafe(path: GuardedPath, wanted: str, found: os.stat_result | None = None) -> Unsafe:
    """The error for what is not a regular file or not a folder."""
    mode = (found or path.stat() or os.stat_result((0,) * 10)).st_mode
    if stat.S_ISLNK(mode):
        return Unsafe(
            f"{path.name} is a link, and links inside a run are not followed",
            where=path,
            hint=f"remove it: {to_paste('rm', path)}",
        )
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    kinds |= {stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFREG: "a file"}
    is_what = kinds.get(stat.S_IFMT(mode), "something else")
    return Unsafe(
        f"{path.name} is {is_what}, where a {wanted} belongs",
        where=path,
        hint=f"remove it: {to_paste('rm', '-r', path)}",
    )


def _to_disk(descriptor: int) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not supported by a network file system
            raise
