"""Rules on the reconstruction of held-out images."""

from __future__ import annotations

import math

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import (
    EXPLAINED_UNIT,
    LITTLE_EXPLAINED,
    POOR_SKILL,
    SAME_OUTPUT,
    SKILL_UNIT,
    STEPS_FOR_SKILL,
    Case,
)
from cae_cli.diagnosis.catalogue import RULES, Rule
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped

INF = math.inf


@RULES.add
class OutputCollapsed(Rule):
    """An output that contains nothing of its input leaves the latent code nothing to represent.

    A plain network with squared error and a sigmoid ends like this on dark images: it reaches black
    first, and the saturated sigmoid passes no gradient that could lead away from it.
    """

    code = "CAE301"
    problem = "the output is the same for every image"
    severity = Severity.ERROR
    measured = "variance of the output over held-out images, relative to that of the images"
    threshold = SAME_OUTPUT
    unit = "of the images' variance"
    fires = "below"
    source = "Collapsed runs on MNIST and Omniglot have 0 (8 of 8), healthy runs more than 0.7."
    picture = "reconstructions.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.too_early:
            return self.skipped(case.too_early)
        if case.unchanged:  # an untrained network gives nearly the same grey for every image
            return self.skipped("no layer has changed")
        q = case.metrics.quality
        share = q.output_variance_share
        if share >= self.threshold:
            return None
        if case.on_plateau:
            return self.skipped("the training had not yet come past the mean image")
        what = "every image gives the same output"
        if case.black:
            what = "the output is black for every image"
        return self.finding(
            f"{what}: its MSE is {q.mse.value:.4f}, that of a black image {q.black_mse:.4f}, that of "
            f"the mean image {q.mean_image_mse:.4f}",
            Evidence("output variance", share, self.threshold, (0.7, INF), self.unit),
            fixes=self._fixes(case),
        )

    @staticmethod
    def _fixes(case: Case) -> tuple[Fix, ...]:
        batchnorm = fixes.batchnorm(case, "keeps the hidden maps alive")
        if case.fact("loss.survives_saturation"):
            return batchnorm, fixes.ELU, fixes.slower(case)
        if case.network.output_activation in ("sigmoid", "hard_sigmoid"):
            return fixes.CROSS_ENTROPY, fixes.LINEAR_OUTPUT, batchnorm
        return fixes.LINEAR_OUTPUT, batchnorm, fixes.slower(case)


@RULES.add
class NoBetterThanMean(Rule):
    """A network that explains nothing of what tells images apart has no meaningful filters."""

    code = "CAE302"
    problem = "the reconstruction is no better than the mean image or a flat one"
    severity = Severity.ERROR
    measured = (
        "explained variance of held-out images, 1 - MSE / MSE of the mean training image; where flat "
        "images of the right mean grey explain more than 0, the share of what they leave"
    )
    threshold = LITTLE_EXPLAINED
    unit = EXPLAINED_UNIT
    fires = "below"
    source = (
        "Healthy runs explain 0.79 to 0.87 on Fashion-MNIST; the mean image explains 0. On patches of "
        "photographs flat images explain 0.6 to 0.85, and healthy runs 0.25 to 0.7 of the rest."
    )
    picture = "reconstructions.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.too_early:
            return self.skipped(case.too_early)
        q, flat = case.metrics.quality, case.metrics.flat
        if case.learned >= self.threshold:
            return None
        message = f"the MSE is {q.mse.value:.4f}, that of the mean image {q.mean_image_mse:.4f}"
        evidence = case.explained_variance(self.threshold)
        if flat > 0:
            message += f", that of flat images {(1 - flat) * q.mean_image_mse:.4f}"
            unit = "of what flat images leave"
            evidence = Evidence("explained variance", case.learned, self.threshold, (0.25, 1), unit)
        proposed = [fixes.slower(case), fixes.longer(case)]
        if case.fewer_steps_than(STEPS_FOR_SKILL):
            proposed.reverse()
        if "noise" in (case.option("regularization") or {}):
            # Against noise as strong as the contrast of a patch, the mean grey is the best answer.
            proposed.insert(0, fixes.without(case, ["noise"], "images whose contrast can be seen"))
        return self.finding(
            message,
            evidence,
            fixes=proposed if case.option("optimizer.learning_rate") is not None else (),
            advice="another learning rate, or more steps",
        )


@RULES.add
class WorseThanLinear(Rule):
    """The linear decoder needs no filters at all.

    A worse network makes less of its latent code than an average would.
    """

    code = "CAE303"
    problem = "the reconstruction is worse than a linear one"
    severity = Severity.NOTE
    measured = "skill score: explained variance on a scale from 0, the linear decoder, to 1, perfect"
    threshold = POOR_SKILL
    unit = SKILL_UNIT
    fires = "below"
    picture = "baselines.png"
    source = (
        "Healthy runs have -0.01 to 0.38 on Fashion-MNIST (23 runs). A note, because healthy runs on "
        "patches of photographs, where an average is hard to beat, have -0.22 to -0.11, also with 64x64 "
        "pixels in colour and the local linear decoder of large images."
    )

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.unusable:
            return self.skipped(case.unusable)
        perturbation = case.metrics.perturbation
        if not math.isfinite(perturbation.skill_score):
            return self.skipped("there are too few training images for a linear decoder")
        if soon := case.fewer_steps_than(STEPS_FOR_SKILL):
            return self.skipped(soon)
        if perturbation.skill_score >= self.threshold:
            return None
        larger = fixes.kernel_size(3, "kernels that see neighbouring pixels")
        point = case.option("model.kernel_size") == 1
        return self.finding(
            f"explained variance is {case.metrics.quality.explained_variance:.3f}, that of the linear "
            f"decoder {perturbation.linear:.3f}",
            case.skill_score(self.threshold),
            fixes=[*([larger] if point else []), fixes.longer(case), fixes.batchnorm(case)],
        )


@RULES.add
class Blur(Rule):
    """Above a gain of 1 the network knows fine detail and does not draw it.

    Dropout, a penalty, noise or too few steps cause that. Detail that the latent code does not represent
    is missing too, but leaves the gain at 1.
    """

    code = "CAE304"
    problem = "the output is more blurred than the bottleneck explains"
    severity = Severity.NOTE
    measured = (
        "sharpening gain: the factor for fine detail (above 0.25 cycles per pixel) that minimises the "
        "error"
    )
    threshold = 1.5
    unit = "times"
    fires = "above"
    source = (
        "By the orthogonality principle a least-squares optimum has 1; docs/evidence.md has "
        "measurements."
    )
    picture = "reconstructions.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.too_early:
            return self.skipped(case.too_early)
        spectrum = case.metrics.spectrum
        gain = spectrum.sharpening_gain
        if not math.isfinite(gain):
            return self.skipped("the output has no fine detail")
        if gain <= self.threshold or spectrum.coherence < 0.05:
            return None
        smoothing = [name for name in case.option("regularization") or {} if name != "batchnorm"]
        proposed = [fixes.longer(case)]
        if smoothing:
            proposed.insert(0, fixes.without(case, smoothing, "nothing that smooths", Safety.TRADE))
        return self.finding(
            f"the fine detail of the output has {spectrum.power:.0%} of the power of that of the "
            f"images; {gain:.2f} times as much detail would minimise the error",
            Evidence("sharpening gain of fine detail", gain, self.threshold, (0.8, 1.3), self.unit),
            fixes=proposed,
        )


@RULES.add
class Checkerboard(Rule):
    """Such a pattern comes from transposed convolutions or upsampling, not from the images."""

    code = "CAE305"
    problem = "the output has a checkerboard pattern"
    severity = Severity.NOTE
    measured = "power of the error at periods of 2 and 4 pixels, over that of neighbouring frequencies"
    threshold = 8.0
    unit = "times that nearby"
    fires = "above"
    source = "Healthy networks have 1 to 4, with transposed convolutions of any kernel too."
    picture = "reconstructions.png"
    references = ("Odena, Dumoulin, Olah, Deconvolution and checkerboard artifacts, Distill 2016",)

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.too_early:
            return self.skipped(case.too_early)
        ratio = case.metrics.spectrum.checkerboard
        if not math.isfinite(ratio):
            return self.skipped("the images are too small")
        if ratio <= self.threshold:
            return None
        keras = 'UpSampling2D(interpolation="bilinear")'
        smooth = Fix(("model.upsampling=bilinear",), "smooth upsampling", Safety.SAFE, keras)
        proposed = [smooth]
        if case.script or case.option("model.upsampling") == "transposed":
            proposed = fixes.even_overlap(case)
        return self.finding(
            f"the error has {ratio:.1f} times as much power at a period of 2 or 4 pixels as nearby",
            Evidence("power of the pattern", ratio, self.threshold, (1, 4), self.unit),
            fixes=[*proposed, smooth] if case.script else proposed,
        )
