"""``cae report RUN``: draws and judges a finished run again, from its files, without TensorFlow."""

from __future__ import annotations

from cae_cli.commands.args import RUN_WORDS, RUNS, parsed
from cae_cli.commands.diagnose import judged, opened
from cae_cli.diagnosis.catalogue import with_own_rules
from cae_cli.errors import UserError
from cae_cli.report import terminal
from cae_cli.runs import registry

HELP = f"""\
usage: cae report RUN

Draws the pictures of a finished run again and prints its summary diagnosis.
cae diagnose can do more.

{RUN_WORDS}
flags:
  --rules FILE            a Python file with rules of your own (it is run)
{RUNS}"""


def main(arguments: list[str]) -> int:
    """Judges the run whose folder is given."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    flags = parsed("cae report", with_own_rules(arguments))
    if len(flags.words) != 1:
        raise UserError(f"one run's folder, got {len(flags.words)}", hint="cae report last")
    run = opened(registry.find(flags.words[0], flags.runs))
    outcome = judged(run)
    terminal.show(outcome.summary())
    terminal.show([terminal.folder(run.folder)])
    return 0
