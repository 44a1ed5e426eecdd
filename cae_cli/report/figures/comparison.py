"""The figure of ``cae compare --picture``: reconstructions of the same images by several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import UserError, printable
from cae_cli.report.figures.tiles import DPI, grid, photo
from cae_cli.system.guarded import GuardedPath

MOST_IMAGES = 8


def picture(
    path: Path, images: NDArray[Any], outputs: Mapping[str, NDArray[Any]], captions: Mapping[str, str]
) -> None:
    """Draws the images, and below them the reconstructions of each run in a row.

    Args:
        path: of the PNG.
        images: (n, h, w, c).
        outputs: by the name of the run; the same shape.
        captions: a second line for a run's name.

    Raises:
        UserError: the file cannot be written.
    """
    count = min(MOST_IMAGES, len(images))
    rows = [[photo(image) for image in part[:count]] for part in (images, *outputs.values())]
    names = [
        "\n".join(filter(None, (printable(name)[:28], printable(captions.get(name, ""))[:28])))
        for name in outputs
    ]
    drawn = grid("Reconstructions of the same images", rows, ["input", *names])
    try:
        with GuardedPath.of(path).atomic() as temporary:
            drawn.save(temporary, format="png", dpi=(DPI, DPI))
    except OSError as error:
        raise UserError(
            f"cannot write the picture: {(error.strerror or str(error)).lower()}", where=path
        ) from error


def same_images(parts: Sequence[NDArray[Any]]) -> bool:
    """Whether the example images of runs are bit-identical."""
    return all(part.shape == parts[0].shape and np.array_equal(part, parts[0]) for part in parts)
