"""The graph of a flat model, and how to compute it once more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from cae_cli.introspection.keras_internals import Step, steps_between
from cae_cli.introspection.layers import Layer, Tensor, is_kernel_layer


class Graph:
    """The steps from some tensors to others, in an order in which they can be computed."""

    def __init__(self, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.steps = steps_between(inputs, outputs)
        self.maker = {id(x): step for step in self.steps for x in step.outputs}
        self.users: dict[int, list[Step]] = {}
        for step in self.steps:
            for x in {id(x): x for x in step.inputs}.values():
                self.users.setdefault(id(x), []).append(step)

    def made_by(self, name: str) -> Tensor:
        """The output of the layer of this name."""
        return next(step.outputs[0] for step in self.steps if step.operation.name == name)

    def before(self, x: Tensor) -> set[Step]:
        """The steps that ``x`` depends on."""
        needed, steps = {id(x)}, set()
        for step in reversed(self.steps):
            if any(id(y) in needed for y in step.outputs):
                steps.add(step)
                needed |= {id(y) for y in step.inputs}
        return steps

    def kernel_follows(self, step: Step) -> bool:
        """Whether a layer with a kernel depends on the step."""
        return step in self._before_kernels

    @cached_property
    def _before_kernels(self) -> set[Step]:
        needed: set[int] = set()
        steps = set()
        for step in reversed(self.steps):
            if any(id(y) in needed for y in step.outputs):
                steps.add(step)
            elif not is_kernel_layer(step.operation):
                continue
            needed |= {id(y) for y in step.inputs}
        return steps

    def paths(self, without: Iterable[Tensor] = ()) -> tuple[dict[int, int], int]:
        """The number of paths from inputs to outputs through each tensor, and of all paths."""
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


def plain_call(operation: Layer, *args: Any, **kwargs: Any) -> Any:
    """For `replay`: the operation itself."""
    return operation(*args, **kwargs)


def replay(
    inputs: list[Tensor],
    outputs: Any,
    values: list[Any],
    call: Callable[..., Any],
    change: Callable[[Tensor, Any], Any] = lambda _, value: value,
) -> Any:
    """Computes a graph once more with other inputs.

    Args:
        inputs: tensors of the graph that get new values; nothing before them is computed.
        outputs: tensors of the graph, in any structure.
        values: as many as there are inputs.
        call: called with each operation and its arguments.
        change: called with each tensor and its new value; returns the value to use.
    """
    import keras

    new = {id(x): value for x, value in zip(inputs, values, strict=True)}
    for step in steps_between(inputs, keras.tree.flatten(outputs)):
        args, kwargs = step.arguments(new)
        results = keras.tree.flatten(call(step.operation, *args, **kwargs))
        for x, value in zip(step.outputs, results, strict=True):
            new.setdefault(id(x), change(x, value))  # an input may be one of several outputs
    return keras.tree.map_structure(lambda x: new[id(x)], outputs)


def free_name(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken; adds it to ``taken``."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
