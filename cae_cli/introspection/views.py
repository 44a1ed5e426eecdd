"""What filters respond to and what latent channels draw: views.npz, beside the untrained network.

For n held-out images, c channels and layers by the name of the convolution. ``untrained_<array>`` holds
the same for the network before training, or, where that is not known, for a network of the same build
with weights drawn anew. Pictures are uint8 (255 is white), reduced to at most `MOST_SIDE` pixels.

==============================  ================================================================
``shown/<layer>``               (f,) the filters of the other arrays, those whose maps vary most first
``patch/<layer>``               (f, 9, s, s', c) uint8: the patches that excite each filter most, of
                                different images, the strongest first
``patch_value/<layer>``         (f, 9) the filter's largest value in each of these images
``patch_image/<layer>``         (f, 9) their indices among the held-out images
``field/<layer>``               (2,) height and width of the patches in pixels of the image
``tuning/<layer>``              (f, 4) preferred angle in degrees, preferred period in pixels,
                                selectivity, response; see `tuning`
``angles/<layer>``              (f, a) response to each angle at the preferred period, 0° first
``map/<layer>``                 (8, h, w, f) maps of the first held-out images
``atom``                        (k, h, w, c) what a latent channel adds to the output, see `atoms`
``atom_channel``                (k,) the channels, those that vary most first
``traversal``                   (d, 7, h, w, c) uint8: outputs along principal directions of the codes
``traversal_share``             (d,) share of the variance of the codes in each direction
``code``                        (m, 2) latent codes of held-out images in their first two directions
``thumbnail``                   (m, h, w, c) uint8: these images
``code_share``                  (2,) share of their variance in these directions
``code_label``                  (m,) their labels, where there are any
``neighbour``                   (8, 5) indices of the codes nearest to those of the first images
==============================  ================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import Images, as_float
from cae_cli.introspection.receptive_field import Window
from cae_cli.metrics.sample import Sample

Array = NDArray[np.float32]
# (n, h, w, c) to the maps of each layer, batch by batch.
Maps = Callable[[NDArray[np.generic]], Iterator[Mapping[str, Array]]]

MOST_SIDE = 64  # pixels of a picture
PATCH_SIDE = 24  # pixels of a patch
THUMBNAIL_SIDE = 28
PATCHES = 9  # of each filter
FEWEST = 32  # images, where the budget ends
IMAGES = 2048  # that are searched for patches
MOST_PIXELS = 2**21  # of these images, and of the gratings
MOST_FILTERS, MOST_TILES = 32, 192  # filters of a layer, and of all layers, that are looked at
CODES = 256  # latent codes
MOST_VALUES = 2**23  # of all these codes
ATOMS, DIRECTIONS, STEPS, NEIGHBOURS = 32, 4, 7, 5
REACH = 2.0  # standard deviations of a latent channel or direction
ANGLES, PERIODS, PHASES = 12, 6, 4  # of the gratings
FEW_GRATINGS = 8, 4, 2  # of large images, and where the budget ends
EXAMPLES = 8


def passes_of_filters(shape: tuple[int, int, int], held_out: int) -> int:
    """Passes of one image that `patches` and `tuning` take, about."""
    return _searched(shape[:2], held_out) + math.prod(_gratings(shape))


def passes_of_latent() -> int:
    """Passes of one image that `latent` takes, about: it encodes or decodes, which is half a pass."""
    return (CODES + DIRECTIONS * STEPS + 2 * ATOMS) // 2


def _some(count: int, share: float) -> int:
    """So many images of ``count`` for a share of what is shown."""
    return min(count, max(FEWEST, int(share * count)))


def _searched(sides: tuple[int, ...], held_out: int) -> int:
    """Images that are searched for patches."""
    return min(held_out, max(PATCHES, min(IMAGES, MOST_PIXELS // (sides[0] * sides[1]))))


@dataclass(frozen=True)
class Network:
    """The functions of a network with some weights.

    Attributes:
        maps: images (n, h, w, c) to the maps (b, h', w', filters) of each layer, batch by batch.
        encode: images to latent codes.
        decode: images, which feed skip connections only, and latent codes to outputs.
        windows: what a value of each layer's map sees of the image; None where that is not known.
        sample: how much of it may be looked at.
    """

    maps: Maps
    encode: Callable[[Array], Array]
    decode: Callable[[Array, Array], Array]
    windows: Mapping[str, tuple[Window, Window] | None]
    sample: Sample


def of_network(
    network: Network,
    images: Images,
    spreads: Mapping[str, Array],
    examples: Mapping[str, Array],
    shown: Mapping[str, Array] | None = None,
) -> dict[str, NDArray[Any]]:
    """The arrays at the top of this file, without those of the untrained network.

    Args:
        network: with its present weights.
        images: the held-out ones are looked at.
        spreads: (filters,) standard deviation of each layer's maps.
        examples: (8, h, w, filters) each layer's maps of the first held-out images.
        shown: filters by layer; None: those of the largest spread.
    """
    each = max(4, min(MOST_FILTERS, MOST_TILES // max(1, len(spreads))))
    chosen = shown or {
        name: np.argsort(-std, kind="stable")[:each].astype(np.int32) for name, std in spreads.items()
    }
    arrays: dict[str, NDArray[Any]] = {f"shown/{name}": own for name, own in chosen.items()}
    if network.sample.filters:
        arrays |= patches(network, images.held_out_given, chosen)
        arrays |= tuning(network, images.shape, chosen)
    arrays |= {f"map/{name}": reduced(examples[name][..., own], 32) for name, own in chosen.items()}
    return arrays | (latent(network, images) if network.sample.latent else {})


def patches(
    network: Network, images: NDArray[np.generic], shown: Mapping[str, Array]
) -> dict[str, NDArray[Any]]:
    """The image patches that excite each filter most, at most one of each image.

    Args:
        network: the network.
        images: (n, h, w, c), of which the first are searched.
        shown: filters by layer.
    """
    count = _some(_searched(images.shape[1:3], len(images)), network.sample.filters)
    best: dict[str, list[tuple[Array, Array]]] = {name: [] for name in shown}
    shapes: dict[str, tuple[int, int]] = {}
    for maps in network.maps(images[:count]):
        for name, own in shown.items():
            values = maps[name]
            shapes[name] = (values.shape[1], values.shape[2])
            values = values[..., own].reshape(len(values), -1, len(own))
            at = values.argmax(axis=1)
            best[name].append((np.take_along_axis(values, at[:, None], 1)[:, 0], at))
    arrays: dict[str, NDArray[Any]] = {}
    for name in shown:
        values, at = (np.concatenate(part).T for part in zip(*best[name], strict=True))  # (f, n)
        order = np.argsort(-values, axis=1, kind="stable")[:, :PATCHES]
        crop = Crop(network.windows.get(name), images.shape[1:3])
        places = np.take_along_axis(at, order, 1)
        width = shapes[name][1]
        cut = [
            [
                crop(as_float(images[i : i + 1])[0], *divmod(int(p), width))
                for i, p in zip(*of, strict=True)
            ]
            for of in zip(order, places, strict=True)
        ]
        arrays[f"patch/{name}"] = as_bytes(reduced(np.array(cut, np.float32), PATCH_SIDE))
        arrays[f"patch_value/{name}"] = np.take_along_axis(values, order, 1).astype(np.float32)
        arrays[f"patch_image/{name}"] = order.astype(np.int32)
        arrays[f"field/{name}"] = np.array(crop.size, np.int32)
    return arrays


class Crop:
    """Cuts what a value of a map sees out of an image; black where that ends, as padding is.

    Args:
        windows: along both axes; None: the whole image.
        shape: (h, w) of an image.
    """

    def __init__(self, windows: tuple[Window, Window] | None, shape: tuple[int, ...]) -> None:
        self.windows = windows
        sides = [
            side if windows is None else min(side, windows[axis].length)
            for axis, side in enumerate(shape)
        ]
        self.size = (sides[0], sides[1])

    def __call__(self, image: Array, row: int, column: int) -> Array:
        """(h, w, c) of the image that the value at a place of the map sees."""
        padded = image
        slices = []
        for axis, place in enumerate((row, column)):
            side, length = image.shape[axis], self.size[axis]
            start = 0 if self.windows is None else self.windows[axis].start(place)
            if length >= side:
                slices.append(slice(0, side))
                continue
            width = [(0, 0)] * 3
            width[axis] = (max(0, -start), max(0, start + length - side))
            padded = np.pad(padded, width)
            start += width[axis][0]
            slices.append(slice(start, start + length))
        return padded[slices[0], slices[1]]


def tuning(
    network: Network, shape: tuple[int, int, int], shown: Mapping[str, Array]
) -> dict[str, NDArray[Any]]:
    """How filters respond to sinusoidal gratings.

    The response to an angle and a period is the root mean square, over phases and the middle half of the
    map, of the map's difference from its value for a flat image of the same mean. Selectivity is 1 minus
    the circular variance over angles at the preferred period: 0 if all angles excite alike, 1 if only
    one does (Ringach et al., "Orientation selectivity in macaque V1", 2002). It describes a filter and
    is no merit: untrained filters may be selective too.

    Args:
        network: the network.
        shape: (h, w, c) of an image.
        shown: filters by layer.
    """
    angles, periods, gratings = grating_images(shape, few=network.sample.filters < 1)
    (flat,) = network.maps(np.full((1, *shape), 0.5, np.float32))
    squares: dict[str, list[Array]] = {name: [] for name in shown}
    for maps in network.maps(gratings):
        for name, own in shown.items():
            middle = _middle(maps[name][..., own] - flat[name][..., own])
            squares[name].append(np.square(middle).mean(axis=(1, 2)))
    arrays: dict[str, NDArray[Any]] = {}
    for name, own in shown.items():
        of_each = np.concatenate(squares[name]).reshape(len(angles), len(periods), -1, len(own))
        response = np.sqrt(of_each.mean(axis=2))  # (a, p, f)
        at = response.reshape(-1, len(own)).argmax(axis=0)
        angle, period = np.unravel_index(at, response.shape[:2])
        curve = response[:, period, np.arange(len(own))]  # (a, f)
        turns = np.exp(2j * np.deg2rad(angles))
        total = curve.sum(axis=0)
        selectivity = np.abs((curve * turns[:, None]).sum(axis=0)) / np.where(total > 0, total, 1)
        strongest = curve.max(axis=0)
        silent = strongest <= 1e-6
        columns = (angles[angle], periods[period], selectivity, strongest)
        table = np.stack(columns, axis=1).astype(np.float32)
        table[silent, :3] = math.nan
        arrays[f"tuning/{name}"] = table
        arrays[f"angles/{name}"] = np.asarray(curve.T, np.float32)
    return arrays


def grating_images(shape: tuple[int, int, int], *, few: bool = False) -> tuple[Array, Array, Array]:
    """Sinusoidal gratings around a mean of 0.5, in all channels alike.

    An angle is that of the bars, counterclockwise from horizontal as seen on a screen.

    Args:
        shape: (h, w, c) of an image; of large ones there are fewer gratings.
        few: as of large ones.

    Returns:
        Angles in degrees, periods in pixels, and the images (angles * periods * phases, h, w, c).
    """
    h, w, c = shape
    angles, periods, phases = FEW_GRATINGS if few else _gratings(shape)
    degrees = np.arange(angles) * 180 / angles
    # From the finest that pixels show in every direction to half the image.
    pixels = np.geomspace(2.5, max(5.0, min(h, w) / 2), periods)
    shifts = np.arange(phases) * 2 * np.pi / phases
    y, x = np.mgrid[:h, :w]
    turned = np.deg2rad(degrees)[:, None, None]
    across = x * np.sin(turned) + y * np.cos(turned)  # (a, h, w)
    waves = np.cos(
        2 * np.pi * across[:, None, None] / pixels[:, None, None, None] + shifts[:, None, None]
    )
    images = (0.5 + 0.5 * waves).reshape(-1, h, w, 1).astype(np.float32)
    return (
        degrees.astype(np.float32),
        pixels.astype(np.float32),
        np.repeat(images, c, axis=3),
    )


def _gratings(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """How many angles, periods and phases."""
    all_of_them = ANGLES, PERIODS, PHASES
    many = math.prod((*all_of_them, *shape[:2])) > 2 * MOST_PIXELS
    return FEW_GRATINGS if many else all_of_them


def latent(network: Network, images: Images) -> dict[str, NDArray[Any]]:
    """Atoms, traversals, the map of latent codes and nearest neighbours.

    Args:
        network: the network.
        images: the held-out ones are encoded.
    """
    given = images.held_out_given
    first = as_float(given[:1])
    values = int(np.prod(network.encode(first).shape[1:]))
    count = max(EXAMPLES, min(CODES, MOST_VALUES // max(1, values)))
    count = _some(count, network.sample.latent)
    codes = network.encode(as_float(given[:count])).astype(np.float32)
    mean = codes.mean(axis=0, keepdims=True)
    centred = (codes - mean).reshape(len(codes), -1)
    if not np.isfinite(centred).all():
        return {}
    # The left singular vectors from the small Gram matrix: there are more values than codes.
    power, left = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    power, left = np.clip(power[::-1], 0, None), left[:, ::-1]
    left = left * np.where(left[np.abs(left).argmax(axis=0), np.arange(len(left))] < 0, -1, 1)
    places = (left * np.sqrt(power))[:, :2]
    share = power / power.sum() if power.sum() > 0 else np.zeros_like(power)
    arrays: dict[str, NDArray[Any]] = {
        "code": places.astype(np.float32),
        "code_share": share[:2].astype(np.float32),
        "thumbnail": as_bytes(reduced(as_float(given[:count]), THUMBNAIL_SIDE)),
        "neighbour": _nearest(centred),
    }
    labels = images.validation_labels if images.test is None else images.test_labels
    if labels is not None:
        arrays["code_label"] = np.asarray(labels[:count])
    steps = np.linspace(-REACH, REACH, STEPS)
    outputs = []
    for direction in range(min(DIRECTIONS, len(codes))):
        if not share[direction] > 1e-6:
            break
        axis = (left[:, direction] @ centred) / math.sqrt(power[direction])  # of length 1
        std = math.sqrt(power[direction] / len(codes))
        moved = mean + (steps[:, None] * std * axis).reshape(-1, *codes.shape[1:])
        outputs.append(network.decode(np.repeat(first, STEPS, axis=0), moved.astype(np.float32)))
    if outputs:
        arrays["traversal"] = as_bytes(reduced(np.stack(outputs), MOST_SIDE))
        arrays["traversal_share"] = share[: len(outputs)].astype(np.float32)
    return arrays | atoms(network, first, codes)


def atoms(network: Network, image: Array, codes: Array) -> dict[str, NDArray[Any]]:
    """What each latent channel draws: the change of the output when it is raised.

    A channel of a latent code with positions is raised by `REACH` standard deviations in the middle of
    the mean code. A value of a dense code goes from as much below its mean to as much above.

    Args:
        network: the network.
        image: (1, h, w, c), for skip connections.
        codes: (m, ...) latent codes.
    """
    dense = codes.ndim == 2
    axes = tuple(range(codes.ndim - 1))
    std = codes.std(axis=axes)
    order = np.argsort(-std, kind="stable")
    channels = order[std[order] > 0][:ATOMS]
    if not len(channels):
        return {}
    mean = codes.mean(axis=0)
    raised = np.repeat(mean[None], len(channels), axis=0)
    lowered = raised.copy()
    middle = tuple(side // 2 for side in mean.shape[:-1])
    for row, channel in enumerate(channels):
        raised[(row, *middle, channel)] += REACH * std[channel]
        if dense:
            lowered[row, channel] -= REACH * std[channel]
    images = np.repeat(image, len(channels), axis=0)
    change = network.decode(images, raised) - network.decode(images, lowered)
    return {
        "atom": reduced(change, MOST_SIDE),
        "atom_channel": channels.astype(np.int32),
    }


def _nearest(centred: Array) -> NDArray[np.int32]:
    """(8, 5) the nearest other codes of the first ones, the nearest first."""
    square = np.square(centred).sum(axis=1)
    first = centred[:EXAMPLES]
    distance = square[None] + square[: len(first), None] - 2 * first @ centred.T
    distance[np.arange(len(first)), np.arange(len(first))] = np.inf
    return np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS].astype(np.int32)


def _middle(maps: Array) -> Array:
    """The middle half of maps (n, h, w, f), at least one value."""
    h, w = maps.shape[1:3]
    top, left = h // 4, w // 4
    return maps[:, top : max(top + 1, h - top), left : max(left + 1, w - left)]


def reduced(images: Array, most: int) -> Array:
    """(..., h, w, c) with sides of at most ``most``: the mean over blocks of pixels."""
    *front, h, w, c = images.shape
    factor = math.ceil(max(h, w) / most)
    if factor == 1:
        return images
    pad = [(0, 0)] * len(front) + [(0, -h % factor), (0, -w % factor), (0, 0)]
    padded = np.pad(images, pad, mode="edge")
    shape = (*front, padded.shape[-3] // factor, factor, padded.shape[-2] // factor, factor, c)
    return np.asarray(padded.reshape(shape).mean(axis=(-4, -2)), images.dtype)


def as_bytes(images: Array) -> NDArray[np.uint8]:
    """Images in [0, 1] as uint8."""
    return (np.clip(np.nan_to_num(images), 0, 1) * 255 + 0.5).astype(np.uint8)


def both(
    network: Network,
    images: Images,
    spreads: Mapping[str, Array],
    examples: Mapping[str, Array],
    untrained: Callable[[], AbstractContextManager[bool]],
) -> dict[str, NDArray[Any]]:
    """The arrays of the network, and of the untrained one.

    Args:
        network: see `of_network`.
        images: see `of_network`.
        spreads: see `of_network`.
        examples: see `of_network`.
        untrained: a context in which the network has the weights of the untrained one; it tells whether
            there are any.
    """
    trained = of_network(network, images, spreads, examples)
    shown = {k.removeprefix("shown/"): v for k, v in trained.items() if k.startswith("shown/")}
    if not network.sample.untrained:
        return trained
    with untrained() as known:
        before: dict[str, NDArray[Any]] = {}
        if known:
            parts = list(network.maps(images.held_out_given[:EXAMPLES]))
            maps = {name: np.concatenate([part[name] for part in parts]) for name in spreads}
            before = of_network(network, images, spreads, maps, shown)
    same = ("shown/", "field/", "thumbnail", "code_label")
    return trained | {f"untrained_{k}": v for k, v in before.items() if not k.startswith(same)}
