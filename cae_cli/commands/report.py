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
    for path in (run.arrays, run.metrics):
        if not path.is_file():
            raise UserError(
                f"{path.name} is missing: the run did not finish",
                where=run.folder,
                hint=f"its status: {run.status().get('status', 'unknown')}",
            )
    with writing(run.folder):
        experiment.judge(run)
    terminal.show_folder(run.folder)
    return 0
