"""Rules on the latent code: whether the decoder uses it, and whether it describes images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import LITTLE_EXPLAINED, Case
from cae_cli.diagnosis.catalogue import RULES, Rule
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped
from cae_cli.errors import counted

INF = math.inf


@RULES.add
class ValidationGap(Rule):
    """The filters describe the training images, and others less well.

    The training images were memorised, or they are of too few kinds: patches of a dozen photographs show
    few colours and textures, however many patches there are.
    """

    code = "CAE501"
    problem = "new images are reconstructed worse than the training images"
    severity = Severity.WARNING
    measured = (
        "explained variance of training minus held-out images, beyond that of a linear decoder and the "
        "margin of error"
    )
    threshold = 0.04
    unit = "of explained variance"
    fires = "above"
    least_explained = LITTLE_EXPLAINED
    source = "Healthy runs have 0.002 to 0.013; 16 training images give 0.06 to 0.08."

    def check(self, case: Case) -> Finding | Skipped | None:
        q = case.metrics.quality
        if case.too_early:
            return self.skipped(case.too_early)
        if case.not_compared:
            return self.skipped(case.not_compared)
        if case.metrics.trained_on:
            return self.skipped("there are no images that were not trained on")
        if case.unscored:
            return self.skipped(case.unscored)
        # A gap within the margin of error does not count, nor that of a network that explains almost
        # nothing of the training images.
        certain = case.gap - q.mse.margin / q.mean_image_mse
        if certain <= self.threshold or q.train_explained_variance < self.least_explained:
            return None
        others, advice = "", "more images"
        if few := case.dataset.train_groups:
            others = f", which come from {counted(case.dataset.held_out_groups, 'other file')}"
            advice = f"images from more files than {few}: those of one file are alike"
        return self.finding(
            f"explained variance is {q.train_explained_variance:.3f} on training images and "
            f"{q.explained_variance:.3f} on held-out images{others}",
            Evidence("gap", certain, self.threshold, (-0.01, 0.013), self.unit),
            fixes=self._fixes(case),
            advice=advice,
        )

    @staticmethod
    def _fixes(case: Case) -> Iterator[Fix]:
        if case.option("data.train") is not None or not case.config:
            # As many steps as before: more images must neither cost more time nor look better by it.
            steps = case.metrics.dynamics.steps
            same = (f"training.steps={steps}",) if steps and case.config else ()
            yield Fix(
                ("data.train=null", *same), "all images of the source", Safety.SLOW, "# more images"
            )
        if not any(case.option(f"augmentation.{k}") for k in ("rotation", "shift", "zoom", "flip")):
            keras = "RandomRotation(0.05), RandomTranslation(0.1, 0.1), RandomZoom(0.1)  # of both"
            yield Fix(("augmentation=light",), "more views of the same images", Safety.TRADE, keras)
        yield fixes.dropout(case)


@RULES.add
class LatentBypassed(Rule):
    """Skip connections lead the image around the latent code, which then represents nothing.

    The reconstruction is excellent all the same. Where inputs and targets were given as pairs, as for
    denoising, that is usual and a note: the network is judged by what it restores.
    """

    code = "CAE502"
    problem = "the decoder bypasses the latent code"
    severity = Severity.ERROR
    measured = (
        "latent swap: change of the output with another image's latent code, over the difference of the "
        "two images, where the network explains more than half of the variance"
    )
    threshold = 0.1
    unit = "of two images' difference"
    fires = "below"
    source = "Healthy runs have 0.70 to 1.06; skip connections at full resolution give 0."
    picture = "perturbation_tests.png"
    least_explained = 0.5  # below that, there is nothing to bypass with

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.unusable:
            return self.skipped(case.unusable)
        swap, explained = case.metrics.perturbation.latent_swap, case.metrics.quality.explained_variance
        if not math.isfinite(swap):
            return self.skipped("the latent code could not be replaced")
        if explained <= self.least_explained or swap >= self.threshold:
            return None
        whole = Fix(
            ("model.skips=false",),
            "all information passes the latent code",
            Safety.SAFE,
            "# no layer of the decoder gets maps of the encoder",
        )
        restores = case.metrics.paired
        found = self.finding(
            f"the output changes by {swap:.3f} with another image's latent code, and explains "
            f"{explained:.0%}",
            Evidence("latent swap", swap, self.threshold, (0.7, 1.06), self.unit),
            case.explained_variance(self.least_explained),
            fixes=(whole,) if case.network.skips and not restores else (),
            advice="for restoration this is usual; the latent code alone cannot be used"
            if restores
            else "remove the skip connections, or at least those at full resolution",
        )
        return replace(found, severity=Severity.NOTE) if restores else found


@RULES.add
class PassThrough(Rule):
    """Scrambled pixels have nothing in common with the training images.

    A network that reproduces them copies pixels instead of describing what is in the image.
    """

    code = "CAE503"
    problem = "the network copies its input"
    severity = Severity.WARNING
    measured = (
        "pixel copy: share of the contrast within images that is reproduced after permuting their "
        "pixels, less its margin of error"
    )
    threshold = 0.25
    unit = "of the contrast"
    fires = "above"
    source = (
        "Healthy runs with a small latent code have -0.26 to 0.15, the identity 1. A linear description "
        "with d values for D pixels passes d/D, so a larger latent code may copy a fifth more than "
        "that, or half of what is left to 1 if that is less (measured: 0.1 to 1.01 of d/D; 1.3 and more "
        "with a way around the code). With as many values as the image, healthy runs have 0.1 to 0.31, "
        "and 0.5 counts. More than three times as many are no bottleneck: such networks have 0.2 to "
        "0.44, and 0.1 counts."
    )
    equal = 2.0  # times the threshold, from as many latent values as the image has
    no_bottleneck = 3.0  # values of the latent code over those of an image
    lower = 0.4  # times the threshold, without a bottleneck
    most_noise = 0.5  # share of added noise that may pass a small latent code
    picture = "perturbation_tests.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.unusable:
            return self.skipped(case.unusable)
        copied, noise = case.metrics.perturbation.pixel_copy, case.metrics.perturbation.noise_gain
        if not math.isfinite(copied):
            return self.skipped("the images have no contrast")
        ratio = case.network.latent_values / case.network.image_values
        linear, passed = case.network.linear_copy, case.network.most_copied
        limit, healthy = max(self.threshold, passed), (-INF, max(0.75 * self.threshold, passed))
        because = f"; a linear description with as few values passes {linear:.0%}"
        if linear >= 1:
            limit, healthy = self.equal * self.threshold, (-INF, 0.31)
            because = f"; the latent code has {ratio:.2g} times the values of an image"
        if ratio > self.no_bottleneck:
            limit, healthy = self.lower * self.threshold, (-INF, 0.05)
        if case.metrics.perturbation.least_copied <= limit:
            return None
        evidence = [Evidence("pixel copy", copied, limit, healthy, self.unit)]
        if math.isfinite(noise):
            most = max(self.most_noise, passed)
            evidence.append(Evidence("noise gain", noise, most, (0.045, 0.129), "of the noise"))
        return self.finding(
            f"{copied:.0%} of scrambled pixels are copied{because}",
            *evidence,
            fixes=[*fixes.tighter(case), fixes.input_noise(case)],
        )


@RULES.add
class PosteriorIsPrior(Rule):
    """A variational autoencoder whose latent code is drawn alike for every image.

    The divergence from the prior costs more than the image is worth, so the encoder says nothing, and
    the decoder draws the mean image. Where a sum over the latent code stands beside a mean over
    pixels, it weighs as many times too much as an image has pixels.
    """

    code = "CAE505"
    problem = "the latent code is noise"
    severity = Severity.ERROR
    measured = "share of latent values with a correlation above 0.3 when the same image is drawn twice"
    threshold = 0.02
    unit = "of the latent values"
    fires = "below"
    source = (
        "Variational autoencoders on MNIST have 0.6 to 1 where the divergence is divided by the pixels "
        "or weighs less, and 0 where it is not."
    )
    picture = "perturbation_tests.png"

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.too_early:
            return self.skipped(case.too_early)
        share = case.metrics.latent.informative
        if not share < self.threshold:  # or the code is not drawn at random
            return None
        if case.crawls:
            return self.skipped("the steps were too small to learn a latent code")
        pixels = case.network.image_values
        none = fixes.without(
            case,
            (),
            "no longer a variational autoencoder: nothing can be drawn from the prior",
            Safety.TRADE,
        )
        weaker = Fix(
            none.overrides,
            "a mean over pixels and a sum over the latent code are of different size",
            Safety.SAFE,
            f"divergence *= {1 / pixels:.2g}  # one over the {pixels} values of an image",
            edit="weaker penalties",
        )
        return self.finding(
            f"{share:.0%} of the {case.network.latent_values} latent values depend on the image",
            Evidence("informative values", share, self.threshold, (0.3, 1), self.unit),
            fixes=(weaker, none),
            advice="a smaller weight of the divergence from the prior, which grows during the training",
        )
