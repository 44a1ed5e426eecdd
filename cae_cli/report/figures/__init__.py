"""The figures of a run, drawn from the files in its folder.

`catalogue` lists them; `pictures` are made of `tiles`, `charts` of bars and lines.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cae_cli.diagnosis import RULES
from cae_cli.errors import UserError
from cae_cli.report.figures import charts, pictures  # noqa: F401  (they fill the catalogue)
from cae_cli.report.figures.catalogue import FIGURES, LAYER, Entry, RunData
from cae_cli.report.figures.pictures import after_epoch
from cae_cli.report.figures.tiles import COMPRESSION, DPI
from cae_cli.runs.folder import Run
from cae_cli.system.guarded import GuardedPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = [
    "FIGURES", "FORMATS", "RunData", "after_epoch", "draw", "drawn", "of", "read", "write", "write_as",
]  # fmt: skip

FORMATS = ("svg", "pdf", "png")


def read(
    run: Run, *, frozen: float | None = None, thresholds: Mapping[str, float] | None = None
) -> RunData:
    """Reads what figures are drawn from.

    Args:
        run: a folder that holds arrays.npz, and metrics.csv if the training was recorded.
        frozen: explained variance of the control with a frozen encoder, if there is one.
        thresholds: of the enabled rules in this run, by code; None: the default of each rule.

    Raises:
        UserError: a file cannot be read.
    """
    return RunData(
        arrays={
            **run.read_arrays(run.arrays),
            **{f"trial/{name}": array for name, array in run.pictures_of_trials().items()},
        },
        epochs=run.read_metrics() if run.metrics.exists() else {},
        snapshots={epoch: run.read_arrays(path) for epoch, path in run.snapshots().items()},
        frozen=frozen,
        thresholds={r.code: r.threshold for r in RULES} if thresholds is None else thresholds,
    )


def of(data: RunData) -> dict[str, tuple[Entry, str]]:
    """The figures that the data is enough for: file, entry, and layer where there is one of each."""
    return {
        entry.file.replace("{layer}", layer): (entry, layer)
        for entry in FIGURES
        for layer in entry.layers(data)
    }


def drawn(run: Run) -> list[GuardedPath]:
    """The figures of the catalogue that are in a run's folder."""
    files = []
    for entry in FIGURES:
        folder, _, name = entry.file.rpartition("/")
        files += (run.root / folder if folder else run.root).children(name.replace(LAYER, "*"))
    return files


def draw(run: Run, data: RunData) -> list[Path]:
    """Draws every figure of a run.

    Args:
        run: the files are written into its folder.
        data: see `read`.

    Returns:
        The files written.

    Raises:
        UserError: a layer's name is not that of a file.
    """
    planned = [(run.figure(entry.file, layer), entry, layer) for entry, layer in of(data).values()]
    written = []
    for path, entry, layer in planned:
        drawing = _drawn(data, entry, layer)
        if drawing is not None:
            write(drawing, path)
            written.append(path.shown)
    return written


def write_as(run: Run, data: RunData, figure: tuple[Entry, str], kind: str) -> Path:
    """Writes one figure in another format.

    Args:
        run: the file is written into its folder.
        data: see `read`.
        figure: of those of `of`.
        kind: one of `FORMATS`. Charts are lines in svg and pdf; pictures of pixels stay pixels there.

    Returns:
        The file.

    Raises:
        UserError: the run has nothing to show in this figure.
    """
    entry, layer = figure
    drawing = _drawn(data, entry, layer)
    if drawing is None:
        raise UserError(f"{entry.file} has nothing to show in this run", where=run.folder)
    path = run.figure(entry.file.removesuffix("png") + kind, layer)
    with path.atomic() as temporary:
        if kind == "png":
            _save(drawing, temporary)
        elif hasattr(drawing, "savefig"):
            import matplotlib

            with matplotlib.rc_context({"svg.hashsalt": "cae"}):  # equal runs give equal files
                drawing.savefig(
                    temporary, format=kind, metadata={"Date" if kind == "svg" else "CreationDate": None}
                )
        elif kind == "pdf":
            drawing.save(temporary, format="pdf", resolution=DPI)
        else:
            temporary.write_text(_as_svg(drawing))
    return path.shown


def _drawn(data: RunData, entry: Entry, layer: str) -> Figure | Image.Image | None:
    # Networks that diverged have infinite weights and errors, whose sums are not numbers.
    with np.errstate(all="ignore"):
        return entry.draw(data, layer) if layer else entry.draw(data)


def _as_svg(picture: Image.Image) -> str:
    """Pixels in an SVG of their size."""
    data = io.BytesIO()
    picture.save(data, format="png")
    w, h = picture.size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}">'
        f'<image width="{w}" height="{h}" '
        f'href="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"/></svg>\n'
    )


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
    figure.save(path, format="png", dpi=(DPI, DPI), compress_level=COMPRESSION)
