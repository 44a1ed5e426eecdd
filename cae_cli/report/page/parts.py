"""Plain sections of a report, such as the leaderboard of a sweep, as parts of a page."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from cae_cli.report.numbers import first_number
from cae_cli.report.page.content import environment
from cae_cli.report.sections import Column, Command, Line, Part, Section, Table

TEMPLATE = """\
{% import "parts.html" as parts with context %}
{% for kind, one in items %}
{% if kind == "text" %}{% if one %}<p{% if one[:2] == "  " %} class="dim"{% endif %}>{{ one }}</p>{% endif %}
{% elif kind == "bold" %}<p class="sentence">{{ one }}</p>
{% elif kind == "copy" %}{{ parts.copy(one) }}
{% elif kind == "section" %}<h3>{{ one[0] }}</h3>{{ one[1] }}
{% else %}<div class="scroll"><table class="data sortable"><thead><tr>
{% for column in one[0] %}<th scope="col"{% if column.right %} class="n"{% endif %}>{{ column.heading }}</th>{% endfor %}
</tr></thead><tbody>
{% for row in one[1] %}<tr{% if row[0] %} class="changed"{% endif %}>{% for cell, right, value in row[1] %}<td{% if right %} class="n"{% endif %}{% if value is not none %} data-value="{{ value }}"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}
{% endfor %}
"""


def as_html(parts: Sequence[Part]) -> Markup:
    """Lines as paragraphs, tables with columns that can be sorted, commands with a button to copy."""
    return Markup(environment().from_string(TEMPLATE).render(items=[_item(part) for part in parts]))


def _item(part: Part) -> tuple[str, object]:
    match part:
        case Line():
            bold = any("bold" in style for _, style in part.spans)
            return "bold" if bold else "text", str(part)
        case Table():
            return "table", _table(part)
        case Command():
            return "copy", part.text
        case Section():
            return "section", (part.title, as_html(part.parts))
    return "text", part


Cell = tuple[str, bool, float | None]


def _table(table: Table) -> tuple[list[Column], list[tuple[bool, list[Cell]]]]:
    """The columns, and the rows: whether it is emphasised, and its cells.

    A cell is its text, whether it is aligned to the right, and the number that it is sorted by.
    """
    columns = table.shown()
    count = max((len(column.cells) for column in columns), default=0)
    rows = [
        (
            row in table.bold,
            [
                (
                    f"{c.cells[row]}{'*' if row in c.starred else ''}",
                    c.right,
                    first_number(c.cells[row]),
                )
                for c in columns
            ],
        )
        for row in range(count)
    ]
    return columns, rows
