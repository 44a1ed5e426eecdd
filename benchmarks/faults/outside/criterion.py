"""Whether a mutant is faulty: the criterion of DeepCrime, on the errors of held-out images.

Errors are positive and their spread grows with them, so their logarithms are compared. Mutants vary
more than originals, so the test is Welch's: it needs no equal variances. What is not finite has the
worst error that an output within the range of the images can have (`training.WORST`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.05  # of the test
EFFECT = 0.5  # the smallest Cohen's d
LEAST = 1e-12  # an error of 0 has no logarithm
LARGEST = 1e6  # Cohen's d where errors have no spread


@dataclass(frozen=True)
class Comparison:
    """The errors of a mutant next to those of its original.

    Attributes:
        p: of Welch's two-sided test on logarithms; 1 if all errors are equal.
        d: Cohen's effect size, positive where the mutant is worse, at most `LARGEST`.
        ratio: geometric mean of the mutant's errors over that of the original's.
    """

    p: float
    d: float
    ratio: float

    @property
    def is_killed(self) -> bool:
        """Whether the mutant is faulty: significantly and clearly worse."""
        return self.p < LEVEL and self.d >= EFFECT


def compare(original: Sequence[float], mutant: Sequence[float]) -> Comparison:
    """Compares the held-out errors of two groups of trainings.

    Args:
        original: one per seed, at least two, from 0 to `training.WORST`.
        mutant: the same for the mutant.
    """
    from scipy.stats import ttest_ind

    before, after = (np.log(np.maximum(errors, LEAST)) for errors in (original, mutant))
    rise = float(after.mean() - before.mean())
    spread = math.sqrt((before.var(ddof=1) + after.var(ddof=1)) / 2)
    if spread < 1e-12:  # the test has no answer without any spread
        is_same = abs(rise) < 1e-12
        p, d = (1.0, 0.0) if is_same else (0.0, math.copysign(LARGEST, rise))
    else:
        p, d = float(ttest_ind(after, before, equal_var=False).pvalue), min(rise / spread, LARGEST)
    return Comparison(p, d, math.exp(rise))
