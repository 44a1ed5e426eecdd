"""The convolutional autoencoder: `build` makes it, `anatomy.Autoencoder` names its parts.

The network is one functional Keras model of built-in layers only, so that plain Keras opens the saved
file. Its layers are found by name: the convolutions ``encoder_1``, ``encoder_2`` … ``decoder_1`` …
``output``, the feature maps behind them ``<convolution>_map``, and ``code``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cae_cli.errors import UserError
from cae_cli.introspection import Autoencoder
from cae_cli.metrics.network import Network
from cae_cli.model.blocks import Stage
from cae_cli.model.regularization import Regularizer
from cae_cli.options import option

ACTIVATIONS = (
    "relu", "elu", "gelu", "leaky_relu", "selu", "silu", "softplus", "tanh", "sigmoid", "linear",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Free parameters of the network."""

    filters: list[int] = option(
        "filters of each stage of the encoder; the decoder mirrors them. Where latent_channels is "
        "given, the encoder's last stage has that many instead",
        least=1,
        nonempty=True,
    )
    convolutions: int = option("convolutions (or residual blocks) in each stage", least=1)
    kernel_size: int = option("side of the kernels, in pixels", least=1)
    latent_channels: int | None = option(
        "channels of the latent code; null: as many as the last stage's filters", least=1
    )
    block: str = option("what a stage is made of", choices=("plain", "residual"))
    activation: str = option("of all hidden layers", choices=ACTIVATIONS)
    output_activation: str = option(
        "of the last layer",
        choices=("sigmoid", "hard_sigmoid", "linear", "relu", "tanh", "softmax"),
    )
    downsampling: str = option(
        "how a stage halves the resolution", choices=("max_pool", "average_pool", "strided")
    )
    upsampling: str = option(
        "how a stage doubles the resolution", choices=("nearest", "bilinear", "transposed")
    )
    sampling_kernel: int = option(
        "side of the kernels of strided and transposed convolutions, in pixels", least=2
    )
    skips: bool = option(
        "each stage of the decoder also gets the maps of the encoder's stage of its resolution "
        "(U-Net): the latent code is bypassed"
    )
    attention_heads: int = option(
        "heads of the self-attention on both sides of the latent code; 0: none", least=0
    )
    initializer: str = option(
        "how the kernels are drawn",
        choices=(
            "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform",
            "lecun_normal", "orthogonal", "random_normal", "random_uniform", "zeros",
        ),
    )  # fmt: skip


def plan(
    shape: tuple[int, int, int], options: ModelOptions, regularizers: Sequence[str] = ()
) -> Network:
    """What `build` would make, as far as the diagnosis asks; needs no Keras.

    Args:
        shape: (h, w, c) of the images.
        options: the free parameters.
        regularizers: their names.
    """
    stages = len(options.filters)
    latent_channels = options.latent_channels or options.filters[-1]
    sampled = (options.downsampling == "strided", options.upsampling == "transposed")
    per_stage = sum(_plain_convolutions(options, by_itself) + by_itself for by_itself in sampled)
    field = max(_field(side, options) for side in shape[:2])
    return Network(
        image_shape=shape,
        latent_shape=(*(-(-side // 2**stages) for side in shape[:2]), latent_channels),
        output_activation=options.output_activation,
        hidden_activation=options.activation,
        normalised="batchnorm" in regularizers,
        skips=options.skips,
        receptive_field=float(max(shape[:2]) if options.attention_heads else field),
        depth=stages * per_stage + 1,
        narrowest=min(*options.filters, latent_channels),
    )


def _plain_convolutions(options: ModelOptions, sampled: bool) -> int:
    """Convolutions in a row that leave the resolution of a stage as it is.

    Args:
        options: the free parameters.
        sampled: another convolution changes the resolution. It takes the place of the last plain one;
            a residual block cannot change the resolution, so there it is one more.
    """
    if options.block == "residual":
        return 2 * options.convolutions
    return options.convolutions - sampled


def _field(side: int, options: ModelOptions) -> int:
    """Pixels along a side of the image that a value of the latent code sees at most, attention aside."""
    strided = options.downsampling == "strided"
    stage = [(options.kernel_size, 1)] * _plain_convolutions(options, strided)
    stage.append((options.sampling_kernel if strided else 2, 2))
    jump = 2 ** len(options.filters)
    low, size, at = -_even(side, jump)[0], 1, 1  # of the first value: pixels low to low + size - 1
    for _ in options.filters:
        for kernel, stride in stage:
            low -= (kernel - stride) // 2 * at
            size += (kernel - 1) * at
        at *= 2
    firsts = range(low, low + -(-side // jump) * jump, jump)
    return max(min(first + size, side) - max(first, 0) for first in firsts)


# Self-attention compares every position of the latent code with every other one.
MOST_POSITIONS = 4096


def check(options: ModelOptions, shape: tuple[int, int, int]) -> None:
    """Says before training what cannot work.

    Args:
        options: the free parameters.
        shape: (h, w, c) of the images.

    Raises:
        UserError: attention over more positions than fit into memory.
    """
    if not options.attention_heads:
        return
    h, w = plan(shape, options).latent_grid
    if h * w > MOST_POSITIONS:
        raise UserError(
            f"model.attention_heads={options.attention_heads} with a code of {h}x{w}: attention over "
            f"{h * w:,} positions, at most {MOST_POSITIONS:,} are possible",
            hint="more stages (a longer model.filters), or smaller images",
        )


def build(
    shape: tuple[int, int, int], options: ModelOptions, regularizers: Sequence[Regularizer] = ()
) -> Autoencoder:
    """Builds the network. Its weights come from Keras' global random seed.

    Args:
        shape: (h, w, c) of the images. A side that the stages cannot halve evenly is padded with
            zeros at the input and cropped at the output.
        options: the free parameters.
        regularizers: what stands between the layers or adds to the loss.

    Returns:
        The autoencoder; its output has the shape of its input.
    """
    import keras

    stage = Stage(options, regularizers)
    depth = len(options.filters)
    latent_channels = options.latent_channels or options.filters[-1]
    padding = [_even(side, 2**depth) for side in shape[:2]]

    image = keras.Input(shape, name="image")
    x = image
    for regularizer in regularizers:
        x = regularizer.on_input(x)
    if any(map(any, padding)):
        x = keras.layers.ZeroPadding2D(padding, name="pad")(x)

    for number, filters in enumerate([*options.filters[:-1], latent_channels], start=1):
        x = stage.down(x, filters, f"encoder_{number}")
    if options.attention_heads:
        x = stage.attend(x, "encoder_attention")
    x = keras.layers.Activation("linear", name="latent")(x)
    for regularizer in regularizers:
        x = regularizer.on_latent(x)

    if options.attention_heads:
        x = stage.attend(x, "decoder_attention")
    for number, filters in enumerate(reversed(options.filters), start=1):
        x = stage.up(x, filters, f"decoder_{number}")
    x = keras.layers.Conv2D(
        shape[2],
        options.kernel_size,
        padding="same",
        kernel_initializer=options.initializer,
        dtype="float32",  # the loss is computed in full precision, whatever the policy
        name="output",
    )(x)
    x = keras.layers.Activation(options.output_activation, dtype="float32", name="output_map")(x)
    if any(map(any, padding)):
        x = keras.layers.Cropping2D(padding, name="crop")(x)
    return Autoencoder(keras.Model(image, x, name="autoencoder"), latent_layer="latent")


def _even(side: int, multiple: int) -> tuple[int, int]:
    """Pixels to add before and behind so that ``side`` becomes a multiple of ``multiple``."""
    missing = -side % multiple
    return missing // 2, missing - missing // 2
