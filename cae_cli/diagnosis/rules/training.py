"""Rules on how the training went."""

from __future__ import annotations

import math

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import (
    LITTLE_EXPLAINED,
    POOR_SKILL,
    STEPS_FOR_SKILL,
    UNMOVED,
    USUAL_SKILL,
    Case,
)
from cae_cli.diagnosis.catalogue import RULES, Rule, When
from cae_cli.diagnosis.causes import NEVER_LEARNED
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped

INF = math.inf


@RULES.add
class Diverged(Rule):
    """Loss or gradient became NaN or infinite."""

    code = "CAE201"
    problem = "the training diverged"
    severity = Severity.ERROR
    measured = "whether loss and gradient norm of every step are finite numbers"
    why = "Training stopped there; the weights are those of the last good step, not trained ones."
    threshold = 0
    source = "by definition"
    consequences = (*NEVER_LEARNED, "CAE207", "CAE501")
    picture = "curves.png"

    def check(self, case: Case) -> Finding | None:
        """Fires if training ended at a step that was not finite."""
        step = case.metrics.dynamics.diverged_at
        if step is None:
            return None
        return self.finding(
            f"loss or gradient was NaN or infinite at step {step}",
            Evidence("first step that was not finite", step, self.threshold, (0, 0)),
            fixes=(
                fixes.slower(case),
                Fix(("optimizer.clip_norm=1",), "limit the gradients", Safety.SAFE),
            ),
        )


@RULES.add
class NotLearning(Rule):
    """The validation loss did not fall."""

    code = "CAE202"
    problem = "nothing was learned"
    severity = Severity.ERROR
    measured = "fall of val/loss from before training, as a share of it, and explained variance"
    why = "The filters are what the initializer drew."
    threshold = 0.01
    source = "healthy runs of the reference network lose more than half in their first epoch"
    consequences = ("CAE302", "CAE303", "CAE401")
    picture = "curves.png"
    # A loss with a floor (cross-entropy of grey images) hardly falls even where all is well.
    most_explained = LITTLE_EXPLAINED

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires if the loss fell by less than 1 % and next to nothing is explained."""
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        dynamics = case.metrics.dynamics
        first, last = dynamics.first_val_loss, dynamics.last_val_loss
        if not (math.isfinite(first) and math.isfinite(last)) or first == 0:
            return self.skipped("the validation loss before or after training is unknown")
        fall = (first - last) / abs(first)
        explained = case.metrics.quality.explained_variance
        if fall >= self.threshold or explained >= self.most_explained:
            return None
        moved = max(layer.weight_change for layer in case.metrics.layers)
        ways = [
            Fix((fixes.adding(case, "batchnorm"),), "live gradients", Safety.SAFE),
            fixes.slower(case),
        ]
        message = f"val/loss went from {first:.4g} to {last:.4g}"
        if case.untrained:
            message += f", and no layer moved by more than {moved:.1%} of its weights"
            ways = [fixes.faster(case)]
        return self.finding(
            message,
            Evidence("fall of the validation loss", fall, self.threshold, (0.5, INF)),
            Evidence("explained variance", explained, self.most_explained, (0.7, 1)),
            Evidence("largest weight change of a layer", moved, UNMOVED, (0.5, 1.1)),
            fixes=ways,
        )


@RULES.add
class OutputActivation(Rule):
    """The last activation ties the channels of a pixel together."""

    code = "CAE203"
    problem = "the output's activation cannot make an image"
    severity = Severity.ERROR
    when = When.ALWAYS
    measured = "whether the last activation is a softmax over the channels of each pixel"
    why = (
        "Softmax makes the channels of a pixel sum to 1. With one channel the output is 1 whatever "
        "comes in, and no gradient passes."
    )
    threshold = 0
    source = "by definition"
    consequences = (*NEVER_LEARNED, "CAE204", "CAE205", "CAE207", "CAE208", "CAE209", "CAE502")

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires for softmax."""
        activation = case.network.output_activation
        if activation is None:
            return self.skipped("the output's activation is unknown")
        if activation != "softmax":
            return None
        channels = case.network.image_shape[2]
        what = "1 whatever comes in" if channels == 1 else f"{channels} channels that sum to 1"
        return self.finding(
            f"softmax over {channels} channel{'' if channels == 1 else 's'}: {what}",
            Evidence("softmax over channels", 1, self.threshold, (0, 0)),
            fixes=(Fix(("model.output_activation=sigmoid",), "each pixel for itself", Safety.SAFE),),
        )


@RULES.add
class ReportedLoss(Rule):
    """The loss that was reported is not the one of its name."""

    code = "CAE204"
    problem = "the loss was computed with the wrong range"
    severity = Severity.WARNING
    measured = (
        "loss reported for the watched images minus the same loss computed anew by its definition; "
        "where that cannot be done, its constant k2 over the contrast of the images"
    )
    why = (
        "SSIM with max_val=255 on images in [0, 1] is near 1 for any output: the loss looks excellent "
        "and teaches next to nothing."
    )
    threshold = 0.15
    source = "equal within .06 in healthy runs, whatever the window; .3 to .9 with the constants of 255"
    consequences = NEVER_LEARNED
    references = ("Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004",)
    advice = "give the loss the range that the images really have"
    outweighed = 1.0  # k2 over the contrast of the images; the paper's .03 has .1 to .2

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires above .15 for 1 - SSIM; for other losses with its constants, by them."""
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        dynamics = case.metrics.dynamics
        if not math.isfinite(dynamics.recomputed_loss + dynamics.reported_loss):
            # Other losses have no yardstick of the same definition, and no constants to be wrong.
            if case.option("loss.name") == "ssim":
                return self.skipped("the loss was not computed anew")
            return self._constants(case)
        apart = abs(dynamics.reported_loss - dynamics.recomputed_loss)
        if not apart > self.threshold:
            return None
        return self.finding(
            f"reported {dynamics.reported_loss:.3g}, by its definition {dynamics.recomputed_loss:.3g}",
            Evidence("difference of the losses", apart, self.threshold, (0, 0.06)),
            fixes=self._fixes(case),
            advice=self.advice,
        )

    def _constants(self, case: Case) -> Finding | None:
        """For losses that have the constants of SSIM and no yardstick of the same definition.

        (2 cov + c2) / (var + var' + c2), c2 = k2²: with k2 beyond the contrast it is 1 for any output.
        """
        k2, contrast = case.option("loss.k2"), case.dataset.image_std
        ratio = float(k2) / contrast if k2 is not None and contrast > 0 else 0.0
        if ratio <= self.outweighed:
            return None
        return self.finding(
            f"loss.k2={k2:g} is {ratio:.1f} times the contrast of the images ({contrast:.2g}): the loss "
            "is near 0 for any output",
            Evidence("k2 over the images' contrast", ratio, self.outweighed, (0, 0.2)),
            fixes=self._fixes(case),
            advice=self.advice,
        )

    @staticmethod
    def _fixes(case: Case) -> list[Fix]:
        ways = [Fix(("data.scale=auto",), "images in [0, 1]", Safety.SAFE)]
        if case.option("loss.k1") is not None:
            constants = ("loss.k1=0.01", "loss.k2=0.03")
            ways.insert(0, Fix(constants, "the paper's constants", Safety.SAFE))
        return ways


@RULES.add
class EncoderFrozen(Rule):
    """Layers never moved while others did."""

    code = "CAE209"
    problem = "layers were never trained"
    severity = Severity.WARNING
    measured = "convolutions whose kernel did not move at all, while another's did"
    why = (
        "Their filters are what the initializer drew, whatever the reconstruction looks like: a "
        "decoder explains .74 on Fashion-MNIST from random filters."
    )
    threshold = 1e-6
    source = "healthy layers moved by .55 to 1.03 of their weights, frozen ones by 0"
    consequences = ("CAE303", "CAE302", "CAE202", "CAE602", "CAE211")
    alternatives = ("CAE208",)

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires if a layer's weight change is 0."""
        moved = {layer.name: layer.weight_change for layer in case.metrics.layers}
        if any(math.isnan(value) for value in moved.values()):
            return self.skipped("the initial weights are unknown")
        if case.metrics.dynamics.steps == 0:
            return self.skipped("no whole epoch was trained")
        still = [name for name, value in moved.items() if value < self.threshold]
        if not still or max(moved.values()) < UNMOVED:
            return None
        ways = []
        if case.option("training.frozen") not in (None, "none"):
            ways = [Fix(("training.frozen=none",), "train all of it", Safety.SAFE)]
        else:
            ways = [Fix((fixes.adding(case, "batchnorm"),), "live gradients", Safety.SAFE)]
        return self.finding(
            f"{', '.join(still)} did not move",
            Evidence("smallest weight change", min(moved.values()), self.threshold, (0.55, 1.03)),
            fixes=ways,
            advice="" if self._frozen(case) else "look for trainable=False, and for a cut gradient",
        )

    @staticmethod
    def _frozen(case: Case) -> bool:
        return case.option("training.frozen") not in (None, "none")


@RULES.add
class ModeMismatch(Rule):
    """Batch normalisation does something else after training than in it."""

    code = "CAE210"
    problem = "batch normalisation's averages do not fit"
    severity = Severity.ERROR
    measured = (
        "explained variance with batch normalisation as in training, minus that of the network as "
        "it is used"
    )
    why = (
        "In use the running averages take the place of the batch's own. Too few steps, or a momentum "
        "too near 1, leave them where they began."
    )
    threshold = 0.1
    source = "healthy networks with batch normalisation differ by less than .03, batches of 2 too"
    consequences = (*NEVER_LEARNED, "CAE501", "CAE502")
    alternatives = ("CAE207", "CAE208")

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires if the network would explain .1 more in training mode."""
        if not case.network.normalised:
            return None
        if case.unusable:
            return self.skipped(case.unusable)
        gain = case.metrics.perturbation.training_mode
        if not math.isfinite(gain):
            return self.skipped("not measured")
        if gain <= self.threshold:
            return None
        ways = []
        momentum = case.option("regularization.batchnorm.momentum")
        if momentum is not None and momentum > 0.9:
            ways.append(
                Fix(("regularization.batchnorm.momentum=0.9",), "averages that follow", Safety.SAFE)
            )
        ways.append(fixes.longer(case))
        return self.finding(
            f"explained variance {case.metrics.quality.explained_variance:.3f} in use, "
            f"{case.metrics.quality.explained_variance + gain:.3f} as in training",
            Evidence("gain in training mode", gain, self.threshold, (-0.03, 0.03)),
            fixes=ways,
        )


@RULES.add
class UnderTrained(Rule):
    """It was still learning fast when training ended."""

    code = "CAE211"
    problem = "training ended too early"
    severity = Severity.WARNING
    measured = (
        "share of the whole fall of the loss that its last quarter brought, where the result is poor or "
        "that share is beyond any healthy one"
    )
    why = "The loss was still falling fast: what is missing may be nothing but time."
    threshold = 0.016
    source = (
        "runs of 200 steps have .018 to .032, healthy runs of 1,024 .004 to .031. So it counts where "
        "the run was short and the result is poor; twice as much where it was either, for in 768 steps "
        "a healthy network passes a linear decoder, and on MNIST it does in 150; beyond .08, more than "
        "any healthy run has (batches of two: .06), it counts alone"
    )
    either, alone = 2.0, 5.0  # times the threshold
    consequences = ("CAE303", "CAE302", "CAE304")
    alternatives = ("CAE208", "CAE206", "CAE105", "CAE103", "CAE601", "CAE603")
    picture = "curves.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires above .016 with a short run and a poor result, above .08 with neither."""
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        slope, skill_score = case.metrics.dynamics.slope, case.metrics.perturbation.skill_score
        if not math.isfinite(slope):
            return self.skipped("nobody watched the loss")
        hints = case.poor + bool(case.fewer_steps_than(STEPS_FOR_SKILL))
        line = self.threshold * (self.alone, self.either, 1.0)[hints]
        if slope <= line:
            return None
        evidence = [Evidence("share of the last quarter in the fall", slope, line, (0, 0.014))]
        if math.isfinite(skill_score) and case.poor:
            evidence.append(Evidence("skill_score", skill_score, POOR_SKILL, USUAL_SKILL))
        return self.finding(
            f"the last quarter of the training still brought {slope:.1%} of the whole fall of the loss",
            *evidence,
            fixes=(fixes.longer(case), fixes.faster(case)),
        )
