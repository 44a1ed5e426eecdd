"""The convolutional autoencoder as one functional Keras model of built-in layers.

Plain Keras opens the saved file. Layers are found by name: the convolutions ``encoder_1``, ``encoder_2``
… ``decoder_1`` … ``output``, the feature maps behind them ``<convolution>_map``, and ``latent``. Around
a dense latent code stand ``encoder_dense`` and ``decoder_dense``.
"""

from __future__ import annotations

from collections.abc import Sequence

from cae_cli.introspection import Autoencoder
from cae_cli.model.blocks import Stage
from cae_cli.model.options import ModelOptions
from cae_cli.model.plan import padding
from cae_cli.model.regularization import Regularizer


def build(
    shape: tuple[int, int, int], options: ModelOptions, regularizers: Sequence[Regularizer] = ()
) -> Autoencoder:
    """Builds the network. Its weights come from Keras' global random seed.

    Args:
        shape: (h, w, c) of the images. A side that the stages cannot halve evenly is padded with
            zeros at the input and cropped at the output.
        options: of the network.
        regularizers: what they add between the layers and to the loss.

    Returns:
        The autoencoder; its output has the shape of its input.
    """
    import keras

    stage = Stage(options, regularizers)
    depth = len(options.filters)
    added = [padding(side, 2**depth) for side in shape[:2]]

    image = keras.Input(shape, name="image")
    x = image
    for regularizer in regularizers:
        x = regularizer.on_input(x)
    if any(map(any, added)):
        x = keras.layers.ZeroPadding2D(added, name="pad")(x)

    for number, filters in enumerate([*options.filters[:-1], options.encoded_shape(shape)[-1]], start=1):
        x = stage.down(x, filters, f"encoder_{number}")
    if options.attention_heads:
        x = stage.attend(x, "encoder_attention")
    if options.latent_units is not None:
        x = stage.flatten(x, options.latent_units, "encoder_dense")
    x = keras.layers.Activation("linear", name="latent")(x)
    for regularizer in regularizers:
        x = regularizer.on_latent(x)

    if options.latent_units is not None:
        x = stage.unflatten(x, options.encoded_shape(shape), "decoder_dense")
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
    if any(map(any, added)):
        x = keras.layers.Cropping2D(added, name="crop")(x)
    return Autoencoder(keras.Model(image, x, name="autoencoder"), latent_layer="latent")
