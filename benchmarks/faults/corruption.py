"""Faults of the images that no option can make: images spoiled on purpose, written to a file.

The images are those of the patient's own source. They are scaled to [0, 1], spoiled, and written as one
pool that ``data=npz`` splits again by the patient's own options.
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
from cae_cli.config.compose import Sources, quoted
from cae_cli.config.schema import Config
from cae_cli.config.trust import Trust
from cae_cli.data import DataOptions, Pool, as_float
from cae_cli.data.archives import Npz
from cae_cli.data.split import split
from cae_cli.errors import UserError, did_you_mean
from cae_cli.options import key_of
from cae_cli.runs.folder import plain
from cae_cli.system.files import atomic, writing

Array = NDArray[np.float32]

VERSION = 1  # raised when a corruption makes other images than before

# Of every source: these stay the patient's own when its source is replaced.
_SHARED = tuple(f"data.{field.name}" for field in fields(DataOptions))


@dataclass(frozen=True)
class Corruption:
    """A way to spoil images.

    Attributes:
        doc: what it does.
        spoil: images (n, h, w, c) in [0, 1], the number behind the name (NaN where there is none),
            a generator, and the options that the images will be split by -> images of the same shape.
        number: what stands behind the name: "" nothing, "N" a whole number, "SHARE" in (0, 1].
    """

    doc: str
    spoil: Callable[[Array, float, np.random.Generator, DataOptions], Array]
    number: str = ""


def _repeats(images: Array, n: float, rng: np.random.Generator, _: DataOptions) -> Array:
    again: Array = images[rng.integers(0, min(int(n), len(images)), len(images))]
    return again


def _nearly_equal(images: Array, _: float, rng: np.random.Generator, __: DataOptions) -> Array:
    noise = 0.01 * rng.standard_normal(images.shape, dtype=np.float32)
    return np.asarray(np.clip(images[:1] + noise, 0, 1), np.float32)


def _flat(images: Array, share: float, rng: np.random.Generator, _: DataOptions) -> Array:
    count = round(share * len(images))
    spoiled = images.copy()
    chosen = rng.permutation(len(images))[:count]
    spoiled[chosen] = rng.random((count, 1, 1, 1), dtype=np.float32)
    return spoiled


def _leaked(images: Array, share: float, rng: np.random.Generator, options: DataOptions) -> Array:
    # The split depends on the number of images and the options only: one of numbers tells where the
    # images will come to lie.
    places = np.arange(len(images)).reshape(-1, 1, 1, 1)
    parts = split(Pool(images=places), options, "npz")
    held_out, train = (part.ravel().astype(np.intp) for part in (parts.validation, parts.train))
    count = min(max(1, round(share * len(held_out))), len(train))
    spoiled = images.copy()
    spoiled[rng.permutation(train)[:count]] = images[rng.permutation(held_out)[:count]]
    return spoiled


def _noise_uniform(images: Array, _: float, rng: np.random.Generator, __: DataOptions) -> Array:
    return rng.random(images.shape, dtype=np.float32)


def _noise_gaussian(images: Array, _: float, rng: np.random.Generator, __: DataOptions) -> Array:
    noise = 0.5 + 0.2 * rng.standard_normal(images.shape, dtype=np.float32)
    return np.asarray(np.clip(noise, 0, 1), np.float32)


def _noise_binary(images: Array, _: float, rng: np.random.Generator, __: DataOptions) -> Array:
    return rng.integers(0, 2, images.shape).astype(np.float32)


CORRUPTIONS: dict[str, Corruption] = {
    "repeats": Corruption("N images, again and again", _repeats, "N"),
    "nearly_equal": Corruption("one image with a hundredth of noise", _nearly_equal),
    "bytes": Corruption("values from 0 to 255", lambda x, *_: x * 255),
    "words": Corruption("values from 0 to 16", lambda x, *_: x * 16),
    "signed": Corruption("values from -1 to 1", lambda x, *_: x * 2 - 1),
    "noise_uniform": Corruption("even noise, no image at all", _noise_uniform),
    "noise_gaussian": Corruption("Gaussian noise, no image at all", _noise_gaussian),
    "noise_binary": Corruption("black and white noise, no image at all", _noise_binary),
    "flat": Corruption("a share of the images of one colour each", _flat, "SHARE"),
    "leaked": Corruption("a share of held-out images among those for training", _leaked, "SHARE"),
}


def names() -> list[str]:
    """The names as cases write them, ``repeats_N`` for one with a number behind it."""
    return [f"{name}_{c.number}" if c.number else name for name, c in CORRUPTIONS.items()]


def check_name(name: str, where: object = None) -> tuple[Corruption, float]:
    """The corruption of a name, and the number behind it (NaN where there is none).

    Raises:
        UserError: there is no such corruption, or its number is wrong; ``where`` says where it stands.
    """
    if name in CORRUPTIONS and not CORRUPTIONS[name].number:
        return CORRUPTIONS[name], float("nan")
    head, _, number = name.rpartition("_")
    known = CORRUPTIONS.get(head)
    if known is None or not known.number:
        hint = did_you_mean(head if re.fullmatch(r"[\d.]+", number) else name, names(), "there are")
        raise UserError(f"there is no corruption {name!r}", where=where, hint=hint)
    if known.number == "N" and re.fullmatch(r"[1-9]\d{0,6}", number):
        return known, float(number)
    if known.number == "SHARE" and re.fullmatch(r"0\.\d{1,4}|1", number) and float(number) > 0:
        return known, float(number)
    wanted = "a whole number from 1" if known.number == "N" else "a share above 0, up to 1"
    example = f"{head}_16" if known.number == "N" else f"{head}_0.3"
    raise UserError(f"{head}_{known.number} needs {wanted}, got {name!r}", where=where, hint=example)


def corrupted(words: Sequence[str], corrupt: str, folder: Path) -> tuple[str, ...]:
    """Writes the spoiled images, unless they are there, and says how to train with them.

    Args:
        words: overrides of the patient, the source of its images among them.
        corrupt: the corruption's name.
        folder: of the files with spoiled images.

    Returns:
        The overrides with the file in the place of the source; how many images, the split, the scale
        and the noise stay what they were.

    Raises:
        UserError: the images cannot be read, or the file cannot be written.
    """
    spoiling, number = check_name(corrupt)
    of_data = [w for w in words if key_of(w) == "data" or key_of(w).startswith("data.")]
    options = _checked(of_data).data
    pool = replace(options, noise=0.0, scale="auto")  # both are for the images that are spoiled
    known = {"options": plain(pool), "source": type(pool).__name__, "files": pool.signature()}
    told = json.dumps({**known, "corrupt": corrupt, "version": VERSION}, sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()[:10]
    path = folder.resolve() / f"{corrupt}-{digest}.npz"
    if not path.exists():
        images = data.load(pool)
        both = np.concatenate([as_float(part) for part in (images.train, images.validation)])
        shared = {field.name: getattr(options, field.name) for field in fields(DataOptions)}
        split_by = Npz(path=None, key="x_train", **shared)
        rng = pool.rng(f"corrupt {corrupt}")
        with writing(folder), atomic(path) as temporary:
            spoiled = spoiling.spoil(both, number, rng, split_by)
            np.savez(temporary, x_train=spoiled.astype(np.float32))
    kept = [w for w in words if w not in of_data or key_of(w) in _SHARED]
    return ("data=npz", f"data.path={quoted(path)}", *kept)


def _checked(words: Sequence[str]) -> Config:
    # The words come from a file: it says what to read, and nothing else.
    return compose.checked(words, Sources(trust=Trust(words=False)))[1]
