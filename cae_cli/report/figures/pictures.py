"""Figures made of tiles: filters, feature maps and reconstructions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import counted
from cae_cli.metrics.filters import p_value, structure
from cae_cli.metrics.quality import psnr
from cae_cli.report.figures.catalogue import Arrays, RunData, figure
from cae_cli.report.figures.tiles import TILE, Array, Colours, fitted, grid, photo

if TYPE_CHECKING:
    from PIL import Image

MOST_ROWS, MOST_COLUMNS = 32, 16  # tiles of a filter picture; more cannot be seen
MOST_MAPS, MOST_IMAGES = 12, 6
MOST_LAYERS, MOST_REINITIALIZED = 8, 14  # layers and columns beside the initializer's filters


@figure("filters/{layer}.png", "The filters of a convolution, most used first.", "map_std/{layer}")
def filters(run: RunData, layer: str) -> Image.Image:
    """Every filter of a layer; one row each where it has several input channels."""
    kernel = run.arrays[f"kernel/{layer}"]
    kh, kw, inputs, filters = kernel.shape
    colours = Colours([kernel])
    shown = run.most_used(layer)[:MOST_ROWS]
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
    return grid(
        f"{layer}: {counted(filters, 'filter')} {kh}x{kw}x{inputs}",
        rows,
        row_names,
        column_names,
        cell=0.62 if inputs == 1 else 0.46,
        caption=caption,
        scale=(colours, "weight"),
    )


@figure(
    "maps/{layer}.png",
    "The feature maps of a convolution for held-out images, one image in each row.",
    *("map_std/{layer}", "map/{layer}", "example_images"),
)
def maps(run: RunData, layer: str) -> Image.Image:
    """Feature maps of the example images: an image in each row, the input first."""
    maps = run.arrays[f"map/{layer}"][:MOST_IMAGES]
    images = run.arrays.get("example_inputs", run.arrays["example_images"])[:MOST_IMAGES]
    h, w, filters = maps.shape[1:]
    shown = run.most_used(layer)[:MOST_MAPS]
    colours = Colours([maps])
    photos = [photo(image) for image in images]
    rows = [
        # as wide as the image: padding makes maps a little wider or narrower than that
        [photo, *(colours.tile(own[:, :, f], photo.shape[1]) for f in shown)]
        for photo, own in zip(photos, maps, strict=True)
    ]
    more = "" if len(shown) == filters else f", the {len(shown)} most used of {filters} filters"
    return grid(
        f"{layer}: feature maps {h}x{w}{more}",
        rows,
        [],
        ["input", *(f"filter {f}" for f in shown)],
        scale=(colours, "activation"),
    )


@figure(
    "reconstructions.png",
    "The best, median and worst reconstructions of held-out images.",
    *("chosen_images", "chosen_outputs", "chosen_mse", "mse"),
)
def reconstructions(run: RunData) -> Image.Image:
    """Best, median and worst held-out images: input, target where it differs, output, difference."""
    images, outputs, mse = (run.arrays[f"chosen_{what}"] for what in ("images", "outputs", "mse"))
    third = len(images) // 3
    names = ["best"] * third + ["median"] * third + ["worst"] * third
    difference = (outputs - images).mean(axis=3)  # (k, h, w)
    colours = Colours([difference], signed=True)
    rows = {
        "input": [photo(image) for image in run.arrays.get("chosen_inputs", ())],
        _target(run): [photo(image) for image in images],
        "output": [photo(output) for output in outputs],
        "difference": [colours.tile(d) for d in difference],
    }
    rows = {name: row for name, row in rows.items() if row}
    decibels = psnr(mse)
    return grid(
        f"Best, median and worst reconstructions of {len(run.arrays['mse']):,} held-out images",
        list(rows.values()),
        list(rows),
        [f"{name}\n{value:.1f} dB" for name, value in zip(names, decibels, strict=True)],
        cell=1.0,
        scale=(colours, f"output - {_target(run)}"),
    )


@figure(
    "trials.png",
    "Held-out images after short trainings: unchanged, with the best fix, with a random change.",
    *("trial/images", "trial/unchanged"),
)
def trials(run: RunData) -> Image.Image:
    """Inputs, targets where they differ, and the reconstructions of each training."""
    rows = after_trials(run)
    return grid(
        "Held-out images after short trainings",
        [[photo(image) for image in images] for images in rows.values()],
        [title.replace("best random", "best\nrandom") for title in rows],
        cell=0.8,
    )


def after_trials(run: RunData) -> dict[str, Array]:
    """The images of `trials` by the title of their row, each (n, h, w, c)."""
    titles = {
        "images": "input",
        "targets": "target",
        "unchanged": "unchanged",
        "edit": "with the best fix",
        "control": "with the best random change",
    }
    rows = {title: run.arrays[f"trial/{k}"] for k, title in titles.items() if run.has(f"trial/{k}")}
    if "target" in rows and np.array_equal(rows["target"], rows["input"]):
        del rows["target"]
    return rows


@figure(
    "filters_by_epoch.png",
    "The filters of the first convolution and reconstructions after some epochs (`training.snapshots`).",
    *("snapshots", "kernel/", "map_std/", "example_images"),
)
def filters_by_epoch(run: RunData) -> Image.Image:
    """First-layer filters and reconstructions after chosen epochs, an epoch in each row."""
    layer, snapshots = run.layers[0], run.snapshots
    order = run.most_used(layer)[:16]
    images = [photo(image) for image in run.arrays["example_images"]]
    # Filters with several input channels are shown by their mean.
    kernels = {e: snapshots[e][f"kernel/{layer}"].mean(axis=2) for e in sorted(snapshots)}
    colours = Colours(list(kernels.values()))
    rows: list[list[Array | None]] = [
        [
            *(fitted(kernel[:, :, f], colours, images[0]) for f in order),
            None,
            *(photo(output) for output in snapshots[epoch]["outputs"]),
        ]
        for epoch, kernel in kernels.items()
    ]
    rows.append([*[None] * (len(order) + 1), *images])
    names = ["untrained" if epoch == 0 else f"epoch {epoch}" for epoch in kernels]
    inputs = run.arrays[f"kernel/{layer}"].shape[2]
    of_what = f" (mean over {inputs} input channels)" if inputs > 1 else ""
    return grid(
        f"Filters of {layer} and reconstructions of held-out images, by epoch",
        rows,
        names,
        cell=0.6,
        caption=f"left: filters of {layer}{of_what}, most used first; right: reconstructions",
        scale=(colours, "weight"),
        beside=(len(kernels), len(order) + 1, _target(run)),
    )


def _target(run: RunData) -> str:
    """What the images are called that the network is to make: the inputs, unless it gets others."""
    return "target" if run.has("example_inputs") else "input"


def after_epoch(snapshot: Arrays) -> Image.Image:
    """First-layer filters and reconstructions of one snapshot, while others follow."""
    layer = next(key for key in snapshot if key.startswith("kernel/"))
    kernel = snapshot[layer].mean(axis=2)[:, :, :MOST_COLUMNS]  # (h, w, filters)
    colours = Colours([kernel])
    outputs = [photo(output) for output in snapshot["outputs"]]
    filters = [fitted(kernel[:, :, f], colours, outputs[0]) for f in range(kernel.shape[2])]
    return grid(
        f"Filters of {layer.removeprefix('kernel/')}, and reconstructions of held-out images",
        [filters, outputs],
        cell=0.6,
        scale=(colours, "weight"),
    )


@figure(
    "perturbation_tests.png",
    "Outputs with another image's latent code, for scrambled pixels and for noise.",
    "example_images",
)
def perturbation_tests(run: RunData) -> Image.Image | None:
    """Outputs for the examples, for other latent codes, for scrambled pixels and for noise."""
    arrays = run.arrays
    pair = [("input", "example_images")]
    if "example_inputs" in arrays:
        pair = [("input", "example_inputs"), ("target", "example_images")]
    groups = [
        [*pair, ("output", "example_outputs")],
        [("output with the next\nimage's latent code", "shuffled_outputs")],
        [("scrambled input", "scrambled_images"), ("output", "scrambled_outputs")],
        [("noisy input", "noisy_images"), ("output", "noisy_outputs")],
    ]
    if len(arrays["example_images"]) < 2:
        del groups[1]  # a single image has no next one
    known = [group for group in groups if all(key in arrays for _, key in group)]
    if len(known) < 2:
        return None
    shown = [row for group in known for row in group]
    return grid(
        "Perturbation tests: outputs for a changed latent code or input",
        [[photo(image) for image in arrays[key]] for _, key in shown],
        [name for name, _ in shown],
        cell=0.85,
        caption="Healthy: the next image appears with its latent code, scrambled pixels are not "
        "reproduced, and noise is removed.",
        groups=[len(group) for group in known],
    )


@figure(
    "filters_vs_init.png",
    "Trained filters above filters that the layer's initializer draws.",
    *("reinitialized/", "map_std/"),
)
def filters_vs_init(run: RunData) -> Image.Image | None:
    """Trained filters above filters that the layer's initializer draws, for each layer."""
    arrays = run.arrays
    layers = [layer for layer in run.layers if f"reinitialized/{layer}" in arrays]
    if not layers:
        return None
    square = np.zeros((TILE, TILE), np.float32)
    rows: list[list[Array | None]] = []
    names: list[str] = []
    for layer in layers[:MOST_LAYERS]:
        trained, reinitialized = arrays[f"kernel/{layer}"], arrays[f"reinitialized/{layer}"]
        p = p_value(structure(trained), arrays.get(f"null/{layer}", np.zeros(0, np.float32)))
        order = run.most_used(layer)[:MOST_REINITIALIZED]
        slices = [_strongest(trained, order), _strongest(reinitialized, np.arange(len(order)))]
        colours = Colours([value for row in slices for value in row], signed=True)
        rows += [[fitted(value, colours, square) for value in row] for row in slices]
        verdict = f"p = {p:.2f}" if np.isfinite(p) else "p unknown"
        if not np.isfinite(trained).all():
            verdict = "not finite"
        names += [f"{layer} trained\n{verdict}", f"{layer} initializer"]
    more = f"{MOST_LAYERS} of {len(layers)} layers shown. " if len(layers) > MOST_LAYERS else ""
    return grid(
        "Trained filters and filters drawn by the initializer",
        rows,
        names,
        cell=0.5,
        caption=f"{more}Up to {MOST_REINITIALIZED} filters of each layer, most used first, each at its "
        "strongest input channel. Blue negative, white 0, red positive; the two rows of a layer share a "
        "scale. p: how often random filters are as structured as the trained ones. Looks alone prove "
        "nothing: random filters look like edges and blobs too.",
        groups=[2] * (len(rows) // 2),
    )


def _strongest(kernel: Array, filters: NDArray[np.intp]) -> list[Array]:
    """The (k, k) slice of each filter that has the largest norm."""
    norms = np.square(kernel, dtype=np.float64).sum(axis=(0, 1))  # (inputs, filters)
    return [kernel[:, :, np.argmax(norms[:, f]), f] for f in filters]
