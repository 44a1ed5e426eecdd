"""``cae check``: predicts problems of an experiment before it is trained."""

from __future__ import annotations

import json
import sys

from cae_cli import experiment
from cae_cli.commands import arguments
from cae_cli.config import compose
from cae_cli.report import summary, terminal
from cae_cli.runs.json_files import SCHEMA_VERSION, plain
from cae_cli.training import backend

HELP = f"""\
usage: cae check [group=option …] [key=value …]

Reads the images and the options of an experiment and lists what is wrong or
likely to go wrong, without training and without TensorFlow. cae train does the
same before it starts.

flags:
{arguments.DIAGNOSIS_HELP}{arguments.TRUST_HELP}\
  --json                  print the findings as JSON
"""


def main(args: list[str]) -> int:
    """Checks one experiment."""
    flags = arguments.parse("cae check", args)
    if flags.help:
        print(HELP, end="")
        return 0
    _, options = compose.checked(flags.overrides, arguments.sources(flags))
    experiment.check_early(options)
    screen = terminal.Screen()
    # Keras downloads data sets, so TensorFlow may start.
    with backend.quiet(None), screen.doing("reading images …"):
        images = experiment.load_images(options)
        diagnosis = experiment.forecast(options, images, experiment.dataset_statistics(images))
    for note in images.notes:
        screen.say(f"  {note}")
    if flags.json:
        json.dump(plain({"schema": SCHEMA_VERSION, "diagnosis": diagnosis}), sys.stdout, indent=2)
        print()
    else:
        found = summary.findings(
            diagnosis, arguments.train_command(flags), verbose=flags.verbose, all_in_full=True
        )
        terminal.show([summary.verdict(diagnosis), *found])
    return arguments.exit_code(flags, diagnosis)
