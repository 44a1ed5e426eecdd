"""``cae report RUN``: writes the page and pictures of a run again, prints its stored diagnosis."""

from __future__ import annotations

import webbrowser

from cae_cli.commands.arguments import RUN_HELP, RUNS_HELP, parse_plain
from cae_cli.errors import UserError, nearest, printable, to_paste
from cae_cli.report import figures, page, terminal
from cae_cli.report.sections import line
from cae_cli.runs.folder import Run
from cae_cli.runs.opening import open_run, reading

HELP = f"""\
usage: cae report RUN [--open]
       cae report RUN --figure NAME [--format svg|pdf|png]

Writes the page of a finished run (report.html) and its pictures again, and
prints its stored diagnosis (summary.txt). To apply the rules again, use
cae diagnose RUN.

{RUN_HELP}
flags:
  --open           open the page in a browser
  --figure NAME    write one figure only, such as curves or filters/encoder_1
  --format FORMAT  of that figure: svg (the default), pdf or png
{RUNS_HELP}"""


def main(args: list[str]) -> int:
    """Reports the given run."""
    flags = parse_plain(
        "cae report",
        args,
        open={"action": "store_true"},
        figure={},
        format={"choices": figures.FORMATS},
    )
    if flags.help:
        print(HELP, end="")
        return 0
    if len(flags.names) != 1:
        raise UserError(
            f"expected one run, got {len(flags.names)}",
            where="command line: cae report",
            hint="cae report last",
        )
    if flags.format and not flags.figure:
        raise UserError(
            "--format needs --figure",
            where="command line: cae report",
            hint="cae report last --figure curves",
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
        data = figures.read(run, frozen=run.frozen_encoder(), thresholds=thresholds)
        if flags.figure:
            return _figure(run, data, flags.figure, flags.format or "svg")
        figures.draw(run, data)
        page.write(run, data)
    lines = run.read_summary_text().splitlines()
    terminal.show([line(printable(text), whole=True) for text in lines])
    terminal.results(run)
    if flags.open and not webbrowser.open(run.page.shown.absolute().as_uri()):
        raise UserError("no browser was found", hint=f"open this file in one: {run.page.shown}")
    return 0


def _figure(run: Run, data: figures.RunData, name: str, kind: str) -> int:
    """Writes one figure in the given format, and prints its path."""
    known = {file.removesuffix(".png"): found for file, found in figures.of(data).items()}
    name = name.removesuffix(".png")
    if name not in known:
        close = nearest(name, known)
        raise UserError(
            f"the run has no figure {printable(name)}",
            where=run.folder,
            hint=f"did you mean {close}?" if close else f"its figures: {', '.join(known)}",
        )
    path = figures.write_as(run, data, known[name], kind)
    terminal.show([terminal.folder(path)])
    return 0
