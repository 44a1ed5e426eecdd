"""What a rule is given: statistics of the images, the network, the options, and the metrics of a run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cae_cli.metrics.collect import Layer, Metrics
from cae_cli.metrics.dataset import DatasetStatistics
from cae_cli.metrics.network import Network

FEWEST_IMAGES = 16  # the spread over images, and a share of it, need some
# Collapsed outputs and dead maps show by step 128 on Fashion-MNIST, MNIST and Omniglot; before that
# healthy networks may look like sick ones.
FEWEST_STEPS = 128
# Healthy networks have passed the linear decoder by then.
STEPS_FOR_SKILL = 768

# An explained variance below this is next to nothing: 0 is the mean image, healthy runs are above .7.
LITTLE_EXPLAINED = 0.1
# Below this skill score a network is worse than an average and a linear decoder; healthy: -.01 to .38.
POOR_SKILL = -0.06
# The same for networks trained for SSIM: healthy ones have -.21 to .20 after 1,280 steps.
POOR_SKILL_OF_SIMILARITY = -1.0
# A layer whose kernel moved by a smaller share than this is where the initializer had put it.
UNMOVED = 1e-3
# From this share of inactive maps on a layer has lost its function; healthy: 0 to .25.
MANY_INACTIVE = 0.4

# Largest update ratios (log10) of the first steps in healthy networks: attention, and Adam at .01.
USUAL_UPDATES = (-2.5, -1.03)

# What healthy runs show where several rules look at it: skill score, inactive maps of the worst layer.
USUAL_SKILL = (-0.01, 0.38)
USUAL_INACTIVE = (0.0, 0.25)

# Where optimizers that are not of Adam's kind usually work; the others do at 0.001.
USUAL_RATES = {"sgd": 0.1, "adadelta": 1.0}


@dataclass(frozen=True)
class Case:
    """What a rule looks at.

    Attributes:
        dataset: of the images.
        network: what it is made of.
        config: the run's composed config as plain containers; empty for a model that this tool did
            not train.
        trained: what was measured; None before training.
    """

    dataset: DatasetStatistics
    network: Network
    config: Mapping[str, Any]
    trained: Metrics | None = None

    @property
    def metrics(self) -> Metrics:
        """What was measured, for rules that are asked after training only."""
        assert self.trained is not None
        return self.trained

    def option(self, path: str) -> Any:
        """The config's value at a dotted path, None if there is none."""
        node: Any = self.config
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def fact(self, path: str) -> Any:
        """What the loss or the optimizer declares about itself, None where nobody recorded it.

        Args:
            path: ``loss.gives_up_squared_error``, ``loss.needs_unit_outputs``,
                ``loss.survives_saturation``, ``loss.validation_metric``, ``optimizer.usual_rate``, or
                ``in_keras.loss`` and ``in_keras.regularization``: how to write each of them in Keras.
        """
        return self.option(f"facts.{path}")

    @property
    def unusable(self) -> str | None:
        """Why nothing can be said of held-out images, or None if something can."""
        quality = self.metrics.quality
        if not math.isfinite(quality.explained_variance + quality.train_explained_variance):
            return "the reconstruction is not made of finite numbers"
        count = quality.images
        if count >= FEWEST_IMAGES:
            return None
        return f"only {count} held-out image{'' if count == 1 else 's'}, {FEWEST_IMAGES} are needed"

    @property
    def too_early(self) -> str | None:
        """Why nothing can be said of what training made of the network, or None if something can."""
        return self.fewer_steps_than(FEWEST_STEPS)

    def fewer_steps_than(self, needed: int) -> str | None:
        """Why a rule that needs so many steps cannot look, or None if it can."""
        if self.unusable:
            return self.unusable
        steps = self.metrics.dynamics.steps
        if steps is None or steps >= needed:
            return None
        return f"only {steps} steps, {needed} are needed"

    @property
    def unrecorded(self) -> str | None:
        """Why nothing can be said of how the training went, or None if something can."""
        return "nobody watched the training" if self.metrics.dynamics.steps is None else self.too_early

    @property
    def poor(self) -> bool:
        """Whether the network does worse than an average and a linear decoder would.

        A network that was trained for similarity gives up squared error for it: there only a result
        that is far worse counts.
        """
        metrics = self.metrics
        similarity = self.option("loss.name") in ("ssim", "ms_ssim")
        least = POOR_SKILL_OF_SIMILARITY if similarity else POOR_SKILL
        return (
            metrics.quality.explained_variance < LITTLE_EXPLAINED
            or metrics.perturbation.skill_score < least
        )

    @property
    def hidden(self) -> list[Layer]:
        """The convolutions before the last one, or all if there is but one."""
        layers = list(self.metrics.layers)
        return layers[:-1] or layers

    @property
    def inactive(self) -> float:
        """Share of inactive maps in the worst hidden layer."""
        return max((layer.maps.inactive_share for layer in self.hidden), default=0.0)

    @property
    def untrained(self) -> bool:
        """Whether training left every layer where the initializer had put it."""
        return all(layer.weight_change < UNMOVED for layer in self.metrics.layers)

    @property
    def usual_rate(self) -> float:
        """The learning rate at which the optimizer usually works."""
        return USUAL_RATES.get(str(self.option("optimizer.name")), 1e-3)

    def changes(self, override: str) -> bool:
        """Whether an override would make anything different from what the run had."""
        if not self.config:
            return True
        key, _, text = override.partition("=")
        had = self.option(key)
        if key == "regularization":
            return set(re.findall(r"\w+", text)) - {"none"} != set(had or {})
        if isinstance(had, Mapping):  # of a group without names, any option is a change
            return had.get("name") != text
        if isinstance(had, list):
            return text != f"[{','.join(map(str, had))}]"
        if isinstance(had, int | float) and not isinstance(had, bool):
            return text == "null" or float(text) != had
        return text != ("null" if had is None else str(had))
