"""The command line as Python functions: the same configs, checks, messages and run folders.

Mistakes are exceptions with the words of the command line, never an exit. The process is somebody
else's: its loggers, signals, random states, file descriptors and the like are as before when a function
returns.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli import experiment
from cae_cli.commands import arguments
from cae_cli.config import compose, hydra_internals
from cae_cli.data import given
from cae_cli.diagnosis import Diagnosis
from cae_cli.errors import UserError, to_paste
from cae_cli.experiment import Outcome
from cae_cli.metrics.collect import Metrics
from cae_cli.options import key_of
from cae_cli.report import page, terminal
from cae_cli.runs import folder as folders
from cae_cli.runs import opening
from cae_cli.sweep import single
from cae_cli.sweep.job import Task

_one_at_a_time = threading.Lock()  # Hydra and random states are those of the whole process


class Run:
    """The folder of a run, read when it is asked.

    Args:
        folder: of a run.

    Attributes:
        path: the folder, absolute.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder).absolute()
        self._files = folders.Run(self.path)

    def __repr__(self) -> str:
        return f"<Run {self.path.name}: {self.verdict or self.status}>"

    def _repr_html_(self) -> str | None:
        """The page of the run, for a notebook; None where there is none."""
        return page.framed(self._files)

    @property
    def status(self) -> str:
        """``ok``, ``failed``, ``interrupted``, ``running``, or "" before it has begun."""
        return str(self._files.status().get("status", ""))

    @property
    def verdict(self) -> str:
        """The diagnosis in a sentence; "" without one."""
        return str(self.summary["verdict"]) if self._files.summary_file.exists() else ""

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json: verdict, metrics, findings with evidence and fixes.

        Raises:
            UserError: the run has no diagnosis, or the file is damaged.
        """
        return self._files.summary()

    @property
    def report(self) -> str:
        """The content of summary.txt: the diagnosis with every number, for people.

        Raises:
            UserError: as for `summary`.
        """
        return self._files.read_summary_text()

    @property
    def config(self) -> dict[str, Any]:
        """The config that the run was trained with, as plain containers.

        Raises:
            UserError: run.json is missing or damaged.
        """
        config: dict[str, Any] = self._files.setup()["config"]
        return config

    @property
    def diagnosis(self) -> Diagnosis:
        """Findings with evidence, confidence and fixes, by the rules of the run's config.

        Raises:
            UserError: the training has not ended, or files are damaged.
        """
        return self._outcome.diagnosis

    @property
    def metrics(self) -> Metrics:
        """What was measured, see `metrics.collect.Metrics`.

        Raises:
            UserError: as for `diagnosis`.
        """
        return self._outcome.metrics

    @cached_property
    def _outcome(self) -> Outcome:
        with opening.reading(self._files):
            return experiment.diagnose(self._files)

    @property
    def history(self) -> dict[str, NDArray[np.float64]]:
        """The columns of metrics.csv, (epochs,) each; row 0 is before the training.

        Raises:
            UserError: no epoch was trained, or the file is damaged.
        """
        return self._files.read_metrics()

    @property
    def figures(self) -> dict[str, Path]:
        """The pictures by name, such as ``curves`` and ``filters/encoder_1``."""
        paths = [p for p in self._files.root.walk() if p.suffix == ".png" and not p.is_folder()]
        names = {path.shown.relative_to(self.path).with_suffix(""): path.shown for path in paths}
        return {name.as_posix(): names[name] for name in sorted(names)}


def train(*words: str, data: Any = None, verbose: int = 1) -> Run:
    """Trains an autoencoder and diagnoses its filters, as ``cae train`` does.

    A training that diverges is diagnosed too: its run has the status ``failed``.

    Args:
        *words: overrides and flags as on the command line: "model=l2", "loss=ssim", "-cd", "my_configs".
        data: images in place of the words ``data=…``, see `data.given.overrides_of`: an array
            (n, h, w[, c]), a tuple (train, test), a `tf.data.Dataset`, a path, or a column of paths.
            Arrays are written once below runs/images, where the run can find them again.
        verbose: 0 prints nothing, 1 progress and the summary, 2 every number.

    Raises:
        UserError: a mistake in the words, the configs or the images.
        RunFailed: the run could not be finished.
        KeyboardInterrupt: by the user. The run can be resumed with ``cae resume``.
    """
    flags = _parsed(words, data, "cae_cli.train", verbose)
    if flags.multirun:
        raise UserError("cae_cli.train trains one run", hint='cae_cli.sweep("model=baseline,l2")')
    sources = arguments.sources(flags)
    task = Task(guest=True, silent=not verbose)

    def call(overrides: Sequence[str]) -> None:
        with compose.rephrased_errors(overrides, sources):
            hydra_internals.run(task, overrides, sources)

    with _alone():
        run, outcome = single.train(task, flags.overrides, sources, call)
    if verbose:
        terminal.show(outcome.summary(verbose=flags.verbose))
        terminal.results(run)
    return Run(run.folder)


def open_run(run: str | Path, runs: str | Path | None = None) -> Run:
    """Opens a run, as the commands that take a RUN do.

    Args:
        run: its folder, or a name: an id, a number, the beginning of a name, ``last``, ``last-1``.
        runs: the folder with the runs; None for runs/.

    Raises:
        UserError: there is no such run, or more than one.
    """
    return Run(opening.open_run(str(run), None if runs is None else Path(runs)).folder)


def _parsed(words: Sequence[str], data: Any, function: str, verbose: int) -> argparse.Namespace:
    """The words as flags and overrides, those of the images before the others.

    Raises:
        UserError: a word is no text, belongs to the command line only, or contradicts ``data``.
    """
    for word in words:
        if not isinstance(word, str):
            raise UserError(f"a word must be text, got {word!r}", hint=f'{function}("model=l2")')
    flags = arguments.parse("cae train", list(words))
    for name in ("help", "hydra_help", "cfg", "info", "fail_on", "resolve", "package"):
        if getattr(flags, name, None):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} belongs to the command line", hint=to_paste("cae", "train", *words))
    if data is not None:
        given_twice = [word for word in flags.overrides if key_of(word) in ("data", "data.path")]
        if given_twice:
            raise UserError(f"the images are given twice: data=… and {given_twice[0]!r}")
        flags.overrides = [*given.overrides_of(data), *flags.overrides]
    flags.verbose = flags.verbose or verbose > 1
    return flags


@contextmanager
def _alone() -> Iterator[None]:
    """In the block this thread alone trains, and Hydra keeps nothing afterwards."""
    with _one_at_a_time, hydra_internals.isolated():
        yield
