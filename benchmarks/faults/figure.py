"""The picture of the confusion matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.faults.scoring import Confusion
from cae_cli.diagnosis import RULES
from cae_cli.report.figures.tiles import DPI
from cae_cli.system.files import writing
from cae_cli.system.guarded import GuardedPath

CELL, LEFT, TOP, MARGIN = 0.32, 3.9, 0.85, 0.15  # inches
RIGHT, WRONG = (0.12, 0.47, 0.71), (0.84, 0.15, 0.16)  # blue, red


def draw(confusion: Confusion, path: Path) -> None:
    """Draws the confusion matrix: a row per expected cause, a column per cause that was named first.

    Right verdicts are blue, wrong ones red and bold; a darker cell has a larger share of its row.

    Args:
        confusion: the counts.
        path: of the PNG.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    counts = np.array(confusion.counts, np.int64).reshape(len(confusion.expected), -1)
    rows, columns = counts.shape
    names = [
        _row(name, int(total))
        for name, total in zip(confusion.expected, counts.sum(axis=1), strict=True)
    ]
    # Square cells of a fixed size, and space for the longest name.
    width, height = LEFT + CELL * columns + MARGIN, TOP + CELL * rows + MARGIN
    figure = Figure(figsize=(width, height), dpi=DPI)
    area = (LEFT / width, MARGIN / height, CELL * columns / width, CELL * rows / height)
    axis = figure.add_axes(area)
    right = ["none" if name in ("healthy", "borderline") else name for name in confusion.expected]
    is_right = np.array([[name == own for name in confusion.named] for own in right])
    shares = counts / counts.sum(axis=1, keepdims=True)
    colours = np.where(is_right[..., None], RIGHT, WRONG)  # (rows, columns, 3)
    alpha = np.where(counts, 0.15 + 0.7 * shares, 0)
    axis.imshow(np.dstack([colours, alpha]), aspect="auto")
    for row, column in np.argwhere(counts):
        axis.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if shares[row, column] > 0.5 else "black",
            fontweight="normal" if is_right[row, column] else "bold",  # not by colour alone
        )
    axis.set_xticks(range(columns), confusion.named, rotation=90, fontsize=7)
    axis.set_yticks(range(rows), names, fontsize=7)
    axis.xaxis.tick_top()
    figure.text(
        (LEFT - 0.1) / width, 1 - 0.15 / height, "named first →", ha="right", va="top", fontsize=8
    )
    figure.text((LEFT - 0.1) / width, 1 - 0.4 / height, "expected ↓", ha="right", va="top", fontsize=8)
    axis.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="#dddddd", linewidth=0.5)
    axis.tick_params(which="both", length=0)
    with writing(path), GuardedPath.of(path).atomic() as temporary:
        figure.savefig(temporary, format="png")


def _row(name: str, total: int) -> str:
    problem = next((f"{rule.problem}  " for rule in RULES if rule.code == name), "")
    return f"{problem}{name}  ({total})"
