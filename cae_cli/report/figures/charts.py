"""Figures made of lines and bars: training curves, training dynamics and baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.diagnosis.case import USUAL_UPDATES
from cae_cli.metrics.maps import map_health
from cae_cli.metrics.quality import explained_variance
from cae_cli.report.figures.catalogue import Arrays, RunData, figure
from cae_cli.report.figures.tiles import DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Columns = Mapping[str, NDArray[np.float64]]
Series = NDArray[np.floating[Any]]

OWN, OTHERS, SECOND = "#1f77b4", "#b4bac2", "#d62728"  # this network, baselines, a second mark
THIS = "this network"
WORST = -1.5  # explained variance at which bars are cut
SMALLEST_UPDATE = -6.0  # shown; unchanged kernels have -12
MOST_NAMES = 7  # of layers in a legend


@figure("curves.png", "Losses, PSNR and SSIM of each epoch.", "epochs")
def curves(run: RunData) -> Figure:
    """Losses, PSNR and SSIM over the epochs."""
    from matplotlib.figure import Figure

    epochs = run.epochs
    chart = Figure(figsize=(11, 3.2), dpi=DPI, layout="constrained")
    axes = chart.subplots(1, 3)
    epoch = epochs["epoch"]
    marker = "o" if len(epoch) < 30 else None
    panels = [
        ("loss", [("train/data_loss", "training"), ("val/loss", "validation")]),
        ("validation PSNR / dB", [("val/psnr", "validation")]),
        ("validation SSIM", [("val/ssim", "validation")]),
    ]
    if np.nanmax(epochs["train/penalty"], initial=0) > 0:
        panels[0][1].append(("train/penalty", "penalty"))
    for axis, (title, lines) in zip(axes, panels, strict=True):
        for (name, label), colour in zip(lines, ("#1f77b4", "#d62728", "#7f7f7f"), strict=False):
            axis.plot(epoch, epochs[name], label=label, marker=marker, markersize=3, color=colour)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    values = np.concatenate([epochs["train/data_loss"], epochs["val/loss"]])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 10 * values.min():
        axes[0].set_yscale("log")
    axes[0].legend(fontsize=7)
    return chart


@figure(
    "baselines.png",
    "Explained variance of the network and of simpler models.",
    *("mse", "mean_mse"),
)
def baselines(run: RunData) -> Figure | None:
    """Explained variance of the network among those of simpler models, best at the top."""
    from matplotlib.figure import Figure

    arrays = run.arrays
    baselines = {
        "black image": explained(arrays, "black_mse"),
        "flat image with the\nmean grey of each image": explained(arrays, "perturbation/grey_mse"),
        "mean training image": explained(arrays, "mean_mse"),
        "linear decoder of the image\nat the latent resolution": explained(
            arrays, "perturbation/linear_mse"
        ),
        "same network with a\nfrozen random encoder": math.nan if run.frozen is None else run.frozen,
        THIS: explained(arrays, "mse"),
        "principal components,\nas many as latent values": explained(
            arrays, "perturbation/projection_mse"
        ),
    }
    trained = math.nan
    # Where all images are measured, those of the training are not known.
    of_training = arrays.get("train_mse", np.zeros(0))
    evaluated = np.array_equal(of_training, arrays.get("mse", np.ones(1))[: len(of_training)])
    if {"train_mse", "train_mean_mse"} <= arrays.keys() and not evaluated:
        trained = explained_variance(arrays["train_mse"], arrays["train_mean_mse"])
    known = {name: value for name, value in baselines.items() if not math.isnan(value)}
    if not known.keys() - {THIS}:
        return None
    # A network that diverged has no value: it stands below all others.
    names = sorted({THIS: baselines[THIS], **known}, key=lambda name: known.get(name, -math.inf))
    left = max(WORST, float(np.nanmin([0.0, trained, *baselines.values()])))
    chart = Figure(figsize=(7.6, 1.1 + 0.42 * len(names)), dpi=DPI, layout="constrained")
    axes = chart.subplots()
    axes.set_yticks(range(len(names)), names)
    for row, (name, tick) in enumerate(zip(names, axes.get_yticklabels(), strict=True)):
        value = baselines[name]
        colour, weight = (OWN, "bold") if name == THIS else (OTHERS, "normal")
        bar(axes, row, value, left, colour)
        axes.text(1.06, row, _number(value), va="center", fontsize=8, fontweight=weight)
        tick.set_fontweight(weight)
    if not math.isnan(trained):
        row = names.index(THIS)
        axes.plot(max(trained, left), row, marker="D", color=SECOND, markeredgecolor="white")
        note = f"training images {_number(trained)}"
        axes.text(1.06, row - 0.34, note, va="center", fontsize=7, color=SECOND)
    axes.set_xlim(left - 0.08, 1.06)
    axes.set_xticks([tick for tick in np.arange(-1.5, 1.01, 0.5) if tick >= left])
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.axvline(1, color="#333333", linewidth=0.8, linestyle=":")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(
        "explained variance of held-out images\n0: mean training image, 1: perfect"
        + ("" if math.isnan(trained) else "; diamond: training images"),
        fontsize=8,
    )
    title = "Explained variance of the network and of simpler models"
    chart.suptitle(title, fontsize=10, fontweight="bold")
    return chart


def explained(arrays: Arrays, key: str) -> float:
    """Explained variance of held-out images with the errors in an array; NaN where it is unknown."""
    if key not in arrays or "mean_mse" not in arrays:
        return math.nan
    mse = arrays[key]  # (k,) of the first of the held-out images
    return explained_variance(mse, arrays["mean_mse"][: len(mse)])


def bar(axes: Axes, row: int, value: float, left: float, colour: str) -> None:
    """A bar from 0; with an arrow where it is cut at ``left``."""
    axes.barh(row, 0.0 if math.isnan(value) else max(value, left), height=0.62, color=colour)
    if value < left:
        axes.plot(left, row, marker="<", markersize=8, color=colour)


def _number(value: float) -> str:
    if math.isnan(value):
        return "not a number"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1e}"


@figure(
    "training_dynamics.png",
    "Update ratios, gradients, inactive maps and the loss, from the first step to the last.",
    "dynamics/kernels",
)
def dynamics(run: RunData) -> Figure | None:
    """Update ratios, gradients, inactive maps and the loss, from the first step to the last."""
    from matplotlib.figure import Figure

    arrays, epochs = run.arrays, run.epochs
    kernels = [str(name).removesuffix("/kernel") for name in arrays["dynamics/kernels"]]
    looked = [key.removeprefix("look_std/") for key in arrays if key.startswith("look_std/")]
    colours = _colours_of(list(dict.fromkeys([*kernels, *looked])))
    panels: list[Callable[[Axes], None]] = []
    steps, updates = updates_of(arrays, epochs)
    if updates.size:
        panels.append(lambda axes: _draw_updates(axes, steps, updates, [colours[k] for k in kernels]))
    gradients = _positive(arrays.get("dynamics/gradients", np.zeros((0, 0))))
    if np.isfinite(gradients).any():
        panels.append(lambda axes: _draw_gradients(axes, gradients, [colours[k] for k in kernels]))
    if looked:
        shown, threshold = {k: colours[k] for k in looked}, run.thresholds.get("CAE401")
        panels.append(lambda axes: _draw_inactive(axes, arrays, shown, threshold))
    if np.isfinite(arrays.get("dynamics/losses", np.zeros(0))).any():
        panels.append(lambda axes: _draw_losses(axes, arrays["dynamics/losses"], epochs))
    if not panels:
        return None
    rows, columns = (2, 2) if len(panels) > 2 else (1, len(panels))
    size = (4.2 * columns + 1.6, 2.8 * rows + 0.4)
    chart = Figure(figsize=size, dpi=DPI, layout="constrained")
    every = chart.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(every, panels, strict=False):
        panel(axes)
        axes.tick_params(labelsize=7, which="both")
        axes.grid(alpha=0.3)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    _name_layers(chart, colours)
    chart.suptitle("Training dynamics", fontsize=10, fontweight="bold")
    return chart


def _colours_of(names: Sequence[str]) -> dict[str, Any]:
    """A colour for each layer, from dark (the first) to light (the last)."""
    from matplotlib import colormaps

    # Without the yellow end, which cannot be seen on white.
    return dict(zip(names, colormaps["plasma"](np.linspace(0, 0.88, len(names))), strict=True))


def _name_layers(chart: Figure, colours: Mapping[str, Any]) -> None:
    """The legend of all panels; of many layers some, the first and the last among them."""
    from matplotlib.lines import Line2D

    names = list(colours)
    shown = np.unique(np.linspace(0, len(names) - 1, MOST_NAMES).round().astype(int))
    handles = [Line2D([], [], color=colours[names[i]], label=_short(names[i])) for i in shown]
    handles.append(Line2D([], [], color="black", linewidth=2.2, label="median"))
    title = "layer, first to last" + ("" if len(shown) == len(names) else f"\n({len(names)} in all)")
    chart.legend(handles=handles, loc="outside right upper", fontsize=7, title=title, title_fontsize=7)


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _positive(values: NDArray[Any]) -> Series:
    """Values for a logarithmic axis: NaN where they are not above 0."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def updates_of(arrays: Arrays, epochs: Columns) -> tuple[NDArray[np.int64], Series]:
    """Steps, counted from 1, and the update ratios of all kernels there, (s,) and (s, m)."""
    early = arrays.get("dynamics/early_updates", np.zeros((0, len(arrays["dynamics/kernels"]))))
    later = arrays.get("dynamics/updates", early[:0])
    ends = epochs.get("step", np.zeros(0))  # of the epochs; 0 for the network before training
    later = later[: len(ends)]
    starts = ends[: len(later)].astype(np.int64) + 1
    new = starts > len(early)
    steps = np.concatenate([np.arange(1, len(early) + 1), starts[new]])
    return steps, np.concatenate([early, later[new]])


def _draw_updates(axes: Axes, steps: NDArray[np.int64], updates: Series, colours: Sequence[Any]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    known = np.where(np.isfinite(updates), updates, np.nan)
    still = np.array([(line < SMALLEST_UPDATE).all() for line in known.T])  # (m,)
    shown = np.maximum(known, SMALLEST_UPDATE)  # NaN stays
    axes.axhspan(*USUAL_UPDATES, color="#2ca02c", alpha=0.15, linewidth=0)
    for line, colour, skipped in zip(shown.T, colours, still, strict=True):
        if not skipped:  # the others would be flattened by it
            axes.plot(steps, line, color=colour, linewidth=0.9, marker=".", markersize=3)
    if not still.all():
        axes.plot(steps, np.median(shown[:, ~still], axis=1), color="black", linewidth=2.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if steps[-1] <= 100 else (1,)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    drawn = shown[:, ~still]
    inside = [*USUAL_UPDATES, *drawn[np.isfinite(drawn)]]
    axes.set_ylim(min(inside) - 0.3, max(inside) + 0.5)
    axes.text(
        0.99,
        USUAL_UPDATES[1],
        "usual in the first steps",
        transform=axes.get_yaxis_transform(),
        fontsize=7,
        color="#1b701b",
        ha="right",
        va="bottom",
    )
    title = "update ratio of each kernel"
    if still.any():
        title += f"\n{still.sum()} of {len(still)} kernels did not change (not shown)"
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("step (the first ones, then the first of each epoch)", fontsize=8)
    axes.set_ylabel("log10(mean |change| / mean |weight|)", fontsize=7)


def _draw_gradients(axes: Axes, gradients: Series, colours: Sequence[Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = np.arange(1, len(gradients) + 1)
    marker = "." if len(epochs) < 30 else None
    for line, colour in zip(gradients.T, colours, strict=True):
        axes.plot(epochs, line, color=colour, linewidth=1.1, marker=marker)
    axes.set_yscale("log")
    axes.set_title("gradient norm of each kernel", fontsize=9)
    axes.set_xlabel("epoch (mean over its steps)", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_inactive(
    axes: Axes, arrays: Arrays, colours: Mapping[str, Any], threshold: float | None
) -> None:
    steps = arrays["dynamics/look_steps"]
    places = np.arange(len(steps))  # evenly spaced: most are among the first steps
    for number, (layer, colour) in enumerate(colours.items()):
        stds, image_stds = arrays[f"look_std/{layer}"], arrays[f"look_image_std/{layer}"]
        shares = [map_health(*pair).inactive_share for pair in zip(stds, image_stds, strict=True)]
        # Later lines are thinner, so that equal ones can be seen beneath.
        width = 4.5 - 3.5 * number / max(1, len(colours) - 1)
        axes.plot(places, shares, color=colour, linewidth=width, marker="o", markersize=width + 1)
    if threshold is not None:
        axes.axhline(threshold, color="black", linestyle="--", linewidth=0.9)
        axes.text(
            0.99,
            threshold + 0.01,
            f"threshold of CAE401: {threshold:g}",
            transform=axes.get_yaxis_transform(),
            fontsize=7,
            ha="right",
            va="bottom",
        )
    axes.set_ylim(-0.04, 1.04)
    every = max(1, math.ceil(len(steps) / 9))
    axes.set_xticks(places[::every], [f"{step:,}" for step in steps[::every]])
    axes.set_title("share of inactive maps in each layer", fontsize=9)
    axes.set_xlabel("step", fontsize=8)


def _draw_losses(axes: Axes, losses: Series, epochs: Columns) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    known = np.where(np.isfinite(losses), losses, np.nan)
    ends = epochs.get("step", np.zeros(1))
    # Where training broke off in an epoch its last steps are in no line of metrics.csv.
    per_part = max(1.0, float(ends[-1]) / len(known))
    steps = np.arange(1, len(known) + 1) * per_part
    window = max(1, len(known) // 32)
    if window > 1:
        axes.plot(steps, known, color=OWN, linewidth=0.6, alpha=0.45, label="data loss")
        weights = np.full(window, 1 / window)
        smooth, middle = (np.convolve(values, weights, "valid") for values in (known, steps))
        label = f"mean over {window * per_part:,.0f} steps"
        axes.plot(middle, smooth, color=OWN, linewidth=1.8, label=label)
    else:
        axes.plot(steps, known, color=OWN, linewidth=1.8, marker=".", label="data loss")
    shown = [known[np.isfinite(known)]]
    penalty = epochs.get("train/penalty", np.zeros(0))
    if np.nanmax(penalty, initial=0) > 0:
        label = "penalty (mean of each epoch)"
        axes.plot(ends, penalty, color="#7f7f7f", marker="o", markersize=3, label=label)
        shown.append(penalty[np.isfinite(penalty)])
    values = np.concatenate(shown)
    if values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
    broken = "" if np.isfinite(losses).all() else ", up to where it is not finite"
    axes.set_title(f"training loss{broken}", fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.legend(fontsize=7)
