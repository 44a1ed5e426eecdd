"""Kinds of layers, by their classes: convolutions, activations, layers that only move values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from cae_cli.introspection.keras_internals import layers_inside

Tensor = Any
Layer = Any  # or a keras.ops operation: whatever is a node of the graph
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
# Layers that only move or repeat values.
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

# Layers and operations that are activations, by class name in lower case.
ACTIVATIONS = {
    "relu": "relu", "relu6": "relu6", "leakyrelu": "leaky_relu", "prelu": "prelu", "elu": "elu",
    "celu": "celu", "selu": "selu", "gelu": "gelu", "silu": "silu", "hardsilu": "hard_silu",
    "softplus": "softplus", "softsign": "softsign", "softmax": "softmax", "logsoftmax": "log_softmax",
    "sigmoid": "sigmoid", "hardsigmoid": "hard_sigmoid", "tanh": "tanh", "hardtanh": "hard_tanh",
    "exp": "exponential", "mish": "mish",
}  # fmt: skip


def is_a(operation: Layer, names: set[str]) -> bool:
    """Whether a layer is one of these classes of Keras, or derives from one."""
    return any(c.__name__ in names and from_keras(c) for c in type(operation).__mro__)


def from_keras(thing: Any) -> bool:
    """Whether a class or a function is Keras' own."""
    return str(thing.__module__).split(".")[0] == "keras"


def is_convolution(operation: Layer) -> bool:
    """Whether a layer has filters."""
    return is_a(operation, {"Conv2D", "Conv2DTranspose", "SeparableConv2D", "DepthwiseConv2D"})


def is_kernel_layer(operation: Layer) -> bool:
    """Whether a layer has a kernel, itself or in a layer inside."""
    return is_convolution(operation) or is_a(operation, DENSE) or hides_convolutions(operation)


def size_of(shape: Iterable[int | None]) -> int:
    """The number of values in a tensor; an axis of unknown length counts as 1."""
    return math.prod(n or 1 for n in shape)


def weights_of(operation: Layer) -> list[Any]:
    """Weights of a layer; none of an operation of keras.ops."""
    return list(getattr(operation, "weights", []))


def hides_convolutions(operation: Layer) -> bool:
    """Whether a layer has convolutions inside."""
    return any(map(is_convolution, layers_inside(operation)))


def activation_of(operation: Layer) -> str | None:
    """Name of the activation that a layer ends with; None if it has none or an unknown one."""
    function = getattr(operation, "activation", None)
    if is_a(operation, {"Activation"}) or (function is not None and is_kernel_layer(operation)):
        name = getattr(function, "__name__", None)
        if name is None:
            return own_activation(function)  # Conv2D(activation=LeakyReLU())
        return name if name.isidentifier() else None
    return "linear" if is_kernel_layer(operation) else own_activation(operation)


def own_activation(operation: Layer) -> str | None:
    """Name of an activation layer or operation; None for others."""
    kind = type(operation)
    return ACTIVATIONS.get(kind.__name__.lower()) if from_keras(kind) else None


def kernel_of(conv: Layer) -> Any:
    """A copy of its kernel, (kernel, kernel, inputs, filters)."""
    import numpy as np

    if is_a(conv, {"SeparableConv2D"}):
        depthwise = np.array(conv.depthwise_kernel)  # (k, k, inputs, multiplier)
        pointwise = np.array(conv.pointwise_kernel)[0, 0]  # (inputs * multiplier, filters)
        pointwise = pointwise.reshape(*depthwise.shape[2:], -1)
        return np.einsum("hwim,imf->hwif", depthwise, pointwise)
    kernel = np.array(conv.kernel)
    if is_a(conv, {"Conv2DTranspose"}):
        return kernel.swapaxes(2, 3)  # Keras keeps (k, k, filters, inputs) there
    if is_a(conv, {"DepthwiseConv2D"}):
        return kernel.reshape(*kernel.shape[:2], 1, -1)
    return kernel
