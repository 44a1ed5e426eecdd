"""Perturbation tests and baselines: what the network does, beside what simpler models do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cae_cli.diagnosis.case import LITTLE_EXPLAINED
from cae_cli.diagnosis.health import perturbation_ranges
from cae_cli.metrics.network import Network
from cae_cli.report.figures.charts import explained
from cae_cli.report.page.content import Content, section
from cae_cli.report.page.sprites import Sprite, picture

SIDE = 76
TESTS = (
    (
        "latent swap",
        "latent_swap",
        "change of the output with another image's latent code: about 1 if the other image appears, 0 if the "
        "decoder ignores the latent code",
    ),
    (
        "pixel copy",
        "pixel_copy",
        "contrast that is reproduced of images whose pixels are scrambled: 1 for a network that copies "
        "whatever comes in, 0 for one that describes images",
    ),
    (
        "noise gain",
        "noise_gain",
        "share of noise in the image that reaches the output: 1 for a copy, 0 if all is removed",
    ),
)
BASELINES = {
    "this network": "output of the trained network",
    "principal components": "best linear autoencoder with as many latent values, whose weights are not shared "
    "by all places of the image; a network may explain less or more",
    "linear decoder": "averages over the cells of the latent code, and the best linear map back: what is "
    "possible without filters",
    "mean grey of each image": "flat image of the right brightness",
    "mean training image": "the same output for every image; 0 by definition",
    "black image": "black everywhere",
    "frozen random encoder": "same network, trained with its initial encoder: what random filters are worth",
}

TEMPLATE = """\
<h3>Perturbation tests</h3>
<p>What the output does when the latent code or the image is changed. Green is the range of healthy runs.</p>
<div class="scroll"><table class="data stack">
<thead><tr><th scope="col">test</th><th scope="col" class="n">value</th><th scope="col">from -0.2 to 1.2</th><th scope="col">healthy</th><th scope="col">what is measured</th></tr></thead>
<tbody>
{% for name, value, healthy, text, what in tests %}
<tr><th scope="row">{{ name }}</th><td class="n">{{ number(value) }}</td><td class="m">{{ meter(value, -0.2, 1.2, healthy=healthy) }}</td><td class="code"><span class="narrow">healthy </span>{{ text }}</td><td class="small dim">{{ what }}</td></tr>
{% endfor %}
</tbody></table></div>
<h3>Explained variance, beside simpler models</h3>
<p>{{ parts.word("explained variance", "Explained variance") }} of held-out images; healthy runs have more than {{ share(least, 0) }}. A network is worth its training
where it explains more than a {{ parts.word("linear decoder") }}.</p>
<div class="scroll"><table class="data stack">
<thead><tr><th scope="col">model</th><th scope="col" class="n">explained</th><th scope="col">from -50% to 100%; dashed: 0</th><th scope="col">what it is</th></tr></thead>
<tbody>
{% for name, value, own in baselines %}
<tr><th scope="row"{% if not own %} style="font-weight:normal"{% endif %}>{{ name }}</th><td class="n">{{ share(value) }}</td><td class="m">{{ meter(value, -0.5, 1, threshold=0) }}</td><td class="small dim">{{ kinds[name] }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if sprite %}
<h3>The tests as pictures</h3>
<div class="scroll"><table class="rows"><tbody>
{% for name, expected in names %}{% set row = loop.index0 %}
<tr><th scope="row">{{ name }}{% if expected %}<br><span class="dim">{{ expected }}</span>{% endif %}</th>{% for i in range(columns) %}<td>{{ parts.tile(sprite, i, row, name ~ ", image " ~ (i + 1)) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endif %}
"""
PICTURES = (
    ("example_images", "image", ""),
    ("example_outputs", "output", ""),
    ("shuffled_outputs", "output with the next image's latent code", "should be the next image"),
    ("scrambled_images", "image with scrambled pixels", ""),
    ("scrambled_outputs", "output for it", "should not show its pixels"),
    ("noisy_images", "image with noise", ""),
    ("noisy_outputs", "output for it", "should not show the noise"),
)


@section("tests", "Tests and baselines", TEMPLATE)
def tests(content: Content) -> Mapping[str, Any]:
    """The three tests and the baselines on bars, and what the network made of the test images."""
    perturbation = content.metrics["perturbation"]
    ranges = perturbation_ranges(Network(**content.metrics["network"]))
    shown = [
        (name, perturbation[key], ranges[name], _healthy(*ranges[name]), what)
        for name, key, what in TESTS
    ]
    rows = [row for row in PICTURES if content.data.has(row[0])]
    sprite, columns = "", 0
    if rows:
        pictures = [[picture(one, SIDE) for one in content.data.arrays[key]] for key, *_ in rows]
        columns = len(pictures[0])
        sprite = content.add(Sprite(pictures))
    return {
        "tests": [t for t in shown if t[1] is not None],
        "baselines": list(_baselines(content)),
        "sprite": sprite,
        "columns": columns,
        "names": [(name, expected) for _, name, expected in rows],
        "kinds": BASELINES,
        "least": LITTLE_EXPLAINED,
    }


def _healthy(low: float, high: float) -> str:
    return f"below {high:.2g}" if math.isinf(low) else f"above {low:.2g}"


def _baselines(content: Content) -> list[tuple[str, float, bool]]:
    arrays = content.data.arrays
    known = [
        ("this network", explained(arrays, "mse"), True),
        ("principal components", explained(arrays, "perturbation/projection_mse"), False),
        ("linear decoder", explained(arrays, "perturbation/linear_mse"), False),
        ("mean grey of each image", explained(arrays, "perturbation/grey_mse"), False),
        ("mean training image", 0.0, False),
        ("black image", explained(arrays, "black_mse"), False),
    ]
    if content.data.frozen is not None:
        known.append(("frozen random encoder", content.data.frozen, False))
    finite = [k for k in known if math.isfinite(k[1])]
    return sorted(finite, key=lambda k: -k[1])
