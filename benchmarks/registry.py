"""The time of commands on many runs, each in a process of its own.

    python -m benchmarks.registry [--runs 1000] [--layers 8] [--filters 64] [--repeat 5]

Creates the folders of finished runs in a temporary folder, with the files that the commands read and a
summary of a network with that many layers. Prints the median and the minimum of the repeats.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

from cae_cli.config.compose import checked
from cae_cli.config.schema import plain
from cae_cli.runs.environment import surroundings
from cae_cli.runs.folder import Run

COMMANDS = (
    ["--version"],
    ["runs", "ls"],
    ["runs", "ls", "--limit", "20"],
    ["runs", "ls", "status=ok", "psnr>20", "loss=mse", "--sort", "psnr"],
    ["runs", "ls", "--json"],
    ["runs", "tag", "last"],
    ["compare", "last-1", "last"],
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = make(Path(home), arguments)
        files = list(folder.iterdir())
        size = sum(path.stat().st_size for path in files)
        print(f"{arguments.runs:,} runs of {size / 1024:.0f} KB in {len(files)} files each")
        for command in COMMANDS:
            taken = [seconds(command, home) for _ in range(arguments.repeat)]
            median, least = statistics.median(taken), min(taken)
            print(f"cae {' '.join(command):<60} {median:.2f} s, minimum {least:.2f} s")


def make(home: Path, arguments: argparse.Namespace) -> Path:
    """Creates the runs; returns the folder of one."""
    first = home / "first"
    first.mkdir()
    run = Run(first)
    run.set_status("running")
    command = ["cae", "train", "data=digits", "training.epochs=40", "seed=3"]
    config = plain(checked(command[2:])[1])
    data = {"source": "digits", "shape": [8, 8, 1], "train": 1617, "fingerprint": "f00d" * 16}
    run.write_setup({**surroundings(), "command": command, "config": config, "data": data})
    inactive = [False] * arguments.filters
    layer = {
        "name": "encoder_1",
        "filters": arguments.filters,
        "maps": {"inactive": inactive},
        "duplicates": 1,
    }
    metrics = {
        "quality": {name: {"value": 21.5, "margin": 0.1} for name in ("psnr", "ssim", "mse")},
        "layers": [layer] * arguments.layers,
        "score": {"value": 0.5, "alive": 1.0},
    }
    finding = {"code": "CAE401", "severity": "warning", "problem": "a problem", "message": "x" * 400}
    diagnosis = {"findings": [finding] * 3, "undecided": False}
    summary = {"verdict": "a problem", "held_out": "test", "metrics": metrics, "diagnosis": diagnosis}
    run.write_summary(summary, "")
    run.set_status("ok")
    text = run.setup_file.read_text()
    began = run.setup()["time"]
    for i in range(arguments.runs):
        stamp = datetime(2026, 1, 1) + timedelta(minutes=i)
        folder = home / "runs" / "train" / f"{stamp:%Y-%m-%d_%H-%M-%S}_{i:04x}"
        shutil.copytree(first, folder)
        folder.joinpath("run.json").write_text(text.replace(began, stamp.isoformat()))
    return folder


def seconds(command: list[str], home: str) -> float:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "cae_cli", *command],
        cwd=home,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
