"""Residual blocks in encoder and decoder, on grey patches of photographs."""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers
from PIL import Image

FIT = {"epochs": 8, "batch_size": 32}


def patches(files, count, rng, size=32):
    """(count, size, size, 1) in [0, 1], and the number of the photograph of each."""
    photos = [np.asarray(Image.open(file).convert("L").reduce(2)) for file in files]
    which = rng.integers(len(photos), size=count)
    cut = []
    for photo in (photos[number] for number in which):
        top, left = (rng.integers(side - size + 1) for side in photo.shape[:2])
        cut.append(photo[top : top + size, left : left + size, None])
    return np.stack(cut).astype("float32") / 255, which


def images(folder="data"):
    """Patches of other photographs are held out: inputs, targets, photographs; inputs, targets."""
    files, rng = sorted(Path(folder, "photos").glob("*.png")), np.random.default_rng(0)
    x, photos = patches(files[:11], 2500, rng)
    x_test, _ = patches(files[11:], 300, rng)
    return (x, x, photos), (x_test, x_test)


def block(x, filters):
    """Two convolutions around which the image passes."""
    y = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    y = layers.Conv2D(filters, 3, padding="same")(y)
    return layers.Activation("relu")(layers.Add()([x, y]))


def model():
    """Two strides, a latent code of 8x8x16."""
    image = keras.Input((32, 32, 1))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    x = block(x, 16)
    encoded = layers.Conv2D(16, 3, strides=2, padding="same")(x)
    x = layers.UpSampling2D()(encoded)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = block(x, 16)
    x = layers.UpSampling2D()(x)
    decoded = layers.Conv2D(1, 3, padding="same")(x)
    autoencoder = keras.Model(image, decoded)
    autoencoder.compile(keras.optimizers.Adam(0.001), loss="mse")
    return autoencoder


if __name__ == "__main__":
    from cae_cli import Diagnosis

    (x, y, _), (x_test, y_test) = images(*sys.argv[1:])
    callbacks = [Diagnosis(x, x_test)]
    model().fit(x, y, **FIT, validation_data=(x_test, y_test), callbacks=callbacks)
