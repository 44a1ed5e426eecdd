"""Where image files lie: in a folder, in an archive, or alone."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import threading
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from cae_cli.data import video
from cae_cli.data.decoding import EXTENSIONS, Unreadable
from cae_cli.data.medical import has_dicom, is_dicom
from cae_cli.data.source import folder_at, listed
from cae_cli.errors import UserError, printable
from cae_cli.system import memory

LARGEST_FILE = 2**30  # bytes; formats are read whole, but films, and a sparse file may claim any size


class Place(Protocol):
    """Image files by name."""

    files: list[str]  # with "/" between folders
    notes: list[str]  # on what was left out

    def open(self, name: str) -> IO[bytes]:
        """The content of a file, from any thread.

        Raises:
            Unreadable: it is empty or too large.
        """


@contextmanager
def place_of(path: Path, follow_links: bool) -> Iterator[Place]:
    """The image files at a path that exists.

    Raises:
        UserError: there are none.
    """
    if path.is_file() and (path.name.lower().endswith(EXTENSIONS) or is_dicom(path)):
        yield _Folder(path.parent, [path.name], [])
    elif path.is_file() and path.suffix.lower() == ".parquet":
        yield _Parquet(path)
    elif path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield _Zip(archive, path)
    elif path.is_file() and tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            yield _Tar(archive, path)
    elif path.is_file() and path.suffix.lower() == ".txt":
        yield _Folder(*_listed(path), [])
    else:
        folder_at(str(path), "folder/with/images")
        yield _Folder(path, *_find(path, follow_links))


@dataclass
class _Folder:
    """Files of a folder."""

    root: Path
    files: list[str]
    notes: list[str]

    def open(self, name: str) -> IO[bytes]:
        file = self.root / name
        size = file.stat().st_size
        # A film is read piece by piece, whatever its length.
        check_size(min(size, LARGEST_FILE) if name.lower().endswith(video.EXTENSIONS) else size)
        return file.open("rb")


def _listed(path: Path) -> tuple[Path, list[str]]:
    """The folder above all files that a text file names, one in each line, and their names below it.

    Raises:
        UserError: it names none, or is no text.
    """
    try:
        check_size(path.stat().st_size)
        files = listed(path)
    except (OSError, ValueError, Unreadable) as error:
        raise UserError(f"data.path cannot be read as a list of paths: {error}", where=path) from error
    if not files:
        raise UserError("data.path names no images", where=path, hint="write one path in each line")
    if not any(file.is_file() for file in files):
        raise UserError(
            "data.path must be a folder, an image or an archive of images, or a text file with the path "
            "of an image in each line; this text names no file",
            where=path,
            hint="relative paths in it start at its folder",
        )
    root = Path(os.path.commonpath([file.parent for file in files]))
    return root, [file.relative_to(root).as_posix() for file in files]


class _Archive:
    """Files of an archive; each is unpacked into memory when it is read, none onto the disk."""

    def __init__(self, names: list[str], path: Path) -> None:
        visible = [n for n in names if not any(p.startswith((".", "__MACOSX")) for p in n.split("/"))]
        self.files = [
            name
            for name in visible
            if name.lower().endswith(EXTENSIONS) or (_is_bare(name) and self._is_dicom(name))
        ]
        others = len(visible) - len(self.files)
        self.notes = [f"files that are not images, ignored: {others}"] * (others > 0)
        if not self.files:
            hint = f"use files with one of these extensions: {' '.join(EXTENSIONS)}"
            if any(name.endswith(".npy") for name in visible):
                hint = "use data=npz for arrays"
            raise UserError(f"data.path has no images, other files: {others}", where=path, hint=hint)

    def _is_dicom(self, name: str) -> bool:
        try:
            with self._packed(name) as content:
                return has_dicom(content)
        except (Unreadable, OSError, zlib.error, zipfile.BadZipFile, tarfile.TarError):
            return False

    def _packed(self, name: str) -> IO[bytes]:
        """A file of the archive, unpacked while it is read.

        Raises:
            Unreadable: encrypted, or packed in an unusual way.
        """
        raise NotImplementedError


class _Zip(_Archive):
    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive = archive
        names = [member.filename for member in archive.infolist() if not member.is_dir()]
        super().__init__(sorted(set(names), key=lambda name: name.split("/")), path)

    def open(self, name: str) -> IO[bytes]:
        member = self._archive.getinfo(name)
        check_size(member.file_size)
        with self._packed(name) as packed:  # gives no more than the stated size
            return io.BytesIO(packed.read())

    def _packed(self, name: str) -> IO[bytes]:
        member = self._archive.getinfo(name)
        # Python bounds what these two unpack to at once.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Unreadable("unusual compression")
        if member.flag_bits & 1:
            raise Unreadable("encrypted")
        return self._archive.open(member)


class _Tar(_Archive):
    def __init__(self, archive: tarfile.TarFile, path: Path) -> None:
        self._archive, self._one_at_a_time = archive, threading.Lock()
        self._members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}
        super().__init__(list(self._members), path)  # in their order: a packed archive is read forwards

    def open(self, name: str) -> IO[bytes]:
        member = self._members[name]
        check_size(member.size)
        with self._one_at_a_time, self._packed(name) as inside:
            return io.BytesIO(inside.read())

    def _packed(self, name: str) -> IO[bytes]:
        inside = self._archive.extractfile(self._members[name])
        assert inside is not None
        return inside


class _Parquet:
    """Rows with the content of an image file each, as of Hugging Face's data sets; labels as folders."""

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import types
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise UserError(
                "reading Parquet needs pyarrow, which is not installed",
                where=path,
                hint="pip install 'cae-cli[parquet]'",
            ) from error
        try:
            with ParquetFile(path) as file:
                schema = file.schema_arrow
                name = next((f.name for f in schema if _is_image(f.type, types)), None)
                if name is None:
                    there = printable(", ".join(schema.names))
                    raise UserError(
                        f"data.path has no column of image files, but {there}",
                        where=path,
                        hint="such a column holds the bytes of PNG or JPEG files",
                    )
                groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
                columns = [group.column(k) for group in groups for k in range(group.num_columns)]
                needed = sum(
                    c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == name
                )
                memory.check(needed, f"the column {printable(name)}", path, "use a part of the file")
                whole = [f.name for f in schema if types.is_integer(f.type)]
                label = next((column for column in whole if column in LABELS), None)
                table = file.read([name, label] if label else [name])
        except (UserError, MemoryError):
            raise
        except Exception as error:  # of pyarrow, for a damaged file
            raise UserError(
                "data.path cannot be read as Parquet",
                where=path,
                hint="the file is damaged or incomplete; copy it or download it again",
            ) from error
        self._content = table.column(name)
        labels = table.column(label).to_pylist() if label else [None] * len(table)
        self._rows = {f"{'' if y is None else f'{y:04}/'}row {i:07}": i for i, y in enumerate(labels)}
        self.files = list(self._rows)
        self.notes = [
            f"images are the column {printable(name)}" + (f", labels {label}" if label else "")
        ]

    def open(self, name: str) -> IO[bytes]:
        value = self._content[self._rows[name]].as_py()
        content = (value.get("bytes") if isinstance(value, dict) else value) or b""
        check_size(len(content))
        return io.BytesIO(content)


LABELS = ("label", "labels", "fine_label", "class", "y")


def _is_image(column: Any, types: Any) -> bool:
    """Whether a column has bytes, or pairs of bytes and paths."""
    if types.is_struct(column):
        return any(f.name == "bytes" and _is_image(f.type, types) for f in column)
    return bool(types.is_binary(column) or types.is_large_binary(column))


def check_size(size: int) -> None:
    """Raises an error for a file of so many bytes that is not even opened."""
    if not size:
        raise Unreadable("empty")
    if size > LARGEST_FILE:
        raise Unreadable(f"too large: {memory.amount(size)}")


def _is_bare(file: str) -> bool:
    """Whether a name has no extension."""
    return "." not in file.rpartition("/")[2]


class _Search:
    """Lists images below a folder, by names relative to it. Names that begin with a dot are ignored.

    Only regular files are opened, because reading a pipe may never end. Without ``follow_links``, links
    are ignored. With it, each file and folder is listed once, if possible by a name without a link.
    """

    def __init__(self, root: Path, follow_links: bool) -> None:
        self.images: list[str] = []
        self.others = self.outside = self.broken = self.closed = 0
        self._root, self._real_root = root, root.resolve()
        self._seen: set[tuple[int, int]] | None = set() if follow_links else None
        links = deque(self._walk(""))
        while links:
            link = links.popleft()
            try:
                mode = (root / link).stat().st_mode
            except OSError:
                self.broken += 1
                continue
            if not follow_links:
                self._leave_out(link)
            elif stat.S_ISDIR(mode):
                links += self._walk(link)
            elif stat.S_ISREG(mode):
                self._take(link)

    def _walk(self, start: str) -> list[str]:
        """Takes the files of a folder and of those below it; returns the links there."""
        links, folders = [], [start]
        while folders:  # no recursion: folders may be nested deeper than Python's stack
            folder = folders.pop()
            try:
                if not self._is_new(folder):
                    continue
                with os.scandir(self._root / folder) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError as error:
                if not folder:
                    raise UserError(
                        f"data.path cannot be read: {error.strerror}", where=self._root
                    ) from error
                self.closed += 1
                continue
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    links.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_file(follow_symlinks=False):
                    self._take(name)
        return links

    def _take(self, file: str) -> None:
        is_other = not file.lower().endswith(EXTENSIONS)
        if is_other and not (_is_bare(file) and is_dicom(self._root / file)):
            self.others += 1
        elif self._is_new(file):
            self.images.append(file)

    def _is_new(self, name: str) -> bool:
        if self._seen is None:  # without links each has one name
            return True
        info = (self._root / name).stat()
        key = info.st_dev, info.st_ino
        new = key not in self._seen
        self._seen.add(key)
        return new

    def _leave_out(self, link: str) -> None:
        """Counts a link, unless its target is listed anyway."""
        target = (self._root / link).resolve()
        if target.is_file() and not link.lower().endswith(EXTENSIONS):
            self.others += 1
            return
        inside = target.is_relative_to(self._real_root)
        hidden = inside and any(p.startswith(".") for p in target.relative_to(self._real_root).parts)
        found = target.is_dir() or target.name.lower().endswith(EXTENSIONS)
        self.outside += not (inside and not hidden and found)


def _find(root: Path, follow_links: bool) -> tuple[list[str], list[str]]:
    """Image files below ``root`` in a fixed order, and notes on the others.

    Raises:
        UserError: there are none.
    """
    found = _Search(root, follow_links)
    counted = (
        ("other files", "files that are not images, ignored", found.others),
        ("links out of it", "links out of the folder, left out", found.outside),
        ("links to nothing", "links to nothing", found.broken),
        ("folders that cannot be read", "folders that cannot be read", found.closed),
    )
    following = "data.follow_links=true follows links"
    if not found.images:
        there = ", ".join(f"{what}: {count}" for what, _, count in counted if count)
        raise UserError(
            f"data.path has no images, {there or 'it is empty'}",
            where=root,
            hint=following
            if found.outside
            else f"use files with one of these extensions: {' '.join(EXTENSIONS)}",
        )
    notes = [f"{what}: {count}" for _, what, count in counted if count]
    if found.outside:
        notes.append(following)
    return sorted(found.images, key=lambda name: name.split("/")), notes
