"""Reconstructions of held-out images: best, median and worst, and some after each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cae_cli.metrics.quality import psnr
from cae_cli.report.figures.tiles import Colours
from cae_cli.report.page.content import Content, section
from cae_cli.report.page.sprites import Sprite, coloured, picture

SIDE = 100

TEMPLATE = """\
{% if sprite %}
<p>The best, the median and the worst of {{ "{:,}".format(count) }} {{ parts.word("held-out images") }}, by the error of the output. A mean
squared error of 0.01 is 20 dB, 0.001 is 30 dB ({{ parts.word("PSNR") }}). In the difference, red is too bright and blue too dark.</p>
<p class="js small"><label>Lay the {{ image }} over the output: <input type="range" min="0" max="100" value="0" data-wipe="wipes"></label></p>
<div class="scroll"><table class="rows" id="wipes" style="--wipe:0">
<thead><tr><td></td>{% for name in names %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% if pairs %}<tr><th scope="row">input</th>{% for name in names %}<td>{{ parts.tile(sprite, loop.index0, 3, "input, " ~ name) }}</td>{% endfor %}</tr>
{% endif %}<tr><th scope="row">{{ image }}</th>{% for name in names %}<td>{{ parts.tile(sprite, loop.index0, 0, image ~ ", " ~ name) }}</td>{% endfor %}</tr>
<tr><th scope="row">output</th>{% for name in names %}<td><div class="wipe"><span class="js">{{ parts.tile(sprite, loop.index0, 0, image ~ ", " ~ name) }}</span>{{ parts.tile(sprite, loop.index0, 1, "output, " ~ name, more="over") }}</div></td>{% endfor %}</tr>
<tr><th scope="row">difference</th>{% for name in names %}<td>{{ parts.tile(sprite, loop.index0, 2, "difference, " ~ name) }}</td>{% endfor %}</tr>
</tbody></table></div>
{% endif %}
{% if fixed %}
<h3>The first held-out images after epoch <span data-epoch>{{ content.epochs[-1] }}</span></h3>
{% if content.epochs|length > 1 %}<p class="js small">The slider at the top of the page shows other epochs; 0 is before training.</p>{% endif %}
<div class="scroll"><table class="rows"><tbody>
{% if pairs %}<tr><th scope="row">input</th>{% for i in range(columns) %}<td>{{ parts.tile(images, i, 1, "input " ~ (i + 1)) }}</td>{% endfor %}</tr>
{% endif %}<tr><th scope="row">{{ image }}</th>{% for i in range(columns) %}<td>{{ parts.tile(images, i, 0, image ~ " " ~ (i + 1)) }}</td>{% endfor %}</tr>
<tr><th scope="row">output</th>{% for i in range(columns) %}<td>{{ parts.tile(fixed, i, 0, "output " ~ (i + 1), by_epoch=true) }}</td>{% endfor %}</tr>
</tbody></table></div>
{% endif %}
"""


@section("reconstructions", "Reconstructions", TEMPLATE)
def reconstructions(content: Content) -> Mapping[str, Any] | None:
    """Images, outputs and differences; the outputs for the first images after each kept epoch."""
    arrays = content.data.arrays
    pairs = content.data.has("example_inputs") and content.data.has("chosen_inputs")
    values: dict[str, Any] = {
        "pairs": pairs,
        "image": "target" if pairs else "image",
        "sprite": "",
        "fixed": "",
        "names": [],
        "columns": 0,
        "images": "",
        "count": 0,
    }
    if content.data.has("chosen_outputs"):
        images, outputs, mse = (arrays[f"chosen_{what}"] for what in ("images", "outputs", "mse"))
        third = len(images) // 3
        names = ["best"] * third + ["median"] * third + ["worst"] * (len(images) - 2 * third)
        difference = (outputs - images).mean(axis=3)
        rows = [
            [picture(one, SIDE) for one in images],
            [picture(one, SIDE) for one in outputs],
            coloured(difference, Colours([difference], signed=True), SIDE),
            *([[picture(one, SIDE) for one in arrays["chosen_inputs"]]] if pairs else []),
        ]
        values["sprite"] = content.add(Sprite(rows))
        values["names"] = [f"{n}, {db:.1f} dB" for n, db in zip(names, psnr(mse), strict=True)]
        values["count"] = len(arrays["mse"])
    snapshots = [own for _, own in sorted(content.data.snapshots.items())]
    by_epoch = [own["outputs"] for own in snapshots if "outputs" in own]
    if content.data.has("example_images"):
        examples = arrays["example_images"]
        if len(by_epoch) != len(content.epochs):
            by_epoch = [arrays["example_outputs"]] * len(content.epochs)
        fitting = [np.asarray(own)[: len(examples)] for own in by_epoch]
        values["columns"] = min(len(examples), *map(len, fitting))
        count = values["columns"]
        shown = [examples, *([arrays["example_inputs"]] if pairs else [])]
        values["images"] = content.add(
            Sprite([[picture(i, SIDE) for i in own[:count]] for own in shown])
        )
        values["fixed"] = content.add(
            Sprite([[picture(i, SIDE) for i in own[:count]] for own in fitting])
        )
    return values if values["sprite"] or values["fixed"] else None
