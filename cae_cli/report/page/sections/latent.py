"""What the latent code holds: what its channels draw, where images lie in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cae_cli.report.figures.tiles import Colours
from cae_cli.report.page import charts
from cae_cli.report.page.content import Content, section
from cae_cli.report.page.sprites import Sprite, coloured, data_url, picture

ATOM, STEP, THUMBNAIL = 72, 60, 28
REACH = 2  # standard deviations along a direction
MOST_ATOMS = 32  # channels that the probe looks at
PLANE = (560, 380)  # pixels of the map with pictures

DRAWN = 0.01  # change of an output that is seen, of 1 from black to white

TEMPLATE = """\
<p>{{ holds }}</p>
{% if channels %}
<h3>What each {{ unit }} draws</h3>
<p>The change of the output when {% if dense %}one value of the latent code goes from two standard deviations below its mean
to two above{% else %}one channel of the mean latent code is raised in the middle by two standard deviations{% endif %}: red is
brighter, blue darker, and the number is the largest change (1 is from black to white).{% if before %} Below it, the same before training, on a scale of
its own.{% endif %} What draws nothing is not used by the decoder.</p>
<div class="pictures">
{% for c in channels %}
<figure>{{ parts.tile(atoms, loop.index0, 0, "what " ~ unit ~ " " ~ c.number ~ " draws") }}
{% if before and c.before is not none %}<div style="margin-top:3px">{{ parts.tile(before, c.before, 0, "what " ~ unit ~ " " ~ c.number ~ " drew before training") }}</div>{% endif %}
<figcaption>{{ unit }} {{ c.number }}<br>{{ c.peak }}</figcaption></figure>
{% endfor %}
</div>
{% if rest %}<p class="small">{{ rest }}</p>{% endif %}
{% endif %}
{% if traversal %}
<h3>Along the main directions</h3>
<p>Outputs along the directions in which latent codes vary most ({{ parts.word("principal components") }} of the codes), from two standard deviations below the mean code
to two above. Each direction should change the picture in a way of its own.</p>
<div class="scroll"><table class="rows">
<thead><tr><td></td>{% for name in steps %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for part in shares %}
{% set row = loop.index0 %}
<tr><th scope="row">direction {{ loop.index }}<br>{{ share(part) }} of the variance</th>{% for name in steps %}<td>{{ parts.tile(traversal, loop.index0, row, "output at step " ~ loop.index) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if plane %}
<h3>Where images lie</h3>
<p>Latent codes of {{ count }} held-out images in the first two of these directions ({{ share(code_share) }} of the variance). Images that look
alike should lie side by side.</p>
<div class="columns">
<figure class="plot"><img src="{{ plane }}" width="{{ size[0] }}" height="{{ size[1] }}" style="max-width:100%;height:auto" alt="images at the place of their latent code"><figcaption>Images at their places, as far as there is room.</figcaption></figure>
{{ points }}
</div>
{% endif %}
{% if near %}
<h3>Nearest neighbours</h3>
<p>The first held-out images, and five others with the nearest latent codes, the nearest first. They should look alike.</p>
<div class="pictures">
{% for own in neighbours %}{% set row = loop.index0 %}
<figure>{{ parts.tile(near, 0, row, "image " ~ (row + 1)) }} <span class="dim">→</span> {% for i in range(own) %}{{ parts.tile(near, i + 1, row, "neighbour " ~ (i + 1)) }} {% endfor %}</figure>
{% endfor %}
</div>
{% endif %}
"""


@section("latent", "Latent code", TEMPLATE)
def latent(content: Content) -> Mapping[str, Any] | None:
    """Atoms, traversals, the plane of the codes and nearest neighbours."""
    thumbnails, code = content.view("thumbnail"), content.view("code")
    atoms, before = content.view("atom"), content.view("untrained_atom")
    shape = content.training["network"]["latent_shape"]
    if code is None or thumbnails is None:
        return None
    traversal = content.view("traversal")
    neighbours = content.view("neighbour")
    near = None
    if neighbours is not None and len(neighbours):
        near = Sprite([
            [picture(thumbnails[i], 2 * THUMBNAIL) for i in (row, *own)]
            for row, own in enumerate(neighbours)
        ])  # fmt: skip
    return {
        "atoms": content.add(_atoms(atoms)),
        "before": content.add(_atoms(before)),
        "holds": _holds(content),
        "unit": "value" if len(shape) == 1 else "channel",
        "channels": [] if atoms is None else list(_channels(content, atoms)),
        "rest": "" if atoms is None else _rest(content.views["atom_channel"].tolist(), int(shape[-1])),
        "dense": len(shape) == 1,
        "traversal": content.add(None if traversal is None else Sprite(
            [[picture(one, STEP) for one in row] for row in traversal]
        )),
        "shares": [] if traversal is None else content.views["traversal_share"].tolist(),
        "steps": [] if traversal is None else _steps(traversal.shape[1]),
        "plane": Markup(data_url(plane(code, thumbnails))),
        "size": PLANE,
        "points": charts.points(
            "latent codes by label", code, content.view("code_label"), ("direction 1", "direction 2")
        ),
        "count": len(code),
        "code_share": float(content.views["code_share"].sum()),
        "near": content.add(near),
        "neighbours": [] if neighbours is None else [len(own) for own in neighbours],
    }  # fmt: skip


def _holds(content: Content) -> str:
    """What the latent code is."""
    network = content.training["network"]
    image, latent = (math.prod(network[f"{what}_shape"]) for what in ("image", "latent"))
    layer = network.get("latent_layer")
    text = f"An image of {image:,} values becomes a latent code of {latent:,}"
    text += f" (layer {layer})" if layer else ""
    if content.metrics["network"]["skips"]:
        return f"{text}; skip connections bring more to the decoder."
    return f"{text}, which is all that the decoder gets of it."


def _channels(content: Content, atoms: NDArray[np.floating]) -> Iterator[dict[str, Any]]:
    """Each channel, what it draws at most, and its place among the pictures before training."""
    before = content.view("untrained_atom_channel")
    places = {} if before is None else {int(c): i for i, c in enumerate(before)}
    for channel, atom in zip(content.views["atom_channel"], atoms.mean(axis=3), strict=True):
        peak = float(atom.flat[np.abs(atom).argmax()])
        yield {
            "number": int(channel),
            "before": places.get(int(channel)),
            "peak": f"{peak:+.2f}" if abs(peak) >= DRAWN else "draws nothing",
        }


def _rest(channels: list[int], count: int) -> str:
    """What is said of the channels that are not shown."""
    missing = [str(c) for c in range(count) if c not in channels]
    if len(channels) >= MOST_ATOMS:
        return f"The {len(channels)} that vary most of {count} are shown." if missing else ""
    return (
        f"Without a picture, because the same for every image: {', '.join(missing)}." if missing else ""
    )


def _steps(count: int) -> list[str]:
    """Headings of the outputs along a direction."""
    return [f"{place:+.1f}" if place else "mean" for place in np.linspace(-REACH, REACH, count)]


def _atoms(atoms: NDArray[np.floating] | None) -> Sprite | None:
    if atoms is None or not len(atoms):
        return None
    values = atoms.mean(axis=3)
    return Sprite([coloured(values, Colours([values], signed=True), ATOM)])


def plane(code: NDArray[np.floating], thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Thumbnails at the places of their codes (m, 2), those that fit without overlapping; RGBA."""
    width, height = PLANE
    pictures = [picture(one, THUMBNAIL) for one in thumbnails]
    h, w = pictures[0].shape[:2]
    canvas = np.zeros((height, width, 4), np.uint8)
    low, high = code.min(axis=0), code.max(axis=0)
    span = np.where(high > low, high - low, 1)
    places = ((code - low) / span * [max(0, width - w), max(0, height - h)]).astype(int)
    for (x, y), one in zip(places, pictures, strict=True):
        top = height - h - y
        spot = canvas[top : top + h, x : x + w]
        if spot.shape[:2] == (h, w) and not spot[..., 3].any():
            spot[..., :3], spot[..., 3] = one, 255
    return canvas
