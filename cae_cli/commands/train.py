"""``cae train``: one run, or with ``-m`` a sweep."""

from __future__ import annotations

import textwrap

from cae_cli.commands import arguments
from cae_cli.commands.start import start
from cae_cli.config.compose import Sources
from cae_cli.config.schema import GROUPS

HELP = (
    """\
usage: cae train [-m] [group=option …] [key=value …]

Composes a config, trains a convolutional autoencoder, and diagnoses whether its
filters are meaningful. A new folder below runs/ holds the results: diagnosis,
metrics, weights, and pictures of filters, feature maps and reconstructions.

config groups (cae options GROUP describes their options):
{groups}

examples:
  cae train model=l2 loss=ssim
  cae train loss=ssim loss.window=7 training.epochs=20 seed=3
  cae train 'regularization=[l2,dropout]' regularization.dropout.rate=0.2
  cae train data=image_folder data.path=photos data.image_size=64
  cae train experiment=reference_3_ssim data=npz data.path=mine.npz

sweeps:
  cae train -m model=baseline,l2 loss=mse,ssim
                          one run for each combination
  cae train -m 'sweep.pairs=[{{model:baseline,loss:mse}},{{model:l2,loss:ssim}}]'
                          only these combinations
  cae train -m model=baseline,l2 loss=mse,ssim \\
                      'sweep.exclude=[{{model:l2,loss:mse}}]'
                          all combinations except these

flags:
  -m, --multirun          run a sweep: a key may have several values, such as
                          a,b or range(0,5); run the same command to resume it
  -c, --cfg job           print the composed config and stop (also: hydra, all)
  -cd, --config-dir DIR   also search DIR, a folder with the layout of configs/
  -cn, --config-name N    use another primary config
  -i, --info              print how the config is composed
"""
    + arguments.DIAGNOSIS_HELP
    + arguments.TRUST_HELP
    + """\
  --hydra-help            print the flags and groups of Hydra itself
"""
)


def main(args: list[str]) -> int:
    """Trains what the command line describes; see `start`."""
    flags = arguments.parse("cae train", args)
    sources = arguments.sources(flags)
    if flags.help:
        print(HELP.format(groups=_groups(sources)), end="")
        return 0
    return start(flags, sources)


def _groups(sources: Sources) -> str:
    width = max(map(len, GROUPS))
    lines = []
    for group, what in GROUPS.items():
        names = ", ".join(sources.options(group))
        first, *rest = [line for text in (what, names) for line in textwrap.wrap(text, 76 - width)]
        lines += [f"  {group:<{width}}  {first}", *(f"  {'':<{width}}  {line}" for line in rest)]
    return "\n".join(lines)
