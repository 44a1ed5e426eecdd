"""A draw: the mutants of one seed, as a file that can be made again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.random import Generator

from benchmarks.faults.outside import operators, training
from benchmarks.faults.outside.operators import OPERATORS, Change, Operator
from benchmarks.faults.outside.training import BASES, Training
from cae_cli.external.surgery import CannotRebuild
from cae_cli.runs.json_files import plain, read_json, write_json
from cae_cli.system.files import make, writing
from cae_cli.system.guarded import GuardedPath

MUTANTS = 108
TRIES = 8  # of an operator on a base, until Keras can build the mutant
DRAWS = Path(__file__).with_name("draws")


@dataclass(frozen=True)
class Mutant:
    """A base with a change; without one it is the original."""

    base: str
    change: Change | None = None

    @property
    def described(self) -> str:
        """The mutant in words."""
        return f"{self.base}: {self.change.described if self.change else 'as it is'}"


def draw(
    seed: int,
    data: Path,
    *,
    count: int = MUTANTS,
    bases: Sequence[str] = BASES,
    notify: Callable[[str], None] = lambda line: None,
) -> list[Mutant]:
    """Draws mutants. The same seed gives the same ones.

    Every operator comes once before any comes again, each on that of the bases it can change which has
    had the fewest mutants so far. A mutant that Keras cannot build, or whose output has another shape
    than its target, is drawn again.

    Args:
        seed: of the draw.
        data: folder of the image files.
        count: number of mutants.
        bases: names of scripts.
        notify: receives a line for an operator that fits no base.
    """
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    originals = {base: training.read(base, data) for base in bases}
    mutants: list[Mutant] = []
    names: list[str] = []
    while len(mutants) < count:
        names = names or [str(name) for name in rng.permutation(list(OPERATORS))]
        name = names.pop(0)
        mutant = _mutant(OPERATORS[name], originals, mutants, rng)
        if mutant is None:
            notify(f"! {name} can change no base")
        else:
            mutants.append(mutant)
    return mutants


def _mutant(
    operator: Operator, originals: dict[str, Training], mutants: Sequence[Mutant], rng: Generator
) -> Mutant | None:
    uses = Counter(mutant.base for mutant in mutants)
    for base in sorted(rng.permutation(list(originals)), key=lambda base: uses[base]):
        for _ in range(TRIES):
            change = operator.draw(originals[base], rng)
            if change is None:
                break
            mutant = Mutant(str(base), change)
            if mutant not in mutants and is_possible(originals[base], change):
                return mutant
    return None


def is_possible(original: Training, change: Change) -> bool:
    """Whether Keras can build a mutant whose output has the shape of its targets."""
    if change.layer is None:
        return True
    mutant = replace(original)
    try:
        operators.apply(mutant, change, np.random.default_rng(0))
    except CannotRebuild:
        return False
    return mutant.fits


def file_of(seed: int) -> Path:
    """The file of a recorded draw."""
    return DRAWS / f"seed_{seed}.json"


def write(path: Path, seed: int, mutants: Sequence[Mutant]) -> None:
    """Writes a draw.

    Raises:
        UserError: the file cannot be written.
    """
    make(path.parent)
    with writing(path):
        write_json(GuardedPath.of(path), {"seed": seed, "mutants": plain(list(mutants))})


def read(path: Path) -> list[Mutant]:
    """Reads a draw.

    Raises:
        UserError: the file cannot be read.
    """
    listed: list[dict[str, Any]] = read_json(GuardedPath.of(path))["mutants"]
    return [Mutant(one["base"], Change(**one["change"])) for one in listed]
