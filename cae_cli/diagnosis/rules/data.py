"""Rules on the images, and on what the training was really fed."""

from __future__ import annotations

import math

from cae_cli.diagnosis.case import FEWEST_IMAGES, Case
from cae_cli.diagnosis.catalogue import RULES, Rule, When
from cae_cli.diagnosis.causes import SYMPTOMS
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped

INF = math.inf

# What the last layer can put out at all.
RANGES = {
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu": (0.0, INF),
    "relu6": (0.0, 6.0),
    "softplus": (0.0, INF),
}


@RULES.add
class Repeats(Rule):
    """The images are hardly different from one another."""

    code = "CAE101"
    problem = "the images are repeats of few"
    severity = Severity.ERROR
    when = When.ALWAYS
    measured = (
        "share of images that differ from every earlier one, and variance over images relative to "
        "the contrast within them"
    )
    why = (
        "A network reproduces a handful of images perfectly, held-out ones too, without describing "
        "anything: every other figure looks excellent."
    )
    threshold = 0.5
    source = "1.0 on Fashion-MNIST, MNIST, Omniglot, digits, glyphs and photographs"
    consequences = (
        *SYMPTOMS, "CAE105", "CAE106", "CAE205", "CAE211", "CAE501", "CAE503", "CAE602",
    )  # fmt: skip
    least_variance = 0.05  # of the contrast within images; .5 to 19 on the same data

    def check(self, case: Case) -> Finding | None:
        """Fires if most images are repeats, or nearly equal."""
        seen, batches = case.dataset, case.trained.batches if case.trained else None
        distinct = min(seen.distinct, batches.distinct if batches else 1.0)
        contrast = seen.image_std**2
        ratio = seen.variance / contrast if contrast else INF
        advice = "look at how the images were read: the same ones may have been read again and again"
        if distinct < self.threshold:
            return self.finding(
                f"{distinct:.1%} of the images looked at differ from every earlier one",
                Evidence("share of distinct images", distinct, self.threshold, (0.99, 1.0)),
                advice=advice,
            )
        if ratio >= self.least_variance:
            return None
        return self.finding(
            f"the images differ by {ratio:.2%} of the contrast within them",
            Evidence("variance over images over contrast", ratio, self.least_variance, (0.5, INF)),
            advice=advice,
        )


@RULES.add
class RangeMismatch(Rule):
    """The images have values that the output cannot have."""

    code = "CAE102"
    problem = "the output cannot reach the values of the images"
    severity = Severity.ERROR
    when = When.ALWAYS
    measured = "how far the images' values go beyond the range of the output's activation"
    why = (
        "A sigmoid ends at 1: on images from 0 to 255 it saturates in the first steps and stays "
        "white, whatever the filters would say."
    )
    threshold = 0.05
    source = "images and outputs of one range are at 0; images from 0 to 255 at 254"
    consequences = (*SYMPTOMS, "CAE207", "CAE204", "CAE205", "CAE211", "CAE502", "CAE304")

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires if values are more than .05 beyond the range."""
        activation = case.network.output_activation
        if activation is None:
            return self.skipped("the output's activation is unknown")
        low, high = RANGES.get(activation, (-INF, INF))
        batches = case.trained.batches if case.trained else None
        start, width = case.network.span[0], case.network.span[1] - case.network.span[0]
        least = batches.target_low if batches else start + width * case.dataset.low
        most = batches.target_high if batches else start + width * case.dataset.high
        beyond = max(low - least, most - high, 0.0)
        if beyond <= self.threshold:
            return None
        return self.finding(
            f"images from {least:g} to {most:g}, {activation} gives {low:g} to {high:g}",
            Evidence("values beyond the output's range", beyond, self.threshold, (0, 0)),
            fixes=(
                Fix(("data.scale=auto",), "images in [0, 1]", Safety.SAFE),
                Fix(("model.output_activation=linear",), "no bounds", Safety.TRADE),
            ),
        )


@RULES.add
class TargetMismatch(Rule):
    """What the output is compared with is not the image that went in."""

    code = "CAE103"
    problem = "the target is not the input's image"
    severity = Severity.ERROR
    measured = (
        "squared difference of input and target as the first steps were fed them, over that of an "
        "input and another image's target"
    )
    why = (
        "Shuffled pairs, or transforms of the input alone (ImageDataGenerator.flow(x, x)), ask for "
        "an image that the input does not show: the answer is a blur or the mean."
    )
    threshold = 0.1
    source = "0 for reconstruction, 1 for shuffled pairs, .3 to .7 for transforms of the input alone"
    consequences = (*SYMPTOMS, "CAE104", "CAE211", "CAE304", "CAE501", "CAE502")
    most_noise = 0.2  # correlation of neighbours in the difference; .6 to .9 for pairs of images

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires above .1, unless the difference is white noise: that is denoising."""
        batches = case.metrics.batches
        if batches is None:
            return self.skipped("nobody watched the training")
        if not math.isfinite(batches.pair):
            return self.skipped("the first batches held no two different images")
        denoising = abs(batches.difference_correlation) < self.most_noise
        if batches.pair <= self.threshold or denoising:
            return None
        message = f"input and target differ by {batches.pair:.2f} of what two images differ by"
        ways = []
        if case.option("augmentation.target") == "original":
            message += ": the augmentation changes the input only"
            why = "input and target together"
            ways = [Fix(("augmentation.target=same",), why, Safety.SAFE)]
        return self.finding(
            message,
            Evidence("difference of input and target", batches.pair, self.threshold, (0, 0)),
            fixes=ways,
            advice="feed the image as its own target, shuffled and transformed together with it",
        )


class _Noise(Rule):
    """What the two rules on noise share."""

    when = When.ALWAYS
    measured = "correlation of neighbouring pixels within an image"
    smallest = 12  # pixels of a side: in smaller images neighbours are a stroke apart

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires below the threshold; where both do, CAE104 explains CAE105."""
        if min(case.network.image_shape[:2]) < self.smallest:
            return self.skipped(f"images below {self.smallest} pixels have no smooth parts")
        if case.dataset.train < FEWEST_IMAGES:
            return self.skipped("too few images")
        # Of the images, not of what was fed: noise that is put on the input keeps clean targets.
        correlation = case.dataset.correlation
        if math.isnan(correlation):
            return self.skipped("the images have no contrast")
        if correlation >= self.threshold:
            return None
        ways = []
        if case.option("data.noise"):
            why = "the images without added noise"
            ways = [Fix(("data.noise=0",), why, Safety.SAFE)]
        return self.finding(
            f"neighbouring pixels correlate by {correlation:.2f}",
            Evidence("correlation of neighbours", correlation, self.threshold, (0.65, 1)),
            fixes=ways,
            advice="average or filter the images first, or find cleaner ones: no option of a network "
            "mends this",
        )


@RULES.add
class PureNoise(_Noise):
    """The images have no structure to learn."""

    code = "CAE104"
    problem = "the images are noise"
    severity = Severity.ERROR
    why = (
        "Noise has no structure that a latent code could hold. Filters trained on it look structured all "
        "the same."
    )
    threshold = 0.1
    source = "0 for white noise; Fashion-MNIST .85, glyphs .85, photographs .89, MNIST .80, Omniglot .65"
    consequences = (*SYMPTOMS, "CAE105", "CAE211", "CAE501", "CAE602")


@RULES.add
class NoisyImages(_Noise):
    """Noise makes up much of the images."""

    code = "CAE105"
    problem = "the images are noisy"
    severity = Severity.WARNING
    why = "What cannot be predicted is most of the error: filters are fitted to noise, the output blurs."
    threshold = 0.5
    source = "see CAE104; Fashion-MNIST with noise of standard deviation .3, clipped, has .47"
    consequences = ("CAE302", "CAE303", "CAE501", "CAE211", "CAE602", "CAE304")


@RULES.add
class HeldOutRepeats(Rule):
    """Held-out images were trained on."""

    code = "CAE106"
    problem = "held-out images are among the training images"
    severity = Severity.WARNING
    when = When.ALWAYS
    measured = "share of held-out images that equal a training image to the bit"
    why = "What is memorised then looks like what is understood: memorising cannot be told."
    threshold = 0.1
    source = "0 on Fashion-MNIST, MNIST, Omniglot, digits, glyphs and photographs"

    def check(self, case: Case) -> Finding | None:
        """Fires above .1."""
        share = case.dataset.repeated
        if share <= self.threshold:
            return None
        return self.finding(
            f"{share:.0%} of the held-out images are among the training images",
            Evidence("share of repeated held-out images", share, self.threshold, (0, 0.001)),
            advice="remove duplicates before the images are split",
        )


@RULES.add
class FlatImages(Rule):
    """Images of one colour."""

    code = "CAE107"
    problem = "many images are flat"
    severity = Severity.WARNING
    when = When.ALWAYS
    measured = "share of training images without any contrast"
    why = (
        "Files that were cut short, masks and inactive pages come out as one colour. They are "
        "reproduced at once, and every mean over images looks better for it."
    )
    threshold = 0.1
    source = "0 on Fashion-MNIST, MNIST, Omniglot, digits, glyphs and photographs"

    def check(self, case: Case) -> Finding | None:
        """Fires above .1."""
        share = case.dataset.flat
        if share <= self.threshold:
            return None
        return self.finding(
            f"{share:.0%} of the images looked at are of one colour",
            Evidence("share of flat images", share, self.threshold, (0, 0.01)),
            advice="look at these images, and leave them out if they are damaged",
        )
