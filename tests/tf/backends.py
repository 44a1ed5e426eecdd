"""The same small training whatever Keras computes with, for tests that compare.

KERAS_BACKEND=jax python -m tests.tf.backends FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from cae_cli.external.keras_callback import Diagnosis
from cae_cli.introspection.loss_minimum import keras_loss, loss_minimum
from cae_cli.introspection.training_mode import Penalties, data_loss
from cae_cli.training.recorder import kernels

rng = np.random.default_rng(0)
COARSE = rng.random((320, 4, 4, 1), np.float32)
IMAGES = np.asarray(COARSE.repeat(4, axis=1).repeat(4, axis=2), np.float32)  # (n, 16, 16, 1) of squares


def network(dropout: float = 0.1) -> Any:
    """A model with everything that differs in training, and always the same weights."""
    decay, sparsity = keras.regularizers.L2(0.01), keras.regularizers.L1(0.01)
    model = keras.Sequential([
        layers.Input((16, 16, 1)),
        layers.Conv2D(6, 3, 2, "same", activation="relu", kernel_regularizer=decay),
        layers.BatchNormalization(),
        layers.Conv2D(4, 3, 2, "same", activation="relu", activity_regularizer=sparsity),
        layers.Dropout(dropout, seed=1),
        layers.Conv2DTranspose(6, 3, 2, "same", activation="relu"),
        layers.Conv2DTranspose(1, 3, 2, "same", activation="sigmoid"),
    ])  # fmt: skip
    drawn = np.random.default_rng(1)
    for variable in model.trainable_variables:
        if len(variable.shape) == 4:
            variable.assign(drawn.normal(0, 0.3, variable.shape))
    model.compile(keras.optimizers.Adam(0.003), "mae")
    return model


def trained(callbacks: list[Any], *, shuffled: bool = False) -> Any:
    """After a few epochs, which draw nothing at random but dropout."""
    model = network()
    targets = np.random.default_rng(2).permutation(IMAGES) if shuffled else IMAGES
    model.fit(IMAGES, targets, epochs=16, batch_size=32, shuffle=False, validation_split=0.1,
              verbose=0, callbacks=callbacks)  # fmt: skip
    return model


def measured() -> dict[str, Any]:
    """What gradients and losses are, before anything is trained."""
    model = network(dropout=0)  # each backend draws it in its own way
    before = model.get_weights()
    penalties = Penalties(model, kernels(model))
    penalty, pulls = penalties(IMAGES[:32], IMAGES[:32])
    known = keras_loss("mae")
    assert penalties.known and known is not None
    least = loss_minimum(known, IMAGES[:32], IMAGES[:32] ** 2)
    assert all(map(np.array_equal, before, model.get_weights()))
    return {
        "penalty": penalty,
        "pulls": pulls.tolist(),
        "data_loss": data_loss(model, IMAGES[:48], IMAGES[:48], 32),
        "elsewhere": least.elsewhere,
    }


def diagnosed(folder: Path) -> dict[str, Any]:
    """What is said of a training and of one with shuffled targets, and whether that disturbed them."""
    plain = trained([]).get_weights()
    watch = Diagnosis(folder=folder, verbose=0)
    watched = trained([watch]).get_weights()
    with np.load(watch.folder / "arrays.npz") as arrays:
        early = arrays["dynamics/early_losses"].tolist()
        updates = arrays["dynamics/early_updates"].tolist()
        moves = [arrays[key].tolist() for key in sorted(arrays.files) if key.startswith("map_moves/")]
    shuffled = Diagnosis(IMAGES, folder=folder, verbose=0)
    trained([shuffled], shuffled=True)
    return {
        "undisturbed": all(map(np.array_equal, plain, watched)),
        "early_losses": early,
        "early_updates": updates,
        "moves": moves,
        "skipped": sorted(one["code"] for one in watch.report["diagnosis"]["skipped"]),
        "shuffled": [finding["code"] for finding in shuffled.report["diagnosis"]["findings"]],
    }


if __name__ == "__main__":
    print(json.dumps({"backend": keras.backend.backend(), **measured(), **diagnosed(Path(sys.argv[1]))}))
