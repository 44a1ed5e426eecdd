"""``cae decode``: images of latent codes."""

from __future__ import annotations

from cae_cli.commands import arguments, networks
from cae_cli.errors import UserError, counted
from cae_cli.report import terminal
from cae_cli.system.files import typed

HELP = f"""\
usage: cae decode RUN codes.npz --out FOLDER

Makes an image of each latent code and writes it to a new folder as a PNG file,
with the name that the code has in the file.

codes.npz is a file of cae encode (.npz, .npy or .parquet), or any array of
codes of the network, flat or as maps. Pooled codes cannot be decoded, and
neither can those of a network with skip connections (model=unet), which needs
the images, too.

  --out FOLDER            a new folder

{networks.SUBJECT_HELP}
flags:
{arguments.RUNS_HELP}"""


def main(args: list[str]) -> int:
    """Decodes codes."""
    flags = arguments.parse("cae decode", args)
    if flags.help:
        print(HELP, end="")
        return 0
    from cae_cli.features import codes, pictures

    example = "cae decode last codes.npz --out decoded"
    if len(flags.overrides) != 2:
        raise UserError(
            f"expected a run and a file of codes, got {counted(len(flags.overrides), 'argument')}",
            where="command line: cae decode",
            hint=example,
        )
    subject, file = flags.overrides
    out = networks.output(flags, "cae decode", example)
    pictures.check(out)
    values, names = codes.read(typed(file))
    with networks.opened(subject, flags) as network:
        network.check_decodes()
        files = pictures.png_names(names or (f"{k:06d}" for k in range(len(values))))
        screen = terminal.Screen()
        with screen.passing("writing images", len(values)) as done, pictures.new_folder(out) as folder:
            for start in range(0, len(values), network.batch):
                for image in network.decode(values[start : start + network.batch]):
                    pictures.save(folder / next(files), image)
                done(start)
    terminal.show([terminal.folder(out)])
    return 0
