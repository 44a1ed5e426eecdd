"""Computes with a network, whichever library Keras computes with: TensorFlow, JAX or PyTorch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.errors import UserError, printable

Array = NDArray[np.float32]
Tensor = Any


def on_tensorflow() -> bool:
    """Whether Keras computes with TensorFlow in this process."""
    import keras

    return bool(keras.backend.backend() == "tensorflow")


def compiled(function: Callable[..., Any], signature: Sequence[Any] | None = None) -> Callable[..., Any]:
    """A function of arrays that gives arrays, from one of tensors.

    TensorFlow traces it once for each shape, so that it does not keep the outputs of all layers; other
    libraries compute it layer by layer. No gradients are kept.

    Args:
        function: from tensors, in whatever tuples, lists and dictionaries, to such.
        signature: (shape, dtype) of the tensors of its arguments, None for an axis of any length, in the
            same structure; for TensorFlow, which then traces it once, here and now, for all threads.
    """
    import keras

    if on_tensorflow():
        import tensorflow as tf

        specs = None if signature is None else [_spec(one) for one in signature]
        call: Any = tf.function(function, input_signature=specs, autograph=False)
        if specs is not None:
            call.get_concrete_function()  # in this thread: Keras keeps its settings for each
    else:

        def call(*arguments: Any) -> Any:
            with without_gradients():
                return function(*keras.tree.map_structure(keras.ops.convert_to_tensor, arguments))

    return lambda *arguments: _arrays(call(*arguments))


def _arrays(found: Any) -> Any:
    """The same with arrays in place of tensors."""
    import keras

    if isinstance(found, dict):
        return {name: _arrays(part) for name, part in found.items()}
    if isinstance(found, list | tuple):
        return [_arrays(part) for part in found]
    # TensorFlow's tensors give their memory away; keras.ops would copy it.
    return np.asarray(found) if on_tensorflow() else keras.ops.convert_to_numpy(found)


def _spec(one: Any) -> Any:
    import tensorflow as tf

    if isinstance(one, dict):
        return {name: _spec(part) for name, part in one.items()}
    return [_spec(part) for part in one] if isinstance(one, list) else tf.TensorSpec(*one)


def without_gradients() -> contextlib.AbstractContextManager[Any]:
    """In its block PyTorch keeps nothing for gradients; the other libraries never do without a tape."""
    import keras

    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    context: contextlib.AbstractContextManager[Any] = torch.no_grad()
    return context


def gradients(
    function: Callable[[], Sequence[Tensor]], variables: Sequence[Any]
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Some numbers, and how they depend on variables.

    Args:
        function: computes the numbers, each a tensor without axes, from variables of Keras.
        variables: those variables.

    Returns:
        The numbers, and for each of them its gradients, of the shapes of the variables; zeros where it
        does not depend on one.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        values = [variable.value for variable in variables]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(values)
            numbers = list(function())
        zero = tf.UnconnectedGradients.ZERO
        return numbers, [tape.gradient(x, values, unconnected_gradients=zero) for x in numbers]
    if backend == "jax":
        import jax

        def of(values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            state = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=state, collect_losses=True):
                found = list(function())
            return found, found

        values = [variable.value for variable in variables]
        per_number, numbers = jax.jacrev(of, has_aux=True)(values)
        return numbers, per_number
    import torch

    values = [variable.value for variable in variables]
    with torch.enable_grad():
        for value in values:
            value.requires_grad_(True)
        numbers = list(function())
    found = [
        torch.autograd.grad(x, values, retain_graph=True, allow_unused=True)
        if x.requires_grad
        else [None] * len(values)
        for x in numbers
    ]
    zeros = [torch.zeros_like(value) for value in values]
    return [x.detach() for x in numbers], [
        [zero if g is None else g for g, zero in zip(own, zeros, strict=True)] for own in found
    ]


@contextmanager
def computing(where: object = None) -> Iterator[None]:
    """In the block, an error of a layer is one of the user, as when a convolution gets integers.

    Args:
        where: the file of the network, for messages.

    Raises:
        UserError: a layer cannot compute what it is given.
    """
    wrong: tuple[type[Exception], ...] = (TypeError, ValueError)
    if on_tensorflow():
        import tensorflow as tf

        wrong += (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)
    try:
        yield
    except wrong as error:
        lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split("\n")
        said = [line for line in lines if line and not line.startswith("Exception encountered")]
        raise UserError(
            f"the model cannot compute an image: {printable(' '.join(said[:1]))[:300]}",
            where=where,
            hint="call the model with one image in Keras to see the same error",
        ) from error
