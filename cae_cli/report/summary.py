"""The summary diagnosis as plain sections, from what was measured and what was found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from cae_cli.diagnosis import RULES, health
from cae_cli.diagnosis.case import LITTLE_EXPLAINED, UNCHANGED
from cae_cli.diagnosis.finding import Diagnosis, Finding, Severity
from cae_cli.diagnosis.trials import Trials
from cae_cli.errors import counted, short, to_paste
from cae_cli.metrics.collect import Layer, Metrics
from cae_cli.report.numbers import number, share, with_margin
from cae_cli.report.sections import Column, Command, Line, Part, Section, Table, line
from cae_cli.report.trials import section as of_trials

MOST_CODES = 6  # of other causes, in a line
SHOWN_IN_FULL = 2  # findings, so that a typical summary fits on a screen
MARKS = {Severity.ERROR: "✗ error", Severity.WARNING: "! warning", Severity.NOTE: "· note"}
STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "cyan"}
INDENT = 4  # of what belongs to a finding


def summary(
    metrics: Metrics,
    diagnosis: Diagnosis,
    held_out: str,
    command: Sequence[str],
    trials: Trials | None = None,
    *,
    verbose: bool = False,
) -> list[Part]:
    """The summary diagnosis.

    Args:
        metrics: of the run.
        diagnosis: of the run.
        held_out: which images were measured: "test", "validation", "evaluation" or
            "training".
        command: arguments of the command line that train the run again; none for a model that this
            tool did not train.
        trials: short trainings with fixes, if there were some.
        verbose: every number, every finding in full, rules by code and problem; else what fits on a
            screen of 24 lines in a typical run.
    """
    parts: list[Part] = ["", verdict(diagnosis), _score(metrics), ""]
    if trials is not None:
        parts += [of_trials(trials, verbose=verbose), ""]
    parts += [
        Section(
            f"Baselines ({metrics.quality.images:,} {held_out} images)",
            [_baselines(metrics, verbose=verbose)],
        ),
        "",
    ]
    if verbose and metrics.layers:
        parts += [Section("Layers", [_layers(metrics, diagnosis.thresholds)]), ""]
    if verbose and (tests := _perturbation_tests(metrics)).shown():
        parts += [Section("Perturbation tests", [tests]), ""]
    if verbose:
        parts += [Section("Other metrics", [_others(metrics)]), ""]
    return parts + findings(
        diagnosis, command, verbose=verbose, left_out=metrics.sample.left_out if metrics.sample else ()
    )


def verdict(diagnosis: Diagnosis) -> Line:
    """The diagnosis in one line."""
    style = "bold yellow" if diagnosis.undecided else "bold green"
    if diagnosis.worst:
        style = STYLES[diagnosis.worst]
    return line(("summary diagnosis: ", "bold"), (diagnosis.verdict, style))


def _score(metrics: Metrics) -> str:
    score = metrics.score
    if math.isnan(score.value):
        return "meaningful: not measured"
    baseline = "" if metrics.frozen is None else " beyond random filters"
    return (
        f"meaningful {score.value:.2f} = learned{baseline} {score.learned:.2f} x used {score.used:.2f} "
        f"x alive {score.alive:.2f} x not copied {score.selective:.2f}"
    )


def _baselines(metrics: Metrics, *, verbose: bool) -> Table:
    """The network among simpler models, from the most that can be expected to the least."""
    q, perturbation = metrics.quality, metrics.perturbation
    rows: list[tuple[str, str, str, str, str]] = []

    def baseline(name: str, explained: float | None, *, shown: bool = verbose) -> None:
        if shown and explained is not None and math.isfinite(explained):
            rows.append((name, "", "", "", share(explained)))

    baseline(f"principal components ({metrics.network.latent_values:,})", perturbation.projection)
    network = len(rows)
    psnr, ssim = with_margin(q.psnr.value, q.psnr.margin, 2), with_margin(q.ssim.value, q.ssim.margin, 3)
    rows.append(("this network", psnr, ssim, number(q.mse.value, 5), share(q.explained_variance)))
    baseline("  on training images", None if metrics.evaluated else q.train_explained_variance)
    baseline("frozen random encoder", metrics.frozen, shown=True)
    baseline("linear decoder", perturbation.linear, shown=True)
    baseline("flat grey image", perturbation.grey, shown=verbose or perturbation.grey > 0)
    psnr, ssim = number(q.mean_image_psnr, 2), number(q.mean_image_ssim, 3)
    rows.append(("mean image", psnr, ssim, number(q.mean_image_mse, 5), share(0.0)))
    baseline("mean latent code", perturbation.mean_latent)
    baseline("latent code of zeros", perturbation.zero_latent)
    baseline("black image", 1 - q.black_mse / q.mean_image_mse if q.mean_image_mse else None)
    columns = [
        Column("model"),
        Column("PSNR", unit="dB", right=True),
        Column("SSIM", right=True, spare=1),
        Column("MSE", right=True, spare=2),
        Column("explained", right=True, limit=f"> {share(LITTLE_EXPLAINED, 0)}"),
    ]
    return Table.of(columns, rows, bold=network)


def _layers(metrics: Metrics, thresholds: Mapping[str, float]) -> Table:
    """How many filters of each convolution are of no use, and how far it is from its initial weights."""

    def below(code: str) -> str:
        return f"< {share(thresholds[code], 0)}" if code in thresholds else ""

    def part(maps: int | None, layer: Layer) -> str:
        return "" if maps is None else f"{maps} ({share(maps / layer.filters, 0)})"

    rows = [
        (
            layer.name,
            str(layer.filters),
            "x".join(map(str, layer.kernel)),
            part(layer.maps.dead + layer.maps.constant, layer),
            str(layer.maps.constant),
            part(layer.duplicates, layer),
            share(layer.prunable, 0),
            "> 1000" if layer.weight_change >= 1000 else number(layer.weight_change, 2),
            number(layer.p_value, 2),
        )
        for layer in metrics.layers
    ]
    columns = [
        Column("layer", cut=True),
        Column("filters", right=True),
        Column("size", right=True, spare=2),
        Column("inactive", right=True, limit=below("CAE401")),
        Column("constant", right=True, spare=3),
        Column("duplicate", right=True, limit=below("CAE402")),
        Column("prunable", right=True, spare=1),
        Column("weight change", right=True, limit=f"> {UNCHANGED:g}"),
        Column("p", right=True),
    ]
    return Table.of(columns, rows)


def _perturbation_tests(metrics: Metrics) -> Table:
    """What the network does with other latent codes, with scrambled pixels and with noise."""
    perturbation = metrics.perturbation
    ranges = health.perturbation_ranges(metrics.network)
    tests = [
        (
            "latent swap",
            perturbation.latent_swap,
            f"above {ranges['latent swap'][0]:g}",
            "change with another image's latent code",
        ),
        (
            "pixel copy",
            perturbation.pixel_copy,
            f"below {ranges['pixel copy'][1]:.2g}",
            "contrast copied from scrambled pixels",
        ),
        (
            "noise gain",
            perturbation.noise_gain,
            f"below {ranges['noise gain'][1]:.2g}",
            "noise that reaches the output",
        ),
    ]
    rows = [(name, number(v, 2), healthy, what) for name, v, healthy, what in tests if math.isfinite(v)]
    columns = [
        Column("test"),
        Column("value", right=True),
        Column("healthy range"),
        Column("meaning", spare=1),
    ]
    return Table.of(columns, rows)


def _others(metrics: Metrics) -> Table:
    """What else was measured, for --verbose."""
    dynamics, spectrum, latent, seen = (
        metrics.dynamics,
        metrics.spectrum,
        metrics.latent,
        metrics.dataset,
    )
    groups: Mapping[str, Mapping[str, float]] = {
        "labels": {
            "accuracy of a linear classifier on latent codes": metrics.labels.trained,
            "the same with the untrained encoder": metrics.labels.initial,
        },
        "fine detail": {
            "power": spectrum.power,
            "coherence": spectrum.coherence,
            "sharpening gain": spectrum.sharpening_gain,
            "sharpness": spectrum.sharpness,
            "checkerboard": spectrum.checkerboard,
        },
        "latent code": {
            "values": float(latent.values),
            "effective rank": latent.effective_rank,
            "participation ratio": latent.participation,
            "share of dead values": latent.dead,
            "randomness": metrics.perturbation.repeat,
        },
        "training": {
            "update ratio of the first steps (log10)": dynamics.early_update,
            "update ratio of the last epoch (log10)": dynamics.last_update,
            "share of the penalty in the loss": dynamics.penalty_share,
            "share of the fall of the loss in its last quarter": dynamics.slope,
            "gradient of the first layer over the last": dynamics.gradient_ratio,
        },
        "images": {
            "variance explained by black": seen.black,
            "correlation of neighbouring pixels": seen.correlation,
            "share of distinct images": seen.distinct,
            "share of held-out images in the training set": seen.repeated,
        },
    }
    known = {
        group: {name: value for name, value in own.items() if math.isfinite(value)}
        for group, own in groups.items()
    }
    rows = [
        (group if name == next(iter(own)) else "", name, short(value))
        for group, own in known.items()
        for name, value in own.items()
    ]
    return Table.of([Column("group"), Column("metric"), Column("value", right=True)], rows)


def findings(
    diagnosis: Diagnosis,
    command: Sequence[str],
    *,
    verbose: bool = False,
    all_in_full: bool = False,
    left_out: Sequence[str] = (),
) -> list[Part]:
    """The findings, and the rules that could not be checked; arguments as for `summary`.

    Args:
        diagnosis: with the findings.
        command: as for `summary`.
        verbose: as for `summary`.
        all_in_full: every finding that follows from no other.
        left_out: what was not measured, as the network is large for its training.
    """
    parts: list[Part] = []
    full = 0
    for finding in diagnosis.findings:
        if finding.consequence_of and not verbose:
            continue  # named with its cause
        full += 1
        first = full == 1 or finding.severity is not Severity.NOTE
        in_full = verbose or all_in_full or (full <= SHOWN_IN_FULL and first)
        parts += _finding(finding, command, in_full=in_full, verbose=verbose)
        follow = [f.code for f in diagnosis.findings if f.consequence_of == finding.code]
        if follow and not verbose:
            parts.append(line(f"consequences: {', '.join(follow)}", indent=INDENT))
    if diagnosis.findings:
        parts.append("")
    reasons = dict.fromkeys(skipped.reason for skipped in diagnosis.skipped)
    notes = [
        f"not checked ({reason}): "
        + ", ".join(_named(s.code, verbose) for s in diagnosis.skipped if s.reason == reason)
        for reason in reasons
    ]
    if not verbose and len(reasons) > 1:
        shows = "--verbose" if command else "cae report RUN"  # a script has no flags
        notes = [f"{counted(len(diagnosis.skipped), 'rule')} not checked; {shows} says why"]
    if left_out:
        notes.append(f"not measured (a large network after a short training): {', '.join(left_out)}")
    if diagnosis.disabled:
        notes.append(f"disabled: {', '.join(diagnosis.disabled)}")
    if verbose:
        notes.append(f"checked, nothing found: {', '.join(_named(c, True) for c in diagnosis.passed)}")
    return [*parts, *(f"· {note}" for note in notes), *([""] if notes else [])]


def _finding(
    finding: Finding, command: Sequence[str], *, in_full: bool, verbose: bool
) -> Iterator[Part]:
    head = [(f"{MARKS[finding.severity]} ", STYLES[finding.severity])]
    head.append((f"{finding.code} {finding.problem}", "bold"))
    if finding.consequence_of:
        head.append((f" (follows from {finding.consequence_of})", ""))
    if not in_full:
        yield line(*head)
        return
    yield line(*head, f" ({finding.confidence.value} confidence)")
    yield line(finding.message, indent=INDENT)
    for evidence in finding.evidence if verbose else finding.evidence[:1]:
        picture = (
            f"; see {finding.picture}"
            if verbose and finding.picture and evidence is finding.evidence[0]
            else ""
        )
        yield line(f"{evidence}{picture}", indent=INDENT)
    # Without a command of this tool there is a script of the user's own: fixes in the words of Keras.
    for number_of, fix in enumerate(finding.fixes):
        change = " ".join(fix.overrides) if command else fix.keras or fix.why
        yield line(
            "or " if number_of else "try ",
            (change, "bold"),
            f": {fix.why} ({fix.safety.value})",
            indent=INDENT,
        )
    if finding.advice and (verbose or not finding.fixes):
        yield line(finding.advice, indent=INDENT)
    if finding.fixes and command:
        yield Command(to_paste(*finding.fixes[0].applied(command)), indent=INDENT)
    for what, others in (
        ("ruled out", finding.ruled_out),
        ("not seen, yet not ruled out", finding.unseen),
        ("not checked, or found too", finding.open),
    ):
        if others:
            codes = ", ".join(_named(code, verbose) for code in others)
            if not verbose and len(others) > MOST_CODES:
                codes = f"{', '.join(others[:MOST_CODES])} and {len(others) - MOST_CODES} more"
            yield line(f"{what}: {codes}", indent=INDENT)


def _named(code: str, verbose: bool) -> str:
    """A rule by its code, or by its code and problem."""
    if not verbose:
        return code
    return next((f"{code} {rule.problem}" for rule in RULES if rule.code == code), code)
