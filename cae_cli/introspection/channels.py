"""Networks with the channels first, described with the channels last: the same weights and values.

Only so do they compute on any CPU, and are they measured like all others.
"""

from __future__ import annotations

import copy
from typing import Any

from cae_cli.errors import UserError, printable
from cae_cli.introspection.upgrade import NETWORKS, Config, parts

# Layers that do the same to every number, or to rows of numbers that have no channels.
ANY_ORDER = {
    *("Activation", "ReLU", "LeakyReLU", "ELU", "Dropout", "GaussianNoise", "GaussianDropout"),
    *("Add", "Average", "Multiply", "Maximum", "Minimum", "Subtract", "Rescaling", "Identity"),
    *("ActivityRegularization", "Dense", *NETWORKS),
}
BY_AXIS = {"BatchNormalization", "LayerNormalization", "GroupNormalization", "Concatenate"}
LAST = {1: -1, 2: 1, 3: 2}


def channels_last(config: Config) -> Config:
    """The description with the channels last, if it has a layer with the channels first.

    Args:
        config: of `upgrade.upgraded`.

    Raises:
        UserError: a layer is not known to be the same with another order of its numbers.
    """
    if not any(part.get("data_format") == "channels_first" for part, _ in parts(config)):
        return config
    config = copy.deepcopy(config)
    for part, _ in parts(config):
        part.pop("build_config", None)  # shapes in the old order; calls build the layers
        layers = part.get("layers")
        if isinstance(layers, list):
            part["layers"] = [new for layer in layers for new in _turned(layer)]
    return config


def _turned(layer: Config) -> list[Config]:
    """The layers that do the same with the channels last."""
    name, options = layer.get("class_name"), layer.get("config") or {}
    if name == "InputLayer":
        shape = list(options.get("batch_shape") or [])
        if len(shape) == 4:
            options["batch_shape"] = [shape[0], *shape[2:], shape[1]]
    elif name == "Flatten":  # Keras flattens with the channels last, whatever comes in
        if options.get("data_format") != "channels_first":
            return _chained(layer, _permute(layer, [3, 1, 2]), layer)
        options["data_format"] = "channels_last"
    elif name == "Reshape":
        if len(options.get("target_shape") or ()) == 3:
            return _chained(layer, layer, _permute(layer, [2, 3, 1]))
    elif "data_format" in options:
        options["data_format"] = "channels_last"
    elif name in BY_AXIS:
        axis: Any = options.get("axis", -1)
        options["axis"] = (
            [LAST.get(x, x) for x in axis] if isinstance(axis, list) else LAST.get(axis, axis)
        )
    elif name not in ANY_ORDER:
        raise UserError(
            f"the model has the channels first, and its layer {printable(str(options.get('name')))[:80]}"
            f" ({printable(str(name))[:80]}) is not known with the channels last",
            hint="Build the model with data_format='channels_last', set its weights, and save it again.",
        )
    return [layer]


def _permute(layer: Config, dims: list[int]) -> Config:
    described: Config = {"class_name": "Permute", "config": {"name": "permute", "dims": dims}}
    if "module" in layer:
        described |= {"module": "keras.layers", "registered_name": None}
    return described


def _chained(layer: Config, first: Config, second: Config) -> list[Config]:
    """Two layers in the place of one: the first has its inputs, the second its name."""
    name, nodes = layer["config"]["name"], layer.get("inbound_nodes")
    for new, called in ((first, f"{name}_channels_first"), (second, name)):
        new["config"]["name"] = called
        if nodes is not None:
            new["name"] = called
            new["inbound_nodes"] = nodes
    if nodes is not None:
        second["inbound_nodes"] = [[[first["name"], call, 0, {}]] for call, _ in enumerate(nodes)]
    return [first, second]
