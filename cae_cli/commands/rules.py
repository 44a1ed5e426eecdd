"""``cae rules [CODE]``: the rules of the diagnosis, or everything about one."""

from __future__ import annotations

import textwrap
from pathlib import Path

from cae_cli.commands import arguments
from cae_cli.diagnosis import RULES
from cae_cli.diagnosis.catalogue import load_rules
from cae_cli.errors import UserError, did_you_mean

HELP = """\
usage: cae rules [CODE]

Lists the rules of the diagnosis. With a CODE, such as CAE301, explains one
rule: what it measures, its threshold and where that comes from, and why it
matters.

flags:
  --rules FILE            load your own rules from a Python file, executing it
"""


def main(args: list[str]) -> int:
    """Lists the rules in the order of their codes, or explains one."""
    flags = arguments.parse_plain("cae rules", args, rules={"type": Path})
    if flags.help:
        print(HELP, end="")
        return 0
    if flags.rules is not None:
        load_rules(flags.rules)
    codes = flags.names
    if len(codes) > 1:
        raise UserError(
            f"expected one code, got {len(codes)}", where="command line: cae rules", hint="cae rules"
        )
    if not codes:
        for rule in RULES:
            print(f"{rule.code}  {rule.severity.value:<8} {rule.problem}")
        return 0
    known = {rule.code: rule for rule in RULES}
    code = codes[0].upper()
    if code not in known:
        hint = f"{did_you_mean(code, known)} cae rules lists all"
        raise UserError(f"there is no rule {codes[0]!r}", hint=hint)
    print(f"{code}: {known[code].problem}\n")
    for name, text in known[code].facts():
        print(textwrap.fill(text, 78, initial_indent=f"  {name + ':':<18}", subsequent_indent=" " * 20))
    return 0
