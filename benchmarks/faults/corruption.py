"""Faults of the images that no option can cause: corrupted images, written to a file.

The images come from the source of the training. They are scaled to [0, 1], corrupted, and written as one
pool, which ``data=npz`` splits with the options of the training.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cae_cli import data
from cae_cli.config import compose
from cae_cli.config.compose import Sources
from cae_cli.config.trust import Trust
from cae_cli.data import DataOptions, Pool, as_float
from cae_cli.data.archives import Npz
from cae_cli.data.split import split
from cae_cli.errors import UserError, did_you_mean
from cae_cli.options import key_of, quoted
from cae_cli.runs.json_files import plain
from cae_cli.system.files import writing
from cae_cli.system.guarded import GuardedPath

Array = NDArray[np.float32]

VERSION = 1  # increased when a corruption changes its images

# Options that every source has: they stay when the source is replaced.
_SHARED = tuple(f"data.{field.name}" for field in fields(DataOptions))


@dataclass(frozen=True)
class Corruption:
    """A way to corrupt images.

    Attributes:
        doc: what it does.
        apply: images (n, h, w, c) in [0, 1], the parameter (NaN without one), a generator, and the
            options that the images will be split with -> images of the same shape.
        parameter: the suffix of the name: "" none, "N" a whole number, "SHARE" in (0, 1].
    """

    doc: str
    apply: Callable[[Array, float, np.random.Generator, DataOptions], Array]
    parameter: str = ""


def _repeats(images: Array, n: float, rng: np.random.Generator, _: DataOptions) -> Array:
    again: Array = images[rng.integers(0, min(int(n), len(images)), len(images))]
    return again


def _nearly_equal(images: Array, _: float, rng: np.random.Generator, __: DataOptions) -> Array:
    noise = 0.01 * rng.standard_normal(images.shape, dtype=np.float32)
    return np.asarray(np.clip(images[:1] + noise, 0, 1), np.float32)


def _flat(images: Array, share: float, rng: np.random.Generator, _: DataOptions) -> Array:
    count = round(share * len(images))
    changed = images.copy()
    chosen = rng.permutation(len(images))[:count]
    changed[chosen] = rng.random((count, 1, 1, 1), dtype=np.float32)
    return changed


def _leaked(images: Array, share: float, rng: np.random.Generator, options: DataOptions) -> Array:
    # The split depends only on the number of images and the options: splitting the indices shows which
    # images will be held out.
    indices = np.arange(len(images)).reshape(-1, 1, 1, 1)
    parts = split(Pool(images=indices), options, "npz")
    held_out, train = (part.ravel().astype(np.intp) for part in (parts.validation, parts.train))
    count = min(max(1, round(share * len(held_out))), len(train))
    changed = images.copy()
    changed[rng.permutation(train)[:count]] = images[rng.permutation(held_out)[:count]]
    return changed


def _noise_uniform(images: Array, _: float, rng: np.random.Generator, __: DataOptions) -> Array:
    return rng.random(images.shape, dtype=np.float32)


def _noise_gaussian(images: Array, _: float, rng: np.random.Generator, __: DataOptions) -> Array:
    noise = 0.5 + 0.2 * rng.standard_normal(images.shape, dtype=np.float32)
    return np.asarray(np.clip(noise, 0, 1), np.float32)


def _noise_binary(images: Array, _: float, rng: np.random.Generator, __: DataOptions) -> Array:
    return rng.integers(0, 2, images.shape).astype(np.float32)


CORRUPTIONS: dict[str, Corruption] = {
    "repeats": Corruption("N distinct images, repeated", _repeats, "N"),
    "nearly_equal": Corruption("one image with noise of 0.01", _nearly_equal),
    "bytes": Corruption("values from 0 to 255", lambda x, *_: x * 255),
    "levels": Corruption("values from 0 to 16", lambda x, *_: x * 16),
    "signed": Corruption("values from -1 to 1", lambda x, *_: x * 2 - 1),
    "noise_uniform": Corruption("uniform noise instead of images", _noise_uniform),
    "noise_gaussian": Corruption("Gaussian noise instead of images", _noise_gaussian),
    "noise_binary": Corruption("black and white noise instead of images", _noise_binary),
    "flat": Corruption("a share of the images has one colour each", _flat, "SHARE"),
    "leaked": Corruption("a share of the held-out images is in the training set", _leaked, "SHARE"),
}


def names() -> list[str]:
    """The names as cases write them; ``repeats_N`` for one with a parameter."""
    return [f"{name}_{c.parameter}" if c.parameter else name for name, c in CORRUPTIONS.items()]


def check_name(name: str, where: object = None) -> tuple[Corruption, float]:
    """The corruption with a name, and its parameter (NaN without one).

    Raises:
        UserError: there is no such corruption or its parameter is wrong; ``where`` says where it is set.
    """
    if name in CORRUPTIONS and not CORRUPTIONS[name].parameter:
        return CORRUPTIONS[name], float("nan")
    head, _, number = name.rpartition("_")
    known = CORRUPTIONS.get(head)
    if known is None or not known.parameter:
        hint = did_you_mean(head if re.fullmatch(r"[\d.]+", number) else name, names(), "use one of")
        raise UserError(f"there is no corruption {name!r}", where=where, hint=hint)
    if known.parameter == "N" and re.fullmatch(r"[1-9]\d{0,6}", number):
        return known, float(number)
    if known.parameter == "SHARE" and re.fullmatch(r"0\.\d{1,4}|1", number) and float(number) > 0:
        return known, float(number)
    wanted = "a whole number from 1" if known.parameter == "N" else "a share above 0, up to 1"
    example = f"{head}_16" if known.parameter == "N" else f"{head}_0.3"
    raise UserError(
        f"{head}_{known.parameter} needs {wanted}, got {name!r}", where=where, hint=f"example: {example}"
    )


def corrupted(overrides: Sequence[str], corrupt: str, folder: Path) -> tuple[str, ...]:
    """Writes the corrupted images, unless the file exists, and returns overrides that train with them.

    Args:
        overrides: of the training, its source of images included.
        corrupt: name of the corruption.
        folder: for files of corrupted images.

    Returns:
        The overrides with the file as the source; number of images, split, scale and noise stay.

    Raises:
        UserError: the images cannot be read, or the file cannot be written.
    """
    corruption, parameter = check_name(corrupt)
    of_data = [o for o in overrides if key_of(o).partition(".")[0] == "data"]
    # The overrides come from a file: they may choose what to read, and nothing else.
    options = compose.checked(of_data, Sources(trust=Trust(overrides=False)))[1].data
    pool = replace(options, noise=0.0, scale="auto")  # both apply to the corrupted images
    known = {"options": plain(pool), "source": type(pool).__name__, "files": pool.signature()}
    identity = json.dumps({**known, "corrupt": corrupt, "version": VERSION}, sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
    path = folder.resolve() / f"{corrupt}-{digest}.npz"
    if not path.exists():
        images = data.load(pool)
        both = np.concatenate([as_float(part) for part in (images.train, images.validation)])
        shared = {field.name: getattr(options, field.name) for field in fields(DataOptions)}
        split_by = Npz(path=None, key="x_train", axes="nhwc", shape=None, bands=None, **shared)
        rng = pool.rng(f"corrupt {corrupt}")
        with writing(folder), GuardedPath.of(path).atomic() as temporary:
            changed = corruption.apply(both, parameter, rng, split_by)
            np.savez(temporary, x_train=changed.astype(np.float32))
    kept = [o for o in overrides if o not in of_data or key_of(o) in _SHARED]
    return ("data=npz", f"data.path={quoted(path)}", *kept)
