"""The fault operators: what each changes in a training, and in which range.

Those of DeepCrime (Humbatova, Jahangirova, Tonella, ISSTA 2021), and those on layers and rates of
DEFault (Jahan, Shah, Mahbub, Rahman, ICSE 2025). Where a range has no distribution, values are drawn
evenly, and rates and norms evenly in their logarithm. In an autoencoder the input is the target:
operators on inputs change both, unless the script has targets of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.random import Generator

from benchmarks.faults.outside.training import Training
from cae_cli.external.surgery import Edit, layers, rebuilt
from cae_cli.introspection.layers import is_a

ACTIVATIONS = (
    "elu", "softmax", "selu", "softplus", "softsign", "relu", "tanh", "sigmoid", "hard_sigmoid",
    "exponential", "linear",
)  # fmt: skip
INITIALIZERS = (
    "zeros", "ones", "constant", "random_normal", "random_uniform", "truncated_normal", "orthogonal",
    "lecun_normal", "lecun_uniform", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform",
)  # fmt: skip
LOSSES = (
    "mse", "mae", "mape", "msle", "squared_hinge", "hinge", "categorical_hinge", "log_cosh", "huber",
    "categorical_crossentropy", "binary_crossentropy", "kl_divergence", "poisson",
)  # fmt: skip
OPTIMIZERS = ("SGD", "RMSprop", "Adagrad", "Adam", "Adamax", "Nadam")
PENALTIES = ("L1", "L2", "L1L2")
LOWEST_RATE, HIGHEST_RATE = 1e-6, 1.0
NORMS = (1e-3, 10.0)
OUTPUT, HIDDEN = "output", "hidden"


@dataclass(frozen=True)
class Change:
    """One change of a training. JSON can hold it; the original has ``before`` in the place of ``after``.

    Attributes:
        operator: its name.
        before: the value in the script.
        after: the value in the mutant.
        place: "output" or "hidden" for a change of a layer.
        layer: its number among `surgery.layers`, None if no layer is changed.
        layer_type: its class.
    """

    operator: str
    before: Any
    after: Any
    place: str = ""
    layer: int | None = None
    layer_type: str = ""

    @property
    def described(self) -> str:
        """The change in words."""
        where = "" if self.layer is None else f"layer {self.layer} ({self.layer_type}, {self.place}): "
        return f"{where}{self.operator} {self.before} → {self.after}"


@dataclass(frozen=True)
class Operator:
    """A way to make a training faulty.

    Attributes:
        name: of the operator.
        family: what it changes.
        range: of the values, in words.
        draw: (training, rng) -> a change, None where there is nothing to change.
        apply: makes the change in the training; what is random in it follows from the rng.
    """

    name: str
    family: str
    range: str
    draw: Callable[[Training, Generator], Change | None]
    apply: Callable[[Training, Change, Generator], None]


def apply(training: Training, change: Change, rng: Generator) -> None:
    """Makes a change in a training.

    Args:
        training: is changed.
        change: what is changed.
        rng: for what is random in the change.

    Raises:
        CannotRebuild: Keras cannot build the changed model.
    """
    OPERATORS[change.operator].apply(training, change, rng)


# --- training data ---


def _of_data(name: str, doc: str, change: Callable[[Training, float, Generator], None]) -> Operator:
    """An operator on a share of the training images."""

    def draw(_: Training, rng: Generator) -> Change:
        return Change(name, 0.0, round(float(rng.uniform(0.01, 0.99)), 2))

    def applied(training: Training, drawn: Change, rng: Generator) -> None:
        change(training, drawn.after, rng)

    return Operator(name, "training data", f"{doc}: a share of 0.01 to 0.99", draw, applied)


def _some(count: int, share: float, rng: Generator) -> Any:
    """Numbers of a share of so many, one at least."""
    return rng.permutation(count)[: max(1, round(share * count))]


def _keep(training: Training, which: Any) -> None:
    is_same = training.y is training.x
    training.x, training.labels = training.x[which], training.labels[which]
    training.y = training.x if is_same else training.y[which]


def _change_targets(training: Training, share: float, rng: Generator) -> None:
    some = _some(len(training.y), share, rng)
    training.y = training.y.copy()
    training.y[some] = training.y[rng.integers(len(training.y), size=len(some))]


def _delete(training: Training, share: float, rng: Generator) -> None:
    count = len(training.x)
    _keep(training, np.sort(rng.permutation(count)[: max(2, round((1 - share) * count))]))


def _add_noise(training: Training, share: float, rng: Generator) -> None:
    """With the standard deviation of the images, clipped to their range."""
    is_same, some = training.y is training.x, _some(len(training.x), share, rng)
    x = training.x.copy()
    noise = rng.normal(0, x.std(), x[some].shape)
    x[some] = np.clip(x[some] + noise, x.min(), x.max())
    training.x, training.y = x, x if is_same else training.y


def _unbalance(training: Training, share: float, rng: Generator) -> None:
    """Removes the share of the images of every second class."""
    classes = rng.permutation(np.unique(training.labels))
    rare = np.flatnonzero(np.isin(training.labels, classes[: len(classes) // 2]))
    removed = rare[_some(len(rare), share, rng)]
    _keep(training, np.setdiff1d(np.arange(len(training.x)), removed))


def _overlap(training: Training, share: float, rng: Generator) -> None:
    """Images of the most frequent class are there once more, with targets of the second one."""
    classes, counts = np.unique(training.labels, return_counts=True)
    second, first = classes[np.argsort(counts)][-2:]
    own, other = (np.flatnonzero(training.labels == label) for label in (first, second))
    some = own[_some(len(own), share, rng)]
    targets = training.y[rng.choice(other, len(some))]
    training.y = np.concatenate([training.y, targets])
    training.x = np.concatenate([training.x, training.x[some]])
    training.labels = np.concatenate([training.labels, np.full(len(some), second)])


# --- hyperparameters ---


def _rate(training: Training) -> float:
    return float(f"{training.optimizer['config']['learning_rate']:.6g}")


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")


def _of_rate(name: str, doc: str, bounds: Callable[[float], tuple[float, float]]) -> Operator:
    def draw(training: Training, rng: Generator) -> Change:
        rate = _rate(training)
        return Change(name, rate, _log_uniform(rng, *bounds(rate)))

    def applied(training: Training, change: Change, _: Generator) -> None:
        _set_optimizer(training, learning_rate=change.after)

    return Operator(name, "learning rate", doc, draw, applied)


def _set_optimizer(training: Training, **options: Any) -> None:
    config = {**training.optimizer["config"], **options}
    training.optimizer = {**training.optimizer, "config": config}


def _of_fit(name: str, family: str, doc: str, key: str, values: Callable[[Training], Any]) -> Operator:
    """An operator on an argument of ``fit``."""

    def draw(training: Training, rng: Generator) -> Change | None:
        before = training.fit[key]
        usable = [int(value) for value in values(training) if value != before]
        return Change(name, before, int(rng.choice(usable))) if usable else None

    def applied(training: Training, change: Change, _: Generator) -> None:
        training.fit[key] = change.after

    return Operator(name, family, doc, draw, applied)


def _draw_optimizer(training: Training, rng: Generator) -> Change:
    before = training.optimizer["class_name"]
    return Change("optimizer", before, _other(OPTIMIZERS, before, rng))


def _apply_optimizer(training: Training, change: Change, _: Generator) -> None:
    training.optimizer = keras.optimizers.serialize(keras.optimizers.get(change.after.lower()))


def _other(values: Sequence[str], before: str, rng: Generator) -> str:
    return str(rng.choice([value for value in values if value != before]))


def _draw_norm(_: Training, rng: Generator) -> Change:
    return Change("clip_gradients", None, _log_uniform(rng, *NORMS))


def _apply_norm(training: Training, change: Change, _: Generator) -> None:
    _set_optimizer(training, clipnorm=change.after)


def _draw_loss(training: Training, rng: Generator) -> Change:
    return Change("loss", training.loss, _other(LOSSES, training.loss, rng))


def _apply_loss(training: Training, change: Change, _: Generator) -> None:
    training.loss = change.after


def _draw_patience(training: Training, rng: Generator) -> Change | None:
    before = training.patience
    if before is None or before < 2:
        return None
    return Change("patience", before, int(rng.integers(1, before)))


def _apply_patience(training: Training, change: Change, _: Generator) -> None:
    training.patience = change.after


def _draw_validation(training: Training, _: Generator) -> Change | None:
    return None if training.patience is None else Change("remove_validation", "validated", "not")


def _apply_validation(training: Training, _: Change, __: Generator) -> None:
    training.is_validated = False


# --- layers ---

Config = Mapping[str, Any]


def _layer_change(
    name: str,
    training: Training,
    rng: Generator,
    fits: Callable[[Any], bool],
    value: Callable[[Config], tuple[Any, Any]],
) -> Change | None:
    """A change of one of the layers that fit, drawn evenly.

    Args:
        name: of the operator.
        training: with the layers.
        rng: for the choice.
        fits: whether a layer can be changed.
        value: of the config, the value before and after.
    """
    every = list(layers(training.model))
    usable = [number for number, layer in enumerate(every) if fits(layer)]
    if not usable:
        return None
    number = int(rng.choice(usable))
    before, after = value(every[number].get_config())
    place = OUTPUT if number == len(every) - 1 else HIDDEN
    return Change(name, before, after, place, number, type(every[number]).__name__)


def _layer(training: Training, change: Change) -> Any:
    assert change.layer is not None
    return list(layers(training.model))[change.layer]


def _of_option(
    name: str,
    family: str,
    doc: str,
    key: str,
    fits: Callable[[Any], bool],
    values: Callable[[Any, Generator], Any],
    options: Callable[[Config, Any], Config] | None = None,
) -> Operator:
    """An operator on an option of a layer.

    Args:
        name: of the operator.
        family: of the operator.
        doc: its range.
        key: of the layer's config; the layer must have it.
        fits: whether a layer with this value of the option can be changed.
        values: (value before, rng) -> value after.
        options: (config, value after) -> the changed options; None: the value under the key.
    """
    changed = options or (lambda _, value: {key: value})

    def draw(training: Training, rng: Generator) -> Change | None:
        def value(config: Config) -> tuple[Any, Any]:
            before = _plain(config[key])
            return before, values(before, rng)

        def usable(layer: Any) -> bool:
            config = layer.get_config()
            return key in config and fits(_plain(config[key]))

        return _layer_change(name, training, rng, usable, value)

    def applied(training: Training, change: Change, _: Generator) -> None:
        target = _layer(training, change)

        def edited(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
            return {**config, **changed(config, change.after)} if layer is target else config

        training.model = rebuilt(training.model, Edit(config=edited))

    return Operator(name, family, doc, draw, applied)


def _plain(value: Any) -> Any:
    """A value of a config as JSON can hold it: of a serialised object its name; one side of a square."""
    if isinstance(value, Mapping):
        return value["class_name"]
    return int(value[0]) if isinstance(value, tuple | list) else value


def _anything(_: Any) -> bool:
    return True


def _number(low: int, high: int) -> Callable[[Any, Generator], int]:
    """A whole number from low to high, other than before."""

    def value(before: Any, rng: Generator) -> int:
        return int(rng.choice([number for number in range(low, high + 1) if number != before]))

    return value


def _name(values: Sequence[str]) -> Callable[[Any, Generator], str]:
    return lambda before, rng: _other(values, before, rng)


def _pools(config: Config, size: int) -> Config:
    """The strides of a pooling follow its size, as they do by default."""
    return {"pool_size": size, "strides": size}


def _draw_removed_activation(training: Training, rng: Generator) -> Change | None:
    def fits(layer: Any) -> bool:
        return _is_rectifier(layer) or layer.get_config().get("activation", "linear") != "linear"

    def value(config: Config) -> tuple[Any, Any]:
        return config.get("activation", "leaky_relu"), "linear"

    return _layer_change("remove_activation", training, rng, fits, value)


def _is_rectifier(layer: Any) -> bool:
    return is_a(layer, {"LeakyReLU", "ReLU", "ELU", "PReLU"})


def _apply_removed_activation(training: Training, change: Change, _: Generator) -> None:
    target = _layer(training, change)

    def edited(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
        is_changed = layer is target and "activation" in config
        return {**config, "activation": "linear"} if is_changed else config

    def left_out(layer: Any) -> bool:
        return layer is target and _is_rectifier(layer)

    training.model = rebuilt(training.model, Edit(config=edited, left_out=left_out))


def _of_insertion(
    name: str,
    family: str,
    doc: str,
    value: Callable[[Generator], Any],
    new: Callable[[Any], Any],
) -> Operator:
    """An operator that puts a layer behind a hidden one.

    Args:
        name: of the operator.
        family: of the operator.
        doc: its range.
        value: that is drawn.
        new: the layer, from the value.
    """

    def draw(training: Training, rng: Generator) -> Change | None:
        last = list(layers(training.model))[-1]
        return _layer_change(
            name, training, rng, lambda layer: layer is not last, lambda _: (None, value(rng))
        )

    def applied(training: Training, change: Change, _: Generator) -> None:
        target = _layer(training, change)

        def after(layer: Any, output: Any) -> Any:
            return new(change.after)(output) if layer is target else output

        training.model = rebuilt(training.model, Edit(after=after))

    return Operator(name, family, doc, draw, applied)


def _draw_removed_layer(training: Training, rng: Generator) -> Change | None:
    def fits(layer: Any) -> bool:
        return not isinstance(layer.input, list | tuple | dict)

    return _layer_change("remove_layer", training, rng, fits, lambda _: ("there", "removed"))


def _apply_removed_layer(training: Training, change: Change, _: Generator) -> None:
    target = _layer(training, change)
    training.model = rebuilt(training.model, Edit(left_out=lambda layer: layer is target))


OPERATORS = {
    operator.name: operator
    for operator in (
        _of_data("change_targets", "targets of other images", _change_targets),
        _of_data("delete_data", "images are deleted", _delete),
        _of_data("add_noise", "images with noise", _add_noise),
        _of_data("unbalance_classes", "images of every second class are deleted", _unbalance),
        _of_data("overlap_classes", "images of one class with targets of another", _overlap),
        _of_rate(
            "decrease_rate", f"{LOWEST_RATE:g} to the original", lambda rate: (LOWEST_RATE, rate)
        ),
        _of_rate(
            "increase_rate", f"the original to {HIGHEST_RATE:g}", lambda rate: (rate, HIGHEST_RATE)
        ),
        _of_fit(
            "batch_size", "batch size", "16 to 512 in steps of 16", "batch_size",
            lambda training: range(16, min(512, len(training.x)) + 1, 16),
        ),
        _of_fit(
            "disable_batching", "batch size", "all images in one batch", "batch_size",
            lambda training: [len(training.x)],
        ),
        _of_fit(
            "epochs", "epochs", "1 to the original", "epochs",
            lambda training: range(1, training.fit["epochs"]),
        ),
        Operator(
            "optimizer", "optimizer", f"{', '.join(OPTIMIZERS)} with their default rates",
            _draw_optimizer, _apply_optimizer,
        ),
        Operator(
            "clip_gradients", "gradient clipping", "any norm: {:g} to {:g}".format(*NORMS),
            _draw_norm, _apply_norm,
        ),
        Operator("loss", "loss", ", ".join(LOSSES), _draw_loss, _apply_loss),
        _of_option(
            "change_activation", "activation", ", ".join(ACTIVATIONS), "activation",
            lambda before: before != "linear", _name([a for a in ACTIVATIONS if a != "linear"]),
        ),
        Operator(
            "remove_activation", "activation", "linear", _draw_removed_activation,
            _apply_removed_activation,
        ),
        _of_option(
            "add_activation", "activation", ", ".join(ACTIVATIONS), "activation",
            lambda before: before == "linear", _name(ACTIVATIONS),
        ),
        _of_option(
            "initializer", "initialiser", ", ".join(INITIALIZERS), "kernel_initializer", _anything,
            lambda before, rng: _other(INITIALIZERS, _snake(before), rng),
        ),
        _of_option(
            "add_bias", "bias", "added", "use_bias", lambda before: not before, lambda *_: True
        ),
        _of_option(
            "remove_bias", "bias", "removed", "use_bias", lambda before: before, lambda *_: False
        ),
        _of_option(
            "add_penalty", "regulariser", f"{', '.join(PENALTIES)} with Keras' defaults",
            "kernel_regularizer", lambda before: before is None, _name(PENALTIES),
            lambda _, name: {"kernel_regularizer": _penalty(name)},
        ),
        _of_option(
            "change_penalty", "regulariser", f"{', '.join(PENALTIES)} with Keras' defaults",
            "kernel_regularizer", lambda before: before is not None, _name(PENALTIES),
            lambda _, name: {"kernel_regularizer": _penalty(name)},
        ),
        _of_option(
            "remove_penalty", "regulariser", "removed", "kernel_regularizer",
            lambda before: before is not None, lambda *_: None,
        ),
        _of_option(
            "dropout_rate", "dropout", "0 to 1", "rate", _anything,
            lambda _, rng: round(float(rng.uniform(0, 1)), 2),
        ),
        _of_insertion(
            "insert_dropout", "dropout", "0 to 1", lambda rng: round(float(rng.uniform(0, 1)), 2),
            lambda rate: keras.layers.Dropout(rate),
        ),
        Operator(
            "patience", "early stopping", "1 to the original", _draw_patience, _apply_patience
        ),
        Operator(
            "remove_validation", "early stopping", "removed", _draw_validation, _apply_validation
        ),
        _of_option("kernel_size", "layers", "1 to 7", "kernel_size", _anything, _number(1, 7)),
        _of_option("filters", "layers", "1 to 32", "filters", _anything, _number(1, 32)),
        _of_option("pooling", "layers", "1 to 5", "pool_size", _anything, _number(1, 5), _pools),
        _of_option(
            "strides", "layers", "1 to 5", "strides", _anything, _number(1, 5),
            lambda _, value: {"strides": value},
        ),
        _of_option(
            "padding", "layers", "valid, same", "padding", _anything,
            lambda before, _: "valid" if before == "same" else "same",
        ),
        _of_option("units", "layers", "1 to 256", "units", _anything, _number(1, 256)),
        Operator("remove_layer", "layers", "any layer", _draw_removed_layer, _apply_removed_layer),
        _of_insertion(
            "insert_dense", "layers", "32 to 128 units with a ReLU",
            lambda rng: int(rng.integers(32, 129)),
            lambda units: keras.layers.Dense(units, activation="relu"),
        ),
    )
}  # fmt: skip


def _snake(name: str) -> str:
    """GlorotUniform as glorot_uniform."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _penalty(name: str) -> Any:
    return keras.regularizers.serialize(keras.regularizers.get(name.lower()))
