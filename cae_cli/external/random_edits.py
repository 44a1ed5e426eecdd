"""Random changes of a training, drawn without a diagnosis: the control of the edits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from cae_cli.external import surgery
from cae_cli.external.edits import Change, output_layers, spelled, with_layers, with_loss, with_optimizer
from cae_cli.external.surgery import Layer
from cae_cli.external.training import Optimizer, Training
from cae_cli.introspection.layers import activation_of, is_convolution, is_kernel_layer

MOST = 100  # draws; many of them change nothing, or cannot be built
ACTIVATIONS = (
    "relu",
    "elu",
    "leaky_relu",
    "selu",
    "gelu",
    "silu",
    "tanh",
    "sigmoid",
    "softplus",
    "linear",
)
INITIALIZERS = (
    "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_normal", "orthogonal",
    "random_normal", "random_uniform", "truncated_normal", "zeros",
)  # fmt: skip
OPTIMIZERS = ("Adam", "SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "AdamW")
LOSSES = ("mse", "mae", "huber", "log_cosh", "binary_crossentropy")

Draw = Callable[[Training, random.Random], Change | None]


def changes(training: Training, seed: int) -> Iterator[tuple[str, Change]]:
    """Random changes by name, no name twice; each option and each value is as likely as any other."""
    rng = random.Random(f"random changes {seed}")
    known: set[str] = set()
    for _ in range(MOST):
        name, draw = rng.choice(DRAWS)
        try:
            change = draw(training, rng)
        except surgery.CannotRebuild:
            continue
        if change is None or change.after in known:
            continue
        known.add(change.after)
        yield f"random: {name}", change


def _hidden(training: Training) -> list[Layer]:
    tail = output_layers(training)
    return [layer for layer in training.layers if is_kernel_layer(layer) and layer not in tail]


def _config(training: Training, key: str, value: Any) -> Change | None:
    """An entry of the configs of all hidden layers that have it."""
    hidden = _hidden(training)

    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        return {key: value} if layer in hidden and key in own and own[key] != value else None

    return with_layers(training, config)


def _activation(training: Training, rng: random.Random) -> Change | None:
    return _config(training, "activation", rng.choice(ACTIVATIONS))


def _output(training: Training, rng: random.Random) -> Change | None:
    tail, activation = output_layers(training), rng.choice(ACTIVATIONS)

    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        changes = layer in tail and "activation" in own and activation_of(layer) != activation
        return {"activation": activation} if changes else None

    return with_layers(training, config)


def _initializer(training: Training, rng: random.Random) -> Change | None:
    return _config(training, "kernel_initializer", rng.choice(INITIALIZERS))


def _bias(training: Training, rng: random.Random) -> Change | None:
    return _config(training, "use_bias", rng.choice([False, True]))


def _filters(training: Training, rng: random.Random) -> Change | None:
    hidden = [layer for layer in _hidden(training) if is_convolution(layer)]
    if not hidden:
        return None
    chosen, factor = rng.choice(hidden), rng.choice([0.25, 0.5, 2, 4])

    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        if layer is not chosen or "filters" not in own:
            return None
        return {"filters": max(1, round(own["filters"] * factor))}

    return with_layers(training, config)


def _dropout(training: Training, rng: random.Random) -> Change | None:
    hidden, rate = _hidden(training), rng.choice([0.1, 0.25, 0.5])

    def after(layer: Layer, output: Any) -> Any:
        return keras.layers.Dropout(rate)(output) if layer in hidden else output

    added = f"keras.layers.Dropout({rate})  # after each hidden layer"
    return with_layers(training, after=after, added=added) if hidden else None


def _optimizer(training: Training, rng: random.Random) -> Change | None:
    drawn = Optimizer.of(getattr(keras.optimizers, rng.choice(OPTIMIZERS))())
    same = spelled(drawn.kind, drawn.config) == spelled(
        training.optimizer.kind, training.optimizer.config
    )
    return None if same else with_optimizer(training, drawn)


def _rate(training: Training, rng: random.Random) -> Change | None:
    rate = training.optimizer.rate
    if not rate:
        return None
    new = float(f"{rate * 10 ** rng.uniform(-2, 2):.3g}")
    optimizer = Optimizer(training.optimizer.kind, {**training.optimizer.config, "learning_rate": new})
    return with_optimizer(training, optimizer)


def _loss(training: Training, rng: random.Random) -> Change | None:
    loss = rng.choice(LOSSES)
    return with_loss(training, loss) if training.is_within_0_1 or loss != "binary_crossentropy" else None


def _batch(training: Training, rng: random.Random) -> Change | None:
    size = rng.choice([8, 16, 32, 64, 128])
    if size == training.batch_size:
        return None
    edited = training.edited(batch_size=size)
    return Change(edited, f"batch_size={training.batch_size}", f"batch_size={size}")


DRAWS: list[tuple[str, Draw]] = [
    ("hidden activations", _activation),
    ("output activation", _output),
    ("initializers", _initializer),
    ("biases", _bias),
    ("filters", _filters),
    ("dropout", _dropout),
    ("optimizer", _optimizer),
    ("learning rate", _rate),
    ("loss", _loss),
    ("batch size", _batch),
]
