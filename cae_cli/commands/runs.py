"""``cae runs``: what was run, found again; tagged, shown and removed."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cae_cli.commands.args import RUN_WORDS, RUNS, count, parsed
from cae_cli.errors import UserError, did_you_mean, printable
from cae_cli.report import numbers, terminal
from cae_cli.report.sections import Column, Part, Table, as_csv, line
from cae_cli.runs import query
from cae_cli.runs.reader import Entry
from cae_cli.runs.registry import Registry, check_removable, remove

LONGEST_TAG = 60  # letters

HELP = f"""\
usage: cae runs ls [filter …]
       cae runs show RUN
       cae runs tag RUN [word …] [-word …]
       cae runs rm RUN … [--yes]

ls lists the runs below runs/, jobs of sweeps too, the newest last. Their numbers
stay what they are as long as no run is removed.

filters, all of which must hold (quote < and >):
  status=ok               ok, failed, interrupted or running
  task=train  tag=best    the folder below runs/; a tag
  since=2d                begun since: 30m, 12h, 2d, 1w, 2026-01-31
  loss=ssim  model=l2     the option of a group; != for all others
  'loss.window>7'         a key of the config: = != < > <= >=
  'psnr>20'               a metric: {", ".join(query.FIGURES[:5])},
                          {", ".join(query.FIGURES[5:])}
  photos                  any text: in the command, the tags, the diagnosis …

  --sort METRIC           the best first
  --limit N               the last N, the best N with --sort
  --json, --csv           everything, for other programs

show tells all about one run. tag adds words to find it by, and removes those
with a - before them; tags=… of its config count too. rm asks, and removes runs;
never one that is in use, and the jobs of a sweep together only if RUN is the
sweep's folder. --yes does not ask.

{RUN_WORDS}
flags:
{RUNS}"""


def main(arguments: list[str]) -> int:
    """Does what the first word says."""
    verb, *rest = arguments or [""]
    verbs = {"ls": _ls, "show": _show, "tag": _tag, "rm": _rm}
    if verb in ("-h", "--help") or {"-h", "--help"} & set(rest):
        print(HELP, end="")
        return 0
    if verb not in verbs:
        raise UserError(
            f"cae runs has no {verb!r}" if verb else "what of the runs?",
            where="command line: cae runs",
            hint=did_you_mean(verb, verbs, "one of"),
        )
    return verbs[verb](rest)


# -- ls --------------------------------------------------------------------------------------------


def _ls(arguments: list[str]) -> int:
    switch = {"action": "store_true"}
    flags = parsed(
        "cae runs", arguments, sort={}, limit={"type": count}, json=switch, csv=switch
    )  # fmt: skip
    conditions = [query.Condition.of(word) for word in flags.words]
    registry = Registry(flags.runs)
    found = query.select(registry.entries, conditions)
    if flags.sort:
        found = query.ordered(found, flags.sort)
        found = found[: flags.limit]
    elif flags.limit:
        found = found[-flags.limit :]
    if flags.json:
        lines = (json.dumps(_plain(entry)) for entry in found)  # a run on a line
        print("[", ",\n ".join(lines), "]", sep="")
    elif flags.csv:
        print(_csv(found), end="")
    elif found:
        terminal.show([_listed(found)])
    elif registry.entries:
        terminal.talk().print(f"none of {len(registry.entries):,} runs is such a one")
    else:
        terminal.Screen().say(f"there are no runs below {registry.root}")
    _tell_problems(found)
    return 0


def _listed(found: Sequence[Entry]) -> Table:
    tasks = [entry.task for entry in found]
    figures = [entry.figures for entry in found]
    return Table(
        [
            Column("#", [str(entry.number) for entry in found], right=True),
            Column("id", [entry.id for entry in found]),
            Column("begun", [_when(entry.begun) for entry in found]),
            Column("task", tasks, spare=1),
            Column("status", [entry.status for entry in found]),
            Column("differs by", [_differs(entry) for entry in found], cut=True),
            Column("PSNR", [numbers.number(f.get("psnr"), 2) for f in figures], right=True),
            Column("SSIM", [numbers.number(f.get("ssim"), 3) for f in figures], right=True),
            Column("diagnosis", [entry.problem for entry in found], cut=True),
            Column("tags", [",".join(entry.tags) for entry in found], cut=True),
        ]
    )


def _when(moment: datetime) -> str:
    """The day and the minute; of other years the date."""
    return f"{moment:%m-%d %H:%M}" if moment.year == datetime.now().year else f"{moment:%Y-%m-%d}"


def _differs(entry: Entry) -> str:
    """The overrides of its command; tags have a column of their own."""
    return " ".join(w for w in entry.command[2:] if not w.startswith(("tags=", "hydra.")))


def _plain(entry: Entry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "id": entry.id,
        "folder": str(entry.folder),
        "begun": entry.begun.isoformat(),
        "task": entry.task,
        "status": entry.status,
        "reason": entry.reason or None,
        "command": entry.command,
        "config": entry.config,
        "figures": entry.figures,
        "verdict": entry.verdict or None,
        "tags": entry.tags,
        "problems": [{"what": e.what, "where": e.where} for e in entry.problems],
    }


def _csv(found: Sequence[Entry]) -> str:
    names = ("number", "id", "folder", "begun", "task", "status", "reason")
    rows = []
    for entry in found:
        plain = _plain(entry)
        command, tags = shlex.join(entry.command), ",".join(entry.tags)
        figures = [entry.figures.get(name) for name in query.FIGURES]
        rows.append([*(plain[name] for name in names), *figures, entry.verdict, tags, command])
    return as_csv([*names, *query.FIGURES, "verdict", "tags", "command"], rows)


def _tell_problems(found: Sequence[Entry]) -> None:
    """Names the runs that could not be read, below the table."""
    screen = terminal.Screen()
    for entry in found:
        for warning in entry.warnings:
            screen.say(f"! {entry.id}: {warning}")


# -- show ------------------------------------------------------------------------------------------


def _show(arguments: list[str]) -> int:
    flags = parsed("cae runs", arguments, json={"action": "store_true"})
    registry = Registry(flags.runs)
    entry = registry.entry(registry.find(_one(flags.words, "cae runs show last")))
    if not (entry.setup or entry.problems or entry.status != "unknown"):
        raise UserError("run.json is missing", where=entry.folder, hint="is this the folder of a run?")
    if flags.json:
        json.dump(_plain(entry), sys.stdout, indent=2)
        print()
    else:
        terminal.show([*_told(entry), terminal.folder(Path(printable(str(entry.folder))))])
    _tell_problems([entry])
    return 0


def _told(entry: Entry) -> list[Part]:
    facts = {
        "run": f"{entry.id}, number {entry.number}" if entry.number else entry.id,
        "begun": f"{entry.begun:%Y-%m-%d %H:%M:%S}",
        "status": ": ".join(filter(None, (entry.status, entry.reason))),
        "took": numbers.duration(entry.seconds),
        "tags": ", ".join(entry.tags),
        "command": shlex.join(entry.command),
        "config": _beyond_defaults(entry),
        "images": _images(entry.data),
        "code": _code(entry.setup),
        "diagnosis": entry.verdict,
        "figures": _figures(entry.figures),
        "files": _files(entry.folder),
        "next": _next(entry),
    }
    width = max(map(len, facts)) + 2
    lines = [f"{name:<{width}}{printable(text)}" for name, text in facts.items() if text]
    return [line(text, whole=True) for text in lines]


def _beyond_defaults(entry: Entry) -> str:
    """The config as overrides of today's defaults."""
    if not entry.command:
        return ""
    from cae_cli.config.overrides import overrides_of

    try:
        return " ".join(overrides_of(entry.config).overrides) or "the defaults"
    except UserError as error:
        return f"not one of today's: {error.what}"


def _images(data: Mapping[str, Any]) -> str:
    parts = [f"{data[name]} {name}" for name in ("train", "validation", "test") if data.get(name)]
    shape = data.get("shape")
    sides = "x".join(map(str, shape)) if isinstance(shape, list) else ""
    fingerprint = str(data.get("fingerprint") or "")[:8]
    return ", ".join(filter(None, (str(data.get("source") or ""), sides, *parts, fingerprint)))


def _code(setup: Mapping[str, Any]) -> str:
    git, packages = setup.get("git"), setup.get("packages")
    parts = []
    if isinstance(packages, dict):
        parts = [f"{name} {packages.get(name)}" for name in ("cae-cli", "tensorflow", "keras")]
    if isinstance(git, dict):
        dirty = " and changes" if git.get("dirty") else ""
        parts.append(f"commit {str(git.get('commit'))[:10]}{dirty}")
    return ", ".join(parts)


def _figures(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{n} {v:.4g}" for n, v in figures.items() if n != "seconds")


def _files(folder: Path) -> str:
    """What is in the folder, folders with the number of their files."""
    names = []
    try:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                names.append(f"{path.name}/ ({sum(1 for _ in path.iterdir())})")
            elif not path.name.startswith("."):
                names.append(path.name)
    except OSError:
        pass
    return ", ".join(name for name in names if not name.startswith("."))


def _next(entry: Entry) -> str:
    """The command that is likely to come next."""
    folder = str(entry.folder)
    if entry.status == "interrupted" and entry.command:
        return shlex.join(["cae", "resume", folder])
    if entry.status == "ok":
        return shlex.join(["cae", "diagnose", folder, "--verbose"])
    if entry.status == "failed" and entry.command:
        return shlex.join(["cae", "rerun", folder, "…"])
    return ""


# -- tag -------------------------------------------------------------------------------------------


def _tag(arguments: list[str]) -> int:
    minus = [w for w in arguments if w.startswith("-") and not w.startswith("--")]
    flags = parsed("cae runs", [w for w in arguments if w not in minus])
    word, *added = flags.words or [""]
    registry = Registry(flags.runs)
    run = registry.find(_one([word] if word else [], "cae runs tag last good"))
    entry = registry.entry(run)
    if not (entry.setup or entry.status != "unknown"):
        raise UserError("not the folder of a run", where=run.folder, hint="cae runs ls")
    for tag in added:
        _check_tag(tag)
    tags = entry.tags
    removed = [tag[1:] for tag in minus]
    for tag in removed:
        if tag not in tags:
            raise UserError(
                f"the run has no tag {tag!r}",
                where=f"command line: -{tag}",
                hint=did_you_mean(tag, tags, "it has"),
            )
    kept = [tag for tag in dict.fromkeys([*tags, *added]) if tag not in removed]
    if kept != tags:
        try:
            run.write_tags(kept)
        except OSError as error:
            raise UserError(
                f"the tags cannot be written: {(error.strerror or str(error)).lower()}",
                where=run.tags_file,
            ) from error
    print(printable(" ".join(kept)))
    return 0


def _check_tag(tag: str) -> None:
    is_word = tag.isprintable() and not any(c.isspace() or c in ",=" for c in tag)
    if not tag or not is_word or len(tag) > LONGEST_TAG:
        raise UserError(
            f"a tag is one word of at most {LONGEST_TAG} letters without , and =, got {tag!r}",
            where="command line: cae runs tag",
            hint="cae runs tag last good first-try",
        )


# -- rm --------------------------------------------------------------------------------------------


def _rm(arguments: list[str]) -> int:
    flags = parsed("cae runs", arguments, yes={"action": "store_true"})
    if not flags.words:
        _one([], "cae runs rm last")
    registry = Registry(flags.runs)
    going: dict[Path, str] = {}
    for word in flags.words:  # all are found before the first goes, and their numbers with it
        sweep = registry.find_sweep(word)
        folder = sweep or registry.find(word).folder
        check_removable(folder, sweep=sweep is not None)
        going[folder] = f"{folder}  {_about(registry, folder, sweep)}".rstrip()
    if not flags.yes:
        _ask(list(going.values()))
    for folder in going:
        if folder.exists():  # else it went with its sweep
            remove(folder)
            terminal.Screen().say(f"removed {folder}")
    return 0


def _about(registry: Registry, folder: Path, sweep: Path | None) -> str:
    if sweep is not None:
        jobs = len(registry.jobs(sweep))
        return f"a sweep of {jobs} job{'' if jobs == 1 else 's'}, all of which go"
    entry = registry.entry(registry.find(str(folder)))
    tags = f"tagged {','.join(entry.tags)}" if entry.tags else ""
    return ", ".join(filter(None, (entry.status, tags)))


def _ask(what: Sequence[str]) -> None:
    """Asks whether the folders are to go.

    Raises:
        UserError: no, or nobody is there to be asked.
    """
    screen = terminal.Screen()
    for text in what:
        screen.say(f"  {text}")
    if not sys.stdin.isatty():
        raise UserError(
            "nothing is removed without a yes, and there is no terminal to ask at",
            where="command line: cae runs rm",
            hint="--yes removes them without asking",
        )
    print(f"remove {len(what)} folder{'' if len(what) == 1 else 's'}? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was removed", hint="y and Enter removes them")


def _one(words: Sequence[str], example: str) -> str:
    if len(words) != 1:
        raise UserError(f"one run, got {len(words)}", where="command line: cae runs", hint=example)
    return words[0]
