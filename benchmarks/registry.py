"""How long the registry takes over many runs, as processes, start of Python included.

    python benchmarks/registry.py [--runs 1000] [--layers 8] [--filters 64] [--repeat 5]

Makes the folders of so many finished runs in a temporary folder, with the files that the registry
reads written by the run's own writers and a summary as large as that of a network of so many layers,
and calls commands on them. Prints the median and the fastest of the repeats.
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
from cae_cli.runs.folder import Run, surroundings

COMMANDS = (
    ["--version"],
    ["runs", "ls"],
    ["runs", "ls", "--limit", "20"],
    ["runs", "ls", "status=ok", "psnr>20", "loss=mse", "--sort", "psnr"],
    ["runs", "ls", "--json"],
    ["runs", "tag", "last"],
    ["compare", "last-1", "last"],
    ["diff", "last-1", "last"],
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--filters", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = make(Path(home), asked)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{asked.runs:,} runs of {size / 1024:.0f} KB in {len(list(folder.iterdir()))} files each")
        for words in COMMANDS:
            taken = [seconds(words, home) for _ in range(asked.repeat)]
            median, least = statistics.median(taken), min(taken)
            print(f"cae {' '.join(words):<60} {median:.2f} s, at least {least:.2f} s")


def make(home: Path, asked: argparse.Namespace) -> Path:
    """The runs; returns the folder of one."""
    first = home / "first"
    first.mkdir()
    run = Run(first)
    run.set_status("running")
    command = ["cae", "train", "data=digits", "training.epochs=40", "seed=3"]
    config = plain(checked(command[2:])[1])
    data = {"source": "digits", "shape": [8, 8, 1], "train": 1617, "fingerprint": "f00d" * 16}
    run.write_setup({**surroundings(), "command": command, "config": config, "data": data})
    inactive = [False] * asked.filters
    layer = {
        "name": "encoder_1",
        "filters": asked.filters,
        "maps": {"inactive": inactive},
        "duplicates": 1,
    }
    metrics = {
        "quality": {name: {"value": 21.5, "margin": 0.1} for name in ("psnr", "ssim", "mse")},
        "layers": [layer] * asked.layers,
        "score": {"value": 0.5, "alive": 1.0},
    }
    finding = {"code": "CAE401", "severity": "warning", "problem": "a problem", "message": "x" * 400}
    diagnosis = {"findings": [finding] * 3, "undecided": False}
    summary = {"verdict": "a problem", "held_out": "test", "metrics": metrics, "diagnosis": diagnosis}
    run.write_summary(summary, "")
    run.set_status("ok")
    text = run.setup_file.read_text()
    began = run.setup()["time"]
    for i in range(asked.runs):
        stamp = datetime(2026, 1, 1) + timedelta(minutes=i)
        folder = home / "runs" / "train" / f"{stamp:%Y-%m-%d_%H-%M-%S}_{i:04x}"
        shutil.copytree(first, folder)
        folder.joinpath("run.json").write_text(text.replace(began, stamp.isoformat()))
    return folder


def seconds(words: list[str], home: str) -> float:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "cae_cli", *words],
        cwd=home,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=words[0] != "diff",
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
