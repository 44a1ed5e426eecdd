"""Which finding explains which, and how sure each is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cae_cli.diagnosis.catalogue import Rule
from cae_cli.diagnosis.finding import Finding, confidence

# What any cause that keeps a network from learning leads to.
SYMPTOMS = ("CAE202", "CAE301", "CAE302", "CAE303", "CAE401", "CAE402")
# What a network that never came to learn shows as well.
NEVER_LEARNED = (*SYMPTOMS, "CAE211", "CAE602")


def attach(findings: Sequence[Finding], rules: Sequence[Rule], looked: Iterable[str]) -> list[Finding]:
    """Orders findings and says how sure they are.

    The severest cause comes first, among equals the one whose code is first; each is followed by its
    consequences.

    Args:
        findings: of the rules.
        rules: all of them.
        looked: codes of those that looked and found nothing.
    """
    passed = set(looked)
    fired = {finding.code: finding for finding in findings}
    by_code = {rule.code: rule for rule in rules}
    cause: dict[str, str] = {}
    for rule in rules:
        if rule.code in fired:
            for code in rule.consequences:
                cause.setdefault(code, rule.code)  # the first cause there is

    def root(code: str) -> str:
        return root(cause[code]) if code in cause else code

    severest = {
        first: min((f.severity for f in findings if root(f.code) == first), key=lambda s: s.rank)
        for first in {root(code) for code in fired}
    }

    def place(finding: Finding) -> tuple[int, str, bool, str]:
        first = root(finding.code)
        return severest[first].rank, first, finding.code in cause, finding.code

    def with_certainty(finding: Finding) -> Finding:
        alternatives = [code for code in by_code[finding.code].alternatives if code in by_code]
        ruled_out = tuple(code for code in alternatives if code in passed)
        left = tuple(
            code for code in alternatives if code not in passed and cause.get(code) != finding.code
        )
        excess = finding.evidence[0].excess if finding.evidence else math.inf
        return replace(
            finding,
            # A cause is as severe as what follows from it.
            severity=severest.get(finding.code, finding.severity),
            consequence_of=root(finding.code) if finding.code in cause else None,
            ruled_out=ruled_out,
            open=left,
            confidence=confidence(excess, alternatives_open=bool(left)),
        )

    return [with_certainty(f) for f in sorted(findings, key=place)]
