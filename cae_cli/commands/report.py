"""``cae report RUN``: draws the pictures of a run again and prints its stored diagnosis."""

from __future__ import annotations

from cae_cli.commands.arguments import RUN_HELP, RUNS_HELP, parse_plain
from cae_cli.errors import UserError, printable, to_paste
from cae_cli.report import figures, terminal
from cae_cli.report.sections import line
from cae_cli.runs.opening import open_run, reading

HELP = f"""\
usage: cae report RUN

Draws the pictures of a finished run again, and prints its stored diagnosis
(summary.txt). To apply the rules again, use cae diagnose RUN.

{RUN_HELP}
flags:
{RUNS_HELP}"""


def main(args: list[str]) -> int:
    """Reports the given run."""
    flags = parse_plain("cae report", args)
    if flags.help:
        print(HELP, end="")
        return 0
    if len(flags.names) != 1:
        raise UserError(
            f"expected one run, got {len(flags.names)}",
            where="command line: cae report",
            hint="cae report last",
        )
    run = open_run(flags.names[0], flags.runs)
    if not run.summary_file.exists():
        raise UserError(
            "the run has no diagnosis",
            where=run.folder,
            hint=f"diagnose it: {to_paste('cae', 'diagnose', run.folder)}",
        )
    with reading(run), terminal.Screen().doing("drawing …"):
        stored = run.summary()["diagnosis"]["thresholds"]
        thresholds = {code: float(value) for code, value in stored.items()}
        figures.draw(run, frozen=run.frozen_encoder(), thresholds=thresholds)
    lines = run.read_summary_text().splitlines()
    terminal.show([line(printable(text), whole=True) for text in lines])
    terminal.show([terminal.folder(run.folder)])
    return 0
