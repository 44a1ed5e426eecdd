"""``cae runs``: lists, shows, tags and removes runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cae_cli.commands.arguments import RUN_HELP, RUNS_HELP, count, parse_plain
from cae_cli.errors import UserError, counted, did_you_mean, printable, to_paste
from cae_cli.report import numbers, terminal
from cae_cli.report.sections import Column, Part, Table, as_csv, line
from cae_cli.runs import query
from cae_cli.runs.reader import Entry
from cae_cli.runs.registry import Registry, check_removable, flat, remove
from cae_cli.system.guarded import GuardedPath

MAX_TAG = 60  # characters

HELP = f"""\
usage: cae runs ls [filter …]
       cae runs show RUN
       cae runs tag RUN [tag …] [-tag …]
       cae runs rm RUN … [--yes] [--force]

ls lists the runs below runs/, including the jobs of sweeps, the newest last.
The numbers stay the same until a run is removed. All filters must match (quote
< and >):
  status=ok               ok, failed, interrupted or running
  task=train  tag=best    the folder below runs/; a tag
  since=2d                started since: 30m, 12h, 2d, 1w, 2026-01-31
  loss=ssim  model=l2     the option of a group; != for all others
  'loss.window>7'         a key of the config: = != < > <= >=
  'psnr>20'               a metric: {", ".join(query.FIGURES[:5])},
                          {", ".join(query.FIGURES[5:])}
  photos                  any text in the command, the tags, the diagnosis, …

  --sort METRIC           sort by a metric, the best first
  --limit N               show the last N, or the best N with --sort
  --json, --csv           print everything, for other programs

show prints all about one run.

tag adds tags, and removes those with a leading minus. The tags of a run start
with those of its config (tags=…).

rm asks for confirmation and removes runs, but never one in progress. To remove
a whole sweep, give its folder.
  --yes                   do not ask
  --force                 also a run that may be in progress on another machine,
                          on a file system without locks

{RUN_HELP}
flags:
{RUNS_HELP}"""


def main(args: list[str]) -> int:
    """Runs the given sub-command."""
    verb, *rest = args or [""]
    verbs = {"ls": _ls, "show": _show, "tag": _tag, "rm": _rm}
    if verb in ("-h", "--help") or {"-h", "--help"} & set(rest):
        print(HELP, end="")
        return 0
    if verb not in verbs:
        raise UserError(
            f"there is no cae runs {verb!r}" if verb else "cae runs needs a sub-command",
            where="command line: cae runs",
            hint=did_you_mean(verb, verbs, "one of"),
        )
    return verbs[verb](rest)


# -- ls --------------------------------------------------------------------------------------------


def _ls(args: list[str]) -> int:
    switch = {"action": "store_true"}
    flags = parse_plain(
        "cae runs", args, sort={}, limit={"type": count}, json=switch, csv=switch
    )  # fmt: skip
    conditions = [query.Condition.of(word) for word in flags.names]
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
        terminal.stderr_console().print(f"none of {len(registry.entries):,} runs matches")
    else:
        terminal.Screen().say(f"there are no runs below {registry.root}")
    _say_problems(found)
    return 0


def _listed(found: Sequence[Entry]) -> Table:
    tasks = [entry.task for entry in found]
    figures = [entry.figures for entry in found]
    return Table(
        [
            Column("#", [str(entry.number) for entry in found], right=True),
            Column("id", [entry.id for entry in found]),
            Column("started", [_when(entry.begun) for entry in found]),
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
    """Day and minute, or the date if it was another year."""
    return f"{moment:%m-%d %H:%M}" if moment.year == datetime.now().year else f"{moment:%Y-%m-%d}"


def _differs(entry: Entry) -> str:
    """The overrides of its command without tags, which have their own column.

    Of a run from elsewhere, what is known of its training.
    """
    if entry.from_elsewhere:
        known = {key.removesuffix(".name"): value for key, value in flat(entry.config).items()}
        return " ".join(f"{key}={value}" for key, value in known.items() if "rules" not in key)
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
        command, tags = to_paste(*entry.command), ",".join(entry.tags)
        figures = [entry.figures.get(name) for name in query.FIGURES]
        rows.append([*(plain[name] for name in names), *figures, entry.verdict, tags, command])
    return as_csv([*names, *query.FIGURES, "verdict", "tags", "command"], rows)


def _say_problems(found: Sequence[Entry]) -> None:
    """Names the runs whose files could not be read."""
    screen = terminal.Screen()
    for entry in found:
        for warning in entry.warnings:
            screen.say(f"! {entry.id}: {warning}")


# -- show ------------------------------------------------------------------------------------------


def _show(args: list[str]) -> int:
    flags = parse_plain("cae runs", args, json={"action": "store_true"})
    registry = Registry(flags.runs)
    entry = registry.entry(registry.find(_one(flags.names, "cae runs show last")))
    if not (entry.setup or entry.problems or entry.status != "unknown"):
        raise UserError("run.json is missing", where=entry.folder, hint="is this the folder of a run?")
    if flags.json:
        json.dump(_plain(entry), sys.stdout, indent=2)
        print()
    else:
        terminal.show([*_facts(entry), terminal.folder(Path(printable(str(entry.folder))))])
    _say_problems([entry])
    return 0


def _facts(entry: Entry) -> list[Part]:
    facts = {
        "run": f"{entry.id}, number {entry.number}" if entry.number else entry.id,
        "started": f"{entry.begun:%Y-%m-%d %H:%M:%S}",
        "status": ": ".join(filter(None, (entry.status, entry.reason))),
        "duration": numbers.duration(entry.seconds),
        "tags": ", ".join(entry.tags),
        "command": to_paste(*entry.command),
        "config": _beyond_defaults(entry),
        "images": _images(entry.data),
        "code": _code(entry.setup),
        "diagnosis": entry.verdict,
        "metrics": _figures(entry.figures),
        "files": _files(entry.run.root),
        "next": _next(entry),
    }
    width = max(map(len, facts)) + 2
    lines = [f"{name:<{width}}{printable(text)}" for name, text in facts.items() if text]
    return [line(text, whole=True) for text in lines]


def _beyond_defaults(entry: Entry) -> str:
    """The config as overrides of the current defaults."""
    if not entry.command:
        return ""
    from cae_cli.config.overrides import overrides_of

    try:
        return " ".join(overrides_of(entry.config).overrides) or "the defaults"
    except UserError as error:
        return f"not valid in this version: {error.what}"


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


def _files(folder: GuardedPath) -> str:
    """What is in the folder, folders with the number of their files."""
    names = []
    try:
        for path in folder.children():
            if path.is_folder():
                names.append(f"{path.name}/ ({len(path.children())})")
            elif not path.name.startswith("."):
                names.append(path.name)
    except OSError:
        pass
    return ", ".join(name for name in names if not name.startswith("."))


def _next(entry: Entry) -> str:
    """The command that is likely to come next."""
    if entry.status == "interrupted" and entry.command:
        return to_paste("cae", "resume", entry.folder)
    if entry.status == "ok":
        return to_paste("cae", "report", entry.folder)
    if entry.status == "failed" and entry.command:
        return f"{to_paste('cae', 'rerun', entry.folder)} …"
    return ""


# -- tag -------------------------------------------------------------------------------------------


def _tag(args: list[str]) -> int:
    minus = [arg for arg in args if arg.startswith("-") and not arg.startswith("--")]
    flags = parse_plain("cae runs", [arg for arg in args if arg not in minus])
    name, *added = flags.names or [""]
    registry = Registry(flags.runs)
    run = registry.find(_one([name] if name else [], "cae runs tag last good"))
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
                hint=did_you_mean(tag, tags, "its tags are"),
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
    is_plain = tag.isprintable() and not any(c.isspace() or c in ",=" for c in tag)
    if not tag or not is_plain or len(tag) > MAX_TAG:
        raise UserError(
            f"a tag has at most {MAX_TAG} characters, without spaces, commas and =, got {tag!r}",
            where="command line: cae runs tag",
            hint="cae runs tag last good first-try",
        )


# -- rm --------------------------------------------------------------------------------------------


def _rm(args: list[str]) -> int:
    switch = {"action": "store_true"}
    flags = parse_plain("cae runs", args, yes=switch, force=switch)
    if not flags.names:
        _one([], "cae runs rm last")
    registry = Registry(flags.runs)
    lines: dict[Path, str] = {}
    for name in flags.names:  # before anything is removed, because numbers change then
        sweep = registry.find_sweep(name)
        folder = sweep or registry.find(name).folder
        check_removable(folder, sweep=sweep is not None, force=flags.force)
        lines[folder] = f"{folder}  {_description(registry, folder, sweep)}".rstrip()
    if not flags.yes:
        _confirm(list(lines.values()))
    for folder in lines:
        if folder.exists():  # a job is gone when its sweep was removed
            remove(folder)
            terminal.Screen().say(f"removed {folder}")
    return 0


def _description(registry: Registry, folder: Path, sweep: Path | None) -> str:
    if sweep is not None:
        jobs = len(registry.jobs(sweep))
        return f"a sweep with {counted(jobs, 'job')}, which are removed too"
    entry = registry.entry(registry.find(str(folder)))
    tags = f"tagged {','.join(entry.tags)}" if entry.tags else ""
    return ", ".join(filter(None, (entry.status, tags)))


def _confirm(lines: Sequence[str]) -> None:
    """Asks whether to remove the folders.

    Raises:
        UserError: the answer is no, or there is no terminal.
    """
    screen = terminal.Screen()
    for text in lines:
        screen.say(f"  {text}")
    if sys.stdin is None or not sys.stdin.isatty():
        raise UserError(
            "removing needs a confirmation, and there is no terminal to ask at",
            where="command line: cae runs rm",
            hint="--yes removes without asking",
        )
    count = counted(len(lines), "folder")
    print(f"remove {count}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("nothing was removed", hint="answer y to remove")


def _one(names: Sequence[str], example: str) -> str:
    if len(names) != 1:
        raise UserError(
            f"expected one run, got {len(names)}", where="command line: cae runs", hint=example
        )
    return names[0]
