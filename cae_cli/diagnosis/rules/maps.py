"""Rules on feature maps."""

from __future__ import annotations

from cae_cli.diagnosis.finding import Evidence, Finding, Prescription, Safety, Severity, Skipped
from cae_cli.diagnosis.rule import RULES, Case, Rule


@RULES.add
class BlankMaps(Rule):
    """Filters whose maps say nothing about the image."""

    code = "CAE401"
    problem = "filters are dead"
    severity = Severity.WARNING
    measures = "share of maps in the worst layer that are flat, or the same for every image"
    why = "A filter whose map does not depend on the image has learned nothing and carries nothing."
    threshold = 0.4
    source = "healthy runs have 0 to .25 in their worst layer (Fashion-MNIST, 23 runs)"

    def look(self, case: Case) -> Finding | Skipped | None:
        """Fires if 40 % of a layer's maps are blank."""
        if case.too_early:
            return self.skipped(case.too_early)
        worst = max(case.measures.layers, key=lambda layer: layer.maps.blank_share)
        share = worst.maps.blank_share
        if share < self.threshold:
            return None
        ways = [Prescription((case.adding("batchnorm"),), "no filter can stay below zero", Safety.SAFE)]
        if case.option("model.activation") == "relu":
            why = "a gradient below zero"
            ways.append(Prescription(("model.activation=leaky_relu",), why, Safety.SAFE))
        ways.append(case.slower())
        return self.finding(
            f"{worst.maps.dead + worst.maps.constant} of {worst.filters} filters of "
            f"{worst.name} are blank ({worst.maps.dead} dead, {worst.maps.constant} constant)",
            Evidence(f"blank maps of {worst.name}", share, self.threshold, "0 to .25"),
            prescriptions=tuple(ways),
        )
