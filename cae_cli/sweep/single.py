"""A single run, from overrides to a trained run in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

from cae_cli import experiment
from cae_cli.config import compose
from cae_cli.errors import UserError
from cae_cli.experiment import Outcome
from cae_cli.options import key_of, quoted
from cae_cli.runs.folder import Run
from cae_cli.sweep import grid
from cae_cli.sweep.hydra_app import check_empty, own_folder
from cae_cli.sweep.job import Task
from cae_cli.system.files import at_work

FOLDER_KEY = "hydra.run.dir"


def train(
    task: Task,
    overrides: Sequence[str],
    sources: compose.Sources,
    call: Callable[[Sequence[str]], None],
) -> tuple[Run, Outcome]:
    """Composes and checks a config, makes the folder, and trains in it.

    Args:
        task: what Hydra calls; gets the folder as soon as there is one.
        overrides: of the command line.
        sources: where configs are read from, and whether they are trusted.
        call: calls Hydra with the task and overrides, those and one of the folder.

    Raises:
        UserError: a mistake of the user, found before or while the run starts. A new folder does not
            stay, unless an epoch was trained.
        RunFailed: the run could not be finished.
        Interrupted: SIGINT, SIGTERM or SIGHUP.
    """
    for word in overrides:
        if key_of(word) in (grid.PAIRS, grid.EXCLUDE):
            raise UserError(
                f"{key_of(word)} needs a sweep", where=f"command line: {word}", hint="cae train -m …"
            )
    node, config = compose.checked(overrides, sources)
    experiment.check_early(config)
    folder, is_new = own_folder(node, overrides, FOLDER_KEY)
    task.folders.append(folder)
    run = Run(folder)
    with at_work(run.root):
        check_empty(folder, FOLDER_KEY)
        try:
            call([*overrides, f"{FOLDER_KEY}={quoted(folder)}"])
            if isinstance(task.outcome, Exception):
                raise task.outcome
        except UserError:
            if is_new and not run.has_trained():  # the folder holds nothing of value
                shutil.rmtree(folder, ignore_errors=True)
            raise
    assert task.outcome is not None
    return run, task.outcome
