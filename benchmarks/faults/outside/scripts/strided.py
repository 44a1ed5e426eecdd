"""Strides instead of pooling and transposed convolutions instead of upsampling, on Fashion-MNIST."""

import sys

import keras
import numpy as np
from keras import layers

FIT = {"epochs": 8, "batch_size": 32}


def images(folder="data"):
    """Clothes, (n, 28, 28, 1) in [0, 1]: inputs, targets, labels; then inputs and targets held out."""
    with np.load(f"{folder}/fashion_mnist.npz") as file:
        x, labels, x_test = file["x_train"][:3000], file["y_train"][:3000], file["x_test"][:400]
    x, x_test = (part[..., None].astype("float32") / 255 for part in (x, x_test))
    return (x, x, labels), (x_test, x_test)


def model():
    """Two strides, a latent code of 7x7x8."""
    autoencoder = keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(16, 3, strides=2, activation="relu", padding="same"),
        layers.Conv2D(8, 3, strides=2, activation="relu", padding="same"),
        layers.Conv2DTranspose(8, 3, strides=2, activation="relu", padding="same"),
        layers.Conv2DTranspose(16, 3, strides=2, activation="relu", padding="same"),
        layers.Conv2D(1, 3, activation="sigmoid", padding="same"),
    ])  # fmt: skip
    autoencoder.compile(optimizer="adam", loss="mse")
    return autoencoder


if __name__ == "__main__":
    from cae_cli import Diagnosis

    (x, y, _), (x_test, y_test) = images(*sys.argv[1:])
    callbacks = [Diagnosis(x, x_test)]
    model().fit(x, y, **FIT, validation_data=(x_test, y_test), callbacks=callbacks)
