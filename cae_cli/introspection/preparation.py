"""Tries the usual ways of preparing images on a network that was not trained here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import Images, as_float
from cae_cli.introspection.layers import is_a
from cae_cli.metrics.preparation import RANGES, Preparation, Span, Way, unlike

Array = NDArray[np.float32]

TRIED, FIRST_TRIED = 64, 8  # images: of the way at hand and the best other one, and of each
MOST_TRIED = 2**21  # their values
EPSILON = 1e-7  # that Keras adds to the variance of a layer that names none
ALIKE = 1.5  # times the error: networks may know inverted images nearly as well as the others
COLOURS = 3  # channels that may be in the order blue, green, red


def preparation(
    reconstruct: Callable[[Array], Array],
    images: Images,
    hand: Way,
    statistics: Callable[[Array], float] = lambda _: math.nan,
) -> dict[str, NDArray[Any]]:
    """The attributes of `metrics.preparation.Preparation` as arrays ``preparation/<attribute>``.

    All ways are compared on a few images, and the best one with that at hand on others. NaN where there
    are too few images, or where all of them are the same.

    Args:
        reconstruct: the network in the way at hand, from (n, h, w, c) in [0, 1] to the same.
        images: the first held-out ones are tried.
        hand: the way at hand.
        statistics: from inputs of the network to ``Preparation.stored``.
    """
    values = int(np.prod(images.shape))
    most = int(np.clip(MOST_TRIED // values, FIRST_TRIED, TRIED)) + FIRST_TRIED
    given, x = (as_float(part[:most]) for part in (images.held_out_given, images.held_out))
    found = Preparation()
    with np.errstate(all="ignore"):  # values that no network was made for
        if len(x) >= 2 * FIRST_TRIED and x[FIRST_TRIED:].var(axis=0).any():
            found = _compared(_Trial(reconstruct, hand), given, x, statistics(given))
    return {f"preparation/{name}": np.array(value) for name, value in asdict(found).items()}


def unlike_stored(layer: Any, seen: Iterable[Array]) -> float:
    """`Preparation.stored`.

    Args:
        layer: of `Autoencoder.keeps_statistics`.
        seen: what it gets, batch by batch.
    """
    import keras

    is_batch = is_a(layer, {"BatchNormalization"})
    held = (layer.moving_mean, layer.moving_variance) if is_batch else (layer.mean, layer.variance)
    kept = (layer.axis,) if is_batch else layer.axis
    if not is_batch and layer.invert:  # it gets what is normalised
        return math.nan
    moments: Any = 0.0  # sums of 1, x and x² for each mean that it holds, (3, channels)
    for x in seen:
        axes = tuple({*range(x.ndim)} - {axis % x.ndim for axis in kept})
        sums = [np.sum(a, axis=axes, dtype=np.float64) for a in (np.ones_like(x), x, np.square(x))]
        moments = moments + np.stack([np.ravel(a) for a in sums])
    count, total, square = moments
    mean, epsilon = total / count, layer.epsilon if is_batch else EPSILON
    arrays = [np.ravel(keras.ops.convert_to_numpy(a)) for a in held]
    return unlike(arrays, (mean, square / count - mean**2), epsilon)


def _compared(trial: _Trial, given: Array, x: Array, statistics: float) -> Preparation:
    few, rest = slice(FIRST_TRIED), slice(FIRST_TRIED, None)
    hand, other = trial.hand, trial.best(given[few], x[few])
    own, best = (trial.error(given[rest], x[rest], way) for way in (hand, other))
    flat = x[rest] - x[rest].mean(axis=(1, 2), keepdims=True)
    left = min(float(np.square(flat).mean() / x[rest].var(axis=0).mean()), 1.0)
    return Preparation(
        1 - own,
        1 - best,
        1 - best / left if left else math.nan,
        *other.given,
        *other.made,
        other.swapped,
        *hand.given,
        statistics,
    )


class _Trial:
    """A network that is given images in several ways."""

    def __init__(self, reconstruct: Callable[[Array], Array], hand: Way) -> None:
        self._reconstruct, self.hand = reconstruct, hand

    def best(self, given: Array, images: Array) -> Way:
        """The way with the smallest error other than that at hand; the simplest of those alike."""
        errors: dict[Way, float] = {}
        for shown, ways in self._ways(given, images):
            output = self._output(given, shown)
            errors |= {way: self._error(output, images, way) for way in ways if way != self.hand}
        return min(errors, key=lambda way: errors[way] * ALIKE**way.unusual)

    def error(self, given: Array, images: Array, way: Way) -> float:
        """Mean squared error of images (n, h, w, c) in this way over their variance; inf: not finite."""
        return self._error(self._output(given, way), images, way)

    def _ways(self, given: Array, images: Array) -> Iterator[tuple[Way, list[Way]]]:
        """Each way to give the images, with those in which the output may be read."""
        usual = (self.hand.given, *RANGES, _standard(given))
        makes = dict.fromkeys((self.hand.made, *RANGES))
        for swapped in (False, True)[: 1 + (images.shape[3] == COLOURS)]:
            for turned in (False, True):
                for span in dict.fromkeys(usual):
                    own = (_standard(images),) if span == usual[-1] else makes
                    ways = [Way(_turned(span, turned), _turned(m, turned), swapped) for m in own]
                    yield ways[0], ways

    def _output(self, given: Array, way: Way) -> Array:
        """What the network makes of the images in this way, in the values of the network."""
        shown = _between(way.given, given[..., ::-1] if way.swapped else given)
        low, high = self.hand.given
        return _between(self.hand.made, self._reconstruct((shown - low) / np.float32(high - low)))

    @staticmethod
    def _error(output: Array, images: Array, way: Way) -> float:
        low, high = way.made
        x = images[..., ::-1] if way.swapped else images
        difference = (output - low) / (high - low) - x
        error = float(np.square(difference, dtype=np.float64).mean())
        error /= float(x.var(axis=0, dtype=np.float64).mean())
        return error if math.isfinite(error) else math.inf


def _between(span: Span, images: Array) -> Array:
    low, high = span
    return np.asarray(np.float32(low) + np.float32(high - low) * images, np.float32)


def _turned(span: Span, turned: bool) -> Span:
    return (span[1], span[0]) if turned else span


def _standard(images: Array) -> Span:
    """What 0 and 1 become where images are brought to mean 0 and standard deviation 1."""
    mean, deviation = float(images.mean()), float(images.std()) or 1.0
    return -mean / deviation, (1 - mean) / deviation
