"""The interval that stands beside every mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean of few values (Student's t)."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
