"""Trials on trainings with a known fault, and on healthy ones: what each explains, and what mends it.

    python -m benchmarks.treat_faults --data FOLDER --budget 150

FOLDER holds mnist.npz, fashion_mnist.npz and omniglot.npz and a folder photos_colour of pictures. Each
training is run for 1,024 steps first, as the model that is given; the trials follow.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers as L
from PIL import Image

from cae_cli.external import trials
from cae_cli.external.training import of_model

STEPS = 1024
COUNT = 4096  # images
SIDE = 32  # pixels of a colour image


def grey(path):
    """(n, h, w, 1) images in [0, 1] of the first array of an npz file."""
    arrays = np.load(path)
    x = arrays["x_train" if "x_train" in arrays else arrays.files[0]][:COUNT].astype(np.float32)
    return (x if x.ndim == 4 else x[..., None]) / max(1, x.max())


def colour(folder):
    """(n, 32, 32, 3) pieces of photographs at a quarter of their size."""
    rng, pieces = np.random.default_rng(0), []
    for path in sorted(folder.rglob("*.*"))[:60]:
        with Image.open(path) as photo:
            small = np.asarray(photo.convert("RGB").reduce(4), np.float32) / 255
        for _ in range(70):
            row, column = (rng.integers(0, n - SIDE + 1) for n in small.shape[:2])
            pieces.append(small[row : row + SIDE, column : column + SIDE])
    return np.stack(pieces)


def network(act="relu", out="sigmoid", dropout=0.0, penalty=None, shape=(28, 28, 1), **words):
    """16-8-8-16 filters, pooled twice."""
    layers = [keras.Input(shape)]

    def convolution(filters, **more):
        layers.append(L.Conv2D(filters, 3, padding="same", activation=act, **words, **more))
        if dropout:
            layers.append(L.Dropout(dropout))

    convolution(16)
    layers.append(L.MaxPooling2D())
    convolution(8)
    layers.append(L.MaxPooling2D())
    convolution(8, name="code", activity_regularizer=penalty)
    layers.append(L.UpSampling2D())
    convolution(16)
    layers.append(L.UpSampling2D())
    layers.append(L.Conv2D(shape[2], 3, padding="same", activation=out, **words))
    return keras.Sequential(layers)


def dense():
    """A latent code of 32 values."""
    same = {"strides": 2, "padding": "same"}
    return keras.Sequential([
        keras.Input((28, 28, 1)), L.Conv2D(16, 3, activation="relu", **same),
        L.Conv2D(8, 3, activation="relu", **same), L.Flatten(), L.Dense(32, name="code"),
        L.Dense(392, activation="relu"), L.Reshape((7, 7, 8)),
        L.Conv2DTranspose(16, 3, activation="relu", **same),
        L.Conv2DTranspose(1, 3, activation="sigmoid", **same),
    ])  # fmt: skip


def trainings(folder):
    """(name, model, optimizer, loss, images, targets, explained variance of a linear decoder)."""
    mnist, fashion, omniglot = (
        grey(folder / f"{name}.npz") for name in ("mnist", "fashion_mnist", "omniglot")
    )
    photos = colour(folder / "photos_colour")
    noise = np.random.default_rng(0).normal(0, 1, fashion.shape)
    noisy = np.clip(fashion + noise, 0, 1).astype(np.float32)
    fast = keras.optimizers.SGD(5.0, momentum=0.9)
    rgb, l1 = (SIDE, SIDE, 3), keras.regularizers.L1(0.1)
    yield "L1 0.1 on the code", network(penalty=l1), "adam", "mse", fashion, None, 0.788
    yield "dropout 0.5 after every layer", network(dropout=0.5), "adam", "mse", fashion, None, 0.788
    yield "sigmoid hidden layers", network("sigmoid"), "adam", "mse", fashion, None, 0.788
    yield "SGD(5, momentum 0.9), colour", network(shape=rgb), fast, "mse", photos, None, 0.75
    yield "float16 layers", network(dtype="float16"), "adam", "mse", fashion, None, 0.788
    yield "noisy targets", network(), "adam", "mse", fashion, noisy, 0.788
    yield "MNIST, squared error", network(), "adam", "mse", mnist, None, 0.608
    yield "faint strokes, dense code", dense(), "adam", "mse", 0.3 * omniglot, None, 0.351
    yield "healthy: Fashion-MNIST", network(), "adam", "mse", fashion, None, 0.788
    yield "healthy: MNIST", network(), "adam", "binary_crossentropy", mnist, None, 0.608
    yield "healthy: colour", network(out="linear", shape=rgb), "adam", "mse", photos, None, 0.75


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=150)
    parser.add_argument("--only", default="", help="a part of the name of a training")
    arguments = parser.parse_args()
    for name, model, optimizer, loss, x, y, linear in trainings(arguments.data):
        if arguments.only not in name:
            continue
        model.compile(optimizer, loss)
        training = of_model(model, x, y, steps=STEPS)
        given = training.explained(training.run(STEPS, 7))
        began = time.monotonic()
        found = trials.tried(training, budget=arguments.budget, linear=linear, given=given).trials
        best = sorted(found.edits, key=lambda t: -t.mean)[:3]
        print(f"{name}: given {given:.2f}, unchanged {found.unchanged.mean:.2f}")
        print(f"  {found.verdict()}, {time.monotonic() - began:.0f} s")
        for kind, some in (
            ("edits", best),
            ("random", sorted(found.controls, key=lambda t: -t.mean)[:1]),
        ):
            print(f"  {kind}: {', '.join(f'{t.name} {t.mean:.2f}' for t in some)}", flush=True)


if __name__ == "__main__":
    main()
