"""Whether images are those that a network was trained on, and prepared alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating]
Span = tuple[float, float]

# Ranges that networks are commonly trained on. The images here are in the first.
RANGES: tuple[Span, ...] = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
INITIAL = 0.02  # divergence from its initial values that a layer may have before it was trained
SHARES = np.linspace(0, 1, 101)  # of its initial values that a running average may still hold


@dataclass(frozen=True)
class Way:
    """How images in [0, 1] become the values that a network gets, and those that it is to make.

    Attributes:
        given: (what 0 becomes, what 1 becomes) in the input; the larger first of inverted images.
        made: the same in the output.
        swapped: the channels are in the order blue, green, red.
    """

    given: Span
    made: Span
    swapped: bool = False

    @property
    def unusual(self) -> int:
        """In how many respects the images are prepared in a way that few networks are trained in."""
        return self.swapped + (self.given[0] > self.given[1]) + (self.given != self.made)


@dataclass(frozen=True)
class Preparation:
    """A few images given to a network in the way at hand, and in the other way that it knows best.

    Attributes:
        explained: explained variance in the way at hand.
        otherwise: the same in the other way.
        learned: of what flat images of the right mean leave, the share that is explained in the other
            way; at most 1.
        given_low, given_high, made_low, made_high, swapped: the other way, see `Way`.
        hand_low, hand_high: the input in the way at hand.
        stored: `unlike` of the statistics that the first normalisation layer holds; NaN without one. It
            sees the images through few weights: those of layers behind it lag behind their weights.
    """

    explained: float = math.nan
    otherwise: float = math.nan
    learned: float = math.nan
    given_low: float = math.nan
    given_high: float = math.nan
    made_low: float = math.nan
    made_high: float = math.nan
    swapped: bool = False
    hand_low: float = math.nan
    hand_high: float = math.nan
    stored: float = math.nan

    @property
    def error(self) -> float:
        """Squared error in the other way over that in the way at hand, each over the variance there.

        About 1 or more for images that are prepared as those of the training; NaN: not measured.
        """
        own, other = 1 - self.explained, 1 - self.otherwise
        if math.isnan(own + other):
            return math.nan
        return other / own if own and math.isfinite(other) else math.inf

    @property
    def is_same_input(self) -> bool:
        """Whether the other way differs in the range of the output alone."""
        hand = self.hand_low, self.hand_high
        return not self.swapped and (self.given_low, self.given_high) == hand

    @property
    def is_standardised(self) -> bool:
        """Whether the other way brings images to mean 0 and standard deviation 1."""
        return tuple(sorted((self.given_low, self.given_high))) not in RANGES

    @property
    def is_same_output(self) -> bool:
        """Whether the output has the range of the input in the other way."""
        return (self.given_low, self.given_high) == (self.made_low, self.made_high)


def unlike(stored: Sequence[Numbers], seen: Sequence[Numbers], epsilon: float) -> float:
    """How far the statistics that a normalisation layer holds are from those of what it gets.

    The divergence of Kullback and Leibler of two normal distributions, from what is got to what is held;
    its median over channels. A running average begins at mean 0 and variance 1 and may still hold a
    share of that: the one that explains most of the difference is allowed for.

    Args:
        stored: (channels,) means and variances.
        seen: the same of what the layer gets.
        epsilon: that the layer adds to variances.

    Returns:
        0 or more; NaN for a layer that holds nothing but its initial values.
    """
    mean, variance = (np.asarray(a, np.float64) for a in stored)
    own_mean, own_variance = (np.asarray(a, np.float64) * (1 - SHARES[:, None]) for a in seen)
    ratio = (own_variance + SHARES[:, None] + epsilon) / (variance + epsilon)
    square = np.square(own_mean - mean) / (variance + epsilon)
    divergence = np.median((ratio + square - 1 - np.log(ratio)) / 2, axis=1)  # for each share
    is_initial = divergence.argmin() == len(SHARES) - 1 and divergence[-1] < INITIAL
    return math.nan if is_initial else float(divergence.min())
