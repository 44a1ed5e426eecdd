"""Rules on feature maps."""

from __future__ import annotations

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import MANY_INACTIVE, USUAL_INACTIVE, Case
from cae_cli.diagnosis.catalogue import RULES, Rule
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped


@RULES.add
class InactiveMaps(Rule):
    """Filters whose maps say nothing about the image."""

    code = "CAE401"
    problem = "filters are dead"
    severity = Severity.WARNING
    measured = "share of maps in the worst layer that are flat, or the same for every image"
    why = "A filter whose map does not depend on the image has learned nothing and carries nothing."
    threshold = MANY_INACTIVE
    source = "healthy runs have 0 to .25 in their worst layer (Fashion-MNIST, 23 runs)"
    alternatives = ("CAE205", "CAE206", "CAE207")
    picture = "training_dynamics.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires if 40 % of a layer's maps are inactive."""
        if case.too_early:
            return self.skipped(case.too_early)
        worst = max(case.metrics.layers, key=lambda layer: layer.maps.inactive_share)
        share = worst.maps.inactive_share
        if share < self.threshold:
            return None
        ways = fixes.reviving(case)
        if case.option("optimizer.learning_rate") is not None:
            ways.append(fixes.slower(case))
        born = [
            step for step, inactive in sorted(worst.inactive_at.items()) if inactive >= self.threshold
        ]
        when = f", since step {born[0]:,} at the latest" if born else ""
        return self.finding(
            f"{worst.maps.dead + worst.maps.constant} of {worst.filters} filters of "
            f"{worst.name} are inactive ({worst.maps.dead} dead, {worst.maps.constant} constant){when}",
            Evidence(f"inactive maps of {worst.name}", share, self.threshold, USUAL_INACTIVE),
            fixes=ways,
        )


@RULES.add
class DuplicateMaps(Rule):
    """Filters that say what another one says."""

    code = "CAE402"
    problem = "filters repeat one another"
    severity = Severity.NOTE
    measured = (
        "share of maps in the worst hidden layer whose correlation with an earlier one is beyond .98"
    )
    why = "They cost what filters cost and add nothing; fewer would do. L2 makes more of them."
    threshold = 0.3
    source = "healthy runs have 0 to .2 in their worst layer; a dense code of 32 left .44"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires if 30 % of a layer's maps repeat another."""
        if case.too_early:
            return self.skipped(case.too_early)
        # Filters of 1x1 on one channel are multiples of one another by nature.
        layers = [layer for layer in case.hidden if max(layer.kernel[:2]) > 1]
        if not layers:
            return self.skipped("no hidden kernel is larger than 1x1")
        worst = max(layers, key=lambda layer: layer.duplicates / layer.filters)
        share = worst.duplicates / worst.filters
        if share <= self.threshold:
            return None
        ways = []
        penalties = [n for n in case.option("regularization") or {} if n in ("l1", "l2", "l1_l2")]
        if penalties:
            ways.append(Fix((fixes.without(case, penalties),), "no pull to zero", Safety.SAFE))
        ways.append(Fix(("model.initializer=orthogonal",), "drawn apart", Safety.SAFE))
        return self.finding(
            f"{worst.duplicates} of {worst.filters} maps of {worst.name} repeat another one",
            Evidence(f"repeated maps of {worst.name}", share, self.threshold, (0, 0.2)),
            fixes=ways,
        )
