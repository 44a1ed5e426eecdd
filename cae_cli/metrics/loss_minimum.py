"""Where the loss that a network follows is smallest."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LossMinimum:
    """Measured on a few images; NaN where the loss is not known.

    Attributes:
        elsewhere: how far from the images an output may be whose loss is no larger than that of the
            images themselves: root mean square, in standard deviations of the images; 0 where none is.
        unmoved: share of the squared error of the network in values beyond the range of the images at
            which the loss has no gradient, 0 to 1.
    """

    elsewhere: float = math.nan
    unmoved: float = math.nan
