"""Starts the run or the sweep that parsed flags describe, for ``cae train`` and ``cae rerun``."""

from __future__ import annotations

import argparse
import contextlib
import shutil

from cae_cli import experiment
from cae_cli.commands import arguments
from cae_cli.config import compose
from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.options import key_of, quoted
from cae_cli.report import terminal
from cae_cli.runs.folder import Run
from cae_cli.sweep import grid
from cae_cli.sweep.hydra_app import call_hydra, check_empty, own_folder
from cae_cli.sweep.job import Task
from cae_cli.sweep.session import SweepSession
from cae_cli.system import signals
from cae_cli.system.files import at_work

FOLDER_KEY = "hydra.run.dir"


def start(flags: argparse.Namespace, sources: compose.Sources) -> int:
    """Trains, or prints the config if the flags ask for that.

    Returns:
        0; 1 if a training diverged, a job of a sweep failed, or ``--fail-on`` says so.

    Raises:
        UserError: a mistake of the user, found before or while the run starts.
        RunFailed: the run could not be finished.
        Interrupted: SIGINT, SIGTERM or SIGHUP.
    """
    if flags.hydra_help or flags.cfg or flags.info:
        if flags.multirun:  # show the first job
            overrides, own, _ = grid.taken_out(flags.overrides)
            flags.multirun, flags.overrides = False, own.jobs(compose.jobs(overrides))[0]
        with contextlib.suppress(SystemExit):  # Hydra ends the process after its help
            call_hydra(Task(), flags.overrides, sources, flags=arguments.hydra_flags(flags))
        return 0
    with signals.raised():
        return _sweep(flags, sources) if flags.multirun else _single(flags, sources)


def _sweep(flags: argparse.Namespace, sources: compose.Sources) -> int:
    session = SweepSession(
        arguments.train_command(flags),
        flags.overrides,
        sources,
        flags=arguments.hydra_flags(flags),
        rules=flags.rules,
    )
    sweep, succeeded = session.run()
    return arguments.exit_code(flags, sweep) if succeeded else 1


def _single(flags: argparse.Namespace, sources: compose.Sources) -> int:
    for word in flags.overrides:
        if key_of(word) in (grid.PAIRS, grid.EXCLUDE):
            raise UserError(
                f"{key_of(word)} needs a sweep", where=f"command line: {word}", hint="cae train -m …"
            )
    node, config = compose.checked(flags.overrides, sources)
    experiment.check_early(config)
    folder, is_new = own_folder(node, flags.overrides, FOLDER_KEY)
    run, task = Run(folder), Task()
    with at_work(run.root):
        check_empty(folder, FOLDER_KEY)
        try:
            call_hydra(
                task,
                flags.overrides,
                sources,
                flags=arguments.hydra_flags(flags),
                extra=[f"{FOLDER_KEY}={quoted(folder)}"],
            )
            if isinstance(task.outcome, Exception):
                raise task.outcome
            assert task.outcome is not None
        except UserError:
            if is_new and not run.has_trained():  # the folder holds nothing of value
                shutil.rmtree(folder, ignore_errors=True)
            arguments.say_how_to_resume(run)
            raise
        except (RunFailed, Interrupted):
            terminal.show([terminal.folder(folder)])
            arguments.say_how_to_resume(run)
            raise
    return arguments.show(task.outcome, run, flags)
