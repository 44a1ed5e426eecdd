"""``cae nearest``: the images that are nearest to others, by latent code and by pixels."""

from __future__ import annotations

from cae_cli.commands import arguments, networks
from cae_cli.errors import UserError
from cae_cli.report import terminal
from cae_cli.report.sections import Column, Part, Table
from cae_cli.runs import registry
from cae_cli.system.files import typed

MOST_SHOWN = 3  # images whose neighbours are listed on the screen

HELP = f"""\
usage: cae nearest RUN IMAGE… [data=…] --out nearest.csv

Finds the images that are nearest to each IMAGE, a file, by the distance of
their latent codes, and beside them those that are nearest by their pixels.
Writes a table, and draws the images into nearest.png.

Without data=…, the training images of the run are searched. An IMAGE that is
among them is its own nearest. A file of another size than the network takes is
resized and cropped.

  --count N               how many; the default is 8
  --out FILE              a table: nearest.csv, or nearest.parquet (needs
                          pyarrow)

{networks.SUBJECT_HELP}
flags:
{arguments.TRUST_HELP}{arguments.RUNS_HELP}"""


def main(args: list[str]) -> int:
    """Finds the nearest images."""
    flags = arguments.parse("cae nearest", args)
    if flags.help:
        print(HELP, end="")
        return 0
    from cae_cli.features import nearest, sheets, tables

    example = "cae nearest last photo.png --out nearest.csv"
    (subject, *files), words = registry.split(flags.overrides) if flags.overrides else (("",), [])
    if not files:
        raise UserError(
            "expected a run and at least one image", where="command line: cae nearest", hint=example
        )
    networks.check_words(words)
    out = networks.output(flags, "cae nearest", example)
    tables.check(out)
    with networks.opened(subject, flags) as network:
        queries = networks.query_images(network, [typed(file) for file in files], flags)
        source = networks.images(network, words, flags, splits=("train",))
        count = min(flags.count, len(source))
        screen = terminal.Screen()
        with screen.passing("searching", len(source)) as done:
            found = nearest.nearest(network, queries, source, count, done)
        table = nearest.table(files, found, source.columns())
        tables.write(out, table, {"network": network.name, "warning": network.warning or ""})
        picture = out.with_suffix(".png")
        with screen.doing("drawing …"):
            sheets.draw_nearest(picture, queries, found, source.parts)
    rows = list(
        zip(*(table[k].tolist() for k in ("image", "by", "rank", "name", "distance")), strict=True)
    )
    shown = [
        (image, by, str(rank), name, f"{distance:.4f}")
        for image, by, rank, name, distance in rows[: 2 * count * MOST_SHOWN]
    ]
    columns = [Column("image", cut=True, middle=True), Column("by"), Column("rank", right=True)]
    columns += [Column("name", cut=True, middle=True), Column("distance", right=True)]
    parts: list[Part] = [Table.of(columns, shown)]
    if len(rows) > len(shown):
        parts.append(f"{len(rows) - len(shown)} more in {out}")
    terminal.show(parts)
    terminal.show([terminal.folder(out), terminal.folder(picture)])
    return 0
