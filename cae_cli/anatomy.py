"""The parts of any Keras autoencoder, ours or a stranger's: `load` a file, `dissect` the model.

`Autoencoder` names the parts of one flat functional model. `dissect` makes such a model of anything
else (Sequential, nested, subclassed) by calling the same layers once more on a symbolic image, so the
weights are shared: what trains there is seen here. ``clone_model(clone_function=lambda layer: layer)``
was not enough: it refuses a call function for Sequential, does not open subclassed models, compiles
the copy with the stranger's losses, and fails where an encoder and a decoder use a layer name twice.
The graph itself is read in `_nodes` only, from the history that Keras keeps on symbolic tensors; there
is no public way to it, and pyproject.toml holds Keras to one minor version.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cae_cli.errors import UserError, did_you_mean, printable

Tensor = Any
Layer = Any  # or a keras.ops operation: whatever stands at a node of the graph
Model = Any
Shape = tuple[int, int, int]

# Classes of Keras, with their subclasses.
NORMS = {
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization",
    "RMSNormalization",
}  # fmt: skip
DROPOUTS = {"Dropout", "BaseSpatialDropout", "AlphaDropout", "GaussianDropout"}
DENSE = {"Dense", "EinsumDense"}
POOLS = {"MaxPooling2D", "AveragePooling2D"}
# Only move or repeat values.
SHAPERS = {
    "Cropping2D", "ZeroPadding2D", "Reshape", "Flatten", "Permute", "Resizing", "UpSampling2D",
    "CenterCrop", "Identity", "ActivityRegularization", "ExpandDims", "Squeeze",
}  # fmt: skip
NOISES = {"GaussianNoise", *DROPOUTS}
MERGES = {"Merge", "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"}
POOL_ALL = {
    "GlobalAveragePooling2D", "GlobalMaxPooling2D", "BaseGlobalPooling", "MultiHeadAttention",
    "GroupQueryAttention", "Attention", "AdditiveAttention", "Matmul", "Einsum", "Dot", "Tensordot",
    "Mean", "Sum", "Max", "Min", "Var", "Std",
}  # fmt: skip

# Layers and operations that are an activation, by class name in lower case.
ACTIVATIONS = {
    "relu": "relu", "relu6": "relu6", "leakyrelu": "leaky_relu", "prelu": "prelu", "elu": "elu",
    "celu": "celu", "selu": "selu", "gelu": "gelu", "silu": "silu", "hardsilu": "hard_silu",
    "softplus": "softplus", "softsign": "softsign", "softmax": "softmax", "logsoftmax": "log_softmax",
    "sigmoid": "sigmoid", "hardsigmoid": "hard_sigmoid", "tanh": "tanh", "hardtanh": "hard_tanh",
    "exp": "exponential", "mish": "mish",
}  # fmt: skip

# Names that people give the code, best first.
CODE_NAMES = (
    "code", "latent", "bottleneck", "z", "sampling", "encoded", "encoding", "embedding", "z_mean", "mu",
)  # fmt: skip


@dataclass(frozen=True)
class Autoencoder:
    """A network and its parts by name.

    Attributes:
        model: (n, h, w, c) images to (n, h, w, c) reconstructions; functional, no models inside.
        code_layer: name of the layer whose output is the code.
    """

    model: Model
    code_layer: str

    @property
    def shape(self) -> Shape:
        """(h, w, c) of an image."""
        h, w, c = self.model.input_shape[1:]
        return h, w, c

    @cached_property
    def convolutions(self) -> list[Layer]:
        """Every layer with filters, from the input to the output."""
        return [layer for layer in self.model.layers if _is_convolution(layer)]

    @cached_property
    def maps(self) -> dict[str, Tensor]:
        """The feature maps behind each convolution, after its activation.

        Only normalisations may stand between the two. Without an activation, or with one of its own,
        it is the convolution's output.
        """
        maps = {}
        for conv in self.convolutions:
            x = maps[conv.name] = self._graph.made_by(conv.name)
            if _activation(conv) != "linear":
                continue
            while len(users := self._graph.users.get(id(x), [])) == 1:
                step = users[0]
                x = step.outputs[0]
                if _is(step.operation, {"Activation"}) or _own_activation(step.operation):
                    maps[conv.name] = x
                    break
                if not _is(step.operation, NORMS):
                    break
        return maps

    @property
    def code(self) -> Tensor:
        """The code, (n, h', w', channels) or (n, values)."""
        return self._graph.made_by(self.code_layer)

    @property
    def weight_count(self) -> int:
        """Number of weights, trained or not."""
        return int(self.model.count_params())

    def kernels(self) -> dict[str, Any]:
        """Kernels by convolution, (kernel, kernel, inputs, filters), copies.

        Inputs are those that one filter sees: 1 for a depthwise convolution. A separable one is
        given as the full convolution that it amounts to.
        """
        return {conv.name: _kernel(conv) for conv in self.convolutions}

    def encoder(self) -> Model:
        """Images to codes."""
        import keras

        return keras.Model(self.model.input, self.code)

    def decoder(self) -> Model:
        """[images, codes] to reconstructions; the images feed skip connections only."""
        import keras

        code = self.code
        image = keras.Input(self.shape, dtype=self._image.dtype)
        inner = keras.Input(code.shape[1:], dtype=code.dtype)
        output = _replay([self._image, code], self._output, [image, inner], _call)
        return keras.Model([image, inner], output)

    def with_replaced_maps(self) -> Model:
        """A model in which every filter's map can be replaced by a constant.

        Its input is ``{"image": (n, h, w, c), "keep": {convolution: (m, filters)}, "instead": {…}}``
        with m = n, or m = 1 for the same in all images; each map becomes
        ``map * keep + instead * (1 - keep)``. Called with other vectors it is not traced again.
        """
        import keras

        class Replace(keras.layers.Layer):  # type: ignore[misc]
            """One operation a map, so that its name is the only new one."""

            def call(self, inputs: list[Tensor]) -> Tensor:
                maps, keep, instead = inputs
                to = (-1, *[1] * (len(maps.shape) - 2), maps.shape[-1])
                keep, instead = keras.ops.reshape(keep, to), keras.ops.reshape(instead, to)
                return maps * keep + instead * (1 - keep)

            def compute_output_shape(self, shapes: list[Any]) -> Any:
                return shapes[0]

        maps = {id(x): name for name, x in self.maps.items()}
        vectors: dict[str, dict[str, Tensor]] = {
            kind: {name: keras.Input((x.shape[-1],), dtype=x.dtype) for name, x in self.maps.items()}
            for kind in ("keep", "instead")
        }
        taken = {step.operation.name for step in self._graph.steps}

        def replaced(x: Tensor, value: Tensor) -> Tensor:
            name = maps.get(id(x))
            if name is None:
                return value
            layer = Replace(name=_free(f"{name}_replace", taken), dtype=x.dtype)
            return layer([value, vectors["keep"][name], vectors["instead"][name]])

        image = keras.Input(self.shape, dtype=self._image.dtype, name="image")
        output = _replay([self._image], self._output, [image], _call, replaced)
        return keras.Model({"image": image, **vectors}, output)

    @cached_property
    def skips(self) -> bool:
        """Whether the image reaches the output on a path that does not pass the code."""
        reached = {id(self._image)}
        for step in self._graph.steps:
            if any(id(x) in reached for x in step.inputs):
                reached |= {id(x) for x in step.outputs if x is not self.code}
        return id(self._output) in reached

    @property
    def encoder_layers(self) -> list[Layer]:
        """The layers with weights between the image and the code."""
        inside = self._graph.before(self.code)
        return [s.operation for s in self._graph.steps if s in inside and _weights(s.operation)]

    @property
    def output_activation(self) -> str | None:
        """Name of the last activation; None if the last layer is none that is known."""
        return self._last[1]

    @property
    def hidden_activation(self) -> str | None:
        """Name of the most frequent activation but the output's; "linear" if there is none."""
        names: Counter[str] = Counter()
        hidden = False
        for step in self._graph.steps:
            if step in self._tail:
                continue
            hidden = hidden or _is_kernel_layer(step.operation)
            name = _activation(step.operation)
            if name not in (None, "linear"):
                names[str(name)] += 1
        return names.most_common(1)[0][0] if names else "linear" if hidden else None

    @property
    def normalised(self) -> bool:
        """Whether there is batch normalisation."""
        return any(_is(step.operation, {"BatchNormalization"}) for step in self._graph.steps)

    @property
    def drops(self) -> bool:
        """Whether there is dropout of any kind."""
        return any(_is(step.operation, DROPOUTS) for step in self._graph.steps)

    @cached_property
    def receptive_field(self) -> tuple[int, int] | None:
        """(h, w) pixels of the image that one value of the code sees at most.

        Statistics that normalisations take at run time do not count. None: a layer on the way is
        not known.
        """
        return _receptive_field(self._graph, self._image, self.code)

    @property
    def depth(self) -> int:
        """Convolutions and dense layers on the longest path from the image to the output."""
        depth = {id(self._image): 0}
        for step in self._graph.steps:
            longest = max((depth.get(id(x), 0) for x in step.inputs), default=0)
            for x in step.outputs:
                depth[id(x)] = longest + _is_kernel_layer(step.operation)
        return depth[id(self._output)]

    @property
    def narrowest(self) -> int | None:
        """Fewest filters of a hidden convolution."""
        tail = {step.operation.name for step in self._tail}
        return min((int(x.shape[-1]) for name, x in self.maps.items() if name not in tail), default=None)

    @property
    def closed(self) -> list[str]:
        """Layers with convolutions inside that could not be opened; their filters are not seen."""
        return [s.operation.name for s in self._graph.steps if _hides_convolutions(s.operation)]

    def facts(self) -> dict[str, Any]:
        """What is known about the network, as plain values for JSON."""
        field = self.receptive_field
        return {
            "code_layer": self.code_layer,
            "code_shape": list(self.code.shape[1:]),
            "image_shape": list(self.shape),
            "output_activation": self.output_activation,
            "hidden_activation": self.hidden_activation,
            "normalised": self.normalised,
            "drops": self.drops,
            "skips": self.skips,
            "receptive_field": None if field is None else list(field),
            "depth": self.depth,
            "narrowest": self.narrowest,
            "closed": self.closed,
        }

    @cached_property
    def _graph(self) -> _Graph:
        return _Graph(self.model.inputs, self.model.outputs)

    @property
    def _image(self) -> Tensor:
        return self.model.inputs[0]

    @property
    def _output(self) -> Tensor:
        return self.model.outputs[0]

    @cached_property
    def _last(self) -> tuple[list[_Step], str | None]:
        """Steps from the output back to the last activation, and its name."""
        x, steps = self._output, []
        while (step := self._graph.maker.get(id(x))) is not None:
            steps.append(step)
            name = _activation(step.operation)
            if _is_kernel_layer(step.operation) or name not in (None, "linear"):
                return steps, name
            if len(step.inputs) != 1 or not (name == "linear" or _is(step.operation, SHAPERS | NOISES)):
                return steps, None
            x = step.inputs[0]
        return steps, None

    @cached_property
    def _tail(self) -> set[_Step]:
        """The last layer with a kernel and what follows it."""
        return {s for s in self._graph.steps if not self._graph.kernel_follows(s)}


# --- the graph -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Step:
    """One call of one layer."""

    operation: Layer
    inputs: list[Tensor]
    outputs: list[Tensor]


class _Graph:
    """The steps from some tensors to others, in an order in which they can be computed."""

    def __init__(self, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.steps = [
            _Step(node.operation, list(node.input_tensors), list(node.outputs))
            for node in _nodes(inputs, outputs)
        ]
        self.maker = {id(x): step for step in self.steps for x in step.outputs}
        self.users: dict[int, list[_Step]] = {}
        for step in self.steps:
            for x in {id(x): x for x in step.inputs}.values():
                self.users.setdefault(id(x), []).append(step)

    def made_by(self, name: str) -> Tensor:
        return next(step.outputs[0] for step in self.steps if step.operation.name == name)

    def before(self, x: Tensor) -> set[_Step]:
        """The steps that ``x`` depends on."""
        needed, found = {id(x)}, set()
        for step in reversed(self.steps):
            if any(id(y) in needed for y in step.outputs):
                found.add(step)
                needed |= {id(y) for y in step.inputs}
        return found

    def kernel_follows(self, step: _Step) -> bool:
        """Whether a layer with a kernel uses what the step makes, sooner or later."""
        return step in self._before_kernels

    @cached_property
    def _before_kernels(self) -> set[_Step]:
        needed: set[int] = set()
        found = set()
        for step in reversed(self.steps):
            if any(id(y) in needed for y in step.outputs):
                found.add(step)
            elif not _is_kernel_layer(step.operation):
                continue
            needed |= {id(y) for y in step.inputs}
        return found

    def paths(self, without: Iterable[Tensor] = ()) -> tuple[dict[int, int], int]:
        """Paths from the inputs to the outputs: how many pass each tensor, and how many there are."""
        closed = {id(x) for x in without}
        down = {id(x): 1 for x in self.inputs}
        for step in self.steps:
            ways = sum(down.get(id(x), 0) for x in step.inputs)
            down |= {id(x): 0 if id(x) in closed else ways for x in step.outputs}
        up = {id(x): 1 for x in self.outputs}
        for step in reversed(self.steps):
            ways = sum(up.get(id(x), 0) for x in step.outputs)
            for x in step.inputs:
                up[id(x)] = up.get(id(x), 0) + ways
        return {x: ways * up.get(x, 0) for x, ways in down.items()}, sum(
            down[id(x)] for x in self.outputs
        )


def _nodes(inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> list[Any]:
    """Keras' nodes between the tensors, each after those that it needs.

    Raises:
        ValueError: an output depends on more than the inputs.
    """
    known = {id(x) for x in inputs}
    nodes: list[Any] = []
    visited: set[int] = set()
    stack = [(x, False) for x in reversed(list(outputs))]
    while stack:  # deep networks have more nodes in a row than Python allows calls
        x, ready = stack.pop()
        if id(x) in known:
            continue
        history = getattr(x, "_keras_history", None)
        if history is None or history.operation is None:
            raise ValueError(f"{x} does not depend on the image")
        node = history.operation._inbound_nodes[history.node_index]
        if ready:
            nodes.append(node)
            known |= {id(y) for y in node.outputs}
        elif id(node) not in visited:
            visited.add(id(node))
            if node.is_input:
                raise ValueError(f"{history.operation.name} is another input")
            stack.append((x, True))
            stack += [(y, False) for y in reversed(node.input_tensors)]
    return nodes


def _call(operation: Layer, *args: Any, **kwargs: Any) -> Any:
    return operation(*args, **kwargs)


def _replay(
    inputs: list[Tensor],
    outputs: Any,
    values: list[Any],
    call: Callable[..., Any],
    change: Callable[[Tensor, Any], Any] = lambda _, value: value,
) -> Any:
    """Computes a graph once more with other inputs.

    Args:
        inputs: tensors of the graph that get new values; what lies before them is not computed.
        outputs: tensors of the graph, in any structure.
        values: as many as there are inputs.
        call: called with each operation and its arguments.
        change: called with each tensor and its new value; returns the value to go on with.
    """
    import keras

    new = {id(x): value for x, value in zip(inputs, values, strict=True)}
    for node in _nodes(inputs, keras.tree.flatten(outputs)):
        args, kwargs = node.arguments.fill_in(new)
        results = keras.tree.flatten(call(node.operation, *args, **kwargs))
        for x, value in zip(node.outputs, results, strict=True):
            new.setdefault(id(x), change(x, value))  # an input may be one of several outputs
    return keras.tree.map_structure(lambda x: new[id(x)], outputs)


# --- one layer -----------------------------------------------------------------------------------


def _is(operation: Layer, names: set[str]) -> bool:
    return any(c.__name__ in names and _keras_own(c) for c in type(operation).__mro__)


def _keras_own(thing: Any) -> bool:
    return str(thing.__module__).split(".")[0] == "keras"


def _is_convolution(operation: Layer) -> bool:
    return _is(operation, {"Conv2D", "Conv2DTranspose", "SeparableConv2D", "DepthwiseConv2D"})


def _is_kernel_layer(operation: Layer) -> bool:
    return _is_convolution(operation) or _is(operation, DENSE) or _hides_convolutions(operation)


def _weights(operation: Layer) -> list[Any]:
    return list(getattr(operation, "weights", []))


def _hides_convolutions(operation: Layer) -> bool:
    inner = getattr(operation, "_flatten_layers", None)  # keras.ops have none
    return inner is not None and any(map(_is_convolution, inner(include_self=False)))


def _activation(operation: Layer) -> str | None:
    """Name of the activation that a layer ends with, None for a layer that has none or another's."""
    function = getattr(operation, "activation", None)
    if _is(operation, {"Activation"}) or (function is not None and _is_kernel_layer(operation)):
        name = getattr(function, "__name__", None)
        if name is None:
            return _own_activation(function)  # Conv2D(activation=LeakyReLU())
        return name if name.isidentifier() else None
    return "linear" if _is_kernel_layer(operation) else _own_activation(operation)


def _own_activation(operation: Layer) -> str | None:
    """Name of the activation that a layer or an operation of keras.ops is."""
    kind = type(operation)
    return ACTIVATIONS.get(kind.__name__.lower()) if _keras_own(kind) else None


def _kernel(conv: Layer) -> Any:
    import numpy as np

    if _is(conv, {"SeparableConv2D"}):
        depthwise = np.array(conv.depthwise_kernel)  # (k, k, inputs, multiplier)
        pointwise = np.array(conv.pointwise_kernel)[0, 0]  # (inputs * multiplier, filters)
        pointwise = pointwise.reshape(*depthwise.shape[2:], -1)
        return np.einsum("hwim,imf->hwif", depthwise, pointwise)
    kernel = np.array(conv.kernel)
    if _is(conv, {"Conv2DTranspose"}):
        return kernel.swapaxes(2, 3)  # Keras keeps (k, k, filters, inputs) there
    if _is(conv, {"DepthwiseConv2D"}):
        return kernel.reshape(*kernel.shape[:2], 1, -1)
    return kernel


# --- how far a value sees ------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """Along one axis: value i of ``count`` sees pixels low + i * jump to high + i * jump."""

    low: float
    high: float
    jump: float
    count: int

    def window(self, before: float, after: float, jump: float, count: int) -> _View:
        """Of values that see ``before`` values in front of theirs and ``after`` behind it."""
        return _View(self.low - before * self.jump, self.high + after * self.jump, jump, count)

    def all(self) -> _View:
        """Of a value that sees all values."""
        return _View(self.low, self.high + (self.count - 1) * self.jump, 0, 1)

    def __or__(self, other: _View) -> _View:
        if self.jump != other.jump:
            return self.all() | other.all()
        low, high = min(self.low, other.low), max(self.high, other.high)
        return _View(low, high, self.jump, max(self.count, other.count))

    def size(self, side: int) -> int:
        """Pixels of the image that the value that sees most sees."""
        sizes = (
            math.floor(min(self.high + i * self.jump, side - 1))
            - math.ceil(max(self.low + i * self.jump, 0))
            + 1
            for i in range(self.count)
        )
        return max(0, *sizes, 0)


def _receptive_field(graph: _Graph, image: Tensor, code: Tensor) -> tuple[int, int] | None:
    views: dict[int, tuple[_View, _View] | None] = {
        id(image): (_View(0, 0, 1, image.shape[1]), _View(0, 0, 1, image.shape[2]))
    }
    inside = graph.before(code)
    for step in graph.steps:
        if step not in inside:
            continue
        seen = [views[id(x)] for x in step.inputs]
        view: tuple[_View, _View] | None = None
        if all(v is not None for v in seen):
            pairs = [_see(step, axis, [v[axis] for v in seen if v is not None]) for axis in (0, 1)]
            if pairs[0] is not None and pairs[1] is not None:
                view = pairs[0], pairs[1]
        views |= {id(x): view for x in step.outputs}
    found = views[id(code)]
    return found and (found[0].size(image.shape[1]), found[1].size(image.shape[2]))


def _see(step: _Step, axis: int, views: list[_View]) -> _View | None:
    """What a value of the step's output sees; None for a layer that is not known."""
    operation, x, y = step.operation, step.inputs[0], step.outputs[0]
    view = views[0]
    for other in views[1:]:
        view = view | other
    grid = len(x.shape) == 4 and len(y.shape) == 4
    if _is(operation, {"Dense"}) and len(x.shape) > 2:
        return view  # the same at every position
    if _is(operation, POOL_ALL | DENSE):
        return view.all()
    size = int(y.shape[1 + axis]) if grid else 0
    if grid and _is(operation, {"Conv2DTranspose"}):
        k, s = operation.kernel_size[axis], operation.strides[axis]
        k = (k - 1) * operation.dilation_rate[axis] + 1
        cut = max(k - s, 0) // 2 if operation.padding == "same" else 0
        return view.window((k - 1 - cut) / s, cut / s, view.jump / s, size)
    if grid and (_is_convolution(operation) or _is(operation, POOLS)):
        if _is(operation, POOLS):
            k = operation.pool_size[axis]
        else:
            k = (operation.kernel_size[axis] - 1) * operation.dilation_rate[axis] + 1
        s = operation.strides[axis]
        missing = max((size - 1) * s + k - int(x.shape[1 + axis]), 0)
        before = missing // 2 if operation.padding == "same" else 0
        return view.window(before, k - 1 - before, view.jump * s, size)
    if grid and _is(operation, {"ZeroPadding2D", "Cropping2D"}):
        sign = 1 if _is(operation, {"ZeroPadding2D"}) else -1
        shift = sign * getattr(operation, "padding" if sign == 1 else "cropping")[axis][0]
        return view.window(shift, -shift, view.jump, size)
    if grid and _is(operation, {"UpSampling2D"}):
        s, reach = operation.size[axis], int(operation.interpolation != "nearest")
        return view.window((s - 1) / s + reach, reach, view.jump / s, size)
    if _is(operation, {"Flatten", "Reshape", "Permute", "ExpandDims", "Squeeze"}):
        return view
    known = _is(operation, MERGES | NORMS | NOISES | {"Identity", "ActivityRegularization", "Rescaling"})
    if known or _activation(operation) is not None:
        return view
    # Arithmetic of keras.ops, a stranger's Sampling: no weights, every value at its place.
    same = all(v.shape == y.shape for v in step.inputs)
    return view if same and not _weights(operation) else None


# --- any model to a flat one ---------------------------------------------------------------------


def dissect(model: Model, *, code: str | None = None, shape: Shape | None = None) -> Autoencoder:
    """Finds the parts of any Keras autoencoder. The weights stay the model's own.

    A layer whose name is taken, or that is called twice, appears under a second name (``conv_2``,
    ``decoder_conv``) as a shallow copy that holds the same variables. Where the ``call`` of a subclassed
    model depends on ``training``, its way in inference is taken.

    Args:
        model: Sequential, functional, nested or subclassed; built or not.
        code: the layer (or the model inside) whose output is the code. Otherwise: a layer called code,
            latent, bottleneck, z …; else the output of a model inside called encoder; else the
            narrowest place between the image and the output.
        shape: (h, w, c) of the images, for models that leave it open.

    Returns:
        The autoencoder; with several outputs the first of the input's shape counts.

    Raises:
        UserError: the model is no autoencoder of images, or Keras cannot follow its ``call``.
    """
    import keras

    shape = _image_shape(model, shape)
    tracer = _Tracer()
    image = keras.Input(shape, name="image")
    outputs = keras.tree.flatten(tracer.trace(model, image))
    fitting = [x for x in outputs if tuple(x.shape[1:]) == shape and x is not image]
    if not fitting:
        shapes = ", ".join("x".join(map(str, x.shape[1:])) for x in outputs)
        raise UserError(
            f"no output of {printable(model.name)} has the shape of its input, "
            f"{'x'.join(map(str, shape))}: {shapes}",
            hint="an autoencoder gives its images back; is this the encoder or a classifier?",
        )
    flat = keras.Model(image, fitting[0], name="autoencoder")
    graph = _Graph(flat.inputs, flat.outputs)
    found = _find_code(graph, tracer.models, code)
    autoencoder = Autoencoder(flat, graph.maker[id(found)].operation.name)
    if not autoencoder.convolutions and autoencoder.closed:
        raise _cannot_follow(", ".join(autoencoder.closed), tracer.failure)
    return autoencoder


def _image_shape(model: Model, shape: Shape | None) -> Shape:
    """(h, w, c) of the model's input, open sides taken from ``shape``."""
    name = printable(model.name)
    inputs = _inputs(model)
    if inputs is None and hasattr(model, "encoder"):
        inputs = _inputs(model.encoder)
    if inputs is None and (built := (model.get_build_config() or {}).get("input_shape")):
        inputs = [tuple(built)] if isinstance(built[0], int | None) else [tuple(s) for s in built]
    if inputs is not None and len(inputs) != 1:
        raise UserError(
            f"{name} has {len(inputs)} inputs",
            hint="an autoencoder of images has one; wrap the model so that it takes images only",
        )
    if inputs is not None and len(inputs[0]) != 4:
        raise UserError(
            f"the input of {name} is {inputs[0]}, not images (n, height, width, channels)",
            hint="put keras.Input((height, width, channels)) and a keras.layers.Reshape in front",
        )
    own = inputs[0][1:] if inputs is not None else (None, None, None)
    if shape is not None and any(s not in (None, t) for s, t in zip(own, shape, strict=True)):
        raise UserError(
            f"{name} takes images of {'x'.join(map(str, own))}, not {'x'.join(map(str, shape))}",
            hint="bring the images to the model's size",
        )
    h, w, c = own if shape is None else shape
    if h is None or w is None or c is None:
        raise UserError(
            f"{name} does not say what size its images have", hint="give shape=(height, width, channels)"
        )
    return int(h), int(w), int(c)


def _inputs(model: Model) -> list[tuple[int | None, ...]] | None:
    """Shapes of a model's inputs, None where it has not got any yet."""
    try:
        inputs = model.inputs
    except (AttributeError, ValueError):
        # A Sequential of models knows its shape when it was called; its first model may know before.
        layers = model.layers if _is(model, {"Sequential"}) else []
        return _inputs(layers[0]) if layers else None
    return [tuple(x.shape) for x in inputs] if inputs else None


def _cannot_follow(name: str, cause: BaseException | None) -> UserError:
    reason = "" if cause is None else f": {printable(str(cause).strip().splitlines()[0])[:200]}"
    return UserError(
        f"Keras cannot follow the call of {name} with a symbolic image{reason}",
        hint="use keras.ops in place of tf.* functions and of .numpy(), or put such code into a "
        "keras.layers.Layer of its own; or give the model attributes encoder and decoder",
    )


def _free(name: str, taken: set[str]) -> str:
    """The name, or the name with the first number that makes it new; then taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


class _Tracer:
    """Calls the layers inside models, as deep as they are, so that one flat graph arises."""

    def __init__(self) -> None:
        self.taken = {"image"}
        self.used: set[int] = set()  # layers, by id
        self.models: dict[str, list[Tensor]] = {}  # outputs of the models inside, by name
        self.failure: Exception | None = None
        self._within: list[str] = []

    def trace(self, model: Model, image: Tensor) -> Any:
        """The outputs of the outermost model."""
        import keras

        cause: Exception
        try:
            if not model.built and not isinstance(model, keras.Sequential):
                model(keras.Input(image.shape[1:]))  # makes the weights
            return self._open(model, (image,), {})
        except Exception as error:  # whatever a stranger's code raises
            cause = error
        for codes in self._codes(model, image):
            try:
                return self.call(model.decoder, codes)
            except Exception as error:
                self.failure = error
        raise _cannot_follow(printable(model.name), cause) from cause

    def _codes(self, model: Model, image: Tensor) -> Iterator[Any]:
        """What a model's encoder gives its decoder: all, else the code among several outputs."""
        import keras

        if not (hasattr(model, "encoder") and hasattr(model, "decoder")):
            return
        try:
            codes = self.call(model.encoder, image)
        except Exception as error:
            self.failure = error
            return
        yield codes
        flat = keras.tree.flatten(codes)
        if len(flat) > 1:
            yield flat[0] if len(flat) == 2 else flat[-1]  # mean, log variance[, sample]

    def call(self, operation: Layer, *args: Any, **kwargs: Any) -> Any:
        """Calls a layer; in place of a model, or of a layer made of layers, what it consists of."""
        import keras

        if isinstance(operation, keras.Model) or (
            isinstance(operation, keras.Layer)
            and not _keras_own(type(operation).call)
            and any(map(_weights, operation._flatten_layers(include_self=False)))
        ):
            before = set(self.taken), set(self.used)
            self._within.append(operation.name)
            try:
                outputs = self._open(operation, args, kwargs)
            except Exception as error:  # stays closed
                self.taken, self.used = before
                self.failure = error
            else:
                if isinstance(operation, keras.Model):
                    self.models[operation.name] = keras.tree.flatten(outputs)
                return outputs
            finally:
                self._within.pop()
        operation = self._once(operation)
        outputs = operation(*args, **kwargs)
        if isinstance(outputs, keras.KerasTensor):
            return outputs
        flat = keras.tree.flatten(outputs)  # one name, one tensor: each output gets a layer
        named = [
            keras.layers.Identity(
                name=_free(f"{operation.name}_output_{number}", self.taken), dtype=x.dtype
            )(x)
            for number, x in enumerate(flat, start=1)
        ]
        return keras.tree.pack_sequence_as(outputs, named)

    def _open(self, outer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import keras

        keras_own = _keras_own(type(outer).call)
        if isinstance(outer, keras.Sequential) and keras_own:
            x = args[0]
            for layer in outer.layers:
                x = self.call(layer, x)
            return x
        values = keras.tree.flatten(args[0])
        if isinstance(outer, keras.Function) and keras_own:
            if isinstance(args[0], dict) and not isinstance(outer.input, dict):
                values = [args[0][x.name] for x in outer.inputs]
            return _replay(outer.inputs, outer.output, values, self.call)
        # Two passes: its `call` makes a graph of its direct parts, whose parts are then opened.
        given = keras.tree.flatten((args, kwargs))
        tensors = [x for x in given if isinstance(x, keras.KerasTensor)]
        fresh = [keras.Input(batch_shape=x.shape, dtype=x.dtype) for x in tensors]
        by_id = {id(x): y for x, y in zip(tensors, fresh, strict=True)}
        args, kwargs = keras.tree.map_structure(lambda x: by_id.get(id(x), x), (args, kwargs))
        if "training" in inspect.signature(outer.call).parameters:
            kwargs.setdefault("training", False)
        # Losses of symbolic tensors are refused outside of __call__, and not needed here.
        outer.__dict__["add_loss"] = lambda *_, **__: None
        try:
            outputs = outer.call(*args, **kwargs)
        finally:
            del outer.__dict__["add_loss"]
        return _replay(fresh, outputs, tensors, self.call)

    def _once(self, operation: Layer) -> Layer:
        """The layer, or its twin with another name and the same variables."""
        if operation.name not in self.taken and id(operation) not in self.used:
            self.taken.add(operation.name)
            self.used.add(id(operation))
            return operation
        name = operation.name
        if self._within and id(operation) not in self.used:
            name = f"{self._within[-1]}_{name}"
        # copy.copy goes through Keras' pickling, which writes the weights to a file and reads them.
        twin = object.__new__(type(operation))
        twin.__dict__.update(operation.__dict__)
        twin.__dict__.update(name=_free(name, self.taken), _inbound_nodes=[], _outbound_nodes=[])
        self.used.add(id(operation))
        return twin


# --- where the code is ---------------------------------------------------------------------------


def _find_code(graph: _Graph, models: dict[str, list[Tensor]], wanted: str | None) -> Tensor:
    inner = [step for step in graph.steps if graph.outputs[0] not in step.outputs]
    named = {step.operation.name: step.outputs[0] for step in inner}
    parts = {
        name: on_path[-1]
        for name, xs in models.items()
        if (on_path := [x for x in xs if any(x is y for y in named.values())])
    }
    if wanted is not None:
        if wanted in named or wanted in parts:
            return named.get(wanted, parts.get(wanted))
        raise UserError(
            f"there is no layer {printable(wanted)} between the image and the output",
            hint=did_you_mean(wanted, {*named, *parts}, "the layers are"),
        )
    passed, total = graph.paths()
    cuts = {id(x) for step in inner for x in step.outputs if passed.get(id(x)) == total}
    for name in CODE_NAMES:
        pattern = rf"{name}(_?(layer|space|vector|map|dim|\d+))?"
        for layer, x in named.items():
            if re.fullmatch(pattern, layer, re.IGNORECASE):
                return _sampled(graph, x, cuts) if name in ("z_mean", "mu") else x
    for part, x in parts.items():
        if re.fullmatch(r"(.*_)?encoder(_.*)?", part, re.IGNORECASE):
            return x if id(x) in cuts else _sampled(graph, x, cuts)
    return _pass_on(graph, _narrowest(graph, inner, cuts))


def _values(x: Tensor) -> float:
    """Values an image; endless where Keras does not know the shape."""
    return math.inf if None in x.shape[1:] else math.prod(x.shape[1:])


def _positions(x: Tensor) -> float:
    return _values(x) / max(x.shape[-1] or 1, 1)


def _narrowest(graph: _Graph, inner: list[_Step], cuts: set[int]) -> Tensor:
    """The first of the narrowest places between the first and the last layer with a kernel.

    Only places that all paths pass count: inside a residual block or an attention it may be narrower.
    With skip connections no path but those on the coarsest grid are looked at.
    """
    weighed = [x for s in inner if graph.kernel_follows(s) for x in s.outputs if _behind(graph, s)]
    weighed = weighed or [x for step in inner for x in step.outputs] or list(graph.outputs)
    on_cut = [x for x in weighed if id(x) in cuts]
    grids = [x for x in weighed if len(x.shape) == 4 and _positions(x) > 1]
    if on_cut and (not grids or min(map(_positions, on_cut)) <= min(map(_positions, grids))):
        return min(on_cut, key=_values)
    coarsest = min(map(_positions, grids or weighed))
    level = [x for x in grids or weighed if _positions(x) == coarsest]
    passed, total = graph.paths()
    _, around = graph.paths(without=level)
    local = [x for x in level if passed[id(x)] == total - around]
    return min(local or level, key=_values)


def _behind(graph: _Graph, step: _Step) -> bool:
    return any(_is_kernel_layer(s.operation) for s in graph.before(step.outputs[0]))


def _pass_on(graph: _Graph, x: Tensor) -> Tensor:
    """The same values after activation, normalisation, dropout and change of shape."""
    while len(users := graph.users.get(id(x), [])) == 1:
        step = users[0]
        passive = _is(step.operation, NORMS | NOISES | SHAPERS | {"Activation"})
        y = step.outputs[0]
        if not (passive or _own_activation(step.operation)) or _values(y) != _values(x):
            break
        if any(y is output for output in graph.outputs):
            break
        x = y
    return x


def _sampled(graph: _Graph, mean: Tensor, cuts: set[int]) -> Tensor:
    """The sample that is drawn around the mean, if the output depends on it; else the mean."""
    if id(mean) in cuts:
        return mean
    reached = {id(mean)}
    for step in graph.steps:
        if any(id(x) in reached for x in step.inputs) and not _is_kernel_layer(step.operation):
            for x in step.outputs:
                if id(x) in cuts and x.shape == mean.shape:
                    return x
                reached.add(id(x))
    return mean


# --- files ---------------------------------------------------------------------------------------

# Layers whose files hold code, or name code to run.
UNSAFE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}


def load(path: str | Path, custom: str | Path | None = None) -> Model:
    """Opens a saved model without running code from the file.

    Args:
        path: a .keras, .h5 or .hdf5 file of a whole model.
        custom: a Python file of the user's own with the classes that the model needs. It is run.

    Returns:
        The Keras model, not compiled.

    Raises:
        UserError: no such file, not a whole model, damaged, with code inside, or a class is unknown.
    """
    import keras

    path = Path(path)
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise UserError(
            f"{printable(path.name)} is not a .keras, .h5 or .hdf5 file",
            where=path,
            hint="other formats can hold code; save the model with model.save('model.keras')",
        )
    if not path.is_file():
        raise UserError("there is no such file", where=path)
    for name in sorted(_class_names(_config(path)) & UNSAFE):
        kind = "Lambda" if name == "__lambda__" else name
        raise UserError(
            f"the model holds a {kind} layer, which would run code from the file",
            where=path,
            hint="write it as a class registered with keras.saving.register_keras_serializable, or "
            "with keras.ops, and save the model again",
        )
    objects = {} if custom is None else _classes(Path(custom))
    try:
        return keras.models.load_model(path, custom_objects=objects, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises nearly everything, by what is broken
        text = str(error)
        unknown = re.search(r"(?:Could not locate|Unknown) [\w ]+?:? '([^']+)'", text)
        if unknown:
            raise UserError(
                f"the model needs the class {printable(unknown[1])}, which Keras does not know",
                where=path,
                hint="--custom FILE names the Python file that defines it"
                if custom is None
                else f"{custom} does not define it",
            ) from error
        first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
        raise UserError(
            f"the model cannot be opened: {printable(first)[:300]}",
            where=path,
            hint="is the file whole, and saved by Keras 3 or TensorFlow's Keras?",
        ) from error


def _config(path: Path) -> Any:
    """The description of the network in a file, read as plain JSON."""
    import h5py

    damaged = UserError(
        "the file is damaged, or not what its name says",
        where=path,
        hint="copy it again, or save the model again with model.save('model.keras')",
    )
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
        if config is not None:
            return json.loads(config)
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise damaged from error
    raise UserError(
        "the file holds weights but no model",
        where=path,
        hint="save the whole model: model.save('model.keras'), not save_weights",
    )


def _class_names(config: Any) -> set[str]:
    """Every class that a description names, at any depth."""
    names, stack = set(), [config]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            names |= {
                str(part[k]).split(">")[-1] for k in ("class_name", "registered_name") if part.get(k)
            }
            stack += part.values()
        elif isinstance(part, list):
            stack += part
    return names


def _classes(path: Path) -> dict[str, Any]:
    """Runs a Python file; the classes and functions that it defines, by name."""
    if path.suffix != ".py" or not path.is_file():
        raise UserError("there is no such Python file", where=path, hint="--custom FILE.py")
    name = f"cae_custom_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"the file fails: {type(error).__name__}: {error}", where=path) from error
    return {
        k: v for k, v in vars(module).items() if getattr(v, "__module__", None) == name and callable(v)
    }
