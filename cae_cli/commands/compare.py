"""``cae compare``: runs beside each other, by metrics that do not depend on the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cae_cli.commands.args import RUN_WORDS, RUNS, count, parsed
from cae_cli.errors import UserError
from cae_cli.report import numbers, terminal
from cae_cli.report.sections import Column, Part, Table, as_csv, line
from cae_cli.runs import query
from cae_cli.runs.reader import Entry
from cae_cli.runs.registry import Registry, flat
from cae_cli.statistics.ranking import RANKING_METRICS

# Of no interest where runs are told apart.
APART = ("tags", "task_name")

HELP = f"""\
usage: cae compare RUN RUN …
       cae compare SWEEP

Puts runs beside each other: quality on held-out images, health of the filters,
the diagnosis and the time. The best of a column has a star. Says so where
figures must not be compared, because the images are not the same.

  --by METRIC             the best first: {", ".join(query.FIGURES[:5])},
                          {", ".join(query.FIGURES[5:])}; of a sweep by psnr
  --top N                 the first N
  --csv                   full numbers, for other programs
  --picture FILE.png      what the networks make of the same images, as a picture

SWEEP is the folder of a sweep, or its four letters.
{RUN_WORDS}
flags:
{RUNS}"""


def main(arguments: list[str]) -> int:
    """Compares the runs that are named."""
    flags = parsed(
        "cae compare",
        arguments,
        top={"type": count},
        by={},
        csv={"action": "store_true"},
        picture={"type": Path},
    )
    if flags.help:
        print(HELP, end="")
        return 0
    by = query.checked_metric(flags.by) if flags.by else None
    registry = Registry(flags.runs)
    found: list[Entry] = []
    for word in flags.words:
        sweep = registry.find_sweep(word)
        if sweep is not None:
            found += registry.jobs(sweep)
            by = by or "psnr"
        else:
            found.append(registry.entry(registry.find(word)))
    found = list({entry.folder.resolve(): entry for entry in found}.values())
    if len(found) < 2:
        raise UserError(
            f"two runs or a sweep, got {len(found)} run{'' if len(found) == 1 else 's'}",
            where="command line: cae compare",
            hint="cae compare last-1 last",
        )
    if by:
        found = query.ordered(found, by)
    found = found[: flags.top]
    differs = _differing(found)
    losses = [entry.val_loss for entry in found]
    if flags.csv:
        print(_csv(found, differs, losses), end="")
    else:
        terminal.show(_compared(found, differs, losses))
    screen = terminal.Screen()
    for entry in found:
        for warning in entry.warnings:
            screen.say(f"! {entry.id}: {warning}")
    if flags.picture is not None:
        _draw(flags.picture, found, differs)
        screen.say(f"drawn: {flags.picture}")
    return 0


def _differing(found: Sequence[Entry]) -> list[str]:
    """What each config has that not all have, in words."""
    configs = [flat(entry.config) for entry in found]
    groups = list(dict.fromkeys(key.partition(".")[0] for config in configs for key in config))
    keys = sorted(
        dict.fromkeys(key for config in configs for key in config),
        key=lambda key: groups.index(key.partition(".")[0]),
    )
    missing = object()
    apart = [k for k in keys if k not in APART and not _all_equal([c.get(k, missing) for c in configs])]
    return [
        " ".join(f"{k.removesuffix('.name')}={numbers.value(c[k])}" for k in apart if k in c)
        for c in configs
    ]


def _all_equal(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)


def _compared(
    found: Sequence[Entry], differs: Sequence[str], losses: Sequence[float | None]
) -> list[Part]:
    notes = _notes(found)
    same_images = len(_images(found)) <= 1
    columns = [
        Column("run", [entry.id for entry in found]),
        Column("differs by", differs, cut=True),
    ]
    if any(entry.status != "ok" for entry in found):
        columns.append(Column("status", [entry.status for entry in found]))
    figures = {name: [e.figures.get(name) for e in found] for name in query.RISES}
    for name, values in figures.items():
        metric = RANKING_METRICS.get(name)
        is_share = name in ("explained", "inactive", "duplicates", "prunable")
        digits = metric.digits if metric else 3
        texts = [numbers.share(v) if is_share else numbers.number(v, digits) for v in values]
        best = _best(values, texts, rises=query.RISES[name]) if same_images else frozenset()
        title = "inactive" if name == "inactive" else metric.title if metric else name
        spare = int(name in ("mse", "duplicates", "prunable"))
        columns.append(Column(title, texts, right=True, starred=best, spare=spare))
    if _same_loss(found) and same_images:
        texts = [numbers.number(v, 5) for v in losses]
        best = _best(losses, texts, rises=False)
        columns.append(Column("val/loss", texts, right=True, starred=best, spare=1))
    took = [numbers.duration(entry.seconds) for entry in found]
    columns += [
        Column("took", took, right=True, spare=1),
        Column("diagnosis", [entry.problem for entry in found], cut=True),
    ]
    return [Table(columns), *(line(f"! {note}", whole=True) for note in notes)]


def _best(values: Sequence[float | None], texts: Sequence[str], *, rises: bool) -> frozenset[int]:
    """Rows that are shown with the best value; none where all are the same."""
    known = {i: v for i, v in enumerate(values) if v is not None}
    if len({texts[i] for i in known}) < 2:
        return frozenset()
    first = (max if rises else min)(known.values())
    top = {texts[i] for i, v in known.items() if v == first}
    return frozenset(i for i in known if texts[i] in top)


def _images(found: Sequence[Entry]) -> dict[tuple[str, str], list[Entry]]:
    """The runs by the images that they were measured on."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in found:
        if entry.figures.keys() - {"seconds"}:
            groups.setdefault(entry.held_out, []).append(entry)
    return groups


def _same_loss(found: Sequence[Entry]) -> bool:
    return _all_equal([entry.config.get("loss") for entry in found])


def _notes(found: Sequence[Entry]) -> list[str]:
    """What is not to be compared."""
    notes = []
    groups = _images(found)
    if len(groups) > 1:
        which = "; ".join(
            f"{fingerprint[:8] or 'not known'}{f' ({part})' if part else ''}: "
            + ", ".join(entry.id for entry in entries[:8])
            + (f" and {len(entries) - 8} more" if len(entries) > 8 else "")
            for (fingerprint, part), entries in groups.items()
        )
        notes.append(f"the images differ, so the figures must not be compared ({which})")
    if not _same_loss(found):
        names = dict.fromkeys(_loss(entry) for entry in found)
        notes.append(f"val/loss is not comparable: {', '.join(filter(None, names))}")
    return notes


def _loss(entry: Entry) -> str:
    loss = entry.config.get("loss")
    if not isinstance(loss, dict):
        return ""
    options = [f"{k}={numbers.value(v)}" for k, v in loss.items() if k != "name"]
    return f"loss={loss.get('name')}" + (f" ({' '.join(options)})" if options else "")


def _csv(found: Sequence[Entry], differs: Sequence[str], losses: Sequence[float | None]) -> str:
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
        for entry, differ, loss in zip(found, differs, losses, strict=True)
    ]
    return as_csv([*header, "images", "held_out", "verdict"], rows)


def _draw(path: Path, found: Sequence[Entry], differs: Sequence[str]) -> None:
    from cae_cli.report.figures import comparison

    images, outputs, captions = [], {}, {}
    for entry, differ in zip(found, differs, strict=True):
        arrays = entry.run.read_arrays(entry.run.arrays)
        try:
            pair = arrays["example_images"], arrays["example_outputs"]
        except KeyError as error:
            raise UserError(f"{error} is not there", where=entry.run.arrays) from error
        images.append(pair[0])
        outputs[entry.id], captions[entry.id] = pair[1], differ
        if pair[0].ndim != 4 or pair[0].shape != pair[1].shape or not comparison.same_images(images):
            raise UserError(
                f"{entry.id} was shown other images than {found[0].id}",
                where=entry.folder,
                hint="leave out --picture, or the run",
            )
    comparison.picture(path, images[0], outputs, captions)
