"""Splits the images of a source into a training, a validation and a test part.

The split depends on the options only. The training images of a smaller ``data.train`` are a subset of
those of a larger one, and none of them is ever a validation image, so learning curves over
``data.train`` are comparable.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cae_cli.data.images import TEST, TRAIN, VALIDATION, Images, Pool
from cae_cli.data.source import DataOptions
from cae_cli.data.spool import chosen
from cae_cli.errors import UserError

Indices = NDArray[np.intp]


def split(pool: Pool, options: DataOptions, source: str) -> Images:
    """The parts of a pool.

    Args:
        pool: images (n, h, w, c), scaled.
        options: how many, and the seed.
        source: the source's name.

    Returns:
        Copies of the chosen images.

    Raises:
        UserError: fewer than 2 training images or none for validation.
    """
    notes = list(pool.notes)
    n = len(pool.images)
    order = np.arange(n) if options.shuffled else options.rng("split").permutation(n)
    test = None
    if pool.parts is not None:
        of_test = np.flatnonzero(pool.parts == TEST)
        test = of_test[_test_part(len(of_test), options, notes)] if len(of_test) else None
        order = order[pool.parts[order] != TEST]
    if pool.parts is not None and (pool.parts == VALIDATION).any():
        train, validation = _by_parts(order, pool.parts, options)
    elif pool.groups is not None and np.ptp(pool.groups[order]) > 0:
        train, validation = _by_groups(order, pool.groups, options, notes)
    else:
        if pool.groups is not None:
            notes.append(
                "all images come from one file, so training and validation images are neighbours"
            )
        train, validation = _by_images(order, options)
    if options.train is not None and len(train) < options.train:
        notes.append(
            f"{len(train)} training images instead of {options.train}: {len(validation)} of {n} images "
            "are for validation"
        )
    if len(train) < 2 or len(validation) < 1:
        raise UserError(
            f"too few images: {len(train)} for training and {len(validation)} for validation out of {n}",
            hint="at least 2 and 1 are needed; use more images or another data.validation; "
            f"{pool.more or 'data.patches=28 cuts many of each file of an image_folder'}"
            if options.train is None or options.train > 1
            else "data.train must be at least 2",
        )
    test_images, test_labels, test_inputs = pool.images, pool.labels, pool.inputs
    if pool.test_images is not None:
        test_images, test_labels, test_inputs = pool.test_images, pool.test_labels, pool.test_inputs
        test = _test_part(len(test_images), options, notes)

    def of(inputs: NDArray[np.generic] | None, part: Indices | None) -> NDArray[np.generic] | None:
        return None if inputs is None or part is None else chosen(inputs, part)

    groups = 0, 0
    if pool.groups is not None and pool.test_images is None:
        of_train, of_others = (
            pool.groups[part] for part in (train, validation if test is None else test)
        )
        if np.ptp(pool.groups):  # else neighbours within one file
            groups = len(np.unique(of_train)), len(np.unique(of_others))
    return Images(
        train=chosen(pool.images, train),
        validation=chosen(pool.images, validation),
        test=None if test is None else chosen(test_images, test),
        train_labels=None if pool.labels is None else pool.labels[train],
        validation_labels=None if pool.labels is None else pool.labels[validation],
        test_labels=None if test is None or test_labels is None else test_labels[test],
        source=source,
        notes=tuple(notes),
        scale=pool.scale,
        input_scale=pool.input_scale,
        positions={"train": train, "validation": validation, **({} if test is None else {"test": test})},
        names=pool.names,
        label_names=pool.label_names,
        more=pool.more,
        train_inputs=of(pool.inputs, train),
        validation_inputs=of(pool.inputs, validation),
        test_inputs=of(test_inputs, test),
        groups=groups,
    )


def _by_images(order: Indices, options: DataOptions) -> tuple[Indices, Indices]:
    """Training images from the front of the order, validation images from its back."""
    n = len(order)
    train = n if options.train is None else options.train
    validation = options.validation_count(train)
    if train + validation > n:  # fewer images than requested
        validation = max(1, round(options.validation * n))
        train = min(train, n - validation)
    return order[:train], order[n - validation :]


def _by_parts(order: Indices, parts: NDArray[np.int64], options: DataOptions) -> tuple[Indices, Indices]:
    """The images that the source names for training and for validation."""
    train, validation = order[parts[order] == TRAIN], order[parts[order] == VALIDATION]
    if options.train is not None:
        train = train[: options.train]
        validation = validation[: options.validation_count(len(train))]
    return train, validation


def _by_groups(
    order: Indices, groups: NDArray[np.int64], options: DataOptions, notes: list[str]
) -> tuple[Indices, Indices]:
    """Whole groups for validation until the share is reached, at least one left for training."""
    names, sizes = np.unique(groups[order], return_counts=True)
    shuffled = options.rng("groups").permutation(len(names))
    reached = np.cumsum(sizes[shuffled]) / len(order)
    count = min(int(np.searchsorted(reached, options.validation)) + 1, len(names) - 1)
    held_out = np.isin(groups[order], names[shuffled[:count]])
    train, validation = order[~held_out], order[held_out]
    if options.train is not None:
        train = train[: options.train]
        validation = validation[: options.validation_count(len(train))]
    notes.append(f"related images stay together: {count} of {len(names)} groups are for validation")
    return train, validation


def _test_part(n: int, options: DataOptions, notes: list[str]) -> Indices:
    if options.test is None:
        return np.arange(n)
    if options.test > n:
        notes.append(f"{n} test images instead of {options.test}, which is all there are")
    return options.rng("test").permutation(n)[: options.test]
