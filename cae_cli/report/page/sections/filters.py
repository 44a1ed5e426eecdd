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
from cae_cli.report.figures.tiles import Colours
from cae_cli.report.page.content import Content, relative_change, section
from cae_cli.report.page.sprites import Pixels, Sprite, coloured, enlarged, picture, strip

KERNEL, PATCH, MAP = 32, 34, 38  # pixels of a kernel's slice, of a patch, of a map
SLICES = 4  # of a kernel with many inputs
IMAGES = 8  # whose maps are shown
BROAD = 0.1  # selectivity below which no angle is preferred
WORKING = 1e-3  # response below which a filter does not respond

TEMPLATE = """\
<p>Each card is a filter: its weights; the nine patches of held-out images that excite it most, cut out as
large as what the filter sees; its response to the same {{ images }} images; and how it responds to sinusoidal
gratings. The row below is <b>the same network before training</b>{% if not known %} (weights drawn anew){% endif %}: what looks alike there was not
learned. Selectivity describes a filter and is no merit.</p>
{% for layer in layers %}
<div class="layer" id="{{ layer.anchor }}">
<h3>{{ layer.name }} <span class="dim small">{{ layer.summary }}</span></h3>
<div class="tools">
{% if layer.filters|length > 1 %}<label class="js small">sort by <select data-sorts="list-{{ layer.anchor }}"><option value="spread">use (map variance)</option><option value="change">weight change</option><option value="harm">error without it</option><option value="filter">number</option></select></label>{% endif %}
{% if layer.inactive %}<span class="small warning">! {{ layer.inactive }} of {{ layer.count }} filters do not respond</span>{% endif %}
{% if layer.filters|length > 8 %}<label class="small"><input type="checkbox" class="all"> show all {{ layer.filters|length }}</label>{% endif %}
{% if layer.shown < layer.count %}<span class="small dim">the {{ layer.shown }} most used of {{ layer.count }} are shown</span>{% endif %}
</div>
<div class="filters" id="list-{{ layer.anchor }}">
{% for f in layer.filters %}
<article class="card filter" id="{{ layer.anchor }}/{{ f.number }}" data-filter="{{ f.number }}" data-spread="{{ f.spread }}" data-change="{{ f.change_value }}" data-harm="{{ f.harm_value }}">
<header><h4><a href="#{{ layer.anchor }}/{{ f.number }}">filter {{ f.number }}</a></h4>
<span class="small">{{ f.words }}</span></header>
<p class="small dim" style="margin:.15rem 0">{{ f.facts }}</p>
<div class="scroll"><table>
<tr><th scope="row">trained</th><td>{{ parts.tile(layer.kernels, f.place, 0, "weights of filter " ~ f.number, by_epoch=true) }}</td>
{% if layer.patches %}<td>{{ parts.tile(layer.patches, 0, f.place, "the patches that excite filter " ~ f.number ~ " most") }}</td>{% endif %}</tr>
{% if layer.untrained %}<tr><th scope="row">untrained</th><td>{% if layer.initial %}{{ parts.tile(layer.initial, f.place, 0, "weights of filter " ~ f.number ~ " before training") }}{% endif %}</td>
<td>{{ parts.tile(layer.untrained, 0, f.place, "the patches that excited filter " ~ f.number ~ " most before training") }}</td></tr>{% endif %}
</table>
{% if layer.maps %}<table>
<tr><th scope="row">maps</th><td>{{ parts.tile(layer.maps, 0, f.place, "maps of filter " ~ f.number) }}</td></tr>
{% if layer.untrained_maps %}<tr><th scope="row">untrained</th><td>{{ parts.tile(layer.untrained_maps, 0, f.place, "maps of filter " ~ f.number ~ " before training") }}</td></tr>{% endif %}
</table>{% endif %}</div>
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
    return {"layers": layers, "images": IMAGES, "known": known}


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
    sees = "" if field is None else f", sees {field[0]} x {field[1]} pixels"
    kh, kw, inputs, count = kernel.shape
    before = initial if initial is not None else data.arrays.get(f"reinitialized/{layer}")
    colours = Colours([kernel], signed=True)
    epochs = [snapshot.get(f"kernel/{layer}") for _, snapshot in sorted(data.snapshots.items())]
    own = [k for k in epochs if k is not None and k.shape == kernel.shape] or [kernel]
    if len(own) != len(content.epochs):
        own = [kernel] * len(content.epochs)
    slices = [_strongest(kernel[..., f]) for f in shown]
    return {
        "name": layer,
        "anchor": content.anchors[layer],
        "summary": f"{counted(count, 'filter')} of {kh} x {kw} x {inputs}{sees}",
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
                "words": _words(content, layer, place, inactive=bool(inactive[f])),
            }
            for place, f in enumerate(shown)
        ],
    }


def _finite(value: float) -> float:
    return float(value) if math.isfinite(value) else -1.0


def _facts(use: float, change: float, harm: float) -> str:
    facts = [f"varies {use:.0%} as much as the strongest"]
    if math.isfinite(change):
        facts.append(f"weights changed by {change:.0%}")
    if math.isfinite(harm):
        lost = f"{harm:.1%}" if harm >= PRUNABLE else "almost nothing"
        facts.append(f"without it {lost} of what is explained is lost")
    return "; ".join(facts)


def _words(content: Content, layer: str, place: int, *, inactive: bool) -> str:
    """What the filter responds to, in words, beside the untrained one."""
    table = content.view(f"tuning/{layer}")
    if table is None:
        return "does not respond" if inactive else ""
    before = content.view(f"untrained_tuning/{layer}")
    longest = max(content.training["network"]["image_shape"][:2]) / 2.5
    text = "does not respond to these images" if inactive else _tuned(table[place], longest)
    if before is not None:
        text += f" (untrained: {_tuned(before[place], longest)})"
    return text


def _tuned(row: NDArray[np.floating], longest: float) -> str:
    angle, period, selectivity, response = (float(v) for v in row)
    if not math.isfinite(angle) or response < WORKING:
        return "no response to gratings"
    if selectivity < BROAD:
        what = "areas of brightness" if period >= longest else "spots and edges at any angle"
    else:
        what = f"edges at {angle:.0f}°"
    return f"{what}, period {period:.1f} pixels, selectivity {selectivity:.2f}"


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
