"""The shapes of a network before it is built: arithmetic on its options, without Keras."""

from __future__ import annotations

from collections.abc import Sequence

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
    latent_shape = options.latent_shape(shape)
    sampled = (options.downsampling == "strided", options.upsampling == "transposed")
    per_stage = sum(_plain_convolutions(options, by_itself) + by_itself for by_itself in sampled)
    field = max(_field(side, options) for side in shape[:2])
    return Network(
        image_shape=shape,
        latent_shape=latent_shape,
        output_activation=options.output_activation,
        hidden_activation=options.activation,
        normalised="batchnorm" in regularizers,
        skips=options.skips,
        receptive_field=float(max(shape[:2]) if options.attention_heads else field),
        depth=stages * per_stage + 1,
        narrowest=min(*options.filters, latent_shape[-1]),
    )


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
