"""Every rule, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cae_cli.diagnosis import RULES
from cae_cli.diagnosis.catalogue import When
from cae_cli.report.page.content import Content, section

TEMPLATE = """\
<p>{{ counts }}. A {{ parts.word("rule") }} that could not be checked never counts as fine. The value is that of a finding; a rule reports one where
what it measures is beyond its threshold.</p>
<details><summary>All rules</summary>
<div class="scroll"><table class="data stack">
<thead><tr><th>rule</th><th>problem</th><th>result</th><th>value</th><th>threshold</th><th>what is measured</th></tr></thead>
<tbody>
{% for r in rules %}
<tr id="rule-{{ r.code }}"><td class="code">{{ r.code }}</td><td>{{ r.problem }}</td>
<td><span class="{{ r.kind }}">{{ r.result }}</span></td>
<td class="n">{{ r.value }}</td><td class="n">{% if r.threshold %}<span class="narrow">threshold </span>{{ r.threshold }}{% endif %}</td><td class="small dim">{{ r.measured }}</td></tr>
{% endfor %}
</tbody></table></div></details>
"""


@section("rules", "Every rule", TEMPLATE)
def rules(content: Content) -> Mapping[str, Any]:
    """The catalogue with the results of this run."""
    diagnosis = content.diagnosis
    found = {f["code"]: f for f in diagnosis["findings"]}
    skipped = {s["code"]: s["reason"] for s in diagnosis["skipped"]}
    rows = []
    for rule in RULES:
        if rule.when is When.BEFORE:
            continue
        threshold = diagnosis["thresholds"].get(rule.code)
        row = {"code": rule.code, "problem": rule.problem, "measured": rule.measured, "value": ""}
        row["threshold"] = "" if threshold is None else f"{threshold:.3g}"
        if rule.code in found:
            finding = found[rule.code]
            row |= {"kind": finding["severity"], "result": f"found: {finding['severity']}"}
            first = next(iter(finding["evidence"]), None)
            if first and first["value"] is not None:
                row["value"] = f"{first['value']:.3g}"
        elif rule.code in skipped:
            row |= {"kind": "dim", "result": f"not checked: {skipped[rule.code]}"}
        elif rule.code in diagnosis["disabled"]:
            row |= {"kind": "dim", "result": "disabled"}
        elif rule.code in diagnosis["passed"]:
            row |= {"kind": "fine", "result": "✓ fine"}
        else:
            continue
        rows.append(row)
    counts = f"{len(found)} found, {len(diagnosis['passed'])} fine, {len(skipped)} not checked"
    return {"rules": rows, "counts": counts}
