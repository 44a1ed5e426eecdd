"""Rules on the size of the network; most are checked only where the result is poor.

Explained variance still rises after 131,000 images, so these rules hold for the steps taken, and need as
many as a healthy network needs to be better than a linear decoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import STEPS_FOR_SKILL, Case
from cae_cli.diagnosis.catalogue import RULES, Rule
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped
from cae_cli.errors import counted

INF = math.inf


class _Capacity(Rule):
    """What these rules share."""

    severity = Severity.WARNING
    picture = "baselines.png"

    @staticmethod
    def _too_soon(case: Case) -> str | None:
        if few := case.too_early or case.fewer_steps_than(STEPS_FOR_SKILL):
            return few
        return "the training had not yet come past the mean image" if case.on_plateau else None

    @staticmethod
    def _result(case: Case) -> str:
        metrics = case.metrics
        return (
            f"explained variance is {metrics.quality.explained_variance:.3f}, that of a linear decoder "
            f"{metrics.perturbation.linear:.3f}"
        )


@RULES.add
class PointKernels(_Capacity):
    """A 1x1 kernel weighs channels and sees no neighbours: it cannot become an edge or a texture."""

    code = "CAE601"
    of_filters = True
    problem = "the filters see single pixels"
    measured = "largest side of a hidden kernel, where the result is poor"
    threshold = 1
    unit = "pixels"
    fires = "up to"
    source = "On Fashion-MNIST kernels of 1 reach a skill score of -0.87, kernels of 3 one of 0.25."

    def check(self, case: Case) -> Finding | Skipped | None:
        if soon := self._too_soon(case):
            return self.skipped(soon)
        side = max(max(layer.kernel[:2]) for layer in case.hidden)
        if side > self.threshold or not case.poor:
            return None
        return self.finding(
            f"all hidden kernels are {side}x{side}; {self._result(case)}",
            Evidence("largest side of a kernel", side, self.threshold + 0.5, (3, INF), self.unit),
            case.skill_score(),
            fixes=(
                fixes.kernel_size(3, "filters that see neighbouring pixels"),
                fixes.kernel_size(5, "filters that see more neighbouring pixels", Safety.SLOW),
            ),
        )


@RULES.add
class TightLatent(_Capacity):
    """The best linear autoencoder of this size fails as well: with any filters, too little fits.

    A code that is drawn at random, as in a variational autoencoder, is left out: what it holds is set by
    the weight of its divergence from the prior, and a wider code need not hold more.
    """

    code = "CAE602"
    problem = "the latent code is too small"
    measured = (
        "explained variance of as many principal components, where the network explains less too; where "
        "flat images explain something, also the share of what they leave (below 0.5)"
    )
    threshold = 0.75
    unit = "of the variance"
    fires = "below"
    source = (
        "The 392 values of the reference network give 0.99 on Fashion-MNIST; 8 values give 0.7. On "
        "colour photographs of 64 pixels flat images explain 0.85, 4 values 0.2 of the rest, 128 values "
        "0.8 of it."
    )
    least_beyond_flat = 0.5

    def check(self, case: Case) -> Finding | Skipped | None:
        if soon := self._too_soon(case):
            return self.skipped(soon)
        if math.isfinite(case.metrics.latent.informative):
            return self.skipped(
                "the code is drawn at random: its number of values is not what limits it"
            )
        possible = case.metrics.perturbation.projection
        explained = case.metrics.quality.explained_variance
        if not math.isfinite(possible):
            return self.skipped("the images are too large or too few for principal components")
        unit, threshold, healthy = self.unit, self.threshold, (0.85, 1)
        evidence = case.explained_variance(threshold)
        if possible >= threshold and case.metrics.flat > 0:
            unit, threshold, healthy = "of what flat images leave", self.least_beyond_flat, (0.75, 1)
            possible, explained = map(case.beyond_flat, (possible, explained))
            evidence = Evidence("explained variance", explained, threshold, (0.25, 1), unit)
        if possible >= threshold or explained >= threshold:
            return None
        return self.finding(
            f"{case.network.latent_values} principal components explain {possible:.3f} {unit}, the "
            f"network {explained:.3f}",
            Evidence("principal components", possible, threshold, healthy, unit),
            evidence,
            fixes=self._fixes(case),
            advice="a larger latent code",
        )

    @staticmethod
    def _fixes(case: Case) -> Iterator[Fix]:
        channels = max(8, 4 * case.network.latent_shape[-1])
        if case.network.dense:
            yield fixes.code_of(case, channels, "a larger latent code")
            return
        filters = list(case.option("model.filters") or [])
        fewer = filters[:-1] if len(filters) > 2 else []
        if fewer:
            # A stage leaves a quarter of the positions: channels alone do not say where things are.
            yield fixes.layer_sizes("one stage less, more channels", filters=fewer, channels=channels)
        yield fixes.layer_sizes("a larger latent code", channels=channels)
        if fewer:
            yield fixes.layer_sizes("one stage less", filters=fewer)


@RULES.add
class Narrow(_Capacity):
    """All information passes this layer, and a few maps cannot carry it, least of all if one dies."""

    code = "CAE603"
    problem = "the network is too narrow"
    measured = "fewest filters of a hidden layer, where the result is poor"
    threshold = 3
    unit = "filters"
    fires = "up to"
    source = "On Fashion-MNIST one filter gives -0.48 after 200 steps, a wider layer 0.80."

    def check(self, case: Case) -> Finding | Skipped | None:
        if soon := self._too_soon(case):
            return self.skipped(soon)
        narrowest = case.network.narrowest
        if narrowest is None:
            return self.skipped("there is no hidden convolution")
        if narrowest > self.threshold or not case.poor:
            return None
        filters = [max(8, 4 * n) for n in case.option("model.filters") or []]
        channels = case.option("model.latent_channels")
        narrow = 8 if channels is not None and channels <= self.threshold else None
        wider = fixes.layer_sizes("wider layers", filters=filters, channels=narrow)
        return self.finding(
            f"a hidden layer has {counted(narrowest, 'filter')}; {self._result(case)}",
            Evidence("fewest filters", narrowest, self.threshold + 0.5, (8, INF), self.unit),
            case.skill_score(),
            fixes=(wider,) if filters else (),
            advice="more filters in the narrowest layer",
        )


@RULES.add
class Shallow(_Capacity):
    """A latent value that sees a few pixels represents these pixels.

    Describing parts of objects takes a larger view.
    """

    code = "CAE604"
    problem = "the network is too shallow"
    measured = (
        "receptive field over the side of the image, where more than 0.1 of scrambled pixels is copied, "
        "and a fifth more than a linear description of the same size passes"
    )
    threshold = 0.2
    unit = "of the image's side"
    fires = "below"
    source = "The reference network has 0.36 on 28x28 images, a network of one stage 0.14."
    most_copied = 0.1
    largest_latent = 3.0  # times the image: beyond that, the missing bottleneck is what copies

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.unusable:
            return self.skipped(case.unusable)
        field, side = case.network.receptive_field, min(case.network.image_shape[:2])
        copied = case.metrics.perturbation.pixel_copy
        if field is None:
            return self.skipped("the receptive field of this network is unknown")
        if not math.isfinite(copied):
            return self.skipped("the images have no contrast")
        share = field / side
        large = case.network.latent_values > self.largest_latent * case.network.image_values
        passed = case.network.most_copied
        most = self.most_copied if passed == 1 else max(self.most_copied, passed)
        if share >= self.threshold or case.metrics.perturbation.least_copied <= most or large:
            return None
        return self.finding(
            f"a latent value sees {field:g} of {side} pixels, and {copied:.0%} of scrambled pixels are "
            "copied",
            Evidence("receptive field", share, self.threshold, (0.36, 1), self.unit),
            Evidence("pixel copy", copied, most, (-INF, 0.05), "of the contrast"),
            fixes=fixes.deeper(case, self.threshold),
            advice="another stage of convolution and pooling",
        )


@RULES.add
class TooDeep(_Capacity):
    """Signals and gradients fade over many plain layers: the first filters learn last, or never.

    Networks with batch normalisation, or with sums that lead around layers as in residual blocks, are
    left out: there they do not fade.
    """

    code = "CAE605"
    of_filters = True
    problem = "the network is too deep for this training"
    measured = (
        "layers with kernels on the longest path of a network without batch normalisation and "
        "shortcuts, where the result is poor"
    )
    threshold = 14
    unit = "layers"
    fires = "above"
    source = "24 plain layers of 8 filters are dead before the first step; 12 layers of 16 are healthy."

    def check(self, case: Case) -> Finding | Skipped | None:
        if soon := self._too_soon(case):
            return self.skipped(soon)
        depth, is_plain = case.network.depth, not (case.network.normalised or case.network.shortcuts)
        if depth <= self.threshold or not is_plain or not case.poor:
            return None
        return self.finding(
            f"the longest path has {depth} layers; {self._result(case)}",
            Evidence("longest path", depth, self.threshold, (2, 12), self.unit),
            case.skill_score(),
            fixes=self._fixes(case),
            advice="fewer layers, residual blocks or batch normalisation",
        )

    @staticmethod
    def _fixes(case: Case) -> Iterator[Fix]:
        keras = "x = Add()([x, block(x)])"
        yield fixes.batchnorm(case, "signals that do not fade")
        yield Fix(("model.block=residual",), "a path around each block", Safety.SAFE, keras)
        if (case.option("model.convolutions") or 1) > 1:
            keras = "# one convolution per stage"
            yield Fix(("model.convolutions=1",), "fewer layers", Safety.SAFE, keras)


@RULES.add
class PixelsUnread(Rule):
    """A stride larger than its kernel jumps over pixels, and valid padding may cut off a border.

    What such a pixel shows cannot be in the latent code; it can only be guessed from its neighbours. In
    a decoder the same leaves pixels of the output that are the bias, whatever the image shows.
    """

    code = "CAE606"
    problem = "pixels are not read or not drawn"
    severity = Severity.WARNING
    measured = (
        "share of the variance of the images in pixels on which no value of the output depends, or in "
        "pixels of the output that the image cannot change"
    )
    threshold = 0.15
    unit = "of the images' variance"
    fires = "above"
    source = (
        "Networks of this tool and the unchanged scripts of the fault benchmark have 0; a kernel of 3 "
        "with a stride of 2 and valid padding leaves one row and one column, at most 0.07 of 28x28; a "
        "kernel of 3 with a stride of 4 leaves 0.41 of digits of 8x8, and the error is 2.7 times as "
        "large."
    )

    def check(self, case: Case) -> Finding | Skipped | None:
        if case.unusable:
            return self.skipped(case.unusable)
        reach, network = case.metrics.reach, case.network
        share = max(reach.unread, reach.unreached)
        if math.isnan(share):
            return self.skipped("which pixels the layers read is not known")
        if share <= self.threshold:
            return None
        height, width = network.image_shape[:2]
        if reach.unread >= reach.unreached:
            what = (
                f"no value of the output depends on {reach.pixels:.0%} of the pixels ({reach.rows} of "
                f"{height} rows, {reach.columns} of {width} columns)"
            )
        else:
            what = "pixels of the output are the same for every image, by the layers alone"
        if network.skipping:
            what += f"; the stride is larger than the kernel in {', '.join(network.skipping)}"
        found = self.finding(
            f"{what}; {share:.0%} of the variance of the images is there",
            Evidence("in such pixels", share, self.threshold, (0, 0.07), self.unit),
            fixes=(fixes.KERNEL_AS_STRIDE,),
            advice="" if case.script else "kernels at least as large as their strides",
        )
        return replace(found, severity=Severity.ERROR) if case.poor else found
