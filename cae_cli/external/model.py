"""Models that this tool did not train: a Keras file, or a network in somebody's own ``fit``.

Both end where a run ends: files in a folder, from which everything right of the waist works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli import experiment, introspection
from cae_cli.config.facts import facts as declared_facts
from cae_cli.data import Images, as_float
from cae_cli.errors import UserError
from cae_cli.introspection.probe import Probe
from cae_cli.metrics.quality import explained_variance
from cae_cli.report import terminal
from cae_cli.runs.folder import Run, surroundings
from cae_cli.system.files import writing
from cae_cli.training import backend

Array = NDArray[np.float32]

# What networks are commonly trained on; the first is what images are brought to here.
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
TRIED = 64  # images on which other ranges are tried
MOST_TRIED = 2**21  # pixels of them
BETTER = 0.1  # by so much more explained variance another range is meant


@dataclass(frozen=True)
class Asked:
    """What a person says of a model.

    Attributes:
        code: name of the layer whose output is the code; None: found.
        custom: a Python file with the classes of the model's own layers, or None.
        span: (low, high), what the network was trained on; images here are in [0, 1].
        unsafe: code in the model's file is run.
    """

    code: str | None = None
    custom: Path | None = None
    span: tuple[float, float] = RANGES[0]
    unsafe: bool = False


def file(
    path: Path, images: Images, asked: Asked, folder: Run, rules: Mapping[str, Any]
) -> experiment.Outcome:
    """Judges a saved Keras autoencoder.

    Args:
        path: the .keras or .h5 file.
        images: to judge it on.
        asked: what is known of the model.
        folder: where files and pictures go.
        rules: what single rules are to do.

    Returns:
        The outcome, as of a run of our own.

    Raises:
        UserError: the file is of no use, or does not fit the images.
    """
    screen = terminal.Screen()
    if asked.unsafe:
        screen.say(f"! --unsafe: code in {path.name} is run, and can do all that you can")
    with folder.running(), writing(folder.folder):
        with backend.quiet(folder.log):
            with screen.doing("starting TensorFlow …"):
                backend.start(deterministic=False, mixed_precision=False)
            with screen.doing("opening the model …"):
                model = introspection.load(path, asked.custom, unsafe=asked.unsafe)
                autoencoder, facts = opened(model, images, asked)
            screen.say(
                f"{path.name}: {autoencoder.weight_count:,} weights, code {autoencoder.latent_layer} "
                f"{'x'.join(map(str, autoencoder.latent.shape[1:]))}"
            )
            if asked.span == RANGES[0]:
                _try_ranges(autoencoder, images, screen)
            with screen.doing("measuring …"):
                probe = Probe(autoencoder, images, untrained=False)
                write(folder, facts, images, probe.record(), {"rules": dict(rules)})
        return experiment.judge(folder)


def opened(model: Any, images: Images, asked: Asked) -> tuple[introspection.Autoencoder, dict[str, Any]]:
    """The parts of a model with its range brought to [0, 1], and what it is made of.

    Raises:
        UserError: it is no autoencoder of such images.
    """
    autoencoder = introspection.introspect(model, latent=asked.code, shape=images.shape)
    if autoencoder.shape != images.shape:
        raise UserError(
            f"the model takes images of {_sides(autoencoder.shape)}, these are {_sides(images.shape)}",
            hint="data.image_size=… for folders of images",
        )
    if not autoencoder.convolutions:
        raise UserError(
            "the model has no convolutions, so there are no filters to judge",
            hint="cae judges convolutional autoencoders: Conv2D, Conv2DTranspose and their kin",
        )
    facts = autoencoder.facts()
    if asked.span == RANGES[0]:
        return autoencoder, facts
    import keras

    low, high = asked.span
    image = keras.Input(images.shape, name="image_in_0_1")
    x = keras.layers.Rescaling(high - low, low, name="to_the_range_of_the_model")(image)
    x = autoencoder.model(x)
    x = keras.layers.Rescaling(1 / (high - low), -low / (high - low), name="back_to_0_1")(x)
    scaled = introspection.introspect(keras.Model(image, x), latent=autoencoder.latent_layer)
    return scaled, {**facts, "span": list(asked.span)}


def write(
    folder: Run,
    facts: Mapping[str, Any],
    images: Images,
    arrays: Mapping[str, NDArray[Any]],
    config: Mapping[str, Any],
    *,
    epochs: int | None = None,
    diverged_at: int | None = None,
) -> None:
    """Writes what `experiment.judge` reads.

    Args:
        folder: the run's.
        facts: what the network is made of, see `anatomy.Autoencoder.facts`.
        images: that it was measured on.
        arrays: of the probe, and of the recorder if there was one.
        config: what is known of how it was trained, in the form of a config.
        epochs: that somebody watched; None: nobody watched.
        diverged_at: the first step whose loss was not finite, or None.
    """
    folder.write_setup(
        {
            **surroundings(),
            "command": [],
            "config": config,
            "data": experiment.described(images),
        }
    )
    folder.write_training(
        {
            "best_epoch": None,
            "measured_epoch": epochs,
            "stopped_early": False,
            "diverged_at": diverged_at,
            "facts": declared_facts(config),
            "network": dict(facts),
            "device": None,
            "held_out": images.held_out_name,
        }
    )
    seen = experiment.dataset_arrays(experiment.look_at(images))
    folder.write_arrays(folder.arrays, {**arrays, **seen})


def _try_ranges(autoencoder: introspection.Autoencoder, images: Images, screen: terminal.Screen) -> None:
    """Says so if the model explains far more in another range than the images are in."""
    count = int(np.clip(MOST_TRIED // np.prod(images.shape), 4, TRIED))
    x = as_float(images.held_out[:count])
    reached = [_explained(autoencoder.model, low + (high - low) * x) for low, high in RANGES]
    best = int(np.argmax(reached))
    if reached[best] > reached[0] + BETTER:
        low, high = RANGES[best]
        screen.say(
            f"! the model explains {reached[best]:.0%} of images from {low:g} to {high:g}, and "
            f"{max(reached[0], -1):.0%} of those from 0 to 1; try --range={low:g},{high:g}"
        )


def _explained(model: Any, x: Array) -> float:
    error = np.square(np.asarray(model(x, training=False)) - x)
    explained = explained_variance(error, np.square(x - x.mean(axis=0)))
    return explained if np.isfinite(explained) else -np.inf


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
