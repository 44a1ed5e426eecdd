"""Rules on feature maps."""

from __future__ import annotations

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import MANY_INACTIVE, USUAL_INACTIVE, Case
from cae_cli.diagnosis.catalogue import RULES, Rule
from cae_cli.diagnosis.finding import Evidence, Finding, Severity, Skipped


@RULES.add
class InactiveMaps(Rule):
    """A filter whose map does not depend on the image has learned nothing and passes nothing on."""

    code = "CAE401"
    of_filters = True
    problem = "filters are dead"
    severity = Severity.WARNING
    measured = "share of maps in the worst layer that are flat, or the same for every image"
    threshold = MANY_INACTIVE
    unit = "of its maps"
    fires = "from"
    source = "Healthy runs have 0 to 0.25 in their worst layer (Fashion-MNIST, 23 runs)."
    picture = "training_dynamics.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.too_early:
            return self.skipped(case.too_early)
        worst = max(case.metrics.layers, key=lambda layer: layer.maps.inactive_share)
        maps, share = worst.maps, worst.maps.inactive_share
        if share < self.threshold:
            return None
        proposed = fixes.revive(case)
        if case.option("optimizer.learning_rate") is not None:
            proposed.append(fixes.slower(case))
        first = min((s for s, part in worst.inactive_at.items() if part >= self.threshold), default=None)
        since = "" if first is None else f", at the latest since step {first:,}"
        return self.finding(
            f"{maps.dead + maps.constant} of {worst.filters} filters of {worst.name} are inactive "
            f"({maps.dead} dead, {maps.constant} constant){since}",
            Evidence(f"inactive in {worst.name}", share, self.threshold, USUAL_INACTIVE, self.unit),
            fixes=proposed,
        )


@RULES.add
class DuplicateMaps(Rule):
    """Duplicates cost as much as other filters and add nothing."""

    code = "CAE402"
    of_filters = True
    problem = "filters are duplicates of one another"
    severity = Severity.NOTE
    measured = (
        "share of maps of the worst hidden layer that correlate with an earlier one by more than 0.98"
    )
    threshold = 0.3
    unit = "of its maps"
    fires = "above"
    source = "Healthy runs have 0 to 0.2 in their worst layer; a dense latent code of 32 left 0.44."

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.too_early:
            return self.skipped(case.too_early)
        shares = [(layer.duplicates or 0) / layer.filters for layer in case.metrics.layers]
        if all(layer.duplicates is None for layer in case.metrics.layers):
            return self.skipped("no hidden kernel is larger than 1x1")
        share = max(shares)
        worst = case.metrics.layers[shares.index(share)]
        if share <= self.threshold:
            return None
        penalties = [name for name in case.penalties if name != "activity_l1"]
        without = [fixes.without(case, penalties, "nothing pulls filters to zero")] if penalties else []
        return self.finding(
            f"{worst.duplicates} of {worst.filters} maps of {worst.name} are duplicates",
            Evidence(f"duplicate maps of {worst.name}", share, self.threshold, (0, 0.2), self.unit),
            fixes=[*without, fixes.initializer("orthogonal", "filters that begin different")],
        )
