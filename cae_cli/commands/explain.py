"""``cae explain CODE``: what a rule measures, where its threshold comes from, why it matters."""

from __future__ import annotations

import textwrap

from cae_cli.diagnosis import RULES
from cae_cli.diagnosis.catalogue import with_own_rules
from cae_cli.errors import UserError, did_you_mean

HELP = """\
usage: cae explain CODE

Tells all of a rule: what it measures, its threshold and where that comes from,
and why it matters. cae rules lists the codes.
"""


def main(arguments: list[str]) -> int:
    """Tells all of one rule."""
    if "-h" in arguments or "--help" in arguments:
        print(HELP, end="")
        return 0
    arguments = with_own_rules(arguments)
    if len(arguments) != 1:
        raise UserError(f"one code, got {len(arguments)}", hint="cae rules lists them")
    known = {rule.code: rule for rule in RULES}
    code = arguments[0].upper()
    if code not in known:
        raise UserError(f"there is no rule {arguments[0]!r}", hint=did_you_mean(code, known))
    print(f"{code}: {known[code].problem}\n")
    for name, text in known[code].facts():
        print(textwrap.fill(text, 78, initial_indent=f"  {name + ':':<18}", subsequent_indent=" " * 20))
    return 0
