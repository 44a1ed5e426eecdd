"""``cae rules``: what the diagnosis looks for."""

from __future__ import annotations

from cae_cli.diagnosis import RULES
from cae_cli.errors import UserError

HELP = """\
usage: cae rules

Lists the rules of the diagnosis; cae explain CODE tells all of one.
"""


def main(arguments: list[str]) -> int:
    """Lists the rules in the order of their codes."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    if arguments:
        raise UserError(
            f"cae rules takes no arguments, got {arguments[0]!r}", hint=f"cae explain {arguments[0]}"
        )
    for rule in RULES:
        print(f"{rule.code}  {rule.severity.value:<8} {rule.problem}")
    return 0
