"""A trained network and images for it on the command line, for the commands that use one."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cae_cli.commands import arguments, models
from cae_cli.config.overrides import overrides_of_run
from cae_cli.config.schema import VARIANTS
from cae_cli.errors import UserError
from cae_cli.options import key_of
from cae_cli.report import terminal
from cae_cli.runs import registry
from cae_cli.runs.folder import Run
from cae_cli.runs.opening import open_run
from cae_cli.system import signals
from cae_cli.system.files import typed

if TYPE_CHECKING:
    from cae_cli.data import DataOptions
    from cae_cli.features import Network
    from cae_cli.features.source import Source

# Options that say which images are read; all others say how, and hold for other images, too.
WHICH = ("path", "target", "key", "target_key", "train", "validation", "test", "noise", "seed", "scale")

SUBJECT_HELP = f"""\
{arguments.RUN_HELP}
for a model file (.keras, .h5) in place of RUN:
{models.HELP}"""
IMAGES_HELP = """\
Images are prepared as those that the network was trained on: size, channels,
scale of the values. Those that do not fit are named, counted and left out.
"""


def output(flags: argparse.Namespace, command: str, hint: str) -> Path:
    """What ``--out`` names.

    Raises:
        UserError: it is missing.
    """
    if flags.out is None:
        raise UserError("--out is missing", where=f"command line: {command}", hint=hint)
    return typed(flags.out)


@contextlib.contextmanager
def opened(subject: str, flags: argparse.Namespace) -> Iterator[Network]:
    """The network of a run or of a model file; what TensorFlow says in the block is not shown.

    Raises:
        UserError: there is no such run or file, or it has no network.
    """
    path = typed(subject)
    found: Run | Path = path if models.is_model(path) else open_run(subject, flags.runs)
    if isinstance(found, Path):
        models.check_file(found)
    screen = terminal.Screen()
    from cae_cli.training import backend

    with signals.raised(), backend.quiet(None):
        with screen.doing("starting TensorFlow …"):
            backend.start(deterministic=False, mixed_precision=False)
            from cae_cli.features import open_network

            if isinstance(found, Run):
                network = open_network(found)
            else:
                span, given = flags.range or ((0.0, 1.0), None)
                network = open_network(
                    found,
                    latent=flags.latent,
                    custom=flags.custom,
                    span=span,
                    given=given,
                    unsafe=flags.unsafe,
                )
        if network.warning:
            screen.say(f"! this network is not to be trusted: {network.warning}")
        yield network


def subject(flags: argparse.Namespace, command: str, hint: str) -> tuple[str, list[str]]:
    """The run or the model file, and the overrides that name images.

    Raises:
        UserError: none or several are named, or an override is not one of ``data``.
    """
    name, words = registry.split_one(flags.overrides, command, hint, "one run or one model file")
    check_words(words)
    return name, words


def check_words(words: Sequence[str]) -> None:
    """Raises UserError for an override that does not name images."""
    for word in words:
        if key_of(word) != "data" and not key_of(word).startswith("data."):
            raise UserError(
                f"{key_of(word)} cannot change: the network is trained",
                where=f"command line: {word}",
                hint="data=… and data.KEY=… name other images",
            )


def images(
    network: Network,
    words: Sequence[str],
    flags: argparse.Namespace,
    splits: Sequence[str] = ("train", "validation", "test"),
) -> Source:
    """The images that ``data=…`` names, else those of the run.

    Args:
        network: that they are for.
        words: overrides of the group ``data``.
        flags: of the command line.
        splits: which parts of the run's images.

    Raises:
        UserError: there are no such images, or they do not fit the network.
    """
    from cae_cli.features import source

    screen = terminal.Screen()
    with screen.doing("reading images …"):
        if words:
            found = source.given_images(network, _options(network, words, flags))
        else:
            found = source.own_images(network, own_options(network), splits)
    for note in found.notes:
        screen.say(f"  {note}")
    return found


def query_images(
    network: Network, files: Sequence[Path], flags: argparse.Namespace
) -> NDArray[np.generic]:
    """Single image files as the network takes them, (n, h, w, c), resized if those are square.

    Raises:
        UserError: one of them cannot be read.
    """
    from cae_cli import data
    from cae_cli.data.folder import ImageFolder

    options = _options(network, ["data=image_folder"], flags)
    assert isinstance(options, ImageFolder)
    h, w, _ = network.shape
    options = replace(options, image_size=h if h == w else None, patches=None, frames="first")
    read = [data.load_alike(replace(options, path=str(f)), network.shape, network.scale) for f in files]
    return np.concatenate([data.as_float(pool.images) for pool in read])


def own_options(network: Network) -> DataOptions:
    """The options of the images that the network was trained on.

    Raises:
        UserError: they are not known.
    """
    if network.run is None:
        raise UserError(
            "a model file does not say which images it was trained on",
            where=network.name,
            hint="name images: data=npz data.path=x.npz",
        )
    again = overrides_of_run(network.run)
    return models.options(list(again.overrides), trusted=False).data


def _options(network: Network, words: Sequence[str], flags: argparse.Namespace) -> DataOptions:
    """The options of images that the user names; how they are read is as in training."""
    own = None if network.run is None else own_options(network)
    sources = VARIANTS["data"]
    own_name = next((name for name, cls in sources.items() if cls is type(own)), None)
    name = next((w.partition("=")[2] for w in words if key_of(w) == "data"), None)
    if name is None and own_name is None:
        raise UserError(
            "data.path alone does not say what kind of images it has",
            where=f"command line: {words[0]}",
            hint="data=image_folder, data=npz, …",
        )
    changes = list(words) if name is not None else [f"data={own_name}", *words]
    options = models.options(changes, trusted=True, trust_configs=flags.trust_configs).data
    given = {key_of(word).removeprefix("data.") for word in words}
    known = {f.name for f in fields(options)} - given
    if own is not None and type(options) is type(own):
        which = WHICH if "path" in given else set(WHICH) - {"path", "target", "key", "target_key"}
        kept = {name: getattr(own, name) for name in known if name not in which}
        return replace(options, **kept)
    if "channels" in known and network.shape[2] in (1, 3):
        return replace(options, channels=network.shape[2])  # type: ignore[call-arg]
    return options
