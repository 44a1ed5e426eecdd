"""Rules on the first steps of a training: the initial maps, the penalty and the size of the steps."""

from __future__ import annotations

import math

import numpy as np

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import (
    CRAWLING,
    LITTLE_EXPLAINED,
    MANY_INACTIVE,
    USUAL_INACTIVE,
    USUAL_UPDATES,
    Case,
)
from cae_cli.diagnosis.catalogue import RULES, Rule
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped
from cae_cli.metrics.maps import STEEPEST


class _FirstSteps(Rule):
    """What these rules share."""

    severity = Severity.ERROR
    picture = "training_dynamics.png"


@RULES.add
class DeadAtBirth(_FirstSteps):
    """A filter whose map is zero for every image gets no gradient, so it never changes."""

    code = "CAE205"
    problem = "filters were dead before the first step"
    measured = "inactive maps of the worst hidden layer: the smaller share of before and after training"
    threshold = MANY_INACTIVE
    unit = "of its maps"
    fires = "from"
    source = "Healthy runs have 0 to 0.25 in their worst layer at any time."

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        layers = [layer for layer in case.hidden if 0 in layer.inactive_at]
        if not layers:
            return self.skipped("the maps before training were not recorded")
        worst = max(layers, key=lambda layer: min(layer.inactive_at[0], layer.maps.inactive_share))
        before, after = worst.inactive_at[0], worst.maps.inactive_share
        share = min(before, after)
        if share < self.threshold:
            return None
        return self.finding(
            f"{before:.0%} of the maps of {worst.name} were inactive before training, {after:.0%} "
            "after it",
            Evidence(f"inactive in {worst.name}", share, self.threshold, USUAL_INACTIVE, self.unit),
            fixes=(
                fixes.initializer("he_normal", "initial weights made for ReLU"),
                *fixes.revive(case),
            ),
        )


@RULES.add
class Saturated(_FirstSteps):
    """A sigmoid passes at most a quarter of a gradient, and a saturated sigmoid or tanh far less.

    Behind some such layers as little is left of the image: their maps are almost the same for every
    image, and the first filters hardly learn. Weights that are too large saturate a tanh as well.
    """

    code = "CAE212"
    problem = "the gradient vanishes in saturated hidden layers"
    measured = (
        "product over the hidden layers of the mean slope of their sigmoid or tanh, the larger of that "
        "before and that after training, where the result is poor; also the least mean slope of a "
        "layer, as a share of the most that its activation has"
    )
    threshold = 0.02
    unit = "of the gradient"
    fires = "below"
    source = (
        "Three sigmoids at their best pass 1/64 = 0.016, four 0.004; a tanh that is not saturated "
        "passes 0.7 to 1."
    )
    half = 0.5  # of the steepest slope: below, most values of the layer are saturated

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        layers = [layer for layer in case.hidden if layer.slope_at]
        if not layers:
            if case.network.hidden_activation in STEEPEST:
                return self.skipped("the slopes of the activations were not recorded")
            return None
        if not case.poor:
            return None
        before, after = ([layer.slope_at[at(layer.slope_at)] for layer in layers] for at in (min, max))
        steepest = [STEEPEST[layer.activation or ""] for layer in layers]
        least = min(max(slopes[:2]) / slopes[2] for slopes in zip(before, after, steepest, strict=True))
        other = [fixes.ELU, fixes.RELU]
        if least < self.half:
            return self.finding(
                f"a hidden layer has {least:.0%} of the slope that its activation can have, or less, "
                "before and after training",
                Evidence("slope of a layer", least, self.half, (0.7, 1), "of the steepest"),
                case.skill_score(),
                fixes=[fixes.initializer("glorot_uniform", "weights that saturate nothing"), *other],
            )
        passed = max(math.prod(before), math.prod(after))
        if passed >= self.threshold:
            return None
        return self.finding(
            f"{len(layers)} hidden layers of sigmoid or tanh passed {math.prod(before):.2g} of the "
            f"gradient before training and {math.prod(after):.2g} after it",
            Evidence("slope of all layers", passed, self.threshold, (0.1, 1), self.unit),
            case.skill_score(),
            fixes=other,
        )


@RULES.add
class PenaltyTooStrong(_FirstSteps):
    """The optimizer shrinks weights or latent codes instead of learning from images.

    The share at the end of training tells nothing: the weights are gone by then.
    """

    code = "CAE206"
    problem = "the penalty outweighs the reconstruction"
    measured = (
        "share of the penalties in the loss of the first five steps; where almost nothing is explained, "
        "also their pull: the norm of their gradient over that of the reconstruction, largest of the "
        "kernels, median of the first eight steps"
    )
    threshold = 0.5
    unit = "of the loss"
    fires = "above"
    source = (
        "Healthy runs have 0 to 0.16, with an L2 penalty of 0.001 too. Penalties on weights pull 7 "
        "times as hard as the images where they cost little, 50 times where nothing is learned; on a "
        "code of ReLU it is 3 and 31 times on MNIST, 49 and 160 times on Fashion-MNIST."
    )
    strongest, equal = 10.0, 1.0  # pull
    # What fixes aim at: shares of the loss, or a pull as strong as that of the images if that is weaker.
    # An inactive map costs nothing, so a penalty on maps kills them earlier.
    right, right_of_maps = 0.05, 0.01

    def check(self, case: Case) -> Finding | Skipped | None:
        dynamics = case.metrics.dynamics
        if dynamics.steps is None:
            return self.skipped("the training was not recorded")
        share, pull = dynamics.penalty_share, dynamics.penalty_pull
        if not math.isfinite(share):
            if math.isfinite(dynamics.early_update) and dynamics.diverged_at is None:
                return self.skipped("the training adds to the loss in code of its own")
            return self.skipped("the first steps were not recorded")
        if share > self.threshold:
            return self._finding(
                case,
                f"{share:.0%} of the loss of the first steps is penalty",
                Evidence("penalty", share, self.threshold, (0, 0.163), self.unit),
            )
        learned = case.too_early or case.metrics.quality.explained_variance >= LITTLE_EXPLAINED
        if learned or not pull > self.strongest:
            return None
        return self._finding(
            case,
            f"in the first steps the penalty pulled {pull:.0f} times as hard at a kernel as the images",
            Evidence("pull of the penalty", pull, self.strongest, (0, 7), "times that of the images"),
            case.explained_variance(LITTLE_EXPLAINED),
        )

    def may_have_missed(self, case: Case) -> bool:
        """Also where the penalty pulls harder at a kernel than the images do, however small its share.

        An inactive map costs nothing, so a penalty on maps of 3 % of the loss may kill half of them.
        """
        return super().may_have_missed(case) or case.metrics.dynamics.penalty_pull > self.equal

    def _finding(self, case: Case, message: str, *evidence: Evidence) -> Finding:
        share, pull = case.metrics.dynamics.penalty_share, case.metrics.dynamics.penalty_pull
        named = [self._weaker(case, name, share, pull) for name in case.penalties if 0 < share < 1]
        without = fixes.without(case, case.penalties, "no penalty")
        proposed = [*named, without] if case.penalties else []
        if case.script:  # whose penalties have no names
            factor = f"{1 / pull:.1g}" if 1 < pull < math.inf else "0.1"
            keras = f"strength *= {factor}  # of the penalties of the layers"
            why = "as strong as the images"
            proposed = [
                without,
                Fix(without.overrides, why, Safety.SAFE, keras, edit="weaker penalties"),
            ]
        return self.finding(
            message,
            *evidence,
            fixes=proposed,
            advice="" if proposed else "weaken the penalties of the layers",
        )

    def _weaker(self, case: Case, name: str, share: float, pull: float) -> Fix:
        right = self.right_of_maps if name == "activity_l1" else self.right
        # Penalty over data loss was s / (1 - s), and is proportional to the strength.
        factor, why = right / (1 - right) * (1 - share) / share, f"{right:.0%} of the loss"
        if 1 < pull < math.inf and 1 / pull < factor:
            factor, why = 1 / pull, "as strong as the images"
        keys = ("l1", "l2") if name == "l1_l2" else ("strength",)
        new = {key: f"{case.option(f'regularization.{name}')[key] * factor:.1g}" for key in keys}
        return Fix(
            tuple(f"regularization.{name}.{key}={value}" for key, value in new.items()),
            why,
            Safety.SAFE,
            f"strength = {', '.join(new.values())}  # of the {name} penalty",
            edit="weaker penalties",
        )


@RULES.add
class RateTooHigh(_FirstSteps):
    """Such steps move filters to where no image activates them, and no gradient brings them back."""

    code = "CAE207"
    problem = "the learning rate is too high"
    measured = (
        "largest update ratio of the first eight steps, log10(mean |change| / mean |weight|), median "
        "over kernels, where maps died or the result is poor; where maps died, also the furthest that "
        "one of the first 32 steps moved the maps of a hidden layer, over their standard deviation, and "
        "a loss that rose by all its fall"
    )
    threshold = -0.7
    unit = "(log10)"
    fires = "above"
    source = (
        "Healthy runs have -2.5 to -1.8 with Adam at 0.001 and -1.03 at 0.01; at 0.1, where filters "
        "die, it is -0.03. SGD with momentum may lose its filters at its 15th or its 500th step. Maps "
        "move by 0.05 to 0.75 of their spread in healthy runs, by 1.4 to 15 where filters died."
    )
    many = MANY_INACTIVE
    # Of its spread, at which one step takes a map to where it was for no image before.
    furthest = 1.0
    undone = 1.0  # of what was gained; healthy runs may lose as much, but no maps with it

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        update = case.metrics.dynamics.early_peak
        if not math.isfinite(update):
            return self.skipped("the first steps were not recorded")
        inactive = Evidence("inactive", case.inactive, self.many, USUAL_INACTIVE, "of the worst layer")
        proposed = (fixes.slower(case), fixes.CLIPPED_GRADIENTS)
        if update > self.threshold and (case.inactive >= self.many or case.poor):
            return self.finding(
                f"one of the first steps changed the weights by {10**update:.0%}; {case.inactive:.0%} "
                "of the maps of a layer are inactive",
                Evidence("largest early update ratio", update, self.threshold, USUAL_UPDATES, self.unit),
                inactive,
                fixes=proposed,
            )
        moved = self._moved(case)
        if moved > self.furthest:
            return self.finding(
                f"one of the first steps moved the maps of a layer by {moved:.1f} times their spread, "
                f"and maps died: {case.inactive:.0%} of a layer are inactive",
                Evidence("movement", moved, self.furthest, (0, 0.75), "of the maps' spread"),
                inactive,
                fixes=proposed,
            )
        died = self._died(case)
        if died is None:
            return None
        lost = case.metrics.loss_spike.share
        return self.finding(
            f"at about step {died:,} the loss rose by {lost:.0%} of its fall until then, and maps died: "
            f"{case.inactive:.0%} of a layer are inactive",
            Evidence("loss spike", lost, self.undone, (0, 0.8), "of the fall of the loss"),
            inactive,
            fixes=proposed,
        )

    def _moved(self, case: Case) -> float:
        """The furthest that a step moved the maps of a hidden layer, if maps died since; else 0."""
        dying = any(
            layer.inactive_at.get(0, 1.0) < self.many <= layer.maps.inactive_share
            for layer in case.hidden
        )
        moves = [layer.largest_move for layer in case.hidden if math.isfinite(layer.largest_move)]
        return max(moves, default=0.0) if dying else 0.0

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
class RateTooLow(_FirstSteps):
    """The weights are still close to where the initializer put them."""

    code = "CAE208"
    problem = "the learning rate is too low"
    measured = (
        "median update ratio (log10) of the first eight steps, and of the last epoch if that is larger, "
        "where the result is poor and no step of the first 32 moved the maps of the median hidden layer "
        "by 1/32 of their standard deviation; of the stillest layer, where the latent code is drawn at "
        "random and moves those behind it"
    )
    threshold = CRAWLING
    unit = "(log10)"
    fires = "below"
    source = (
        "Healthy runs have -2.1 to -1.8, and move maps by 0.04 and more; Adam at 0.00001 has -4, and "
        "moves them by 0.0003 to 0.002. With momentum the first steps of healthy runs may be small."
    )
    least_move = 1 / 32  # 32 such steps may take the maps as far as they vary

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        update, last = case.metrics.dynamics.early_update, case.metrics.dynamics.last_update
        if not math.isfinite(update):
            return self.skipped("the first steps were not recorded")
        if max(update, last) >= self.threshold or not case.poor:  # later steps may be larger
            return None
        moves = [layer.largest_move for layer in case.hidden]
        is_drawn = math.isfinite(case.metrics.latent.informative)
        typical = np.min if is_drawn else np.median
        if moves and typical(moves) > self.least_move:  # NaN where it is not known
            return None
        return self.finding(
            f"each of the first steps changed the weights by {10**update:.2g} of their size",
            Evidence("early update ratio", update, self.threshold, USUAL_UPDATES, self.unit),
            fixes=(fixes.faster(case), fixes.longer(case)),
        )
