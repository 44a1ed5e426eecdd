"""Small trainings in plain Keras with the callback; tests change them in one place.

Image sets are (n, h, w, c) float32 in [0, 1]; those of real files skip the test where these are absent.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]

REAL = Path(__file__).parents[3] / "shared" / "data"  # beside the checkout


def _real(name: str) -> Path:
    if not (REAL / name).exists():
        pytest.skip(f"needs {name} beside the checkout")
    return REAL / name


@functools.cache
def _archive(name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with np.load(_real(name)) as file:
        return file["x_train"], file["y_train"]


def archived(name: str, count: int = 2048) -> tuple[Array, NDArray[np.uint8]]:
    """The first images and labels of fashion_mnist, mnist or omniglot, 28x28."""
    images, labels = _archive(f"{name}.npz")
    return images[:count, ..., None].astype(np.float32) / 255, labels[:count]


@functools.cache
def patches(side: int = 32, count: int = 1024, *, colour: bool = False) -> Array:
    """Photograph patches in random order, at a quarter of the resolution."""
    folder = _real("photos_colour" if colour else "photos")
    rng = np.random.default_rng(0)
    files, found = sorted(folder.iterdir()), []
    for number in range(count):
        photo = _photo(files[number % len(files)], colour)
        top, left = (int(rng.integers(n - side + 1)) for n in photo.shape[:2])
        found.append(photo[top : top + side, left : left + side])
    return np.stack([found[i] for i in rng.permutation(count)])


def apart(number: int, side: int = 32, count: int = 600) -> tuple[Array, Array]:
    """Grey patches of all photographs but one, and a tenth as many of that one."""
    rng = np.random.default_rng(0)
    files = sorted(_real("photos").iterdir())

    def of(path: Path) -> Array:
        photo = _photo(path, False)
        corners = rng.integers(0, np.array(photo.shape[:2]) - side + 1, (count // 10, 2))
        return np.stack([photo[top : top + side, left : left + side] for top, left in corners])

    held_out = of(files.pop(number))
    return rng.permutation(np.concatenate([of(path) for path in files]))[:count], held_out


@functools.cache
def _photo(path: Path, colour: bool) -> Array:
    with Image.open(path) as opened:
        small = opened.convert("RGB" if colour else "L").reduce(4)
    return np.asarray(small, np.float32).reshape(small.height, small.width, -1) / 255


def strided(
    shape: Sequence[int], *, activation: Any = "relu", output: Any = "sigmoid", code: int = 8
) -> keras.Model:
    """Two strides, a code of h/4 x w/4 x ``code``, two transposed convolutions."""
    return keras.Sequential([
        keras.Input(tuple(shape)),
        layers.Conv2D(16, 3, strides=2, padding="same", activation=activation),
        layers.Conv2D(code, 3, strides=2, padding="same", activation=activation, name="code"),
        layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation=activation),
        layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation=activation),
        layers.Conv2D(shape[-1], 3, padding="same", activation=output),
    ])  # fmt: skip


def pooled(
    shape: Sequence[int], *, activation: Any = "relu", output: Any = "sigmoid", code: int = 8
) -> keras.Model:
    """Two poolings, a code of h/4 x w/4 x ``code``, two upsamplings."""
    return keras.Sequential([
        keras.Input(tuple(shape)),
        layers.Conv2D(16, 3, padding="same", activation=activation),
        layers.MaxPooling2D(2),
        layers.Conv2D(code, 3, padding="same", activation=activation),
        layers.MaxPooling2D(2, name="code"),
        layers.Conv2D(code, 3, padding="same", activation=activation),
        layers.UpSampling2D(2),
        layers.Conv2D(16, 3, padding="same", activation=activation),
        layers.UpSampling2D(2),
        layers.Conv2D(shape[-1], 3, padding="same", activation=output),
    ])  # fmt: skip


def dense(
    shape: Sequence[int], *, activation: Any = "relu", output: Any = "sigmoid", code: int = 32
) -> keras.Model:
    """Two strides and a dense code."""
    h, w, c = shape
    return keras.Sequential([
        keras.Input(tuple(shape)),
        layers.Conv2D(16, 3, strides=2, padding="same", activation=activation),
        layers.Conv2D(32, 3, strides=2, padding="same", activation=activation),
        layers.Flatten(),
        layers.Dense(code, name="code"),
        layers.Dense(h // 4 * (w // 4) * 32, activation=activation),
        layers.Reshape((h // 4, w // 4, 32)),
        layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation=activation),
        layers.Conv2DTranspose(c, 3, strides=2, padding="same", activation=output),
    ])  # fmt: skip


class Sampling(keras.layers.Layer):
    """Draws a latent code around its mean; adds ``weight`` times its divergence from the prior."""

    def __init__(self, weight: float, **words: Any) -> None:
        super().__init__(**words)
        self.weight = weight
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs: Any) -> Any:
        mean, log_var = inputs
        exp = keras.ops.exp
        divergence = -0.5 * keras.ops.sum(1 + log_var - keras.ops.square(mean) - exp(log_var), axis=-1)
        self.add_loss(self.weight * keras.ops.mean(divergence))
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.seed_generator)
        return mean + exp(0.5 * log_var) * noise


def variational(
    shape: Sequence[int],
    *,
    weight: float,
    activation: Any = "relu",
    output: Any = "sigmoid",
    code: int = 8,
) -> keras.Model:
    """Two strides and a dense code that is drawn at random; ``weight`` is that of the divergence."""
    h, w, c = shape
    image = keras.Input(tuple(shape))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation=activation)(image)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation=activation)(x)
    x = layers.Flatten()(x)
    moments = layers.Dense(code, name="z_mean")(x), layers.Dense(code, name="z_log_var")(x)
    x = Sampling(weight, name="z")(moments)
    x = layers.Dense(h // 4 * (w // 4) * 16, activation=activation)(x)
    x = layers.Reshape((h // 4, w // 4, 16))(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation=activation)(x)
    x = layers.Conv2DTranspose(c, 3, strides=2, padding="same", activation=output)(x)
    return keras.Model(image, x)


def diagnosed(
    model: keras.Model,
    images: Array,
    *,
    targets: Array | None = None,
    held_out: Array | None = None,
    optimizer: Any = "adam",
    loss: Any = "mse",
    callback: dict[str, Any] | None = None,
    **fit: Any,
) -> Any:
    """Compiles and fits with the callback.

    Args:
        model: not compiled.
        images: of which the last tenth is held out unless ``held_out`` is given.
        targets: None: the images.
        held_out: images that are not trained on.
        optimizer, loss: for ``compile``.
        callback: arguments of the callback.
        fit: arguments of ``fit``.

    Returns:
        The `experiment.Outcome`: metrics and diagnosis.
    """
    from cae_cli import Diagnosis

    with tempfile.TemporaryDirectory() as folder:
        watch = Diagnosis(images, held_out, folder=folder, verbose=0, **(callback or {}))
        model.compile(optimizer, loss)
        split = {} if held_out is not None else {"validation_split": 0.1}
        targets = images if targets is None else targets
        with mock.patch("cae_cli.experiment.figures.draw"):  # nobody looks at them
            model.fit(images, targets, verbose=0, callbacks=[watch], **split, **fit)
        return watch.outcome


def first_cause(outcome: Any) -> str | None:
    """The code of the first cause; None for a training that is not blamed for anything."""
    causes = outcome.diagnosis.causes
    return causes[0].code if causes else None
