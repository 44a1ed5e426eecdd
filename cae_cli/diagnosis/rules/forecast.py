"""What can be foreseen before a training: risks, not findings. Afterwards the measured rules count."""

from __future__ import annotations

import math
from typing import ClassVar

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import FEWEST_IMAGES, FEWEST_STEPS, Case
from cae_cli.diagnosis.catalogue import RULES, Rule, When
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped

INF = math.inf


@RULES.add
class DarkImages(Rule):
    """Squared error and a sigmoid on dark images tend to end in a black output."""

    code = "CAE001"
    problem = "dark images may drive the output to black"
    severity = Severity.WARNING
    when = When.BEFORE
    measured = "explained variance of a black image, with a sigmoid, a squared error and ReLU"
    why = (
        "Where black is nearly as good an answer as the mean image, the network finds black first, "
        "and a saturated sigmoid passes no gradient to leave it again."
    )
    threshold = -1.0
    source = (
        "the reference network collapsed on MNIST (-.66, 4 of 4 seeds) and Omniglot (-.32, 4 of 4), "
        "never on Fashion-MNIST (-1.38)"
    )

    def check(self, case: Case) -> Finding | None:
        """Fires above -1 where nothing in the network or the loss prevents the collapse."""
        black = case.dataset.black
        prone = (
            case.network.output_activation in ("sigmoid", "hard_sigmoid")
            and case.network.hidden_activation in (None, "relu")
            and not case.network.normalised
            and case.option("loss.name") in ("mse", "huber")
        )
        if not prone or not black > self.threshold:
            return None
        return self.finding(
            f"a black image has an explained variance of {black:.2f}: black is a tempting answer",
            Evidence("explained variance of black", black, self.threshold, (-INF, -1.38)),
            fixes=(
                Fix(("loss=bce",), "its gradient survives a saturated sigmoid", Safety.SAFE),
                Fix(("model.output_activation=linear",), "nothing to saturate", Safety.SAFE),
                Fix((fixes.adding(case, "batchnorm"),), "keeps the hidden maps alive", Safety.SAFE),
            ),
        )


@RULES.add
class UnusualRate(Rule):
    """The learning rate is far from where the optimizer works."""

    code = "CAE002"
    problem = "the learning rate is unusual for this optimizer"
    severity = Severity.WARNING
    when = When.BEFORE
    measured = "learning rate over the one at which the optimizer usually works, as a power of ten"
    why = (
        "Adadelta's rate of 0.001, Keras' default, hardly moves a weight in ten epochs; Adam at 0.1 "
        "throws them about."
    )
    threshold = 1.5
    source = (
        "Adam at .01 (1) is healthy on Fashion-MNIST, at .1 (2) it kills filters, at 1e-5 (-2) it "
        "stays poor"
    )

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires where the rate is 30 times too large or too small."""
        rate = case.option("optimizer.learning_rate")
        if rate is None:
            return self.skipped("the optimizer is unknown")
        usual = case.usual_rate
        far = math.log10(rate / usual) if rate else -INF
        if abs(far) <= self.threshold:
            return None
        return self.finding(
            f"optimizer.learning_rate={rate:g}; {case.option('optimizer.name')} usually works at "
            f"{usual:g}",
            Evidence(
                "power of ten from the usual rate", far, math.copysign(self.threshold, far), (-1, 1)
            ),
            fixes=(Fix((f"optimizer.learning_rate={usual:g}",), "a usual size of step", Safety.SAFE),),
        )


@RULES.add
class TooLittleToTell(Rule):
    """Too few steps or held-out images for a verdict."""

    code = "CAE003"
    problem = "too little for a verdict"
    severity = Severity.NOTE
    when = When.BEFORE
    measured = "planned steps, and held-out images"
    why = "The training will run, but most rules will have to say that they cannot tell."
    threshold = FEWEST_STEPS
    source = "collapsed outputs and dead maps show by step 128, shares need 16 images"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires below 128 steps or 16 held-out images."""
        batch, epochs = case.option("training.batch_size"), case.option("training.epochs")
        if not batch or not epochs:
            return self.skipped("the length of the training is unknown")
        most = case.option("training.steps") or INF
        steps = min(math.ceil(case.dataset.train / batch) * epochs, most)
        if steps >= self.threshold and case.dataset.held_out >= FEWEST_IMAGES:
            return None
        ways = []
        if most < self.threshold:
            enough = math.ceil(self.threshold)
            epochs_too = math.ceil(enough / math.ceil(case.dataset.train / batch))
            overrides = (f"training.steps={enough}", f"training.epochs={max(epochs, epochs_too)}")
            ways = [Fix(overrides, "enough steps", Safety.SLOW)]
        elif steps < self.threshold:
            per_epoch = steps / epochs
            ways = [
                Fix(
                    (f"training.epochs={math.ceil(self.threshold / per_epoch)}",),
                    "enough steps",
                    Safety.SLOW,
                )
            ]
        return self.finding(
            f"{steps} steps and {case.dataset.held_out} held-out images are planned",
            Evidence("steps", steps, self.threshold, (1024, INF)),
            Evidence("held-out images", case.dataset.held_out, FEWEST_IMAGES, (100, INF)),
            fixes=ways,
            advice=""
            if case.dataset.held_out >= FEWEST_IMAGES
            else "hold out more images: data.validation",
        )


@RULES.add
class InputOnlyAugmentation(Rule):
    """The input is transformed, the target is not."""

    code = "CAE004"
    problem = "augmentation changes the input and not the target"
    severity = Severity.WARNING
    when = When.BEFORE
    measured = "augmentation.target"
    why = (
        "ImageDataGenerator.flow(x, x) does this silently. The network then has to undo transforms "
        "that it cannot see, and blurs: explained variance -.18 on Fashion-MNIST."
    )
    threshold = 0
    source = "by definition"

    def check(self, case: Case) -> Finding | None:
        """Fires for augmentation.target=original."""
        kinds = [k for k in ("rotation", "shift", "zoom", "flip") if case.option(f"augmentation.{k}")]
        if not kinds or case.option("augmentation.target") != "original":
            return None
        return self.finding(
            f"{', '.join(kinds)} of the input only",
            Evidence("transforms of the input only", len(kinds), self.threshold, (0, 0)),
            fixes=(Fix(("augmentation.target=same",), "input and target together", Safety.SAFE),),
        )


@RULES.add
class Overcomplete(Rule):
    """The latent code has as many values as the image."""

    code = "CAE005"
    problem = "the latent code is as large as the image"
    severity = Severity.WARNING
    when = When.BEFORE
    measured = "values of the latent code over values of the image"
    why = "Such a network can pass pixels on without describing anything, unless something forbids it."
    threshold = 1.0
    source = "a latent code 16 times the image copies .44 of scrambled pixels; the reference network has .5 and 0"

    # What makes copying costly even for a large code.
    restraints: ClassVar[tuple[str, ...]] = ("noise", "dropout", "activity_l1")

    def check(self, case: Case) -> Finding | None:
        """Fires from 1 on, where neither noise, dropout nor sparsity stand against it."""
        ratio = case.network.latent_values / case.network.image_values
        if ratio < self.threshold or set(self.restraints) & set(case.option("regularization") or {}):
            return None
        noise = Fix((fixes.adding(case, "noise"),), "copying no longer pays", Safety.TRADE)
        ways = [noise, *fixes.tighter(case), *fixes.deeper(case)]
        return self.finding(
            f"the code has {case.network.latent_values:,} values, an image {case.network.image_values:,}",
            Evidence("code over image", ratio, self.threshold, (0, 0.5)),
            fixes=ways,
        )


@RULES.add
class SmallField(Rule):
    """A value of the latent code sees a small part of the image."""

    code = "CAE006"
    problem = "a value of the latent code sees little of the image"
    severity = Severity.NOTE
    when = When.BEFORE
    measured = "side of the receptive field of a value of the latent code over the image's shorter side"
    why = (
        "Filters cannot describe what they cannot see: such a latent code is made of textures and edges."
    )
    threshold = 0.15
    source = "the reference network has .36 on 28x28; one stage alone has .14"

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires below .15."""
        field = case.network.receptive_field
        if field is None:
            return self.skipped("the receptive field of this network is unknown")
        share = field / min(case.network.image_shape[:2])
        if share >= self.threshold:
            return None
        return self.finding(
            f"{field:g} of {min(case.network.image_shape[:2])} pixels",
            Evidence("receptive field over image", share, self.threshold, (0.36, 1)),
            fixes=fixes.deeper(case),
        )


@RULES.add
class UnevenKernel(Rule):
    """The kernel of a transposed convolution is no multiple of its stride."""

    code = "CAE007"
    problem = "transposed convolutions overlap unevenly"
    severity = Severity.NOTE
    when = When.BEFORE
    measured = "model.sampling_kernel modulo the stride of 2, with model.upsampling=transposed"
    why = "Pixels then get different numbers of contributions, from which checkerboards may come."
    threshold = 0
    source = "by definition; kernel 3 with stride 2 left no checkerboard on Fashion-MNIST, so a note"
    references = ("Odena, Dumoulin, Olah, Deconvolution and checkerboard artifacts, Distill 2016",)

    def check(self, case: Case) -> Finding | None:
        """Fires for odd kernels."""
        kernel = case.option("model.sampling_kernel")
        if case.option("model.upsampling") != "transposed" or not kernel or kernel % 2 == 0:
            return None
        return self.finding(
            f"model.sampling_kernel={kernel} with a stride of 2",
            Evidence("kernel modulo stride", kernel % 2, self.threshold, (0, 0)),
            fixes=fixes.even_overlap(case),
        )


@RULES.add
class SimilarityConstants(Rule):
    """SSIM's constants belong to another range of values."""

    code = "CAE008"
    problem = "SSIM is set for another range of values"
    severity = Severity.WARNING
    when = When.BEFORE
    measured = "loss.k1 and loss.k2, times what the range of the images differs from 1"
    why = (
        "The constants are shares of the range: computed for 255 and used on [0, 1] they drown what "
        "is to be compared, and every image looks similar to every other."
    )
    threshold = 0.7
    source = "a factor of five; the paper has k1 = .01, k2 = .03; those of a range of 255 are 2.55, 7.65"
    references = ("Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004",)

    def check(self, case: Case) -> Finding | None:
        """Fires where a constant is five times the paper's, or a fifth of it."""
        k1, k2 = case.option("loss.k1"), case.option("loss.k2")
        if k1 is None or k2 is None:
            return None
        span = max(case.dataset.high - min(case.dataset.low, 0.0), 1e-6)
        far = math.log10(max(k1 / 0.01, k2 / 0.03) / span)
        if abs(far) <= self.threshold:
            return None
        return self.finding(
            f"loss.k1={k1:g}, loss.k2={k2:g} for values from {case.dataset.low:g} to "
            f"{case.dataset.high:g}",
            Evidence(
                "power of ten from the paper's constants",
                far,
                math.copysign(self.threshold, far),
                (0, 0),
            ),
            fixes=(
                Fix(("loss.k1=0.01", "loss.k2=0.03"), "the paper's constants", Safety.SAFE),
                Fix(("data.scale=auto",), "images in [0, 1]", Safety.SAFE),
            ),
        )
