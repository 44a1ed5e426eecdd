"""Judges what was measured. Measuring is done before, showing after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cae_cli.diagnosis import rules  # noqa: F401  (fills the catalogue)
from cae_cli.diagnosis.case import Case
from cae_cli.diagnosis.catalogue import RULES, RuleOptions, When
from cae_cli.diagnosis.causes import attach
from cae_cli.diagnosis.finding import Confidence, Diagnosis, Finding, Severity, Skipped, Trial
from cae_cli.metrics.collect import Metrics
from cae_cli.metrics.dataset import DatasetStatistics
from cae_cli.metrics.network import Network

__all__ = [
    "RULES",
    "Case",
    "Diagnosis",
    "Finding",
    "RuleOptions",
    "Severity",
    "Skipped",
    "diagnose",
    "forecast",
    "with_trials",
]


def diagnose(metrics: Metrics, config: Mapping[str, Any]) -> Diagnosis:
    """Asks every rule that a trained network is for.

    Args:
        metrics: of the run.
        config: the run's composed config as plain containers, for fixes that depend on it;
            its ``rules`` may disable rules and change thresholds.
    """
    case = Case(metrics.dataset, metrics.network, config, metrics)
    return _check(case, (When.ALWAYS, When.AFTER))


def forecast(dataset: DatasetStatistics, network: Network, config: Mapping[str, Any]) -> Diagnosis:
    """Asks every rule that needs no training.

    Args:
        dataset: of the images.
        network: what it will be made of.
        config: as for `diagnose`.
    """
    return _check(Case(dataset, network, config), (When.BEFORE, When.ALWAYS))


def with_trials(diagnosis: Diagnosis, trials: Sequence[Mapping[str, Any]]) -> Diagnosis:
    """The diagnosis in the light of short trainings.

    A cause one of whose fixes helped is certain and comes first, with that fix
    first; a cause whose fixes were tried in vain is less certain. A remedy that helped and
    that no finding proposes is named in the verdict.

    Args:
        diagnosis: without them.
        trials: `Trial`s as plain data, as the run's folder has them.
    """
    if not trials:
        return diagnosis
    made = tuple(_trial(trial) for trial in trials)
    gains = {trial.overrides: trial.gain for trial in made[1:] if not math.isnan(trial.gain)}
    tried = {trial.code for trial in made if trial.code and not math.isnan(trial.gain)}
    cured = {trial.code for trial in made if trial.code and trial.helps}

    def root(finding: Finding) -> str:
        return finding.consequence_of or finding.code

    def weighed(finding: Finding) -> Finding:
        if finding.code not in tried:
            return finding
        best_first = sorted(finding.fixes, key=lambda p: -gains.get(p.overrides, 0.0))
        steps = list(Confidence)
        lower = steps[min(steps.index(finding.confidence) + 1, 2)]
        sure = Confidence.HIGH if finding.code in cured else lower
        return replace(finding, fixes=tuple(best_first), confidence=sure)

    ordered = sorted(
        map(weighed, diagnosis.findings),
        key=lambda f: (f.severity is Severity.NOTE and f.consequence_of is None, root(f) not in cured),
    )
    verdict = diagnosis.verdict
    first = next((f for f in ordered if f.consequence_of is None), None)
    if first and diagnosis.findings and first.code != diagnosis.findings[0].code:
        verdict = f"{first.problem} (by short trainings; before: {diagnosis.verdict})"
    helpful = next(iter(sorted((t for t in made[1:] if t.helps), key=lambda t: t.code is None)), None)
    if helpful:
        verdict += f"; {' '.join(helpful.overrides)} helps"
    elif len(made) > 1:
        verdict += "; nothing that was tried helps within so few steps"
    return replace(diagnosis, findings=tuple(ordered), verdict=verdict, trials=made)


def _trial(plain: Mapping[str, Any]) -> Trial:
    numbers = {k: math.nan if plain[k] is None else float(plain[k]) for k in ("explained", "gain")}
    return Trial(tuple(plain["overrides"]), plain["why"], plain["code"], **numbers)


def _check(case: Case, when: tuple[When, ...]) -> Diagnosis:
    findings: list[Finding] = []
    skipped: list[Skipped] = []
    passed: list[str] = []
    disabled: list[str] = []
    asked = [rule for rule in RULES if rule.when in when]
    for rule in asked:
        options = (case.option("rules") or {}).get(rule.code, {})
        if not options.get("enabled", True):
            disabled.append(rule.code)
            continue
        result = rule.with_options(options).check(case)
        if isinstance(result, Finding):
            useful = [p for p in result.fixes if any(map(case.changes, p.overrides))]
            findings.append(replace(result, fixes=tuple(useful)))
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
        disabled=tuple(disabled),
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
        return f"before training: no problem found by {looked}{noted}"
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
