"""The catalogue of edits: single changes of a training that may be what it lacks.

Each is one function, entered with ``@edit``. It gets a `Training` and returns the edited one with the
code to paste, or None where it would change nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from cae_cli.diagnosis.rules.data import RANGES
from cae_cli.errors import counted
from cae_cli.external import surgery
from cae_cli.external.surgery import Layer
from cae_cli.external.training import Optimizer, Training, adam, adds_losses
from cae_cli.introspection.keras_internals import steps_between
from cae_cli.introspection.layers import (
    NOISES,
    SHAPERS,
    activation_of,
    is_a,
    is_convolution,
    is_kernel_layer,
    own_activation,
)

MOST_LINES = 4  # of code, one for each layer
WEAKER = 0.1  # factor of a penalty or a dropout rate that is made weaker
LONGER = 3.0  # factor of the steps
USUAL_BATCH = 32  # images, as Keras has it
LARGEST_USUAL = 64  # images of a batch that are not thought unusual
MOMENTUM = 0.9  # of batch normalisation that is put in: its averages follow in a few dozen steps


@dataclass(frozen=True)
class Change:
    """An edit of one training.

    Attributes:
        training: the edited one.
        before, after: the code that differs, "" where there is none.
    """

    training: Training
    before: str
    after: str


@dataclass(frozen=True)
class Edit:
    """An edit of the catalogue.

    Attributes:
        name: also that of `diagnosis.Fix.edit`.
        sentence: what it does, in plain words.
        make: the change of a training, None where the edit would change nothing.
    """

    name: str
    sentence: str
    make: Callable[[Training], Change | None]

    def change(self, training: Training) -> Change | None:
        """The change of a training, None where it would change nothing or Keras cannot build it."""
        try:
            return self.make(training)
        except surgery.CannotRebuild:
            return None


CATALOGUE: dict[str, Edit] = {}
Make = Callable[[Training], Change | None]


def edit(name: str, sentence: str) -> Callable[[Make], Make]:
    """Decorator that enters an edit. First come those that undo what is unusual in a training."""

    def enter(make: Make) -> Make:
        CATALOGUE[name] = Edit(name, sentence, make)
        return make

    return enter


# -- the code to paste ---------------------------------------------------------------------------------


def spelled(kind: Any, config: Mapping[str, Any]) -> str:
    """The code that makes an object of Keras, without arguments that have their default."""
    said: list[str] = []
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if name not in config or name in ("name", "data_format"):
            continue
        value, default = _value(config[name]), _value(parameter.default)
        if parameter.default is inspect.Parameter.empty:
            said.append(value if len(said) < 2 else f"{name}={value}")
        elif value not in (default, "keras.initializers.Zeros()" if default == '"zeros"' else default):
            said.append(f"{name}={value}")
    for name, default in (("dtype", '"float32"'), ("trainable", "True")):
        if name in config and _value(config[name]) != default:
            said.append(f"{name}={_value(config[name])}")
    module = "layers" if issubclass(kind, keras.layers.Layer) else "optimizers"
    return f"keras.{module}.{kind.__name__}({', '.join(said)})"


def _value(value: Any) -> str:
    """A value of a config as code."""
    if isinstance(value, Mapping) and "class_name" in value:
        module = str(value.get("module") or "")
        name = value["class_name"]
        if name == "DTypePolicy":
            return f'"{value["config"]["name"]}"'
        if name == "function":
            return f'"{value["config"]}"'
        inner = value.get("config") or {}
        words = ", ".join(
            f"{k}={_value(v)}" for k, v in inner.items() if v is not None and k not in ("name", "dtype")
        )
        if not words and module == "keras.initializers":
            return f'"{re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()}"'
        return f"{module}.{name}({words})" if module.startswith("keras") else f"{name}({words})"
    if isinstance(value, list | tuple):
        values = [_value(v) for v in value]
        if values and all(v == values[0] for v in values):
            return values[0]  # kernel_size=(3, 3)
        return f"({', '.join(values)})"
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(lines: Iterable[str]) -> str:
    different = list(dict.fromkeys(lines))
    more = len(different) - MOST_LINES
    rest = [f"# and {counted(more, 'line')} more"] if more > 0 else []
    return "\n".join([*different[:MOST_LINES], *rest])


# -- edits of layers ------------------------------------------------------------------------------------

Configs = Callable[[Layer, dict[str, Any]], Mapping[str, Any] | Layer | None]


def with_layers(
    training: Training,
    config: Configs = lambda *_: None,
    left_out: Callable[[Layer], bool] = lambda _: False,
    after: Callable[[Layer, Any], Any] = lambda _, output: output,
    added: str = "",
) -> Change | None:
    """The training with other layers.

    Args:
        training: to be edited.
        config: from a layer and its config to what is different in it, or the new layer; None: nothing.
        left_out: layers that are left out.
        after: as for `surgery.Edit`.
        added: code of what ``after`` adds.
    """
    changed: list[tuple[Layer, Mapping[str, Any] | Layer]] = []
    dropped = [layer for layer in training.layers if left_out(layer)]
    for layer in training.layers:
        if layer not in dropped and (different := config(layer, layer.get_config())):
            changed.append((layer, different))
    if not (changed or dropped or added):
        return None
    by_id = {id(layer): different for layer, different in changed}

    def new(layer: Layer, own: dict[str, Any]) -> dict[str, Any] | Layer:
        different = by_id.get(id(layer), {})
        return {**own, **different} if isinstance(different, Mapping) else different

    edit = surgery.Edit(config=new, after=after, left_out=left_out)
    model = surgery.rebuilt(training.model, edit)
    before = [spelled(type(layer), layer.get_config()) for layer, _ in changed]
    later = [
        spelled(type(layer), {**layer.get_config(), **d})
        if isinstance(d, Mapping)
        else spelled(type(d), d.get_config())
        for layer, d in changed
    ]
    before += [spelled(type(layer), layer.get_config()) for layer in dropped]
    return Change(training.edited(model=model), _listed(before), _listed([*later, *added.splitlines()]))


def _is_activation(layer: Layer) -> bool:
    return is_a(layer, {"Activation"}) or own_activation(layer) is not None


def _output(training: Training) -> tuple[list[Layer], str | None]:
    """The last layers, back to the one with the last kernel, and the activation that they end with."""
    tail: list[Layer] = []
    name = None
    for layer in reversed(training.layers):
        tail.append(layer)
        found = activation_of(layer)
        if name in (None, "linear") and found is not None:
            name = found
        if is_kernel_layer(layer):
            known = training.facts.get("output_activation")
            return tail, name if name == known else None  # else an operation without a layer follows
        if found is None and not is_a(layer, SHAPERS | NOISES):
            break
    return tail, None


def output_layers(training: Training) -> list[Layer]:
    """The last layer with a kernel and what follows it."""
    return _output(training)[0]


def _output_as(training: Training, activation: str) -> Change | None:
    tail, found = _output(training)
    if found in (None, activation):
        return None

    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | Layer | None:
        name = activation_of(layer)
        if layer not in tail or name is None or (name == "linear") != (found == "linear"):
            return None
        if "activation" in own:
            return {"activation": activation}
        return keras.layers.Activation(activation, name=own["name"])

    change = with_layers(training, config)
    loss = name_of_loss(training.loss)
    if change is None or loss != "bce" or activation == "sigmoid":
        return change
    # Cross-entropy needs values between 0 and 1.
    return Change(
        change.training.edited(loss="mse"),
        f"{change.before}\n{_loss_code(training.loss)}",
        f"{change.after}\n{_loss_code('mse')}",
    )


@edit("target = input", "each image is its own target")
def _same_target(training: Training) -> Change | None:
    if training.y is None or np.array_equal(training.x, training.y):
        return None
    edited = training.edited(y=None, loss=training.loss)
    return Change(edited, "model.fit(x, y)", "model.fit(x, x)")


@edit("images in reach", "images scaled to what the output can reach")
def _in_reach(training: Training) -> Change | None:
    _, activation = _output(training)
    low, high = RANGES.get(str(activation), (-1.0, 1.0))
    images = [training.x, training.targets, training.held_out, training.clean[1]]
    least, most = min(float(a.min()) for a in images), max(float(a.max()) for a in images)
    high = min(high, 1.0)
    if least >= low and most <= high:
        return None
    if most == least:
        return None
    factor = (high - low) / (most - least)

    def scaled(a: Any) -> Any:
        return None if a is None else np.float32(low) + (a - np.float32(least)) * np.float32(factor)

    names = ("x", "y", "held_out", "held_out_y")
    edited = training.edited(**{name: scaled(getattr(training, name)) for name in names})
    to = "x = (x - x.min()) / (x.max() - x.min())" + (
        "" if low == 0 else f" * {high - low:g} - {-low:g}"
    )
    return Change(edited, "model.fit(x, …)", f"{to}\nmodel.fit(x, …)")


@edit("smaller batches", "the usual batches, in as many epochs")
def _smaller_batches(training: Training) -> Change | None:
    size = min(training.batch_size, len(training.x))
    if size <= LARGEST_USUAL:
        return None
    longer = training.longer * size / USUAL_BATCH
    edited = training.edited(batch_size=USUAL_BATCH, longer=longer)
    return Change(edited, f"batch_size={training.batch_size}", f"batch_size={USUAL_BATCH}")


@edit("no dropout", "no dropout and no noise in the model")
def _no_dropout(training: Training) -> Change | None:
    return with_layers(training, left_out=lambda layer: is_a(layer, NOISES))


@edit("no penalties", "no penalties on weights and activations")
def _no_penalties(training: Training) -> Change | None:
    return _penalised(training, 0.0)


@edit("float32", "layers that compute in float32")
def _float32(training: Training) -> Change | None:
    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        return None if layer.dtype_policy.name == "float32" else {"dtype": "float32"}

    return with_layers(training, config)


@edit("shuffled batches", "another order of the images in each epoch")
def _shuffled(training: Training) -> Change | None:
    if training.shuffle:
        return None
    return Change(training.edited(shuffle=True), "shuffle=False", "shuffle=True")


@edit("all layers trained", "no frozen layers")
def _trained(training: Training) -> Change | None:
    return with_layers(
        training, lambda layer, own: None if own.get("trainable", True) else {"trainable": True}
    )


@edit("Adam at 0.001", "the usual optimizer at its usual rate")
def _adam(training: Training) -> Change | None:
    usual = dict(adam().config)
    own = {k: training.optimizer.config.get(k) for k in usual}
    alike = training.optimizer.kind is adam().kind and all(
        own[k] == v or (isinstance(v, float) and np.isclose(float(own[k] or 0), v))
        for k, v in usual.items()
        if k != "name" and not isinstance(own[k], Mapping)
    )
    if alike and training.optimizer.rate is not None:
        return None
    return with_optimizer(training, adam())


@edit("default initializers", "initial weights as Keras draws them by default")
def _default_initializers(training: Training) -> Change | None:
    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        parameters = inspect.signature(type(layer).__init__).parameters
        return {
            name: parameters[name].default
            for name, value in own.items()
            if name.endswith("_initializer")
            and name in parameters
            and _value(value) != _value(parameters[name].default)
        }

    return with_layers(training, config)


@edit("linear output", "an output that cannot saturate")
def _linear_output(training: Training) -> Change | None:
    return _output_as(training, "linear")


@edit("cross-entropy", "a loss whose gradient survives a saturated sigmoid")
def _cross_entropy(training: Training) -> Change | None:
    if not training.is_within_0_1 or _output(training)[1] != "sigmoid":
        return None
    return with_loss(training, "binary_crossentropy")


@edit("ReLU", "hidden layers with ReLU")
def _relu(training: Training) -> Change | None:
    return _hidden_as(training, "relu")


@edit("ELU", "hidden layers with a gradient below zero")
def _elu(training: Training) -> Change | None:
    return _hidden_as(training, "elu")


@edit("more steps", "three times the steps")
def _longer(training: Training) -> Change | None:
    edited = training.edited(longer=training.longer * LONGER)
    return Change(edited, "epochs=…", f"epochs=…  # {LONGER:g} times as many")


@edit("rate / 10", "a tenth of the learning rate")
def _slower(training: Training) -> Change | None:
    return _with_rate(training, 0.1)


@edit("rate x 10", "ten times the learning rate")
def _faster(training: Training) -> Change | None:
    return _with_rate(training, 10.0)


@edit("batch normalisation", "batch normalisation before the hidden activations")
def _batch_normalisation(training: Training) -> Change | None:
    if any(is_a(layer, {"BatchNormalization"}) for layer in training.layers):
        return None
    tail, _ = _output(training)
    hidden = [x for x in training.layers if is_convolution(x) and x not in tail]
    if not hidden:
        return None
    own = {id(layer): activation_of(layer) for layer in hidden}

    def config(layer: Layer, config: dict[str, Any]) -> Mapping[str, Any] | None:
        return {"activation": "linear"} if own.get(id(layer)) not in (None, "linear") else None

    def after(layer: Layer, output: Any) -> Any:
        if id(layer) not in own:
            return output
        output = keras.layers.BatchNormalization(momentum=MOMENTUM, dtype="float32")(output)
        function = layer.activation
        if own[id(layer)] in (None, "linear"):
            return output
        if isinstance(function, keras.layers.Layer):
            return type(function).from_config(function.get_config())(output)
        return keras.layers.Activation(function)(output)

    names = dict.fromkeys(str(name) for name in own.values() if name not in (None, "linear"))
    code = [f"keras.layers.BatchNormalization(momentum={MOMENTUM})  # after each hidden convolution"]
    code += [f'keras.layers.Activation("{name}")' for name in names]
    return with_layers(training, config, after=after, added="\n".join(code))


@edit("no skips", "zeros in place of what skip connections bring past the latent code")
def _no_skips(training: Training) -> Change | None:
    skips = _skips(training)
    if not skips:
        return None

    def inputs(layer: Layer, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        cut = skips.get(id(layer), ())
        flat = keras.tree.flatten(arguments)
        zeros = [keras.ops.zeros_like(x) if i in cut else x for i, x in enumerate(flat)]
        return tuple(keras.tree.pack_sequence_as(arguments, zeros))

    model = surgery.rebuilt(training.model, surgery.Edit(inputs=inputs))
    names = [layer.name for layer in training.layers if id(layer) in skips]
    before = _listed(f"{name}([x, skip])" for name in names)
    after = _listed(f"{name}([x, keras.ops.zeros_like(skip)])" for name in names)
    return Change(training.edited(model=model), before, after)


@edit("weaker dropout", "a tenth of the dropout rates")
def _weaker_dropout(training: Training) -> Change | None:
    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        names = [n for n in ("rate", "stddev") if is_a(layer, NOISES) and own.get(n)]
        return {name: own[name] * WEAKER for name in names}

    return with_layers(training, config)


@edit("weaker penalties", "a tenth of the penalties")
def _weaker_penalties(training: Training) -> Change | None:
    return _penalised(training, WEAKER)


@edit("he_normal initializers", "initial weights made for ReLU")
def _he_normal(training: Training) -> Change | None:
    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        if "kernel_initializer" not in own or _value(own["kernel_initializer"]) == '"he_normal"':
            return None
        return {"kernel_initializer": "he_normal"}

    return with_layers(training, config)


@edit("clipped gradients", "gradients of a norm of 1 at most")
def _clipped(training: Training) -> Change | None:
    config = training.optimizer.config
    if any(config.get(key) is not None for key in ("clipnorm", "clipvalue", "global_clipnorm")):
        return None
    return with_optimizer(
        training, Optimizer(training.optimizer.kind, {**config, "global_clipnorm": 1.0})
    )


@edit("squared error", "the mean squared error as the loss")
def _squared_error(training: Training) -> Change | None:
    return with_loss(training, "mse")


@edit("sigmoid output", "an output between 0 and 1")
def _sigmoid_output(training: Training) -> Change | None:
    return _output_as(training, "sigmoid") if training.is_within_0_1 else None


@edit("LeakyReLU", "hidden layers with a small gradient below zero")
def _leaky_relu(training: Training) -> Change | None:
    return _hidden_as(training, "leaky_relu")


@edit("wider layers", "twice the filters of the hidden layers, but not of the latent code")
def _wider_layers(training: Training) -> Change | None:
    tail, _ = _output(training)
    code = _makes_code(training)

    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        hidden = is_kernel_layer(layer) and layer not in tail and layer is not code
        return (
            {"filters": 2 * own["filters"]} if hidden and isinstance(own.get("filters"), int) else None
        )

    return with_layers(training, config)


@edit("wider code", "twice the channels of the latent code")
def _wider_code(training: Training) -> Change | None:
    return _code_times(training, 2.0)


@edit("absolute error", "the mean absolute error as the loss")
def _absolute_error(training: Training) -> Change | None:
    return with_loss(training, "mae")


@edit("3x3 kernels", "kernels of 3x3 where they see single pixels")
def _larger_kernels(training: Training) -> Change | None:
    tail, _ = _output(training)

    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        single = is_convolution(layer) and layer not in tail and max(own["kernel_size"]) == 1
        return {"kernel_size": 3, "padding": "same"} if single else None

    return with_layers(training, config)


@edit("kernels as large as strides", "kernels that are as large as their strides")
def _kernels_as_strides(training: Training) -> Change | None:
    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        if not is_convolution(layer) or own["padding"] != "same" or max(own["dilation_rate"]) > 1:
            return None
        sizes = tuple(map(max, own["kernel_size"], own["strides"]))
        return {"kernel_size": sizes} if sizes != tuple(own["kernel_size"]) else None

    return with_layers(training, config)


@edit("narrower code", "half the channels of the latent code")
def _narrower_code(training: Training) -> Change | None:
    return _code_times(training, 0.5)


# -- what they share -----------------------------------------------------------------------------------


def _hidden_as(training: Training, activation: str) -> Change | None:
    """Every hidden activation replaced; that of the convolutions where there is none."""
    tail, _ = _output(training)
    hidden = [layer for layer in training.layers if layer not in tail]
    active = [layer for layer in hidden if activation_of(layer) not in (None, "linear")]
    active = active or [layer for layer in hidden if is_convolution(layer)]

    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | Layer | None:
        if layer not in active or activation_of(layer) == activation:
            return None
        if "activation" in own:
            return {"activation": activation}
        return keras.layers.Activation(activation, name=own["name"])

    return with_layers(training, config)


def _skips(training: Training) -> dict[int, list[int]]:
    """Of each layer that merges both: which of its inputs do not depend on the latent code."""
    model, latent = training.model, training.facts.get("latent_layer")
    if not training.facts.get("skips") or len(model.inputs) != 1:
        return {}
    of_code: set[int] = set()
    skips = {}
    for step in steps_between(model.inputs, model.outputs):
        known = [id(x) in of_code for x in step.inputs]
        if any(known) or step.operation.name == latent:
            of_code |= {id(x) for x in step.outputs}
        if any(known) and not all(known) and step.operation in training.layers:
            skips[id(step.operation)] = [i for i, depends in enumerate(known) if not depends]
    return skips


def _penalised(training: Training, factor: float) -> Change | None:
    """Penalties times ``factor``."""

    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        if is_a(layer, {"ActivityRegularization"}):
            return {key: own[key] * factor for key in ("l1", "l2")} if factor else None
        return {
            key: _weakened(value, factor)
            for key, value in own.items()
            if key.endswith("_regularizer") and value is not None
        }

    def left_out(layer: Layer) -> bool:
        return not factor and is_a(layer, {"ActivityRegularization"})

    change = with_layers(training, config, left_out)
    own = [layer for layer in training.layers if adds_losses(layer)]
    if not own or training.penalties <= factor:
        return change
    edited = (change.training if change else training).edited(penalties=factor)
    names = ", ".join(dict.fromkeys(type(layer).__name__ for layer in own))
    before = f"self.add_loss(loss)  # in {names}"
    after = f"self.add_loss({factor:g} * loss)" if factor else f"# no self.add_loss in {names}"
    if change is None:
        return Change(edited, before, after)
    return Change(edited, f"{change.before}\n{before}", f"{change.after}\n{after}")


def _weakened(regularizer: Any, factor: float) -> Any:
    """A serialised regularizer times ``factor``; None for 0 and for one that it cannot be applied to."""
    config = regularizer.get("config") if isinstance(regularizer, Mapping) else None
    if not factor or not isinstance(config, Mapping):
        return None
    scaled = {k: v * factor if isinstance(v, float) else v for k, v in config.items()}
    return {**regularizer, "config": scaled}


def _with_rate(training: Training, factor: float) -> Change | None:
    """The learning rate, or all rates of a schedule, times ``factor``."""
    config = dict(training.optimizer.config)
    rate = config.get("learning_rate")
    if isinstance(rate, int | float):
        config["learning_rate"] = float(f"{rate * factor:.6g}")
    elif isinstance(rate, Mapping) and isinstance(rate.get("config"), Mapping):
        inner = rate["config"]
        scaled = {
            k: v * factor if k.endswith("learning_rate") and isinstance(v, int | float) else v
            for k, v in inner.items()
        }
        if scaled == inner:
            return None
        config["learning_rate"] = {**rate, "config": scaled}
    else:
        return None
    return with_optimizer(training, Optimizer(training.optimizer.kind, config))


def with_optimizer(training: Training, optimizer: Optimizer) -> Change:
    """The training with another optimizer."""
    old, new = (f"optimizer={spelled(o.kind, o.config)}" for o in (training.optimizer, optimizer))
    return Change(training.edited(optimizer=optimizer), old, new)


LOSSES = {
    "mse": ("mse", "mean_squared_error", "MeanSquaredError"),
    "mae": ("mae", "mean_absolute_error", "MeanAbsoluteError"),
    "bce": ("bce", "binary_crossentropy", "BinaryCrossentropy"),
}


def name_of_loss(loss: Any) -> str | None:
    """mse, mae or bce; None for others."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return next((short for short, names in LOSSES.items() if name in names), None)


def _loss_code(loss: Any) -> str:
    if isinstance(loss, str):
        return f'loss="{loss}"'
    return f"loss={getattr(loss, '__name__', None) or f'{type(loss).__name__}(…)'}"


def with_loss(training: Training, loss: str) -> Change | None:
    """The training with another loss."""
    if training.loss is None or isinstance(training.loss, list | tuple | dict):
        return None
    if training.loss == loss or (
        name_of_loss(loss) and name_of_loss(training.loss) == name_of_loss(loss)
    ):
        return None
    if getattr(training.loss, "from_logits", False):
        return None  # the output has no activation, and its values are no pixels
    return Change(training.edited(loss=loss), _loss_code(training.loss), _loss_code(loss))


def _makes_code(training: Training) -> Layer | None:
    """The layer whose kernel makes the latent code; None if it is not known."""
    name = training.facts.get("latent_layer")
    names = [layer.name for layer in training.layers]
    if name not in names:
        return None
    makers = [x for x in training.layers[: names.index(name) + 1] if is_kernel_layer(x)]
    return makers[-1] if makers else None


def _code_times(training: Training, factor: float) -> Change | None:
    """More or fewer channels of the layer that makes the latent code."""
    maker = _makes_code(training)

    def config(layer: Layer, own: dict[str, Any]) -> Mapping[str, Any] | None:
        key = "filters" if "filters" in own else "units"
        if layer is not maker or not isinstance(own.get(key), int):
            return None
        new = max(1, round(own[key] * factor))
        return None if new == own[key] else {key: new}

    return with_layers(training, config)
