"""Rules on the latent code: whether it is needed, and whether it describes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import LITTLE_EXPLAINED, Case
from cae_cli.diagnosis.catalogue import RULES, Rule
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped

INF = math.inf


@RULES.add
class ValidationGap(Rule):
    """Training images are reconstructed better than others."""

    code = "CAE501"
    problem = "training images are memorised"
    severity = Severity.WARNING
    measured = (
        "explained variance of training images minus that of held-out ones, beyond the same "
        "difference of a linear decoder and the margin of error"
    )
    why = "What is memorised says something about these images, not about images."
    threshold = 0.04
    least_explained = LITTLE_EXPLAINED
    source = "healthy runs have .002 to .013; 16 training images give .06 to .08"
    consequences = ("CAE303",)
    alternatives = ("CAE103", "CAE210")

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires above .04."""
        q = case.metrics.quality
        if case.too_early:
            return self.skipped(case.too_early)
        # Held-out images may be harder than those of the training (other photographs): what a linear
        # decoder, which cannot memorise, loses on them too does not count. Few held-out images give
        # an uncertain mean: only what is beyond its margin counts. Who explains next to nothing of
        # the training images has not memorised them either.
        gap = q.train_explained_variance - q.explained_variance
        perturbation = case.metrics.perturbation
        harder = max(0.0, perturbation.linear_train - perturbation.linear)  # 0 where either is not known
        certain = gap - harder - q.mse.margin / q.mean_image_mse
        if certain <= self.threshold or q.train_explained_variance < self.least_explained:
            return None
        return self.finding(
            f"explained variance {q.train_explained_variance:.3f} on training images, "
            f"{q.explained_variance:.3f} on held-out ones",
            Evidence("gap in explained variance", certain, self.threshold, (-0.01, 0.013)),
            fixes=self._fixes(case),
            advice="more images",
        )

    @staticmethod
    def _fixes(case: Case) -> Iterator[Fix]:
        if case.option("data.train") is not None or not case.config:
            # As many steps as before: more images are not to cost more time, nor to look better by it.
            steps = case.metrics.dynamics.steps
            same = (f"training.steps={steps}",) if steps and case.config else ()
            yield Fix(("data.train=null", *same), "all images there are", Safety.SLOW)
        if not any(
            case.option(f"augmentation.{kind}") for kind in ("rotation", "shift", "zoom", "flip")
        ):
            why = "more views of the same images"
            yield Fix(("augmentation=light",), why, Safety.TRADE)
        yield Fix((fixes.adding(case, "dropout"),), "fewer ways to memorise", Safety.TRADE)


@RULES.add
class LatentBypassed(Rule):
    """The decoder does not need the latent code."""

    code = "CAE502"
    problem = "the decoder bypasses the latent code"
    severity = Severity.ERROR
    measured = "change of the output where the latent code of another image is put in, over 2V"
    why = (
        "The image reaches the output around the latent code, over skip connections: the reconstruction is "
        "excellent and the latent code holds nothing."
    )
    threshold = 0.1
    source = "healthy runs have .70 to 1.06; with skip connections at full resolution 0"
    consequences = ("CAE503", "CAE602", "CAE401")
    alternatives = ("CAE301", "CAE503")
    picture = "perturbation_tests.png"
    least_explained = 0.5  # below that there is nothing to bypass with

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires below .1 where more than half is explained."""
        if case.unusable:
            return self.skipped(case.unusable)
        used = case.metrics.perturbation.latent_swap
        explained = case.metrics.quality.explained_variance
        if not math.isfinite(used):
            return self.skipped("the latent code could not be replaced")
        if explained <= self.least_explained or used >= self.threshold:
            return None
        ways = []
        if case.option("model.skips"):
            ways = [Fix(("model.skips=false",), "everything through the latent code", Safety.SAFE)]
        return self.finding(
            f"with another image's code the output changes by {used:.3f}, and explains {explained:.0%}",
            Evidence("change with another code", used, self.threshold, (0.7, 1.06)),
            Evidence("explained variance", explained, self.least_explained, (0.7, 1)),
            fixes=ways,
            advice="remove the skip connections, or at least those at full resolution",
        )


@RULES.add
class PassThrough(Rule):
    """The network copies whatever comes in."""

    code = "CAE503"
    problem = "the network copies its input"
    severity = Severity.WARNING
    measured = "share of the contrast within images that is reproduced after their pixels were permuted"
    why = (
        "Scrambled pixels have nothing in common with the training images. Who reproduces them "
        "passes pixels on instead of describing what is there."
    )
    threshold = 0.25
    source = (
        "healthy runs have -.26 to .15; one stage with a latent code 16 times the image .38; identity 1. A "
        "code of more than three times the image is no bottleneck: there .1 counts; the widest healthy "
        "one has 2 times"
    )
    no_bottleneck = 3.0  # values of the latent code over those of an image
    lower = 0.4  # of the threshold, without a bottleneck
    most_noise = 0.5  # share of added noise that may pass
    alternatives = ("CAE502",)
    picture = "perturbation_tests.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires above .25, without a bottleneck above .1."""
        if case.unusable:
            return self.skipped(case.unusable)
        perturbation = case.metrics.perturbation
        if not math.isfinite(perturbation.pixel_copy):
            return self.skipped("the images have no contrast")
        ratio = case.network.latent_values / case.network.image_values
        line, healthy = self.threshold, (-INF, 0.15)
        if ratio > self.no_bottleneck:
            line, healthy = self.lower * self.threshold, (-INF, 0.05)
        if perturbation.pixel_copy <= line:
            return None
        evidence = [Evidence("copied of scrambled pixels", perturbation.pixel_copy, line, healthy)]
        if math.isfinite(perturbation.noise_gain):
            evidence.append(
                Evidence("noise passed on", perturbation.noise_gain, self.most_noise, (0.045, 0.129))
            )
        return self.finding(
            f"{perturbation.pixel_copy:.0%} of scrambled pixels are copied; the code has {ratio:.2g} times "
            "the values of an image",
            *evidence,
            fixes=self._fixes(case),
        )

    @staticmethod
    def _fixes(case: Case) -> Iterator[Fix]:
        yield from fixes.tighter(case)
        yield from fixes.deeper(case)
        yield Fix((fixes.adding(case, "noise"),), "copying no longer pays", Safety.TRADE)
