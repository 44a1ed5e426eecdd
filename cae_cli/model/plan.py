"""The shapes of a network before it is built: arithmetic on its options, without Keras."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cae_cli.metrics.network import Network
from cae_cli.model.options import ModelOptions


def plan(
    shape: tuple[int, int, int], options: ModelOptions, regularizers: Sequence[str] = ()
) -> Network:
    """The facts of the network that `build` would make.

    Args:
        shape: (h, w, c) of the images.
        options: of the network.
        regularizers: their names.
    """
    stages = len(options.filters)
    dense = options.latent_units is not None
    sampled = (options.downsampling == "strided", options.upsampling == "transposed")
    per_stage = sum(_plain_convolutions(options, by_itself) + by_itself for by_itself in sampled)
    field = max(_field(side, options) for side in shape[:2])
    return Network(
        image_shape=shape,
        latent_shape=options.latent_shape(shape),
        output_activation=options.output_activation,
        hidden_activation=options.activation,
        normalised="batchnorm" in regularizers,
        skips=options.skips,
        receptive_field=float(max(shape[:2]) if options.attention_heads or dense else field),
        depth=stages * per_stage + 2 * dense + 1,
        narrowest=min(*options.filters, options.encoded_shape(shape)[-1]),
        shortcuts=options.block == "residual",
    )


@dataclass(frozen=True)
class Part:
    """A convolution, a dense layer or an attention, or several alike in a row.

    Attributes:
        of: "encoder" or "decoder".
        inputs: values per image that it reads, and that training keeps for the gradient of its weights.
        outputs: values per image of its activation, which training keeps unless that is linear.
        weights: their number.
        times: how many there are; the other numbers are those of one.
    """

    of: str
    inputs: int
    outputs: int
    weights: int
    times: int = 1


def parts(shape: tuple[int, int, int], options: ModelOptions) -> Iterator[Part]:
    """What has weights in the network that `build` would make without regularizers, in its order.

    Args:
        shape: (h, w, c) of the images.
        options: of the network.
    """

    def convolution(kernel: int, filters: int, read: int, written: int, times: int = 1) -> Part:
        weights = (kernel**2 * channels + 1) * filters
        return Part(of, read * channels, written * filters, weights, times)

    multiple = 2 ** len(options.filters)
    pixels = math.prod(side + sum(padding(side, multiple)) for side in shape[:2])
    channels, read, skipped = shape[2], pixels, list[int]()
    # Training computes a convolution behind an upsampling to nearest neighbours at the low resolution.
    fused = options.upsampling == "nearest" and not options.skips
    encoder = (
        [*options.filters[:-1], options.encoded_shape(shape)[2]],
        options.downsampling == "strided",
    )
    decoder = (options.filters[::-1], options.upsampling == "transposed")
    for of, (stages, sampled) in (("encoder", encoder), ("decoder", decoder)):
        if of == "decoder" and options.attention_heads:
            yield from (_attention(name, pixels, channels, options) for name in ("encoder", "decoder"))
        if of == "decoder" and options.latent_units is not None:
            units, values = options.latent_units, pixels * channels
            yield Part("encoder", values, 0, (values + 1) * units)  # its activation is linear
            yield Part("decoder", units, values, (units + 1) * values)
        for filters in stages:
            count = _plain_convolutions(options, sampled)
            if count:
                yield convolution(options.kernel_size, filters, read, pixels)
                if options.block == "residual" and channels != filters:
                    yield convolution(1, filters, 0, 0)  # the shortcut reads the same
                channels, read = filters, pixels
            if count > 1:
                yield convolution(options.kernel_size, filters, pixels, pixels, count - 1)
            if of == "encoder":
                skipped.append(channels)
            behind = pixels // 4 if of == "encoder" else 4 * pixels
            if sampled:
                yield convolution(options.sampling_kernel, filters, read, behind)
                channels = filters
            read = pixels if of == "decoder" and fused else behind
            pixels = behind
            if of == "decoder" and options.skips:
                channels += skipped.pop()
    yield convolution(options.kernel_size, shape[2], read, 0)  # its output is no hidden map


def _attention(of: str, positions: int, channels: int, options: ModelOptions) -> Part:
    heads = options.attention_heads
    width = heads * max(1, channels // heads)
    weights = 2 * channels + 3 * (channels + 1) * width + (width + 1) * channels
    return Part(of, positions * channels, heads * positions**2, weights)  # softmax is not linear


def _plain_convolutions(options: ModelOptions, sampled: bool) -> int:
    """Consecutive convolutions of a stage that keep its resolution.

    If the stage is ``sampled``, another convolution changes the resolution. It replaces the last plain
    one; a residual block cannot change the resolution, so there it is an additional one.
    """
    if options.block == "residual":
        return 2 * options.convolutions
    return options.convolutions - sampled


def _field(side: int, options: ModelOptions) -> int:
    """Side in pixels of the largest receptive field of a latent value, without attention."""
    strided = options.downsampling == "strided"
    stage = [(options.kernel_size, 1)] * _plain_convolutions(options, strided)
    stage.append((options.sampling_kernel if strided else 2, 2))
    jump = 2 ** len(options.filters)
    low, size, at = -padding(side, jump)[0], 1, 1  # of the first value: pixels low to low + size - 1
    for _ in options.filters:
        for kernel, stride in stage:
            low -= (kernel - stride) // 2 * at
            size += (kernel - 1) * at
        at *= 2
    firsts = range(low, low + -(-side // jump) * jump, jump)
    return max(min(first + size, side) - max(first, 0) for first in firsts)


def padding(side: int, multiple: int) -> tuple[int, int]:
    """Pixels to add before and behind so that ``side`` becomes a multiple of ``multiple``."""
    missing = -side % multiple
    return missing // 2, missing - missing // 2
