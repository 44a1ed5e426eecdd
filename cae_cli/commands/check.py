"""``cae check``: what can be said of an experiment before its first step, in a second or two."""

from __future__ import annotations

import json
import sys

from cae_cli import compose, experiment
from cae_cli.commands import line
from cae_cli.report import terminal
from cae_cli.run import SCHEMA_VERSION, plain

HELP = f"""\
usage: cae check [group=option …] [key=value …]

Reads the images and the options of an experiment and says what is wrong, or
likely to go wrong, without training and without TensorFlow. cae train does the
same before it starts.

flags:
{line.HELP}{line.COMPOSING}\
  --json                  the findings as JSON
"""


def main(arguments: list[str]) -> int:
    """Checks one experiment."""
    flags = line.parse("cae check", arguments)
    if flags.help:
        print(HELP, end="")
        return 0
    _, options = compose.checked(flags.overrides, line.sources(flags))
    experiment.check_early(options)
    screen = terminal.Screen()
    with screen.doing("reading images …"):
        images = experiment.read(options)
        diagnosis = experiment.foresee(options, images, experiment.look_at(images))
    for note in images.notes:
        screen.say(f"  {note}")
    if flags.json:
        json.dump(plain({"schema": SCHEMA_VERSION, "diagnosis": diagnosis}), sys.stdout, indent=2)
        print()
    else:
        found = terminal.findings(diagnosis, line.again(flags), verbose=flags.verbose, all_in_full=True)
        terminal.show([terminal.verdict(diagnosis), *found])
    return line.exit_code(flags, diagnosis)
