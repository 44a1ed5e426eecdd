"""Plain functions on arrays: autoencoders of PyTorch, JAX, ONNX or anything else. Needs no Keras.

Rules that need the weights or the training are skipped, and never count as healthy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli import experiment
from cae_cli.data import Images
from cae_cli.errors import UserError
from cae_cli.external.model import spans_of, stored, write_run
from cae_cli.introspection.behaviour import Behaviour
from cae_cli.introspection.preparation import preparation
from cae_cli.metrics.latent import informative
from cae_cli.metrics.network import network
from cae_cli.metrics.preparation import Span, Way
from cae_cli.report import terminal
from cae_cli.runs.folder import Run
from cae_cli.system import streams
from cae_cli.system.files import claim

Array = NDArray[np.float32]

HELD_OUT = 0.1  # default share of held-out images: the last ones
MOST_CHANNELS = 4  # of an image; more are the rows or columns of one with its channels first
AT_A_TIME = 2**20  # pixels that a function gets at once


def judge(
    *,
    encode: Callable[[Array], Any],
    decode: Callable[..., Any],
    images: Any,
    held_out: Any = None,
    rules: Mapping[str, Any] | None = None,
    folder: str | Path = "runs/judge",
    verbose: int = 1,
) -> experiment.Outcome:
    """Diagnoses an autoencoder from its functions alone.

    Args:
        encode: from images to latent codes, (n, values), or with the axes of the images (n, h, w, c).
        decode: from latent codes to images; with a second argument it gets the images too, for skip
            connections. Both get and return NumPy arrays or what turns into such (float32), with a
            batch of any size, and must do the same each time: no dropout, no change of weights.
        images: (n, h, w, c) or (n, c, h, w) that it was trained on, in the range that it was trained
            on; of a denoiser a tuple of inputs and targets.
        held_out: the same that it was not trained on; None: the last tenth of ``images``, which are then
            assumed not to be trained on.
        rules: options of single rules, like {"CAE503": {"threshold": 0.4}}.
        folder: the parent of the folder for files and pictures.
        verbose: 0 prints nothing, 1 the summary, 2 every number.

    Raises:
        UserError: the shapes of images, latent codes and outputs do not fit together.
    """
    given, targets = _pair(images)
    split = len(given) - max(1, round(HELD_OUT * len(given)))
    parts = (given[:split], targets[:split]), (given[split:], targets[split:])
    if held_out is not None:
        parts = (given, targets), _pair(held_out)
    first = _is_channels_first(given)
    spans = spans_of(given, targets)
    functions = _Functions(encode, decode, first, *spans)
    described = _images(parts, spans, first, is_pair=given is not targets)
    facts = functions.facts(described)
    functions.count = max(1, AT_A_TIME // int(np.prod(described.shape)))
    behaviour = Behaviour(
        images=described,
        network=network(facts),
        batch=functions.count,
        reconstruct=lambda x: functions.decode(x, functions.encode(x)),
        encode=functions.encode,
        decode=functions.decode,
        informative=functions.informative,
        training_mode=lambda parts: [np.full(len(x), np.nan, np.float32) for _, x in parts],
    )
    run = Run(claim(Path(folder)))
    with run.running(), np.errstate(all="ignore"):
        hand = Way(*spans)
        arrays = {**behaviour.record(), **preparation(functions.tried, described, hand)}
        write_run(run, described, arrays, {"rules": dict(rules or {})}, network=facts)
        outcome = experiment.report(run, silent=not verbose)
    if verbose:
        with streams.guarded():
            terminal.show(outcome.summary(verbose=verbose > 1))
            terminal.show([terminal.folder(run.folder)])
    return outcome


class _Functions:
    """The functions of the user, on images (n, h, w, c) in [0, 1].

    Attributes:
        count: how many images a function gets at once.
    """

    def __init__(
        self,
        encode: Callable[[Array], Any],
        decode: Callable[..., Any],
        channels_first: bool,
        given: Span,
        span: Span,
    ) -> None:
        self._user_encode, self._user_decode = encode, decode
        self._first, self._given, self._span = channels_first, given, span
        self._skips = _takes_two(decode)
        self.count = 2

    def encode(self, images: Array) -> Array:
        """(n, ...) latent codes."""
        return self._in_batches(self._encoded, images)

    def decode(self, images: Array, latents: Array) -> Array:
        """(n, h, w, c) reconstructions."""
        return self._in_batches(self._decoded, images, latents)

    def tried(self, images: Array) -> Array:
        """(n, h, w, c) reconstructions of values that the functions may not take; NaN if they fail."""
        try:
            return self.decode(images, self.encode(images))
        except Exception:  # functions of somebody else, which may raise anything
            return np.full_like(images, np.nan)

    def informative(self, images: Array) -> float:
        """`metrics.latent.informative` of codes that are drawn at random, else NaN."""
        first, second = self.encode(images), self.encode(images)
        return float("nan") if np.array_equal(first, second) else informative(first, second)

    def facts(self, images: Images) -> dict[str, Any]:
        """The facts of a network, as far as functions show them.

        Raises:
            UserError: the shape of a latent code or of an output is wrong.
        """
        few = np.asarray(images.given[:2], np.float32)
        latents = self.encode(few)
        outputs = self.decode(few, latents)
        if outputs.shape != few.shape:
            raise UserError(
                f"decode makes images of {outputs.shape[1:]}, these are {few.shape[1:]} "
                "(height, width, channels)",
                hint="It must return the images that belong to the latent codes.",
            )
        low, high = self._span
        return {
            "image_shape": list(images.shape),
            "latent_shape": list(latents.shape[1:]),
            "output_activation": None,
            "hidden_activation": None,
            "normalised": False,
            "skips": self._skips,
            "receptive_field": None,
            "depth": 0,
            "narrowest": None,
            "span": [low, high],
        }

    def _encoded(self, images: Array) -> Array:
        latents = _array(self._user_encode(self._to_user(images)))
        if latents.ndim < 2 or len(latents) != len(images):
            raise UserError(
                f"encode makes an array of shape {latents.shape} of {len(images)} images",
                hint="It must return one latent code for each image, (n, ...), as one array.",
            )
        return np.moveaxis(latents, 1, -1) if self._first and latents.ndim == 4 else latents

    def _decoded(self, images: Array, latents: Array) -> Array:
        latents = np.moveaxis(latents, -1, 1) if self._first and latents.ndim == 4 else latents
        inputs = (latents, self._to_user(images)) if self._skips else (latents,)
        outputs = _array(self._user_decode(*(np.ascontiguousarray(x) for x in inputs)))
        if outputs.ndim != 4:
            raise UserError(
                f"decode makes an array of shape {outputs.shape}, not images",
                hint="reshape it to that of the images that encode gets",
            )
        low, high = self._span
        return (_channels_last(outputs) if self._first else outputs) / (high - low) - low / (high - low)

    def _to_user(self, images: Array) -> Array:
        low, high = self._given
        scaled = np.asarray(low + (high - low) * images, np.float32)
        return np.ascontiguousarray(np.moveaxis(scaled, -1, 1) if self._first else scaled)

    def _in_batches(self, function: Callable[..., Array], *arrays: Array) -> Array:
        starts = range(0, len(arrays[0]), self.count)
        return np.concatenate([function(*(a[s : s + self.count] for a in arrays)) for s in starts])


def _pair(images: Any) -> tuple[Array, Array]:
    """Inputs and targets, of images alone the same twice; UserError if their shapes are not right."""
    given, targets = images if isinstance(images, tuple) and len(images) == 2 else (images, images)
    arrays = _array(given), _array(targets)
    if arrays[0].ndim != 4 or len(arrays[0]) < 2:
        raise UserError(
            f"the images must have the shape (n, h, w, c), got {arrays[0].shape}",
            hint="x[..., None] adds the channel axis.",
        )
    if arrays[0].shape != arrays[1].shape:
        raise UserError(f"inputs of {arrays[0].shape} have targets of {arrays[1].shape}")
    return arrays if given is not targets else (arrays[0], arrays[0])


def _images(
    parts: tuple[tuple[Array, Array], tuple[Array, Array]],
    spans: tuple[Span, Span],
    channels_first: bool,
    *,
    is_pair: bool,
) -> Images:
    """The images of a run, in [0, 1] and (n, h, w, c)."""

    def ready(array: Array, span: Span) -> Array:
        return stored(_channels_last(array) if channels_first else array, span)

    (inputs, train), (held_out_inputs, held_out) = parts
    given, span = spans
    images = Images(train=ready(train, span), validation=ready(held_out, span), source="judge")
    if not is_pair:
        return images
    return replace(
        images,
        train_inputs=ready(inputs, given),
        validation_inputs=ready(held_out_inputs, given),
    )


def _is_channels_first(images: Array) -> bool:
    return bool(images.shape[1] <= MOST_CHANNELS < images.shape[3])


def _channels_last(images: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


def _array(value: Any) -> Array:
    """What a library returns, as an array; a tensor of PyTorch may carry its gradient."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value, np.float32)


def _takes_two(function: Callable[..., Any]) -> bool:
    """Whether a function takes two arguments without a default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [p for p in parameters if p.default is p.empty and p.kind < p.KEYWORD_ONLY]
    return sum(p.kind is not p.VAR_POSITIONAL for p in needed) == 2
