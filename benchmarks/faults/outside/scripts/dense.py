"""A dense latent code with dropout before it, on the digits of scikit-learn."""

import sys

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

FIT = {"epochs": 40, "batch_size": 32}
PATIENCE = 5


def images(folder="data"):
    """Digits, (n, 8, 8, 1) in [0, 1]: inputs, targets, labels; then inputs and targets held out."""
    digits = load_digits()
    x = (digits.images[..., None] / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    x, labels = x[order], digits.target[order]
    x, labels, x_test = x[:1500], labels[:1500], x[1500:]
    return (x, x, labels), (x_test, x_test)


def model():
    """A latent code of 16 values."""
    autoencoder = keras.Sequential([
        keras.Input((8, 8, 1)),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dropout(0.1),
        layers.Dense(16, name="code"),
        layers.Dense(4 * 4 * 32, activation="relu"),
        layers.Reshape((4, 4, 32)),
        layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu"),
        layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
    ])  # fmt: skip
    autoencoder.compile(optimizer="adam", loss="mse")
    return autoencoder


if __name__ == "__main__":
    from cae_cli import Diagnosis

    (x, y, _), (x_test, y_test) = images(*sys.argv[1:])
    callbacks = [Diagnosis(x, x_test), keras.callbacks.EarlyStopping(patience=PATIENCE)]
    model().fit(x, y, **FIT, validation_data=(x_test, y_test), callbacks=callbacks)
