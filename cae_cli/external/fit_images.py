"""The images that a ``fit`` is judged by: those that the user gave, else those that passed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from cae_cli.data import Images, as_float
from cae_cli.diagnosis.case import FEWEST_IMAGES
from cae_cli.errors import UserError
from cae_cli.external.fed import MOST_HELD_OUT, MOST_TRAINING, Array, Fed, Pair, content_of
from cae_cli.external.model import pieces, spans_of, stored
from cae_cli.metrics.preparation import Span

HELD_OUT = 0.1  # default share of held-out images: the last ones, as with ``validation_split``
FEWEST_AGAIN = 2  # images that were split off and are trained on: one may be alike by chance
MOST_KNOWN = 0.5  # share of the validation images that are among the given ones, if they are others

Given = tuple[Pair, Pair | None]  # training and held-out ones


class FitImages:
    """What is known of the images of one ``fit`` and its validation data.

    Args:
        given: of `given_pairs`; None: those that pass are taken.

    Attributes:
        known: training and held-out pairs as they were given; None: those that passed count.
        spans: ranges of the inputs and of the targets; there once `use` was called.
        images: the images as those of a run, in [0, 1]; there once `use` was called.
    """

    def __init__(self, given: Given | None) -> None:
        self._whole = None if given is None else given[0]
        self._splits = given is not None and given[1] is None  # the last ones are held out
        self.known = None if given is None else _parted(*given)
        self._passed, self._passed_held_out = Fed(MOST_TRAINING), Fed(MOST_HELD_OUT)
        self._passed.closed = self.known is not None
        self._passed_held_out.closed = self.known is not None and not self._splits
        self._watches = self._splits  # whether images that were split off are trained on
        self._trained_on = False
        self._last: set[int] | None = None  # contents of those that were split off
        self._again: set[int] = set()  # those of them that are trained on
        self._most_watched = math.inf  # steps
        self.spans: tuple[Span, Span]
        self.images: Images

    # -- what passes -------------------------------------------------------------------------------

    @property
    def wants_batch(self) -> bool:
        """Whether the next training batch may tell anything."""
        return self._watches or not self._passed.closed

    @property
    def wants_held_out(self) -> bool:
        """Whether the next validation batch may tell anything."""
        return not self._passed_held_out.closed

    def close(self) -> None:
        """No batch is wanted any more."""
        self._watches = False
        self._passed.closed = self._passed_held_out.closed = True

    def give_way_to(self, pair: Pair) -> bool:
        """Forgets images that were given as their own targets where ``fit`` gets other targets.

        Then the inputs are something else than them, or they are the inputs: those that pass count.

        Returns:
            Whether they were forgotten.
        """
        refuted = self.known is not None and are_equal(self.known[0]) and not are_equal(pair)
        if refuted:
            self.known, self._watches = None, False
            self._passed.closed = self._passed_held_out.closed = False
        return refuted

    def passes(self, pair: Pair, step: int) -> None:
        """A training batch passes, before the ``step``-th step (from 1) of this training."""
        self._passed.add(*pair)
        if self._watches:
            self._watch(pair[1], step)

    def passes_held_out(self, pair: Pair) -> None:
        """A validation batch passes."""
        self._passed_held_out.add(*pair)

    def epoch_ended(self) -> None:
        """All training images have passed."""
        self._watches = False

    def validation_ended(self) -> None:
        """Later validations show the same images again."""
        self._passed_held_out.closed = self._passed_held_out.closed or bool(self._passed_held_out)

    def _watch(self, targets: Array, step: int) -> None:
        """Sees whether the images that were split off are trained on.

        Those that are among the training images anyway tell nothing.
        """
        assert self.known is not None
        train, last = self.known[0][1], self.known[1][1]
        if self._last is None:
            self._last, size = _contents(last), len(targets)
            first = np.asarray(train[:size], np.float32)
            # Images in the order given reach their last ones at the end of the epoch only.
            self._most_watched = math.inf if np.array_equal(targets, first) else MOST_TRAINING / size
        if found := _contents(targets) & self._last:
            if not self._again:  # only now, as it reads all of them
                self._last -= _contents(train)
            self._again |= found & self._last
        self._trained_on = len(self._again) >= max(1, min(FEWEST_AGAIN, len(self._last)))
        self._watches = not self._trained_on and step < self._most_watched

    # -- what counts -------------------------------------------------------------------------------

    @property
    def are_pairs(self) -> bool:
        """Whether other targets than the inputs were given."""
        return self.known is not None and not are_equal(self.known[0])

    def use(self, train: Pair, held_out: Pair) -> Images:
        """The images to begin with; the ranges follow from the training pairs."""
        self.spans = spans_of(*train)
        self.images = self._stored(train, held_out)
        return self.images

    def judged(self) -> Images:
        """The images that the training is judged by, at its end."""
        if self.known is None or self._whole is None:
            self.images = self._all_passed()
        elif self._splits:
            self.images = self._split_off(self.known[0], self._whole)
        return self.images

    def sample(self) -> Array:
        """Training targets drawn at random, in the range that the network is trained on."""
        images = self.images if self.known is not None else self._all_passed()
        return _in_range(images.sample(), self.spans[1])

    def inputs(self) -> Array:
        """Training inputs in the range that the network is trained on."""
        return _in_range(self.images.given, self.spans[0])

    def held_out(self, most: int | None = None) -> tuple[Array, Array]:
        """At most so many held-out inputs and targets, in the range that the network is trained on."""
        parts = self.images.held_out_given, self.images.held_out
        inputs, targets = (_in_range(p[:most], s) for p, s in zip(parts, self.spans, strict=True))
        return inputs, targets

    def _all_passed(self) -> Images:
        """The images that passed; without validation data the last of them stand for held-out ones."""
        pairs = self._passed.arrays()
        if self._passed_held_out:
            return self._stored(pairs, self._passed_held_out.arrays())
        return self._stored(*_split(pairs, fewest=FEWEST_IMAGES), trained_on=True)

    def _split_off(self, train: Pair, whole: Pair) -> Images:
        """The images that were given; held out are those of the validation data, if they are others."""
        if self._passed_held_out:
            held_out = self._passed_held_out.arrays()
            contents = _contents(held_out[1])
            if len(contents & _contents(whole[1])) <= MOST_KNOWN * len(contents):
                return self._stored(whole if self._trained_on else train, held_out)
        return replace(self.images, trained_on=self._trained_on)

    def _stored(self, train: Pair, held_out: Pair, *, trained_on: bool = False) -> Images:
        """Images in the range of the network as those of a run."""
        given, span = self.spans
        images = Images(
            train=stored(train[1], span),
            validation=stored(held_out[1], span),
            source="fit",
            trained_on=trained_on,
        )
        if are_equal(train) and are_equal(held_out):
            return images
        inputs, held_out_inputs = (stored(pair[0], given) for pair in (train, held_out))
        return replace(images, train_inputs=inputs, validation_inputs=held_out_inputs)


def given_pairs(images: Any, held_out: Any) -> Given | None:
    """Training and held-out pairs as they were given; None if those are to be taken that pass.

    Args:
        images: an array (n, h, w, c), or a tuple of inputs and targets; anything else that can be
            iterated, or None: those that pass.
        held_out: likewise; None: the last of ``images``.

    Raises:
        UserError: there are held-out images alone, or shapes that are not those of images.
    """
    if not isinstance(images, list) and not hasattr(images, "__array__") and not _is_pair(images):
        if held_out is not None:
            raise UserError(
                "held-out images need training images beside them",
                hint="Diagnosis() takes both from fit(…, validation_data=…).",
            )
        if images is None or (hasattr(images, "__iter__") and not isinstance(images, str | dict)):
            return None
    train = _pair(images)
    if len(train[0]) < 2:
        raise UserError(f"at least two images are needed, got {len(train[0])}")
    if held_out is None:
        return train, None
    if _is_pair(images) and not _is_pair(held_out):
        raise UserError(
            "the held-out images need targets too", hint="Diagnosis((x, y), (x_held_out, y_held_out))"
        )
    return train, _pair(held_out)


def _is_pair(images: Any) -> bool:
    return isinstance(images, tuple) and len(images) == 2 and all(np.ndim(part) == 4 for part in images)


def _pair(images: Any) -> Pair:
    """Inputs and targets, of images alone the same twice; UserError if their shapes are not right."""
    inputs, targets = map(_mapped_or_array, images if _is_pair(images) else (images, images))
    if inputs.ndim != 4:
        raise UserError(
            f"the images must have the shape (n, h, w, c), got {inputs.shape}",
            hint="x[..., None] adds the channel axis.",
        )
    if inputs.shape != targets.shape:
        raise UserError(f"inputs of {inputs.shape} have targets of {targets.shape}")
    return inputs, (inputs if are_equal((inputs, targets)) else targets)


def _mapped_or_array(images: Any) -> Array:
    """An array; one in a file stays there."""
    return images if isinstance(images, np.memmap) else np.asarray(images)


def _parted(train: Pair, held_out: Pair | None) -> tuple[Pair, Pair]:
    """What was given, with the last images as held-out ones where there are no others."""
    return _split(train) if held_out is None else (train, held_out)


def _split(pair: Pair, fewest: int = 1) -> tuple[Pair, Pair]:
    """All but the last images, and the last ones: at least ``fewest``, of twice as many or more."""
    size = len(pair[0])
    count = max(1, round(HELD_OUT * size), fewest if size >= 2 * fewest else 0)

    def part(here: slice) -> Pair:
        inputs = pair[0][here]
        return inputs, (inputs if pair[1] is pair[0] else pair[1][here])

    return part(slice(-count)), part(slice(-count, None))


def are_equal(pair: Pair) -> bool:
    """Whether each image is its own target."""
    inputs, targets = pair
    if inputs is targets or inputs.shape != targets.shape:
        return inputs is targets
    return all(np.array_equal(inputs[part], targets[part]) for part in pieces(inputs))


def _contents(images: Any) -> set[int]:
    """What tells images (n, h, w, c) from others."""
    return {*map(content_of, images)}


def _in_range(images: Any, span: Span) -> Array:
    """Images in [0, 1] in the range that the network is trained on."""
    low, high = span
    return np.asarray(low + (high - low) * as_float(images), np.float32)
