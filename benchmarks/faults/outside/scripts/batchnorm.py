"""Batch normalisation and LeakyReLU after every convolution, on the characters of Omniglot."""

import sys

import keras
import numpy as np
from keras import layers

FIT = {"epochs": 8, "batch_size": 32}


def images(folder="data"):
    """Strokes, (n, 28, 28, 1) in [0, 1]: inputs, targets, alphabets; inputs and targets held out."""
    with np.load(f"{folder}/omniglot.npz") as file:
        x, labels, x_test = file["x_train"][::2], file["alphabet_train"][::2], file["x_test"][::2]
    x, x_test = (part.reshape(-1, 28, 28, 1).astype("float32") / 255 for part in (x, x_test))
    return (x, x, labels), (x_test, x_test)


def block(x, filters, layer=layers.Conv2D):
    """A stride of 2; the normalisation replaces the bias."""
    x = layer(filters, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.LeakyReLU(negative_slope=0.2)(x)


def model():
    """Two strides, a latent code of 7x7x8."""
    image = keras.Input((28, 28, 1))
    encoded = block(block(image, 16), 8)
    x = block(block(encoded, 16, layers.Conv2DTranspose), 16, layers.Conv2DTranspose)
    decoded = layers.Conv2D(1, 3, activation="sigmoid", padding="same")(x)
    autoencoder = keras.Model(image, decoded)
    autoencoder.compile(keras.optimizers.Adam(learning_rate=0.001), loss="binary_crossentropy")
    return autoencoder


if __name__ == "__main__":
    from cae_cli import Diagnosis

    (x, y, _), (x_test, y_test) = images(*sys.argv[1:])
    callbacks = [Diagnosis(x, x_test)]
    model().fit(x, y, **FIT, validation_data=(x_test, y_test), callbacks=callbacks)
