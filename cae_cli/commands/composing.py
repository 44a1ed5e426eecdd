"""The words behind a command: Hydra's flags and overrides, and what is ours."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from cae_cli.config import compose
from cae_cli.config.trust import Trust, readable
from cae_cli.diagnosis import Diagnosis, Severity
from cae_cli.diagnosis.catalogue import load_rules
from cae_cli.errors import UserError
from cae_cli.options import key_of
from cae_cli.report import terminal
from cae_cli.runs.folder import Run
from cae_cli.sweep import Sweep
from cae_cli.system.files import typed

# Flags that every command with a diagnosis has.
HELP = """\
  --verbose               every number, every finding in full
  --fail-on LEVEL         exit code 1 from this finding on: error, warning or note
  --rules FILE            a Python file with rules of your own (it is run)
"""
# And those that compose one.
COMPOSING = """\
  --trust-configs         config files may read environment variables and set
                          Hydra's own keys, which can run commands
"""


# What each command has of its own beside Hydra's flags.
FLAGS = {
    "cae train": ("verbose", "fail-on", "rules", "trust-configs"),
    "cae resume": ("verbose", "fail-on", "rules", "runs"),
    "cae rerun": ("verbose", "fail-on", "rules", "trust-configs", "runs"),
    "cae check": ("verbose", "fail-on", "rules", "trust-configs", "json"),
    "cae diagnose": (
        "verbose", "fail-on", "rules", "trust-configs", "json", "latent", "custom", "range", "probe",
        "frozen-encoder", "unsafe", "runs",
    ),
}  # fmt: skip


def parse(command: str, arguments: list[str], *, trusted: bool = True) -> argparse.Namespace:
    """Flags and overrides, in any order; stock Hydra wants the flags first.

    Args:
        command: for the hint of an error ("cae train").
        arguments: behind it.
        trusted: a person typed them. Words from a file get no flags of ours: ``--rules`` runs code,
            ``--trust-configs`` lets others do so.

    Raises:
        UserError: an unknown flag, or one that is refused.
    """
    parser = get_args_parser()
    parser.allow_abbrev = False
    own = {
        "verbose": {"action": "store_true"},
        "json": {"action": "store_true"},
        "fail-on": {"choices": [s.value for s in Severity]},
        "rules": {"type": Path},
        "runs": {"type": Path},
        "trust-configs": {"action": "store_true"},
        "latent": {},
        "custom": {"type": Path},
        "unsafe": {"action": "store_true"},
        "range": {"type": _span},
        "probe": {"action": "store_true"},
        "frozen-encoder": {"action": "store_true"},
    }
    for name in FLAGS[command] if trusted else ():
        parser.add_argument(f"--{name}", **own[name])  # type: ignore[arg-type]

    def refuse(message: str) -> NoReturn:
        raise UserError(message, where="command line", hint=f"{command} --help")

    parser.error = refuse  # type: ignore[method-assign]
    flags = parser.parse_intermixed_args(arguments)
    flags.trusted = trusted
    if flags.experimental_rerun:
        raise UserError(
            "--experimental-rerun loads a pickle, which may run anything", where="command line"
        )
    for override in flags.overrides:
        if key_of(override) == "hydra.mode":
            raise UserError(
                "hydra.mode is not for the command line",
                where=f"command line: {override}",
                hint="cae train -m makes a sweep",
            )
    if trusted and flags.rules is not None:
        load_rules(flags.rules)
    return flags


def _span(text: str) -> tuple[float, float]:
    """LOW,HIGH as two numbers."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise argparse.ArgumentTypeError("two numbers are needed, the smaller first: --range=-1,1")
    return low, high


def sources(flags: argparse.Namespace) -> compose.Sources:
    """Where configs are read from.

    Raises:
        UserError: no such folder, or a word that cannot be read.
    """
    if flags.config_path is not None:
        raise UserError(
            "--config-path would leave out cae's own configs",
            where=f"command line: {flags.config_path}",
            hint=f"--config-dir {flags.config_path} adds a folder to them",
        )
    readable([*flags.overrides, flags.config_dir or "", flags.config_name or ""])
    folders = []
    if flags.config_dir is not None:
        folder = typed(flags.config_dir).resolve()
        if not folder.is_dir():
            raise UserError(
                f"no such folder: {flags.config_dir}",
                where="--config-dir",
                hint="a folder laid out like configs/: its sub-folders are groups",
            )
        folders.append(folder)
    trust = Trust(words=False)
    if flags.trusted:
        trust = Trust.in_words(flags.overrides, files=flags.trust_configs)
    return compose.Sources(flags.config_name or "config", tuple(folders), trust)


def again(flags: argparse.Namespace) -> list[str]:
    """The words of ``cae train`` for the same experiment."""
    words = ["cae", "train"]
    if flags.config_dir is not None:
        words += ["-cd", flags.config_dir]
    if flags.config_name is not None:
        words += ["-cn", flags.config_name]
    if flags.trust_configs:
        words += ["--trust-configs"]
    words += flags.overrides
    return words


def tell_how_to_go_on(run: Run) -> None:
    """Says how, if a run that ended early can."""
    if run.can_go_on():
        terminal.Screen().say(f"it can go on: {shlex.join(['cae', 'resume', str(run.folder)])}")


def exit_code(flags: argparse.Namespace, found: Diagnosis | Sweep) -> int:
    """1 if a finding is as severe as ``--fail-on`` says, else 0."""
    return int(flags.fail_on is not None and found.reaches(Severity(flags.fail_on)))
