"""Images for a trained network: those that it was trained on, or any others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli import data
from cae_cli.data import DataOptions, Pool
from cae_cli.data.spool import chosen
from cae_cli.errors import UserError
from cae_cli.features.network import Network
from cae_cli.runs.reader import Entry

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Part:
    """Images of one part of a source.

    Attributes:
        split: train, validation or test; "" where the source is not split.
        images: (n, h, w, c) uint8, or float32 in [0, 1], which the inputs of pairs may leave.
        index: (n,) their positions in the source.
        labels: (n,) in words or digits; None: it has none.
        names: (n,) of their files; None: they come from no files.
        targets: (n, h, w, c) what a network is to make of them; None: the images.
    """

    split: str
    images: NDArray[np.generic]
    index: NDArray[np.intp]
    labels: Sequence[str] | None = None
    names: Sequence[str] | None = None
    targets: NDArray[np.generic] | None = None


@dataclass(frozen=True)
class Source:
    """Images of a source, part by part.

    Attributes:
        parts: with at least one image each.
        notes: sentences about what was done to the images, and what was left out.
    """

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(part.images) for part in self.parts)

    @property
    def wanted(self) -> str:
        """What a network is to make of the images: "targets", or the "images"."""
        return "targets" if any(part.targets is not None for part in self.parts) else "images"

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """What is known of each image, (n,) each: index, split, label and name, where there are such."""
        known = {"index": np.concatenate([part.index for part in self.parts])}
        if any(part.split for part in self.parts):
            known["split"] = np.repeat(
                [p.split for p in self.parts], [len(p.images) for p in self.parts]
            )
        for title, of in (("label", "labels"), ("name", "names")):
            words = [getattr(part, of) for part in self.parts]
            if any(own is not None for own in words):
                known[title] = np.array(
                    [
                        word
                        for own, part in zip(words, self.parts, strict=True)
                        for word in (own if own is not None else [""] * len(part.images))
                    ]
                )
        return known

    def file_names(self) -> Iterator[str]:
        """A name for each image: that of its file, else made of its split and its position."""
        for part in self.parts:
            for k, index in enumerate(part.index):
                if part.names is not None:
                    yield part.names[k]
                else:
                    yield f"{part.split}/{index:06d}" if part.split else f"{index:06d}"


def own_images(network: Network, options: DataOptions, splits: Sequence[str] = PARTS) -> Source:
    """The images of the network's run, with the noise that was added to them.

    Args:
        network: of a run.
        options: of the run's images.
        splits: the parts that are wanted.

    Raises:
        UserError: they cannot be read, or have changed since the run started.
    """
    assert network.run is not None
    images = data.load(options)
    if images.fingerprint() != Entry(network.run.folder).data.get("fingerprint"):
        raise UserError(
            "the images of the run have changed since it started",
            where=getattr(options, "path", None) or network.name,
            hint="restore them, or name other images: data=…",
        )
    found = []
    for split in splits:
        part = getattr(images, f"{split}_inputs" if images.are_pairs else split)
        if part is None:
            continue
        labels = getattr(images, f"{split}_labels")
        # The test part of a file of arrays counts anew, and such files have no names.
        names, index = images.names, images.positions[split]
        found.append(
            Part(
                split,
                part,
                index,
                None if labels is None else _words(labels, images.label_names),
                None if names is None else [names[i] for i in index],
                getattr(images, split) if images.are_pairs else None,
            )
        )
    return Source(tuple(found), images.notes)


def given_images(network: Network, options: DataOptions) -> Source:
    """All images of any source, prepared as those that the network was trained on.

    Args:
        network: says which shape and scale the images need.
        options: of the source. ``train`` and ``test`` limit its parts; no noise is added.

    Raises:
        UserError: they cannot be read, or have another shape.
    """
    pool = data.load_alike(options, network.shape, network.scale, network.target_scale)
    if pool.parts is not None:
        at = {split: np.flatnonzero(pool.parts == k) for k, split in enumerate(PARTS)}
    else:
        at = {"" if pool.test_images is None else "train": np.arange(len(pool.images))}
    found = [
        _part(split, pool.images, pool.inputs, pool.labels, pool, index, options)
        for split, index in at.items()
    ]
    if pool.test_images is not None:
        index = np.arange(len(pool.test_images))
        part = _part("test", pool.test_images, pool.test_inputs, pool.test_labels, pool, index, options)
        found.append(part)
    return Source(tuple(part for part in found if len(part.images)), pool.notes)


def _part(
    split: str,
    images: NDArray[np.generic],
    inputs: NDArray[np.generic] | None,
    labels: NDArray[np.int64] | None,
    pool: Pool,
    index: NDArray[np.intp],
    options: DataOptions,
) -> Part:
    index = _limited(index, split, options)

    def limited(images: NDArray[np.generic]) -> NDArray[np.generic]:
        return images if len(index) == len(images) else chosen(images, index)

    return Part(
        split,
        limited(images if inputs is None else inputs),
        index,
        None if labels is None else _words(labels[index], pool.label_names),
        None if pool.names is None else [pool.names[i] for i in index],
        None if inputs is None else limited(images),
    )


def _limited(index: NDArray[np.intp], split: str, options: DataOptions) -> NDArray[np.intp]:
    """At most so many as the options say, drawn at random, in their order."""
    most = options.test if split == "test" else options.train
    if most is None or most >= len(index):
        return index
    return np.sort(options.rng(split).permutation(index)[:most])


def _words(labels: NDArray[np.int64], words: Sequence[str] | None) -> list[str]:
    if words is None:
        return list(map(str, labels.tolist()))
    return [words[label] for label in labels]
