"""`cae_cli.treat` on trainings with a known fault, and on healthy ones: what mends each.

    python -m benchmarks.treat_faults --data FOLDER --budget 90s

Prints a table for docs/treat.md. FOLDER holds mnist.npz, fashion_mnist.npz and omniglot.npz and a folder
photos_colour of pictures. Each model is fitted first, about 1,000 steps; then it is treated.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers as L
from PIL import Image

import cae_cli
from cae_cli.report.sections import markdown

EPOCHS = 9  # of 115 steps
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
    """(name, model, optimizer, loss, images, targets)."""
    mnist, fashion, omniglot = (
        grey(folder / f"{name}.npz") for name in ("mnist", "fashion_mnist", "omniglot")
    )
    photos = colour(folder / "photos_colour")
    noise = np.random.default_rng(0).normal(0, 1, fashion.shape)
    noisy = np.clip(fashion + noise, 0, 1).astype(np.float32)
    fast = keras.optimizers.SGD(5.0, momentum=0.9)
    rgb, l1 = (SIDE, SIDE, 3), keras.regularizers.L1(0.1)
    yield "L1 0.1 on the code", network(penalty=l1), "adam", "mse", fashion, None
    yield "dropout 0.5 after every layer", network(dropout=0.5), "adam", "mse", fashion, None
    yield "sigmoid hidden layers", network("sigmoid"), "adam", "mse", fashion, None
    yield "SGD(5, momentum 0.9), colour", network(shape=rgb), fast, "mse", photos, None
    yield "float16 layers", network(dtype="float16"), "adam", "mse", fashion, None
    yield "noisy targets", network(), "adam", "mse", fashion, noisy
    yield "MNIST, squared error", network(), "adam", "mse", mnist, None
    yield "faint strokes, dense code", dense(), "adam", "mse", 0.3 * omniglot, None
    yield "healthy: Fashion-MNIST", network(), "adam", "mse", fashion, None
    yield "healthy: MNIST", network(), "adam", "binary_crossentropy", mnist, None
    yield "healthy: colour", network(out="linear", shape=rgb), "adam", "mse", photos, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--budget", default="90s")
    parser.add_argument("--only", default="", help="a part of the name of a training")
    arguments = parser.parse_args()
    rows = []
    keras.utils.set_random_seed(7)
    for name, model, optimizer, loss, x, y in trainings(arguments.data):
        if arguments.only not in name:
            continue
        model.compile(optimizer, loss)
        last = len(x) // 10  # held out by `treat`
        model.fit(x[:-last], (x if y is None else y)[:-last], epochs=EPOCHS, verbose=0)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = cae_cli.treat(model, x, y, budget=arguments.budget, folder=folder, verbose=0)
        trials, causes = found.trials, found.report["diagnosis"]["findings"]
        best = sorted(trials.edits, key=lambda trial: -trial.mean)[:2]
        control = trials.best_control
        rows.append(
            (
                name,
                causes[0]["code"] if causes else "none",
                f"{trials.given:.2f}",
                f"{trials.unchanged.mean:.2f}",
                *(f"{trial.name} {trial.mean:.2f}" for trial in best),
                "–" if control is None else f"{control.mean:.2f}",
                trials.verdict(),
                f"{len(trials.edits)} + {len(trials.controls)}",
                f"{time.monotonic() - began:.0f}",
            )
        )
        print(" | ".join(rows[-1]), flush=True)
        keras.utils.set_random_seed(7)  # the next model is built in the head of the loop
    titles = ("training", "first finding", "given", "unchanged", "best edit", "next best",
              "best random change", "verdict", "edits + random changes", "seconds")  # fmt: skip
    print(markdown(titles, rows))


if __name__ == "__main__":
    main()
