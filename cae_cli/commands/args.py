"""Words behind a command that composes no config: they are read without Hydra, and at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from cae_cli.errors import UserError

# The flag of every command that takes RUN words.
RUNS = """\
  --runs DIR              look for runs below DIR instead of runs/
"""
# What RUN may be; a part of their help.
RUN_WORDS = """\
RUN is a run's folder, or a word for a run below runs/:
  d3tg                    its id, as cae runs ls shows it, or the beginning of one
  k3fa/loss=ssim          the same of a sweep's job
  2026-01-31_18           the beginning of its folder's name
  7                       its number in cae runs ls; 1 is the oldest
  last, last-1            the newest, the one before it
"""


def parsed(command: str, arguments: list[str], **own: dict[str, Any]) -> argparse.Namespace:
    """Words and flags, in any order.

    Args:
        command: for the hint of an error ("cae runs ls").
        arguments: behind it.
        own: its flags, ``--top`` as ``top``, with what `argparse` is to be told of each.

    Returns:
        The flags, ``help`` and ``runs`` among them; ``words`` has the others.

    Raises:
        UserError: an unknown flag, or one without its value.
    """
    parser = argparse.ArgumentParser(prog=command, add_help=False, allow_abbrev=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--runs", type=Path)
    for name, said in own.items():
        parser.add_argument(f"--{name}", **said)

    def refuse(message: str) -> NoReturn:
        raise UserError(message, where="command line", hint=f"{command} --help")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_intermixed_args(arguments)


def count(text: str) -> int:
    """A number of rows."""
    if not text.isdecimal() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)
