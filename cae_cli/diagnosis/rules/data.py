"""Rules on the images, and on the batches that the training received."""

from __future__ import annotations

import math
from dataclasses import replace

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import FEWEST_IMAGES, LITTLE_EXPLAINED, Case
from cae_cli.diagnosis.catalogue import RULES, Rule, When
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped
from cae_cli.metrics.batches import BatchStatistics
from cae_cli.metrics.preparation import Preparation
from cae_cli.statistics.interval import wilson

INF = math.inf

# The outputs that an activation can produce.
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
LEAST_NOISY = 0.04  # share of the images; what `metrics.noise` calls a part has more
CLEAN = "It is 0 on Fashion-MNIST, MNIST, Omniglot, digits, glyphs and photographs."


@RULES.add
class Repeats(Rule):
    """A network reproduces a handful of images perfectly without describing anything.

    Held-out images are reproduced as well, and every other figure looks excellent.
    """

    code = "CAE101"
    problem = "most images are repeats of a few"
    severity = Severity.ERROR
    when = When.ALWAYS
    measured = (
        "share of images that differ from every earlier one, or variance over images over contrast "
        "within"
    )
    threshold = 0.5
    unit = "of the images"
    fires = "below"
    source = "It is 1 on Fashion-MNIST, MNIST, Omniglot, digits, glyphs and photographs."
    least_variance = 0.05  # of the contrast within images; 0.5 to 19 on the same data

    def check(self, case: Case) -> Finding | None:
        dataset, batches = case.dataset, case.trained.batches if case.trained else None
        distinct = min(dataset.distinct, batches.distinct if batches else 1.0)
        contrast = dataset.image_std**2
        ratio = dataset.variance / contrast if contrast else INF
        advice = "check how the images are read: the same files may be read again and again"
        if distinct < self.threshold:
            return self.finding(
                f"{distinct:.1%} of the images differ from every earlier one",
                Evidence("distinct images", distinct, self.threshold, (0.99, 1.0), self.unit),
                advice=advice,
            )
        if ratio >= self.least_variance:
            return None
        return self.finding(
            f"the variance over images is {ratio:.2%} of the contrast within them",
            Evidence("variance over images", ratio, self.least_variance, (0.5, INF), "of the contrast"),
            advice=advice,
        )


@RULES.add
class RangeMismatch(Rule):
    """On images from 0 to 255 a sigmoid output, which ends at 1, saturates in the first steps.

    The output stays white, whatever the filters compute.
    """

    code = "CAE102"
    problem = "the output cannot reach the values of the images"
    severity = Severity.ERROR
    when = When.ALWAYS
    measured = "how far the values of the images exceed the range of the output activation"
    threshold = 0.05
    unit = "pixel values"
    fires = "above"
    source = "It is 0 where images and outputs have the same range, and 254 for images from 0 to 255."

    def check(self, case: Case) -> Finding | Skipped | None:
        activation = case.network.output_activation
        if activation is None:
            return self.skipped("the output activation is unknown")
        low, high = RANGES.get(activation, (-INF, INF))
        batches = case.trained.batches if case.trained else None
        start, width = case.network.span[0], case.network.span[1] - case.network.span[0]
        ends = sorted((start + width * case.dataset.low, start + width * case.dataset.high))
        least, most = (batches.target_low, batches.target_high) if batches else ends
        beyond = max(low - least, most - high, 0.0)
        if beyond <= self.threshold:
            return None
        return self.finding(
            f"the images have values from {least:g} to {most:g}, {activation} from {low:g} to {high:g}",
            Evidence("values beyond the output", beyond, self.threshold, (0, 0), self.unit),
            fixes=(fixes.SCALED_IMAGES, replace(fixes.LINEAR_OUTPUT, safety=Safety.TRADE)),
        )


@RULES.add
class TargetMismatch(Rule):
    """The network cannot predict a target that shows something else than the input.

    Shuffled pairs and transforms of the input alone (ImageDataGenerator.flow(x, x)) give a blur or the
    mean image. Where only some pairs are wrong, the images that they show are drawn worse. A target that
    resembles the right one, as another image of its kind does, is seen less often.
    """

    code = "CAE103"
    problem = "the target is not the input's image"
    severity = Severity.ERROR
    measured = (
        "squared difference of input and target in the first batches, over that of two images; white "
        "noise, as denoising adds it, masks, which set values to one and the same, whatever leaves a "
        "part of each image as it is, and a blur or a resolution that all images share do not count. "
        "Also the share of the pairs whose input fits more than a tenth of the other targets better "
        "than its own, where most inputs fit their own best"
    )
    threshold = 0.1
    unit = "of that of two images"
    fires = "above"
    source = (
        "0 for reconstruction, 1 for shuffled pairs, 0.3 to 0.7 for transforms of the input alone. No "
        "pair is certainly wrong among pairs with noise, masks, blur, a quarter of the resolution, "
        "another contrast or range, on Fashion-MNIST, MNIST, Omniglot and photographs. Of 5 % wrong "
        "pairs, 2 to 5 % are seen among them. A filter leaves 0.06 at most of the difference of images "
        "from blurred and from enlarged ones, 0.2 or more where the input is shifted, rotated, "
        "mirrored, mixed or another image. Of the values of a target, 0.3 to 0.6 are those of an input "
        "with holes of noise, less than 0.1 those of a moved, mirrored or mixed one."
    )
    most_noise = 0.2  # correlation of neighbours in the difference; 0.6 to 0.9 for pairs of images
    # Of the values that differ, those that a mask set to one value. Of another image, also on a black
    # background, most values that differ are not that of the background.
    most_erased = 0.95
    least_kept = 0.25  # of a target's values that are the input's too, see `BatchStatistics.kept`
    most_unfiltered = 0.1  # see `BatchStatistics.unfiltered`
    # Of single pairs: certainly more than this share shows another image, not fewer than those that are
    # unclear (a third of them at most, where inputs are merely hard to tell), and most pairs are right.
    least_foreign = 0.005
    least_matched = 0.5

    def check(self, case: Case) -> Finding | Skipped | None:
        batches = case.metrics.batches
        if batches is None:
            return self.skipped("the training was not recorded")
        if not math.isfinite(batches.pair):
            return self.skipped("the first batches do not contain two different images")
        denoising = abs(batches.difference_correlation) < self.most_noise
        # Pairs that the user gave as such are wrong only if nothing of the target can be predicted.
        explained = case.metrics.quality.explained_variance
        meant = case.metrics.paired and explained >= LITTLE_EXPLAINED
        masked = batches.erased > self.most_erased or batches.kept >= self.least_kept
        blurred = batches.unfiltered < self.most_unfiltered
        some = self._foreign(batches)
        if batches.pair <= self.threshold or denoising or masked or blurred or meant:
            return some
        message = f"input and target differ {batches.pair:.2f} times as much as two images"
        if isinstance(some, Finding):
            message += f"; {some.message}"
        one_sided = case.option("augmentation.target") == "original"
        if one_sided:
            message += ": the augmentation changes the input only"
        return self.finding(
            message,
            Evidence("squared difference", batches.pair, self.threshold, (0, 0), self.unit),
            fixes=(fixes.SAME_TARGET,) if one_sided or case.script else (),
            advice="use the image as its own target, shuffled and transformed together with it"
            + ("; if they are meant to differ, give both: Diagnosis((x, y))" if case.script else ""),
        )

    def _foreign(self, batches: BatchStatistics) -> Finding | Skipped | None:
        """The finding on a part of the pairs, where the others belong together."""
        foreign, unclear, compared = batches.foreign, batches.unclear, batches.compared
        if not math.isfinite(foreign):  # too few pairs, or a run of an older version
            return None
        if 1 - foreign - unclear < self.least_matched:
            if batches.pair <= self.threshold:
                return None
            return self.skipped("too few inputs resemble their own target more than another one")
        if foreign < max(unclear, self.least_foreign):
            return None
        low, high = wilson(round(foreign * compared), compared)
        if low <= self.least_foreign:
            return None
        return self.finding(
            f"the target shows another image than the input in {foreign:.1%} of {compared} pairs "
            f"(95 % interval {low:.1%} to {high:.1%})",
            Evidence("pairs of other images", foreign, self.least_foreign, (0, 0), "of the pairs"),
            advice="check how inputs and targets are put together: both in one order, each once",
        )


class _Noise(Rule):
    """What the two rules on noise share."""

    when = When.ALWAYS
    measured = "correlation of neighbouring pixels within an image"
    unit = "(-1 to 1)"
    fires = "below"
    smallest = 12  # pixels of a side: in smaller images neighbours are a stroke apart

    def check(self, case: Case) -> Finding | Skipped | None:
        if min(case.network.image_shape[:2]) < self.smallest:
            return self.skipped(f"images below {self.smallest} pixels have no smooth parts")
        if case.dataset.train < FEWEST_IMAGES:
            return self.skipped("there are too few images")
        # Of the images, not of the batches: noise that is put on the input keeps clean targets.
        correlation = case.dataset.correlation
        if math.isnan(correlation):
            return self.skipped("the images have no contrast")
        if correlation >= self.threshold:
            return self.of_a_part(case)
        clean = Fix(("data.noise=0",), "images without added noise", Safety.SAFE, "# no added noise")
        return self.finding(
            f"neighbouring pixels have a correlation of {correlation:.2f}",
            Evidence("pixel correlation", correlation, self.threshold, (0.65, 1), self.unit),
            fixes=(clean,) if case.option("data.noise") else (),
            advice=(
                "average or filter the images first, or use cleaner ones: no option of the network helps"
            ),
        )

    def of_a_part(self, case: Case) -> Finding | None:
        """The finding on a part of the images, where their mean shows nothing."""
        return None


@RULES.add
class PureNoise(_Noise):
    """Noise has no structure that a latent code could represent.

    Filters trained on it look structured all the same.
    """

    code = "CAE104"
    problem = "the images are noise"
    severity = Severity.ERROR
    threshold = 0.1
    source = (
        "White noise has 0, photographs 0.89, Fashion-MNIST and glyphs 0.85, MNIST 0.80, Omniglot 0.65."
    )


@RULES.add
class NoisyImages(_Noise):
    """Most of the error is unpredictable noise: filters fit it and the output blurs.

    It may be in a part of the images only: broken files, another camera, an augmentation that was saved
    with them. Images that are all equally rough, as textures are, are no such part.
    """

    code = "CAE105"
    problem = "the images are noisy"
    severity = Severity.WARNING
    measured = (
        "correlation of neighbouring pixels within an image; also the share of images that are far "
        "noisier than the others, with a gap between the two groups"
    )
    threshold = 0.5
    source = (
        "As in CAE104; Fashion-MNIST with clipped noise of standard deviation 0.3 has 0.47. No noisy "
        "part is found in Fashion-MNIST, MNIST, Omniglot, nor in 3,185 mixtures of patches of two or "
        "three of 14 photographs; the whole part where 5 to 80 % of them, or of patches of 28 pixels "
        "and more, got Gaussian, uniform or salt-and-pepper noise with 0.2 to 0.35 of their range."
    )

    def of_a_part(self, case: Case) -> Finding | None:
        share = case.dataset.noisy
        if math.isnan(share) or share < LEAST_NOISY:
            return None
        return self.finding(
            f"{share:.0%} of the images are noisy and the others are not, for instance the training "
            f"images {case.dataset.examples}, counted from 0",
            Evidence("noisy images", share, LEAST_NOISY, (0, 0), "of the images"),
            advice="look at these images, and leave them out or filter them",
        )


@RULES.add
class HeldOutRepeats(Rule):
    """Memorising these images and describing them give the same figures."""

    code = "CAE106"
    problem = "held-out images are among the training images"
    severity = Severity.WARNING
    when = When.ALWAYS
    measured = "share of held-out images that are identical to a training image"
    threshold = 0.1
    unit = "of the held-out images"
    fires = "above"
    source = CLEAN

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.not_compared:
            return self.skipped(case.not_compared)
        share = case.dataset.repeated
        if share <= self.threshold:
            return None
        return self.finding(
            f"{share:.0%} of the held-out images are among the training images",
            Evidence("repeated held-out images", share, self.threshold, (0, 0.001), self.unit),
            advice="remove duplicates before the images are split",
        )


@RULES.add
class FlatImages(Rule):
    """Truncated files, masks and empty pages are read as images of one colour.

    They are easy to reproduce and make every mean over images look better.
    """

    code = "CAE107"
    problem = "many images are flat"
    severity = Severity.WARNING
    when = When.ALWAYS
    measured = "share of training images without any contrast"
    threshold = 0.1
    unit = "of the images"
    fires = "above"
    source = CLEAN

    def check(self, case: Case) -> Finding | None:
        share = case.dataset.flat
        if share <= self.threshold:
            return None
        return self.finding(
            f"{share:.0%} of the images have one colour",
            Evidence("flat images", share, self.threshold, (0, 0.01), self.unit),
            advice="inspect these images, and leave them out if they are damaged",
        )


@RULES.add
class UnmixedBatches(Rule):
    """Each step follows the images of its batch, and what it learned of others is lost again.

    Such batches are worth as much as far smaller ones, and the last kind of images counts most. Fit with
    shuffle=False on images that are sorted by class does it, or tf.data with a small shuffle buffer.
    """

    code = "CAE108"
    problem = "the images come in an order"
    severity = Severity.WARNING
    measured = (
        "variance of the mean of 16 to 32 consecutive images of the first batches, over that of images "
        "drawn at random; the threshold is raised by five standard deviations of what mixed images have"
    )
    threshold = 2.5
    unit = "times that of mixed"
    fires = "above"
    source = (
        "Mixed batches have 1, with augmentation up to 2.3; batches of 32 images sorted by class have 3 "
        "to 18 on Fashion-MNIST and MNIST."
    )
    deviations = 5.0
    usual = 0.25  # correlation of images of a kind; 0.4 within classes of Fashion-MNIST, 0.2 of MNIST

    def check(self, case: Case) -> Finding | Skipped | None:
        order = case.metrics.order
        if order is None:
            return self.skipped("the order of the images was not recorded")
        limit = self.threshold + self.deviations * order.chance
        if order.inflation > limit:
            return self.finding(
                f"the mean of {order.images} consecutive images varies {order.inflation:.1f} times as "
                "much as that of images drawn at random",
                Evidence("variance of the mean", order.inflation, limit, (0, 1.5), self.unit),
                fixes=(fixes.MIXED_BATCHES,),
                advice="mix the images before they are divided into batches",
            )
        if limit > 1 + (order.images - 1) * self.usual:
            return self.skipped("the first batches have too few images to tell their order")
        return None


@RULES.add
class OtherHeldOutImages(Rule):
    """What is measured on such images says nothing about the filters.

    A generator that divides by 255 beside validation data that nothing divides, or another
    normalisation, makes the output look collapsed.
    """

    code = "CAE109"
    of_images = True
    problem = "the held-out images are unlike the training images"
    severity = Severity.ERROR
    when = When.ALWAYS
    measured = (
        "share of held-out images with values outside the range of the training images; the share of "
        "that range that they fill; where they are reconstructed worse, also whether nearly all of them "
        "are brighter, darker, or of more or less contrast or detail"
    )
    threshold = 0.5
    unit = "of the held-out images"
    fires = "above"
    source = (
        "It is 0 on Fashion-MNIST, MNIST, Omniglot and for each of 14 photographs among the others. "
        "These fill 0.60 of the range or more, and at most 0.76 of the pairs are certainly ordered."
    )
    # Images from 0 to 1 fill half of a range from -1 to 1.
    least_filled = 0.5
    separated = 0.9  # share of pairs of a training and a held-out image that are ordered
    gap = 0.04  # of explained variance, as in CAE501; a linear decoder fails on such images as well

    def check(self, case: Case) -> Finding | Skipped | None:
        dataset = case.dataset
        if case.not_compared:
            return self.skipped(case.not_compared)
        if math.isnan(dataset.beyond):
            return self.skipped("the two sets were not compared")
        advice = "prepare both by the same code: scale, normalisation, colour channels, inversion"
        if dataset.beyond > self.threshold:
            return self.finding(
                f"{dataset.beyond:.0%} of the held-out images have values outside the range of the "
                "training images",
                Evidence(
                    "images of another range", dataset.beyond, self.threshold, (0, 0.01), self.unit
                ),
                advice=advice,
            )
        if dataset.held_out < FEWEST_IMAGES:
            return self.skipped("there are too few held-out images")
        if dataset.filled <= self.least_filled:
            return self.finding(
                f"the held-out images fill {dataset.filled:.1%} of the range of the training images",
                Evidence("filled", dataset.filled, self.least_filled, (0.9, 1), "of the range"),
                advice=advice,
            )
        if case.trained is None or case.unusable:
            return None
        if case.unscored:
            return self.skipped(case.unscored)
        q = case.metrics.quality
        worse = q.train_explained_variance - q.explained_variance - q.mse.margin / q.mean_image_mse
        return self._by_kind(case, advice) if worse > self.gap else None

    def _by_kind(self, case: Case, advice: str) -> Finding | None:
        """The finding on images that are told apart by what they show."""
        words = {
            "brightness": ("darker", "brighter"),
            "contrast": ("of less contrast", "of more contrast"),
            "detail": ("of less detail", "of more detail"),
        }
        shares = {name: getattr(case.dataset, name) for name in words}
        name = max(shares, key=lambda name: abs(shares[name] - 0.5))
        ordered = 0.5 + abs(shares[name] - 0.5)
        if ordered <= self.separated:
            return None
        return self.finding(
            f"a held-out image is {words[name][shares[name] > 0.5]} than a training image in "
            f"{ordered:.1%} of all pairs",
            Evidence(f"ordered by {name}", ordered, self.separated, (0.24, 0.76), "of the pairs"),
            advice=advice,
        )


@RULES.add
class NoisyTargets(Rule):
    """No output comes closer to such a target than its noise, which nothing in the input predicts.

    fit(clean, noisy) is a denoising autoencoder the wrong way around: input and target were swapped.
    """

    code = "CAE110"
    problem = "the target is noisier than the input"
    severity = Severity.WARNING
    measured = (
        "mean square of white noise between input and target over the variance of the targets, where "
        "neighbouring pixels of the target correlate less than those of the input"
    )
    threshold = 0.1
    unit = "of the variance"
    fires = "above"
    source = (
        "By definition a share of the variance that cannot be explained. The difference is white (0 to "
        "0.12) for added, clipped, and salt-and-pepper noise; that of sharp targets of blurred or small "
        "inputs has 0.13 to 0.6."
    )
    most_correlated = 0.125  # neighbouring pixels of the difference
    least_drop = 0.05  # of the correlation of neighbours, from input to target; 0 for equal noise

    def check(self, case: Case) -> Finding | Skipped | None:
        batches = case.metrics.batches
        if batches is None or math.isnan(batches.difference):
            return self.skipped("the training was not recorded")
        if not batches.variance:
            return self.skipped("all targets are the same image")
        share = batches.difference / batches.variance
        white = abs(batches.difference_correlation) < self.most_correlated
        noisier = batches.target_correlation < batches.correlation - self.least_drop
        if share <= self.threshold or not white or not noisier:
            return None
        return self.finding(
            f"{min(share, 1):.0%} of the variance of the targets is noise that the inputs do not have",
            Evidence("noise in the target", share, self.threshold, (0, 0), self.unit),
            fixes=(fixes.CLEAN_TARGET,),
            advice="give the noisy images as the input and the clean ones as the target",
        )


@RULES.add
class WrongOrder(Rule):
    """The values of an image were put into rows, columns and channels in another order than they have.

    reshape never complains: it reads channel planes as pixels, and swaps height and width. Neighbouring
    pixels are then no neighbours, and filters learn a grid that no image has.
    """

    code = "CAE111"
    problem = "the pixels are in the wrong places"
    severity = Severity.ERROR
    when = When.ALWAYS
    measured = (
        "1 - correlation of neighbouring pixels after the values were put in the best other order, over "
        "the same of the images as they are"
    )
    threshold = 0.6
    unit = "of that as it is"
    fires = "below"
    source = (
        "A wrong order tears the images in one direction at least, so undoing it halves what is rough: "
        "0.09 to 0.4 on photographs, Fashion-MNIST and MNIST, 0.57 on Omniglot. For right images the "
        "best other order has 1.1 or more on each of 14 photographs in several sizes, 1.7 or more else."
    )
    least_smooth = 0.5  # correlation after that, as in CAE105: noise has no right order

    def check(self, case: Case) -> Finding | Skipped | None:
        dataset = case.dataset
        if dataset.mistake == "unknown":
            return self.skipped("the order of the pixels was not measured")
        if dataset.train < FEWEST_IMAGES:
            return self.skipped("there are too few images")
        if not dataset.roughness < self.threshold or dataset.smoothness < self.least_smooth:
            return None
        return self.finding(
            f"neighbouring pixels have a correlation of {dataset.correlation:.2f}, in another order of "
            f"{dataset.smoothness:.2f}: {dataset.mistake}",
            Evidence(
                "roughness in that order",
                dataset.roughness,
                self.threshold,
                (1, INF),
                self.unit,
            ),
            advice="show some images, and check the shape and the order in which they are reshaped",
        )


@RULES.add
class OtherPreparation(Rule):
    """A network knows images by the values that it was trained on.

    From 0 to 255, from -1 to 1, with mean 0 and standard deviation 1, inverted, with the channels in
    another order: what it makes of other values says nothing about its filters.
    """

    code = "CAE112"
    of_images = True
    problem = "the images are prepared otherwise than those of the training"
    severity = Severity.WARNING
    measured = (
        "squared error where the images are prepared in the best of the usual other ways, over that as "
        "they are, where that way explains a tenth of what flat images leave"
    )
    threshold = 0.5
    unit = "of that as they are"
    fires = "below"
    source = (
        "17 healthy networks of MNIST, Fashion-MNIST, Omniglot and patches of photographs, with "
        "sigmoid, linear and tanh outputs in four ranges, have 0.72 and more in the way of their "
        "training, and 0.01 to 0.43 in others where they explain less than 0.85. For untrained "
        "and collapsed networks no preparation is better."
    )
    # Divergence of what the first normalisation layer holds: 0.025 at most where images are prepared as
    # in the training, also while running averages lag behind, which another contrast seems to mend.
    agreeing = 0.03

    def check(self, case: Case) -> Finding | Skipped | None:
        tried = case.metrics.preparation
        if math.isnan(tried.error):
            if case.metrics.evaluated:
                return self.skipped("other ways to prepare the images were not tried")
            return None  # it was trained on these images as they are
        # It was trained on inputs with these statistics.
        known = tried.stored <= self.agreeing and not tried.is_same_input
        if tried.error >= self.threshold or tried.learned < LITTLE_EXPLAINED or known:
            return self.skipped(case.unusable) if case.unusable else None
        return self.finding(
            f"the network explains {max(tried.explained, 0):.0%} of the variance of the images as "
            f"they are, and {tried.otherwise:.0%} {self._words(tried)}",
            Evidence("error in another way", tried.error, self.threshold, (0.75, INF), self.unit),
            fixes=(fixes.prepared(tried),),
            advice="prepare the images by the code of the training: range, inversion, order of channels",
        )

    @staticmethod
    def _words(tried: Preparation) -> str:
        """The other way in words."""
        low, high = sorted((tried.given_low, tried.given_high))
        words = f"of those from {low:.3g} to {high:.3g}"
        if tried.is_standardised:
            words += " (mean 0, standard deviation 1)"
        if tried.given_low > tried.given_high:
            words += " with black and white exchanged"
        if not tried.is_same_output:
            ends = sorted((tried.made_low, tried.made_high))
            words += f", if its output is from {ends[0]:.3g} to {ends[1]:.3g}"
        return words + (" and the channels in the order blue, green, red" if tried.swapped else "")


@RULES.add
class OtherImages(Rule):
    """What a network makes of images that it was never trained for says nothing about its filters.

    Digits and photographs differ in brightness, contrast and detail, and so do all maps.
    """

    code = "CAE113"
    of_images = True
    problem = "the network was trained on images of another kind"
    severity = Severity.WARNING
    measured = (
        "divergence of the statistics that the first normalisation layer holds from those of what it "
        "gets, where the result is poor; initial values that running averages still hold are allowed for"
    )
    threshold = 0.1
    unit = "nats"
    fires = "above"
    source = (
        "20 networks, healthy ones and those with running averages that lag, shuffled targets or a "
        "small code, have 0.01 at most on images like those of the training, on other photographs "
        "0.025. Those of digits have 0.28 on photographs, those of photographs 0.64 on digits."
    )

    def check(self, case: Case) -> Finding | Skipped | None:
        distance = case.metrics.preparation.stored
        if math.isnan(distance):
            if case.metrics.evaluated:
                return self.skipped("no normalisation layer holds statistics of the training")
            return None
        if case.unusable:
            return self.skipped(case.unusable)
        if distance <= self.threshold or not case.poor:
            return None
        return self.finding(
            f"what the first normalisation layer holds of the training differs by {distance:.2f} from "
            f"what it gets; it explains {case.metrics.quality.explained_variance:.0%} of the variance",
            Evidence("divergence", distance, self.threshold, (0, 0.03), self.unit),
            advice="use images like those of the training, prepared by the same code; or train on these",
        )
