"""What is wrong, why, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cae_cli.diagnosis.finding import Fix, Safety
from cae_cli.errors import to_paste
from cae_cli.report.page.content import Content, section
from cae_cli.runs.command import fit_to_paste

MARKS = {"error": "✗", "warning": "!", "note": "·"}
FACTORS = (
    ("learned", "learned", "explained variance of held-out images"),
    ("used", "used", "how far the output follows the latent code"),
    ("alive", "alive", "filters that respond, in the worst layer"),
    ("selective", "not copied", "images are told from scrambled pixels"),
)

TEMPLATE = """\
<p class="sentence {{ kind }}">{{ mark }} {{ content.diagnosis.verdict }}</p>
{% if score is not none %}
<p>How meaningful the filters are: <b>{{ number(score.value) }}</b> of 1, the product of four factors:</p>
<div class="factors">
{% for name, title, what in factors %}
<span>{{ title }} <b>{{ number(score[name]) }}</b></span>
<span class="bar"><i style="width:{{ '%.1f' | format(100 * [0, [1, score[name] or 0] | min] | max) }}%"></i></span>
<span class="dim small">{{ what }}</span>
{% endfor %}
</div>
{% endif %}
{% for f in findings %}
<div class="card {{ f.severity }}" id="{{ f.code }}">
<h3 style="margin-top:0"><span class="{{ f.severity }}">{{ marks[f.severity] }} {{ f.severity }}</span> {{ f.problem }}
<span class="dim small">{{ f.code }}, {{ f.confidence }} confidence</span></h3>
<p>{{ f.message }}</p>
{% for e, low, high in f.bars %}{{ parts.evidence(e, low, high) }}{% endfor %}
{% if f.ways %}
<h4>What mends it</h4>
{% for way in f.ways %}
<p>{{ "Try" if loop.first else "Or" }} <b>{{ way.change }}</b>: {{ way.why }} ({{ way.safety }}).</p>
{% if way.command and loop.first %}{{ parts.copy(way.command) }}{% endif %}
{% endfor %}
{% endif %}
{% if f.advice %}<p>{{ f.advice }}</p>{% endif %}
{% if f.follow %}<p class="small">What follows from it: {% for c in f.follow %}{{ problem(c) }} ({{ c }}){{ ", " if not loop.last }}{% endfor %}.</p>{% endif %}
{% if f.ruled_out %}<p class="small dim">Ruled out: {% for c in f.ruled_out %}{{ problem(c) }} (<a href="#rule-{{ c }}">{{ c }}</a>){{ ", " if not loop.last }}{% endfor %}.</p>{% endif %}
{% if f.open %}<p class="small dim">Not ruled out: {% for c in f.open %}{{ problem(c) }} (<a href="#rule-{{ c }}">{{ c }}</a>){{ ", " if not loop.last }}{% endfor %}.</p>{% endif %}
</div>
{% endfor %}
{% if reasons %}
<details{% if not findings %} open{% endif %}><summary>What could not be checked</summary>
<ul>{% for reason, codes in reasons.items() %}<li>{{ reason }}: {% for c in codes %}{{ problem(c) }} ({{ c }}){{ ", " if not loop.last }}{% endfor %}</li>{% endfor %}</ul>
</details>
{% endif %}
"""


@section("verdict", "Verdict", TEMPLATE)
def verdict(content: Content) -> Mapping[str, Any]:
    """The sentence, the score, and each cause with its fixes."""
    diagnosis = content.diagnosis
    findings = [_finding(f, content) for f in diagnosis["findings"] if f["consequence_of"] is None]
    severities = [f["severity"] for f in diagnosis["findings"]]
    kind = next((s for s in ("error", "warning") if s in severities), "fine")
    mark = MARKS.get(kind, "✓")
    if diagnosis["undecided"]:
        kind, mark = "warning", "?"
    reasons: dict[str, list[str]] = {}
    for skipped in diagnosis["skipped"]:
        reasons.setdefault(skipped["reason"], []).append(skipped["code"])
    score = content.metrics["score"]
    return {
        "kind": kind,
        "mark": mark,
        "marks": MARKS,
        "score": None if score["value"] is None else score,
        "factors": FACTORS,
        "findings": findings,
        "reasons": reasons,
    }


def _finding(finding: Mapping[str, Any], content: Content) -> dict[str, Any]:
    command = fit_to_paste(content.setup.get("command"))
    ways = []
    for stored in finding["fixes"]:
        fix = Fix(
            **{**stored, "overrides": tuple(stored["overrides"]), "safety": Safety(stored["safety"])}
        )
        ways.append(
            {
                # Without a command of cae there is a script of the user's own.
                "change": " ".join(fix.overrides) if command else fix.keras or fix.why,
                "why": fix.why,
                "safety": fix.safety.value,
                "command": to_paste(*fix.applied(command)) if command and fix.overrides else "",
            }
        )
    follow = [f["code"] for f in content.diagnosis["findings"] if f["consequence_of"] == finding["code"]]
    return {**finding, "ways": ways, "follow": follow, "bars": list(_bars(finding["evidence"]))}


def _bars(evidence: list[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], float, float]]:
    """Evidence with the ends of its bar: all that is to be seen on it, and some room."""
    for one in evidence:
        known = [one["value"], one["threshold"], *one["healthy"]]
        known = [float(v) for v in known if v is not None and abs(float(v)) < 1e12]
        if not known:
            continue
        low, high = min(known), max(known)
        low = 0.0 if 0 <= low < 0.5 * high else low
        room = 0.1 * (high - low) or 1.0
        yield one, low if low == 0 else low - room, high + room
