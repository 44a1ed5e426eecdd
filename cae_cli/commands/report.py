"""``cae report RUN``: draws and judges a finished run again, from its files, without TensorFlow."""

from __future__ import annotations

from pathlib import Path

from cae_cli.errors import UserError
from cae_cli.run import Run, writing

HELP = """\
usage: cae report RUN

Draws the pictures of a finished run again and prints its summary diagnosis. RUN is a run's folder.
"""


def main(arguments: list[str]) -> int:
    """Judges the run whose folder is given."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    if len(arguments) != 1:
        raise UserError(f"one run's folder, got {len(arguments)}", hint="cae report runs/…/…")
    from cae_cli import experiment
    from cae_cli.report import terminal

    run = Run(Path(arguments[0]).expanduser())
    if not run.folder.is_dir():
        raise UserError("no such folder", where=run.folder, hint="ls runs/*")
    if not run.is_set_up():
        raise UserError("run.json is missing", where=run.folder, hint="is this the folder of a run?")
    with writing(run.folder):
        try:
            outcome = experiment.judge(run)
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(
                f"the files of the run do not belong together: {error}",
                where=run.folder,
                hint=f"its status is {run.status().get('status', 'unknown')}",
            ) from error
    terminal.show(
        terminal.summary(outcome.measures, outcome.diagnosis, outcome.held_out, outcome.command)
    )
    terminal.show([terminal.folder(run.folder)])
    return 0
