"""Descriptions of networks as older versions of Keras wrote them, in the words of Keras 3.

A description is plain JSON; it is changed as such, before Keras makes anything of it.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

Config = dict[str, Any]

# Keras 2 wrote groups=1 for them, and they know no other.
WITHOUT_GROUPS = {
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    *("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
}
# Keras 2 wrote them for separable convolutions, which never used them.
UNUSED = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
NETWORKS = {"Functional", "Model", "Sequential"}
OLD_LAYERS = "_layer_checkpoint_dependencies"
FUNCTIONAL = "keras.src.models.functional"


def parts(config: Any) -> Iterator[tuple[Config, int]]:
    """Every dictionary in a description, and its depth."""
    stack = [(config, 0)]
    while stack:
        part, depth = stack.pop()
        if isinstance(part, dict):
            yield part, depth
            stack += ((value, depth + 1) for value in part.values())
        elif isinstance(part, list):
            stack += ((value, depth + 1) for value in part)


def upgraded(config: Config) -> Config:
    """The description as Keras 3 writes it; equal to ``config`` if it did.

    Nothing is left of how the model was compiled if that holds code, as nobody compiles it again.

    Args:
        config: at most as deep as Python allows recursions.
    """
    config = copy.deepcopy(config)
    for part, _ in parts(config):
        if "__lambda__" in json.dumps(part.get("compile_config")):
            del part["compile_config"]
    for part, _ in parts(config):
        options = part.get("config")
        if isinstance(part.get("class_name"), str) and isinstance(options, dict):
            _module(part)
            _options(part["class_name"], options)
            if isinstance(options.get("layers"), list):
                _graph(options)
    return config


def _module(part: Config) -> None:
    """Keras 2.12 to 2.15 named modules of its own source, which have moved since."""
    name, module = part["class_name"], part.get("module")
    if name in NETWORKS and str(module).split(".")[0] in ("keras", "tf_keras"):
        flat = name != "Sequential"
        part["module"] = FUNCTIONAL if flat else "keras"
        part["class_name"] = "Functional" if flat else name


def _options(name: str, options: Config) -> None:
    """The arguments of one layer."""
    if name in WITHOUT_GROUPS and options.get("groups") == 1:
        del options["groups"]
    if name.startswith("SeparableConv"):
        for key in UNUSED:
            options.pop(key, None)
    if options.get("reduction") == "auto":  # of losses; what Keras 3 does if nothing is said
        del options["reduction"]
    policy = options.get("dtype")
    if isinstance(policy, dict) and str(policy.get("class_name")).startswith("Policy"):
        options["dtype"] = (policy.get("config") or {}).get("name")
    axis = options.get("axis")
    if name == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
        options["axis"] = axis[0]


def _graph(options: Config) -> None:
    """The layers of a network: the shape of its images, and which call of a layer is meant."""
    layers = [x for x in options["layers"] if isinstance(x, dict) and isinstance(x.get("config"), dict)]
    if not layers:
        return
    first = layers[0]
    shape = first["config"].get("batch_input_shape")
    if shape is not None and first.get("class_name") != "InputLayer" and "inbound_nodes" not in first:
        described: Config = {
            "class_name": "InputLayer",
            "config": {"batch_shape": shape, "dtype": "float32"},
        }
        if "module" in first:
            described |= {"module": "keras.layers", "registered_name": None}
        options["layers"].insert(0, described)
    for layer in layers:
        shape = layer["config"].pop("batch_input_shape", None)
        if shape is not None and layer.get("class_name") == "InputLayer":
            layer["config"]["batch_shape"] = shape
    nodes = [node for layer in layers for node in layer.get("inbound_nodes") or []]
    if not any(isinstance(node, dict) for node in nodes):  # else Keras 3 wrote it
        _calls(options, layers, nodes)


def _calls(options: Config, layers: list[Config], nodes: list[Any]) -> None:
    """Which call of a layer is meant by an input, and by the outputs of the network.

    Keras 2 counted the making of a network within the network as its first call. Keras 3 does so for the
    outputs of functional networks alone. And Keras 2 had a list where there is only one image.
    """
    inner = {x.get("name"): x.get("class_name") for x in layers if x.get("class_name") in NETWORKS}
    calls = [
        x
        for node in nodes
        if isinstance(node, list)
        for x in node
        if isinstance(x, list) and x[0] in inner
    ]
    for key in ("input_layers", "output_layers"):
        ends = options.get(key) or []
        single = bool(ends) and isinstance(ends[0], str)
        calls += [x for x in ([ends] if single else ends) if inner.get(x[0]) == "Sequential"]
        if len(ends) == 1:
            options[key] = ends[0]
    for call in calls:
        if call[1] > 0:
            call[1] -= 1


def with_layers(file: Any) -> None:
    """Renames the groups of weights as Keras 3 does, which looks for those of a network in ``layers``.

    Keras 2.12 wrote them elsewhere, and counted layers with weights twice: conv2d, conv2d_2, conv2d_4.

    Args:
        file: an HDF5 file or group, which is changed.
    """
    groups = [file]
    while groups:
        group = groups.pop()
        if OLD_LAYERS in group and "layers" not in group:
            group.move(OLD_LAYERS, "layers")
            layers = group["layers"]
            numbered = sorted(
                (kind, int(number or 0), name)
                for name in layers
                for kind, number in re.findall(r"^(.*?)(?:_(\d+))?$", name)[:1]
            )
            counts: dict[str, int] = {}
            for kind, _, name in numbered:  # the new number is never above the old one, so it is free
                count = counts[kind] = counts.get(kind, -1) + 1
                new = f"{kind}_{count}" if count else kind
                if new != name:
                    layers.move(name, new)
        if "layers" in group:
            groups += [x for x in group["layers"].values() if OLD_LAYERS in x]
