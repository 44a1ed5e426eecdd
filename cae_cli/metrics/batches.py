"""The batches that a training received, after loading, scaling and augmentation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cae_cli.metrics.pairs import Mask, PairMatch, pair_match, shown

Array = NDArray[np.float32]

# Below this share of the mean square, what is left of a variance is rounding (double precision).
ROUNDING = 1e-20
# Slopes of images in the same range; the common ranges differ by 2 and more.
SAME_SLOPE = (0.6, 1.7)
MATCHED = 0.5  # share of the pairs whose own target fits best: shuffled pairs have a hundredth
LEAST_COMMON = 0.5  # correlation of the pixels of inputs and targets; that of shuffled pairs is lower
SAME_VALUE = 1e-6  # rounding of float32 values up to about 1
SCALED_VALUE = 1e-4  # the same after the inputs were brought to the range of the targets
FILTER = 4  # pixels that a filter reaches to each side
MOST_SIDE = 8  # pixels of the squares of an image that was enlarged by repeating pixels
SQUARES_FOR_EACH = 10  # pixels of the filter, at least
FILTER_VALUES = 2**13  # values that it is fitted to, and as many that it is tested on
AS_WHITE = 0.05  # correlation of neighbours: a rest that is as white as another one
ROUGH = 0.02  # of the range of the targets: neighbours that differ by more
COMMON = 0.02  # share of all values: a background, or black and white
KEPT_VALUES = 2**18  # of the targets, evenly spread
MOST_BY_PAIR = 0.9  # share of the pairs that keep as much, or more


@dataclass(frozen=True)
class BatchStatistics:
    """Inputs x and targets t of the first steps, in the units of the pixels.

    Attributes:
        input_low, input_high: range of the inputs.
        target_low, target_high: range of the targets.
        image_std: standard deviation within an input, mean over images; 0 for flat images.
        variance: variance over the targets, mean over pixels; 0 if all are the same image.
        distinct: share of inputs that differ from every earlier one, above 0 to 1.
        pair: mean (x_i - t_i)² / mean (x_i - t_(i+1))², with x `in_one_range`; 0 if targets are the
            inputs, about 1 if they are those of other images, NaN if the denominator is 0.
        correlation: `neighbour_correlation` of x: about 0 for white noise, 0.86 on Fashion-MNIST.
        difference_correlation: the same of x - t, with x `in_one_range`: about 0 for white noise on one
            of them, as in denoising; NaN where they are equal.
        target_correlation: the same of t; below that of x where t is the noisy one.
        difference: mean (x - t)², with x `in_one_range`.
        erased: share of the values of x other than those of t that are one and the same, 0 to 1: 1 for
            masks. NaN where x and t are equal.
        kept: share of the values of t that are those of x too, of nine pairs in ten at least, 0 to 1:
            high where something was put on a part of x, see `kept`.
        unfiltered: share of (x - t)² that a filter leaves, see `unfiltered`: the least, of x itself and
            `in_one_range`. About 0 where x or t is a blur of the other, NaN where they are equal.
        compared, foreign, unclear: `metrics.pairs.PairMatch` of x and t.
    """

    input_low: float
    input_high: float
    target_low: float
    target_high: float
    image_std: float
    variance: float
    distinct: float
    pair: float
    correlation: float
    difference_correlation: float
    target_correlation: float = math.nan  # NaN for runs of older versions, as the next one
    difference: float = math.nan
    erased: float = math.nan
    kept: float = math.nan
    unfiltered: float = math.nan
    compared: int = 0
    foreign: float = math.nan
    unclear: float = math.nan


def batches(inputs: Array, targets: Array) -> BatchStatistics:
    """Measures inputs and targets.

    Args:
        inputs: (n, h, w, c).
        targets: of the same shape, in the same order.
    """
    others = np.roll(targets, -1, axis=0)
    if inputs is targets or np.array_equal(inputs, targets):
        scaled, match = inputs, PairMatch(len(inputs), 0.0, 0.0)
    else:
        visible = shown(inputs, targets)
        match = pair_match(in_one_range(inputs, targets, visible, matched=True), targets, visible)
        scaled = in_one_range(inputs, targets, visible, matched=match.matched > MATCHED)
    same = SAME_VALUE if scaled is inputs else SCALED_VALUE * float(np.ptp(targets))
    error, other_error = (float(np.square(scaled - t).mean(dtype=np.float64)) for t in (targets, others))
    return BatchStatistics(
        input_low=float(inputs.min()),
        input_high=float(inputs.max()),
        target_low=float(targets.min()),
        target_high=float(targets.max()),
        image_std=float(inputs.std(axis=(1, 2, 3), dtype=np.float64).mean()),
        variance=float(targets.var(axis=0, dtype=np.float64).mean()),
        distinct=len({image.tobytes() for image in inputs}) / len(inputs),
        pair=error / other_error if other_error else float("nan"),
        correlation=neighbour_correlation(inputs),
        difference_correlation=neighbour_correlation(scaled - targets),
        target_correlation=neighbour_correlation(targets),
        difference=error,
        erased=erased(inputs, targets, scaled, same),
        kept=kept(targets, scaled, same),
        unfiltered=min(
            (
                left
                for x in ([inputs] if scaled is inputs else [inputs, scaled])
                for pair in ((x, targets), (targets, x))
                if not math.isnan(left := unfiltered(*pair))
            ),
            default=math.nan,
        ),
        **asdict(match),
    )


def erased(inputs: Array, targets: Array, scaled: Array, same: float) -> float:
    """Share of the inputs' values other than the targets' that are their median, as those of a mask are.

    0 to 1; NaN where nothing differs.

    Args:
        inputs: (n, h, w, c).
        targets: of the same shape.
        scaled: the inputs `in_one_range`.
        same: how far values may differ that are the same.
    """
    changed = inputs[~np.isclose(scaled, targets, rtol=0, atol=same)]
    return float((changed == np.median(changed)).mean()) if changed.size else math.nan


def kept(targets: Array, scaled: Array, same: float) -> float:
    """Share of the values of a target that its input has at the same place.

    Values that are common among all targets do not count, nor places where the next target has the same
    value: of two images on one background, most pixels are equal. Nor do flat places, which are the same
    after a small shift: only those that differ from the pixels to the right and below do. The share that
    nine pairs in ten have at least, in the channel with the smallest one.

    Args:
        targets: (n, h, w, c).
        scaled: the inputs `in_one_range`.
        same: how far values may differ that are the same.

    Returns:
        0 to 1; NaN where nothing is left to compare.
    """
    n, h, w, c = targets.shape
    every = -(-targets.size // KEPT_VALUES)
    while math.gcd(every, w) > 1:  # all columns
        every += 1
    edge = ROUGH * float(np.ptp(targets))
    rough = np.zeros(targets.shape, np.bool_)
    here = targets[:, :-1, :-1]
    with np.errstate(invalid="ignore"):  # infinite values
        rough[:, :-1, :-1] = np.abs(here - targets[:, 1:, :-1]) > edge
        rough[:, :-1, :-1] &= np.abs(here - targets[:, :-1, 1:]) > edge
    x, t = (a.reshape(n, h * w, c)[:, ::every] for a in (scaled, targets))
    # Values of a background may differ by rounding.
    steps = np.round(t / (max(same, SCALED_VALUE * float(np.ptp(t))) or 1.0))
    _, inverse, counts = np.unique(steps, return_inverse=True, return_counts=True)
    told = rough.reshape(n, h * w, c)[:, ::every] & (counts < COMMON * t.size)[inverse].reshape(t.shape)
    told &= ~np.isclose(t, np.roll(t, 1, axis=0), rtol=0, atol=same)
    equal = told & np.isclose(x, t, rtol=0, atol=same)
    each = zip(equal.sum(axis=1).T, told.sum(axis=1).T, strict=True)  # channels, of images
    shares = [some[of > 0] / of[of > 0] for some, of in each if of.any()]
    return min((float(np.quantile(own, 1 - MOST_BY_PAIR)) for own in shares), default=math.nan)


def unfiltered(images: Array, sources: Array) -> float:
    """Share of the squared difference of images from their sources that the best filter leaves.

    One filter for all of them: a blur of any form, or the sharpening of one, which is the same to the
    left and right, and up and down, and leaves flat images alone. So it is no shift, no change of
    brightness, and nothing that differs from image to image. Where images consist of squares of one
    value, as those enlarged by repeating pixels, and their sources do not, each square is an average of
    what the source has there and around it. Least squares on every second image, tested on the others.

    Args:
        images: (n, h, w, c).
        sources: of the same shape.

    Returns:
        0 to about 1; NaN where nothing differs, for a single image, for values that are not finite, for
        sides that are too short for the filter, and for squares that are too few or too large.
    """
    n, h, w, c = images.shape
    if n < 2 or np.array_equal(images, sources):
        return math.nan
    side = square_side(images)
    if side > 1 and square_side(sources) % side == 0:
        side = 1
    reach = FILTER if side == 1 else min(FILTER, side // 2)
    edge = -(-reach // side)  # squares that are too near to the border
    inner = h // side - 2 * edge, w // side - 2 * edge
    cells = (side + 2 * reach) ** 2
    if min(inner) < 1 or side > MOST_SIDE:
        return math.nan
    if side > 1 and n * inner[0] * inner[1] * c < SQUARES_FOR_EACH * cells:
        return math.nan
    rng = np.random.default_rng(0)
    i = np.concatenate([2 * rng.integers(0, (n + 1 - odd) // 2, FILTER_VALUES) + odd for odd in (0, 1)])
    y, x, k = (rng.integers(0, top, len(i)) for top in (*inner, c))
    y, x = side * (y + edge), side * (x + edge)
    around = np.arange(-reach, side + reach)
    at = [axis[:, None, None] for axis in (i, y, x, k)]
    near = sources[at[0], at[1] + around[:, None], at[2] + around, at[3]].astype(np.float64)
    own = near[:, reach : reach + side, reach : reach + side]
    if side == 1:  # the same at both sides
        near = (near + near[:, ::-1] + near[:, :, ::-1] + near[:, ::-1, ::-1])[:, reach:, reach:] / 4
    values, middle = images[i, y, x, k], own.mean(axis=(1, 2))
    terms, difference = near.reshape(len(i), -1) - middle[:, None], values - middle
    if not (np.isfinite(terms).all() and np.isfinite(difference).all()):
        return math.nan
    fitted, tested = slice(FILTER_VALUES), slice(FILTER_VALUES, None)
    weights = np.linalg.lstsq(terms[fitted], difference[fitted], rcond=None)[0]
    left = np.square(difference[tested] - terms[tested] @ weights).mean()
    whole = np.square(values[tested, None, None] - own[tested]).mean()
    if side > 1:  # what varies within a square tells nothing of the squares
        whole = min(whole, 2 * values[tested].var(dtype=np.float64))
    return float(left / whole) if whole else math.nan


def square_side(images: Array) -> int:
    """Pixels along a side of the squares of one value that images (n, h, w, c) consist of; 1: none."""
    h, w = images.shape[1:3]
    down = (images[:, 1:] != images[:, :-1]).any(axis=(0, 2, 3))
    right = (images[:, :, 1:] != images[:, :, :-1]).any(axis=(0, 1, 3))
    changes = [int(at) + 1 for axis in (down, right) for at in np.flatnonzero(axis)]
    return math.gcd(h, w, *changes)


def in_one_range(
    inputs: Array, targets: Array, visible: Mask | None = None, *, matched: bool = False
) -> Array:
    """The inputs in the range of the targets: a network may rescale what it gets, from 0 to 255 say.

    They change only if no straight line of a slope near 1 leads from one to the other. Least squares
    finds the line without bias if the noise is in what is fitted, so of the two lines (noise in the
    inputs, noise in the targets) the one counts that leaves the whiter rest, or either if both do.

    Args:
        inputs: (n, h, w, c).
        targets: of the same shape.
        visible: the values that count, as `metrics.pairs.shown` gives them; None: all.
        matched: whether inputs and targets are known to be pairs, however little they share.
    """
    counted = np.ones(inputs.shape, np.bool_) if visible is None else visible
    means = [float(a[counted].mean(dtype=np.float64)) for a in (inputs, targets)]
    x = (inputs.astype(np.float64) - means[0]) * counted
    t = (targets - means[1]) * counted
    both = float((x * t).mean())
    squares = float(np.square(x).mean()), float(np.square(t).mean())
    least = 0.0 if matched else LEAST_COMMON
    if not both > least * np.sqrt(squares[0] * squares[1]):  # other images, or inverted ones
        return inputs
    slopes = squares[1] / both, both / squares[0]
    if all(SAME_SLOPE[0] < slope < SAME_SLOPE[1] for slope in slopes):
        return inputs
    rests = (np.asarray(slope * x - t, np.float32) for slope in slopes)
    left = [abs(float(np.nan_to_num(neighbour_correlation(rest)))) for rest in rests]
    white = [i for i in (0, 1) if left[i] <= min(left) + AS_WHITE]
    if any(SAME_SLOPE[0] < slopes[i] < SAME_SLOPE[1] for i in white):
        return inputs
    return np.asarray(slopes[white[0]] * (inputs - means[0]) + means[1], np.float32)


def neighbour_correlation(images: Array) -> float:
    """Lag-1 autocorrelation of images (n, h, w, c): mean of that of vertical and horizontal neighbours.

    Pearson correlation of all pairs after each channel of each image lost its own mean, so that neither
    brightness nor a tint counts as structure. -1 to 1; NaN for flat images and sides of one pixel.
    """
    images64 = images.astype(np.float64)
    centred = images64 - images64.mean(axis=(1, 2), keepdims=True)
    floor = ROUNDING * float(np.square(images64).mean())
    vertical = _pearson(centred[:, :-1], centred[:, 1:], floor)
    horizontal = _pearson(centred[:, :, :-1], centred[:, :, 1:], floor)
    return (vertical + horizontal) / 2


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64], floor: float) -> float:
    """Correlation of all values of two arrays; NaN if one of them varies by no more than ``floor``."""
    if not a.size:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    variances = float(np.square(a).mean()), float(np.square(b).mean())
    if min(variances) <= floor:
        return float("nan")
    return float((a * b).mean() / np.sqrt(variances[0] * variances[1]))
