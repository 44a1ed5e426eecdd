"""Rules on what the network is made of: they look only where the result is poor.

Explained variance still rises after 131,000 images, so each verdict here is relative to the steps
taken, and needs as many as a healthy network needs to pass a linear decoder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

from cae_cli.diagnosis import fixes
from cae_cli.diagnosis.case import POOR_SKILL, STEPS_FOR_SKILL, USUAL_SKILL, Case
from cae_cli.diagnosis.catalogue import RULES, Rule
from cae_cli.diagnosis.finding import Evidence, Finding, Fix, Safety, Severity, Skipped

INF = math.inf
OTHERS = ("CAE103", "CAE105", "CAE206", "CAE207", "CAE208", "CAE209", "CAE210", "CAE301")
# What a network shows that cannot hold or reach what it should.
DEAD = ("CAE205", "CAE301", "CAE401", "CAE402")


class _Capacity(Rule):
    """What these rules share."""

    severity = Severity.WARNING
    consequences: ClassVar[tuple[str, ...]] = ("CAE303", "CAE302", "CAE304", "CAE211")
    picture = "baselines.png"

    def _too_soon(self, case: Case) -> str | None:
        return case.too_early or case.fewer_steps_than(STEPS_FOR_SKILL)

    @staticmethod
    def _explained(case: Case) -> str:
        perturbation = case.metrics.perturbation
        return (
            f"explained variance {case.metrics.quality.explained_variance:.3f}, "
            f"linear decoder {perturbation.linear:.3f}"
        )

    @staticmethod
    def _skill_score(case: Case) -> Evidence:
        return Evidence("skill_score", case.metrics.perturbation.skill_score, POOR_SKILL, USUAL_SKILL)


@RULES.add
class PointKernels(_Capacity):
    """Filters that see one pixel."""

    code = "CAE601"
    problem = "the filters see single pixels"
    measured = "largest side of a hidden kernel, where the result is poor"
    why = "A 1x1 kernel weighs channels and knows no neighbours: it cannot become an edge or a texture."
    threshold = 1
    source = "kernels of 1 end at a skill score of -.87 on Fashion-MNIST, of 3 at .25"
    consequences = (
        *_Capacity.consequences, *DEAD, "CAE602", "CAE603", "CAE604", "CAE605",
    )  # fmt: skip
    alternatives = OTHERS

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires if no hidden kernel is larger than 1x1."""
        if soon := self._too_soon(case):
            return self.skipped(soon)
        side = max(max(layer.kernel[:2]) for layer in case.hidden)
        if side > self.threshold or not case.poor:
            return None
        return self.finding(
            f"all hidden kernels are {side}x{side}; {self._explained(case)}",
            Evidence("largest side of a kernel", side, self.threshold + 0.5, (3, INF)),
            self._skill_score(case),
            fixes=(
                Fix(("model.kernel_size=3",), "filters that see neighbours", Safety.SAFE),
                Fix(("model.kernel_size=5",), "and more of them", Safety.SLOW),
            ),
        )


@RULES.add
class TightLatent(_Capacity):
    """The latent code has too few values."""

    code = "CAE602"
    problem = "the latent code is too tight"
    measured = "explained variance of principal components, as many as the latent code has values"
    why = (
        "The best linear autoencoder of this size does not get far either: what is missing has no "
        "room, whatever the filters."
    )
    threshold = 0.75
    source = "the reference network's 392 values give .99 on Fashion-MNIST; 8 give .7"
    alternatives = OTHERS
    consequences = _Capacity.consequences

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires below .75 where the network itself is not far beyond."""
        if soon := self._too_soon(case):
            return self.skipped(soon)
        possible = case.metrics.perturbation.projection
        explained = case.metrics.quality.explained_variance
        if not math.isfinite(possible):
            return self.skipped("the images are too large or too few for principal components")
        if possible >= self.threshold or explained >= self.threshold:
            return None
        values = case.network.latent_values
        return self.finding(
            f"{values} values explain {possible:.3f} linearly; the network {explained:.3f}",
            Evidence("explained by as many components", possible, self.threshold, (0.85, 1)),
            Evidence("explained variance", explained, self.threshold, (0.75, 1)),
            fixes=self._fixes(case),
            advice="a larger code",
        )

    @staticmethod
    def _fixes(case: Case) -> Iterator[Fix]:
        channels = case.network.latent_shape[-1]
        larger = f"model.latent_channels={max(8, 4 * channels)}"
        filters = list(case.option("model.filters") or [])
        fewer = f"model.filters=[{','.join(map(str, filters[:-1]))}]"
        if len(filters) > 2:
            # A stage leaves a quarter of the positions: channels alone do not say where things are.
            yield Fix((fewer, larger), "a stage fewer, more channels", Safety.SAFE)
        yield Fix((larger,), "a larger code", Safety.SAFE)
        if len(filters) > 2:
            yield Fix((fewer,), "a stage fewer", Safety.SAFE)


@RULES.add
class Narrow(_Capacity):
    """A layer with a handful of filters."""

    code = "CAE603"
    problem = "the network is too narrow"
    measured = "fewest filters of a hidden layer, where the result is poor"
    why = "Everything has to pass this layer, and a few maps cannot hold it; one that dies ends it."
    threshold = 3
    source = "one filter gives -.48 on Fashion-MNIST after 200 steps, a wider layer .80"
    alternatives = (*OTHERS, "CAE602", "CAE211")
    consequences = (*_Capacity.consequences, *DEAD, "CAE605")

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires for 3 filters or fewer."""
        if soon := self._too_soon(case):
            return self.skipped(soon)
        narrowest = case.network.narrowest
        if narrowest is None:
            return self.skipped("there is no hidden convolution")
        if narrowest > self.threshold or not case.poor:
            return None
        filters = [max(8, 4 * n) for n in case.option("model.filters") or []]
        ways = []
        if filters:
            wider = ",".join(map(str, filters))
            ways = [Fix((f"model.filters=[{wider}]",), "wider layers", Safety.SAFE)]
            channels = case.option("model.latent_channels")
            if channels is not None and channels <= self.threshold:
                both = (f"model.filters=[{wider}]", "model.latent_channels=8")
                ways = [Fix(both, "wider layers", Safety.SAFE)]
        return self.finding(
            f"a hidden layer has {narrowest} filter{'' if narrowest == 1 else 's'}; "
            f"{self._explained(case)}",
            Evidence("fewest filters", narrowest, self.threshold + 0.5, (8, INF)),
            self._skill_score(case),
            fixes=ways,
            advice="more filters in the narrowest layer",
        )


@RULES.add
class Shallow(_Capacity):
    """The latent code sees too little of the image to describe it."""

    code = "CAE604"
    problem = "the network is too shallow"
    severity = Severity.WARNING
    measured = (
        "receptive field of a value of the latent code over the image's side, where pixels are copied"
    )
    why = "A code that sees a few pixels holds these pixels; parts of objects take a larger view."
    threshold = 0.2
    source = "the reference network has .36 on 28x28, a network of one stage .14"
    alternatives = ("CAE502",)
    consequences = ("CAE503",)
    most_copied = 0.1
    largest_latent = 3.0  # times the image: beyond that it is the missing bottleneck that copies

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires below .2 where a tenth of scrambled pixels is copied."""
        if case.unusable:
            return self.skipped(case.unusable)
        field = case.network.receptive_field
        copied = case.metrics.perturbation.pixel_copy
        if field is None or not math.isfinite(copied):
            return self.skipped("the receptive field of this network is unknown")
        share = field / min(case.network.image_shape[:2])
        large = case.network.latent_values > self.largest_latent * case.network.image_values
        if share >= self.threshold or copied <= self.most_copied or large:
            return None
        return self.finding(
            f"a value of the code sees {field:g} pixels of {min(case.network.image_shape[:2])}, and "
            f"{copied:.0%} of scrambled pixels are copied",
            Evidence("receptive field over image", share, self.threshold, (0.36, 1)),
            Evidence("copied of scrambled pixels", copied, self.most_copied, (-INF, 0.05)),
            fixes=fixes.deeper(case),
            advice="another stage of convolution and pooling",
        )


@RULES.add
class TooDeep(_Capacity):
    """More layers than the training could reach."""

    code = "CAE605"
    problem = "the network is too deep for this training"
    measured = "layers with kernels on the longest path, where the result is poor"
    why = "Signals and gradients fade over many plain layers; the first filters learn last, or never."
    threshold = 14
    consequences = (*_Capacity.consequences, *DEAD, "CAE202", "CAE208", "CAE602")
    source = "24 plain layers of 8 filters are dead before the first step; 12 of 16 are healthy"
    alternatives = (*OTHERS, "CAE211", "CAE602", "CAE603")

    def check(self, case: Case) -> Finding | Skipped | None:
        """Fires above 14 layers."""
        if soon := self._too_soon(case):
            return self.skipped(soon)
        depth = case.network.depth
        if depth <= self.threshold or not case.poor:
            return None
        ways = []
        if not case.network.normalised:
            ways.append(Fix((fixes.adding(case, "batchnorm"),), "signals that last", Safety.SAFE))
        if case.option("model.block") == "plain":
            ways.append(Fix(("model.block=residual",), "a way past each block", Safety.SAFE))
        if (case.option("model.convolutions") or 1) > 1:
            ways.append(Fix(("model.convolutions=1",), "fewer layers", Safety.SAFE))
        return self.finding(
            f"{depth} layers one behind the other; {self._explained(case)}",
            Evidence("layers on the longest path", depth, self.threshold, (2, 12)),
            self._skill_score(case),
            fixes=ways,
            advice="fewer layers, residual blocks or batch normalisation",
        )
