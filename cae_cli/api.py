"""The command line as Python functions: the same configs, checks, messages and run folders.

Mistakes are exceptions with the words of the command line, never an exit. The process is somebody
else's: its loggers, signals, random states, file descriptors and the like are as before when a function
returns.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cae_cli.data as sources_of_images
from cae_cli import experiment
from cae_cli import sweep as sweeps
from cae_cli.commands import arguments, models
from cae_cli.config import compose, hydra_internals
from cae_cli.data import Images, Pool, given
from cae_cli.data.pixels import check
from cae_cli.diagnosis import RULES, Diagnosis
from cae_cli.errors import UserError, to_paste
from cae_cli.experiment import Outcome
from cae_cli.metrics.collect import Metrics
from cae_cli.options import key_of
from cae_cli.report import page, terminal
from cae_cli.runs import folder as folders
from cae_cli.runs import opening
from cae_cli.runs.sweep_folder import SweepFolder
from cae_cli.sweep import process, single
from cae_cli.sweep.job import Task
from cae_cli.sweep.leaderboard import Leaderboard, ranking_metric_of
from cae_cli.system.files import typed
from cae_cli.training import backend

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
        return page.framed(self._files.page)

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

    @property
    def model(self) -> Any:
        """The Keras model with the weights that were measured; takes and makes images in [0, 1].

        Raises:
            UserError: the run has no network.
        """
        return self._network.autoencoder.model

    def latent(self, images: Any) -> NDArray[np.float32]:
        """Latent codes (n, h, w, channels), or (n, values), of images.

        Args:
            images: (n, h, w, c), or (n, h, w) of grey ones; values as the training images had them.
                They are scaled as those were.

        Raises:
            UserError: the images do not fit, or the run has no network.
        """
        network = self._network
        with _tensorflow():
            return np.asarray(network.encode(network.prepare(np.asarray(images))), np.float32)

    def reconstruct(self, images: Any) -> NDArray[np.float32]:
        """What the network makes of images, (n, h, w, c) in [0, 1]; arguments as for `latent`."""
        network = self._network
        with _tensorflow():
            return np.asarray(network.reconstruct(network.prepare(np.asarray(images))), np.float32)

    @cached_property
    def _network(self) -> Any:
        from cae_cli.features import open_network

        with _tensorflow():
            return open_network(self._files)


class Sweep:
    """The folder of a sweep, read when it is asked.

    Args:
        folder: of a sweep.

    Attributes:
        path: the folder, absolute.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder).absolute()

    def __repr__(self) -> str:
        return f"<Sweep {self.path.name}: {len(self._read.jobs)} jobs>"

    def _repr_html_(self) -> str | None:
        """The page of the sweep, for a notebook; None where there is none."""
        return page.framed(SweepFolder(self.path).page)

    @property
    def _read(self) -> sweeps.Sweep:
        return sweeps.read(self.path)

    @property
    def runs(self) -> list[Run]:
        """The runs of the jobs that have begun, in the order of the grid."""
        return [Run(job.folder.shown) for job in self._read.jobs if job.folder.exists()]

    @property
    def leaderboard(self) -> list[dict[str, Any]]:
        """The configurations, the best first: a row for `pandas.DataFrame` each.

        A row has ``rank`` (None without a finished job), the swept keys without seeds, the mean of each
        metric over the seeds and half of its 95 % interval as ``<metric>_margin`` (NaN for one seed),
        ``seeds``, the most common ``finding``, and the ``runs`` by name.
        """
        found = self._read
        board = Leaderboard(found.jobs, found.swept, ranking_metric_of(found.objective)[0])
        return [
            {
                "rank": c.standing.rank,
                **c.values,
                **{name: interval.value for name, interval in c.figures.items()},
                **{f"{name}_margin": interval.margin for name, interval in c.figures.items()},
                "seeds": c.standing.value.n,
                "finding": c.finding,
                "runs": [job.name for job in c.jobs],
            }
            for c in board.configurations
        ]


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
    task = Task(guest=True, silent=not verbose)
    with _alone():
        flags = _parsed(words, data, "cae_cli.train", verbose)
        if flags.multirun:
            raise UserError(
                "cae_cli.train trains one run", hint='cae_cli.train_sweep("model=baseline,l2")'
            )
        sources = arguments.sources(flags)

        def call(overrides: Sequence[str]) -> None:
            with compose.rephrased_errors(overrides, sources):
                hydra_internals.run(task, overrides, sources)

        run, outcome = single.train(task, flags.overrides, sources, call)
    return _shown(run, outcome, 2 if flags.verbose else verbose)


def train_sweep(*words: str, data: Any = None, verbose: int = 1) -> Sweep:
    """Trains one run for each combination, as ``cae train -m`` does, in processes of their own.

    The same sweep again resumes it. Jobs that fail are no error: they say so in the leaderboard.

    Args:
        *words: as for `train`; a key may have several values: "model=baseline,l2", "seed=range(0,3)".
        data: as for `train`.
        verbose: 0 prints nothing, 1 progress and the leaderboard.

    Raises:
        UserError: a mistake in the words, the configs or the images.
        RunFailed: the sweep could not be finished.
        KeyboardInterrupt: by the user, after all jobs have ended.
    """
    with _alone():
        flags = _parsed(("-m", *words), data, "cae_cli.train_sweep", verbose)
        arguments.sources(flags)
    command = arguments.train_command(flags)
    if flags.rules is not None:
        command += ["--rules", str(flags.rules)]
    folder, results = process.train(command, terminal.Screen(silent=not verbose).say)
    if verbose:
        print(results, file=sys.stdout)
    return Sweep(folder)


def diagnose(
    model: Any,
    images: Any,
    *,
    span: tuple[float, float] | None = None,
    latent: str | None = None,
    custom: str | Path | None = None,
    unsafe: bool = False,
    rules: Mapping[str, Mapping[str, Any]] | None = None,
    folder: str | Path = "runs/diagnose",
    verbose: int = 1,
) -> Run:
    """Diagnoses any Keras autoencoder, as ``cae diagnose MODEL`` does. Its run has no training.

    Args:
        model: a Keras model, which is not changed, or the path of a .keras or .h5 file.
        images: that it is measured on: an array or a `tf.data.Dataset` as it is given to the model, a
            path, or a column of paths.
        span: the smallest and the largest value of the images that the model was trained on; None: of an
            array (0, 1), (-1, 1) or (0, 255), or else that of its values; of files (0, 1).
        latent: name of the layer whose output is the latent code; None: detected.
        custom: of a file: a Python file with the model's own layer classes, which is executed.
        unsafe: of a file: run code in it.
        rules: options of single rules, like {"CAE503": {"threshold": 0.4}}.
        folder: the parent of the folder for files and pictures.
        verbose: 0 prints nothing, 1 the summary, 2 every number.

    Raises:
        UserError: it is no autoencoder of such images, or one of them cannot be read.
        RunFailed: the model could not be measured.
    """
    from cae_cli.external import model as external

    is_file = isinstance(model, str | Path)
    path = typed(model) if is_file else Path()
    if is_file:
        models.check_file(path)
    with _alone():
        measured, found = _measured(images, span)
        words = [f"rules.{code}.{k}={v}" for code, own in (rules or {}).items() for k, v in own.items()]
        options = external.FileOptions(latent, None if custom is None else Path(custom), found, unsafe)
        checked, silent = models.rules(words), not verbose

        def work(run: folders.Run) -> Outcome:
            if not is_file:
                return external.diagnose_model(model, measured, options, run, checked, silent=silent)
            return external.diagnose_file(
                path, measured, options, run, checked, guest=True, silent=silent
            )

        run, outcome = models.in_new_folder(Path(folder), work)
    return _shown(run, outcome, verbose)


def open_run(run: str | Path, runs: str | Path | None = None) -> Run:
    """Opens a run, as the commands that take a RUN do.

    Args:
        run: its folder, or a name: an id, a number, the beginning of a name, ``last``, ``last-1``.
        runs: the folder with the runs; None for runs/.

    Raises:
        UserError: there is no such run, or more than one.
    """
    return Run(opening.open_run(str(run), None if runs is None else Path(runs)).folder)


def _measured(images: Any, span: tuple[float, float] | None) -> tuple[Images, tuple[float, float]]:
    """Images in [0, 1] to be measured, and the range that a model was trained on.

    Raises:
        UserError: they cannot be read, or no network can be measured on them.
    """
    from cae_cli.external.model import MOST_MEASURED, all_measured, span_of, stored

    if given.are_files(images):
        config = compose.checked(given.overrides_of(images))[1]
        return all_measured(sources_of_images.load(config.data)), span or (0.0, 1.0)
    array = np.asarray(check(Pool(given.array_of(images)), None).images)[:MOST_MEASURED]
    array = array[..., np.newaxis] if array.ndim == 3 else array
    found = span or span_of(array)
    x = stored(array, found)
    return Images(x, x, source="array", evaluated=True), found


def _shown(run: folders.Run, outcome: Outcome, verbose: int) -> Run:
    """Prints the diagnosis and where the run is, and opens the run."""
    if verbose:
        terminal.show(outcome.summary(verbose=verbose > 1))
        terminal.results(run)
    return Run(run.folder)


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
    """In the block this thread alone trains; Hydra and the catalogue of rules keep nothing of it."""
    with _one_at_a_time, hydra_internals.isolated():
        rules = list(RULES)
        try:
            yield
        finally:
            RULES[:] = rules


@contextmanager
def _tensorflow() -> Iterator[None]:
    """In the block a network can be opened and used."""
    with _one_at_a_time, backend.guest():
        backend.start(deterministic=False, mixed_precision=False)
        yield
