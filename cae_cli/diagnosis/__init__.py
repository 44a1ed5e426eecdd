"""Judges what was measured. Measuring is done before, showing after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cae_cli.diagnosis import rules  # noqa: F401  (fills the catalogue)
from cae_cli.diagnosis.finding import Diagnosis, Finding, Severity, Skipped
from cae_cli.diagnosis.rule import RULES, Case, RuleOptions, When, attach
from cae_cli.measures.measured import Measures
from cae_cli.measures.network import Network
from cae_cli.measures.survey import Survey

__all__ = [
    "RULES",
    "Case",
    "Diagnosis",
    "Finding",
    "RuleOptions",
    "Severity",
    "Skipped",
    "diagnose",
    "foresee",
]


def diagnose(measures: Measures, config: Mapping[str, Any]) -> Diagnosis:
    """Asks every rule that a trained network is for.

    Args:
        measures: of the run.
        config: the run's composed config as plain containers, for prescriptions that depend on it;
            its ``rules`` may silence rules and change thresholds.
    """
    case = Case(measures.survey, measures.network, config, measures)
    return _ask(case, (When.ALWAYS, When.AFTER))


def foresee(survey: Survey, network: Network, config: Mapping[str, Any]) -> Diagnosis:
    """Asks every rule that needs no training.

    Args:
        survey: of the images.
        network: what it will be made of.
        config: as for `diagnose`.
    """
    return _ask(Case(survey, network, config), (When.BEFORE, When.ALWAYS))


def _ask(case: Case, when: tuple[When, ...]) -> Diagnosis:
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    passed: list[str] = []
    silenced: list[str] = []
    asked = [rule for rule in RULES if rule.when in when]
    for rule in asked:
        options = (case.option("rules") or {}).get(rule.code, {})
        if options.get("silent"):
            silenced.append(rule.code)
            continue
        result = rule.with_options(options).look(case)
        if isinstance(result, Finding):
            useful = [p for p in result.prescriptions if any(map(case.changes, p.overrides))]
            findings.append(replace(result, prescriptions=tuple(useful)))
        elif isinstance(result, Skipped):
            skipped.append(result)
        else:
            passed.append(rule.code)
    findings = attach(findings, asked, passed)
    return Diagnosis(
        verdict=_verdict(case, findings, passed, skipped),
        findings=tuple(findings),
        passed=tuple(passed),
        skipped=tuple(skipped),
        silenced=tuple(silenced),
        undecided=_undecided(case, findings),
    )


def _undecided(case: Case, findings: list[Finding]) -> bool:
    problems = [f for f in findings if f.severity is not Severity.NOTE]
    return case.trained is not None and not problems and case.too_early is not None


def _verdict(case: Case, findings: list[Finding], passed: list[str], skipped: list[Skipped]) -> str:
    causes = [f for f in findings if f.consequence_of is None and f.severity is not Severity.NOTE]
    notes = sum(f.severity is Severity.NOTE for f in findings)
    noted = f", {notes} note{'' if notes == 1 else 's'}" if notes else ""
    looked = f"{len(passed)} rule{'' if len(passed) == 1 else 's'}"
    if case.trained is None:
        if causes:
            return f"before training: {causes[0].problem}"
        return f"before training: no problem foreseen by {looked}{noted}"
    share = case.trained.quality.explained_variance
    explained = (
        f"the reconstruction explains {round(share, 2) + 0:.0%} of the variance"
        if math.isfinite(share)
        else "the reconstruction is not made of finite numbers"
    )
    if causes:
        if causes[0].severity is Severity.ERROR:
            return f"these filters are not meaningful: {causes[0].problem}"
        return f"{causes[0].problem}; {explained}"
    if _undecided(case, findings):
        return f"cannot tell: {case.too_early}; {explained}"
    unsure = f", {len(skipped)} could not look" if skipped else ""
    return f"no problem found by {looked}{unsure}{noted}; {explained}"
