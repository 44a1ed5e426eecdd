"""``cae export``: writes a trained network to a file that needs no cae, and compares the two."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.commands import arguments, networks
from cae_cli.errors import UserError, did_you_mean, printable
from cae_cli.report import terminal
from cae_cli.report.sections import line
from cae_cli.system.files import typed

if TYPE_CHECKING:
    from cae_cli.features import Network

HELP = f"""\
usage: cae export RUN|MODEL --format FORMAT [--part PART] [--out FILE]

Writes the network of a run, or a part of it, to a file that needs no cae. The
preparation of the images is inside: the file takes images with the values that
the run's files have, any number at once. It is run on 64 images of the run and
compared with the network. If it computes something else, it is not kept, and
the exit code is 1. FILE.json beside it records what goes in, what comes out,
the difference, and the versions of the packages.

  --format FORMAT         onnx, litert, tf_saved_model (a folder) or keras; the
                          first two need pip install 'cae-cli[export]'
  --part PART             encoder (images to codes), decoder (codes to images)
                          or whole (the default: images to images)
  --out FILE              the file to write, in place of PART.onnx, PART.tflite,
                          PART or PART.keras in this folder

data=… names other images to compare on; a model file without them is compared
on noise.

{networks.SUBJECT_HELP}
flags:
{arguments.TRUST_HELP}{arguments.RUNS_HELP}"""
EXAMPLE = "cae export last --format onnx"


def main(args: list[str]) -> int:
    """Exports the network of the given run or model file."""
    flags = arguments.parse("cae export", args)
    if flags.help:
        print(HELP, end="")
        return 0
    from cae_cli.features.export import FORMATS, PARTS, check_target, export

    subject, words = networks.subject(flags, "cae export", EXAMPLE)
    kind = _one_of(FORMATS, flags.format, "--format")
    part = _one_of(PARTS, flags.part or "whole", "--part")
    path = typed(flags.out or f"{part}{FORMATS[kind].suffix}")
    check_target(kind, path)
    with networks.opened(subject, flags) as network:
        images, which = _images(network, words, flags)
        with terminal.Screen().doing(f"writing {path} …"):
            done = export(network, images, part, kind, path)
    difference = done.difference
    lines = [
        f"{part}: {done.about['takes']} -> {done.about['makes']}",
        f"largest difference from the network on {difference.images} {which}: {difference.largest:.2g}, "
        f"{difference.relative:.2g} of the spread (rounding explains {difference.allowed:.2g})",
    ]
    if difference.random:
        lines.append("! the network draws at random, so the difference tells nothing")
    terminal.show([line(printable(text)) for text in lines])
    terminal.show([terminal.folder(path)])
    return 0


def _one_of(names: Iterable[str], name: str | None, flag: str) -> str:
    names = list(names)
    if name is None:
        raise UserError(f"{flag} is missing", where="command line: cae export", hint=EXAMPLE)
    if name not in names:
        hint = did_you_mean(name, names)
        raise UserError(f"there is no {flag} {name}", where="command line: cae export", hint=hint)
    return name


def _images(
    network: Network, words: Sequence[str], flags: argparse.Namespace
) -> tuple[NDArray[Any], str]:
    """Prepared images that the file is compared on, held-out ones first; and which ones these are."""
    from cae_cli.features.export import IMAGES

    if network.run is None and not words:
        noise = np.random.default_rng(0).integers(0, 256, (IMAGES, *network.shape), np.uint8)
        return noise, "images of noise"
    try:
        parts = networks.images(network, words, flags).parts
    except UserError as error:
        if words or network.run is None:
            raise
        kept = network.run.read_arrays(network.run.arrays, {"example_images"})
        if "example_images" not in kept:
            raise
        terminal.Screen().say(f"! the images of the run cannot be used: {error.what}")
        return kept["example_images"], "examples in the run's folder"
    images = np.concatenate([part.images[:IMAGES] for part in reversed(parts)])
    return images, "given images" if words else "images of the run"
