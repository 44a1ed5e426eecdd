"""report.html of a treatment: the run before, after the fix, and after a random change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from cae_cli.report.figures.treatment import Panel
from cae_cli.report.page import shell
from cae_cli.report.page.content import environment
from cae_cli.report.page.parts import as_html
from cae_cli.report.page.sprites import Sprite, picture
from cae_cli.report.sections import Part
from cae_cli.system.guarded import GuardedPath

SIDE, IMAGES = 96, 8

PICTURES = """\
{% import "parts.html" as parts with context %}
<p>The same {{ count }} held-out images, and what each training makes of them.</p>
<div class="scroll"><table class="rows"><tbody>
<tr><th scope="row">image</th>{% for i in range(count) %}<td>{{ parts.tile("made", i, 0, "image " ~ (i + 1)) }}</td>{% endfor %}</tr>
{% for title, verdict, healthy in rows %}{% set row = loop.index %}
<tr><th scope="row"><b>{{ title }}</b><br><span class="{{ "fine" if healthy else "error" }}">{{ "✓ healthy" if healthy else "✗ " ~ verdict }}</span></th>
{% for i in range(count) %}<td>{{ parts.tile("made", i, row, title ~ ", image " ~ (i + 1)) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% if rows|length > 1 %}
<p class="small"><label class="js">Left of the cut: before; right of it: {{ rows[1][0] }} <input type="range" min="0" max="100" value="50" data-wipe="wipes"></label></p>
<div class="pictures" id="wipes">{% for i in range(count) %}<div class="wipe">{{ parts.tile("made", i, 1, "before, image " ~ (i + 1)) }}{{ parts.tile("made", i, 2, "after, image " ~ (i + 1), more="over") }}</div>{% endfor %}</div>
{% endif %}
"""


def write(
    path: GuardedPath,
    title: str,
    parts: Sequence[Part],
    panels: Sequence[Panel],
    content: Mapping[str, Any],
) -> None:
    """Writes the page.

    Args:
        path: of the file.
        title: the treatment's.
        parts: the table and the outcome as they are shown on the screen.
        panels: the runs, the one before first; those without arrays are left out.
        content: treatment.json, for machines.
    """
    shown = [p for p in panels if p.arrays is not None and "example_outputs" in p.arrays]
    sections = [("outcome", "Outcome", as_html(parts))]
    sprites = []
    if shown:
        arrays = [p.arrays for p in shown if p.arrays is not None]
        images = arrays[0]["example_images"][:IMAGES]
        outputs = [own["example_outputs"][: len(images)] for own in arrays]
        with np.errstate(all="ignore"):  # networks that diverged
            sprites = [Sprite([[picture(one, SIDE) for one in own] for own in (images, *outputs)])]
        sprites[0].name = "made"
        rows = [(p.title, p.verdict, p.healthy) for p in shown]
        text = environment().from_string(PICTURES).render(rows=rows, count=len(images))
        sections.append(("pictures", "Before, after and control", Markup(text)))
    page = shell(title, sections, sprites=sprites, download=("treatment.json", content))
    with path.atomic() as temporary:
        temporary.write_text(page, encoding="utf-8")
