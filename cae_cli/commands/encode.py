"""``cae encode``: the latent codes of images, in a file."""

from __future__ import annotations

from cae_cli.commands import arguments, networks
from cae_cli.errors import UserError, counted
from cae_cli.report import terminal

HELP = f"""\
usage: cae encode RUN [data=… data.path=…] --out codes.npz [--pool | --flat]

Writes the latent code and the error of each image, with its file name or its
position, its label and its split where there are such. With pairs the error is
that from the target.

Without data=…, the images of the run are encoded: all splits, with the noise
that was added to them.

{networks.IMAGES_HELP}
  --out FILE              codes.npz: arrays of NumPy; codes.npy: the codes, and
                          a table beside them in codes.csv; codes.parquet: a
                          table with flat codes (needs pyarrow)
  --pool                  the mean of each map in place of the maps
  --flat                  one row of values for each image in place of maps

{networks.SUBJECT_HELP}
flags:
{arguments.TRUST_HELP}{arguments.RUNS_HELP}"""


def main(args: list[str]) -> int:
    """Encodes images."""
    flags = arguments.parse("cae encode", args)
    if flags.help:
        print(HELP, end="")
        return 0
    from cae_cli.features import codes

    example = "cae encode last --out codes.npz"
    subject, words = networks.subject(flags, "cae encode", example)
    out = networks.output(flags, "cae encode", example)
    if flags.pool and flags.flat:
        raise UserError(
            "--pool and --flat exclude each other", where="command line", hint="pooled codes are flat"
        )
    codes.check(out)
    with networks.opened(subject, flags) as network:
        source = networks.images(network, words, flags)
        screen = terminal.Screen()
        with screen.passing("encoding", len(source)) as done:
            files, errors = codes.write(
                network, source, out, pooled=flags.pool, flat=flags.flat, done=done
            )
        count = counted(len(source), "image")
        screen.say(f"{count}: mean squared error {errors.mean():.5f} from the {source.wanted}")
    terminal.show([terminal.folder(file) for file in files])
    return 0
