"""Risks that show before training; after it, the rules on trained networks count."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import FEWEST_IMAGES, FEWEST_STEPS, STEPS_FOR_SKILL, Case
from cae_cli.diagnosis.catalogue import RULES, Rule, When
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped

INF = math.inf


class _Risk(Rule):
    """What these rules share."""

    when = When.BEFORE
    severity = Severity.WARNING


@RULES.add
class DarkImages(_Risk):
    """Where black is nearly as good an answer as the mean image, the network reaches black first.

    The saturated sigmoid then passes no gradient that could lead away from it.
    """

    code = "CAE001"
    problem = "dark images may drive the output to black"
    measured = (
        "explained variance of a black image, for ReLU, a sigmoid output and a loss that it saturates"
    )
    threshold = -1.0
    unit = "of the variance"
    fires = "above"
    source = (
        "The reference network collapsed at -0.66 (MNIST) and -0.32 (Omniglot) with 4 of 4 seeds each, "
        "never at -1.38 (Fashion-MNIST)."
    )

    def check(self, case: Case) -> Finding | None:
        black = case.dataset.black
        prone = (
            case.network.output_activation in ("sigmoid", "hard_sigmoid")
            and case.network.hidden_activation in (None, "relu")
            and not case.network.normalised
            and case.fact("loss.survives_saturation") is False
        )
        if not prone or not black > self.threshold:
            return None
        return self.finding(
            f"a black image explains {black:.2f} of the variance, the mean image 0",
            Evidence("black image explains", black, self.threshold, (-INF, -1.38), self.unit),
            fixes=(fixes.CROSS_ENTROPY, fixes.LINEAR_OUTPUT, fixes.batchnorm(case)),
        )


@RULES.add
class UnusualRate(_Risk):
    """Adadelta at 0.001, the default of Keras, hardly changes a weight in ten epochs.

    Adam at 0.1 changes weights so much that filters die.
    """

    code = "CAE002"
    problem = "the learning rate is unusual for this optimizer"
    measured = "log10 of the learning rate over the usual learning rate of the optimizer"
    threshold = 1.5
    unit = "powers of ten"
    fires = "apart"
    source = (
        "On Fashion-MNIST, Adam is healthy at 0.01 (1), kills filters at 0.1 (2) and stays poor at "
        "0.00001 (-2)."
    )

    def check(self, case: Case) -> Finding | Skipped | None:
        rate, usual = case.option("optimizer.learning_rate"), case.fact("optimizer.usual_rate")
        if rate is None or usual is None:
            return self.skipped("the optimizer is unknown")
        far = math.log10(rate / usual) if rate else -INF
        if abs(far) <= self.threshold:
            return None
        limit = math.copysign(self.threshold, far)
        return self.finding(
            f"the learning rate is {rate:g}; {case.option('optimizer.name')} usually works at {usual:g}",
            Evidence("distance from the usual learning rate", far, limit, (-1, 1), self.unit),
            fixes=(fixes.usual_learning_rate(case),),
        )


@RULES.add
class TooLittleToTell(_Risk):
    """The training will run, but most rules will be skipped, and most networks need more steps."""

    code = "CAE003"
    problem = "there are too few steps or images for a verdict"
    measured = f"planned steps; at least {FEWEST_IMAGES} held-out images are needed too"
    threshold = FEWEST_STEPS
    unit = "steps"
    fires = "below"
    source = "Collapsed outputs and dead maps show by step 128; shares need 16 images."

    def check(self, case: Case) -> Finding | Skipped | None:
        batch, epochs = case.option("training.batch_size"), case.option("training.epochs")
        if not batch or not epochs:
            return self.skipped("the length of the training is unknown")
        held_out, per_epoch = case.dataset.held_out, math.ceil(case.dataset.train / batch)
        fixed = case.option("training.steps")  # whatever the epochs say
        steps = fixed or per_epoch * epochs
        if steps >= self.threshold and held_out >= FEWEST_IMAGES:
            return None
        overrides: tuple[str, ...] = ()
        enough = max(STEPS_FOR_SKILL, math.ceil(self.threshold))
        if steps < self.threshold:
            epochs = math.ceil(enough / per_epoch)
            overrides = (f"training.steps={enough}" if fixed else f"training.epochs={epochs}",)
        fix = Fix(overrides, "enough steps", Safety.SLOW, f"# at least {enough} steps")
        return self.finding(
            f"{steps} steps and {held_out} held-out images are planned; {self.threshold:g} steps and "
            f"{FEWEST_IMAGES} images are needed, {enough} steps for all rules",
            Evidence("planned steps", steps, self.threshold, (STEPS_FOR_SKILL, INF), self.unit),
            Evidence("held-out images", held_out, FEWEST_IMAGES, (100, INF), "images"),
            fixes=(fix,) if overrides else (),
            advice="" if held_out >= FEWEST_IMAGES else "hold out more images: data.validation",
        )


@RULES.add
class InputOnlyAugmentation(_Risk):
    """ImageDataGenerator.flow(x, x) does this without a message.

    The network then has to undo transforms that it cannot see, and its output blurs: explained variance
    falls by 0.18 on Fashion-MNIST.
    """

    code = "CAE004"
    problem = "augmentation changes the input and not the target"
    measured = "number of transforms that change the input only"
    threshold = 0
    unit = "transforms"
    fires = "above"
    source = "This holds by definition."

    def check(self, case: Case) -> Finding | None:
        kinds = [k for k in ("rotation", "shift", "zoom", "flip") if case.option(f"augmentation.{k}")]
        if not kinds or case.option("augmentation.target") != "original":
            return None
        return self.finding(
            f"{', '.join(kinds)} of the input only",
            Evidence("transforms of the input only", len(kinds), self.threshold, (0, 0), self.unit),
            fixes=(fixes.SAME_TARGET,),
        )


@RULES.add
class Overcomplete(_Risk):
    """Such a network can copy pixels without describing anything.

    After training this is a note; CAE503 tells whether it copies.
    """

    code = "CAE005"
    problem = "the latent code is as large as the image"
    when = When.ALWAYS
    measured = "latent values over image values, without noise, dropout or an activity penalty"
    threshold = 1.0
    unit = "times the image"
    fires = "from"
    source = (
        "16 times the image copies 0.44 of scrambled pixels; the reference network, with 0.5 times, "
        "copies none."
    )

    # What makes copying costly even with a large latent code.
    restraints: ClassVar[tuple[str, ...]] = ("noise", "dropout", "activity_l1")

    def check(self, case: Case) -> Finding | None:
        values, image = case.network.latent_values, case.network.image_values
        ratio = values / image
        if ratio < self.threshold or set(self.restraints) & set(case.option("regularization") or {}):
            return None
        found = self.finding(
            f"the latent code has {values:,} values, an image {image:,}: nothing has to be left out",
            Evidence("latent code over image", ratio, self.threshold, (0, 0.5), self.unit),
            fixes=[fixes.input_noise(case), *fixes.tighter(case)],
        )
        return found if case.trained is None else replace(found, severity=Severity.NOTE)


@RULES.add
class SmallField(_Risk):
    """Filters cannot describe what they do not see: the latent code consists of edges and textures."""

    code = "CAE006"
    problem = "a value of the latent code sees little of the image"
    severity = Severity.NOTE
    measured = "side of the receptive field of a latent value over the shorter side of the image"
    threshold = 0.15
    unit = "of the image's side"
    fires = "below"
    source = "The reference network has 0.36 on 28x28 images, a single stage 0.14."

    def check(self, case: Case) -> Finding | Skipped | None:
        field, side = case.network.receptive_field, min(case.network.image_shape[:2])
        if field is None:
            return self.skipped("the receptive field of this network is unknown")
        if field / side >= self.threshold:
            return None
        return self.finding(
            f"a latent value sees {field:g} of {side} pixels",
            Evidence("receptive field", field / side, self.threshold, (0.36, 1), self.unit),
            fixes=fixes.deeper(case, self.threshold),
        )


@RULES.add
class UnevenKernel(_Risk):
    """Pixels then receive different numbers of contributions, which can draw a checkerboard."""

    code = "CAE007"
    problem = "transposed convolutions overlap unevenly"
    severity = Severity.NOTE
    measured = "model.sampling_kernel modulo the stride of 2, for model.upsampling=transposed"
    threshold = 0
    unit = "pixels"
    fires = "above"
    source = (
        "By definition. A note, because a kernel of 3 with a stride of 2 left no checkerboard on "
        "Fashion-MNIST."
    )
    references = ("Odena, Dumoulin, Olah, Deconvolution and checkerboard artifacts, Distill 2016",)

    def check(self, case: Case) -> Finding | None:
        kernel = case.option("model.sampling_kernel")
        if case.option("model.upsampling") != "transposed" or not kernel or kernel % 2 == 0:
            return None
        return self.finding(
            f"transposed convolutions have kernels of {kernel}x{kernel} and a stride of 2",
            Evidence("kernel modulo stride", kernel % 2, self.threshold, (0, 0), self.unit),
            fixes=fixes.even_overlap(case),
        )


@RULES.add
class SimilarityConstants(_Risk):
    """The constants of SSIM are shares of the range of the images.

    Computed for 255 and used on [0, 1] they outweigh what is compared: all images seem similar.
    """

    code = "CAE008"
    problem = "SSIM is set for another range of values"
    measured = (
        "log10 of loss.k1 and of loss.k2 over the paper's constant times the range of the images, the "
        "one that is further from 0"
    )
    threshold = 0.7
    unit = "powers of ten"
    fires = "apart"
    source = (
        "A factor of five. The paper has k1 = 0.01 and k2 = 0.03; for a range of 255 they become 2.55 "
        "and 7.65."
    )
    references = ("Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004",)

    def check(self, case: Case) -> Finding | None:
        k1, k2 = case.option("loss.k1"), case.option("loss.k2")
        if k1 is None or k2 is None:
            return None
        low, high = case.dataset.low, case.dataset.high
        width = max(high - min(low, 0.0), 1e-6)
        far = max((math.log10(k / (paper * width)) for k, paper in ((k1, 0.01), (k2, 0.03))), key=abs)
        if abs(far) <= self.threshold:
            return None
        limit = math.copysign(self.threshold, far)
        proposed = [fixes.SSIM_CONSTANTS]
        if abs(math.log10(width)) > self.threshold:  # those of the paper are for images in [0, 1]
            proposed.append(fixes.SCALED_IMAGES if width > 1 else fixes.STRETCHED_IMAGES)
        return self.finding(
            f"loss.k1={k1:g} and loss.k2={k2:g} for values from {low:g} to {high:g}",
            Evidence("distance from the paper's constants", far, limit, (0, 0), self.unit),
            fixes=proposed,
        )
