"""A page that compares runs: the same images, and filters paired by what they respond to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cae_cli.report.figures.catalogue import Arrays
from cae_cli.report.page import shell
from cae_cli.report.page.content import environment
from cae_cli.report.page.parts import as_html
from cae_cli.report.page.sprites import Sprite, picture, strip
from cae_cli.report.sections import Part

SIDE, PATCH, IMAGES = 88, 34, 8
MOST_PAIRS, MOST_LAYERS = 12, 8  # that are shown of a layer, and of a network

PICTURES = """\
{% import "parts.html" as parts with context %}
<div class="scroll"><table class="rows"><tbody>
{% for name in names %}{% set row = loop.index0 %}
<tr><th scope="row">{{ name }}</th>{% for i in range(count) %}<td>{{ parts.tile("made", i, row, name ~ ", image " ~ (i + 1)) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
"""
PAIRS = """\
{% import "parts.html" as parts with context %}
<p>Filters of both runs, paired by the correlation of their maps for the same images: a number alone means nothing, since the
order of filters is that of chance. A correlation near 1 is the same filter; near 0, one of them has no counterpart.</p>
{% for layer in layers %}
<h3>{{ layer.name }} <span class="dim small">median correlation {{ number(layer.median) }} of {{ layer.count }} pairs</span></h3>
<div class="scroll"><table class="data"><thead><tr><th scope="col" class="run">{{ first }}</th><th scope="col">excited by</th><th scope="col" class="run">{{ second }}</th><th scope="col">excited by</th><th scope="col" class="n">correlation</th></tr></thead><tbody>
{% for a, b, r in layer.pairs %}<tr><td>filter {{ a }}</td><td>{% if layer.sprite %}{{ parts.tile(layer.sprite, 0, loop.index0, "patches that excite it") }}{% endif %}</td>
<td>filter {{ b }}</td><td>{% if layer.sprite %}{{ parts.tile(layer.sprite, 1, loop.index0, "patches that excite it") }}{% endif %}</td><td class="n">{{ number(r) }}</td></tr>{% endfor %}
</tbody></table></div>
{% endfor %}
"""


@dataclass(frozen=True)
class Compared:
    """A run.

    Attributes:
        name: its id, and what it differs by.
        arrays: of arrays.npz.
        views: of views.npz; {} where there are none.
    """

    name: str
    arrays: Arrays
    views: Arrays


def html(title: str, parts: Sequence[Part], runs: Sequence[Compared]) -> str:
    """The page.

    Args:
        title: of the page.
        parts: the table and the differences as they are shown on the screen.
        runs: that were compared. Pictures need the same example images, pairs of filters two runs.
    """
    sections = [("table", "Comparison", as_html(parts))]
    sprites: list[Sprite] = []
    images = runs[0].arrays.get("example_images")
    same = images is not None and all(
        np.array_equal(images, run.arrays.get("example_images", np.zeros(0))) for run in runs
    )
    if same and images is not None:
        rows = [images[:IMAGES], *(run.arrays["example_outputs"][:IMAGES] for run in runs)]
        with np.errstate(all="ignore"):  # networks that diverged
            made = Sprite([[picture(one, SIDE) for one in own] for own in rows])
        made.name = "made"
        sprites.append(made)
        names = ["image", *(run.name for run in runs)]
        text = environment().from_string(PICTURES).render(names=names, count=len(rows[0]))
        sections.append(("pictures", "The same images", Markup(text)))
        if len(runs) == 2:
            layers = [layer for layer in _layers(runs[0], runs[1], sprites) if layer["pairs"]]
            if layers:
                first, second = (run.name for run in runs)
                text = environment().from_string(PAIRS).render(layers=layers, first=first, second=second)
                sections.append(("filters", "Filters in pairs", Markup(text)))
    return shell(title, sections, sprites=sprites)


def _layers(first: Compared, second: Compared, sprites: list[Sprite]) -> list[dict[str, Any]]:
    names = [k.removeprefix("map/") for k in first.arrays if k.startswith("map/") and k in second.arrays]
    return [_layer(name, first, second, sprites) for name in names[:MOST_LAYERS]]


def _layer(name: str, first: Compared, second: Compared, sprites: list[Sprite]) -> dict[str, Any]:
    maps = [run.arrays[f"map/{name}"] for run in (first, second)]
    layer: dict[str, Any] = {"name": name, "pairs": [], "sprite": "", "median": None, "count": 0}
    if maps[0].shape[:3] != maps[1].shape[:3]:
        return layer
    pairs = paired(maps[0], maps[1])
    layer |= {
        "pairs": pairs[:MOST_PAIRS],
        "count": len(pairs),
        "median": float(np.median([r for *_, r in pairs])) if pairs else None,
    }
    strips = [_strips(run.views, name) for run in (first, second)]
    shown = layer["pairs"]
    if shown and all(strips):
        blank = [np.full_like(next(iter(own.values())), 128) for own in strips]  # less used filters
        sprite = Sprite([[strips[0].get(a, blank[0]), strips[1].get(b, blank[1])] for a, b, _ in shown])
        sprite.name = f"pair{len(sprites)}"
        sprites.append(sprite)
        layer["sprite"] = sprite.name
    return layer


def paired(first: NDArray[np.floating], second: NDArray[np.floating]) -> list[tuple[int, int, float]]:
    """Filters of two layers in pairs, each in one, so that the sum of correlations is largest.

    Args:
        first: (n, h, w, f) maps of the filters of one layer.
        second: (n, h, w, g) maps of the other for the same images.

    Returns:
        min(f, g) pairs with their correlation, the highest first. Maps that are constant have 0.
    """
    from scipy.optimize import linear_sum_assignment

    flat = [np.nan_to_num(m.reshape(-1, m.shape[3]).astype(np.float64)) for m in (first, second)]
    scaled = []
    for values in flat:
        centred = values - values.mean(axis=0)
        norm = np.sqrt(np.square(centred).sum(axis=0))
        scaled.append(centred / np.where(norm > 1e-12, norm, np.inf))
    correlation = scaled[0].T @ scaled[1]
    rows, columns = linear_sum_assignment(-correlation)
    found = [(int(a), int(b), float(correlation[a, b])) for a, b in zip(rows, columns, strict=True)]
    return sorted(found, key=lambda pair: -pair[2])


def _strips(views: Mapping[str, NDArray[Any]], name: str) -> dict[int, NDArray[np.uint8]]:
    """By filter, the patches that excite it most."""
    shown, patches = views.get(f"shown/{name}"), views.get(f"patch/{name}")
    if shown is None or patches is None:
        return {}
    return {
        int(f): strip([picture(one, PATCH) for one in own[:6]])
        for f, own in zip(shown, patches, strict=True)
    }
