"""Finds the latent code in a network that does not name it."""

from __future__ import annotations

import math
import re

from cae_cli.errors import UserError, did_you_mean, printable
from cae_cli.introspection.graph import Graph
from cae_cli.introspection.keras_internals import Step
from cae_cli.introspection.layers import (
    NOISES,
    NORMS,
    SHAPERS,
    Tensor,
    is_a,
    is_kernel_layer,
    own_activation,
)

# Usual names of the latent layer, the most certain first.
LATENT_NAMES = (
    "code", "latent", "bottleneck", "z", "sampling", "encoded", "encoding", "embedding", "z_mean", "mu",
)  # fmt: skip


def find_latent(graph: Graph, models: dict[str, list[Tensor]], wanted: str | None) -> Tensor:
    """The output of the layer that makes the latent code.

    Args:
        graph: from the image to the output.
        models: outputs of the models that were inside, by name.
        wanted: the layer or the model that the user named; None: detected by names and widths.

    Raises:
        UserError: there is no layer of the wanted name.
    """
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
    for name in LATENT_NAMES:
        pattern = rf"{name}(_?(layer|space|vector|map|dim|\d+))?"
        for layer, x in named.items():
            if re.fullmatch(pattern, layer, re.IGNORECASE):
                return _sampled(graph, x, cuts) if name in ("z_mean", "mu") else x
    for part, x in parts.items():
        if re.fullmatch(r"(.*_)?encoder(_.*)?", part, re.IGNORECASE):
            return x if id(x) in cuts else _sampled(graph, x, cuts)
    return _pass_on(graph, _narrowest(graph, inner, cuts))


def _values(x: Tensor) -> float:
    """Values per image; infinite where Keras does not know the shape."""
    return math.inf if None in x.shape[1:] else math.prod(x.shape[1:])


def _positions(x: Tensor) -> float:
    return _values(x) / max(x.shape[-1] or 1, 1)


def _narrowest(graph: Graph, inner: list[Step], cuts: set[int]) -> Tensor:
    """The first of the narrowest tensors between the first and the last layer with a kernel.

    Only tensors on all paths count: a residual block or an attention may be narrower inside. With skip
    connections only paths through the coarsest grid count.
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


def _behind(graph: Graph, step: Step) -> bool:
    return any(is_kernel_layer(s.operation) for s in graph.before(step.outputs[0]))


def _pass_on(graph: Graph, x: Tensor) -> Tensor:
    """The same values after activation, normalisation, dropout and change of shape."""
    while len(users := graph.users.get(id(x), [])) == 1:
        step = users[0]
        passive = is_a(step.operation, NORMS | NOISES | SHAPERS | {"Activation"})
        y = step.outputs[0]
        if not (passive or own_activation(step.operation)) or _values(y) != _values(x):
            break
        if any(y is output for output in graph.outputs):
            break
        x = y
    return x


def _sampled(graph: Graph, mean: Tensor, cuts: set[int]) -> Tensor:
    """The sample that is drawn around the mean, if the output depends on it; else the mean."""
    if id(mean) in cuts:
        return mean
    reached = {id(mean)}
    for step in graph.steps:
        if any(id(x) in reached for x in step.inputs) and not is_kernel_layer(step.operation):
            for x in step.outputs:
                if id(x) in cuts and x.shape == mean.shape:
                    return x
                reached.add(id(x))
    return mean
