"""The ``cae`` command: finds the command's module, shows errors, sets the exit code.

Exit codes: 0 done, 1 a run failed, 2 the user's mistake, 130 and 143 interrupted.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from cae_cli import __version__
from cae_cli.errors import Interrupted, RunFailed, UserError, did_you_mean


@dataclass(frozen=True)
class Command:
    """A command: what it does in a line, and the module whose ``main(arguments)`` does it."""

    summary: str
    module: str


COMMANDS = {
    "train": Command("train an autoencoder and say what its filters learned", "cae_cli.commands.train"),
    "check": Command("say what is wrong with an experiment before it is run", "cae_cli.commands.check"),
    "diagnose": Command(
        "judge a run, or any Keras autoencoder, and find out what helps", "cae_cli.commands.diagnose"
    ),
    "treat": Command(
        "train again with what the diagnosis proposes, beside a random control", "cae_cli.commands.treat"
    ),
    "options": Command(
        "list the config groups, their options and their keys", "cae_cli.commands.options"
    ),
    "rules": Command("list what the diagnosis looks for", "cae_cli.commands.rules"),
    "explain": Command("tell all of one rule", "cae_cli.commands.explain"),
    "resume": Command(
        "go on with a run that was cut short, or train it for longer", "cae_cli.commands.resume"
    ),
    "rerun": Command("train with the config of a run again, with changes", "cae_cli.commands.rerun"),
    "report": Command("draw and judge a finished run again", "cae_cli.commands.report"),
    "runs": Command("list, show, tag and remove what was run", "cae_cli.commands.runs"),
    "compare": Command(
        "put runs, or the jobs of a sweep, beside each other", "cae_cli.commands.compare"
    ),
    "sweep": Command("say how a sweep stands", "cae_cli.commands.sweep"),
    "diff": Command("say what differs between two runs", "cae_cli.commands.diff"),
}

HELP = """\
cae: trains convolutional autoencoders and says why their filters are, or are
not, meaningful

usage: cae COMMAND …

commands:
{commands}

examples:
  cae train                       the default: letters and digits, made on the spot
  cae train model=l2 loss=ssim    choose by group=option
  cae train -m model=baseline,l2 loss=mse,ssim    every combination
  cae train data=image_folder data.path=photos data.image_size=64
  cae options loss                what there is to choose
  cae runs ls 'psnr>20'           what was run

  cae COMMAND --help                          more about a command
  cae --version
  eval "$(cae -sc install=bash)"              completion with the Tab key
"""


def main(command: Callable[[list[str]], int] | None = None) -> NoReturn:
    """Runs the command on the command line, or the given one, and ends the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that knows ASCII only shows ? for …
            stream.reconfigure(errors="replace")
    try:
        code = run(sys.argv[1:], command)
        sys.stdout.flush()
    except BrokenPipeError:  # cae options | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Interrupted as error:
        print("interrupted", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def run(arguments: list[str], command: Callable[[list[str]], int] | None = None) -> int:
    """Runs a command, without one that of the arguments; shows errors and returns the exit code."""
    try:
        return (command or dispatch)(arguments)
    except (UserError, RunFailed) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        from cae_cli.report.terminal import show_error

        show_error(error)
        return 2 if isinstance(error, UserError) else 1


def dispatch(arguments: list[str]) -> int:
    """Finds the command's module and calls its ``main``."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if len(arguments) > 1 and arguments[0] == "help":
            return dispatch([arguments[1], "--help"])
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)), end="")
        return 0
    first, *rest = arguments
    if first == "--version":
        print(f"cae {__version__}")
        return 0
    if first in ("-sc", "--shell-completion"):
        from cae_cli.commands.completion import main as complete

        return complete(rest, list(COMMANDS))
    if first not in COMMANDS:
        if "=" in first or first.startswith("-"):
            raise UserError(f"{first!r} is not a command", hint=f"did you mean cae train {first} …?")
        raise UserError(
            f"there is no command {first!r}", hint=did_you_mean(first, COMMANDS, "commands:")
        )
    module = importlib.import_module(COMMANDS[first].module)
    code = module.main(rest)
    assert isinstance(code, int)
    return code
