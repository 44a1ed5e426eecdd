"""Many runs at once that are no grid: each with words and a name of its own.

They go through the launcher of sweeps, so a crash costs one run, all cores are used, and what is
finished is not trained again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.utils import JobRuntime
from hydra.types import HydraContext, RunMode
from omegaconf import read_write

from cae_cli.config import compose
from cae_cli.config.overrides import quoted
from cae_cli.config.schema import Config
from cae_cli.config.trust import Trust, is_hydras
from cae_cli.errors import UserError
from cae_cli.report.terminal import Screen
from cae_cli.runs.folder import Run
from cae_cli.runs.sweep_folder import PlannedJob
from cae_cli.sweep import SweepFile, SweepFolder, launcher
from cae_cli.sweep.job import Task
from cae_cli.system.files import at_work

# Words of a batch come from files: of a run, of a case.
THEIRS = compose.Sources(trust=Trust(words=False))


@dataclass(frozen=True)
class Wanted:
    """A run that is wanted.

    Attributes:
        name: of its folder.
        words: all overrides behind ``cae train``.
    """

    name: str
    words: tuple[str, ...]


class Batch:
    """Runs in one folder; made by `opened`.

    Args:
        folder: theirs.
        options: of the launcher.
        pictures: are drawn, and verdicts are part of what is kept: then a run is done again when a rule
            has changed. Otherwise it is when what trains has.
    """

    def __init__(self, folder: SweepFolder, options: launcher.Options, *, pictures: bool) -> None:
        self.folder = folder
        self._options = options
        version.setbase("1.3")
        JobRuntime.instance().set("name", "train")
        loader: ConfigLoaderImpl = compose.loader_of(compose.Sources())
        master = loader.load_configuration("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        with read_write(master.hydra):  # from these Hydra composes each job
            master.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder.folder)}")
        context = HydraContext(loader, Callbacks())
        self._work = launcher.Work(context, Task(pictures=pictures), master)
        self._trained = 0

    def train(self, wanted: Sequence[Wanted]) -> list[Run]:
        """Trains what is not finished yet.

        Args:
            wanted: no two of one name.

        Returns:
            Their runs, in order. One may have failed: its status says so.

        Raises:
            UserError: the words of one are wrong; nothing is trained then.
            Interrupted: by a signal, after all runs have ended.
        """
        with Screen().doing(f"checking {len(wanted)} run{'' if len(wanted) == 1 else 's'} …"):
            jobs = [self._prepared(one, number) for number, one in enumerate(wanted, self._trained)]
        self._trained += len(jobs)
        content = self.folder.read()
        known = dict.fromkeys([*content.jobs, *(PlannedJob(one.name, ()) for one in jobs)])
        self.folder.write(replace(content, jobs=tuple(known)))
        launcher.run(self._options, self._work, self.folder, jobs)
        return [one.run for one in jobs]

    def _prepared(self, wanted: Wanted, number: int) -> launcher.Job:
        _check(wanted)
        with compose.errors_in_words(wanted.words, THEIRS):
            words = tuple(compose.with_new_keys(wanted.words))
            return launcher.prepared(self._work, self.folder.folder, words, number, wanted.name)


def checked(words: Sequence[str]) -> Config:
    """The config of a run's words, which are not trusted.

    The same words are composed once: a treatment asks for them again and again, and composing takes a
    quarter of a second.

    Raises:
        UserError: they are wrong.
    """
    return _composed(tuple(words))


@functools.lru_cache(4096)
def _composed(words: tuple[str, ...]) -> Config:
    return compose.checked(words, THEIRS)[1]


def _check(wanted: Wanted) -> None:
    for override in compose.parsed(wanted.words):
        if is_hydras(override):
            raise UserError(
                f"{override.input_line}: a run of a batch says nothing of Hydra", where=wanted.name
            )


@contextmanager
def opened(
    folder: Path, command: Sequence[str], *, n_jobs: int | None = None, pictures: bool = True
) -> Iterator[Batch]:
    """In the block runs can be trained in a folder, and nobody else is at work there.

    Args:
        folder: that exists; of an earlier batch, or empty.
        command: words of the command that this is a part of.
        n_jobs: at once; None: as many as are fastest.
        pictures: see `Batch`.

    Raises:
        UserError: somebody is at work there.
    """
    place = SweepFolder(folder)
    with at_work(folder):
        before = place.read().jobs if place.is_written() else ()
        place.write(SweepFile(tuple(command), (), "running", None, before))
        status = "interrupted"
        try:
            with launcher.serving(place, early=True):
                yield Batch(place, launcher.Options(n_jobs=n_jobs, timeout=None), pictures=pictures)
            status = "ok"
        finally:
            place.write(replace(place.read(), status=status))
