"""``cae diff A B``: what differs between two runs, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cae_cli.commands.args import RUN_WORDS, RUNS, parsed
from cae_cli.errors import UserError
from cae_cli.report import comparison, terminal
from cae_cli.runs import query
from cae_cli.runs.reader import Entry
from cae_cli.runs.registry import Registry, flat

HELP = f"""\
usage: cae diff A B

Says what differs between two runs: config, images, code, machine and figures.
The exit code is 0 if nothing does and 1 if anything does, as that of diff.

A and B are runs. {RUN_WORDS}
flags:
{RUNS}"""

ABSENT = object()


def main(arguments: list[str]) -> int:
    """Compares the two runs that are named."""
    flags = parsed("cae diff", arguments)
    if flags.help:
        print(HELP, end="")
        return 0
    if len(flags.words) != 2:
        raise UserError(
            f"two runs, got {len(flags.words)}",
            where="command line: cae diff",
            hint="cae diff last-1 last",
        )
    registry = Registry(flags.runs)
    a, b = (registry.entry(registry.find(word)) for word in flags.words)
    for entry in (a, b):
        if not entry.setup:
            problems = entry.problems
            raise problems[0] if problems else UserError("run.json is missing", where=entry.folder)
    sections = differing(a, b)
    terminal.show(comparison.differences(sections, ABSENT))
    if not any(sections.values()):
        terminal.talk().print(f"no difference in {', '.join(sections)}")
        return 0
    return 1


def differing(a: Entry, b: Entry) -> dict[str, dict[str, tuple[Any, Any]]]:
    """What two runs do not share, by section and key; `ABSENT` where one of them has nothing."""
    before, after = _sections(a), _sections(b)
    return {
        name: {
            key: (before[name].get(key, ABSENT), after[name].get(key, ABSENT))
            for key in dict.fromkeys([*before[name], *after[name]])
            if before[name].get(key, ABSENT) != after[name].get(key, ABSENT)
        }
        for name in before
    }


def _sections(entry: Entry) -> dict[str, Mapping[str, Any]]:
    """What a run is told apart by; when it was run and how long it took is no part of it."""
    setup = entry.setup
    config = {key.removesuffix(".name"): value for key, value in flat(entry.config).items()}
    data = flat({key: value for key, value in entry.data.items() if key != "notes"})
    figures: dict[str, Any] = {n: v for n, v in entry.figures.items() if n in query.RISES}
    if entry.verdict:
        figures["verdict"] = entry.verdict
    return {
        "config": config,
        "images": {key: _short(value) if key == "fingerprint" else value for key, value in data.items()},
        "code": {
            **{f"git.{key}": _short(value) for key, value in flat(setup.get("git") or {}).items()},
            **flat(setup.get("packages") or {}),
        },
        "machine": flat(setup.get("machine") or {}),
        "figures": {"status": entry.status, **figures},
    }


def _short(value: Any) -> Any:
    """A hash by its first digits, which tell it from any other."""
    return value[:12] if isinstance(value, str) else value
