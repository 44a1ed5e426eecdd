"""Trains mutants in processes of their own; what each training gave is a small file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.faults.outside import alternatives, operators, training
from benchmarks.faults.outside.draw import Mutant
from benchmarks.faults.outside.training import SCRIPTS, WORST
from cae_cli.errors import UserError
from cae_cli.runs.json_files import SCHEMA_VERSION as RUN_VERSION
from cae_cli.runs.json_files import plain, read_json, write_json
from cae_cli.system.files import make
from cae_cli.system.guarded import GuardedPath

PASSING = (OSError, MemoryError)  # of the machine, not of the training: may succeed the next time


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        mutant: what is trained.
        seed: of the weights, the order of the images, and what is random in the change.
        is_diagnosed: with the callback.
        epochs: at most; None for those of the script.
        edit: applied after the change; "" for none.
    """

    mutant: Mutant
    seed: int
    is_diagnosed: bool
    epochs: int | None = None
    edit: alternatives.Edit = ""

    @property
    def key(self) -> str:
        """The same for trainings that give the same, in 16 digits.

        It depends on the script, the change, the seed and the version of Keras; with the callback also
        on the version of the run folders.
        """
        script = (SCRIPTS / f"{self.mutant.base}.py").read_text(encoding="utf-8")
        version = RUN_VERSION if self.is_diagnosed else None
        values = [script, plain(self.mutant.change), self.seed, self.epochs, keras.__version__, version]
        values += [plain(self.edit)] if self.edit else []
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]

    def result(self, out: Path) -> Result | None:
        """What the training gave, None if it was not run."""
        with contextlib.suppress(UserError, TypeError):
            return Result(**read_json(GuardedPath.of(self._file(out))))
        return None

    def write(self, out: Path, result: Result) -> None:
        """Writes what the training gave; the file is complete at every moment."""
        write_json(GuardedPath.of(self._file(out)), plain(result))

    def _file(self, out: Path) -> Path:
        return out / "trainings" / f"{self.key}.json"


@dataclass(frozen=True)
class Result:
    """What a training gave.

    Attributes:
        error: of held-out images, as in `training.held_out_error`; None if Keras cannot train the model.
        seconds: it took, with the diagnosis if there is one.
        folder: of the run, relative to the folder of all; "" without a diagnosis.
        failed: why there is no error or no diagnosis.
    """

    error: float | None
    seconds: float
    folder: str = ""
    failed: str = ""


def run(job: Job, data: Path, out: Path) -> Result:
    """Trains, unless the result is there.

    Args:
        job: what to train.
        data: folder of the image files.
        out: folder for the results and the run folders.

    Raises:
        OSError: a file cannot be read or written.
        MemoryError: there is too little.
    """
    known = job.result(out)
    if known is not None:
        return known
    make(out / "trainings")
    began, result = time.monotonic(), _trained(job, data, out)
    result = replace(result, seconds=round(time.monotonic() - began, 1))
    job.write(out, result)
    return result


def _trained(job: Job, data: Path, out: Path) -> Result:
    failed, folder = "", ""
    if job.is_diagnosed:
        try:
            return _once(job, data, out)
        except PASSING:
            raise
        except Exception as error:  # the callback failed, or the training did
            failed = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    try:
        return Result(_once(_without(job), data, out).error, 0.0, folder, failed)
    except PASSING:
        raise
    except Exception as error:
        return Result(None, 0.0, failed=f"{type(error).__name__}: {error}".splitlines()[0][:300])


def _without(job: Job) -> Job:
    return replace(job, is_diagnosed=False)


def made(job: Job, data: Path) -> training.Training:
    """The training, before its first step. The random states of Keras and NumPy follow from its seed."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(job.seed)
    own = training.read(job.mutant.base, data)
    if job.mutant.change is not None:
        operators.apply(own, job.mutant.change, np.random.default_rng(job.seed))
    if job.epochs is not None:
        own.fit["epochs"] = min(own.fit["epochs"], job.epochs)
    if job.edit:
        alternatives.apply(own, job.edit)
    return own


def _once(job: Job, data: Path, out: Path) -> Result:
    own = made(job, data)
    callbacks: list[Any] = []
    if job.is_diagnosed:
        from cae_cli import Diagnosis

        parent = out / "runs" / job.key
        shutil.rmtree(parent, ignore_errors=True)  # of a training that was interrupted
        callbacks = [Diagnosis(own.x, own.x_test, folder=parent, verbose=0)]
    training.train(own, callbacks)
    folder = str(Path(callbacks[0].folder).relative_to(out)) if callbacks else ""
    error = training.held_out_error(own)
    assert 0 <= error <= WORST
    return Result(error, 0.0, folder)
