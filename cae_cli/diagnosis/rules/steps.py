"""Rules on the first steps of a training: what was there before, their size, and what they fell on."""

from __future__ import annotations

import math

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import MANY_INACTIVE, USUAL_INACTIVE, USUAL_UPDATES, Case
from cae_cli.diagnosis.catalogue import RULES, Rule
from cae_cli.diagnosis.causes import NEVER_LEARNED
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped


@RULES.add
class DeadAtBirth(Rule):
    """Filters were inactive before the first step, and stayed so."""

    code = "CAE205"
    problem = "filters were dead before the first step"
    severity = Severity.ERROR
    measured = "share of inactive maps of the worst hidden layer, before training and at the end"
    why = "A filter that is silent for every image gets no gradient: the initializer left it no way."
    threshold = MANY_INACTIVE
    source = "healthy runs have 0 to .25 in their worst layer at any time"
    consequences = (*NEVER_LEARNED, "CAE207", "CAE208", "CAE209")
    alternatives = ("CAE207",)
    picture = "training_dynamics.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires if 40 % of a layer's maps were inactive at step 0 and are at the end."""
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        layers = [layer for layer in case.hidden if 0 in layer.inactive_at]
        if not layers:
            return self.skipped("nobody looked at the maps before training")
        worst = max(layers, key=lambda layer: min(layer.inactive_at[0], layer.maps.inactive_share))
        share = min(worst.inactive_at[0], worst.maps.inactive_share)
        if share < self.threshold:
            return None
        drawn = Fix(("model.initializer=he_normal",), "drawn for ReLU", Safety.SAFE)
        return self.finding(
            f"{worst.name}: {worst.inactive_at[0]:.0%} of the maps inactive before training, "
            f"{worst.maps.inactive_share:.0%} after",
            Evidence(f"inactive maps of {worst.name} throughout", share, self.threshold, USUAL_INACTIVE),
            fixes=(drawn, *fixes.reviving(case)),
        )


@RULES.add
class PenaltyTooStrong(Rule):
    """The penalty outweighs the images."""

    code = "CAE206"
    problem = "the penalty outweighs the reconstruction"
    severity = Severity.ERROR
    measured = "share of the penalties in the loss of the first five steps"
    why = (
        "The optimizer then shrinks weights or codes rather than learning from images. The share at "
        "the end says nothing: by then they are gone."
    )
    threshold = 0.5
    source = "healthy runs have 0 to .16, L2 .001 among them"
    consequences = (*NEVER_LEARNED, "CAE208", "CAE209", "CAE501")
    alternatives = ("CAE207", "CAE208")
    picture = "training_dynamics.png"
    # Shares that are proposed. A silent map costs nothing: what falls on maps kills them sooner.
    right, right_of_maps = 0.05, 0.01

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires above one half."""
        if case.metrics.dynamics.steps is None:
            return self.skipped("nobody watched the training")
        share = case.metrics.dynamics.penalty_share
        if not math.isfinite(share):
            return self.skipped("nobody watched the first steps")
        if share <= self.threshold:
            return None
        had = case.option("regularization") or {}
        penalties = [name for name in had if name in ("l1", "l2", "l1_l2", "activity_l1")]
        ways = []
        for name in penalties if share < 1 else ():
            right = self.right_of_maps if name == "activity_l1" else self.right
            # Penalty over data loss was s / (1 - s), and is proportional to the strength.
            factor = right / (1 - right) * (1 - share) / share
            keys = ("l1", "l2") if name == "l1_l2" else ("strength",)
            weaker = tuple(f"regularization.{name}.{key}={had[name][key] * factor:.1g}" for key in keys)
            ways.append(Fix(weaker, f"{right:.0%} of the loss", Safety.SAFE))
        if penalties:
            ways.append(Fix((fixes.without(case, penalties),), "no penalty", Safety.SAFE))
        return self.finding(
            f"{share:.0%} of the loss of the first steps is penalty",
            Evidence("share of the penalty", share, self.threshold, (0, 0.163)),
            fixes=ways,
            advice="" if ways else "weaken the penalties of the layers",
        )


@RULES.add
class RateTooHigh(Rule):
    """Steps tear the weights, and something broke."""

    code = "CAE207"
    problem = "the learning rate is too high"
    severity = Severity.ERROR
    measured = (
        "largest update ratio of the first eight steps, log10(mean |change| / mean |weight|), "
        "median over kernels, where maps died or the result is poor; and whether the loss rose by all "
        "it had fallen, while maps died"
    )
    why = "Such steps push filters to where no image activates them, and nothing brings them back."
    threshold = -0.7
    source = (
        "healthy: -2.5 to -1.8 with Adam at .001, -1.03 at .01; at .1, where filters die, -.03; SGD "
        "with momentum may do it at its 15th or 500th step"
    )
    consequences = (*NEVER_LEARNED, "CAE501", "CAE402", "CAE304", "CAE305", "CAE503")
    many = MANY_INACTIVE
    undone = 1.0  # of what was gained; healthy runs may lose as much, but no maps with it
    alternatives = ("CAE205", "CAE206")
    picture = "training_dynamics.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires above -.7, a fifth of the weights, with dead maps or a poor result."""
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        update = case.metrics.dynamics.early_peak
        if not math.isfinite(update):
            return self.skipped("nobody watched the first steps")
        broken = case.inactive >= MANY_INACTIVE or case.poor
        inactive = Evidence(
            "inactive maps of the worst layer", case.inactive, MANY_INACTIVE, USUAL_INACTIVE
        )
        ways = (
            fixes.slower(case),
            Fix(("optimizer.clip_norm=1",), "limit the gradients", Safety.SAFE),
        )
        if update > self.threshold and broken:
            return self.finding(
                f"one of the first steps changed the weights by {10**update:.0%}; "
                f"{case.inactive:.0%} of the maps of a layer are inactive",
                Evidence(
                    "largest update ratio of the first steps", update, self.threshold, USUAL_UPDATES
                ),
                inactive,
                fixes=ways,
            )
        died = self._died(case)
        if died is None:
            return None
        lost = case.metrics.loss_spike.share
        return self.finding(
            f"at about step {died:,} the loss rose by {lost:.0%} of what it had fallen until then, and "
            f"maps died: {case.inactive:.0%} of a layer are inactive",
            Evidence("share of the fall that was lost again", lost, self.undone, (0, 0.8)),
            inactive,
            fixes=ways,
        )

    def _died(self, case: Case) -> int | None:
        """The step at which the loss lost all it had gained, if maps died with it.

        A penalty that outweighs the images raises their loss as well, and that is another cause.
        """
        metrics = case.metrics
        steps, lost = metrics.dynamics.steps, metrics.loss_spike
        if not steps or not lost.share >= self.undone or metrics.dynamics.penalty_share > 0.5:
            return None
        at = round(lost.at * steps)
        for layer in case.hidden:
            before = [inactive for step, inactive in sorted(layer.inactive_at.items()) if step < at]
            after = [inactive for step, inactive in sorted(layer.inactive_at.items()) if step >= at]
            soon = max(after[:2], default=layer.maps.inactive_share)  # dying takes some steps
            if before and before[-1] < self.many <= min(soon, layer.maps.inactive_share):
                return at
        return None


@RULES.add
class RateTooLow(Rule):
    """Steps are too small to get anywhere."""

    code = "CAE208"
    problem = "the learning rate is too low"
    severity = Severity.ERROR
    measured = "median update ratio of the first eight steps, where the result is poor"
    why = "The weights are still close to where the initializer put them."
    threshold = -3.5
    source = "healthy: -2.1 to -1.8; Adam at 1e-5 has -4"
    consequences = (*NEVER_LEARNED, "CAE304")
    alternatives = ("CAE209", "CAE206", "CAE205")
    picture = "training_dynamics.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires below -3.5 with a poor result."""
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        update = case.metrics.dynamics.early_update
        if not math.isfinite(update):
            return self.skipped("nobody watched the first steps")
        if update >= self.threshold or not case.poor:
            return None
        return self.finding(
            f"each of the first steps changed the weights by {10**update:.2g} of themselves",
            Evidence("update ratio of the first steps", update, self.threshold, USUAL_UPDATES),
            fixes=(fixes.faster(case), fixes.longer(case)),
        )
