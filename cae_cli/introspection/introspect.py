"""Turns any model into a flat one by calling every layer inside it on a symbolic image."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from cae_cli.errors import UserError, printable
from cae_cli.introspection.autoencoder import Autoencoder
from cae_cli.introspection.graph import Graph, free_name, replay
from cae_cli.introspection.keras_internals import (
    check_version,
    layers_inside,
    twin,
    without_losses,
)
from cae_cli.introspection.latent import find_latent
from cae_cli.introspection.layers import Layer, Model, Shape, Tensor, from_keras, is_a, weights_of


def introspect(model: Model, *, latent: str | None = None, shape: Shape | None = None) -> Autoencoder:
    """Finds the parts of any Keras autoencoder. The weights are shared with the model.

    A layer whose name is taken, or that is called twice, appears under a second name (``conv_2``,
    ``decoder_conv``) as a shallow copy with the same variables. If the ``call`` of a subclassed model
    depends on ``training``, it is called as in inference.

    Args:
        model: Sequential, functional, nested or subclassed; built or not.
        latent: the layer (or the model inside) whose output is the latent code. None: a layer called
            code, latent, bottleneck, z …; else the output of a model inside called encoder; else the
            narrowest tensor between the image and the output.
        shape: (h, w, c) of the images, for models that do not define it.

    Returns:
        The autoencoder; of several outputs, the first with the shape of the input.

    Raises:
        UserError: the model is no autoencoder of images, has its channels first, or Keras cannot trace
            its ``call``.
    """
    import keras

    check_version()
    check_axes(model)
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
            hint="An autoencoder reconstructs its input. Is this an encoder or a classifier?",
        )
    flat = keras.Model(image, fitting[0], name="autoencoder")
    graph = Graph(flat.inputs, flat.outputs)
    code = find_latent(graph, tracer.models, latent)
    autoencoder = Autoencoder(flat, graph.maker[id(code)].operation.name)
    if not autoencoder.convolutions and autoencoder.closed:
        raise _cannot_follow(", ".join(autoencoder.closed), tracer.failure)
    return autoencoder


def check_axes(model: Model) -> None:
    """Checks that the channels are the last axis of everything that has rows and columns.

    Raises:
        UserError: they are the first one somewhere.
    """
    for layer in layers_inside(model):
        # Keras flattens with the channels last, whatever comes in.
        if getattr(layer, "data_format", None) == "channels_first" and not is_a(layer, {"Flatten"}):
            raise UserError(
                f"{printable(model.name)} has the channels first in its layer {printable(layer.name)}, "
                "and a network is measured with the channels last",
                hint="Save it with model.save('model.keras') for cae diagnose, which opens a file with "
                "the channels last.",
            )


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
            f"{name} has {len(inputs)} inputs: "
            + ", ".join("x".join(map(str, shape[1:])) for shape in inputs),
            hint="An autoencoder of images has one. Wrap the model so that it takes images only, with "
            "constants for the others.",
        )
    if inputs is not None and len(inputs[0]) != 4:
        raise UserError(
            f"the input of {name} is {inputs[0]}, not images (n, height, width, channels)",
            hint="Put keras.Input((height, width, channels)) and a keras.layers.Reshape in front.",
        )
    own = inputs[0][1:] if inputs is not None else (None, None, None)
    if shape is not None and any(s not in (None, t) for s, t in zip(own, shape, strict=True)):
        raise UserError(
            f"{name} takes images of {'x'.join(map(str, own))}, not {'x'.join(map(str, shape))}",
            hint=_mending(own, shape),
        )
    h, w, c = own if shape is None else shape
    if h is None or w is None or c is None:
        raise UserError(
            f"{name} does not define the size of its images",
            hint="Give shape=(height, width, channels).",
        )
    return int(h), int(w), int(c)


def _mending(own: tuple[int | None, ...], shape: Shape) -> str:
    """The options that give images the shape (h, w, c) of the model's, or else what to do with them."""
    h, w, c = own
    options = [f"data.channels={c}"] if c not in (None, shape[2]) and c in (1, 3) else []
    if (h, w) != shape[:2] and h is not None and h == w:
        options.insert(0, f"data.image_size={h}")
    if not options:
        return "Resize the images to the size of the model."
    return f"Use {' '.join(options)} for folders of images."


def _inputs(model: Model) -> list[tuple[int | None, ...]] | None:
    """Shapes of a model's inputs, None if it has no inputs yet."""
    try:
        inputs = model.inputs
    except (AttributeError, ValueError):
        # A Sequential of models has a shape only after a call; its first model may have one before.
        layers = model.layers if is_a(model, {"Sequential"}) else []
        return _inputs(layers[0]) if layers else None
    return [tuple(x.shape) for x in inputs] if inputs else None


def _cannot_follow(name: str, cause: BaseException | None) -> UserError:
    reason = ""
    if cause is not None:
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        reason = f": {printable(lines[0])[:200]}"
    return UserError(
        f"Keras cannot follow the call of {name} with a symbolic image{reason}",
        hint="Use keras.ops instead of tf.* functions and .numpy(), move such code into a separate "
        "keras.layers.Layer, or give the model attributes encoder and decoder.",
    )


class _Tracer:
    """Calls the layers inside models, at any depth, so that they form one flat graph."""

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
        except Exception as error:  # the code of the model may raise anything
            cause = error
        for latents in self._latents(model, image):
            try:
                return self.call(model.decoder, latents)
            except Exception as error:
                self.failure = error
        raise _cannot_follow(printable(model.name), cause) from cause

    def _latents(self, model: Model, image: Tensor) -> Iterator[Any]:
        """What the encoder passes to the decoder: all outputs, then the latent code among them."""
        import keras

        if not (hasattr(model, "encoder") and hasattr(model, "decoder")):
            return
        try:
            latents = self.call(model.encoder, image)
        except Exception as error:
            self.failure = error
            return
        yield latents
        flat = keras.tree.flatten(latents)
        if len(flat) > 1:
            yield flat[0] if len(flat) == 2 else flat[-1]  # mean, log variance[, sample]

    def call(self, operation: Layer, *args: Any, **kwargs: Any) -> Any:
        """Calls a layer; instead of a model or a layer made of layers, calls its parts."""
        import keras

        if isinstance(operation, keras.Model) or (
            isinstance(operation, keras.Layer)
            and not from_keras(type(operation).call)
            and any(map(weights_of, layers_inside(operation)))
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
                name=free_name(f"{operation.name}_output_{number}", self.taken), dtype=x.dtype
            )(x)
            for number, x in enumerate(flat, start=1)
        ]
        return keras.tree.pack_sequence_as(outputs, named)

    def _open(self, outer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import keras

        keras_own = from_keras(type(outer).call)
        if isinstance(outer, keras.Sequential) and keras_own:
            x = args[0]
            for layer in outer.layers:
                x = self.call(layer, x)
            return x
        values = keras.tree.flatten(args[0])
        if isinstance(outer, keras.Function) and keras_own:
            if isinstance(args[0], dict) and not isinstance(outer.input, dict):
                values = [args[0][x.name] for x in outer.inputs]
            return replay(outer.inputs, outer.output, values, self.call)
        # Two passes: its `call` makes a graph of its direct parts, whose parts are then opened.
        given = keras.tree.flatten((args, kwargs))
        tensors = [x for x in given if isinstance(x, keras.KerasTensor)]
        if "training" in inspect.signature(outer.call).parameters:
            kwargs.setdefault("training", False)

        def called(count: int | None) -> tuple[list[Tensor], Any]:
            fresh = [keras.Input(batch_shape=(count or x.shape[0], *x.shape[1:]), dtype=x.dtype)
                     for x in tensors]  # fmt: skip
            by_id = {id(x): y for x, y in zip(tensors, fresh, strict=True)}
            new = keras.tree.map_structure(lambda x: by_id.get(id(x), x), (args, kwargs))
            with without_losses(outer):
                return fresh, outer.call(*new[0], **new[1])

        try:
            fresh, outputs = called(None)
        except Exception as error:
            # A call that draws noise asks for the number of images. What it draws for one of them stays
            # the same for all: a sample of the latent code as good as any.
            try:
                fresh, outputs = called(1)
            except Exception:
                raise error from None
        return replay(fresh, outputs, tensors, self.call)

    def _once(self, operation: Layer) -> Layer:
        """The layer, or its twin with another name and the same variables."""
        if operation.name not in self.taken and id(operation) not in self.used:
            self.taken.add(operation.name)
            self.used.add(id(operation))
            return operation
        name = operation.name
        if self._within and id(operation) not in self.used:
            name = f"{self._within[-1]}_{name}"
        self.used.add(id(operation))
        return twin(operation, free_name(name, self.taken))
