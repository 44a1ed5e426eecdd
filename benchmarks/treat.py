"""`cae_cli.treat` on models of different build, each with a learning rate that is far too low.

    python -m benchmarks.treat --budget 60s

Prints a table for docs/treat.md. The images are generated, so nothing is needed beside this repository.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers as L

import cae_cli
from cae_cli import data
from cae_cli.config import compose
from cae_cli.report.sections import markdown

EPOCHS = 3


@keras.saving.register_keras_serializable("benchmarks")
class Sampling(L.Layer):
    """Draws a latent code and adds the divergence of its distribution to the loss."""

    def call(self, inputs):
        mean, log_variance = inputs
        divergence = keras.ops.square(mean) + keras.ops.exp(log_variance) - 1 - log_variance
        self.add_loss(1e-4 * keras.ops.mean(keras.ops.sum(divergence, axis=-1)))
        noise = keras.random.normal(keras.ops.shape(mean))
        return mean + keras.ops.exp(0.5 * log_variance) * noise


@keras.saving.register_keras_serializable("benchmarks")
class Subclassed(keras.Model):
    """Encoder and decoder as attributes, with a config."""

    def __init__(self, filters=16, **words):
        super().__init__(**words)
        self.filters = filters
        self.encoder = keras.Sequential(down(filters))
        self.decoder = keras.Sequential(up(filters, 1))

    def call(self, images):
        return self.decoder(self.encoder(images))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable("benchmarks")
class OwnStep(Subclassed):
    """The same with a training step of its own."""

    def train_step(self, data):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(self(data, training=True) - data))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


def down(filters, activation="relu"):
    same = {"padding": "same", "activation": activation}
    return [L.Conv2D(filters, 3, strides=2, **same), L.Conv2D(8, 3, strides=2, **same)]


def up(filters, channels):
    same = {"padding": "same", "activation": "relu"}
    return [
        L.Conv2DTranspose(filters, 3, strides=2, **same),
        L.Conv2DTranspose(filters, 3, strides=2, **same),
        L.Conv2D(channels, 3, padding="same", activation="sigmoid"),
    ]


def sequential(side=28, channels=1):
    return keras.Sequential([keras.Input((side, side, channels)), *down(16), *up(16, channels)])


def pooled():
    image = keras.Input((28, 28, 1))
    x = L.MaxPooling2D()(L.Conv2D(16, 3, activation="relu", padding="same")(image))
    x = L.MaxPooling2D()(L.Conv2D(8, 3, activation="relu", padding="same")(x))
    x = L.UpSampling2D()(L.Conv2D(8, 3, activation="relu", padding="same")(x))
    x = L.UpSampling2D()(L.Conv2D(16, 3, activation="relu", padding="same")(x))
    return keras.Model(image, L.Conv2D(1, 3, activation="sigmoid", padding="same")(x))


def nested():
    encoder = keras.Sequential([keras.Input((28, 28, 1)), *down(16)], name="encoder")
    decoder = keras.Sequential([keras.Input((7, 7, 8)), *up(16, 1)], name="decoder")
    image = keras.Input((28, 28, 1))
    return keras.Model(image, decoder(encoder(image)))


def dense():
    middle = [
        L.Flatten(),
        L.Dense(32, name="code"),
        L.Dense(392, activation="relu"),
        L.Reshape((7, 7, 8)),
    ]
    return keras.Sequential([keras.Input((28, 28, 1)), *down(16), *middle, *up(16, 1)])


def normalised():
    image = x = keras.Input((28, 28, 1))
    for filters in (16, 8):
        x = L.LeakyReLU()(L.BatchNormalization()(L.Conv2D(filters, 3, strides=2, padding="same")(x)))
    for filters in (8, 16):
        x = L.Conv2DTranspose(filters, 3, strides=2, padding="same")(x)
        x = L.LeakyReLU()(L.BatchNormalization()(x))
    return keras.Model(image, L.Conv2D(1, 3, padding="same", activation="sigmoid")(x))


def variational():
    image = x = keras.Input((28, 28, 1))
    for layer in (*down(16), L.Flatten()):
        x = layer(x)
    x = Sampling()([L.Dense(16, name="mean")(x), L.Dense(16, name="log_variance")(x)])
    for layer in (L.Dense(392, activation="relu"), L.Reshape((7, 7, 8)), *up(16, 1)):
        x = layer(x)
    return keras.Model(image, x)


def with_skip():
    image = keras.Input((28, 28, 1))
    first = L.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    x = L.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="code")(first)
    x = L.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(x)
    x = L.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(
        L.Concatenate()([x, first])
    )
    return keras.Model(image, L.Conv2D(1, 3, padding="same", activation="sigmoid")(x))


BUILDS = {
    "sequential, transposed": sequential,
    "functional, pooled": pooled,
    "nested": nested,
    "subclassed, with a config": Subclassed,
    "subclassed, with a training step": OwnStep,
    "dense code": dense,
    "batch normalisation, LeakyReLU": normalised,
    "variational": variational,
    "skip connection": with_skip,
    "colour": lambda: sequential(32, 3),
    "64 pixels": lambda: sequential(64),
    "denoiser": sequential,
    "saved .h5, opened again": pooled,
}


def images(side, channels):
    """(2000, side, side, channels) letters and digits, coloured where there are three channels."""
    options = compose.checked(["data=glyphs", "data.train=2000"])[1].data
    grey = data.as_float(data.load(options).train)
    rows = np.arange(side) * grey.shape[1] // side
    grey = grey[:, rows][:, :, rows]
    if channels == 1:
        return grey
    tint = np.random.default_rng(0).uniform(0.3, 1, (len(grey), 1, 1, channels))
    return (grey * tint).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--only", default="", help="a part of the name of a build")
    arguments = parser.parse_args()
    rows = []
    for name, build in BUILDS.items():
        if arguments.only not in name:
            continue
        keras.utils.set_random_seed(0)
        model = build()
        channels, side = (3 if name == "colour" else 1), {"colour": 32, "64 pixels": 64}.get(name, 28)
        clean = images(side, channels)
        x, y = clean, None
        if name == "denoiser":
            noise = np.random.default_rng(0).normal(0, 0.2, clean.shape)
            x, y = (clean + noise).astype(np.float32), clean
        model.compile(keras.optimizers.SGD(1e-4), **({} if build is OwnStep else {"loss": "mse"}))
        if build is OwnStep:
            model.fit(x, epochs=EPOCHS, verbose=0)
        else:
            model.fit(x, x if y is None else y, epochs=EPOCHS, verbose=0)
        began, processor = time.monotonic(), time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            if name.startswith("saved"):
                model.save(Path(folder) / "model.h5")
                # Keras does not read what it writes of a loss named "mse" into such a file.
                model = keras.models.load_model(Path(folder) / "model.h5", compile=False)
                model.compile(keras.optimizers.SGD(1e-4), "mse")
            steps = EPOCHS * len(x) // 32
            found = cae_cli.treat(
                model, x, y, budget=arguments.budget, folder=folder, verbose=0, steps=steps
            ).trials
        best, control = found.best, found.best_control
        rows.append([
            name, f"{found.unchanged.mean:.2f}", " or ".join(t.name for t in found.alike) or "–",
            f"{best.mean:.2f}" if best else "", f"{control.mean:.2f}" if control else "",
            f"{len(found.edits)} + {len(found.controls)}", f"{time.monotonic() - began:.0f}",
            f"{time.process_time() - processor:.0f}",
        ])  # fmt: skip
        print("\t".join(rows[-1]), found.verdict(), flush=True)
    titles = (
        "model", "unchanged", "what mends it", "explained", "best random change", "edits + controls",
        "seconds", "CPU seconds",
    )  # fmt: skip
    print(markdown(titles, rows))


if __name__ == "__main__":
    main()
