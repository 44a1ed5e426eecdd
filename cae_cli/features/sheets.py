"""Pictures of single images of a source: the most and the least unusual, the nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import as_float
from cae_cli.features.nearest import Nearest
from cae_cli.features.network import Array, Network
from cae_cli.features.source import Part
from cae_cli.report.figures.tiles import DPI, Colours, grid, photo
from cae_cli.system.guarded import GuardedPath

MOST_QUERIES = 12  # rows of a picture


def image_at(parts: Sequence[Part], position: int) -> Array:
    """The image (h, w, c) in [0, 1] at a position of several parts."""
    for part in parts:
        if position < len(part.images):
            one: Array = as_float(part.images[position : position + 1])[0]
            return one
        position -= len(part.images)
    raise IndexError(position)


def draw_scored(
    path: Path,
    network: Network,
    parts: Sequence[Part],
    ends: Mapping[str, NDArray[np.intp]],
    title: str,
    caption: str,
) -> None:
    """Draws images, what the network makes of them, and where they differ.

    Args:
        path: of the PNG, which replaces an earlier one.
        network: reconstructs.
        parts: the images.
        ends: positions of images by what they have in common.
        title: above.
        caption: below.
    """
    images = {name: np.stack([image_at(parts, int(k)) for k in at]) for name, at in ends.items()}
    outputs = {name: network.reconstruct(x) for name, x in images.items()}
    differences = {name: np.square(outputs[name] - x).mean(axis=3) for name, x in images.items()}
    colours = Colours([d for own in differences.values() for d in own])
    rows, names = [], []
    for name, x in images.items():
        rows += [list(map(photo, x)), list(map(photo, outputs[name]))]
        rows.append([colours.tile(d) for d in differences[name]])
        names += [f"{name}:\noriginal", "reconstruction", "error"]
    picture = grid(
        title,
        rows,
        names,
        cell=0.7,
        caption=caption,
        scale=(colours, "squared error"),
        groups=[3] * len(images),
    )
    _save(picture, path)


def draw_nearest(
    path: Path, queries: NDArray[np.generic], found: Mapping[str, Nearest], parts: Sequence[Part]
) -> None:
    """Draws images, at most `MOST_QUERIES`, and beside each those that are nearest.

    Args:
        path: of the PNG, which replaces an earlier one.
        queries: (q, h, w, c), prepared.
        found: their neighbours, by measure.
        parts: the images that were searched.
    """
    rows: list[list[Array | None]] = []
    names: list[str] = []
    shown = as_float(queries[:MOST_QUERIES])
    for i, query in enumerate(shown):
        for by, of in found.items():
            first = photo(query) if by == next(iter(found)) else None
            rows.append([first, *(photo(image_at(parts, int(k))) for k in of.positions[i])])
            names.append(f"nearest by {by}")
    caption = "Left the image, to its right those that are nearest to it, the nearest first."
    title = "Nearest images by latent code and by pixels"
    _save(grid(title, rows, names, cell=0.7, caption=caption, groups=[len(found)] * len(shown)), path)


def _save(picture: object, path: Path) -> None:
    with GuardedPath.of(path).atomic() as temporary:
        picture.save(temporary, format="png", dpi=(DPI, DPI))  # type: ignore[attr-defined]
