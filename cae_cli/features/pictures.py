"""Images as PNG files in a new folder."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from cae_cli.errors import UserError
from cae_cli.features.network import Array
from cae_cli.system.guarded import UNFINISHED, is_name

# The image of a file with several: its number behind the name of the file.
NUMBERED = re.compile(r"(.+)#([0-9]+)", re.DOTALL)
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def png_names(names: Iterable[str]) -> Iterator[str]:
    """Names of PNG files below a folder, each another one: those of the originals as far as they can be.

    Args:
        names: of the originals, with ``/``; those of an archive may be anything.
    """
    taken: set[str] = set()
    for number, name in enumerate(names):
        numbered = NUMBERED.fullmatch(name)
        file, at = numbered.groups() if numbered else (name, "")
        inside = [part for part in PurePosixPath(file).parts if is_name(part)] or [f"{number:06d}"]
        path = PurePosixPath(*inside)
        stem = f"{path.stem}_{at}" if at else path.stem
        tries = [f"{stem}.png", f"{path.name}_{at}.png" if at else f"{path.name}.png"]
        tries.append(f"{stem}_{number:06d}.png")
        found = next(str(path.with_name(t)) for t in tries if str(path.with_name(t)) not in taken)
        taken.add(found)
        yield found


def check(path: Path) -> None:
    """Raises UserError if there is something of this name, other than an empty folder."""
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise UserError("the folder exists already", where=path, hint="choose another --out")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that gets its name when the block ends without error; else nothing is left of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{UNFINISHED}{secrets.token_hex(6)}")
    unfinished.mkdir()
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def save(path: Path, image: Array) -> None:
    """Writes an image (h, w, c) in [0, 1] as a PNG of 8 bits; its folder is created."""
    from PIL import Image

    pixels = (np.clip(np.nan_to_num(image), 0, 1) * 255 + 0.5).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = MODES[pixels.shape[2]]
    Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode).save(path, "png")
