"""Trains with options drawn at random, sensible or not, for real.

    python -m tests.tf.trainings --cases 60 --seed 0

Each ends as a run that says ok or failed, or with exit code 2 and one ``error:`` line; never with a
traceback, never in a folder that says running. Processes are forked as in `kills`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import tempfile
import time
import typing
from collections import Counter
from pathlib import Path
from typing import Any

from cae_cli.config.compose import CONFIGS
from cae_cli.config.schema import GROUPS, ONE, SEVERAL, VARIANTS
from cae_cli.options import Range
from cae_cli.runs.folder import Run
from tests.tf.kills import check_files, ended, start

SECONDS = 600  # after which a training of 100 small images hangs; 186 layers need a minute or two
SMALL = ("data=npz", "data.path=x.npz", "data.train=100", "training.epochs=2", "data.test=40")
LEFT_ALONE = {"path", "key", "train", "epochs", "steps", "test", "seed", "mixed_precision"}


def value(hint: Any, limits: Range, rng: random.Random) -> str:
    """A value of an option's type, mostly within its range and mostly small."""
    if limits.choices:
        return str(rng.choice(limits.choices))
    arguments = typing.get_args(hint)
    if type(None) in arguments:
        return "null" if rng.random() < 0.3 else value(arguments[0], limits, rng)
    if typing.get_origin(hint) is list:
        return f"[{','.join(value(arguments[0], limits, rng) for _ in range(rng.randint(0, 3)))}]"
    if hint is bool:
        return rng.choice(["true", "false"])
    if hint is int:
        return str(rng.choice([0, 1, 2, 3, 4, 5, 7, 8, 16, 31]))
    if hint is float:
        return rng.choice(["0", "1e-3", "0.05", "0.3", "0.5", "0.99", "1", "1.5", "10", "1e30", "1e-30"])
    return rng.choice(["relu", "linear", "elu", "glorot_uniform", "zeros", "same", "x"])


def words(rng: random.Random) -> list[str]:
    """Options of some groups, and values of some of their keys."""
    found = []
    for group in sorted(GROUPS.keys() & (ONE.keys() | VARIANTS.keys() | SEVERAL.keys()) - {"data"}):
        names = sorted(p.stem for p in (CONFIGS / group).glob("[a-z]*.yaml"))
        name = rng.choice(names)
        if rng.random() < 0.6:
            found.append(f"{group}={name}")
        cls = ONE.get(group) or VARIANTS.get(group, {}).get(name)
        if cls is None or (f"{group}={name}" not in found and group not in ONE):
            continue
        hints = typing.get_type_hints(cls)
        fields = [f for f in dataclasses.fields(cls) if f.name not in LEFT_ALONE]
        for field in rng.sample(fields, min(len(fields), rng.choice([0, 0, 1, 2]))):
            drawn = value(hints[field.name], field.metadata["range"], rng)
            found.append(f"{group}.{field.name}={drawn}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import keras  # noqa: F401  (starts no threads, so that forking stays safe)
    import numpy as np

    rng = random.Random(arguments.seed)
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        numbers = np.random.default_rng(0)
        blobs = numbers.integers(0, 256, (150, 4, 4), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
        np.savez(here / "x.npz", x_train=blobs, y_train=np.arange(150) % 5)
        for case in range(arguments.cases):
            drawn = words(rng)
            began = time.monotonic()
            child = start(["train", *SMALL, *drawn, f"hydra.run.dir=r{case}"], here)
            while (code := ended(child)) is None:
                if time.monotonic() - began > SECONDS:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    raise AssertionError(f"hangs: {drawn}")
                time.sleep(0.02)
            said, folder = (here / "out.txt").read_text(), here / f"r{case}"
            (here / "out.txt").unlink()
            assert code in (0, 1, 2) and "Traceback" not in said, (code, drawn, said)
            errors = [line for line in said.splitlines() if line.startswith("error: ")]
            assert len(errors) == (code == 2) or code == 1, (code, drawn, said)
            if code != 2:
                check_files(folder)
                assert Run(folder).status()["status"] == ("failed" if code else "ok"), (drawn, said)
                if code == 1:
                    reason = Run(folder).status()["reason"]
                    found[reason.partition(" at ")[0]] += 1
            assert code != 2 or not folder.exists() or Run(folder).status()["status"] == "failed", drawn
            found[f"exit code {code}"] += 1
    print(json.dumps({"cases": arguments.cases, **found}))


if __name__ == "__main__":
    main()
