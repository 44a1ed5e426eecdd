"""Every rule, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cae_cli.diagnosis import RULES
from cae_cli.diagnosis.catalogue import When
from cae_cli.errors import short
from cae_cli.report.page.content import Content, section
from cae_cli.report.page.sections.verdict import as_bar

TEMPLATE = """\
<p>{{ counts }}. A {{ parts.word("rule") }} that could not be checked never counts as fine. On each bar the triangle is the value, the line the
threshold, and green the range of healthy runs. No value: the rule asks for more than one number, or for something that this run does not have.</p>
<details><summary>All rules</summary>
<div class="scroll"><table class="data stack">
<thead><tr><th>rule</th><th>problem</th><th>result</th><th>value</th><th>threshold</th><th>healthy</th><th>what is measured</th></tr></thead>
<tbody>
{% for r in rules %}
<tr id="rule-{{ r.code }}"><td class="code">{{ r.code }}</td><td>{{ r.problem }}</td>
<td><span class="{{ r.kind }}">{{ r.result }}</span></td>
<td class="n" style="min-width:9rem">{{ r.value }}{% if r.bar %} {{ meter(r.bar.value, r.bar.low, r.bar.high, healthy=r.bar.healthy, threshold=r.bar.threshold) }}{% endif %}</td>
<td class="n">{% if r.threshold %}<span class="narrow">threshold </span>{{ r.threshold }}{% endif %}</td>
<td class="n">{% if r.bar %}<span class="narrow">healthy </span>{{ r.bar.healthy_text }}{% endif %}</td><td class="small dim">{{ r.measured }}</td></tr>
{% endfor %}
</tbody></table></div></details>
"""


@section("rules", "Every rule", TEMPLATE)
def rules(content: Content) -> Mapping[str, Any]:
    """The catalogue with the results of this run."""
    diagnosis = content.diagnosis
    found = {f["code"]: f for f in diagnosis["findings"]}
    skipped = {s["code"]: s["reason"] for s in diagnosis["skipped"]}
    values = diagnosis.get("values", {})  # older versions had none
    rows = []
    for rule in RULES:
        if rule.when is When.BEFORE:
            continue
        threshold = diagnosis["thresholds"].get(rule.code)
        row: dict[str, Any] = {"code": rule.code, "problem": rule.problem, "measured": rule.measured}
        row |= {"value": "", "bar": None}
        row["threshold"] = "" if threshold is None else short(threshold)
        if rule.code in found:
            finding = found[rule.code]
            row |= {"kind": finding["severity"], "result": f"found: {finding['severity']}"}
            row |= _measured(next(iter(finding["evidence"]), None))
        elif rule.code in skipped:
            row |= {"kind": "dim", "result": f"not checked: {skipped[rule.code]}"}
        elif rule.code in diagnosis["disabled"]:
            row |= {"kind": "dim", "result": "disabled"}
        elif rule.code in diagnosis["passed"]:
            row |= {"kind": "fine", "result": "✓ fine", **_measured(values.get(rule.code))}
        else:
            continue
        rows.append(row)
    counts = f"{len(found)} found, {len(diagnosis['passed'])} fine, {len(skipped)} not checked"
    return {"rules": rows, "counts": counts}


def _measured(evidence: Mapping[str, Any] | None) -> dict[str, Any]:
    """The value of a rule, and its bar."""
    if evidence is None or evidence["value"] is None:
        return {}
    return {"value": short(evidence["value"]), "bar": as_bar(evidence)}
