"""Rules on what comes out, on held-out images."""

from __future__ import annotations

import math

from cae_cli.diagnosis.finding import Evidence, Finding, Prescription, Safety, Severity, Skipped
from cae_cli.diagnosis.rule import LITTLE_EXPLAINED, RULES, Case, Rule


@RULES.add
class OutputCollapsed(Rule):
    """Every image gives the same output."""

    code = "CAE301"
    problem = "the output is the same for every image"
    severity = Severity.ERROR
    measures = "variance of the output over held-out images, relative to that of the images"
    why = (
        "Such an output holds nothing of its input, so neither does the code. The plain network "
        "with squared error and a sigmoid dies this way on dark images: black is a good first "
        "answer, and a saturated sigmoid passes no gradient to leave it again."
    )
    threshold = 0.05
    source = "collapsed runs on MNIST and Omniglot are at 0 (8 of 8), healthy ones above .7"
    explains = ("CAE302", "CAE303", "CAE401", "CAE202", "CAE501")

    def look(self, case: Case) -> Finding | Skipped | None:
        """Fires below 5 % of the images' variance; says so if the output is black."""
        if case.too_early:
            return self.skipped(case.too_early)
        if case.unmoved:  # an untrained network gives nearly the same grey for every image
            return self.skipped("no layer has moved")
        q = case.measures.quality
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
            Evidence("output variance, share of the images'", share, self.threshold, "above .7"),
            prescriptions=self._ways_out(case),
        )

    @staticmethod
    def _ways_out(case: Case) -> tuple[Prescription, ...]:
        linear = Prescription(
            ("model.output_activation=linear",), "nothing left to saturate", Safety.SAFE
        )
        batchnorm = Prescription((case.adding("batchnorm"),), "keeps the hidden maps alive", Safety.SAFE)
        activation = case.option("model.output_activation")
        if activation == "softmax":  # over channels: constant where there is one
            why = "softmax over one channel is 1 whatever comes in"
            return (Prescription(("model.output_activation=sigmoid",), why, Safety.SAFE),)
        if case.option("loss.name") == "bce":
            elu = Prescription(("model.activation=elu",), "a gradient below zero", Safety.SAFE)
            return batchnorm, elu, case.slower()
        if activation in ("sigmoid", "hard_sigmoid"):
            why = "its gradient survives a saturated sigmoid"
            return Prescription(("loss=bce",), why, Safety.SAFE), linear, batchnorm
        return linear, batchnorm, case.slower()


@RULES.add
class NoBetterThanMean(Rule):
    """The mean training image would do as well."""

    code = "CAE302"
    problem = "the reconstruction is no better than the mean image"
    severity = Severity.ERROR
    measures = "explained variance of held-out images: 1 - MSE / MSE of the mean training image"
    why = "A network that explains nothing of what tells images apart has no meaningful filters."
    threshold = LITTLE_EXPLAINED
    source = "healthy runs explain .79 to .87 on Fashion-MNIST; 0 is the mean image"
    explains = ("CAE303",)

    def look(self, case: Case) -> Finding | Skipped | None:
        """Fires below .1."""
        if case.too_early:
            return self.skipped(case.too_early)
        q = case.measures.quality
        if q.explained_variance >= self.threshold:
            return None
        epochs = int(case.option("training.epochs") or 1)
        return self.finding(
            f"explained variance {q.explained_variance:.3f} (MSE {q.mse.value:.4f}, mean image "
            f"{q.mean_image_mse:.4f})",
            Evidence("explained variance", q.explained_variance, self.threshold, ".79 to .87 (Fashion)"),
            prescriptions=(
                case.slower(),
                Prescription((f"training.epochs={3 * epochs}",), "train longer", Safety.SLOW),
            ),
        )


@RULES.add
class WorseThanLinear(Rule):
    """A fixed average and a linear decoder would do better."""

    code = "CAE303"
    problem = "the reconstruction is worse than a linear one"
    severity = Severity.NOTE
    measures = (
        "skill: explained variance between that of the best linear decoder of the image averaged "
        "over the code's grid (0) and a perfect one (1)"
    )
    why = (
        "That decoder needs no filters at all. A network below it has made less of its code than "
        "an average would have."
    )
    threshold = -0.06
    source = (
        "healthy runs have -.01 to .38 on Fashion-MNIST (23 runs); on patches of photographs, where "
        "an average is hard to beat, -.22 to -.11 after 1,220 steps: so this is a note"
    )
    fewest_steps = 768  # healthy networks have passed the linear decoder by then

    def look(self, case: Case) -> Finding | Skipped | None:
        """Fires below -.06, once a healthy network would be above."""
        if case.unusable:
            return self.skipped(case.unusable)
        causal, steps = case.measures.causal, case.measures.course.steps
        if not math.isfinite(causal.skill):
            return self.skipped("the images are too large or too few for a linear decoder")
        if steps < self.fewest_steps:
            return self.skipped(f"only {steps} steps, {self.fewest_steps} are needed")
        if causal.skill >= self.threshold:
            return None
        explained = case.measures.quality.explained_variance
        ways = []
        if case.option("model.kernel_size") == 1:
            why = "kernels that see their neighbours"
            ways.append(Prescription(("model.kernel_size=3",), why, Safety.SAFE))
        epochs = int(case.option("training.epochs") or 1)
        ways.append(Prescription((f"training.epochs={3 * epochs}",), "train longer", Safety.SLOW))
        ways.append(Prescription((case.adding("batchnorm"),), "live gradients", Safety.SAFE))
        return self.finding(
            f"explained variance {explained:.3f}, linear decoder {causal.linear:.3f}",
            Evidence("skill", causal.skill, self.threshold, "-.01 to .38 (Fashion)"),
            prescriptions=tuple(ways),
        )
