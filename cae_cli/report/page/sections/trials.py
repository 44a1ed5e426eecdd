"""Fixes that were tried in short trainings: what each of them brought, and the code to paste."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cae_cli.report import trials as tried
from cae_cli.report.figures.pictures import after_trials
from cae_cli.report.page.content import Content, section
from cae_cli.report.page.parts import as_html
from cae_cli.report.page.sprites import Sprite, picture

SIDE = 88

TEMPLATE = """\
<p>This model, built anew and trained for {{ "{:,}".format(steps) }} steps with a single change, beside the unchanged one and random changes:
the {{ parts.word("explained variance") }} of {{ parts.word("held-out images") }} with each seed, and what it gains.</p>
{{ table }}
{% for trial in shown %}
<h3>{{ trial.name }}</h3>
<p>{{ trial.sentence }}</p>
{% if trial.before %}<p class="small dim">In place of</p>{{ parts.copy(trial.before) }}{% endif %}
{% if trial.after %}{% if trial.before %}<p class="small dim">write</p>{% endif %}{{ parts.copy(trial.after) }}{% endif %}
{% endfor %}
{% if rows %}
<h3>The same images after each training</h3>
<div class="scroll"><table class="rows"><tbody>
{% for name in rows %}{% set row = loop.index0 %}
<tr><th scope="row">{{ name }}</th>{% for i in range(count) %}<td>{{ parts.tile(sprite, i, row, name ~ ", image " ~ (i + 1)) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endif %}
"""


@section("trials", "Fixes tried", TEMPLATE)
def trials(content: Content) -> Mapping[str, Any] | None:
    """The table of the summary, the best change as code, and pictures."""
    found = content.trials
    if found is None:
        return None
    rows = after_trials(content.data)
    pictures = [[picture(image, SIDE) for image in images] for images in rows.values()]
    return {
        "steps": found.steps,
        "table": as_html(tried.measured(found, verbose=True)),
        "shown": (found.alike or found.helping)[:1],
        "rows": list(rows),
        "count": min(map(len, pictures), default=0),
        "sprite": content.add(Sprite(pictures) if pictures else None),
    }
