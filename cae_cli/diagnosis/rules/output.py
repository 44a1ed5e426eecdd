"""Rules on what comes out, on held-out images."""

from __future__ import annotations

import math

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import LITTLE_EXPLAINED, POOR_SKILL, STEPS_FOR_SKILL, USUAL_SKILL, Case
from cae_cli.diagnosis.catalogue import RULES, Rule
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped

INF = math.inf
CAPACITY = ("CAE211", "CAE602", "CAE604")


@RULES.add
class OutputCollapsed(Rule):
    """Every image gives the same output."""

    code = "CAE301"
    problem = "the output is the same for every image"
    severity = Severity.ERROR
    measured = "variance of the output over held-out images, relative to that of the images"
    why = (
        "Such an output holds nothing of its input, so neither does the latent code. The plain network "
        "with squared error and a sigmoid dies this way on dark images: black is a good first "
        "answer, and a saturated sigmoid passes no gradient to leave it again."
    )
    threshold = 0.05
    source = "collapsed runs on MNIST and Omniglot are at 0 (8 of 8), healthy ones above .7"
    consequences = (
        "CAE302",
        "CAE303",
        "CAE401",
        "CAE402",
        "CAE202",
        "CAE501",
        "CAE502",
        "CAE304",
        *CAPACITY,
    )
    alternatives = ("CAE103", "CAE203", "CAE205", "CAE206", "CAE207", "CAE209")
    picture = "reconstructions.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires below 5 % of the images' variance; says so if the output is black."""
        if case.too_early:
            return self.skipped(case.too_early)
        if case.untrained:  # an untrained network gives nearly the same grey for every image
            return self.skipped("no layer has moved")
        q = case.metrics.quality
        share = q.output_variance_share
        if share >= self.threshold:
            return None
        black = q.mse.value >= 0.95 * q.black_mse and q.output_mean < 0.05
        what = "every image gives the same output"
        if black:
            what = "the output is black for every image, no better than a black image"
        return self.finding(
            f"{what}: MSE {q.mse.value:.4f}, black image {q.black_mse:.4f}, "
            f"mean image {q.mean_image_mse:.4f}",
            Evidence("output variance, share of the images'", share, self.threshold, (0.7, INF)),
            fixes=self._fixes(case),
        )

    @staticmethod
    def _fixes(case: Case) -> tuple[Fix, ...]:
        linear = Fix(("model.output_activation=linear",), "nothing left to saturate", Safety.SAFE)
        batchnorm = Fix((fixes.adding(case, "batchnorm"),), "keeps the hidden maps alive", Safety.SAFE)
        activation = case.option("model.output_activation")
        if case.option("loss.name") == "bce":
            elu = Fix(("model.activation=elu",), "a gradient below zero", Safety.SAFE)
            return batchnorm, elu, fixes.slower(case)
        if activation in ("sigmoid", "hard_sigmoid"):
            why = "its gradient survives a saturated sigmoid"
            return Fix(("loss=bce",), why, Safety.SAFE), linear, batchnorm
        return linear, batchnorm, fixes.slower(case)


@RULES.add
class NoBetterThanMean(Rule):
    """The mean training image would do as well."""

    code = "CAE302"
    problem = "the reconstruction is no better than the mean image"
    severity = Severity.ERROR
    measured = "explained variance of held-out images: 1 - MSE / MSE of the mean training image"
    why = "A network that explains nothing of what tells images apart has no meaningful filters."
    threshold = LITTLE_EXPLAINED
    source = "healthy runs explain .79 to .87 on Fashion-MNIST; 0 is the mean image"
    consequences = ("CAE303", "CAE304")
    alternatives = ("CAE103", "CAE105", "CAE206", "CAE207", "CAE208", "CAE211")
    picture = "reconstructions.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires below .1."""
        if case.too_early:
            return self.skipped(case.too_early)
        q = case.metrics.quality
        if q.explained_variance >= self.threshold:
            return None
        return self.finding(
            f"explained variance {q.explained_variance:.3f} (MSE {q.mse.value:.4f}, mean image "
            f"{q.mean_image_mse:.4f})",
            Evidence("explained variance", q.explained_variance, self.threshold, (0.7, 1)),
            fixes=(fixes.slower(case), fixes.longer(case)) if case.option("optimizer") else (),
            advice="another learning rate, or more steps",
        )


@RULES.add
class WorseThanLinear(Rule):
    """A fixed average and a linear decoder would do better."""

    code = "CAE303"
    problem = "the reconstruction is worse than a linear one"
    severity = Severity.NOTE
    measured = (
        "skill score: explained variance between that of the best linear decoder of the image averaged "
        "over the latent code's grid (0) and a perfect one (1)"
    )
    why = (
        "That decoder needs no filters at all. A network below it has made less of its code than "
        "an average would have."
    )
    threshold = POOR_SKILL
    alternatives = ("CAE105", "CAE206", "CAE207", "CAE208", *CAPACITY)
    picture = "baselines.png"
    source = (
        "healthy runs have -.01 to .38 on Fashion-MNIST (23 runs); on patches of photographs, where "
        "an average is hard to beat, -.22 to -.11 after 1,220 steps: so this is a note"
    )

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires below -.06, once a healthy network would be above."""
        if case.unusable:
            return self.skipped(case.unusable)
        perturbation = case.metrics.perturbation
        if not math.isfinite(perturbation.skill_score):
            return self.skipped("the images are too large or too few for a linear decoder")
        if soon := case.fewer_steps_than(STEPS_FOR_SKILL):
            return self.skipped(soon)
        if perturbation.skill_score >= self.threshold:
            return None
        explained = case.metrics.quality.explained_variance
        ways = []
        if case.option("model.kernel_size") == 1:
            why = "kernels that see their neighbours"
            ways.append(Fix(("model.kernel_size=3",), why, Safety.SAFE))
        ways.append(fixes.longer(case))
        ways.append(Fix((fixes.adding(case, "batchnorm"),), "live gradients", Safety.SAFE))
        return self.finding(
            f"explained variance {explained:.3f}, linear decoder {perturbation.linear:.3f}",
            Evidence("skill_score", perturbation.skill_score, self.threshold, USUAL_SKILL),
            fixes=tuple(ways),
        )


@RULES.add
class Blur(Rule):
    """The output is softer than what the network knows would allow."""

    code = "CAE304"
    problem = "the output is more blurred than the bottleneck explains"
    severity = Severity.NOTE
    measured = (
        "sharpening gain: the factor by which fine detail (above .25 cycles a pixel) of the output would have "
        "to be multiplied to make the squared error least"
    )
    why = (
        "Detail that did not come through the latent code is left out, and that blur is honest: its sharpening gain is "
        "1. Above 1 detail is known and held back, by dropout, a penalty, noise, or too few steps."
    )
    threshold = 1.5
    source = "by the orthogonality principle a least-squares optimum has 1; see docs/evidence.md"
    alternatives = ("CAE206", "CAE211")
    picture = "reconstructions.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires above 1.5."""
        if case.too_early:
            return self.skipped(case.too_early)
        sharpening_gain, coherence = (
            case.metrics.spectrum.sharpening_gain,
            case.metrics.spectrum.coherence,
        )
        if not math.isfinite(sharpening_gain):
            return self.skipped("the output has no fine detail at all")
        if sharpening_gain <= self.threshold or coherence < 0.05:
            return None
        ways = []
        penalties = [n for n in case.option("regularization") or {} if n not in ("batchnorm",)]
        if penalties:
            ways.append(Fix((fixes.without(case, penalties),), "nothing that smooths", Safety.TRADE))
        ways.append(fixes.longer(case))
        if case.option("loss.name") != "ssim":
            why = "detail counts as much as brightness"
            ways.append(Fix(("loss=ssim",), why, Safety.TRADE))
        return self.finding(
            f"fine detail has {case.metrics.spectrum.power:.0%} of the power it has in the images, and "
            f"{sharpening_gain:.2f} times as much of it would be right",
            Evidence("sharpening gain of fine detail", sharpening_gain, self.threshold, (0.8, 1.3)),
            fixes=ways,
        )


@RULES.add
class Checkerboard(Rule):
    """The error repeats every two or four pixels."""

    code = "CAE305"
    problem = "the output has a checkerboard"
    severity = Severity.NOTE
    measured = "power of the error at periods of 2 and 4 pixels, over that of neighbouring frequencies"
    why = "Such a pattern comes from transposed convolutions or upsampling, not from the images."
    threshold = 8.0
    source = "1 to 4 on healthy networks, transposed convolutions of any kernel among them"
    picture = "reconstructions.png"
    references = ("Odena, Dumoulin, Olah, Deconvolution and checkerboard artifacts, Distill 2016",)

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires above 8."""
        if case.too_early:
            return self.skipped(case.too_early)
        ratio = case.metrics.spectrum.checkerboard
        if not math.isfinite(ratio):
            return self.skipped("the images are too small")
        if ratio <= self.threshold:
            return None
        ways = [Fix(("model.upsampling=bilinear",), "smooth upsampling", Safety.SAFE)]
        if case.option("model.upsampling") == "transposed":
            ways = fixes.even_overlap(case)
        return self.finding(
            f"a period of 2 or 4 pixels has {ratio:.1f} times the power of its neighbours",
            Evidence("power of the period", ratio, self.threshold, (1, 4)),
            fixes=ways,
        )
