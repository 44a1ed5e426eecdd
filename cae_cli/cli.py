"""The ``cae`` program: the table of commands, and how errors become messages and exit codes.

Exit codes: 0 success, 1 a run failed or what a command printed was lost, 2 usage or configuration error,
129, 130 and 143 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from cae_cli import __version__
from cae_cli.errors import Interrupted, RunFailed, UserError, did_you_mean, nearest, to_paste
from cae_cli.system import files, streams


@dataclass(frozen=True)
class Command:
    """A command: a one-line summary, and the module whose ``main(arguments)`` runs it."""

    summary: str
    module: str


# In the order of use.
COMMANDS = {
    "check": Command("predict problems of an experiment before training", "cae_cli.commands.check"),
    "train": Command("train an autoencoder and diagnose its filters", "cae_cli.commands.train"),
    "report": Command("draw and print the results of a run again", "cae_cli.commands.report"),
    "diagnose": Command("diagnose a run again, or any Keras autoencoder", "cae_cli.commands.diagnose"),
    "treat": Command("test the proposed fixes against random changes", "cae_cli.commands.treat"),
    "encode": Command("write the latent codes of images to a file", "cae_cli.commands.encode"),
    "decode": Command("make images of latent codes", "cae_cli.commands.decode"),
    "reconstruct": Command("write what a network makes of images", "cae_cli.commands.reconstruct"),
    "export": Command("write a network as ONNX, LiteRT, SavedModel, Keras", "cae_cli.commands.export"),
    "score": Command("score images by how unusual they are to a network", "cae_cli.commands.score"),
    "nearest": Command("find the nearest images by latent code", "cae_cli.commands.nearest"),
    "resume": Command("resume an interrupted run, or train it for longer", "cae_cli.commands.resume"),
    "rerun": Command("train with the config of a run again, with changes", "cae_cli.commands.rerun"),
    "runs": Command("list, show, tag and remove runs", "cae_cli.commands.runs"),
    "log": Command("write a run or a sweep to a tracker such as MLflow", "cae_cli.commands.log"),
    "compare": Command("compare runs, or the jobs of a sweep", "cae_cli.commands.compare"),
    "sweep": Command("show the progress of a sweep", "cae_cli.commands.sweep"),
    "options": Command("list the config groups, their options and keys", "cae_cli.commands.options"),
    "rules": Command("list the rules of the diagnosis, or explain one", "cae_cli.commands.rules"),
}
# Commands of older versions, and what replaces them.
RENAMED = {
    "explain": "cae rules CODE",
    "diff": "cae compare A B",
    "clinic": "python -m benchmarks.faults",
}

HELP = """\
cae: trains convolutional autoencoders and diagnoses why their filters are, or
are not, meaningful

usage: cae COMMAND …

commands, in the order of use:
{commands}

examples:
  cae train                       the defaults: generated letters and digits
  cae train model=l2 loss=ssim    choose options of groups
  cae train -m model=baseline,l2 loss=mse,ssim    a sweep: every combination
  cae train data=image_folder data.path=photos data.image_size=64
  cae options loss                list the losses
  cae runs ls 'psnr>20'           list runs with a PSNR above 20 dB

  cae COMMAND --help                          help for a command
  cae --version
  eval "$(cae -sc install=bash)"              completion with the Tab key
"""


def main(command: Callable[[list[str]], int] | None = None) -> NoReturn:
    """Runs the command on the command line, or the given one, and ends the process."""
    with streams.guarded():
        try:
            code = run(sys.argv[1:], command)
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
        code = (command or dispatch)(arguments)
        streams.check()
        return code
    except (UserError, RunFailed, OSError) as error:
        shown = files.refused(error) if isinstance(error, OSError) else error
        if shown is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        from cae_cli.report.terminal import show_error

        show_error(shown)
        return 2 if isinstance(shown, UserError) else 1


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
        if flag := first.startswith("--") and nearest(first, ("--help", "--version")):
            raise UserError(f"cae has no flag {first!r}", hint=f"did you mean cae {flag}?")
        if "=" in first or first.startswith("-"):
            raise UserError(
                f"{first!r} is not a command", hint=f"did you mean {to_paste('cae', 'train', first)} …?"
            )
        hint = did_you_mean(first, COMMANDS, "commands:")
        if first in RENAMED:
            hint = f"did you mean {RENAMED[first]}?"
        raise UserError(f"there is no command {first!r}", hint=hint)
    module = importlib.import_module(COMMANDS[first].module)
    code = module.main(rest)
    assert isinstance(code, int)
    return code
