"""How many images a network is measured on: as many as its own size and its training allow.

What rules use comes first, what is only shown (ablations, patches, gratings, labels) gets the rest. The
budget is counted in passes of one image and in multiply-adds, never in seconds, so that the same network
is always measured on the same images.
"""

from __future__ import annotations

from dataclasses import dataclass

WORK = 2**38  # multiply-adds: five seconds of two cores, or a whole measurement of a small network
TRAINING_SHARE = 0.1  # of the work of the training
PASSES_OF_A_STEP = 3  # a gradient takes the work of two more passes
PERTURBED_PASSES = 9  # of an image whose latent code and pixels are changed
# A mean over 32 images tells what the thresholds of the perturbation tests ask; narrow margins are those
# of errors, which therefore have more.
FEWEST_SCORED, FEWEST_PERTURBED = 64, 32


@dataclass(frozen=True)
class Sample:
    """How many images are measured, the first of each part.

    Attributes:
        scored: held-out images whose reconstruction is scored.
        trained: training images whose reconstruction is scored.
        perturbed: held-out images for the perturbation tests and the statistics of latent codes.
        mapped: held-out images for the statistics of maps.
        shown: share of the work on what no rule uses, 0 to 1.
    """

    scored: int
    trained: int
    perturbed: int
    mapped: int
    shown: float = 1.0

    @property
    def passes(self) -> int:
        """Of what rules use."""
        return self.scored + self.trained + PERTURBED_PASSES * self.perturbed + self.mapped


def passes(products: int, trained: int) -> float:
    """How many passes of one image a measurement may take.

    Args:
        products: multiply-adds of a pass of one image.
        trained: images that the training passed, each as often as it did; 0 where nobody knows.
    """
    return max(WORK / max(1, products), TRAINING_SHARE * PASSES_OF_A_STEP * trained)


def within(most: Sample, affordable: float, shown: int) -> Sample:
    """The sample for a budget.

    Args:
        most: without a budget.
        affordable: passes, see `passes`.
        shown: passes of all that is only shown.
    """
    share = affordable / max(1, most.passes)
    if share >= 1:
        left = (affordable - most.passes) / max(1, shown)
        return Sample(most.scored, most.trained, most.perturbed, most.mapped, min(1.0, left))

    def fewer(count: int, fewest: int) -> int:
        return min(count, max(fewest, int(share * count)))

    return Sample(
        fewer(most.scored, FEWEST_SCORED),
        fewer(most.trained, FEWEST_SCORED),
        fewer(most.perturbed, FEWEST_PERTURBED),
        fewer(most.mapped, FEWEST_PERTURBED),
        0.0,
    )
