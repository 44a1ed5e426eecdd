"""Checks metrics against rules and gives findings with fixes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cae_cli.diagnosis import fixes, rules  # noqa: F401  (rules fill the catalogue)
from cae_cli.diagnosis.case import Case
from cae_cli.diagnosis.catalogue import RULES, Rule, RuleOptions, When
from cae_cli.diagnosis.causes import order, place
from cae_cli.diagnosis.finding import (
    Diagnosis,
    Evidence,
    Finding,
    Fix,
    Safety,
    Severity,
    Skipped,
)
from cae_cli.diagnosis.trials import Trials, after_trials
from cae_cli.errors import counted
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
    "fixes",
    "forecast",
]


def diagnose(metrics: Metrics, config: Mapping[str, Any], trials: Trials | None = None) -> Diagnosis:
    """Checks every rule that applies to a trained network.

    Args:
        metrics: of the run.
        config: see `Case`; its ``rules`` may disable rules and change thresholds.
        trials: short trainings with fixes, if there were some; they reorder the findings.
    """
    case = Case(metrics.dataset, metrics.network, config, metrics)
    diagnosis = _check(case, (When.ALWAYS, When.AFTER))
    if trials is None:
        return diagnosis
    diagnosis = after_trials(diagnosis, trials)
    verdict = trials.verdict(diagnosis)
    if not trials.proven:
        said = _verdict(case, diagnosis)
        verdict = f"{said}; {verdict}" if trials.fails else said
    return replace(diagnosis, verdict=verdict)


def forecast(dataset: DatasetStatistics, network: Network, config: Mapping[str, Any]) -> Diagnosis:
    """Checks every rule that needs no training.

    Args:
        dataset: statistics of the images.
        network: the planned network.
        config: as for `diagnose`.
    """
    return _check(Case(dataset, network, config), (When.BEFORE, When.ALWAYS))


def _check(case: Case, when: tuple[When, ...]) -> Diagnosis:
    options = case.option("rules") or {}
    applicable = [rule for rule in RULES if rule.when in when]
    disabled = [r.code for r in applicable if not options.get(r.code, {}).get("enabled", True)]
    enabled = [r.with_options(options.get(r.code, {})) for r in applicable if r.code not in disabled]
    results = {rule.code: rule.checked(case) for rule in enabled}
    findings = [
        replace(found, fixes=tuple(fix for fix in found.fixes if case.changed_by(fix)))
        for found in results.values()
        if isinstance(found, Finding)
    ]
    passed = tuple(code for code, result in results.items() if result is None)
    fired = {finding.code for finding in findings}
    alike = {code for rule in enabled if rule.code in fired for code in rule.alternatives}
    findings = order(
        findings,
        {rule.code: rule.consequences for rule in sorted(applicable, key=lambda r: place(r.code))},
        {rule.code: rule.alternatives for rule in applicable},
        passed,
        {r.code for r in enabled if r.code in passed and r.code in alike and r.may_have_missed(case)},
    )
    diagnosis = Diagnosis(
        verdict="",
        findings=tuple(findings),
        passed=passed,
        skipped=tuple(result for result in results.values() if isinstance(result, Skipped)),
        disabled=tuple(disabled),
        undecided=False,
        thresholds={rule.code: float(rule.threshold) for rule in enabled},
        values={r.code: value for r in enabled if r.code in passed and (value := r.value(case))},
    )
    if case.trained is None:
        return replace(diagnosis, verdict=_risk(diagnosis))
    undecided = case.too_early is not None and not diagnosis.reaches(Severity.WARNING)
    diagnosis = replace(diagnosis, undecided=undecided)
    return replace(diagnosis, verdict=_verdict(case, diagnosis))


def _nothing_found(diagnosis: Diagnosis) -> str:
    notes, skipped = len(diagnosis.findings), len(diagnosis.skipped)
    text = f"no problem found by {counted(len(diagnosis.passed), 'rule')}"
    text += f", {skipped} not checked" if skipped else ""
    return text + (f", {counted(notes, 'note')}" if notes else "")


def _risk(diagnosis: Diagnosis) -> str:
    causes = diagnosis.causes
    return f"before training: {causes[0].problem if causes else _nothing_found(diagnosis)}"


def _verdict(case: Case, diagnosis: Diagnosis) -> str:
    share = case.metrics.quality.explained_variance
    explained = "the reconstruction contains numbers that are not finite"
    if math.isfinite(share):
        explained = f"the reconstruction explains {round(share, 2) + 0:.0%} of the variance"
        if case.metrics.flat > 0:
            explained += f", flat grey images {case.metrics.flat:.0%}"
    causes = diagnosis.causes
    if causes and causes[0].code in {rule.code for rule in RULES if rule.of_images}:
        return f"cannot tell: {causes[0].problem}"
    if causes and causes[0].severity is Severity.ERROR:
        what = "these filters are" if case.metrics.layers else "this latent code is"
        return f"{what} not meaningful: {causes[0].problem}"
    if causes:
        return f"{causes[0].problem}; {explained}"
    if diagnosis.undecided:
        return f"cannot tell: {case.too_early}; {explained}"
    return f"{_nothing_found(diagnosis)}; {explained}"
