"""The course of the training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from cae_cli.diagnosis.case import USUAL_UPDATES
from cae_cli.metrics.maps import map_health
from cae_cli.report.figures.charts import updates_of
from cae_cli.report.page.charts import Series, lines
from cae_cli.report.page.content import Content, section

MOST_LINES = 8  # layers in a chart

TEMPLATE = """\
<div class="grid2">{% for chart in charts %}{{ chart }}{% endfor %}</div>
"""


@section("training", "Training", TEMPLATE)
def training(content: Content) -> Mapping[str, Any] | None:
    """Losses, PSNR, SSIM, update ratios, gradients and inactive maps."""
    charts = [chart for chart in _charts(content) if chart is not None]
    return {"charts": charts} if charts else None


def _loss(content: Content) -> str:
    """The loss by its name, where that is known."""
    loss = (content.setup.get("config") or {}).get("loss")
    name = loss.get("name") if isinstance(loss, Mapping) else None
    return f"loss ({name})" if isinstance(name, str) else "loss"


def _charts(content: Content) -> Iterator[Markup | None]:
    arrays, epochs = content.data.arrays, content.data.epochs
    if epochs:
        x = epochs["epoch"]
        losses = [
            Series(name, x, epochs[key])
            for key, name in (("train/data_loss", "training"), ("val/loss", "validation"))
            if key in epochs
        ]
        yield lines(
            f"{_loss(content)} of each epoch",
            "epoch (0: before training)",
            losses,
            note="Both should fall. A validation loss that rises while the training loss falls: what is "
            "learned of the training images does not hold for others.",
            logarithmic=True,
        )
        yield lines(
            "PSNR of the validation images in dB",
            "epoch (0: before training)",
            [Series("PSNR", x, epochs["val/psnr"])],
            note="Higher is better: 6 dB more are half the error of a pixel.",
        )
        yield lines(
            "SSIM of the validation images",
            "epoch (0: before training)",
            [Series("SSIM", x, epochs["val/ssim"])],
            note="Structural similarity of image and output: 1 for equal ones.",
        )
    if "dynamics/losses" in arrays and len(arrays["dynamics/losses"]) > 1:
        losses_of = np.asarray(arrays["dynamics/losses"], float)
        last = float(epochs["step"][-1]) if epochs else len(losses_of)
        each = np.arange(1, len(losses_of) + 1) * max(1.0, last / len(losses_of))
        window = max(1, len(losses_of) // 64)
        smooth = np.convolve(losses_of, np.full(window, 1 / window), "valid")
        middle = np.convolve(each, np.full(window, 1 / window), "valid")
        yield lines(
            f"{_loss(content)} of each training step",
            "step",
            [Series("loss", middle, smooth)],
            note="A moving average. Still falling at the end: more steps would help.",
            logarithmic=True,
        )
    if "dynamics/kernels" not in arrays:
        return
    kernels = [str(name).removesuffix("/kernel") for name in arrays["dynamics/kernels"]]
    chosen = np.unique(
        np.linspace(0, len(kernels) - 1, min(MOST_LINES, len(kernels))).round().astype(int)
    )
    steps, ratios = updates_of(arrays, epochs)
    if ratios.size:
        x = steps.astype(float)
        series = [Series(kernels[i], x, 10 ** np.maximum(ratios[:, i], -6)) for i in chosen]
        usual = (10 ** USUAL_UPDATES[0], 10 ** USUAL_UPDATES[1])
        yield lines(
            "update ratio of each layer",
            "step",
            series,
            note="Change of the weights in one step over their size. In green: usual in the first eight "
            f"steps, {usual[0]:.1%} to {usual[1]:.0%}; later steps may be smaller.",
            logarithmic=True,
            logarithmic_across=True,
            band=usual,
        )
    gradients = arrays.get("dynamics/gradients")
    if gradients is not None and len(gradients):
        x = np.arange(1, len(gradients) + 1).astype(float)
        values = np.where(gradients > 0, gradients, np.nan)
        series = [Series(kernels[i], x, values[:, i]) for i in chosen]
        yield lines(
            "gradient norm of each layer",
            "epoch",
            series,
            note="How strongly the loss pulls at the weights. Nearly 0 from the first epoch on: the layer "
            "is hardly trained.",
            logarithmic=True,
        )
    looked = [key.removeprefix("look_std/") for key in arrays if key.startswith("look_std/")]
    if looked:
        at = arrays["dynamics/look_steps"].astype(float)
        series = []
        for layer in looked[:MOST_LINES]:
            pairs = zip(arrays[f"look_std/{layer}"], arrays[f"look_image_std/{layer}"], strict=True)
            shares = np.array([map_health(*pair).inactive_share for pair in pairs])
            series.append(Series(layer, at, shares))
        threshold = content.data.thresholds.get("CAE401")
        yield lines(
            "share of inactive maps",
            "step",
            series,
            note="Feature maps that are flat or the same for every image.",
            threshold=None if threshold is None else (threshold, f"threshold of CAE401: {threshold:g}"),
        )
