"""Cost of a diagnosis by the size of the images and of the network.

    python -m benchmarks.sizes FOLDER [--train 512] [--only 28,64] [--write]

FOLDER has the photographs in ``photos`` (grey) and ``photos_colour``. Each row is one epoch of
``cae train``, the worst case: the budget of a measurement grows with the training. Seconds are those of
all cores, which other programs change less than those of the clock. ``--write`` puts the table into
docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
START, END = "<!-- sizes -->", "<!-- end of sizes -->"
FILTERS = {2: "[32,64]", 3: "[32,64,128]", 4: "[32,64,128,128]", 5: "[32,64,128,128,128]"}
CASES = (  # side, colour, stages
    *((28, False, 2), (28, True, 2), (64, False, 2), (64, True, 2), (64, True, 4)),
    *((128, False, 3), (128, True, 3), (128, True, 5), (256, False, 4), (256, True, 5)),
)
HEAD = (
    "| images | stages | training | measuring | figures | report.html | training, by the clock | "
    "the rest, by the clock | report.html, MB | peak memory, MB |"
)


def row(folder: Path, side: int, colour: bool, stages: int, count: int) -> str:
    """A line of the table."""
    photos = folder.absolute() / ("photos_colour" if colour else "photos")
    options = [
        *("train", "data=image_folder", f"data.path={photos}", f"data.patches={side}"),
        *(f"data.train={count}", f"model.filters={FILTERS[stages]}", "training.epochs=1"),
    ]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "seconds.json"
        script = Path(__file__).with_name("stages.py")
        command = [sys.executable, str(script), str(file), str(time.time()), *options]
        subprocess.run(command, cwd=place, check=True, capture_output=True)
        found = json.loads(file.read_text())
        (page,) = Path(place).glob("runs/train/*/report.html")
        size = page.stat().st_size
    parts = ("measuring", "figures", "report.html")
    seconds = [found[f"{name} CPU"] for name in ("steps", *parts)]
    seconds += [found["steps"], sum(found[name] for name in parts)]
    cells = [
        f"{side}x{side}{'x3' if colour else ''}",
        str(stages),
        *(f"{value:.1f}" for value in seconds),
        f"{size / 1e6:.1f}",
        f"{found['peak memory'] / 1e6:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def written(text: str, table: str) -> str:
    """The page with another table."""
    before, rest = text.split(START)
    return f"{before}{START}\n{table}\n{END}{rest.split(END)[1]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=512)
    parser.add_argument("--only", default="28,64,128,256")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    sides = {int(side) for side in options.only.split(",")}
    lines = [HEAD, "|---" * (HEAD.count("|") - 1) + "|"]
    print("\n".join(lines))
    for case in CASES:
        if case[0] in sides:
            lines.append(row(options.folder, *case, options.train))
            print(lines[-1], flush=True)
            if options.write:  # a long measurement may be interrupted
                PAGE.write_text(written(PAGE.read_text(), "\n".join(lines)))


if __name__ == "__main__":
    main()
