"""A linear probe: labels, which training does not use, predicted from latent codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Labels = NDArray[np.int64]

RIDGE = 1.0  # penalty on squared weights, as in scikit-learn's RidgeClassifier


def probe_accuracy(
    train_latents: Array, train_labels: Labels | None, latents: Array, labels: Labels | None
) -> float:
    """Accuracy of a linear classifier of latent codes: ridge regression on standardised values.

    No criterion of health: a trained encoder is often no better than the same with random weights.

    Fitted on (m, ...) training codes and (m,) labels, scored on (n, ...) and (n,): 0 to 1; NaN without
    labels, with fewer than two classes, or if a latent code is not finite.
    """
    if train_labels is None or labels is None or not len(labels) or len(np.unique(train_labels)) < 2:
        return float("nan")
    if not (np.isfinite(train_latents).all() and np.isfinite(latents).all()):
        return float("nan")
    x, y = (c.reshape(len(c), -1).astype(np.float64) for c in (train_latents, latents))
    mean, std = x.mean(axis=0), x.std(axis=0)
    std[std <= 1e-6 * np.abs(mean)] = 1  # a constant: what spreads is rounding
    std[std == 0] = 1
    x, y = (x - mean) / std, (y - mean) / std
    classes = np.unique(train_labels)
    towards = 2.0 * (train_labels[:, None] == classes) - 1  # (m, classes), -1 and 1
    offset = towards.mean(axis=0)
    # The weights are a sum of the codes: as many equations as there are codes or values, if fewer.
    if x.shape[1] <= len(x):
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ (towards - offset))
    else:
        weights = x.T @ np.linalg.solve(x @ x.T + RIDGE * np.eye(len(x)), towards - offset)
    predicted = classes[np.argmax(y @ weights + offset, axis=1)]
    return float((predicted == labels).mean())
