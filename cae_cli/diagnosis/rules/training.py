"""Rules on the course of the training."""

from __future__ import annotations

import math
from dataclasses import replace

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import (
    FALLING_FAST,
    FEWEST_STEPS,
    LITTLE_EXPLAINED,
    STEPS_FOR_SKILL,
    UNCHANGED,
    Case,
)
from cae_cli.diagnosis.catalogue import RULES, Rule, When
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped
from cae_cli.diagnosis.rules.output import OutputCollapsed
from cae_cli.errors import counted

INF = math.inf


@RULES.add
class Diverged(Rule):
    """Training stopped there; the weights are those of the last good step."""

    code = "CAE201"
    problem = "the training diverged"
    severity = Severity.ERROR
    measured = "the first step whose loss or gradient norm is not a finite number"
    threshold = 0
    unit = "(step)"
    fires = "by definition"
    source = "This holds by definition."
    picture = "curves.png"

    def check(self, case: Case) -> Finding | None:
        step = case.metrics.dynamics.diverged_at
        if step is None:
            return None
        return self.finding(
            f"the loss or the gradient was NaN or infinite at step {step}",
            Evidence("first step that is not finite", step, self.threshold, (0, 0), self.unit),
            fixes=(fixes.slower(case), fixes.CLIPPED_GRADIENTS),
        )


@RULES.add
class NotLearning(Rule):
    """The training did not make the validation loss smaller.

    What the filters are, changed or not, is not learned from the images.
    """

    code = "CAE202"
    problem = "nothing was learned"
    severity = Severity.ERROR
    measured = (
        "fall of the validation loss over its start, where less than 0.1 of the variance is explained"
    )
    threshold = 0.01
    unit = "of its start"
    fires = "below"
    source = "Healthy runs of the reference network lose more than half in their first epoch."
    picture = "curves.png"
    # A loss with a floor (cross-entropy of grey images) hardly falls in healthy runs either.
    most_explained = LITTLE_EXPLAINED

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        first, last = case.metrics.dynamics.first_val_loss, case.metrics.dynamics.last_val_loss
        if not (math.isfinite(first) and math.isfinite(last)) or first == 0:
            return self.skipped("the validation loss before or after training is unknown")
        fall = (first - last) / abs(first)
        if fall >= self.threshold or case.metrics.quality.explained_variance >= self.most_explained:
            return None
        change = max(layer.weight_change for layer in case.metrics.layers)
        message = f"the validation loss went from {first:.4g} to {last:.4g}"
        proposed = [fixes.batchnorm(case), fixes.slower(case)]
        if case.unchanged:
            message += f", and no layer changed by more than {change:.1%} of its weights"
            proposed = [fixes.faster(case)]
        return self.finding(
            message,
            Evidence("fall of the validation loss", fall, self.threshold, (0.5, INF), self.unit),
            case.explained_variance(self.most_explained),
            Evidence("largest weight change", change, UNCHANGED, (0.5, 1.1), "of the initial weights"),
            fixes=proposed,
        )


@RULES.add
class OutputActivation(Rule):
    """With softmax the channels of a pixel sum to 1.

    A single channel is then 1 for any input, and no gradient passes.
    """

    code = "CAE203"
    exact = True
    problem = "the output activation cannot produce an image"
    severity = Severity.ERROR
    when = When.ALWAYS
    measured = "whether the last activation is a softmax over the channels of each pixel"
    threshold = 0
    unit = "(1 yes, 0 no)"
    fires = "by definition"
    source = "This holds by definition."

    def check(self, case: Case) -> Finding | Skipped | None:
        activation = case.network.output_activation
        if activation is None:
            return self.skipped("the output activation is unknown")
        if activation != "softmax":
            return None
        channels = case.network.image_shape[2]
        what = "a channel that is always 1" if channels == 1 else f"{channels} channels that sum to 1"
        return self.finding(
            f"the last layer has a softmax over {what}",
            Evidence("softmax over channels", 1, self.threshold, (0, 0), self.unit),
            fixes=(fixes.SIGMOID_OUTPUT,),
        )


@RULES.add
class LossElsewhere(Rule):
    """A network follows its loss: as small at another output, it does not keep the network at the image.

    Keras clips what it takes a logarithm of, so a value beyond has no gradient and stays there, whatever
    the image shows.
    """

    code = "CAE215"
    problem = "the loss is smallest elsewhere than at the images"
    severity = Severity.WARNING
    measured = (
        "distance from the images, in standard deviations, of outputs whose loss is no larger than that "
        "of the images; or share of the squared error in outputs beyond the range of the images where "
        "the loss has no gradient"
    )
    threshold = 0.25
    unit = "(std)"
    fires = "above"
    source = (
        "On seven sets of images, losses that compare images have nothing as good from 0.25 on: mse, "
        "mae, huber, msle, cross-entropy, SSIM and its mixtures; the nearest needs 4 % of the loss of "
        "the mean image. msle of images in [-1, 1] has 0.8 to 1.1 (error 10.6 times as large), "
        "categorical hinge 0.31 and more (3.9), hinge 3.2. Cross-entropy of a linear output on MNIST "
        "leaves 0.68 unmoved, that of a softplus, which did no harm, 0."
    )
    most_unmoved = 0.1

    def check(self, case: Case) -> Finding | Skipped | None:
        loss = case.metrics.loss
        if not math.isfinite(loss.elsewhere + loss.unmoved):
            return self.skipped("the loss is not known")
        low, high = case.network.span
        if loss.elsewhere > self.threshold:
            finding = self.finding(
                f"an output that is {loss.elsewhere:.2g} standard deviations from the images, which are "
                f"from {low:g} to {high:g}, has no larger loss than they have",
                Evidence("as good as the images", loss.elsewhere, self.threshold, (0, 0), self.unit),
                fixes=(fixes.SQUARED_ERROR,),
                advice="a loss that is smallest where output and image are equal",
            )
        elif loss.unmoved > self.most_unmoved:
            finding = self.finding(
                f"{loss.unmoved:.0%} of the squared error is in outputs beyond the range of the images, "
                "where the loss has no gradient",
                Evidence("unmoved", loss.unmoved, self.most_unmoved, (0, 0.02), "of the squared error"),
                fixes=(fixes.SIGMOID_OUTPUT,),
                advice="or loss=keras.losses.BinaryCrossentropy(from_logits=True), with a sigmoid on "
                "what the trained model puts out",
            )
        else:
            return None
        is_error = not case.unusable and case.poor
        return replace(finding, severity=Severity.ERROR) if is_error else finding


@RULES.add
class ReportedLoss(Rule):
    """SSIM with max_val=255 on images in [0, 1] is near 1 for any output.

    The loss looks excellent and passes almost no gradient.
    """

    code = "CAE204"
    problem = "the loss was computed with the wrong range"
    severity = Severity.WARNING
    measured = (
        "reported loss minus the same loss by its definition; where there is none, k2 over the contrast"
        " of the images"
    )
    threshold = 0.15
    unit = "(loss)"
    fires = "above"
    source = (
        "They agree within 0.06 in healthy runs with any window; the constants of 255 give 0.3 to 0.9."
    )
    references = ("Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004",)
    outweighed = 1.0  # k2 over the contrast of the images; the paper's 0.03 gives 0.1 to 0.2

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.unrecorded:
            return self.skipped(case.unrecorded)
        reported, computed = case.metrics.dynamics.reported_loss, case.metrics.dynamics.recomputed_loss
        if not math.isfinite(computed + reported):
            # Other losses have no metric of the same definition, and no constants to be wrong.
            if case.fact("loss.validation_metric"):
                return self.skipped("the loss was not computed from its definition")
            return self._constants(case)
        apart = abs(reported - computed)
        if not apart > self.threshold:
            return None
        return self._finding(
            case,
            f"the reported loss is {reported:.3g}, the loss by its definition {computed:.3g}",
            Evidence("difference of the losses", apart, self.threshold, (0, 0.06), self.unit),
        )

    def _constants(self, case: Case) -> Finding | None:
        """For losses that have the constants of SSIM and no metric of the same definition.

        (2 cov + c2) / (var + var' + c2), c2 = k2²: with k2 beyond the contrast it is 1 for any output.
        """
        k2, contrast = case.option("loss.k2"), case.dataset.image_std
        ratio = float(k2) / contrast if k2 is not None and contrast > 0 else 0.0
        if ratio <= self.outweighed:
            return None
        return self._finding(
            case,
            f"loss.k2={k2:g} is {ratio:.1f} times the contrast of the images ({contrast:.2g}), so the "
            "loss is near 0 for any output",
            Evidence("k2", ratio, self.outweighed, (0, 0.2), "of the images' contrast"),
        )

    def _finding(self, case: Case, message: str, evidence: Evidence) -> Finding:
        proposed = (fixes.SSIM_CONSTANTS, fixes.SCALED_IMAGES)
        return self.finding(
            message,
            evidence,
            fixes=proposed if case.option("loss.k1") is not None else proposed[1:],
            advice="compute the loss with the range that the images really have",
        )


@RULES.add
class EncoderFrozen(Rule):
    """Their filters are those of the initializer, whatever the reconstruction looks like.

    A decoder explains 0.74 on Fashion-MNIST from random filters.
    """

    code = "CAE209"
    of_filters = True
    exact = True
    problem = "layers were never trained"
    severity = Severity.WARNING
    measured = "smallest weight change of a convolution, where another one changed"
    threshold = 1e-6
    unit = "of initial weights"
    fires = "below"
    source = "Healthy layers change by 0.55 to 1.03 of their weights, frozen layers by 0."

    def check(self, case: Case) -> Finding | Skipped | None:
        change = {layer.name: layer.weight_change for layer in case.metrics.layers}
        if any(math.isnan(value) for value in change.values()):
            return self.skipped("the initial weights are unknown")
        if case.metrics.dynamics.steps == 0:
            return self.skipped("no complete epoch was trained")
        still = ", ".join(name for name, value in change.items() if value < self.threshold)
        if not still or max(change.values()) < UNCHANGED:
            return None
        least, frozen = (
            min(change.values()),
            case.option("training.frozen"),
        )  # None: a script of somebody's own
        keras = f"layer.trainable = True  # {still}"
        thaw = Fix(
            ("training.frozen=none",), "trains all layers", Safety.SAFE, keras, edit="all layers trained"
        )
        return self.finding(
            f"the weights of {still} did not change",
            Evidence("smallest weight change", least, self.threshold, (0.55, 1.03), self.unit),
            fixes=(fixes.batchnorm(case),) if frozen == "none" else (thaw,),
            advice="look for a gradient that is cut off" if frozen in (None, "none") else "",
        )


@RULES.add
class HalfPrecision(Rule):
    """Half precision has three decimal digits, and in float16 nothing below 6e-8.

    Updates smaller than a thousandth of a weight are rounded away, and squared gradients become 0: Adam
    then divides by its epsilon, and the weights jump or are no longer finite.
    """

    code = "CAE213"
    problem = "the weights have half precision"
    severity = Severity.ERROR
    measured = (
        "bits of the narrowest trained weights, where the result is poor, a layer did not change, or "
        "numbers are not finite"
    )
    threshold = 32
    unit = "bits"
    fires = "below"
    source = "This holds by definition. The policy mixed_float16 keeps its weights in float32."

    def check(self, case: Case) -> Finding | Skipped | None:
        dtype, metrics = case.network.half_precision, case.metrics
        if dtype is None:
            return None
        finite = math.isfinite(metrics.quality.explained_variance)
        finite = finite and metrics.dynamics.diverged_at is None
        if finite and case.too_early:
            return self.skipped(case.too_early)
        still = [layer.name for layer in metrics.layers if layer.weight_change < UNCHANGED]
        if not finite:
            what = "numbers were not finite"
        elif still:
            what = f"the updates of {', '.join(still)} were rounded away"
        elif case.poor:
            what = "the result is poor"
        else:
            return None
        return self.finding(
            f"weights are {dtype}, and {what}",
            Evidence("narrowest weights", 16, self.threshold, (32, 64), self.unit),
            fixes=(fixes.WIDER_WEIGHTS,),
            advice="" if case.script else "keep the weights in float32",
        )


@RULES.add
class DropoutTooStrong(Rule):
    """What dropout draws outweighs what is left of the image, so the mean image is the safest output.

    Behind the last layer it sets pixels of the output to zero, which no network can make up for. Where
    the result is not poor, the network keeps its output near the mean image to draw less, and dropout
    that masks the image itself does not count: a denoiser is trained like that.
    """

    code = "CAE214"
    problem = "dropout is too strong"
    severity = Severity.ERROR
    measured = (
        "share of the variance of the output that dropout draws, in training mode after training; 0.05 "
        "more is allowed before step 768; a warning where the result is not poor and there is no "
        "dropout behind the last layer"
    )
    threshold = 0.1
    unit = "of the output's variance"
    fires = "above"
    source = (
        "After 1,024 steps, dropout of 0.1, 0.2, 0.3 and 0.5 behind each layer has 0.036, 0.064, 0.089 "
        "and 0.13 on Fashion-MNIST, and errors of 1.05, 1.4, 2.1 and 2.7 times that without; on MNIST "
        "0.078, 0.12, 0.17 and 0.27 with 1.2, 1.6, 2.1 and 3.7 times. In scripts of others, 0.02 to "
        "0.04 has 1.0 to 1.14 times, 0.17 has 2.7. After 250 steps 0.1 and 0.2 have 0.06 to 0.1 and "
        "cost little."
    )
    early = 0.05  # more where the network had no time to quieten what is drawn

    def check(self, case: Case) -> Finding | Skipped | None:
        metrics, behind = case.metrics, case.network.drops_output
        if math.isnan(metrics.dropout_noise):
            return None
        if case.too_early:
            return self.skipped(case.too_early)
        is_error = case.poor or behind
        share = metrics.dropout_noise if is_error else metrics.hidden_dropout_noise
        if math.isnan(share):
            return self.skipped("what hidden dropout draws was not measured")
        more = self.early if case.fewer_steps_than(STEPS_FOR_SKILL) else 0.0
        most, healthy = self.threshold + more, (0.0, 0.08 + more)
        if share <= most:
            return None
        fewer = fixes.without(case, ["dropout"], "nothing is dropped")
        where = ", also behind the last layer" if behind else ""
        finding = self.finding(
            f"in training mode {share:.0%} of the variance of the output is what dropout draws{where}",
            Evidence("drawn by dropout", share, most, healthy, self.unit),
            fixes=(
                replace(fewer, keras="Dropout(0)  # in all such layers, or none of them"),
                fixes.WEAKER_DROPOUT,
            ),
            advice="" if case.script else "drop less",
        )
        return finding if is_error else replace(finding, severity=Severity.WARNING)


@RULES.add
class ModeMismatch(Rule):
    """The running averages, which the finished network uses, are still near where they began.

    Too few steps, or a momentum too near 1, cause that.
    """

    code = "CAE210"
    problem = "the running averages of batch normalisation do not fit"
    severity = Severity.ERROR
    measured = (
        "explained variance of training images with the statistics of the batch minus that with the "
        "running averages; of held-out images where no others are known"
    )
    threshold = 0.1
    unit = "of the variance"
    fires = "above"
    source = "Healthy networks with batch normalisation differ by less than 0.03, with batches of 2 too."

    def check(self, case: Case) -> Finding | Skipped | None:
        if not case.network.normalised:
            return None
        if case.unusable:
            return self.skipped(case.unusable)
        # Held-out images of other kinds gain by their own statistics, however well the averages fit.
        quality, perturbation = case.metrics.quality, case.metrics.perturbation
        gain, explained = perturbation.training_mode_train, quality.train_explained_variance
        if not math.isfinite(gain):
            gain, explained = perturbation.training_mode, quality.explained_variance
        if not math.isfinite(gain):
            return self.skipped("the network was not measured in training mode")
        if gain <= self.threshold:
            return None
        proposed = [fixes.longer(case)]
        if case.script or (case.option("regularization.batchnorm.momentum") or 0) > 0.9:
            overrides = ("regularization.batchnorm.momentum=0.9",)
            keras = "BatchNormalization(momentum=0.9)  # the default of Keras is 0.99"
            proposed.insert(0, Fix(overrides, "averages that adapt faster", Safety.SAFE, keras))
        return self.finding(
            f"explained variance is {explained:.3f}, and {explained + gain:.3f} with the statistics of "
            "the batch",
            Evidence("gain in training mode", gain, self.threshold, (-0.03, 0.03), self.unit),
            fixes=proposed,
        )


@RULES.add
class UnderTrained(Rule):
    """The loss was still falling fast: more steps alone may be enough."""

    code = "CAE211"
    problem = "training ended too early"
    severity = Severity.WARNING
    measured = (
        "share of the fall of the loss in its last quarter: above the threshold for a short run with a "
        "poor result, twice it for either, five times it alone; or fewer than 128 steps with a poor "
        "result; or whether the output is still the mean image while the steps are as large as at "
        "first, after fewer than 768 steps of usual size"
    )
    threshold = 0.016
    unit = "of the fall of the loss"
    fires = "above"
    source = (
        "Runs of 200 steps have 0.018 to 0.032, healthy runs of 1,024 steps 0.004 to 0.031, no healthy "
        "run more than 0.08. A healthy network passes the linear decoder within 768 steps, on MNIST "
        "within 150. Dense latent codes of 8 and 16 stay at the mean image for up to 300 steps, with "
        "steps 0.4 to 0.6 powers of ten below the first; in collapsed networks they are 1.3 and more "
        "below."
    )
    either, alone = 2.0, FALLING_FAST / threshold  # times the threshold
    picture = "curves.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        dynamics = case.metrics.dynamics
        if case.unusable or dynamics.steps is None:
            return self.skipped(case.unrecorded or "")
        if dynamics.steps < FEWEST_STEPS:
            return self._few(case, dynamics.steps)
        share = case.metrics.quality.output_variance_share
        if share < OutputCollapsed.threshold and case.on_plateau:
            size = 10**dynamics.last_update
            return self.finding(
                f"after {dynamics.steps} steps the output is still the mean image, which networks learn "
                f"first; all layers are active, and a step still changes the weights by {size:.1%}",
                Evidence(
                    "output variance",
                    share,
                    OutputCollapsed.threshold,
                    (0.7, INF),
                    "of the images' variance",
                ),
                fixes=(fixes.longer(case, STEPS_FOR_SKILL),),
            )
        slope = dynamics.slope
        if not math.isfinite(slope):
            return self.skipped("the loss was not recorded, or did not fall")
        if case.nearly_all_explained:
            return None
        hints = case.poor + bool(case.fewer_steps_than(STEPS_FOR_SKILL))
        limit = self.threshold * (self.alone, self.either, 1.0)[hints]
        if slope <= limit:
            return None
        evidence = [Evidence("last quarter", slope, limit, (0, 0.014), self.unit)]
        if math.isfinite(case.metrics.perturbation.skill_score) and case.poor:
            evidence.append(case.skill_score())
        return self.finding(
            f"the last quarter of the training contributed {slope:.1%} of the fall of the loss",
            *evidence,
            fixes=(fixes.longer(case), fixes.faster(case)),
        )

    def _few(self, case: Case, steps: int) -> Finding | Skipped:
        """Whatever else is wrong: nothing can be learned in so few steps, and nothing else be told."""
        if not case.poor:
            return self.skipped(case.too_early or "")
        return self.finding(
            f"{counted(steps, 'step')} {'is' if steps == 1 else 'are'} too few for most networks; by "
            f"{STEPS_FOR_SKILL} steps healthy ones are better than a linear decoder",
            Evidence("steps", steps, FEWEST_STEPS, (STEPS_FOR_SKILL, INF)),
            fixes=(fixes.longer(case, STEPS_FOR_SKILL),),
        )
