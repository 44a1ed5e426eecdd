"""``cae reconstruct``: what a network makes of images."""

from __future__ import annotations

from cae_cli.commands import arguments, networks
from cae_cli.report import terminal

HELP = f"""\
usage: cae reconstruct RUN [data=… data.path=…] --out FOLDER

Writes what the network makes of each image to a new folder, as PNG files with
the names of the originals. Without data=…, those are the images of the run.

{networks.IMAGES_HELP}
  --out FOLDER            a new folder

{networks.SUBJECT_HELP}
flags:
{arguments.TRUST_HELP}{arguments.RUNS_HELP}"""


def main(args: list[str]) -> int:
    """Reconstructs images."""
    flags = arguments.parse("cae reconstruct", args)
    if flags.help:
        print(HELP, end="")
        return 0
    from cae_cli.features import pictures

    example = "cae reconstruct last --out reconstructions"
    subject, words = networks.subject(flags, "cae reconstruct", example)
    out = networks.output(flags, "cae reconstruct", example)
    pictures.check(out)
    with networks.opened(subject, flags) as network:
        source = networks.images(network, words, flags)
        names = pictures.png_names(source.file_names())
        screen = terminal.Screen()
        with screen.passing("writing images", len(source)) as done, pictures.new_folder(out) as folder:
            written = 0
            for part in source.parts:
                for _, _, _, made in network.passes(part.images):
                    for image in made:
                        pictures.save(folder / next(names), image)
                    written += len(made)
                    done(written)
    terminal.show([terminal.folder(out)])
    return 0
