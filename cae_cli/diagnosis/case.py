"""What a rule is given: statistics of the images, the network, the options, and the metrics of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cae_cli.diagnosis.finding import Evidence, Fix
from cae_cli.errors import counted
from cae_cli.metrics.collect import Layer, Metrics
from cae_cli.metrics.dataset import DatasetStatistics
from cae_cli.metrics.network import Network

FEWEST_IMAGES = 16  # the variance over images, and a share of it, need some
# Collapsed outputs and dead maps show by step 128 on Fashion-MNIST, MNIST and Omniglot; before that
# healthy networks may look the same.
FEWEST_STEPS = 128
STEPS_FOR_SKILL = 768  # by then healthy networks are better than the linear decoder

LITTLE_EXPLAINED = 0.1  # explained variance; 0 is the mean image, healthy runs are above 0.7
POOR_SKILL = -0.06  # skill score; 0 is the linear decoder, healthy runs have -0.01 to 0.38
POOR_SKILL_OF_SIMILARITY = -1.0  # healthy networks trained for SSIM have -0.21 to 0.20
UNCHANGED = 1e-3  # a layer whose weight change is smaller is where its initializer put it
NEARLY_ALL = (
    0.9  # explained variance, and at least half of what flat images leave: little is left to learn
)
SAME_OUTPUT = 0.05  # variance of the output over images, over that of the images
FALLING_FAST = 0.08  # share of the fall of the loss in its last quarter; no healthy run has more
CRAWLING = -3.5  # log10 of the change of a step: smaller ones leave weights where they began
STANDING = 1.0  # powers of ten by which collapsed networks make smaller steps than at first, and more
MANY_INACTIVE = 0.4  # from this share of inactive maps on a layer does not work; healthy: 0 to 0.25

EXPLAINED_UNIT, SKILL_UNIT = "(0 mean image, 1 perfect)", "(0 linear decoder, 1 perfect)"

# What healthy runs show. Update ratios (log10) are from those of attention to those of Adam at 0.01.
USUAL_UPDATES = (-2.5, -1.03)
USUAL_UPDATE = -2.1  # the first steps of Adam at 0.001
USUAL_SKILL = (-0.01, 0.38)
USUAL_INACTIVE = (0.0, 0.25)


@dataclass(frozen=True)
class Case:
    """What a rule is given.

    Attributes:
        dataset: statistics of the images.
        network: what the network is made of.
        config: the composed config as plain containers, with the declared ``facts`` of its loss and
            optimizer; empty for a model that this tool did not train.
        trained: the metrics of the run; None before training.
    """

    dataset: DatasetStatistics
    network: Network
    config: Mapping[str, Any]
    trained: Metrics | None = None

    @property
    def metrics(self) -> Metrics:
        """The metrics, for rules that are checked only after training."""
        assert self.trained is not None
        return self.trained

    def option(self, path: str) -> Any:
        """The value of the config at a dotted path, None if there is none."""
        node: Any = self.config
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def fact(self, path: str) -> Any:
        """What the loss or the optimizer declares about itself, None where it is not recorded.

        Args:
            path: ``loss.gives_up_squared_error``, ``loss.survives_saturation``,
                ``loss.validation_metric`` or ``optimizer.usual_rate``.
        """
        return self.option(f"facts.{path}")

    @property
    def penalties(self) -> list[str]:
        """The regularizers of the run that add a penalty to the loss."""
        names = ("l1", "l2", "l1_l2", "activity_l1")
        return [name for name in self.option("regularization") or {} if name in names]

    @property
    def unusable(self) -> str | None:
        """Why the results on held-out images tell nothing, or None."""
        quality = self.metrics.quality
        explained = quality.explained_variance
        if not self.unscored:
            explained += quality.train_explained_variance
        if not math.isfinite(explained):
            return "the reconstruction contains numbers that are not finite"
        count = quality.images
        if count >= FEWEST_IMAGES:
            return None
        return f"only {counted(count, 'held-out image')}, {FEWEST_IMAGES} are needed"

    @property
    def not_compared(self) -> str | None:
        """Why held-out images cannot be compared with those of the training, or None."""
        unknown = self.trained is not None and self.trained.evaluated
        return "the images that the network was trained on are not known" if unknown else None

    @property
    def unscored(self) -> str | None:
        """Why nothing is known of the reconstructions of training images, or None."""
        sample = self.metrics.sample
        if sample is None or sample.trained:
            return None
        return "the network is too large to measure training images after so short a training"

    @property
    def too_early(self) -> str | None:
        """Why the result of the training tells nothing, or None."""
        return self.fewer_steps_than(FEWEST_STEPS)

    def fewer_steps_than(self, needed: int) -> str | None:
        """Why a rule that needs so many steps cannot be checked, or None."""
        if self.unusable:
            return self.unusable
        steps = self.metrics.dynamics.steps
        return None if steps is None or steps >= needed else f"only {steps} steps, {needed} are needed"

    @property
    def unrecorded(self) -> str | None:
        """Why nothing is known of the course of the training, or None."""
        return "the training was not recorded" if self.metrics.dynamics.steps is None else self.too_early

    @property
    def poor(self) -> bool:
        """Whether the network is clearly worse than the linear decoder, or no better than flat images.

        A loss that gives up squared error for similarity has a bound of its own.
        """
        similarity = self.fact("loss.gives_up_squared_error")
        least = POOR_SKILL_OF_SIMILARITY if similarity else POOR_SKILL
        return self.learned < LITTLE_EXPLAINED or self.metrics.perturbation.skill_score < least

    @property
    def learned(self) -> float:
        """Share that the network explains of what the best answer without learning leaves; at most 1."""
        return self.beyond_flat(self.metrics.quality.explained_variance)

    def beyond_flat(self, explained: float) -> float:
        """An explained variance as a share of what the best answer without learning leaves."""
        flat = self.metrics.flat
        return (explained - flat) / (1 - flat) if flat < 1 else math.nan

    @property
    def gap(self) -> float:
        """Explained variance of training minus held-out images, beyond that of a linear decoder.

        Held-out images may be harder for any network: what a linear decoder, which cannot memorise,
        loses on them too does not count.
        """
        quality, linear = self.metrics.quality, self.metrics.perturbation
        harder = max(0.0, linear.linear_train - linear.linear)  # 0 where either is not known
        return quality.train_explained_variance - quality.explained_variance - harder

    @property
    def nearly_all_explained(self) -> bool:
        """Whether little is left to learn, and at least half of what there was is learned."""
        return self.metrics.quality.explained_variance >= NEARLY_ALL and self.learned >= 0.5

    @property
    def black(self) -> bool:
        """Whether the output is as good as black."""
        quality = self.metrics.quality
        return quality.mse.value >= 0.95 * quality.black_mse and quality.output_mean < 0.05

    @property
    def on_plateau(self) -> bool:
        """Whether an output that is the same for every image may be an early stage and no collapse.

        Networks learn the mean image first and stay there until their latent code tells images apart:
        the smaller the code, the longer. A collapse differs: the output is black or otherwise far from
        the mean image, layers are inactive, or steps have become small because no gradient is left. How
        many steps are few depends on their size.
        """
        dynamics, explained = self.metrics.dynamics, self.metrics.quality.explained_variance
        if self.unrecorded or self.black or self.inactive >= MANY_INACTIVE:
            return False
        if self.metrics.quality.output_variance_share >= SAME_OUTPUT:
            return False
        moves = dynamics.last_update > dynamics.early_update - STANDING
        size = max(dynamics.early_update, dynamics.last_update)
        few = (dynamics.steps or 0) * 10**size < STEPS_FOR_SKILL * 10**USUAL_UPDATE
        falls = dynamics.slope > FALLING_FAST
        return moves and (falls or (few and explained > -LITTLE_EXPLAINED))

    @property
    def crawls(self) -> bool:
        """Whether steps are known to be so small, first and last ones, that little can be learned."""
        dynamics = self.metrics.dynamics
        return max(dynamics.early_update, dynamics.last_update) < CRAWLING

    @property
    def hidden(self) -> list[Layer]:
        """The convolutions before the last one, or all if there is only one."""
        layers = list(self.metrics.layers)
        return layers[:-1] or layers

    @property
    def inactive(self) -> float:
        """Share of inactive maps in the worst hidden layer."""
        return max((layer.maps.inactive_share for layer in self.hidden), default=0.0)

    @property
    def unchanged(self) -> bool:
        """Whether it is known that every layer still has the weights that its initializer gave it."""
        layers = self.metrics.layers
        return bool(layers) and all(layer.weight_change < UNCHANGED for layer in layers)

    def explained_variance(self, threshold: float) -> Evidence:
        """The explained variance as evidence."""
        value, least = self.metrics.quality.explained_variance, threshold if 0.7 < threshold < 1 else 0.7
        return Evidence("explained variance", value, threshold, (least, 1), EXPLAINED_UNIT)

    def skill_score(self, threshold: float = POOR_SKILL) -> Evidence:
        """The skill score as evidence."""
        value = self.metrics.perturbation.skill_score
        return Evidence("skill score", value, threshold, USUAL_SKILL, SKILL_UNIT)

    @property
    def script(self) -> bool:
        """Whether the network was not trained by ``cae train``, so that its options are unknown."""
        return self.option("model") is None

    def changed_by(self, fix: Fix) -> bool:
        """Whether a fix would change the run; one without overrides changes scripts only."""
        return any(map(self.changes, fix.overrides)) if fix.overrides else self.script

    def changes(self, override: str) -> bool:
        """Whether an override differs from what the run had, as far as that is known."""
        key, _, text = override.partition("=")
        had = self.option(key)
        if had is None and self.script:  # whose network shows some options
            had = {
                "model.output_activation": self.network.output_activation,
                "model.activation": self.network.hidden_activation,
                "regularization": ["batchnorm"] if self.network.normalised else None,
            }.get(key)
            if had is None:
                return True
        if key == "regularization":
            return set(re.findall(r"\w+", text)) - {"none"} != set(had or {})
        if isinstance(had, Mapping):  # of a group without names, any option is a change
            return had.get("name") != text
        if isinstance(had, list):
            return text != f"[{','.join(map(str, had))}]"
        if isinstance(had, int | float) and not isinstance(had, bool):
            return text == "null" or float(text) != had
        return text != ("null" if had is None else str(had))
