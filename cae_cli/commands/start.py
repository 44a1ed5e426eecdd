"""Starts the run or the sweep that parsed flags describe, for ``cae train`` and ``cae rerun``."""

from __future__ import annotations

import argparse
import contextlib

from cae_cli.commands import arguments
from cae_cli.config import compose
from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.report import terminal
from cae_cli.runs.folder import Run
from cae_cli.sweep import grid, single
from cae_cli.sweep.hydra_app import call_hydra
from cae_cli.sweep.job import Task
from cae_cli.sweep.session import SweepSession
from cae_cli.system import signals


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
    task, own = Task(), arguments.hydra_flags(flags)
    try:
        run, outcome = single.train(
            task,
            flags.overrides,
            sources,
            lambda overrides: call_hydra(task, overrides, sources, flags=own),
        )
    except (UserError, RunFailed, Interrupted) as error:
        for folder in task.folders:
            if not isinstance(error, UserError):
                terminal.show([terminal.folder(folder)])
            arguments.say_how_to_resume(Run(folder))
        raise
    return arguments.show(outcome, run, flags)
