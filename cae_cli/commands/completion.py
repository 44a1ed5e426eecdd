"""``cae -sc install=bash``: shell completion; Hydra completes the arguments of ``cae train``."""

from __future__ import annotations

import contextlib
import io
import os
import sys

from cae_cli.config import compose
from cae_cli.config.schema import GROUPS
from cae_cli.errors import UserError


def main(args: list[str], commands: list[str]) -> int:
    """Prints the shell's script (install=, uninstall=) or completions of a line (query=)."""
    action, _, shell = (args[0] if args else "").partition("=")
    if action not in ("install", "uninstall", "query") or shell not in ("bash", "zsh", "fish"):
        raise UserError(
            "expected install=, uninstall= or query= with bash, zsh or fish",
            where="command line: cae -sc",
            hint='eval "$(cae -sc install=bash)"',
        )
    if action != "query":
        print(_hydra(args), end="")
        return 0
    line = os.environ.get("COMP_LINE", "")
    words = line.split(" ")
    if len(words) <= 2:
        print(" ".join(name for name in commands if name.startswith(words[-1])))
    elif words[-1].startswith("-"):
        print()
    elif words[1] == "train":
        os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
        found = _hydra(args).split()
        print(" ".join(word for word in found if not word.rpartition("=")[2].startswith("_")))
    elif words[1] == "options" and len(words) == 3:
        print(" ".join(_options(words[2])))
    return 0


def _options(word: str) -> list[str]:
    group, slash, _ = word.partition("/")
    if slash and group in GROUPS:
        found = [f"{group}/{name}" for name in compose.Sources().options(group)]
    else:
        found = list(GROUPS)
    return [name for name in found if name.startswith(word)]


def _hydra(args: list[str]) -> str:
    """The output of Hydra's own completion."""
    import hydra

    before = sys.argv
    sys.argv = ["cae", "-sc", *args]
    answer = io.StringIO()
    try:
        with contextlib.redirect_stdout(answer):
            hydra.main(version_base="1.3", config_path=str(compose.CONFIGS), config_name="config")(
                lambda config: None
            )()
    finally:
        sys.argv = before
    return answer.getvalue()
