"""Kills a training at random moments, resumes it, and compares what comes out with an undisturbed one.

    python -m tests.tf.kills --kills 15 --seed 0

Real processes and real signals. This process imports Keras, forks a child for each start of a run
(which saves the five seconds that the import takes), and never computes anything itself. Every second
kill comes at a random moment, the others while a checkpoint is being written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from cae_cli import cli, experiment  # noqa: F401  (imported before any fork)
from cae_cli.commands import resume, train  # noqa: F401
from cae_cli.runs.folder import Run
from cae_cli.system.guarded import UNFINISHED
from tests.tf.alike import differences

SMALL = ("data=digits", "data.train=192", "model.filters=[8]", "training.batch_size=16",
         "training.snapshots=[0,2]")  # fmt: skip
# What has a state beside the weights, in different company.
CONFIGS = (
    ("regularization=[dropout,noise,batchnorm,l2]", "augmentation=light", "schedule=plateau",
     "schedule.patience=1", "optimizer=adamw", "training.epochs=10"),
    ("regularization=[dropout,activity_l1]", "schedule=cosine", "schedule.warmup_steps=20",
     "optimizer=sgd", "optimizer.learning_rate=1", "training.early_stopping=2", "training.epochs=14"),
    ("model=residual", "regularization=batchnorm", "optimizer=rmsprop", "loss=ssim", "loss.window=7",
     "training.steps=75", "training.epochs=9"),
)  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def start(words: list[str], cwd: Path) -> int:
    """Forks a child that runs ``cae`` with these words; its process number."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.chdir(cwd)
        out = os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["cae", *words]
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 70
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def ended(child: int) -> int | None:
    """How a child ended: its exit code, minus the signal that ended it; None if it has not."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def whole(words: list[str], cwd: Path) -> float:
    """Runs ``cae`` to its end; the seconds that it took."""
    began = time.monotonic()
    _, status = os.waitpid(start(words, cwd), 0)
    code = os.waitstatus_to_exitcode(status)
    assert code == 0, f"exit code {code}: {(cwd / 'out.txt').read_text()}"
    return time.monotonic() - began


def disturbed(words: list[str], cwd: Path, number: int, moment: float | None) -> tuple[str, int | None]:
    """Starts ``cae`` and sends it a signal.

    Args:
        words: of the command line.
        cwd: where it runs.
        number: the signal.
        moment: seconds after the start; None: while a checkpoint is being written.

    Returns:
        When the signal came, in words, and how the process ended.
    """
    began, child = time.monotonic(), start(words, cwd)
    when = "after its end"
    while (code := ended(child)) is None:
        if moment is not None and time.monotonic() - began > moment:
            when = "at random"
        elif moment is None and list(cwd.glob(f"run/checkpoints/{UNFINISHED}*.npz")):
            when = "in a checkpoint"
        if when != "after its end":
            os.kill(child, number)
            _, status = os.waitpid(child, 0)
            return when, os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    return when, code


def check_files(folder: Path) -> None:
    """Every file under its own name is whole, whatever happened."""
    for path in folder.rglob("*"):
        if path.is_dir() or path.name.startswith(UNFINISHED):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                assert all(arrays[name] is not None for name in arrays.files)
        elif path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        elif path.name == "metrics.csv":
            rows = path.read_text().splitlines()
            assert len({row.count(",") for row in rows}) == 1 and path.read_text().endswith("\n")
    if (folder / "status.json").exists():
        assert Run(folder).status()["status"] != "running"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--configs", type=int, default=len(CONFIGS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import keras  # noqa: F401  (starts no threads, so that forking stays safe)

    rng = random.Random(arguments.seed)
    found: Counter[str] = Counter()
    compared = 0
    with tempfile.TemporaryDirectory() as scratch:
        references = []
        for i, config in enumerate(CONFIGS[: arguments.configs]):
            cwd = Path(scratch) / f"reference_{i}"
            cwd.mkdir()
            references.append((cwd, whole(["train", *SMALL, *config, "hydra.run.dir=run"], cwd)))
        kills = 0
        while kills < arguments.kills:
            i = compared % arguments.configs
            reference, seconds = references[i]
            cwd = Path(scratch) / f"disturbed_{compared}"
            cwd.mkdir()
            first = ["train", *SMALL, *CONFIGS[i], "hydra.run.dir=run"]
            for _ in range(min(rng.randint(5, 9), arguments.kills - kills)):
                begun = (cwd / "run" / "run.json").exists()
                moment = rng.uniform(0, seconds) if kills % 2 else None
                number = rng.choice(SIGNALS)
                when, code = disturbed(["resume", "run"] if begun else first, cwd, number, moment)
                if code == 0:  # the signal found a process that had ended
                    break
                assert code in (-number, 128 + number), (code, (cwd / "out.txt").read_text())
                kills += 1
                found[f"{signal.Signals(number).name} {when}"] += 1
                if (cwd / "run").exists():
                    check_files(cwd / "run")
                    if not (cwd / "run" / "run.json").exists():
                        assert not (cwd / "run" / "metrics.csv").exists()
                        shutil.rmtree(cwd / "run")
            if Run(cwd / "run").status().get("status") != "ok":
                begun = (cwd / "run" / "run.json").exists()
                whole(["resume", "run"] if begun else first, cwd)
            different = differences(reference / "run", cwd / "run")
            assert not different, (CONFIGS[i], different, (cwd / "out.txt").read_text())
            text = (cwd / "out.txt").read_text()
            assert "Traceback" not in text, text
            compared += 1
            print(f"{kills} kills, {compared} runs alike: {dict(found)}", flush=True)
    print(json.dumps({"kills": kills, "runs": compared, **found}))


if __name__ == "__main__":
    main()
