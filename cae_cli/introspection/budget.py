"""How many images a network is measured on: as many as its own size and its training allow.

What rules use comes first, what is only shown gets the rest. The budget is counted in passes of one
image and in multiply-adds, never in seconds, so that the same network is always measured on the same
images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cae_cli.metrics.sample import Sample

WORK = 2**37  # multiply-adds: two to four seconds of two cores
TRAINING_SHARE = 0.1  # of the work of the training
PASSES_OF_A_STEP = 3  # a gradient takes the work of two more passes
PERTURBED_PASSES = 3  # of an image whose latent code and pixels are changed
SKIPPING_PASSES = 5  # of such an image where skip connections bring more than the latent code
# A mean over 32 images tells what the thresholds of the perturbation tests ask; narrow margins are those
# of errors, which therefore have more.
FEWEST_SCORED, FEWEST_PERTURBED = 64, 32
LEAST = 16  # images that rules ask for; so few where the others take twice the budget
# Of what is only shown; less is left out. What stands beside trained filters is as much as of these.
LEAST_SHARE = {"labels": 0.5, "untrained": 1.0}
OTHER_SHARE = 0.1  # the same of all others


def passes(products: int, trained: int) -> float:
    """How many passes of one image a measurement may take.

    Args:
        products: multiply-adds of a pass of one image.
        trained: images that the training passed, each as often as it did; 0 where nobody knows.
    """
    return max(WORK / max(1, products), TRAINING_SHARE * PASSES_OF_A_STEP * trained)


def needed(sample: Sample, perturbed: int = PERTURBED_PASSES) -> int:
    """Passes of one image that take what rules use.

    Args:
        sample: how many images are measured.
        perturbed: passes of an image that is perturbed.
    """
    return sample.scored + sample.trained + perturbed * sample.perturbed + sample.mapped


def within(
    most: Sample, affordable: float, shown: Mapping[str, int], perturbed: int = PERTURBED_PASSES
) -> Sample:
    """The sample for a budget.

    Args:
        most: without a budget.
        affordable: passes, see `passes`.
        shown: passes of what is only shown, by the name of its share in `Sample`; the first are left
            out last.
        perturbed: see `needed`.
    """
    whole = needed(most, perturbed)
    if whole <= affordable:
        shares: dict[str, Any] = _shares(affordable - whole, shown)
        return replace(most, **shares)
    nothing = dict.fromkeys(shown, 0.0)

    def fewer(counted: Sample, scored: int, others: int) -> Sample:
        share = affordable / needed(counted, perturbed)

        def some(count: int, fewest: int) -> int:
            return min(count, max(fewest, int(share * count)))

        return Sample(
            some(counted.scored, scored),
            some(counted.trained, scored),
            some(counted.perturbed, others),
            some(counted.mapped, others),
            **nothing,
        )

    sample = fewer(most, FEWEST_SCORED, FEWEST_PERTURBED)
    if needed(sample, perturbed) <= 2 * affordable:
        return sample
    # How well training images are reconstructed matters for two rules, the others for nearly all.
    return fewer(replace(most, trained=0), LEAST, LEAST)


def _shares(left: float, shown: Mapping[str, int]) -> dict[str, float]:
    """How much of each thing is shown, 0 to 1, for so many passes."""
    shares = {}
    for name, cost in shown.items():
        share = min(1.0, left / max(1, cost))
        shares[name] = share if share >= LEAST_SHARE.get(name, OTHER_SHARE) else 0.0
        left -= shares[name] * cost
    return shares
