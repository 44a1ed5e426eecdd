"""What a run left behind, bit by bit: what two runs that ought to be the same are compared by."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np

# Says when and where it was run, and with what command; the last two only a job of a sweep has.
APART = {"status.json", "run.json", "train.log", "job.log", "fingerprint.json"}


def contents(folder: Path) -> dict[str, str]:
    """Hashes of all that a run's folder holds, by file and by what is in it.

    Files of Keras hold the time of day; of them the weights are compared, bit by bit. The page names its
    run, which does not count.
    """
    found: dict[str, str] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name in APART or name.startswith((".hydra/", "frozen_encoder/")):
            continue
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                for key in arrays.files:
                    found[f"{name}:{key}"] = _hash(arrays[key].tobytes(), arrays[key].dtype.str)
        elif path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                weights = io.BytesIO(archive.read("model.weights.h5"))
            with h5py.File(weights) as file:

                def visit(key: str, item: object, name: str = name) -> None:
                    if isinstance(item, h5py.Dataset):
                        found[f"{name}:{key}"] = _hash(item[()].tobytes(), item.dtype.str)

                file.visititems(visit)
        elif path.suffix == ".html":
            found[name] = _hash(path.read_bytes().replace(folder.name.encode(), b""))
        elif path.suffix == ".json":
            found[name] = _hash(json.dumps(json.loads(path.read_text()), sort_keys=True).encode())
        else:
            found[name] = _hash(path.read_bytes())
    return found


def differences(one: Path, other: Path) -> list[str]:
    """Names of what differs, or is in one of the folders only."""
    a, b = contents(one), contents(other)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _hash(content: bytes, kind: str = "") -> str:
    return hashlib.sha256(kind.encode() + content).hexdigest()
