"""Pairs of images: what a network is given, and what it is to make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath

import numpy as np

from cae_cli.data.archives import kind_of, read_npy, read_npz
from cae_cli.data.arrays import ArrayOptions
from cae_cli.data.folder import FileOptions, ImageFolder
from cae_cli.data.images import Pool
from cae_cli.data.layout import without_role, without_shared
from cae_cli.data.listing import place_of
from cae_cli.data.source import SOURCES, existing
from cae_cli.data.spool import chosen
from cae_cli.errors import UserError, counted, first_few, printable
from cae_cli.options import OptionError, option, override_to_paste

ARRAYS = ("npz", "npy")
Place = tuple[int, int, int, int]  # pair, frame, row, column
Sizes = Mapping[tuple[int, int], tuple[int, int]]  # pair, frame: (h, w)
OF_FILES = ("image_size", "patches", "channels")  # options that arrays do not have
OF_ARRAYS = ("shape", "bands")  # options that image files do not have


@SOURCES.add("pairs")
@dataclass(frozen=True, kw_only=True)
class Pairs(FileOptions, ArrayOptions):
    """Pairs of images: what the network is given, such as noisy ones, and what it is to make of it.

    Files are paired by their names, arrays by their order.
    """

    path: str | None = option("what the network is given: as for image_folder, or an .npz or .npy file")
    target: str | None = option(
        "what it is to make of it: the same; null: another array of the same .npz file"
    )
    key: str | None = option("name of the array in data.path; null: x_train, or the only one")
    target_key: str | None = option(
        "name of the array to be made; null: x_train, or the only one of data.target; without that "
        "y_train of data.path"
    )

    def read(self) -> Pool:
        """All pairs.

        Raises:
            UserError: one of both cannot be read, or they are no pairs.
        """
        return self._read(None)

    def read_of(self, shape: tuple[int, int, int]) -> Pool:
        """As `read`; files of another size than ``shape`` are left out and named.

        A trained network needs no targets: without ``target``, image files are read alone.

        Raises:
            UserError: as for `read`.
        """
        if self.target is None and self._kind(existing(self.path, "noisy")) is None:
            return self._folder.read_of(shape)
        return self._read(shape[:2])

    def _read(self, size: tuple[int, int] | None) -> Pool:
        path = existing(self.path, "noisy")
        kind = self._kind(path)
        self._check_options(OF_ARRAYS if kind is None else OF_FILES)
        if kind is None:
            return self._of_files(path, existing(self.target, "clean", "data.target"), size)
        if self.target is not None:
            other = existing(self.target, "clean.npy", "data.target")
            given, made = (
                self._array(path, self.key, "data.key"),
                self._array(other, self.target_key, "data.target_key"),
            )
        elif kind == "npy":
            raise OptionError(
                "data.target",
                "has no value",
                hint=f"use {override_to_paste('data.target', 'clean.npy')}",
            )
        else:
            given, made = _of_one_file(path, self.key, self.target_key)
        given, made = self.arranged(given), self.arranged(made)
        both = given.test_images is not None and made.test_images is not None
        return replace(
            given,
            images=made.images,
            inputs=given.images,
            test_images=made.test_images if both else None,
            test_inputs=given.test_images if both else None,
            test_labels=given.test_labels if both else None,
        )

    def _check_options(self, others: Sequence[str]) -> None:
        """Raises OptionError for a value of an option that files of this kind do not have."""
        what = "arrays" if others is OF_FILES else "image files"
        for name in others:
            if getattr(self, name) is not None:
                raise OptionError(
                    f"data.{name}", f"does nothing with pairs of {what}", hint=f"leave out data.{name}"
                )

    @property
    def are_files(self) -> bool:
        """Whether the images are read from image files."""
        return self.path is None or self._kind(existing(self.path, "noisy")) is None

    @staticmethod
    def _kind(path: Path) -> str | None:
        """Npy or npz, or None for image files."""
        kind = kind_of(path) if path.is_file() and path.suffix.lower() != ".zip" else None
        return kind if kind in ARRAYS else None

    @property
    def _folder(self) -> ImageFolder:
        return ImageFolder(**{f.name: getattr(self, f.name) for f in fields(ImageFolder)})

    def _array(self, path: Path, key: str | None, name: str) -> Pool:
        kind = self._kind(path)
        if kind is None:
            raise UserError(
                "the other side of the pairs is an array, this is none",
                where=path,
                hint="name two folders of images, or two .npz or .npy files",
            )
        return read_npy(path) if kind == "npy" else read_npz(path, key, name)

    def _of_files(self, path: Path, target: Path, size: tuple[int, int] | None) -> Pool:
        files = self._folder
        with (
            place_of(path, self.follow_links) as one,
            place_of(target, self.follow_links) as other,
        ):
            pairs = partners(one.files, other.files) or _inside_partners(one.files, other.files)
            notes = [*_alone(one.files, {a for a, _ in pairs}, "input", "target")]
            notes += _alone(other.files, {b for _, b in pairs}, "target", "input")
            if not pairs:
                raise UserError(
                    "no file of data.path has the name of a file of data.target: "
                    f"{printable(one.files[0])} and {printable(other.files[0])} are the first ones",
                    where=path,
                    hint="give the two files of a pair the same name, in folders of their own",
                )
            notes += [*one.notes, *(f"target: {note}" for note in other.notes)]
            one.notes, other.notes = [], []
            # Each in its own order, in which a packed archive is read forwards.
            one.files = [a for a, _ in pairs]
            number = {b: i for i, (_, b) in enumerate(pairs)}
            other.files = [b for b in other.files if b in number]
            # Of two sizes, resized sides may differ by a pixel: the patches begin in the same corner.
            centred = self.image_size is None
            given, read = files.read_place(one, path, size, centred=centred)
            made, made_read = files.read_place(other, target, size, centred=centred)
            shown = [printable(name) for name in one.files]
            of_pair = [number[b] for b in other.files]
        sizes = {(of_pair[i], k): of_frame for (i, k), of_frame in made_read.sizes.items()}
        _check_sizes(read.sizes, sizes, shown, path, resized=self.image_size is not None)
        places = [(i, *place) for i, place in zip(read.files, read.places, strict=True)]
        others = [
            (of_pair[i], *place) for i, place in zip(made_read.files, made_read.places, strict=True)
        ]
        at, made_at = _same_places(places, others)
        used = {read.files[i] for i in at}
        if missing := sorted({i for i, *_ in (*places, *others)} - used):
            notes.append(
                f"{counted(len(missing), 'pair')} left out: one of both cannot be used: "
                f"{first_few([shown[i] for i in missing])}"
            )
        if not len(at):
            raise UserError("of no pair both images can be used", where=path)
        if short := sorted({i for i, *_ in {*places} ^ {*others}} & used):
            notes.append(
                f"patches left out of {counted(len(short), 'pair')}, where one image has a row or a "
                f"column more than the other: {first_few([shown[i] for i in short])}"
            )
        notes += [note for note in given.notes if note not in made.notes]
        notes += [f"target: {note}" for note in made.notes if note not in given.notes]
        notes += [note for note in given.notes if note in made.notes]
        whole = places == others
        return replace(
            given,
            images=made.images if whole else chosen(made.images, made_at),
            inputs=given.images if whole else chosen(given.images, at),
            labels=None if given.labels is None else given.labels[at],
            groups=None if given.groups is None else given.groups[at],
            parts=None if given.parts is None else given.parts[at],
            names=None if given.names is None else [given.names[i] for i in at],
            notes=tuple(notes),
        )


def _of_one_file(path: Path, key: str | None, target_key: str | None) -> tuple[Pool, Pool]:
    """Two arrays of one .npz file; x_train and y_train with x_test and y_test, where these exist."""
    key, target_key = key or "x_train", target_key or "y_train"
    given = read_npz(path, key)
    made = read_npz(path, target_key, "data.target_key")
    if target_key == "y_train" and given.test_images is not None:
        made = replace(made, test_images=read_npz(path, "y_test", "data.target_key").images)
    if target_key == "y_train":  # no labels
        given = replace(given, labels=None, test_labels=None, notes=())
    return given, made


def partners(one: Sequence[str], other: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of files by name: the same one, else apart from the extension, else also from the role.

    The role is a word such as noisy in ``a_noisy.png``, whose partner is ``a.png`` or ``a_clean.png``.
    Names that fit several files pair none of them.
    """
    found: dict[str, str] = {}
    for name in (str, _without_extension, without_role):
        left = [file for file in one if file not in found]
        there = Counter(map(name, left)), Counter(map(name, taken := set(other) - set(found.values())))
        by_name = {name(file): file for file in taken}
        alone = [file for file in left if all(count[name(file)] == 1 for count in there)]
        found |= {file: by_name[name(file)] for file in alone}
    return [(file, found[file]) for file in one if file in found]


def _inside_partners(one: Sequence[str], other: Sequence[str]) -> list[tuple[str, str]]:
    """The same, below the folder that all files of a side share, as of an archive of a folder."""
    names = without_shared(one), without_shared(other)
    of_one, of_other = (dict(zip(*side, strict=True)) for side in zip(names, (one, other), strict=True))
    return [(of_one[a], of_other[b]) for a, b in partners(*names)]


def _without_extension(file: str) -> str:
    return str(PurePosixPath(file).with_suffix(""))


def _alone(files: Sequence[str], paired: set[str], what: str, missing: str) -> list[str]:
    """A note on files without a partner."""
    alone = [printable(file) for file in files if file not in paired]
    if not alone:
        return []
    return [f"! {counted(len(alone), what)} left out, as no {missing} has the same name: "
            f"{first_few(alone)}"]  # fmt: skip


def _same_places(one: Sequence[Place], other: Sequence[Place]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the images that both have: of the same pair, and the same patch of the same frame."""
    others = {place: i for i, place in enumerate(other)}
    both = [(i, others[place]) for i, place in enumerate(one) if place in others]
    at = np.array(both, np.intp).reshape(-1, 2)
    return at[:, 0], at[:, 1]


def _check_sizes(one: Sizes, other: Sizes, names: Sequence[str], where: Path, *, resized: bool) -> None:
    """Raises UserError where the two images of a pair do not show the same places."""
    frames, of_other = Counter(i for i, _ in one), Counter(i for i, _ in other)
    for i in frames.keys() & of_other.keys():
        if frames[i] != of_other[i]:
            raise UserError(
                f"the two files of {names[i]} have {frames[i]} and {of_other[i]} frames",
                where=where,
                hint="save those that belong together in the same order; data.frames=first reads the "
                "first frame of each",
            )
    for (i, k), (h, w) in one.items():
        oh, ow = other.get((i, k), (h, w))
        if resized and abs(h * ow - w * oh) > max(h, w, oh, ow):
            raise UserError(
                f"the two images of {names[i]} have different proportions: {w}x{h} and {ow}x{oh}",
                where=where,
                hint="cut both to the same part of the picture before",
            )
        if not resized and (h, w) != (oh, ow):
            side = max(min(h, w), min(oh, ow))
            raise UserError(
                f"the two images of {names[i]} have different sizes: {w}x{h} and {ow}x{oh}",
                where=where,
                hint=f"data.image_size={min(side, 4096)} enlarges the smaller one; with data.patches=28 "
                "both are cut alike",
            )
