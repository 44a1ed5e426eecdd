"""Perturbation tests and baselines: what the network does, beside what simpler models do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

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
        "change with another image's latent code; a decoder that ignores the code has 0",
    ),
    ("pixel copy", "pixel_copy", "contrast copied from scrambled pixels; a network that copies has 1"),
    ("noise gain", "noise_gain", "noise that reaches the output"),
)

TEMPLATE = """\
<div class="grid2">
<div><h3>Perturbation tests</h3>
<table class="data"><tbody>
{% for name, value, healthy, what in tests %}
<tr><th scope="row">{{ name }}</th><td class="n">{{ number(value) }}</td><td class="m">{{ meter(value, -0.2, 1.2, healthy=healthy) }}</td><td class="small dim">{{ what }}</td></tr>
{% endfor %}
</tbody></table></div>
<div><h3>Explained variance, beside simpler models</h3>
<table class="data"><tbody>
{% for name, value, own in baselines %}
<tr><th scope="row">{% if own %}<b>{{ name }}</b>{% else %}{{ name }}{% endif %}</th><td class="n">{{ share(value) }}</td><td class="m">{{ meter(value, -0.5, 1, threshold=0) }}</td></tr>
{% endfor %}
</tbody></table>
<p class="small dim">0 is the mean training image (dashed line), 100 % is perfect.</p></div>
</div>
{% if sprite %}
<h3>The tests as pictures</h3>
<div class="scroll"><table class="filter"><tbody>
{% for name in names %}{% set row = loop.index0 %}
<tr><th scope="row">{{ name }}</th><td>{% for i in range(columns) %}{{ parts.tile(sprite, i, row, name ~ ", image " ~ (i + 1)) }} {% endfor %}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
"""
PICTURES = (
    ("example_images", "image"),
    ("example_outputs", "output"),
    ("shuffled_outputs", "with the next image's latent code"),
    ("scrambled_images", "scrambled image"),
    ("scrambled_outputs", "its output"),
    ("noisy_images", "noisy image"),
    ("noisy_outputs", "its output"),
)


@section("tests", "Tests and baselines", TEMPLATE)
def tests(content: Content) -> Mapping[str, Any]:
    """The three tests and the baselines on bars, and what the network made of the test images."""
    perturbation = content.metrics["perturbation"]
    ranges = perturbation_ranges(Network(**content.metrics["network"]))
    shown = [(name, perturbation[key], ranges[name], what) for name, key, what in TESTS]
    rows = [(key, name) for key, name in PICTURES if content.data.has(key)]
    sprite, columns = "", 0
    if rows:
        pictures = [[picture(one, SIDE) for one in content.data.arrays[key]] for key, _ in rows]
        columns = len(pictures[0])
        sprite = content.add(Sprite(pictures))
    return {
        "tests": [t for t in shown if t[1] is not None],
        "baselines": list(_baselines(content)),
        "sprite": sprite,
        "columns": columns,
        "names": [name for _, name in rows],
    }


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
