"""A sweep of twelve trainings compared with twelve separate commands, in turns.

    python -m benchmarks.sweep --data fashion_mnist.npz --repeats 2

Prints the seconds of both and their ratio, and checks that the weights are bit-identical.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cae_cli.runs.folder import Run

MODELS, LOSSES, SEEDS = ("baseline", "l2"), ("mse", "ssim"), (0, 1, 2)


def timed(command: list[str], cwd: Path) -> float:
    """Seconds of a command."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cae_cli", *command], cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - began


def kernels(folder: Path) -> list[bytes]:
    """Bytes of the kernels of a run."""
    run = Run(folder)
    return [v.tobytes() for k, v in run.read_arrays(run.arrays).items() if k.startswith("kernel/")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Fashion-MNIST as an .npz file")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    fixed = [
        "data=fashion_mnist", f"data.path={arguments.data.resolve()}", "data.train=4096",
        "training.epochs=3",
    ]  # fmt: skip
    ratios = []
    for number in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as scratch:
            here = Path(scratch)
            swept = [f"model={','.join(MODELS)}", f"loss={','.join(LOSSES)}", "seed=range(0,3)"]
            sweep = timed(["train", "-m", *swept, *fixed, "hydra.sweep.dir=sweep"], here)
            alone = 0.0
            for model, loss, seed in itertools.product(MODELS, LOSSES, SEEDS):
                job = [f"model={model}", f"loss={loss}", f"seed={seed}"]
                folder = here / f"{model}_{loss}_{seed}"
                alone += timed(["train", *job, *fixed, f"hydra.run.dir={folder}"], here)
                [same] = here.glob(f"sweep/loss={loss},model={model},seed={seed}")
                assert kernels(same) == kernels(folder), job
        ratios.append(alone / sweep)
        print(f"{number + 1}: sweep {sweep:.0f} s, twelve commands {alone:.0f} s", flush=True)
    print(
        f"twelve commands over the sweep: {np.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
