"""A model of the same build as another one, with an edit and with weights drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from cae_cli.errors import UserError
from cae_cli.introspection.keras_internals import original
from cae_cli.introspection.layers import from_keras, is_a

Layer = Any  # a keras.Layer
Tensor = Any  # symbolic


class CannotRebuild(UserError):
    """Keras cannot build the model again, or not with this edit."""


@dataclass(frozen=True)
class Edit:
    """What is different in the new model. Functions get the layers of the old one.

    Attributes:
        config: the config of the new layer, or the new layer, from a layer and a copy of its config.
        inputs: what a layer gets, from the layer and the arguments of its call.
        after: what the layers behind a layer get, from the layer and its output.
        left_out: whether a layer is left out. It must have one input.
    """

    config: Callable[[Layer, dict[str, Any]], dict[str, Any] | Layer] = lambda _, config: config
    inputs: Callable[[Layer, tuple[Any, ...]], tuple[Any, ...]] = lambda _, arguments: arguments
    after: Callable[[Layer, Tensor], Tensor] = lambda _, output: output
    left_out: Callable[[Layer], bool] = lambda _: False


SAME = Edit()


def rebuilt(model: keras.Model, edit: Edit = SAME) -> keras.Model:
    """The model again, with an edit, not compiled.

    Nested models are edited too. Layers that are used several times stay shared.

    Args:
        model: built; functional, sequential, or of a class of its own that has a ``get_config``, of
            which nothing can be edited, see `is_editable`.
        edit: what is different.

    Raises:
        CannotRebuild: as its name says.
    """
    try:
        if is_editable(model):
            return _Copy(edit, model).of(model)
        if edit is not SAME:
            raise CannotRebuild("only functional and sequential models can be edited")
        return type(model).from_config(model.get_config())
    except (TypeError, ValueError, NotImplementedError, AttributeError, KeyError) as error:
        lines = str(error).strip().splitlines()
        raise CannotRebuild(
            f"Keras cannot build this model again: {lines[0] if lines else error}"
        ) from error


def layers(model: keras.Model) -> Iterator[Layer]:
    """The layers of a model, in order, those of nested models in place of these; without inputs.

    Of layers that share their variables, as those of a flat model do for each call, the first.
    """
    known: set[int] = set()
    for layer in model.layers:
        if is_graph(layer):
            yield from layers(layer)
        elif id(original(layer)) not in known and not isinstance(layer, keras.layers.InputLayer):
            known.add(id(original(layer)))
            yield layer


def is_graph(layer: Any) -> bool:
    """Whether a layer is a functional or a sequential model, without a ``call`` of its own."""
    return is_a(layer, {"Functional", "Sequential"}) and from_keras(type(layer).call)


def is_editable(model: keras.Model) -> bool:
    """Whether a model is that and trains as Keras does: a copy of its layers would train alike."""
    return is_graph(model) and not has_own_step(model)


def has_own_step(model: keras.Model) -> bool:
    """Whether the class of a model has a training step, a loss or a ``compile`` of its own."""
    names = ("train_step", "make_train_function", "compute_loss", "compile")
    return any(getattr(type(model), name) is not getattr(keras.Model, name) for name in names)


class _Copy:
    """One copy of a model: what is shared in it stays shared."""

    def __init__(self, edit: Edit, model: keras.Model) -> None:
        self._edit = edit
        self._first = {id(original(layer)): layer for layer in layers(model)}
        self._new: dict[int, Any] = {}
        self._old: dict[int, Any] = {}

    def of(self, model: Any) -> Any:
        if isinstance(model, keras.Sequential):
            # Keras puts no layers between those of a sequential model.
            model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        return keras.models.clone_model(model, clone_function=self._layer, call_function=self._call)

    def _layer(self, old: Any) -> Any:
        key = id(original(old))
        if key not in self._new:
            old = self._first.get(key, old)
            if is_graph(old):
                new = self.of(old)
            else:
                edited = self._edit.config(old, old.get_config())
                new = type(old).from_config(edited) if isinstance(edited, dict) else edited
            self._new[key], self._old[id(new)] = new, old
        return self._new[key]

    def _call(self, new: Any, *arguments: Any, **words: Any) -> Any:
        old = self._old[id(new)]
        if self._edit.left_out(old):
            return arguments[0]
        return self._edit.after(old, new(*self._edit.inputs(old, arguments), **words))
