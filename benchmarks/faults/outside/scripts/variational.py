"""A variational autoencoder with an encoder and a decoder of their own, on MNIST."""

import sys

import keras
import numpy as np
from keras import layers, ops

FIT = {"epochs": 10, "batch_size": 32}


@keras.saving.register_keras_serializable("variational")
class Sampling(layers.Layer):
    """Draws a latent code, and adds the divergence from the normal distribution to the loss."""

    def __init__(self, weight=1.0, **options):
        super().__init__(**options)
        self.weight = weight
        self.seeds = keras.random.SeedGenerator()

    def call(self, inputs):
        """(n, k) means and logarithms of variances to (n, k) latent codes."""
        mean, log_var = inputs
        divergence = -0.5 * ops.sum(1 + log_var - ops.square(mean) - ops.exp(log_var), axis=1)
        self.add_loss(self.weight * ops.mean(divergence))
        return mean + ops.exp(0.5 * log_var) * keras.random.normal(ops.shape(mean), seed=self.seeds)

    def get_config(self):
        """As Keras needs it."""
        return {**super().get_config(), "weight": self.weight}


def images(folder="data"):
    """Digits, (n, 28, 28, 1) in [0, 1]: inputs, targets, labels; then inputs and targets held out."""
    with np.load(f"{folder}/mnist.npz") as file:
        x, labels, x_test = (
            file["x_train"][3000:6000],
            file["y_train"][3000:6000],
            file["x_test"][400:800],
        )
    x, x_test = (part[..., None].astype("float32") / 255 for part in (x, x_test))
    return (x, x, labels), (x_test, x_test)


def model():
    """A latent code of 12 values."""
    image = keras.Input((28, 28, 1))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Flatten()(x)
    code = Sampling(1 / (28 * 28))([layers.Dense(12)(x), layers.Dense(12)(x)])
    encoder = keras.Model(image, code, name="encoder")
    values = keras.Input((12,))
    x = layers.Dense(7 * 7 * 16, activation="relu")(values)
    x = layers.Reshape((7, 7, 16))(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(x)
    decoder = keras.Model(
        values, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x), name="decoder"
    )
    autoencoder = keras.Model(image, decoder(encoder(image)))
    autoencoder.compile(optimizer="adam", loss="binary_crossentropy")
    return autoencoder


if __name__ == "__main__":
    from cae_cli import Diagnosis

    (x, y, _), (x_test, y_test) = images(*sys.argv[1:])
    callbacks = [Diagnosis(x, x_test)]
    model().fit(x, y, **FIT, validation_data=(x_test, y_test), callbacks=callbacks)
