"""Another change on top of a mutant: a fix, or a random one. Does it bring the error back?

The best published fault localisers are judged like this: a fault may have several true repairs
(Humbatova, Jahangirova, Tonella, EMSE 2025). So another cause than the accepted ones counts if its
first fix alone repairs the mutant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import keras
import numpy as np

from benchmarks.faults.outside.training import Training
from cae_cli.external import random_edits
from cae_cli.external import training as external
from cae_cli.external.edits import CATALOGUE, Change

SEEDS = 2  # trainings with the change, at most


@dataclass(frozen=True)
class RandomChange:
    """A change of `external.random_edits`: the one with this number, from 0, of those of a seed."""

    seed: int
    number: int


Edit = str | RandomChange  # the name of an edit in `CATALOGUE`, or a random change


class CannotApply(Exception):
    """The edit would change nothing, or not this training."""


def as_external(training: Training, steps: int | None = None) -> external.Training:
    """A training as the edits and the trials of `external` take it.

    Args:
        training: is not changed.
        steps: that it ran, if they are known.
    """
    is_same = training.y is training.x
    x, y, x_test, y_test = (
        np.asarray(part, np.float32)
        for part in (training.x, training.y, training.x_test, training.y_test)
    )
    return external.Training(
        model=training.model,
        x=x,
        y=None if is_same else y,
        held_out=x_test,
        held_out_y=None if is_same else y_test,
        optimizer=external.Optimizer.of(keras.optimizers.deserialize(training.optimizer)),
        loss=training.loss,
        batch_size=training.fit["batch_size"],
        steps=steps,
    )


def apply(training: Training, edit: Edit) -> None:
    """Edits a training. With batches of another size it runs as many steps, as near as epochs allow.

    Args:
        training: is changed.
        edit: what to change.

    Raises:
        CannotApply: as its name says.
    """
    given = as_external(training)
    change = _change(given, edit)
    if change is None:
        raise CannotApply(f"{edit} does not apply here")
    edited = change.training
    training.model, training.loss = edited.model, edited.loss
    training.optimizer = keras.optimizers.serialize(edited.optimizer.new())
    training.penalties *= edited.penalties
    steps, after = (math.ceil(len(given.x) / one.batch_size) for one in (given, edited))
    training.fit["epochs"] = max(1, round(training.fit["epochs"] * edited.longer * steps / after))
    training.fit["batch_size"] = edited.batch_size
    training.x = edited.x
    training.y = edited.x if edited.y is None else edited.y
    if edited.held_out is not given.held_out:  # in another range
        training.x_test = edited.held_out
        training.y_test = edited.held_out if edited.held_out_y is None else edited.held_out_y


def _change(given: external.Training, edit: Edit) -> Change | None:
    if isinstance(edit, str):
        return CATALOGUE[edit].change(given)
    drawn = islice(random_edits.changes(given, edit.seed), edit.number, None)
    return next((change for _, change in drawn), None)


def is_back(original: Sequence[float], errors: Sequence[float | None]) -> bool | None:
    """Whether the mean error of `SEEDS` trainings is within the spread of the original's.

    Args:
        original: errors of its trainings.
        errors: with the change, as many as there are so far; None: Keras could not train it.

    Returns:
        None as long as more trainings must decide. Errors are not negative, so one that is large enough
        decides alone.
    """
    known = [error for error in errors if error is not None]
    if len(known) < len(errors) or sum(known) / SEEDS > max(original):
        return False
    return True if len(known) >= SEEDS else None
