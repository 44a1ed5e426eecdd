"""Checks metrics against rules and gives findings with fixes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cae_cli.diagnosis import rules  # noqa: F401  (fills the catalogue)
from cae_cli.diagnosis.case import Case
from cae_cli.diagnosis.catalogue import RULES, Rule, RuleOptions, When
from cae_cli.diagnosis.causes import order
from cae_cli.diagnosis.finding import (
    Confidence,
    Diagnosis,
    Evidence,
    Finding,
    Fix,
    Safety,
    Severity,
    Skipped,
    Trial,
)
from cae_cli.metrics.collect import Metrics
from cae_cli.metrics.dataset import DatasetStatistics
from cae_cli.metrics.network import Network

__all__ = [
    "RULES",
    "Case",
    "Diagnosis",
    "Evidence",
    "Finding",
    "Fix",
    "Rule",
    "RuleOptions",
    "Safety",
    "Severity",
    "Skipped",
    "When",
    "diagnose",
    "forecast",
    "with_trials",
]


def diagnose(metrics: Metrics, config: Mapping[str, Any]) -> Diagnosis:
    """Checks every rule that applies to a trained network.

    Args:
        metrics: of the run.
        config: see `Case`; its ``rules`` may disable rules and change thresholds.
    """
    case = Case(metrics.dataset, metrics.network, config, metrics)
    return _check(case, (When.ALWAYS, When.AFTER))


def forecast(dataset: DatasetStatistics, network: Network, config: Mapping[str, Any]) -> Diagnosis:
    """Checks every rule that needs no training.

    Args:
        dataset: statistics of the images.
        network: the planned network.
        config: as for `diagnose`.
    """
    return _check(Case(dataset, network, config), (When.BEFORE, When.ALWAYS))


def with_trials(diagnosis: Diagnosis, trials: Sequence[Mapping[str, Any]]) -> Diagnosis:
    """The diagnosis after short trainings.

    A cause with a fix that helped is certain and comes first, with that fix first; a cause whose fixes
    did not help is less certain. The verdict names the fix that helped.

    Args:
        diagnosis: before the trainings.
        trials: `Trial`s as plain data, as the run folder stores them.
    """
    if not trials:
        return diagnosis
    made = tuple(_trial(trial) for trial in trials)
    gains = {trial.overrides: trial.gain for trial in made[1:] if not math.isnan(trial.gain)}
    tried = {trial.code for trial in made if trial.code and not math.isnan(trial.gain)}
    fixed = {trial.code for trial in made if trial.code and trial.helps}

    def weighed(finding: Finding) -> Finding:
        if finding.code not in tried:
            return finding
        steps = list(Confidence)
        lower = steps[min(steps.index(finding.confidence) + 1, 2)]
        return replace(
            finding,
            fixes=tuple(sorted(finding.fixes, key=lambda fix: -gains.get(fix.overrides, 0.0))),
            confidence=Confidence.HIGH if finding.code in fixed else lower,
        )

    def rank(finding: Finding) -> tuple[bool, bool]:
        cause = finding.consequence_of
        return finding.severity is Severity.NOTE and not cause, (cause or finding.code) not in fixed

    ordered = sorted(map(weighed, diagnosis.findings), key=rank)
    verdict = diagnosis.verdict
    first = next((f for f in ordered if f.consequence_of is None), None)
    if first and first.code != diagnosis.findings[0].code:
        verdict = f"{first.problem} (by short trainings; before: {diagnosis.verdict})"
    helpful = sorted((trial for trial in made[1:] if trial.helps), key=lambda trial: trial.code is None)
    if helpful:
        verdict += f"; {' '.join(helpful[0].overrides)} helps"
    elif len(made) > 1:
        verdict += "; no change that was tried helps within so few steps"
    return replace(diagnosis, findings=tuple(ordered), verdict=verdict, trials=made)


def _trial(plain: Mapping[str, Any]) -> Trial:
    numbers = {k: math.nan if plain[k] is None else float(plain[k]) for k in ("explained", "gain")}
    return Trial(tuple(plain["overrides"]), plain["why"], plain["code"], **numbers)


def _check(case: Case, when: tuple[When, ...]) -> Diagnosis:
    options = case.option("rules") or {}
    applicable = [rule for rule in RULES if rule.when in when]
    disabled = [r.code for r in applicable if not options.get(r.code, {}).get("enabled", True)]
    enabled = [r.with_options(options.get(r.code, {})) for r in applicable if r.code not in disabled]
    results = {rule.code: rule.check(case) for rule in enabled}
    findings = [
        replace(found, fixes=tuple(f for f in found.fixes if any(map(case.changes, f.overrides))))
        for found in results.values()
        if isinstance(found, Finding)
    ]
    passed = tuple(code for code, result in results.items() if result is None)
    findings = order(
        findings,
        {rule.code: rule.consequences for rule in applicable},
        {rule.code: rule.alternatives for rule in applicable},
        passed,
    )
    diagnosis = Diagnosis(
        verdict="",
        findings=tuple(findings),
        passed=passed,
        skipped=tuple(result for result in results.values() if isinstance(result, Skipped)),
        disabled=tuple(disabled),
        undecided=False,
        thresholds={rule.code: float(rule.threshold) for rule in enabled},
    )
    if case.trained is None:
        return replace(diagnosis, verdict=_risk(diagnosis))
    undecided = case.too_early is not None and not diagnosis.reaches(Severity.WARNING)
    diagnosis = replace(diagnosis, undecided=undecided)
    return replace(diagnosis, verdict=_verdict(case, diagnosis))


def _nothing_found(diagnosis: Diagnosis) -> str:
    notes, skipped = len(diagnosis.findings), len(diagnosis.skipped)
    counted = f"no problem found by {_count(len(diagnosis.passed), 'rule')}"
    counted += f", {skipped} not checked" if skipped else ""
    return counted + (f", {_count(notes, 'note')}" if notes else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _risk(diagnosis: Diagnosis) -> str:
    causes = diagnosis.causes
    return f"before training: {causes[0].problem if causes else _nothing_found(diagnosis)}"


def _verdict(case: Case, diagnosis: Diagnosis) -> str:
    share = case.metrics.quality.explained_variance
    explained = "the reconstruction contains numbers that are not finite"
    if math.isfinite(share):
        explained = f"the reconstruction explains {round(share, 2) + 0:.0%} of the variance"
    causes = diagnosis.causes
    if causes and causes[0].severity is Severity.ERROR:
        return f"these filters are not meaningful: {causes[0].problem}"
    if causes:
        return f"{causes[0].problem}; {explained}"
    if diagnosis.undecided:
        return f"cannot tell: {case.too_early}; {explained}"
    return f"{_nothing_found(diagnosis)}; {explained}"
