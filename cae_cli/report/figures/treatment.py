"""The figure of a treatment: the run before, after the fix, and after a random control."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import printable
from cae_cli.report.figures.charts import OTHERS, OWN, WORST, bar, explained
from cae_cli.report.figures.tiles import DPI, Array, Colours, Pixels, mosaic, photo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Arrays = Mapping[str, NDArray[Any]]

MOST_IMAGES, FILTERS = 6, (2, 8)
BASELINES = {"network": "mse", "linear decoder": "perturbation/linear_mse", "mean image": "mean_mse"}
LETTERS = 38  # of a line above a column


@dataclass(frozen=True)
class Panel:
    """A column of the figure.

    Attributes:
        title: what was changed.
        verdict: what is wrong, in a few words.
        healthy: whether nothing is wrong.
        arrays: of the run; None if there are none.
    """

    title: str
    verdict: str
    healthy: bool
    arrays: Arrays | None


def treatment(panels: list[Panel]) -> Figure:
    """Reconstructions, first filters and baselines of a few runs, one in each column.

    Args:
        panels: the runs, the one before first.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.3 * len(panels) + 1.2, 4.9), dpi=DPI, layout="constrained")
    axes = figure.subplots(3, len(panels), squeeze=False, height_ratios=[1.1, 0.75, 0.9])
    # Networks that diverged have infinite errors, whose sums are not numbers.
    with np.errstate(all="ignore"):
        baselines_of = [
            {name: explained(panel.arrays or {}, key) for name, key in BASELINES.items()}
            for panel in panels
        ]
    left = max(
        WORST, min((v for own in baselines_of for v in own.values() if math.isfinite(v)), default=0)
    )
    verdicts = [textwrap.wrap(printable(panel.verdict), LETTERS + 4)[:2] for panel in panels]
    lines = max(map(len, verdicts))
    for column, (panel, baselines) in enumerate(zip(panels, baselines_of, strict=True)):
        top = axes[0, column]
        title = "\n".join(textwrap.wrap(printable(panel.title), LETTERS)[:3])
        top.set_title(title, fontsize=9, fontweight="bold", pad=6 + 12 * lines)
        top.annotate(
            "\n".join(verdicts[column]), (0.5, 1), (0, 3), "axes fraction", "offset points", fontsize=8,
            ha="center", va="bottom", color="#2a7a2a" if panel.healthy else "#b02020",
        )  # fmt: skip
        _tiles(top, _reconstructions(panel.arrays))
        _tiles(axes[1, column], _filters(panel.arrays))
        _bars(axes[2, column], baselines, min(left, 0.0), named=column == 0)
    labels = (
        "held-out images,\nreconstructions",
        "filters of the\nfirst layer\n(own scales)",
        "explained\nvariance",
    )
    for row, label in enumerate(labels):
        axes[row, 0].set_ylabel(label, fontsize=8, rotation=0, ha="right", va="center", labelpad=8)
    figure.set_layout_engine("constrained", wspace=0.06, hspace=0.04)
    control = "" if len(panels) < 3 else ", and after a random control"
    figure.suptitle(f"Before and after the fix{control}", fontsize=10)
    return figure


def _tiles(axes: Axes, tiles: Pixels | None) -> None:
    """Tiles in a panel, or a note where there are none."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if tiles is None:
        axes.text(0.5, 0.5, "nothing to show", transform=axes.transAxes, fontsize=8, ha="center")
    else:
        axes.imshow(tiles, interpolation="antialiased")


def _reconstructions(arrays: Arrays | None) -> Pixels | None:
    """Images above their reconstructions."""
    if arrays is None or not {"example_images", "example_outputs"} <= arrays.keys():
        return None
    pair = (arrays["example_images"], arrays["example_outputs"])
    return mosaic([[photo(image) for image in part[:MOST_IMAGES]] for part in pair])


def _filters(arrays: Arrays | None) -> Pixels | None:
    """Filters of the first convolution, most used first; blue negative, white 0, red positive."""
    name = next((key.removeprefix("kernel/") for key in arrays or () if key.startswith("kernel/")), None)
    if arrays is None or name is None:
        return None
    kernel = arrays[f"kernel/{name}"].mean(axis=2)  # (k, k, filters), over the input channels
    rows, columns = FILTERS
    order = np.argsort(-arrays[f"map_std/{name}"], kind="stable")[: rows * columns]
    colours = Colours([kernel], signed=True)
    tiles: list[Array | None] = [colours.tile(kernel[:, :, f]) for f in order]
    return mosaic([tiles[start : start + columns] for start in range(0, len(tiles), columns)])


def _bars(axes: Axes, baselines: Mapping[str, float], left: float, *, named: bool) -> None:
    """Bars from 0, the mean image, to 1; very bad ones are cut, their numbers are not."""
    names = list(baselines)[::-1]
    for row, name in enumerate(names):
        value = baselines[name]
        bar(axes, row, value, left, OWN if name == "network" else OTHERS)
        label = "unknown" if math.isnan(value) else f"{value:.2f}" if value > -100 else f"{value:.0e}"
        label = "not finite" if math.isinf(value) else label
        end = max(0.0, value) if math.isfinite(value) else 0.0
        axes.text(end + 0.03, row, label, va="center", fontsize=7.5)
    axes.set_yticks(range(len(names)), names if named else [""] * len(names), fontsize=7.5)
    axes.set_xlim(left - 0.05, 1.2)
    axes.set_xticks([tick for tick in (-1.5, -1, -0.5, 0, 0.5, 1) if tick >= left])
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
