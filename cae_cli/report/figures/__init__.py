"""The figures of a run, drawn from the files in its folder.

`catalogue` lists them; `pictures` are made of `tiles`, `charts` of bars and lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cae_cli.diagnosis import RULES
from cae_cli.report.figures import charts, pictures  # noqa: F401  (they fill the catalogue)
from cae_cli.report.figures.catalogue import FIGURES, RunData
from cae_cli.report.figures.tiles import DPI
from cae_cli.runs.folder import Run
from cae_cli.system.guarded import GuardedPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = ["FIGURES", "RunData", "draw", "write"]


def draw(
    run: Run, *, frozen: float | None = None, thresholds: Mapping[str, float] | None = None
) -> list[Path]:
    """Draws every figure of a run that its files are enough for.

    Args:
        run: a folder that holds arrays.npz, and metrics.csv if the training was recorded.
        frozen: explained variance of the control with a frozen encoder, if there is one.
        thresholds: of the enabled rules in this run, by code; None: the default of each rule.

    Returns:
        The files written.

    Raises:
        UserError: a file cannot be read, or a layer's name is not that of a file.
    """
    data = RunData(
        arrays={
            **run.read_arrays(run.arrays),
            **{f"trial/{name}": array for name, array in run.pictures_of_trials().items()},
        },
        epochs=run.read_metrics() if run.metrics.exists() else {},
        snapshots={epoch: run.read_arrays(path) for epoch, path in run.snapshots().items()},
        frozen=frozen,
        thresholds={r.code: r.threshold for r in RULES} if thresholds is None else thresholds,
    )
    planned = [
        (run.figure(entry.file, layer), entry, layer)
        for entry in FIGURES
        for layer in entry.layers(data)
    ]
    written = []
    for path, entry, layer in planned:
        # Networks that diverged have infinite weights and errors, whose sums are not numbers.
        with np.errstate(all="ignore"):
            drawing = entry.draw(data, layer) if layer else entry.draw(data)
        if drawing is not None:
            write(drawing, path)
            written.append(path.shown)
    return written


def write(figure: Figure | Image.Image, path: GuardedPath) -> None:
    """Writes a figure; at every moment its file is complete."""
    with path.atomic() as temporary:
        _save(figure, temporary)


def _save(figure: Figure | Image.Image, path: Path) -> None:
    """Writes a figure as PNG, without metadata: equal runs give equal files."""
    from PIL import Image

    if not isinstance(figure, Image.Image):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        # Matplotlib's own savefig draws everything once more, to find out how large it is.
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # the background is white
        figure = Image.fromarray(np.ascontiguousarray(pixels))
    figure.save(path, format="png", dpi=(DPI, DPI))
