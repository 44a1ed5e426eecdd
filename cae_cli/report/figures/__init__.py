"""The pictures of a run, from the arrays and figures in its folder.

`draw` says which there are; `pictures` are made of `tiles`, `charts` of bars and lines.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cae_cli.report.figures import charts, pictures
from cae_cli.report.figures.tiles import DPI, mosaic
from cae_cli.runs.folder import Run
from cae_cli.system.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = ["draw", "mosaic", "write"]


def draw(run: Run, *, frozen: float | None = None) -> list[Path]:
    """Draws every picture of a run that its files are enough for.

    Args:
        run: a folder that holds arrays.npz, and metrics.csv where somebody watched the training.
        frozen: explained variance of the control with a frozen encoder, if there is one.

    Returns:
        The files written.
    """
    # Networks that diverged have infinite weights and errors, whose sums are not numbers.
    with np.errstate(all="ignore"):
        figures = _figures(run, frozen)
    for path, figure in figures.items():
        write(figure, path)
    return list(figures)


def write(figure: Figure | Image.Image, path: Path) -> None:
    """Writes a figure; at every moment its file is whole."""
    with atomic(path) as temporary:
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


def _figures(run: Run, frozen: float | None) -> dict[Path, Figure | Image.Image]:
    arrays = run.read_arrays(run.arrays)
    epochs = run.read_metrics() if run.metrics.exists() else {}
    layers = [key.removeprefix("kernel/") for key in arrays if key.startswith("kernel/")]
    snapshots = {epoch: run.read_arrays(path) for epoch, path in run.snapshots().items()}
    figures: dict[Path, Figure | Image.Image | None] = {
        run.reconstructions: pictures.reconstructions(arrays),
        run.perturbation_tests: pictures.perturbation_tests(arrays),
        run.filters_vs_init: pictures.filters_vs_init(arrays),
        run.baselines: charts.baselines(arrays, frozen),
        run.dynamics: charts.dynamics(arrays, epochs),
        run.curves: charts.curves(epochs) if epochs else None,
        run.filters_by_epoch: pictures.filters_by_epoch(layers[0], arrays, snapshots)
        if snapshots and layers
        else None,
    }
    for layer in layers:
        order = np.argsort(-arrays[f"map_std/{layer}"], kind="stable")  # most used first
        figures[run.filters(layer)] = pictures.filters(layer, arrays[f"kernel/{layer}"], order)
        figures[run.maps(layer)] = pictures.maps(
            layer, arrays["example_images"], arrays[f"map/{layer}"], order
        )
    return {path: figure for path, figure in figures.items() if figure is not None}
