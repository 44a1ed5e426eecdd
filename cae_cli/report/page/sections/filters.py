"""What each filter responds to, layer by layer, beside the untrained network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import counted
from cae_cli.metrics.collect import PRUNABLE
from cae_cli.metrics.maps import map_health
from cae_cli.metrics.sample import Sample
from cae_cli.report.figures.tiles import Colours
from cae_cli.report.page.content import Content, relative_change, section
from cae_cli.report.page.sprites import Pixels, Sprite, coloured, enlarged, picture, strip

KERNEL, PATCH, MAP = 32, 34, 38  # pixels of a kernel's slice, of a patch, of a map
SLICES = 4  # of a kernel with many inputs
IMAGES = 8  # whose maps are shown
BROAD = 0.1  # selectivity below which no angle is preferred
WORKING = 1e-3  # response below which a filter does not respond

TEMPLATE = """\
<p>Each card is a {{ parts.word("filter") }} of a convolution{% if compared %}, first as trained, and below as it was
<b>before training</b>{% if not known %} (with weights drawn anew){% endif %}. What looks alike in both rows was not learned: untrained
filters show edges, too{% endif %}.</p>
{% if left_out %}<p>Not measured, because the network is large and its training was short: {{ left_out|join(", ") }}.</p>{% endif %}
<ul class="cards">
<li><b>weights</b>: red above 0, blue below, white 0; one scale for the layer{% if slices %}; those for the {{ slices }} strongest of the inputs, where there are more{% endif %}{% if content.epochs|length > 1 %}<span class="js">; the slider at the
top of the page shows them after other epochs</span>{% endif %}</li>
{% if patches %}<li><b>patches</b>: the nine pieces of {{ parts.word("held-out images") }} that excite the filter most, the strongest first; of the
size that it sees, black beyond the edge of the image</li>{% endif %}
{% if maps %}<li><b>maps</b>: its response to the same {{ images }} images, from the weakest (dark) to the strongest (yellow); each row has a scale of its own</li>{% endif %}
{% if tuned %}<li>the words beside its number: the stripes that excite it most ({{ parts.word("grating", "gratings") }}), their angle and period, and
{{ parts.word("selectivity") }} from 0 (all angles alike) to 1 (a single one)</li>{% endif %}
</ul>
{% if layers|length > 1 %}<p class="small">Layers: {% for layer in layers %}<a href="#{{ layer.anchor }}">{{ layer.name }}</a>{{ ", " if not loop.last }}{% endfor %}</p>{% endif %}
{% for layer in layers %}
<div class="layer" id="{{ layer.anchor }}">
<h3>{{ layer.name }} <span class="dim small">{{ layer.summary }}</span></h3>
{% if layer.change is not none or layer.p is not none %}<p class="small dim">{% if layer.change is not none %}Its weights changed by {{ share(layer.change, 0) }} (0%: never trained). {% endif %}
{% if layer.p is not none %}Order of the weights beside 99 untrained draws: {{ parts.word("p") }} = {{ number(layer.p) }}{% if layer.p <= 0.05 %}, not by chance{% endif %}.{% endif %}</p>{% endif %}
<div class="tools">
{% if layer.filters|length > 1 %}<label class="js small">sort by <select data-sorts="list-{{ layer.anchor }}"><option value="spread">use (variation of the maps)</option><option value="change">weight change</option><option value="harm">loss without it</option><option value="filter">number</option></select></label>{% endif %}
{% if layer.inactive %}<span class="small warning">! {{ layer.inactive }} of {{ layer.count }} filters {{ "does" if layer.inactive == 1 else "do" }} not respond ({{ parts.word("inactive") }})</span>{% endif %}
{% if layer.filters|length > 8 %}<label class="small"><input type="checkbox" class="all"> show all {{ layer.filters|length }}</label>{% endif %}
{% if layer.shown < layer.count %}<span class="small dim">the {{ layer.shown }} most used of {{ layer.count }} are shown</span>{% endif %}
</div>
<div class="filters" id="list-{{ layer.anchor }}">
{% for f in layer.filters %}
<article class="card filter" id="{{ layer.anchor }}/{{ f.number }}" data-filter="{{ f.number }}" data-spread="{{ f.spread }}" data-change="{{ f.change_value }}" data-harm="{{ f.harm_value }}">
<header><h4><a href="#{{ layer.anchor }}/{{ f.number }}">filter {{ f.number }}</a></h4>
<span class="small">{{ f.words }}</span></header>
{% if f.before %}<p class="small" style="margin:0">before training: {{ f.before }}</p>{% endif %}
<p class="small dim" style="margin:.1rem 0">{{ f.facts }}</p>
<div class="scroll"><table>
<thead><tr><td></td><th scope="col">weights</th>{% if layer.patches %}<th scope="col">patches that excite it most</th>{% endif %}</tr></thead>
<tbody><tr><th scope="row">trained</th><td>{{ parts.tile(layer.kernels, f.place, 0, "weights of filter " ~ f.number, by_epoch=true) }}</td>
{% if layer.patches %}<td>{{ parts.tile(layer.patches, 0, f.place, "the patches that excite filter " ~ f.number ~ " most") }}</td>{% endif %}</tr>
{% if layer.untrained %}<tr><th scope="row">before</th><td>{% if layer.initial %}{{ parts.tile(layer.initial, f.place, 0, "weights of filter " ~ f.number ~ " before training") }}{% endif %}</td>
<td>{{ parts.tile(layer.untrained, 0, f.place, "the patches that excited filter " ~ f.number ~ " most before training") }}</td></tr>{% endif %}
</tbody></table>
{% if layer.maps %}<table>
<thead><tr><td></td><th scope="col">maps of {{ images }} images</th></tr></thead>
<tbody><tr><th scope="row">trained</th><td>{{ parts.tile(layer.maps, 0, f.place, "maps of filter " ~ f.number) }}</td></tr>
{% if layer.untrained_maps %}<tr><th scope="row">before</th><td>{{ parts.tile(layer.untrained_maps, 0, f.place, "maps of filter " ~ f.number ~ " before training") }}</td></tr>{% endif %}
</tbody></table>{% endif %}</div>
</article>
{% endfor %}
</div></div>
{% endfor %}
"""


@section("filters", "Filters", TEMPLATE)
def filters(content: Content) -> Mapping[str, Any] | None:
    """A card for each filter, those whose maps vary most first."""
    layers = [
        _layer(content, layer)
        for layer in content.data.layers
        if f"map_std/{layer}" in content.data.arrays
    ]
    if not layers:
        return None
    known = any(content.data.has(f"initial_kernel/{layer}") for layer in content.data.layers)
    return {
        "layers": layers,
        "images": IMAGES,
        "known": known,
        "slices": SLICES if any(layer["inputs"] > SLICES for layer in layers) else 0,
        "patches": any(layer["patches"] for layer in layers),
        "compared": any(layer["untrained"] for layer in layers),
        "left_out": Sample(**sample).left_out if (sample := content.metrics.get("sample")) else [],
        "maps": any(layer["maps"] for layer in layers),
        "tuned": any(key.startswith("tuning/") for key in content.views),
    }


def _layer(content: Content, layer: str) -> dict[str, Any]:
    data = content.data
    kernel = data.arrays[f"kernel/{layer}"]
    shown = content.view(f"shown/{layer}")
    shown = data.most_used(layer)[:32] if shown is None else shown
    spread, image_spread = data.arrays[f"map_std/{layer}"], data.arrays[f"map_image_std/{layer}"]
    inactive = map_health(spread, image_spread).inactive
    initial = data.arrays.get(f"initial_kernel/{layer}")
    change = relative_change(kernel, initial) if initial is not None else np.full(len(spread), np.nan)
    harm = data.arrays.get(f"utility/{layer}", np.full(len(spread), np.nan))
    field = content.view(f"field/{layer}")
    sees = "" if field is None else f"; each sees {field[0]} x {field[1]} pixels of the image"
    kh, kw, inputs, count = kernel.shape
    before = initial if initial is not None else data.arrays.get(f"reinitialized/{layer}")
    colours = Colours([kernel], signed=True)
    epochs = [snapshot.get(f"kernel/{layer}") for _, snapshot in sorted(data.snapshots.items())]
    own = [k for k in epochs if k is not None and k.shape == kernel.shape] or [kernel]
    if len(own) != len(content.epochs):
        own = [kernel] * len(content.epochs)
    measured: Mapping[str, Any] = next((m for m in content.metrics["layers"] if m["name"] == layer), {})
    slices = [_strongest(kernel[..., f]) for f in shown]
    return {
        "name": layer,
        "anchor": content.anchors[layer],
        "summary": f"{counted(count, 'filter')} of {kh} x {kw} weights for {counted(inputs, 'input')}{sees}",
        "inputs": inputs,
        "change": measured.get("weight_change"),
        "p": measured.get("p_value"),
        "count": count,
        "shown": len(shown),
        "inactive": int(inactive.sum()),
        "kernels": content.add(Sprite([_kernels(k, shown, slices, colours) for k in own])),
        "initial": content.add(
            None
            if before is None
            else Sprite([_kernels(before, shown, slices, Colours([before], signed=True))]),
        ),
        "patches": content.add(_patches(content.view(f"patch/{layer}"))),
        "untrained": content.add(_patches(content.view(f"untrained_patch/{layer}"))),
        "maps": content.add(_maps(content.view(f"map/{layer}"))),
        "untrained_maps": content.add(_maps(content.view(f"untrained_map/{layer}"))),
        "filters": [
            {
                "number": int(f),
                "place": place,
                "spread": f"{_finite(spread[f]):.6g}",
                "change_value": f"{_finite(change[f]):.6g}",
                "harm_value": f"{_finite(harm[f]):.6g}",
                "facts": _facts(
                    float(spread[f] / max(spread.max(), 1e-30)), float(change[f]), float(harm[f])
                ),
                "words": "does not respond to these images"
                if inactive[f]
                else _tuned(content, f"tuning/{layer}", place),
                "before": _tuned(content, f"untrained_tuning/{layer}", place),
            }
            for place, f in enumerate(shown)
        ],
    }


def _finite(value: float) -> float:
    return float(value) if math.isfinite(value) else -1.0


def _facts(use: float, change: float, harm: float) -> str:
    facts = [f"use: {use:.0%} of the layer's most used"]
    if math.isfinite(change):
        facts.append(f"weights changed by {change:.0%}")
    if harm >= 1:
        facts.append("without it the output is worse than the mean image")
    elif math.isfinite(harm):
        lost = f"{harm:.1%}" if harm >= PRUNABLE else "almost nothing"
        facts.append(f"without it {lost} of the explained variance is lost")
    return "; ".join(facts)


def _tuned(content: Content, name: str, place: int) -> str:
    """What a filter responds to, in words; "" where that was not measured."""
    table = content.view(name)
    if table is None:
        return ""
    angle, period, selectivity, response = (float(v) for v in table[place])
    if not math.isfinite(angle) or response < WORKING:
        return "no response to gratings"
    longest = max(content.training["network"]["image_shape"][:2]) / 2.5
    if selectivity >= BROAD:
        what = f"edges at {angle:.0f}°"
    else:
        what = "broad light and dark areas" if period >= longest else "spots and edges at any angle"
    return f"{what} (period {period:.1f} pixels, selectivity {selectivity:.2f})"


def _strongest(kernel: NDArray[np.floating]) -> NDArray[np.intp]:
    """The input channels (at most `SLICES`) with the largest weights of a filter (kh, kw, inputs)."""
    return np.sort(np.argsort(-np.square(kernel).sum(axis=(0, 1)), kind="stable")[:SLICES])


def _kernels(
    kernel: NDArray[np.floating],
    shown: NDArray[np.integer],
    slices: list[NDArray[np.intp]],
    colours: Colours,
) -> list[Pixels]:
    """The weights of each filter: in colour for three input channels, else its strongest slices."""
    if kernel.shape[2] == 3:
        limit = float(np.nanmax(np.abs(kernel))) or 1.0
        return [enlarged(_colours(kernel[..., f] / limit), 2 * KERNEL) for f in shown]
    return [
        strip(
            coloured(kernel[:, :, own, f].transpose(2, 0, 1), colours, KERNEL),
            min(SLICES, kernel.shape[2]),
        )
        for f, own in zip(shown, slices, strict=True)
    ]


def _colours(weights: NDArray[np.floating]) -> Pixels:
    """Weights from -1 to 1 of three input channels as a colour, 0 as grey."""
    shown = np.clip(np.nan_to_num(weights), -1, 1) * 127.5 + 127.5
    return np.asarray(shown, np.uint8)


def _patches(patches: NDArray[np.uint8] | None) -> Sprite | None:
    """A strip of nine patches for each filter."""
    if patches is None:
        return None
    return Sprite([[strip([picture(one, PATCH) for one in own])] for own in patches])


def _maps(maps: NDArray[np.floating] | None) -> Sprite | None:
    """A strip of maps (images, h, w, filters) for each filter, on a scale of its own."""
    if maps is None:
        return None
    rows = []
    for f in range(maps.shape[3]):
        own = maps[..., f]
        rows.append([strip(coloured(own, Colours([own]), MAP))])
    return Sprite(rows)
