"""Another cause than the accepted ones counts if its first fix alone repairs the mutant.

The best published fault localisers are judged like this: a fault may have several true repairs
(Humbatova, Jahangirova, Tonella, EMSE 2025). The fix is an edit of `external.edits`.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from benchmarks.faults.outside.training import Training
from cae_cli.external import training as external
from cae_cli.external.edits import CATALOGUE

SEEDS = 2  # trainings with the fix


class CannotApply(Exception):
    """The edit would change nothing, or not this training."""


def apply(training: Training, edit: str) -> None:
    """Edits a training.

    Args:
        training: is changed.
        edit: a name in `CATALOGUE`.

    Raises:
        CannotApply: as its name says.
    """
    is_same = training.y is training.x
    given = external.Training(
        model=training.model,
        x=training.x,
        y=None if is_same else training.y,
        held_out=training.x_test,
        held_out_y=None if is_same else training.y_test,
        optimizer=external.Optimizer.of(keras.optimizers.deserialize(training.optimizer)),
        loss=training.loss,
        batch_size=training.fit["batch_size"],
    )
    change = CATALOGUE[edit].change(given)
    if change is None or change.training.penalties != given.penalties:
        raise CannotApply(f"{edit} does not apply here")
    edited = change.training
    training.model, training.loss = edited.model, edited.loss
    training.optimizer = keras.optimizers.serialize(edited.optimizer.new())
    training.fit["epochs"] = round(training.fit["epochs"] * edited.longer)
    training.x = edited.x
    training.y = edited.x if edited.y is None else edited.y
    if edited.held_out is not given.held_out:  # in another range
        training.x_test = edited.held_out
        training.y_test = edited.held_out if edited.held_out_y is None else edited.held_out_y


def is_back(original: Sequence[float], fixed: Sequence[float]) -> bool:
    """Whether errors with the fix are within the spread of the original's.

    Args:
        original: errors of its trainings.
        fixed: errors with the fix.
    """
    return float(np.mean(fixed)) <= max(original)
