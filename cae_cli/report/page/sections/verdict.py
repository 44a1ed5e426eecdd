"""What is wrong, why, and what mends it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from cae_cli.diagnosis.case import LITTLE_EXPLAINED
from cae_cli.diagnosis.finding import Evidence, Fix, Safety
from cae_cli.diagnosis.health import MOST_INACTIVE, perturbation_ranges
from cae_cli.errors import short, to_paste
from cae_cli.metrics.network import Network
from cae_cli.report.page.content import Content, section
from cae_cli.runs.command import fit_to_paste

MARKS = {"error": "✗", "warning": "!", "note": "·"}
INFINITE = (-math.inf, math.inf)
COSTS = {
    Safety.SAFE: "costs another training, nothing else",
    Safety.TRADE: "something else gets worse",
    Safety.SLOW: "takes more time or images",
}

TEMPLATE = """\
<p class="dim" style="max-width:none">{{ facts|join(" · ") }}; measured on {{ "{:,}".format(content.metrics.quality.images) }}
{{ parts.word("held-out images") }}</p>
<p class="sentence {{ kind }}">{{ mark }} {{ content.diagnosis.verdict }}</p>
{% if content.trials and content.trials.edits %}<p>Changes were tried in short trainings: <a href="#trials">what each of them brought</a>.</p>{% endif %}
{% for f in findings %}
<div class="card {{ f.severity }}" id="{{ f.code }}">
<h3 style="margin-top:0"><span class="{{ f.severity }}">{{ marks[f.severity] }} {{ f.severity }}</span> {{ f.problem }}
<span class="dim small"><a href="#rule-{{ f.code }}">{{ f.code }}</a>, {{ f.confidence }} {{ parts.word("confidence") }}</span></h3>
<p>{{ f.message }}</p>
{% for e in f.bars %}{{ parts.evidence(e) }}{% endfor %}
{% if f.ways %}
<h4>{{ "Fixes for it" if content.trials else "What mends it" }}</h4>
{% for way in f.ways %}
<p>{{ "Try" if loop.first else "Or, in the same way," if way.command else "Or" }} <b>{{ way.change }}</b>{% if way.why != way.change %}: {{ way.why }}{% endif %} ({{ way.cost }}).</p>
{% if way.command and loop.first %}{{ parts.copy(way.command) }}{% endif %}
{% endfor %}
{% endif %}
{% if f.advice %}<p>{{ f.advice }}</p>{% endif %}
{% if f.follow %}<p class="small">What follows from it, and needs no fix of its own: {{ parts.rules(f.follow) }}.</p>{% endif %}
{% if f.ruled_out %}<p class="small dim">Looks alike, but was checked and is ruled out: {{ parts.rules(f.ruled_out) }}.</p>{% endif %}
{% if f.unseen %}<p class="small dim">Looks alike; was not seen, yet is not ruled out: {{ parts.rules(f.unseen) }}.</p>{% endif %}
{% if f.open %}<p class="small dim">Looks alike, and is not ruled out: {{ parts.rules(f.open) }}.</p>{% endif %}
</div>
{% endfor %}
{% if treat %}<p>Compare these fixes and common changes in trainings of a few hundred steps; without --short, each is
also tested beside a random change:</p>{{ parts.copy(treat) }}
{% elif kind == "fine" %}<p>No {{ parts.word("rule") }} found a problem, which is no proof. Look for yourself: do
<a href="#filters">filters</a> respond to something else than before training; which images are
<a href="#reconstructions">reconstructed</a> worst; do <a href="#latent">neighbours</a> in the latent space look alike?</p>{% endif %}
{% if factors %}
<h3>How meaningful the filters are: {{ number(score) }} of 1</h3>
<p>The product of four factors. It ranks runs and shows which factor is low; no rule checks it.</p>
<div class="factors">{% for e in factors %}{{ parts.evidence(e) }}{% endfor %}</div>
{% endif %}
{% if reasons %}
<details{% if not findings %} open{% endif %}><summary>What could not be checked</summary>
<ul>{% for reason, codes in reasons.items() %}<li>{{ reason }}: {{ parts.rules(codes) }}</li>{% endfor %}</ul>
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
    causes = [f for f in findings if f["severity"] != "note"]
    tested = any(way["command"] for f in causes for way in f["ways"])
    return {
        "kind": kind,
        "mark": mark,
        "marks": MARKS,
        "facts": list(_facts(content)),
        "score": score["value"],
        "factors": [] if score["value"] is None else _factors(content),
        "findings": findings,
        "treat": to_paste("cae", "treat", content.id, "--short") if tested else "",
        "reasons": reasons,
    }


def _facts(content: Content) -> Iterator[str]:
    """What the run is, in a few words."""
    data, network = content.setup.get("data", {}), content.training["network"]
    train, steps = data.get("train"), content.metrics["dynamics"]["steps"]
    shape = "x".join(map(str, network["image_shape"]))
    yield (
        f"{data.get('source') or 'unknown'}: "
        + (f"{train:,} training " if train else "")
        + (f"images of {shape}")
    )
    if steps:
        yield f"{steps:,} training steps"
    yield f"latent code of {'x'.join(map(str, network['latent_shape']))}"


def _factors(content: Content) -> list[dict[str, Any]]:
    """The factors of the score with the ranges of healthy runs."""
    score = content.metrics["score"]
    ranges = perturbation_ranges(Network(**content.metrics["network"]))
    factors = (
        ("learned", "learned", LITTLE_EXPLAINED, "the output explains more than an image that needs no learning"),
        ("used", "used", ranges["latent swap"][0], "the output follows the latent code"),
        ("alive", "alive", 1 - MOST_INACTIVE, "filters respond, in the worst layer"),
        ("selective", "not copied", 1 - ranges["pixel copy"][1], "scrambled pixels are not reproduced"),
    )  # fmt: skip
    return [
        {
            "name": title,
            "text": f"{score[key]:.2f}",
            "unit": "",
            "value": score[key],
            "low": 0,
            "high": 1,
            "healthy": (least, None),
            "threshold": None,
            "ranges": f"healthy above {least:.2g}: {what}",
        }
        for key, title, least, what in factors
    ]


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
                "cost": COSTS[fix.safety],
                "command": to_paste(*fix.applied(command)) if command and fix.overrides else "",
            }
        )
    follow = [f["code"] for f in content.diagnosis["findings"] if f["consequence_of"] == finding["code"]]
    return {
        "unseen": (),  # where an older version made the diagnosis
        **finding,
        "ways": ways,
        "follow": follow,
        "bars": [bar for one in finding["evidence"] if (bar := as_bar(one))],
    }


def as_bar(evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    """Evidence with the ends of its bar: all that is to be seen on it, and some room; None without one."""
    if evidence["healthy"] == [evidence["threshold"]] * 2:  # see `Evidence.by_definition`
        return None
    known = [evidence["value"], evidence["threshold"], *evidence["healthy"]]
    known = [float(v) for v in known if v is not None and abs(float(v)) < 1e12]
    if not known:
        return None
    low, high = min(known), max(known)
    low = 0.0 if 0 <= low < 0.5 * high else low
    room = 0.1 * (high - low) or 1.0
    start, end = (
        edge if v is None else v for v, edge in zip(evidence["healthy"], INFINITE, strict=True)
    )
    value, threshold = (math.nan if evidence[k] is None else evidence[k] for k in ("value", "threshold"))
    healthy = Evidence("", value, threshold, (start, end)).healthy_text
    return {
        **evidence,
        "healthy": tuple(evidence["healthy"]),
        "low": low if low == 0 else low - room,
        "high": high + room,
        "text": "not measured" if evidence["value"] is None else short(value),
        "healthy_text": healthy,
        "ranges": f"threshold {short(threshold)}, healthy: {healthy}",
    }
