"""The images of a source that are nearest to others, by latent code and by pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import as_float
from cae_cli.features.network import Array, Network
from cae_cli.features.source import Source

BY = ("code", "pixels")


@dataclass(frozen=True)
class Nearest:
    """The nearest images of q others, by one measure.

    Attributes:
        positions: (q, k) in the source, the nearest first; an image of the source is its own nearest.
        distances: (q, k) root mean square of the difference of two codes, or of the pixels of two images
            in [0, 1].
    """

    positions: NDArray[np.intp]
    distances: Array


def nearest(
    network: Network,
    queries: NDArray[np.generic],
    source: Source,
    count: int,
    done: Callable[[int], None] = lambda done: None,
) -> dict[str, Nearest]:
    """Finds the nearest images, by code and by pixels.

    Args:
        network: encodes.
        queries: (q, h, w, c), prepared.
        source: where to look.
        count: how many, at most as many as the source has.
        done: is told how many images are done.
    """
    sought = {"code": _rows(network.encode(queries)), "pixels": _rows(as_float(queries))}
    empty = Nearest(np.empty((len(queries), 0), np.intp), np.empty((len(queries), 0), np.float32))
    found = dict.fromkeys(BY, empty)
    passed = 0
    for part in source.parts:
        for at in network.batches(len(part.images)):
            images = part.images[at]
            there = {"code": _rows(network.encode(images)), "pixels": _rows(as_float(images))}
            for name in BY:
                found[name] = _nearer(found[name], sought[name], there[name], passed, count)
            passed += len(images)
            done(passed)
    return found


def _nearer(before: Nearest, sought: Array, there: Array, start: int, count: int) -> Nearest:
    """The nearest of those found so far and of further ones."""
    further = np.stack([np.sqrt(np.square(there - one).mean(axis=1)) for one in sought])
    positions = np.broadcast_to(np.arange(start, start + len(there)), further.shape)
    distances = np.concatenate([before.distances, further], axis=1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return Nearest(
        np.take_along_axis(np.concatenate([before.positions, positions], axis=1), order, axis=1),
        np.take_along_axis(distances, order, axis=1),
    )


def _rows(values: Array) -> Array:
    return values.reshape(len(values), -1)


def table(
    files: Sequence[str], found: Mapping[str, Nearest], known: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """Columns of a table, a row for each pair of an image and one that is near it.

    Args:
        files: names of the images whose neighbours were sought.
        found: of `nearest`.
        known: of `Source.columns`.
    """
    q, count = next(iter(found.values())).positions.shape
    positions = np.concatenate(
        [np.stack([found[by].positions[i] for by in BY]) for i in range(q)]
    ).ravel()
    distances = np.concatenate(
        [np.stack([found[by].distances[i] for by in BY]) for i in range(q)]
    ).ravel()
    of_source = {name: column[positions] for name, column in known.items()}
    return {
        "image": np.repeat(list(files), len(BY) * count),
        "by": np.tile(np.repeat(BY, count), q),
        "rank": np.tile(np.arange(1, count + 1), q * len(BY)),
        "name": of_source["index"].astype(str),
        **of_source,
        "distance": distances,
    }
