"""The pictures of a run, from the arrays and figures in its folder.

A picture is a grid of tiles, put together as one array of colours and drawn at once: drawing a hundred
small axes takes Matplotlib seconds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.measures.quality import psnr
from cae_cli.run import Run, atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float32]

MOST_ROWS, MOST_COLUMNS = 32, 16  # tiles of a filter picture; more cannot be seen
MOST_MAPS, MOST_IMAGES = 12, 6
SIGNED = "RdBu_r"  # blue is negative, white 0, red positive
POSITIVE = "viridis"
DPI = 110
TILE = 64  # pixels of a tile's height in the arrays; Matplotlib scales them to the figure
GAP = 6


def draw(run: Run) -> list[Path]:
    """Draws every picture of a run.

    Args:
        run: a folder that holds arrays.npz and metrics.csv.

    Returns:
        The files written.
    """
    arrays = run.read_arrays(run.arrays)
    layers = [key.removeprefix("kernel/") for key in arrays if key.startswith("kernel/")]
    snapshots = {epoch: run.read_arrays(path) for epoch, path in run.snapshots().items()}
    pictures: dict[Path, Figure] = {
        run.reconstructions: _reconstructions(arrays),
        run.curves: _curves(run.read_metrics()),
    }
    if snapshots:
        pictures[run.formation] = _formation(layers[0], arrays, snapshots)
    for layer in layers:
        order = np.argsort(-arrays[f"map_std/{layer}"], kind="stable")  # most used first
        pictures[run.filters(layer)] = _filters(layer, arrays[f"kernel/{layer}"], order)
        pictures[run.maps(layer)] = _maps(layer, arrays["example_images"], arrays[f"map/{layer}"], order)
    for path, figure in pictures.items():
        # No metadata: equal runs give equal files, whatever Matplotlib says of itself.
        with atomic(path) as temporary:
            figure.savefig(temporary, metadata={"Software": None})
    return list(pictures)


def mosaic(rows: Sequence[Sequence[Array | None]], gap: int = GAP) -> Array:
    """Tiles of one size in rows, transparent between them and where a tile is None.

    Args:
        rows: of (h, w, 3) tiles with colours in [0, 1].
        gap: pixels between tiles.

    Returns:
        (H, W, 4).
    """
    first = next(tile for row in rows for tile in row if tile is not None)
    h, w = first.shape[:2]
    columns = max(map(len, rows))
    canvas = np.zeros((len(rows) * (h + gap) - gap, columns * (w + gap) - gap, 4), np.float32)
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            if tile is not None:
                place = canvas[r * (h + gap) : r * (h + gap) + h, c * (w + gap) : c * (w + gap) + w]
                place[..., :3], place[..., 3] = tile, 1
    return canvas


def _sized(values: Array, width: int | None = None) -> Array:
    """(h, w) or (h, w, 3) at a height of `TILE` pixels: pixels stay sharp when enlarged.

    Args:
        values: the pixels.
        width: of the result; None: what keeps the proportions.
    """
    h, w = values.shape[:2]
    height, width = TILE, width or max(1, round(TILE * w / h))
    if h > height:  # reduced: mean over the pixels that a new one covers
        from PIL import Image

        planes = np.moveaxis(np.atleast_3d(values), 2, 0).astype(np.float32)
        small = [Image.fromarray(p).resize((width, height), Image.Resampling.BOX) for p in planes]
        return np.squeeze(np.stack([np.asarray(s) for s in small], axis=2))
    rows = np.arange(height) * h // height
    columns = np.arange(width) * w // width
    sharp: Array = values[rows][:, columns]
    return sharp


def _photo(image: Array) -> Array:
    """An image (h, w, c) as a tile; other than three channels are shown as their mean, in grey."""
    image = np.clip(np.nan_to_num(image), 0, 1)
    if image.shape[2] != 3:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    return np.clip(_sized(image), 0, 1)


class _Colours:
    """A colour map with its scale, for tiles and for the legend beside them."""

    def __init__(self, values: Sequence[Array], *, signed: bool = False) -> None:
        from matplotlib import colormaps
        from matplotlib.colors import Normalize

        # Networks that diverged have values that are not finite, dead ones nothing but 0.
        finite = [v[np.isfinite(v)] for v in values]
        limit = max((float(np.abs(v).max()) for v in finite if v.size), default=0) or 1.0
        signed = signed or any(float(v.min()) < -1e-6 * limit for v in finite if v.size)
        self.map = colormaps[SIGNED if signed else POSITIVE]
        self.norm = Normalize(-limit if signed else 0, limit)

    def tile(self, values: Array, width: int | None = None) -> Array:
        """(h, w) values as a tile of colours, of ``width`` pixels if that is given."""
        shown = np.nan_to_num(_sized(values, width), posinf=self.norm.vmax, neginf=self.norm.vmin)
        return np.asarray(self.map(self.norm(shown))[..., :3], np.float32)

    def legend(self, axes: Axes, label: str) -> None:
        """The scale beside ``axes``."""
        from matplotlib.cm import ScalarMappable

        bar = axes.figure.colorbar(
            ScalarMappable(self.norm, self.map), ax=axes, shrink=0.8, pad=0.02, aspect=25
        )
        bar.ax.tick_params(labelsize=7)
        bar.set_label(label, fontsize=8)


def _grid(
    title: str,
    rows: Sequence[Sequence[Array | None]],
    row_names: Sequence[str],
    column_names: Sequence[str] = (),
    *,
    cell: float = 0.9,
    caption: str = "",
) -> tuple[Figure, Axes]:
    """A figure of tiles with names beside the rows and above the columns.

    Args:
        title: above all.
        rows: of tiles.
        row_names: one for each row.
        column_names: one for each column, or none.
        cell: inches of a tile's height.
        caption: below all.
    """
    from matplotlib.figure import Figure

    canvas = mosaic(rows)
    h, w = next(tile for row in rows for tile in row if tile is not None).shape[:2]
    scale = cell / (h + GAP)
    width = max(4.8, canvas.shape[1] * scale + 2.1)
    figure = Figure(figsize=(width, canvas.shape[0] * scale + 0.9), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="antialiased")
    axes.set_yticks([i * (h + GAP) + h / 2 for i in range(len(row_names))], row_names)
    axes.set_xticks([i * (w + GAP) + w / 2 for i in range(len(column_names))], column_names)
    axes.tick_params(length=0, labelsize=7)
    axes.xaxis.tick_top()
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(textwrap.fill(caption, int(12 * width)), fontsize=7)
    figure.suptitle(title, fontsize=10, fontweight="bold")
    return figure, axes


def _filters(layer: str, kernel: Array, order: NDArray[np.intp]) -> Figure:
    """Every filter of a layer; one row each where it has several input channels."""
    kh, kw, inputs, filters = kernel.shape
    colours = _Colours([kernel])
    shown = order[:MOST_ROWS]
    if inputs == 1:
        columns = min(8, len(shown))  # a block of tiles rather than one tall column
        starts = range(0, len(shown), columns)
        rows = [[colours.tile(kernel[:, :, 0, f]) for f in shown[s : s + columns]] for s in starts]
        row_names = ["filters " + " ".join(map(str, shown[s : s + columns])) for s in starts]
        column_names: list[str] = []
        caption = "most used first, row by row"
    else:
        columns = min(inputs, MOST_COLUMNS)
        rows = [[colours.tile(kernel[:, :, i, f]) for i in range(columns)] for f in shown]
        row_names = [f"filter {f}" for f in shown]
        of_colours = layer == "encoder_1" and inputs == 3
        column_names = ["red", "green", "blue"] if of_colours else [f"{i}" for i in range(columns)]
        caption = "a filter in each row, most used first; an input channel in each column"
        if columns < inputs:
            caption += f", {columns} of {inputs} shown"
    if len(shown) < filters:
        caption += f"; {len(shown)} of {filters} filters shown"
    figure, axes = _grid(
        f"{layer}: {filters} filter{'' if filters == 1 else 's'} {kh}x{kw}x{inputs}",
        rows,
        row_names,
        column_names,
        cell=0.62 if inputs == 1 else 0.46,
        caption=caption,
    )
    colours.legend(axes, "weight")
    return figure


def _maps(layer: str, images: Array, maps: Array, order: NDArray[np.intp]) -> Figure:
    """Feature maps of the example images: an image in each row, the input first."""
    h, w, filters = maps.shape[1:]
    shown = order[:MOST_MAPS]
    maps, images = maps[:MOST_IMAGES], images[:MOST_IMAGES]
    colours = _Colours([maps])
    photos = [_photo(image) for image in images]
    rows = [
        # as wide as the image: padding makes maps a little wider or narrower than that
        [photo, *(colours.tile(own[:, :, f], photo.shape[1]) for f in shown)]
        for photo, own in zip(photos, maps, strict=True)
    ]
    more = "" if len(shown) == filters else f", the {len(shown)} most used of {filters} filters"
    figure, axes = _grid(
        f"{layer}: feature maps {h}x{w}{more}",
        rows,
        [],
        ["input", *(f"filter {f}" for f in shown)],
    )
    colours.legend(axes, "activation")
    return figure


def _fitted(values: Array, colours: _Colours, like: Array) -> Array:
    """A filter as a tile of the shape of ``like``: pixels stay square, white around them."""
    height, width = like.shape[:2]
    kh, kw = values.shape
    scale = min(height / kh, width / kw)
    h, w = max(1, int(kh * scale)), max(1, int(kw * scale))
    tile = colours.tile(values)
    rows = np.arange(h) * tile.shape[0] // h
    columns = np.arange(w) * tile.shape[1] // w
    canvas = np.ones((height, width, 3), np.float32)
    top, left = (height - h) // 2, (width - w) // 2
    canvas[top : top + h, left : left + w] = tile[rows][:, columns]
    return canvas


def _reconstructions(arrays: Mapping[str, NDArray[Any]]) -> Figure:
    """Best, median and worst held-out images: input, output, difference."""
    images, outputs, mse = (arrays[f"chosen_{what}"] for what in ("images", "outputs", "mse"))
    third = len(images) // 3
    names = ["best"] * third + ["median"] * third + ["worst"] * third
    difference = (outputs - images).mean(axis=3)  # (k, h, w)
    colours = _Colours([difference], signed=True)
    rows = [
        [_photo(image) for image in images],
        [_photo(output) for output in outputs],
        [colours.tile(d) for d in difference],
    ]
    decibels = psnr(mse)
    figure, axes = _grid(
        f"Held-out images and their reconstructions, by error ({len(arrays['mse']):,} images)",
        rows,
        ["input", "output", "difference"],
        [f"{name}\n{value:.1f} dB" for name, value in zip(names, decibels, strict=True)],
        cell=1.0,
    )
    colours.legend(axes, "output - input")
    return figure


def _formation(
    layer: str, arrays: Mapping[str, NDArray[Any]], snapshots: Mapping[int, Mapping[str, Any]]
) -> Figure:
    """First-layer filters and reconstructions after chosen epochs, an epoch in each row."""
    order = np.argsort(-arrays[f"map_std/{layer}"], kind="stable")[:16]
    images = [_photo(image) for image in arrays["example_images"]]
    # Filters that see colour are shown by their mean over the channels.
    kernels = {e: snapshots[e][f"kernel/{layer}"].mean(axis=2) for e in sorted(snapshots)}
    colours = _Colours(list(kernels.values()))
    rows: list[list[Array | None]] = [
        [
            *(_fitted(kernel[:, :, f], colours, images[0]) for f in order),
            None,
            *(_photo(output) for output in snapshots[epoch]["outputs"]),
        ]
        for epoch, kernel in kernels.items()
    ]
    rows.append([*[None] * (len(order) + 1), *images])
    names = ["untrained" if epoch == 0 else f"epoch {epoch}" for epoch in kernels]
    inputs = arrays[f"kernel/{layer}"].shape[2]
    of_what = f" (mean over {inputs} input channels)" if inputs > 1 else ""
    figure, axes = _grid(
        f"How the filters of {layer} form, and what the network makes of held-out images",
        rows,
        names,
        cell=0.6,
        caption=f"left: filters of {layer}{of_what}, most used first; right: reconstructions",
    )
    height, width = images[0].shape[:2]
    axes.text(
        (len(order) + 1) * (width + GAP) - GAP,
        len(kernels) * (height + GAP) + height / 2,
        "input ",
        fontsize=7,
        ha="right",
        va="center",
    )
    colours.legend(axes, "weight")
    return figure


def _curves(metrics: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Losses, PSNR and SSIM over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, 3)
    epoch = metrics["epoch"]
    marker = "o" if len(epoch) < 30 else None
    panels = [
        ("loss", [("train/data_loss", "training"), ("val/loss", "validation")]),
        ("PSNR of validation images / dB", [("val/psnr", "validation")]),
        ("SSIM of validation images", [("val/ssim", "validation")]),
    ]
    if np.nanmax(metrics["train/penalty"], initial=0) > 0:
        panels[0][1].append(("train/penalty", "penalty"))
    for axis, (title, lines) in zip(axes, panels, strict=True):
        for (name, label), colour in zip(lines, ("#1f77b4", "#d62728", "#7f7f7f"), strict=False):
            axis.plot(epoch, metrics[name], label=label, marker=marker, markersize=3, color=colour)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    values = np.concatenate([metrics["train/data_loss"], metrics["val/loss"]])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 10 * values.min():
        axes[0].set_yscale("log")
    axes[0].legend(fontsize=7)
    return figure
