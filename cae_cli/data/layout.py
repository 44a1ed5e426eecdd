"""What the folders of image files mean, by their names: parts of a data set, labels, masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cae_cli.data.images import TEST, TRAIN, VALIDATION
from cae_cli.errors import counted, first_few, printable
from cae_cli.options import override_to_paste

PARTS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
MASKS = {
    *("mask", "masks", "label", "labels", "annotation", "annotations", "segmentation", "segmentations"),
    *("gt", "ground_truth", "groundtruth"),
}
# Folders of pairs side by side, for a network that makes the second of the first
INPUTS = {
    *("noisy", "noise", "input", "inputs", "lr", "lq", "low", "blur", "blurred", "blurry", "degraded"),
    *("corrupted", "damaged", "masked", "small"),
}
TARGETS = {
    *("clean", "target", "targets", "hr", "hq", "high", "sharp", "original", "originals", "gt"),
    *("ground_truth", "groundtruth", "large"),
}
# Words that tell the two files of a pair apart in their names: a_noisy.png. Others say what they show.
_ROLES = {*INPUTS, *TARGETS, *MASKS} - {"low", "high", "small", "large"}
_ROLE = re.compile(rf"(^|[_. -])(?:{'|'.join(sorted(_ROLES))})(?=$|[_. -])", re.IGNORECASE)
_SUFFIXES = ("mask", "masks", "label", "seg", "segmentation", "gt")


@dataclass(frozen=True)
class Layout:
    """What the folders mean.

    Attributes:
        labels: of each file the name of its class; None: the folders are no classes.
        parts: of each file TRAIN, VALIDATION or TEST; None: the folders are no parts.
        notes: sentences about what was found.
    """

    labels: list[str] | None
    parts: list[int] | None
    notes: tuple[str, ...]


def layout(files: list[str], root: Path | None, *, split: bool) -> Layout:
    """Reads the names of image files.

    Args:
        files: names relative to the root, with ``/``.
        root: their folder; None: they lie in an archive.
        split: whether folders named train, val and test are parts.
    """
    paths = [PurePosixPath(file).parts for file in files]
    shared = _shared(paths)
    inside = [path[shared:] for path in paths]
    parts, outside = _parts(inside) if split else (None, [])
    if parts is not None:
        inside = [path[1:] for path in inside]
        inside = [path[_shared(inside) :] for path in inside]
    notes = _side_by_side(files, inside, root, of_parts=parts is not None)
    notes += _outside([files[i] for i in outside])
    named = all(len(path) > 1 for path in inside) and len({path[0] for path in inside}) > 1
    return Layout([path[0] for path in inside] if named else None, parts, tuple(notes))


def _shared(paths: list[tuple[str, ...]]) -> int:
    """How many folders all files are in."""
    shared = 0
    while all(len(path) > shared + 1 and path[shared] == paths[0][shared] for path in paths):
        shared += 1
    return shared


def _parts(inside: list[tuple[str, ...]]) -> tuple[list[int] | None, list[int]]:
    """The parts, if every file is in one, and one of several is for training.

    Where that fails for fewer than half of the files: which these are.
    """
    found = [PARTS.get(path[0].lower(), -1) if len(path) > 1 else -1 for path in inside]
    if not {TRAIN} < set(found) - {-1}:
        return None, []
    outside = [i for i, part in enumerate(found) if part == -1]
    if outside:
        return None, outside if 2 * len(outside) < len(found) else []
    return found, []


def _outside(files: list[str]) -> list[str]:
    """A note on the few files that keep folders from being the parts."""
    if not files:
        return []
    named = first_few([*map(printable, files)])
    return [
        f"! folders are named as parts, and all are mixed: {counted(len(files), 'file')} in none of "
        f"them: {named}; move such files into a part, or elsewhere"
    ]


def _side_by_side(
    files: list[str], inside: list[tuple[str, ...]], root: Path | None, *, of_parts: bool
) -> list[str]:
    """Notes on files that look like pairs, or masks of other files, by their names or their folders'."""
    stems: dict[str, set[str]] = {}  # by folder
    for path in inside:
        stems.setdefault("/".join(path[:-1]), set()).add(PurePosixPath(path[-1]).stem)
    notes, paired = [], set()
    for given, target in _pairs(stems):
        paired |= {given, target}
        how = "put them into two folders for data=pairs"
        if root is not None and not of_parts:
            i, k = (
                next(i for i, p in enumerate(inside) if "/".join(p[:-1]) == f) for f in (given, target)
            )
            paths = (root / files[i]).parent, (root / files[k]).parent
            how = " ".join(["data=pairs", *map(override_to_paste, ("data.path", "data.target"), paths)])
        notes.append(
            f"! {printable(given)}/ and {printable(target)}/ seem to be pairs, and both are read as "
            f"images; is a network to make the second of the first? {how}"
        )
    for folder, of_masks in stems.items():
        if PurePosixPath(folder).name.lower() not in MASKS or folder in paired:
            continue
        of_masks = {_without_suffix(stem) for stem in of_masks}
        for other, of_images in stems.items():
            if other != folder and 2 * len(of_masks & of_images) >= len(of_masks):
                i = next(i for i, path in enumerate(inside) if "/".join(path[:-1]) == other)
                only = f"move {printable(folder)}/ elsewhere to read the images alone"
                if root is not None and not of_parts:  # else their path would be that of one part
                    chosen = override_to_paste("data.path", (root / files[i]).parent)
                    only = f"{chosen} reads the images alone"
                of = printable(other)
                notes.append(
                    f"! {printable(folder)}/ seems to hold masks of the images in {of}/, and both are "
                    f"read; are they meant? {only}"
                )
                break
    beside = [
        file
        for file, path in zip(files, inside, strict=True)
        if (stem := PurePosixPath(path[-1]).stem) != (image := _without_suffix(stem))
        and image in stems["/".join(path[:-1])]
    ]
    if 3 * len(beside) >= len(files):
        notes.append(
            f"{counted(len(beside), 'file')} seem to be masks of the files next to them, such as "
            f"{printable(beside[0])}: move them to another folder to leave them out"
        )
    return notes


def _pairs(stems: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Folders side by side that are called as inputs and targets are, with mostly the same files."""
    return [
        (given, target)
        for given in stems
        for target in stems
        if PurePosixPath(given).name.lower() in INPUTS
        and PurePosixPath(target).name.lower() in TARGETS
        and PurePosixPath(given).parent == PurePosixPath(target).parent
        and 2 * len({*map(without_role, stems[given])} & {*map(without_role, stems[target])})
        >= len(stems[given])
    ]


def without_shared(files: Sequence[str]) -> list[str]:
    """The names of files below the folder that all are in."""
    paths = [PurePosixPath(file).parts for file in files]
    shared = _shared(paths)
    return ["/".join(path[shared:]) for path in paths]


def without_role(file: str) -> str:
    """The name of a file without its extension and without the word that says which of a pair it is."""
    path = PurePosixPath(file)
    return str(path.with_name(_ROLE.sub(r"\1", path.stem).strip("_. -") or path.stem))


def _without_suffix(stem: str) -> str:
    """The name of the image that a mask belongs to: "a" of "a_mask"."""
    for mark in "_-.":
        image, _, suffix = stem.rpartition(mark)
        if image and suffix.lower() in _SUFFIXES:
            return image
    return stem
