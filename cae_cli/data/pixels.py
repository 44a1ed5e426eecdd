"""Checks the images of a source and scales them to [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import spool
from cae_cli.data.images import TRAIN, Pool, Scale
from cae_cli.errors import UserError, counted, printable

Array = NDArray[Any]

# Resizing and float16 leave values slightly outside their range, which are clipped silently.
_SLACK = 1e-3
# How far beyond [0, 1] the inputs of pairs may be to be measured in the unit of their targets: noise.
_FAR = 2


@dataclass(frozen=True)
class _Rule:
    """Which values become 0 and 1, and why."""

    black: float
    white: float
    reason: str


def check(pool: Pool, where: object = None, *, varied: bool = True) -> Pool:
    """The pool with images (n, h, w, c), if a network can learn from it.

    Args:
        pool: what a source delivers.
        where: the file or folder it came from, for messages.
        varied: the images must differ; false: they are for a network that has learned.

    Raises:
        UserError: wrong shape or type, lengths that differ, nothing that varies.
    """
    images = _four_axes(pool.images, "the images", where)
    if pool.labels is not None and len(pool.labels) != len(images):
        raise UserError(f"there are {len(images)} images and {len(pool.labels)} labels", where=where)
    if varied:
        _check_variation(images, where)
    inputs = _checked_inputs(pool.inputs, images, "", where)
    if pool.test_images is None:
        return replace(pool, images=images, inputs=inputs)
    test_images = _four_axes(pool.test_images, "the test images", where)
    if test_images.shape[1:] != images.shape[1:]:
        raise UserError(
            f"training images are {_shape(images)}, test images {_shape(test_images)}",
            where=where,
            hint="both parts must have the same size and channels",
        )
    if pool.test_labels is not None and len(pool.test_labels) != len(test_images):
        raise UserError(
            f"there are {len(test_images)} test images and {len(pool.test_labels)} labels",
            where=where,
        )
    test_inputs = _checked_inputs(pool.test_inputs, test_images, "test ", where)
    return replace(pool, images=images, test_images=test_images, inputs=inputs, test_inputs=test_inputs)


def _checked_inputs(inputs: Array | None, images: Array, part: str, where: object) -> Array | None:
    """The inputs of pairs as (n, h, w, c), or UserError if they do not fit the images."""
    if inputs is None:
        return None
    inputs = _four_axes(inputs, f"the {part}inputs", where)
    if len(inputs) != len(images):
        raise UserError(
            f"there are {counted(len(inputs), f'{part}input')} and {counted(len(images), 'target')}",
            where=where,
            hint="save the two images of a pair at the same place of both arrays",
        )
    if inputs.shape != images.shape:
        only_channels = inputs.shape[:3] == images.shape[:3]
        raise UserError(
            f"{part}inputs are {_shape(inputs)}, targets {_shape(images)}; both must have the same size "
            "and channels",
            where=where,
            hint="save both in colour or in grey; for image files data.channels=3 or 1 does it"
            if only_channels
            else "enlarge the smaller ones before; for image files data.image_size=… resizes both",
        )
    return inputs


def scale(pool: Pool, how: str, where: object = None) -> Pool:
    """The pool with uint8 images, or float32 images in [0, 1].

    The training images determine the rule for all, as far as the source says which they are.

    Args:
        pool: checked by `check`.
        how: the option ``scale``.
        where: the file or folder it came from, for messages.

    Returns:
        The pool, with a note on what was done. With ``how="none"`` the values are untouched.

    Raises:
        UserError: NaN or infinite values, or values outside the range of the rule.
    """
    low, high = _extremes(pool.images, "the images", where)
    if pool.test_images is not None:
        _extremes(pool.test_images, "the test images", where)
    if pool.parts is not None:
        low, high = _of_training(pool.images, pool.parts)
    rule = _rule(pool, how, low, high, where)
    pool = _scaled_inputs(pool, rule, how, where)
    known = Scale(rule.black, rule.white, pool.images.dtype.name, how != "none")
    pool = replace(pool, scale=known)
    name = "values" if pool.inputs is None else "targets"
    notes = [*pool.notes, f"{name} {low:g} to {high:g} ({pool.images.dtype}): {rule.reason}"]
    if how == "auto" and (high - rule.black) / (rule.white - rule.black) < 0.25:
        notes.append("the images are dark; data.scale=minmax uses the whole range")
    if how == "none":
        images, test = (_unscaled(x) for x in (pool.images, pool.test_images))
        assert images is not None
        return replace(pool, images=images, test_images=test, notes=tuple(notes))
    images, beyond = _apply(rule, pool.images)
    test_images = None
    if pool.test_images is not None:
        test_images, beyond = _apply(rule, pool.test_images)
    if beyond:
        notes.append("held-out images have values beyond those of the training images: clipped")
    return replace(pool, images=images, test_images=test_images, notes=tuple(notes))


def _scaled_inputs(pool: Pool, rule: _Rule, how: str, where: object) -> Pool:
    """The pool with scaled inputs, not clipped: noise leaves the range of the images.

    They are measured in the unit of the images. Only where they have another type, or are far beyond
    the images' range, such as photographs for masks of 0 and 1, a rule of their own is found.
    """
    inputs, test = pool.inputs, pool.test_inputs
    if inputs is None:
        return pool
    low, high = _extremes(inputs, "the inputs", where)
    if test is not None:
        _extremes(test, "the test inputs", where)
    if how != "none":
        reach = [(value - rule.black) / (rule.white - rule.black) for value in (low, high)]
        if inputs.dtype != pool.images.dtype or reach[0] < -_FAR or reach[1] > 1 + _FAR:
            rule = _rule(Pool(inputs), how, low, high, where)
    return replace(
        pool,
        inputs=_in_unit(rule, inputs),
        test_inputs=None if test is None else _in_unit(rule, test),
        input_scale=Scale(rule.black, rule.white, inputs.dtype.name, clip=False),
        notes=(*pool.notes, f"inputs {low:g} to {high:g} ({inputs.dtype}): {rule.reason}"),
    )


def _in_unit(rule: _Rule | Scale, inputs: Array) -> Array:
    """Scaled inputs; those outside the range stay outside."""
    same = {np.dtype(np.uint8): (0, 255), np.dtype(np.float32): (0, 1)}
    if (rule.black, rule.white) == same.get(inputs.dtype):
        return inputs
    unit = spool.empty_like(inputs, np.float32)
    for start in range(0, len(inputs), 256):
        part = np.subtract(inputs[start : start + 256], rule.black, dtype=np.float64)
        unit[start : start + 256] = part / (rule.white - rule.black)
    return unit


def pool_alike(
    pool: Pool, known: Scale | None, targets: Scale | None = None, where: object = None
) -> Pool:
    """The pool with images scaled as those that a network was trained on; see `scale_alike`.

    Args:
        pool: checked by `check`.
        known: what was done in training to the values that the network was given; None: not known.
        targets: what was done to those that it was to make of them.
        where: the file or folder it came from, for messages.
    """
    if pool.inputs is None:
        if pool.white is not None:
            known = Scale(0, pool.white, pool.images.dtype.name)
        images, test, notes = _alike(pool.images, pool.test_images, known, "values", where)
        return replace(pool, images=images, test_images=test, notes=(*pool.notes, *notes))
    images, test, notes = _alike(pool.images, pool.test_images, targets, "targets", where)
    inputs, test_inputs, of_inputs = _alike(pool.inputs, pool.test_inputs, known, "inputs", where)
    return replace(
        pool,
        images=images,
        test_images=test,
        inputs=inputs,
        test_inputs=test_inputs,
        notes=(*pool.notes, *of_inputs, *notes),
    )


def _alike(
    images: Array, test: Array | None, known: Scale | None, name: str, where: object
) -> tuple[Array, Array | None, list[str]]:
    """Images and test images scaled by `scale_alike`, and what is to be said of that."""
    scaled, beyond = scale_alike(images, known, where)
    scaled_test = None
    if test is not None:
        scaled_test, beyond_too = scale_alike(test, known, where)
        beyond |= beyond_too
    low, high = float(images.min()), float(images.max())
    how = "as they are"
    if scaled.dtype != np.uint8:
        how = f"{float(scaled.min()):g} to {float(scaled.max()):g} for the network"
    notes = [f"{name} {low:g} to {high:g} ({images.dtype}): {how}"]
    if beyond:
        notes.append(f"! {name} beyond the range of the training images: clipped")
    return scaled, scaled_test, notes


def scale_alike(images: Array, known: Scale | None, where: object = None) -> tuple[Array, bool]:
    """Images scaled as those that a network was trained on.

    Values of another type are scaled by what they are: uint8 has 255 as white, for others it follows
    from their range, as in training.

    Args:
        images: (n, h, w, c), any numeric dtype.
        known: what was done to the values in training; None: not known.
        where: the file or folder they came from, for messages.

    Returns:
        uint8 images, or float32 images, in [0, 1] where those of the training were clipped to it; and
        whether values beyond the range were clipped.

    Raises:
        UserError: NaN or infinite values, or black and white are unknown.
    """
    low, high = _extremes(images, "the images", where)
    if known is not None and known.dtype == images.dtype.name:
        if not known.clip:
            return _in_unit(known, images), False
        return _apply(_Rule(known.black, known.white, ""), images)
    if images.dtype == np.uint8:
        return images, False
    return _apply(_rule(Pool(images), "auto", low, high, where), images)


def _four_axes(images: Array, what: str, where: object) -> Array:
    if images.dtype.kind not in "buif":
        raise UserError(
            f"{what} must be numbers, got an array of {printable(str(images.dtype))[:80]}",
            where=where,
            hint="save them as uint8 from 0 to 255, or as floats from 0 to 1",
        )
    if images.ndim == 2 and images.shape[1] > 1:
        values = images.shape[1]
        shape = next((f"[{s},{s}{c}]" for k, c in ((1, ""), (3, ",3")) for s in [math.isqrt(values // k)]
                      if k * s * s == values), "[h,w]")  # fmt: skip
        raise UserError(
            f"{what} must have the shape (n, h, w) or (n, h, w, c), got {images.shape}",
            where=where,
            hint=f"data=npy and data=npz read flat rows as images with data.shape={shape}",
        )
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise UserError(
            f"{what} must have the shape (n, h, w) or (n, h, w, c), got {images.shape}",
            where=where,
            hint="n images of h rows, w columns and c channels",
        )
    if len(images) == 0:
        raise UserError(
            f"{what} are missing: the array has the shape {images.shape}",
            where=where,
            hint="the first axis must be the number of images",
        )
    if images.ndim == 3 and images.shape[2] in (3, 4) and min(images.shape[:2]) > 4:
        raise UserError(
            f"{what} seem to be a single image in colour, got {images.shape}",
            where=where,
            hint="save it as an image file in a folder and cut it: data=image_folder data.patches=28",
        )
    if images.ndim == 3:
        return images[..., np.newaxis]
    if images.shape[3] > 4:
        hint = "read some of the channels: data.bands=[0,1,2]"
        if images.shape[1] <= 4:
            hint = "the channels seem to be first: use data.axes=nchw"
        elif images.shape[2] <= 4:
            hint = "the images seem to be on the last axis: use data.axes=hwcn"
        raise UserError(
            f"{what} must have 1 to 4 channels on the last axis, got {images.shape}",
            where=where,
            hint=hint,
        )
    return images


def _check_variation(images: Array, where: object) -> None:
    if images.shape[1:3] == (1, 1):
        raise UserError(
            "the images are single pixels (1x1), which have no structure to learn",
            where=where,
            hint="use larger images: filters need neighbouring pixels",
        )
    # Both sweeps end at the first image that shows something.
    if all(image.min() == image.max() for image in images):
        raise UserError(
            "constant data: within each image all pixels are equal",
            where=where,
            hint="there is nothing to learn; check the images and how they were saved",
        )
    if len(images) > 1 and all(np.array_equal(image, images[0]) for image in images[1:]):
        raise UserError(
            f"constant data: all {len(images)} images are equal",
            where=where,
            hint="there is nothing to learn; check the images and how they were saved",
        )


def _extremes(images: Array, what: str, where: object) -> tuple[float, float]:
    """Smallest and largest value; both are NaN or infinite only if a pixel is."""
    low, high = float(images.min()), float(images.max())
    if max(abs(low), abs(high)) > float(np.finfo(np.float32).max) and np.isfinite([low, high]).all():
        raise UserError(
            f"{what} have values from {low:g} to {high:g}, beyond the range of float32",
            where=where,
            hint="divide the values before saving them",
        )
    if np.isfinite(low) and np.isfinite(high):
        return low, high
    bad = np.array([not np.isfinite(image).all() for image in images])
    raise UserError(
        f"{what} have NaN or infinite values in {bad.sum()} of {len(bad)} images, "
        f"first in image {bad.argmax()}",
        where=where,
        hint="remove these images, or replace the values with np.nan_to_num",
    )


def _of_training(images: Array, parts: NDArray[np.int64]) -> tuple[float, float]:
    """Smallest and largest value of the training images."""
    chosen = np.flatnonzero(parts == TRAIN)
    return min(float(images[i].min()) for i in chosen), max(float(images[i].max()) for i in chosen)


def _rule(pool: Pool, how: str, low: float, high: float, where: object) -> _Rule:
    match how:
        case "none":
            return _Rule(0, 1, "not scaled")
        case "minmax" if low == high:  # whole numbers that differ, but not as floats
            raise UserError(
                f"the values around {low:g} differ by less than float precision",
                where=where,
                hint="subtract the smallest value before saving them",
            )
        case "minmax":
            return _Rule(low, high, "smallest to 0, largest to 1")
        case "byte":
            rule = _Rule(0, 255, "divided by 255")
        case "word":
            rule = _Rule(0, 65535, "divided by 65535")
        case "signed":
            rule = _Rule(-1, 1, "from [-1, 1] to [0, 1]")
        case _ if pool.white is not None:
            return _Rule(0, pool.white, f"divided by {pool.white:g}")
        case _ if pool.images.dtype.kind == "f":
            return _rule_for_floats(low, high, where)
        case _:
            return _rule_for_integers(low, high, where)
    slack = _SLACK * (rule.white - rule.black)
    if low < rule.black - slack or high > rule.white + slack:
        raise UserError(
            f"data.scale={how} needs values in {rule.black:g} to {rule.white:g}, "
            f"got {low:g} to {high:g}",
            where=where,
            hint="use data.scale=minmax or data.scale=auto",
        )
    return rule


def _rule_for_integers(low: float, high: float, where: object) -> _Rule:
    if low < 0 or high > 65535:
        raise _no_rule("integers", low, high, where)
    if high <= 1:
        return _Rule(0, 1, "0 and 1")
    if high <= 255:
        return _Rule(0, 255, "255 is white")
    return _Rule(0, 65535, "65535 is white")


def _rule_for_floats(low: float, high: float, where: object) -> _Rule:
    if high <= 1 + _SLACK:
        if low >= -_SLACK:
            return _Rule(0, 1, "in [0, 1] already")
        if low >= -1 - _SLACK:
            return _Rule(-1, 1, "from [-1, 1] to [0, 1]")
    # Up to 2, [0, 1] with an overshoot is more likely than an almost black [0, 255].
    if low >= -_SLACK and 2 < high <= 255 * (1 + _SLACK):
        return _Rule(0, 255, "255 is white")
    raise _no_rule("numbers", low, high, where)


def _no_rule(kind: str, low: float, high: float, where: object) -> UserError:
    return UserError(
        f"black and white are unknown for {kind} from {low:g} to {high:g}",
        where=where,
        hint="use data.scale=minmax for the smallest as black and the largest as white",
    )


def _apply(rule: _Rule, images: Array) -> tuple[Array, bool]:
    """Scaled images, and whether values outside the range had to be clipped."""
    if images.dtype == np.uint8 and (rule.black, rule.white) == (0, 255):
        return images, False
    if (rule.black, rule.white) == (0, 1) and images.dtype == np.float32:
        low, high = images.min(), images.max()
        scaled = images if 0 <= low <= high <= 1 else np.clip(images, 0, 1)
    else:
        # In parts, so that the double precision that wide integers need never holds all images.
        scaled, low, high = spool.empty_like(images, np.float32), 0.0, 1.0
        for start in range(0, len(images), 256):
            part = np.subtract(images[start : start + 256], rule.black, dtype=np.float64)
            np.divide(part, rule.white - rule.black, out=part)
            low, high = min(low, part.min()), max(high, part.max())
            scaled[start : start + 256] = np.clip(part, 0, 1, out=part)
    return scaled, bool(low < -_SLACK or high > 1 + _SLACK)


def _unscaled(images: Array | None) -> Array | None:
    return None if images is None else images.astype(np.float32, copy=False)


def _shape(images: Array) -> str:
    return "x".join(map(str, images.shape[1:]))
