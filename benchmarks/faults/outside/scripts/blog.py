"""The convolutional autoencoder of the Keras blog, on MNIST."""

import sys

import keras
import numpy as np
from keras import layers

FIT = {"epochs": 8, "batch_size": 32}


def images(folder="data"):
    """Digits, (n, 28, 28, 1) in [0, 1]: inputs, targets, labels; then inputs and targets held out."""
    with np.load(f"{folder}/mnist.npz") as file:
        x, labels, x_test = file["x_train"][:3000], file["y_train"][:3000], file["x_test"][:400]
    x, x_test = (part[..., None].astype("float32") / 255 for part in (x, x_test))
    return (x, x, labels), (x_test, x_test)


def model():
    """Three poolings, a latent code of 4x4x8."""
    image = keras.Input((28, 28, 1))
    x = layers.Conv2D(16, 3, activation="relu", padding="same")(image)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(8, 3, activation="relu", padding="same")(x)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(8, 3, activation="relu", padding="same")(x)
    encoded = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2D(8, 3, activation="relu", padding="same")(encoded)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(8, 3, activation="relu", padding="same")(x)
    x = layers.UpSampling2D(2)(x)
    x = layers.Conv2D(16, 3, activation="relu")(x)
    x = layers.UpSampling2D(2)(x)
    decoded = layers.Conv2D(1, 3, activation="sigmoid", padding="same")(x)
    autoencoder = keras.Model(image, decoded)
    autoencoder.compile(optimizer="adam", loss="binary_crossentropy")
    return autoencoder


if __name__ == "__main__":
    from cae_cli import Diagnosis

    (x, y, _), (x_test, y_test) = images(*sys.argv[1:])
    callbacks = [Diagnosis(x, x_test)]
    model().fit(x, y, **FIT, validation_data=(x_test, y_test), callbacks=callbacks)
