"""Arguments of the commands: Hydra's flags and overrides, cae's own flags, and names of runs.

Hydra is imported by `parse` alone, so that a command which composes no config starts at once.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cae_cli.errors import UserError, nearest, to_paste
from cae_cli.options import as_typed, for_hydra, key_of
from cae_cli.report.numbers import seconds_of

if TYPE_CHECKING:
    from cae_cli.config.compose import Sources
    from cae_cli.diagnosis import Diagnosis
    from cae_cli.experiment import Outcome
    from cae_cli.runs.folder import Run
    from cae_cli.sweep import Sweep

# Parts of the help of several commands.
DIAGNOSIS_HELP = """\
  --verbose               show every number, and every finding in full
  --fail-on LEVEL         exit with code 1 if a finding is at least this severe:
                          error, warning or note
  --rules FILE            load your own rules from a Python file, executing it
"""
TRUST_HELP = """\
  --trust-configs         let config files read environment variables and set
                          Hydra's own keys, which can run commands
"""
RUNS_HELP = """\
  --runs DIR              look for runs below DIR instead of runs/
"""
RUN_HELP = """\
RUN is the folder of a run, or a name of a run below runs/:
  d3tg                    the id that cae runs ls shows, or its first letters
  k3fa/loss=ssim          a job of a sweep
  2026-01-31_18           the first part of the folder's name
  7                       the number in cae runs ls; 1 is the oldest run
  last, last-1            the newest run, the one before it
"""

# The flags of each command that uses a trained network.
NETWORK_FLAGS = ("latent", "custom", "range", "unsafe", "runs", "trust-configs")

# The flags of each command that composes a config, in addition to Hydra's.
FLAGS = {
    "cae train": ("verbose", "fail-on", "rules", "trust-configs"),
    "cae resume": ("verbose", "fail-on", "rules", "runs", "force"),
    "cae rerun": ("verbose", "fail-on", "rules", "trust-configs", "runs"),
    "cae check": ("verbose", "fail-on", "rules", "trust-configs", "json"),
    "cae diagnose": (
        "verbose", "fail-on", "rules", "trust-configs", "json", "latent", "custom", "range",
        "frozen-encoder", "unsafe", "runs",
    ),
    "cae treat": (
        "verbose", "rules", "trust-configs", "json", "latent", "custom", "range", "unsafe", "budget",
        "steps",
    ),
    "cae encode": (*NETWORK_FLAGS, "out", "pool", "flat"),
    "cae decode": (*NETWORK_FLAGS, "out"),
    "cae reconstruct": (*NETWORK_FLAGS, "out"),
    "cae export": (*NETWORK_FLAGS, "format", "part", "out"),
    "cae score": ("runs", "trust-configs", "out", "normal", "false-alarms"),
    "cae nearest": (*NETWORK_FLAGS, "out", "count"),
}  # fmt: skip


def parse_plain(command: str, arguments: list[str], **own: dict[str, Any]) -> argparse.Namespace:
    """Parses flags and names, in any order, of a command that composes no config.

    Args:
        command: for the hint of an error ("cae runs ls").
        arguments: of the command line.
        own: the flags of the command, ``--top`` as ``top``, with the options of `argparse`.

    Returns:
        The flags, ``help`` and ``runs`` among them; ``names`` has the other arguments.

    Raises:
        UserError: a flag is unknown, or has no value.
    """
    parser = argparse.ArgumentParser(prog=command, add_help=False, allow_abbrev=False)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--runs", type=Path)
    for name, options in own.items():
        parser.add_argument(f"--{name}", **options)
    return _parsed(parser, command, arguments)


def parse(command: str, arguments: list[str], *, trusted: bool = True) -> argparse.Namespace:
    """Parses flags and overrides, in any order; Hydra itself needs the flags first.

    Args:
        command: a key of `FLAGS`.
        arguments: of the command line.
        trusted: a person typed them. Arguments from a file may have none of cae's flags: ``--rules``
            executes code, and ``--trust-configs`` lets configs do so.

    Raises:
        UserError: a flag is unknown or not allowed.
    """
    from cae_cli.config.hydra_internals import flags_parser
    from cae_cli.diagnosis import Severity
    from cae_cli.diagnosis.catalogue import load_rules

    parser = flags_parser()
    parser.allow_abbrev = False
    own: dict[str, dict[str, Any]] = {
        "verbose": {"action": "store_true"},
        "json": {"action": "store_true"},
        "fail-on": {"choices": [severity.value for severity in Severity]},
        "rules": {"type": Path},
        "runs": {"type": Path},
        "trust-configs": {"action": "store_true"},
        "latent": {},
        "custom": {"type": Path},
        "unsafe": {"action": "store_true"},
        "range": {"type": ranges},
        "frozen-encoder": {"action": "store_true"},
        "force": {"action": "store_true"},
        "budget": {"type": duration},
        "steps": {"type": count},
        "out": {"type": Path},
        "format": {},
        "part": {},
        "pool": {"action": "store_true"},
        "flat": {"action": "store_true"},
        "normal": {"type": lambda text: tuple(text.split(",")), "default": ()},
        "false-alarms": {"type": _share, "default": 0.05},
        "count": {"type": count, "default": 8},
    }
    for name in FLAGS[command] if trusted else ():
        parser.add_argument(f"--{name}", **own[name])
    flags = _parsed(parser, command, arguments)
    flags.trusted = trusted
    if flags.experimental_rerun:
        raise UserError(
            "--experimental-rerun loads a pickle file, which can run any code", where="command line"
        )
    if trusted and not flags.help:
        flags.overrides = _with_images(flags.overrides)
    flags.overrides = [for_hydra(override, sweep=flags.multirun) for override in flags.overrides]
    for override in flags.overrides:
        if key_of(override) == "hydra.mode":
            raise UserError(
                "hydra.mode cannot be set on the command line",
                where=f"command line: {override}",
                hint="cae train -m runs a sweep",
            )
    if trusted and getattr(flags, "rules", None) is not None:
        load_rules(flags.rules)
    return flags


def _with_images(words: list[str]) -> list[str]:
    """The words with a file in place of ``data=python``, whose code runs here."""
    if "data=python" not in words:
        return words
    from cae_cli.data import hook
    from cae_cli.report import terminal

    screen = terminal.Screen()
    with screen.doing("running data.path …"):
        found = hook.replaced(words)
    screen.say(f"  {' '.join(found[:2])}: what data.path gave")
    return found


def _parsed(parser: argparse.ArgumentParser, command: str, arguments: list[str]) -> argparse.Namespace:
    def refuse(message: str) -> NoReturn:
        hint = f"{command} --help"
        known, _, unknown = message.partition("unrecognized arguments: --")
        if not known and unknown and command in FLAGS:
            close = nearest(unknown.split()[0], FLAGS[command])
            hint = f"did you mean --{close}?" if close else f"write options as loss=ssim; flags: {hint}"
        raise UserError(message, where="command line", hint=hint)

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_intermixed_args(arguments)


def count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def duration(text: str) -> float:
    """A time like 30s, 10m or 2h, in seconds."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _share(text: str) -> float:
    """A number between 0 and 1."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, got {text!r}")
    return share


def ranges(text: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """LOW,HIGH or LOW,HIGH,LOW,HIGH: the ranges of the images and of the input of a model."""
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    given, made = numbers[:2], numbers[-2:]
    if len(numbers) not in (2, 4) or any(low == high for low, high in (given, made)):
        raise argparse.ArgumentTypeError(
            f"must be two different numbers, as in --range=-1,1, or four; got {text!r}"
        )
    return (made[0], made[1]), (given[0], given[1])


def sources(flags: argparse.Namespace) -> Sources:
    """Where configs are read from, and whether they are trusted.

    Raises:
        UserError: there is no such folder, or an argument is not readable text.
    """
    from cae_cli.config.compose import Sources
    from cae_cli.config.trust import Trust, readable
    from cae_cli.system.files import typed

    if flags.config_path is not None:
        raise UserError(
            "--config-path would replace cae's own configs",
            where=f"command line: {flags.config_path}",
            hint=f"this adds a folder to them: {to_paste('--config-dir', Path(flags.config_path))}",
        )
    readable([*flags.overrides, flags.config_dir or "", flags.config_name or ""])
    folders = []
    if flags.config_dir is not None:
        folder = typed(flags.config_dir).resolve()
        if not folder.is_dir():
            raise UserError(
                f"no such folder: {flags.config_dir}",
                where="--config-dir",
                hint="use a folder with the layout of configs/: one sub-folder for each group",
            )
        folders.append(folder)
    trust = Trust(overrides=False)
    if flags.trusted:
        trust = Trust(files=flags.trust_configs)
    return Sources(flags.config_name or "config", tuple(folders), trust)


def hydra_flags(flags: argparse.Namespace) -> list[str]:
    """The flags that Hydra itself understands, as they were typed."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("multirun", "hydra_help", "resolve")
        if getattr(flags, name)
    ]
    for name in ("cfg", "info", "package"):
        if getattr(flags, name):
            given += [f"--{name}", getattr(flags, name)]
    return given


def train_command(flags: argparse.Namespace) -> list[str]:
    """The ``cae train`` command of the same experiment, as a list of arguments."""
    command: list[str] = ["cae", "train", *(["-m"] if flags.multirun else [])]
    if flags.config_dir is not None:
        command += ["-cd", flags.config_dir]
    if flags.config_name is not None:
        command += ["-cn", flags.config_name]
    if flags.trust_configs:
        command += ["--trust-configs"]
    return [*command, *(as_typed(word, sweep=flags.multirun) for word in flags.overrides)]


def say_how_to_resume(run: Run) -> None:
    """Prints the command that resumes a run which ended early, if that is possible."""
    from cae_cli.report import terminal

    with contextlib.suppress(OSError, UserError):  # the first error is the one to report
        if run.can_go_on():
            terminal.Screen().say(f"resume it with: {to_paste('cae', 'resume', run.folder)}")


def show(outcome: Outcome, run: Run, flags: argparse.Namespace) -> int:
    """Prints the diagnosis and the folder of a run; returns the exit code."""
    from cae_cli.report import terminal

    terminal.show(outcome.summary(verbose=flags.verbose))
    terminal.results(run)
    return 1 if outcome.failed else exit_code(flags, outcome.diagnosis)


def exit_code(flags: argparse.Namespace, result: Diagnosis | Sweep) -> int:
    """1 if a finding is as severe as ``--fail-on`` says, else 0; 0 of a command without that flag."""
    from cae_cli.diagnosis import Severity

    level = getattr(flags, "fail_on", None)
    return int(level is not None and result.reaches(Severity(level)))
