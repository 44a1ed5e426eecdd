"""What the latent code holds: what its channels draw, where images lie in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cae_cli.report.figures.tiles import Colours
from cae_cli.report.page import charts
from cae_cli.report.page.content import Content, section
from cae_cli.report.page.sprites import Sprite, coloured, data_url, picture

ATOM, STEP, THUMBNAIL = 72, 60, 28
PLANE = (560, 380)  # pixels of the map with pictures

TEMPLATE = """\
{% if atoms %}
<h3>What each channel draws</h3>
<p>{% if dense %}The change of the output when one value of the latent code goes from two standard deviations below its mean
to two above.{% else %}The change of the output when one channel of the mean latent code is raised in the middle by two standard deviations.{% endif %} Red is
brighter, blue darker. A channel that draws nothing is not used by the decoder.</p>
<div class="pictures">
{% for channel in channels %}
<figure>{{ parts.tile(atoms, loop.index0, 0, "what channel " ~ channel ~ " draws") }}<figcaption>channel {{ channel }}</figcaption></figure>
{% endfor %}
</div>
{% if before %}<p class="small dim">The same before training, on a scale of its own:</p>
<div class="pictures">{% for channel in channels_before %}{{ parts.tile(before, loop.index0, 0, "what channel " ~ channel ~ " drew before training") }}{% endfor %}</div>{% endif %}
{% endif %}
{% if traversal %}
<h3>Along the main directions</h3>
<p>Outputs for latent codes from two standard deviations below the mean code to two above, along the directions in which codes vary most.</p>
<div class="scroll"><table class="filter"><tbody>
{% for part in shares %}
{% set row = loop.index0 %}
<tr><th scope="row">direction {{ loop.index }}<br>{{ share(part) }} of the variance</th><td>{% for i in range(steps) %}{{ parts.tile(traversal, i, row, "output at step " ~ (i + 1)) }} {% endfor %}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if plane %}
<h3>Where images lie</h3>
<p>Latent codes of {{ count }} held-out images in their first two principal directions ({{ share(code_share) }} of the variance).</p>
<div class="columns">
<figure class="plot"><img src="{{ plane }}" width="{{ size[0] }}" height="{{ size[1] }}" style="max-width:100%;height:auto" alt="images at the place of their latent code"><figcaption>Images at their places, as far as there is room.</figcaption></figure>
{{ points }}
</div>
{% endif %}
{% if near %}
<h3>Nearest neighbours</h3>
<p>Held-out images, and five others with the nearest latent codes.</p>
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
        "channels": [] if atoms is None else content.views["atom_channel"].tolist(),
        "channels_before": [] if before is None else content.views["untrained_atom_channel"].tolist(),
        "dense": len(content.training["network"]["latent_shape"]) == 1,
        "traversal": content.add(None if traversal is None else Sprite(
            [[picture(one, STEP) for one in row] for row in traversal]
        )),
        "shares": [] if traversal is None else content.views["traversal_share"].tolist(),
        "steps": 0 if traversal is None else traversal.shape[1],
        "plane": Markup(data_url(plane(code, thumbnails))),
        "size": PLANE,
        "points": charts.points("latent codes by label", code, content.view("code_label")),
        "count": len(code),
        "code_share": float(content.views["code_share"].sum()),
        "near": content.add(near),
        "neighbours": [] if neighbours is None else [len(own) for own in neighbours],
    }  # fmt: skip


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
