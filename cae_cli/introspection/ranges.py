"""A network that was trained on another range than [0, 1], wrapped so that its images are in [0, 1]."""

from __future__ import annotations

from cae_cli.introspection.autoencoder import Autoencoder
from cae_cli.introspection.introspect import introspect

UNIT = (0.0, 1.0)


def in_unit_range(
    autoencoder: Autoencoder, span: tuple[float, float], given: tuple[float, float] | None = None
) -> Autoencoder:
    """The same network with its range brought to [0, 1]; itself if that is its range.

    Args:
        autoencoder: the network.
        span: (low, high), the range of the images that it was trained on.
        given: that of its inputs, where these are something else; None: the same.
    """
    given = given or span
    if span == given == UNIT:
        return autoencoder
    import keras

    low, high = given
    image = keras.Input(autoencoder.shape, name="image_in_0_1")
    x = keras.layers.Rescaling(high - low, low, name="to_the_range_of_the_model")(image)
    x = autoencoder.model(x)
    low, high = span
    x = keras.layers.Rescaling(1 / (high - low), -low / (high - low), name="back_to_0_1")(x)
    return introspect(keras.Model(image, x), latent=autoencoder.latent_layer)
