"""Models that this tool did not train: a Keras file, or a network in the user's own ``model.fit``.

Both write the files of a run, so everything right of the run folder works for them too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli import experiment, introspection
from cae_cli.data import Images, as_float, images_that_fit
from cae_cli.data.spool import empty_like
from cae_cli.errors import UserError, printable
from cae_cli.introspection.behaviour import EXAMPLES
from cae_cli.introspection.loss_minimum import keras_loss
from cae_cli.introspection.probe import Probe, kept_bytes
from cae_cli.metrics.preparation import Span, Way
from cae_cli.report import terminal
from cae_cli.runs.environment import surroundings
from cae_cli.runs.folder import Run
from cae_cli.system import memory
from cae_cli.system.files import writing
from cae_cli.training import backend
from cae_cli.training.losses import name_of_keras_loss
from cae_cli.training.optimizers import OPTIMIZERS

Array = NDArray[np.float32]

UNIT, BYTES = (0.0, 1.0), (0.0, 255.0)
OVERSHOOT = 0.05  # share of a range by which resized or sharpened images leave it
DARKEST = 64.0  # largest value of images that are thought to be bytes: digits of 0 to 16 are not
SAME_UNIT = 0.5  # about 1; other ranges have 255, 127.5, 2, 1/2 or less, shuffled pairs 0
MOST_MEASURED = 10_000  # images, as many as the test part of MNIST has
AT_A_TIME = 2**18  # values that are computed at once: all images may be larger than memory


@dataclass(frozen=True)
class FileOptions:
    """How to open a saved model.

    Attributes:
        latent: name of the layer whose output is the latent code; None: detected.
        custom: a Python file with the classes of the model's own layers, or None.
        span: (low, high), the range of the images that the network was trained on; (high, low) of
            inverted ones.
        unsafe: run code in the model's file.
        given: the range of its inputs, where its output has another one; None: that of the images.
    """

    latent: str | None = None
    custom: Path | None = None
    span: Span = UNIT
    unsafe: bool = False
    given: Span | None = None


def diagnose_file(
    path: Path,
    images: Images,
    options: FileOptions,
    folder: Run,
    rules: Mapping[str, Any],
    *,
    guest: bool = False,
    silent: bool = False,
) -> experiment.Outcome:
    """Diagnoses a saved Keras autoencoder.

    Args:
        path: the .keras or .h5 file.
        images: to diagnose it on.
        options: how to open it.
        folder: for files and pictures.
        rules: options of single rules.
        guest: the process is somebody else's, and is left as it was.
        silent: show no progress.

    Raises:
        UserError: the file cannot be used, or does not fit the images.
    """
    screen = terminal.Screen(silent=silent)
    with folder.running(), writing(folder.folder):
        with backend.guest(folder.log) if guest else backend.quiet(folder.log):
            config = introspection.compile_config(path) if path.is_file() else {}
            known = {**compiled_options(config), "rules": dict(rules)}
            loss = compiled_loss(config)
            measure_file(path, all_measured(images), options, folder, known, screen, loss)
        return experiment.report(folder, silent=silent)


def diagnose_model(
    model: Any,
    images: Images,
    options: FileOptions,
    folder: Run,
    rules: Mapping[str, Any],
    *,
    silent: bool,
) -> experiment.Outcome:
    """Diagnoses a Keras autoencoder of this process, which is left as it was.

    Args:
        model: compiled or not, trained or not.
        images: all of them are measured.
        options: its latent layer, and the range of the images that it was trained on.
        folder: as for `diagnose_file`.
        rules: as for `diagnose_file`.
        silent: as for `diagnose_file`.

    Raises:
        UserError: it is no autoencoder of such images.
    """
    screen = terminal.Screen(silent=silent)
    from cae_cli.external.training import Optimizer

    loss, optimizer = getattr(model, "loss", None), getattr(model, "optimizer", None)
    found = {"loss": loss} if loss else {}
    if optimizer is not None:
        found["optimizer"] = Optimizer.of(optimizer)
    known = {**_in_words(found), "rules": dict(rules)}
    with folder.running(), writing(folder.folder):
        with backend.guest(folder.log):
            parts = prepare(model, images, options.latent, options.span, options.given)
            _measure(parts, str(model.name), images, options, folder, known, screen, loss)
        return experiment.report(folder, silent=silent)


def measure_file(
    path: Path,
    images: Images,
    options: FileOptions,
    folder: Run,
    config: Mapping[str, Any],
    screen: terminal.Screen,
    loss: Any = None,
) -> Any:
    """Opens a saved Keras autoencoder and writes the files of a run; arguments as for `diagnose_file`.

    Args:
        path: as for `diagnose_file`.
        images: as for `diagnose_file`.
        options: as for `diagnose_file`.
        folder: as for `diagnose_file`.
        config: what is known of the training, in the words of a config.
        screen: shows the progress.
        loss: that it was trained with, as Keras takes it; None: not known.

    Returns:
        The Keras model.

    Raises:
        UserError: as for `diagnose_file`.
    """
    if options.unsafe:
        screen.say(f"! --unsafe: code in {path.name} is run with all of your permissions")
    with screen.doing("starting TensorFlow …"):
        backend.start(deterministic=False, mixed_precision=False)
    with screen.doing("opening the model …"):
        model = introspection.load(path, options.custom, unsafe=options.unsafe)
        parts = prepare(model, images, options.latent, options.span, options.given)
    _measure(parts, path.name, images, options, folder, config, screen, loss)
    return model


def _measure(
    parts: tuple[introspection.Autoencoder, dict[str, Any], int],
    name: str,
    images: Images,
    options: FileOptions,
    folder: Run,
    config: Mapping[str, Any],
    screen: terminal.Screen,
    loss: Any,
) -> None:
    """Measures a model, prepared and called ``name``, and writes the files of a run."""
    autoencoder, network, fitting = parts
    screen.say(
        f"{name}: {autoencoder.weight_count:,} weights, latent layer "
        f"{autoencoder.latent_layer} {_sides(autoencoder.latent.shape[1:])}"
    )
    known = keras_loss(loss, options.span)
    with introspection.computing():
        probe = Probe(autoencoder, images, untrained=False, fitting=fitting, loss=known)
        probe.reconstruct(as_float(images.held_out[:1]))
    with screen.doing("measuring …"):
        paired = {"paired": True} if images.are_pairs else {}
        hand = Way(options.given or options.span, options.span)
        arrays = {**probe.record(), **probe.preparation(hand)}
        write_run(folder, images, arrays, config, network=network, **paired)


def all_measured(images: Images) -> Images:
    """The same images for a network that nobody trained here: all of them are measured.

    Args:
        images: split as for a training. Where their source has a test part, only that is measured: the
            others may be those that the network was trained on.
    """
    if images.evaluated:
        return images
    measured, labels, given = images.test, images.test_labels, images.test_inputs
    if measured is None:
        rest = max(0, MOST_MEASURED - len(images.validation))
        measured = np.concatenate([images.validation, images.train[:rest]])
        if images.train_inputs is not None and images.validation_inputs is not None:
            given = np.concatenate([images.validation_inputs, images.train_inputs[:rest]])
        if images.train_labels is not None and images.validation_labels is not None:
            labels = np.concatenate([images.validation_labels, images.train_labels[:rest]])
    return Images(
        measured,
        measured,
        validation_labels=labels,
        source=images.source,
        notes=images.notes,
        evaluated=True,
        scale=images.scale,
        input_scale=images.input_scale,
        train_inputs=given,
        validation_inputs=given,
    )


def prepare(
    model: Any, images: Images, latent: str | None, span: Span, given: Span | None = None
) -> tuple[introspection.Autoencoder, dict[str, Any], int]:
    """The parts of a model, its range brought to [0, 1]; the facts of its network; how many images fit.

    Args:
        model: any Keras autoencoder.
        images: in [0, 1].
        latent: name of the layer whose output is the latent code; None: detected.
        span: the range of the images that the network was trained on.
        given: that of its inputs, where these are something else; None: the same.

    Raises:
        UserError: it is no autoencoder of such images, or not even one of them fits into memory.
    """
    autoencoder = introspection.introspect(model, latent=latent, shape=images.shape)
    if autoencoder.shape != images.shape:
        raise UserError(
            f"the model takes images of {_sides(autoencoder.shape)}, these are {_sides(images.shape)}",
            hint="Use data.image_size=… for folders of images.",
        )
    if not autoencoder.convolutions:
        raise UserError(
            "the model has no convolutions, so it has no filters to diagnose",
            hint="cae diagnoses autoencoders with Conv2D, Conv2DTranspose and related layers.",
        )
    fitting = _fitting(autoencoder, min(EXAMPLES, len(images.held_out)))
    facts = autoencoder.facts()
    given = given or span
    if span == given == UNIT:
        return autoencoder, facts, fitting
    scaled = introspection.in_unit_range(autoencoder, span, given)
    return scaled, {**facts, "span": list(span)}, fitting


def _fitting(autoencoder: introspection.Autoencoder, examples: int) -> int:
    """How many images may pass the network at once; UserError if not even one may."""
    need = introspection.footprint(autoencoder)
    if backend.visible_gpus():  # nothing is known of their memory
        return images_that_fit(need.needed)
    layer, shape = printable(need.layer)[:80], _sides(need.shape)
    memory.check(
        need.needed + kept_bytes(autoencoder, examples),
        f"the model, whose layer {layer} makes {shape} values of each image,",
        None,
        "Use a smaller model, or a machine with more memory.",
    )
    return images_that_fit(need.needed, memory.free())


def write_run(
    folder: Run,
    images: Images,
    arrays: Mapping[str, NDArray[Any]],
    options: Mapping[str, Any],
    **training: Any,
) -> None:
    """Writes the files of a run that this tool did not train, see `experiment.write_results`."""
    described = experiment.describe(images)
    folder.write_setup({**surroundings(), "command": [], "config": options, "data": described})
    statistics = experiment.dataset_statistics(images)
    experiment.write_results(folder, images, statistics, arrays, options, **training)


def options_of(loss: Any, optimizer: str, rate: float | None) -> dict[str, Any]:
    """What is known of a training in the words of a config.

    Args:
        loss: as ``model.compile`` got it.
        optimizer: the name of its class; "": unknown.
        rate: its learning rate; None: unknown, or a schedule.
    """
    options: dict[str, Any] = {"loss": {"name": name_of_keras_loss(loss)}}
    if not isinstance(loss, str):
        known = str(getattr(loss, "__module__", "")).startswith("keras.")
        options["loss"]["from_logits"] = bool(getattr(loss, "from_logits", False)) if known else None
    if optimizer:
        name = optimizer.lower()
        usual = OPTIMIZERS[name].usual_rate if name in OPTIMIZERS else None
        options["optimizer"] = {"name": name, "learning_rate": rate, "usual_rate": usual}
    return options


def compiled_loss(config: Mapping[str, Any]) -> Any:
    """The loss that a file says it was compiled with, as Keras takes it; None: none of Keras' own.

    Args:
        config: of `introspection.compile_config`.
    """
    from cae_cli.external.training import compiled_as

    return compiled_as(config).get("loss")


def compiled_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of its training, in the words of a config; {} where it names nothing of Keras.

    Args:
        config: of `introspection.compile_config`.
    """
    from cae_cli.external.training import compiled_as

    return _in_words(compiled_as(config))


def _in_words(found: Mapping[str, Any]) -> dict[str, Any]:
    """The loss and the optimizer of a training, as far as they are known, in the words of a config."""
    optimizer = found.get("optimizer")
    name, rate = ("", None) if optimizer is None else (optimizer.kind.__name__, optimizer.rate)
    options = options_of(found.get("loss"), name, rate)
    return options if "loss" in found else {k: v for k, v in options.items() if k != "loss"}


def span_of(images: NDArray[Any]) -> Span:
    """The range of images: [0, 1], [-1, 1] or [0, 255]; else that of their values, or from 0."""
    low, high = float(images.min()), float(images.max())
    for span, darkest in ((UNIT, -np.inf), ((-1.0, 1.0), -np.inf), (BYTES, DARKEST)):
        slack = OVERSHOOT * (span[1] - span[0])
        if span[0] - slack <= low and darkest <= high <= span[1] + slack:
            return span
    return min(low, 0.0), high


def spans_of(given: NDArray[Any], images: NDArray[Any]) -> tuple[Span, Span]:
    """The ranges of what a network is given, and of the images that it is to make of it.

    Noise leaves the range of the images, and is still measured in their unit: where inputs follow the
    images with a slope of about 1, they have the range of the images.

    Args:
        given: (n, h, w, c).
        images: of the same shape.
    """
    span = span_of(images)
    if given is images:
        return span, span
    mean = images.mean(dtype=np.float64)
    product = square = 0.0
    for part in pieces(images):
        deviation = np.subtract(images[part], mean, dtype=np.float64)
        product += float((deviation * given[part]).sum())
        square += float(np.square(deviation).sum())
    slope = product / square if square else 1.0
    return (span if abs(slope - 1) < SAME_UNIT else span_of(given)), span


def stored(images: NDArray[Any], span: Span) -> Array:
    """Images of this range in [0, 1]; not copied if they are that, in a file if they are in one.

    Args:
        images: (n, h, w, c).
        span: (low, high).
    """
    if span == UNIT and images.dtype == np.float32:
        return images
    low, high = span
    scaled: Array = empty_like(images, np.float32)
    for part in pieces(images):
        scaled[part] = (images[part].astype(np.float32) - low) / (high - low)
    return scaled


def pieces(images: NDArray[Any]) -> Iterator[slice]:
    """All images, some at a time."""
    count = max(1, AT_A_TIME // max(1, images[:1].size))
    return (slice(start, start + count) for start in range(0, len(images), count))


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
