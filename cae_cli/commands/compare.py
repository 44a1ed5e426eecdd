"""``cae compare``: metrics of several runs that do not depend on the loss, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cae_cli.commands.arguments import RUN_HELP, RUNS_HELP, count, parse_plain
from cae_cli.errors import UserError, counted
from cae_cli.report import comparison, numbers, terminal
from cae_cli.report.sections import Column, Part, Table, as_csv, line
from cae_cli.runs import query
from cae_cli.runs.reader import Entry
from cae_cli.runs.registry import Registry, flat
from cae_cli.statistics.ranking import RANKING_METRICS
from cae_cli.system.files import writing
from cae_cli.system.guarded import GuardedPath

IGNORED = ("tags", "task_name")  # keys that do not tell runs apart
ABSENT = object()

HELP = f"""\
usage: cae compare RUN RUN …
       cae compare SWEEP

Compares runs in a table: quality on held-out images, health of the filters, the
diagnosis and the duration. A star marks the best value of a column. If the runs
were measured on different images, a note says that the values are not
comparable. For two runs, also lists what differs in config, images, code,
machine and metrics.

  --by METRIC             sort by this metric, the best first; the default for a
                          sweep is psnr. One of {", ".join(query.FIGURES[:4])},
                          {", ".join(query.FIGURES[4:])}
  --top N                 show only the first N
  --csv                   print all digits as CSV, for other programs
  --picture FILE.png      draw the same images as reconstructed by each run
  --html FILE.html        write a page: the table, the same images as made by
                          each run, and filters paired by what they respond to
  --exit-code             exit with code 1 if the two runs differ in anything

SWEEP is the folder of a sweep, or its four-letter id.
{RUN_HELP}
flags:
{RUNS_HELP}"""


def main(args: list[str]) -> int:
    """Compares the given runs.

    Returns:
        0; with ``--exit-code`` 1 if the runs differ.
    """
    switch = {"action": "store_true"}
    flags = parse_plain(
        "cae compare",
        args,
        top={"type": count},
        by={},
        csv=switch,
        picture={"type": Path},
        html={"type": Path},
        **{"exit-code": switch},
    )
    if flags.help:
        print(HELP, end="")
        return 0
    by = query.checked_metric(flags.by) if flags.by else None
    registry = Registry(flags.runs)
    entries: list[Entry] = []
    for name in flags.names:
        sweep = registry.find_sweep(name)
        if sweep is not None:
            entries += registry.jobs(sweep)
            by = by or "psnr"
        else:
            entries.append(registry.entry(registry.find(name)))
    entries = list({entry.folder.resolve(): entry for entry in entries}.values())
    if len(entries) < 2:
        raise UserError(
            f"expected two runs or a sweep, got {counted(len(entries), 'run')}",
            where="command line: cae compare",
            hint="cae compare last-1 last",
        )
    if flags.exit_code:
        _check_pair(entries)
    differences = _differences(entries)
    if by:
        entries = query.ordered(entries, by)
    entries = entries[: flags.top]
    differs = _differing(entries)
    losses = [entry.val_loss for entry in entries]
    if flags.csv:
        print(_csv(entries, differs, losses), end="")
    else:
        terminal.show(_compared(entries, differs, losses))
        if differences is not None:
            terminal.show(["", *comparison.differences(differences, ABSENT)])
    screen = terminal.Screen()
    if differences is not None and not any(differences.values()):
        screen.say(f"no difference in {', '.join(differences)}")
    for entry in entries:
        for warning in entry.warnings:
            screen.say(f"! {entry.id}: {warning}")
    if flags.picture is not None:
        _draw(flags.picture, entries, differs)
        screen.say(f"drawn: {flags.picture}")
    if flags.html is not None:
        parts = _compared(entries, differs, losses)
        if differences is not None:
            parts += comparison.differences(differences, ABSENT)
        _write_page(flags.html, parts, entries, differs)
        screen.say(f"to look at it, open {flags.html}")
    return int(flags.exit_code and any((differences or {}).values()))


def _check_pair(entries: Sequence[Entry]) -> None:
    """Raises UserError unless these are two runs whose files can be read."""
    if len(entries) != 2:
        raise UserError(
            f"--exit-code needs two runs, got {len(entries)}",
            where="command line: cae compare",
            hint="cae compare last-1 last --exit-code",
        )
    for entry in entries:
        if not entry.setup:
            problems = entry.problems
            raise problems[0] if problems else UserError("run.json is missing", where=entry.folder)


def _differences(entries: Sequence[Entry]) -> dict[str, dict[str, tuple[Any, Any]]] | None:
    """What two runs do not share, by section and key, `ABSENT` where one of them has nothing.

    Returns:
        None unless there are exactly two runs that can be read.
    """
    if len(entries) != 2 or not all(entry.setup for entry in entries):
        return None
    before, after = map(_sections, entries)
    return {
        name: {
            key: (before[name].get(key, ABSENT), after[name].get(key, ABSENT))
            for key in dict.fromkeys([*before[name], *after[name]])
            if before[name].get(key, ABSENT) != after[name].get(key, ABSENT)
        }
        for name in before
    }


def _sections(entry: Entry) -> dict[str, Mapping[str, Any]]:
    """All that can tell two runs apart, except when they ran and how long they took."""
    setup = entry.setup
    config = {key.removesuffix(".name"): value for key, value in flat(entry.config).items()}
    data = flat({key: value for key, value in entry.data.items() if key != "notes"})
    metrics: dict[str, Any] = {n: v for n, v in entry.figures.items() if n in query.RISES}
    if entry.verdict:
        metrics["verdict"] = entry.verdict
    return {
        "config": config,
        "images": {key: _short(value) if key == "fingerprint" else value for key, value in data.items()},
        "code": {
            **{f"git.{key}": _short(value) for key, value in flat(setup.get("git") or {}).items()},
            **flat(setup.get("packages") or {}),
        },
        "machine": flat(setup.get("machine") or {}),
        "metrics": {"status": entry.status, **metrics},
    }


def _short(value: Any) -> Any:
    """The first digits of a hash, which tell it from any other."""
    return value[:12] if isinstance(value, str) else value


def _differing(entries: Sequence[Entry]) -> list[str]:
    """The overrides of each run that not all runs share, as text."""
    configs = [flat(entry.config) for entry in entries]
    groups = list(dict.fromkeys(key.partition(".")[0] for config in configs for key in config))
    keys = sorted(
        dict.fromkeys(key for config in configs for key in config),
        key=lambda key: groups.index(key.partition(".")[0]),
    )
    missing = object()
    keys = [k for k in keys if k not in IGNORED]
    apart = [k for k in keys if not _all_equal([c.get(k, missing) for c in configs])]
    return [
        " ".join(f"{k.removesuffix('.name')}={numbers.value(c[k])}" for k in apart if k in c)
        for c in configs
    ]


def _all_equal(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _compared(
    entries: Sequence[Entry], differs: Sequence[str], losses: Sequence[float | None]
) -> list[Part]:
    notes = _notes(entries)
    same_images = len(_images(entries)) <= 1
    columns = [
        Column("run", [entry.id for entry in entries]),
        Column("differs by", differs, cut=True),
    ]
    if any(entry.status != "ok" for entry in entries):
        columns.append(Column("status", [entry.status for entry in entries]))
    figures = {name: [e.figures.get(name) for e in entries] for name in query.RISES}
    for name, values in figures.items():
        metric = RANKING_METRICS.get(name)
        is_share = name in ("explained", "inactive", "duplicates", "prunable")
        digits = metric.digits if metric else 3
        texts = [numbers.share(v) if is_share else numbers.number(v, digits) for v in values]
        best = _best(values, texts, rises=query.RISES[name]) if same_images else frozenset()
        title = "inactive" if name == "inactive" else metric.title if metric else name
        spare = int(name in ("mse", "duplicates", "prunable"))
        columns.append(Column(title, texts, right=True, starred=best, spare=spare))
    if _same_loss(entries) and same_images:
        texts = [numbers.number(v, 5) for v in losses]
        best = _best(losses, texts, rises=False)
        columns.append(Column("val/loss", texts, right=True, starred=best, spare=1))
    durations = [numbers.duration(entry.seconds) for entry in entries]
    columns += [
        Column("duration", durations, right=True, spare=1),
        Column("diagnosis", [entry.problem for entry in entries], cut=True),
    ]
    return [Table(columns), *(line(f"! {note}", whole=True) for note in notes)]


def _best(values: Sequence[float | None], texts: Sequence[str], *, rises: bool) -> frozenset[int]:
    """Rows whose shown value is the best one; empty if all values are the same."""
    known = {i: v for i, v in enumerate(values) if v is not None}
    if len({texts[i] for i in known}) < 2:
        return frozenset()
    first = (max if rises else min)(known.values())
    top = {texts[i] for i, v in known.items() if v == first}
    return frozenset(i for i in known if texts[i] in top)


def _images(entries: Sequence[Entry]) -> dict[tuple[str, str], list[Entry]]:
    """The runs, grouped by the images that they were measured on."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.figures.keys() - {"seconds"}:
            groups.setdefault(entry.held_out, []).append(entry)
    return groups


def _same_loss(entries: Sequence[Entry]) -> bool:
    return _all_equal([entry.config.get("loss") for entry in entries])


def _notes(entries: Sequence[Entry]) -> list[str]:
    """Notes about values that are not comparable."""
    notes = []
    groups = _images(entries)
    if len(groups) > 1:
        which = "; ".join(
            ", ".join(entry.id for entry in entries[:8])
            + (f" and {len(entries) - 8} more" if len(entries) > 8 else "")
            + f": {f'{part} ' if part else ''}images {fingerprint[:8] or 'unknown'}"
            for (fingerprint, part), entries in groups.items()
        )
        notes.append(f"the images differ, so the metrics are not comparable ({which})")
    if not _same_loss(entries):
        names = dict.fromkeys(_loss(entry) for entry in entries)
        notes.append(f"val/loss is not comparable: {', '.join(filter(None, names))}")
    return notes


def _loss(entry: Entry) -> str:
    loss = entry.config.get("loss")
    if not isinstance(loss, dict):
        return ""
    options = [f"{k}={numbers.value(v)}" for k, v in loss.items() if k != "name"]
    return f"loss={loss.get('name')}" + (f" ({' '.join(options)})" if options else "")


def _csv(entries: Sequence[Entry], differs: Sequence[str], losses: Sequence[float | None]) -> str:
    header = ["run", "folder", "differs", "status", *query.FIGURES, "val/loss", "loss"]
    rows = [
        [
            entry.id,
            str(entry.folder),
            differ,
            entry.status,
            *(entry.figures.get(name) for name in query.FIGURES),
            loss,
            _loss(entry),
            *entry.held_out,
            entry.verdict,
        ]
        for entry, differ, loss in zip(entries, differs, losses, strict=True)
    ]
    return as_csv([*header, "images", "held_out", "verdict"], rows)


def _draw(path: Path, entries: Sequence[Entry], differs: Sequence[str]) -> None:
    from cae_cli.report.figures import comparison

    images, outputs, captions = [], {}, {}
    for entry, differ in zip(entries, differs, strict=True):
        arrays = entry.run.read_arrays(entry.run.arrays)
        try:
            pair = arrays["example_images"], arrays["example_outputs"]
        except KeyError as error:
            raise UserError(f"{error} is missing", where=entry.run.arrays) from error
        images.append(pair[0])
        outputs[entry.id], captions[entry.id] = pair[1], differ
        if pair[0].ndim != 4 or pair[0].shape != pair[1].shape or not comparison.same_images(images):
            raise UserError(
                f"{entry.id} and {entries[0].id} have different example images",
                where=entry.folder,
                hint="leave out --picture or this run",
            )
    comparison.picture(path, images[0], outputs, captions)


def _write_page(
    path: Path, parts: Sequence[Part], entries: Sequence[Entry], differs: Sequence[str]
) -> None:
    from cae_cli.report.page import comparison as page
    from cae_cli.runs.opening import reading

    runs = []
    for entry, differ in zip(entries, differs, strict=True):
        run = entry.run
        views = run.read_arrays(run.views) if run.views.exists() else {}
        runs.append(page.Compared(f"{entry.id} {differ}".strip(), run.read_arrays(run.arrays), views))
    with reading(entries[0].run):
        text = page.html(f"comparison of {counted(len(runs), 'run')}", parts, runs)
    with writing(path), GuardedPath.of(path).atomic() as temporary:
        temporary.write_text(text, encoding="utf-8")
