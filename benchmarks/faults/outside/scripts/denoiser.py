"""Noise is removed: noisy inputs and clean targets, on Fashion-MNIST."""

import sys

import keras
import numpy as np
from keras import layers

FIT = {"epochs": 8, "batch_size": 32}


def noisy(x, seed):
    """Gaussian noise with a standard deviation of 0.3, clipped to [0, 1]."""
    noise = np.random.default_rng(seed).normal(0, 0.3, x.shape)
    return np.clip(x + noise, 0, 1).astype("float32")


def images(folder="data"):
    """Clothes, (n, 28, 28, 1) in [0, 1]: inputs, targets, labels; then inputs and targets held out."""
    with np.load(f"{folder}/fashion_mnist.npz") as file:
        x, labels, x_test = (
            file["x_train"][3000:6000],
            file["y_train"][3000:6000],
            file["x_test"][400:800],
        )
    x, x_test = (part[..., None].astype("float32") / 255 for part in (x, x_test))
    return (noisy(x, 0), x, labels), (noisy(x_test, 1), x_test)


def model():
    """Two poolings, a latent code of 7x7x16."""
    autoencoder = keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(16, 3, activation="relu", padding="same"),
        layers.MaxPooling2D(2, padding="same"),
        layers.Conv2D(16, 3, activation="relu", padding="same"),
        layers.MaxPooling2D(2, padding="same"),
        layers.Conv2DTranspose(16, 3, strides=2, activation="relu", padding="same"),
        layers.Conv2DTranspose(16, 3, strides=2, activation="relu", padding="same"),
        layers.Conv2D(1, 3, activation="sigmoid", padding="same"),
    ])  # fmt: skip
    autoencoder.compile(optimizer="adam", loss="binary_crossentropy")
    return autoencoder


if __name__ == "__main__":
    from cae_cli import Diagnosis

    (x, y, _), (x_test, y_test) = images(*sys.argv[1:])
    callbacks = [Diagnosis(x, x_test)]
    model().fit(x, y, **FIT, validation_data=(x_test, y_test), callbacks=callbacks)
