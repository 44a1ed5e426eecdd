"""The graph of a flat model, and how to compute it once more.

It is read in `_nodes` only, from the history that Keras keeps on symbolic tensors; there is no public
way to it, and pyproject.toml holds Keras to one minor version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cae_cli.introspection.layers import Layer, Tensor, is_kernel_layer


@dataclass(frozen=True, eq=False)
class Step:
    """One call of one layer."""

    operation: Layer
    inputs: list[Tensor]
    outputs: list[Tensor]


class Graph:
    """The steps from some tensors to others, in an order in which they can be computed."""

    def __init__(self, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.steps = [
            Step(node.operation, list(node.input_tensors), list(node.outputs))
            for node in _nodes(inputs, outputs)
        ]
        self.maker = {id(x): step for step in self.steps for x in step.outputs}
        self.users: dict[int, list[Step]] = {}
        for step in self.steps:
            for x in {id(x): x for x in step.inputs}.values():
                self.users.setdefault(id(x), []).append(step)

    def made_by(self, name: str) -> Tensor:
        """What the layer of this name makes."""
        return next(step.outputs[0] for step in self.steps if step.operation.name == name)

    def before(self, x: Tensor) -> set[Step]:
        """The steps that ``x`` depends on."""
        needed, found = {id(x)}, set()
        for step in reversed(self.steps):
            if any(id(y) in needed for y in step.outputs):
                found.add(step)
                needed |= {id(y) for y in step.inputs}
        return found

    def kernel_follows(self, step: Step) -> bool:
        """Whether a layer with a kernel uses what the step makes, sooner or later."""
        return step in self._before_kernels

    @cached_property
    def _before_kernels(self) -> set[Step]:
        needed: set[int] = set()
        found = set()
        for step in reversed(self.steps):
            if any(id(y) in needed for y in step.outputs):
                found.add(step)
            elif not is_kernel_layer(step.operation):
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


def free_name(name: str, taken: set[str]) -> str:
    """The name, or the name with the first number that makes it new; then taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free
