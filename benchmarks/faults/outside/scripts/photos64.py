"""Grey patches of 64x64 in [-1, 1] with a tanh output and early stopping, from photographs."""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers
from PIL import Image

FIT = {"epochs": 10, "batch_size": 16}
PATIENCE = 3


def patches(files, count, rng, size=64):
    """(count, size, size, 1) in [-1, 1], and the number of the photograph of each."""
    photos = [np.asarray(Image.open(file).convert("L").reduce(2)) for file in files]
    which = rng.integers(len(photos), size=count)
    cut = []
    for photo in (photos[number] for number in which):
        top, left = (rng.integers(side - size + 1) for side in photo.shape[:2])
        cut.append(photo[top : top + size, left : left + size, None])
    return np.stack(cut).astype("float32") / 127.5 - 1, which


def images(folder="data"):
    """Patches of other photographs are held out: inputs, targets, photographs; inputs, targets."""
    files, rng = sorted(Path(folder, "photos").glob("*.png")), np.random.default_rng(0)
    x, photos = patches(files[:11], 1200, rng)
    x_test, _ = patches(files[11:], 150, rng)
    return (x, x, photos), (x_test, x_test)


def model():
    """Three strides, a latent code of 8x8x16."""
    autoencoder = keras.Sequential([
        keras.Input((64, 64, 1)),
        layers.Conv2D(8, 3, strides=2, padding="same", activation="elu"),
        layers.Conv2D(16, 3, strides=2, padding="same", activation="elu"),
        layers.Conv2D(16, 3, strides=2, padding="same", activation="elu"),
        layers.Conv2DTranspose(16, 4, strides=2, padding="same", activation="elu"),
        layers.Conv2DTranspose(16, 4, strides=2, padding="same", activation="elu"),
        layers.Conv2DTranspose(8, 4, strides=2, padding="same", activation="elu"),
        layers.Conv2D(1, 3, padding="same", activation="tanh"),
    ])  # fmt: skip
    autoencoder.compile(keras.optimizers.Adam(0.001), loss="mae")
    return autoencoder


if __name__ == "__main__":
    from cae_cli import Diagnosis

    (x, y, _), (x_test, y_test) = images(*sys.argv[1:])
    callbacks = [Diagnosis(x, x_test), keras.callbacks.EarlyStopping(patience=PATIENCE)]
    model().fit(x, y, **FIT, validation_data=(x_test, y_test), callbacks=callbacks)
