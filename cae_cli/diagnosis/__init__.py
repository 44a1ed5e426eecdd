"""Judges what was measured. Measuring is done before, showing after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cae_cli.diagnosis import rules  # noqa: F401  (fills the catalogue)
from cae_cli.diagnosis.finding import Diagnosis, Finding, Severity, Skipped
from cae_cli.diagnosis.rule import RULES, Case, attach
from cae_cli.measures.measured import Measures

__all__ = ["RULES", "Case", "Diagnosis", "Finding", "Severity", "Skipped", "diagnose"]


def diagnose(measures: Measures, config: Mapping[str, Any]) -> Diagnosis:
    """Asks every rule.

    Args:
        measures: of the run.
        config: the run's composed config as plain containers, for prescriptions that depend on it.
    """
    case = Case(measures, config)
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    passed: list[str] = []
    for rule in RULES:
        result = rule.look(case)
        if isinstance(result, Finding):
            useful = [p for p in result.prescriptions if any(map(case.changes, p.overrides))]
            findings.append(replace(result, prescriptions=tuple(useful)))
        elif isinstance(result, Skipped):
            skipped.append(result)
        else:
            passed.append(rule.code)
    findings = attach(findings)
    return Diagnosis(
        verdict=_verdict(measures, findings, passed, skipped),
        findings=tuple(findings),
        passed=tuple(passed),
        skipped=tuple(skipped),
        undecided=_undecided(findings, passed, skipped),
    )


def _undecided(findings: list[Finding], passed: list[str], skipped: list[Skipped]) -> bool:
    problems = [f for f in findings if f.severity is not Severity.NOTE]
    return not problems and len(skipped) > len(passed)


def _verdict(
    measures: Measures, findings: list[Finding], passed: list[str], skipped: list[Skipped]
) -> str:
    causes = [f for f in findings if f.consequence_of is None and f.severity is not Severity.NOTE]
    notes = sum(f.severity is Severity.NOTE for f in findings)
    share = measures.quality.explained_variance
    explained = (
        f"the reconstruction explains {round(share, 2) + 0:.0%} of the variance"
        if math.isfinite(share)
        else "the reconstruction is not made of finite numbers"
    )
    if causes:
        worst = min(causes, key=lambda f: list(Severity).index(f.severity))
        if worst.severity is Severity.ERROR:
            return f"these filters are not meaningful: {worst.problem}"
        return f"{worst.problem}; {explained}"
    looked = f"{len(passed)} rule{'' if len(passed) == 1 else 's'}"
    if _undecided(findings, passed, skipped):
        return f"cannot tell: {skipped[0].reason}; {explained}"
    unsure = f", {len(skipped)} could not look" if skipped else ""
    noted = f", {notes} note{'' if notes == 1 else 's'}" if notes else ""
    return f"no problem found by {looked}{unsure}{noted}; {explained}"
