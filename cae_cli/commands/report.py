"""``cae report RUN``: draws and judges a finished run again, from its files, without TensorFlow."""

from __future__ import annotations

from pathlib import Path

from cae_cli.commands.diagnose import judged, opened
from cae_cli.diagnosis.rule import with_own_rules
from cae_cli.errors import UserError
from cae_cli.report import terminal

HELP = """\
usage: cae report RUN

Draws the pictures of a finished run again and prints its summary diagnosis. RUN is a run's folder.
cae diagnose can do more.
"""


def main(arguments: list[str]) -> int:
    """Judges the run whose folder is given."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    arguments = with_own_rules(arguments)
    if len(arguments) != 1:
        raise UserError(f"one run's folder, got {len(arguments)}", hint="cae report runs/…/…")
    run = opened(Path(arguments[0]).expanduser())
    outcome = judged(run)
    terminal.show(outcome.summary())
    terminal.show([terminal.folder(run.folder)])
    return 0
