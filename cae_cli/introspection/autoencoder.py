"""The parts of a network by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cae_cli.introspection.graph import Graph, free_name, plain_call, replay
from cae_cli.introspection.keras_internals import Step
from cae_cli.introspection.layers import (
    DROPOUTS,
    NOISES,
    NORMS,
    SHAPERS,
    Layer,
    Model,
    Shape,
    Tensor,
    activation_of,
    from_keras,
    hides_convolutions,
    is_a,
    is_convolution,
    is_kernel_layer,
    kernel_of,
    own_activation,
    size_of,
    weights_of,
)
from cae_cli.introspection.reach import Reach, reach_of
from cae_cli.introspection.receptive_field import Window, field_of, windows_of


@dataclass(frozen=True)
class Autoencoder:
    """A network and its parts by name.

    Attributes:
        model: (n, h, w, c) images to (n, h, w, c) reconstructions; functional, no models inside.
        latent_layer: name of the layer whose output is the latent code.
    """

    model: Model
    latent_layer: str

    @property
    def shape(self) -> Shape:
        """(h, w, c) of an image."""
        h, w, c = self.model.input_shape[1:]
        return h, w, c

    @cached_property
    def convolutions(self) -> list[Layer]:
        """Every layer with filters, from the input to the output."""
        return [layer for layer in self.model.layers if is_convolution(layer)]

    @property
    def maps(self) -> dict[str, Tensor]:
        """The feature maps of each convolution, after its activation.

        Only normalisations may stand between the two. Without a following activation it is the output of
        the convolution.
        """
        return {name: x for name, (x, _) in self._maps.items()}

    @property
    def activations(self) -> dict[str, str | None]:
        """Name of the activation of each convolution; None for an unknown one."""
        return {name: activation for name, (_, activation) in self._maps.items()}

    @cached_property
    def _maps(self) -> dict[str, tuple[Tensor, str | None]]:
        maps = {}
        for conv in self.convolutions:
            x = self._graph.made_by(conv.name)
            maps[conv.name] = x, activation_of(conv)
            if activation_of(conv) != "linear":
                continue
            while len(users := self._graph.users.get(id(x), [])) == 1:
                step = users[0]
                x = step.outputs[0]
                if is_a(step.operation, {"Activation"}) or own_activation(step.operation):
                    maps[conv.name] = x, activation_of(step.operation)
                    break
                if not is_a(step.operation, NORMS):
                    break
        return maps

    @property
    def latent(self) -> Tensor:
        """The latent code, (n, h', w', channels) or (n, values)."""
        return self._graph.made_by(self.latent_layer)

    @property
    def weight_count(self) -> int:
        """Number of weights, trained or not."""
        return int(self.model.count_params())

    @property
    def bytes_per_image(self) -> int:
        """Bytes that the layer with the most values reads and writes for one image, in inference."""
        return 4 * max(
            sum(size_of(x.shape) for x in (*step.inputs, *step.outputs)) for step in self._graph.steps
        )

    @property
    def products_per_image(self) -> int:
        """Multiply-adds for one image: weights times positions of the smaller of input and output."""
        return sum(
            sum(size_of(w.shape) for w in weights_of(step.operation))
            * min(size_of(x.shape[1:-1]) for x in (*step.inputs, *step.outputs))
            for step in self._graph.steps
        )

    def kernels(self) -> dict[str, Any]:
        """Kernels by convolution, (kernel, kernel, inputs, filters), copies.

        Inputs are those of one filter: 1 for a depthwise convolution. A separable convolution is
        returned as the equivalent full one.
        """
        return {conv.name: kernel_of(conv) for conv in self.convolutions}

    def encoder(self) -> Model:
        """Images to latent codes."""
        import keras

        return keras.Model(self.model.input, self.latent)

    def decoder(self) -> Model:
        """[images, latent codes] to reconstructions; the images feed skip connections only."""
        import keras

        latent = self.latent
        image = keras.Input(self.shape, dtype=self._image.dtype)
        inner = keras.Input(latent.shape[1:], dtype=latent.dtype)
        output = replay([self._image, latent], self._output, [image, inner], plain_call)
        return keras.Model([image, inner], output)

    def with_replaced_maps(self) -> Model:
        """A model in which every filter's map can be replaced by a constant.

        Its input is ``{"image": (n, h, w, c), "keep": {convolution: (m, filters)}, "instead": {…}}``
        with m = n, or m = 1 for all images alike; each map becomes
        ``map * keep + instead * (1 - keep)``. Other vectors need no new trace.
        """
        import keras

        class Replace(keras.layers.Layer):  # type: ignore[misc]
            """One layer per map, so only one new name is needed."""

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
            layer = Replace(name=free_name(f"{name}_replace", taken), dtype=x.dtype)
            return layer([value, vectors["keep"][name], vectors["instead"][name]])

        image = keras.Input(self.shape, dtype=self._image.dtype, name="image")
        output = replay([self._image], self._output, [image], plain_call, replaced)
        return keras.Model({"image": image, **vectors}, output)

    @cached_property
    def skips(self) -> bool:
        """Whether the image reaches the output on a path that does not pass the latent code."""
        reached = {id(self._image)}
        for step in self._graph.steps:
            if any(id(x) in reached for x in step.inputs):
                reached |= {id(x) for x in step.outputs if x is not self.latent}
        return id(self._output) in reached

    @property
    def encoder_layers(self) -> list[Layer]:
        """The layers with weights between the image and the latent code."""
        inside = self._graph.before(self.latent)
        return [s.operation for s in self._graph.steps if s in inside and weights_of(s.operation)]

    @property
    def output_activation(self) -> str | None:
        """Name of the last activation; None if it is not known."""
        return self._last[1]

    @property
    def hidden_activation(self) -> str | None:
        """Name of the most frequent activation before the output; "linear" if there is none."""
        names: Counter[str] = Counter()
        hidden = False
        for step in self._graph.steps:
            if step in self._tail:
                continue
            hidden = hidden or is_kernel_layer(step.operation)
            name = activation_of(step.operation)
            if name not in (None, "linear"):
                names[str(name)] += 1
        return names.most_common(1)[0][0] if names else "linear" if hidden else None

    @property
    def normalised(self) -> bool:
        """Whether there is batch normalisation."""
        return any(is_a(step.operation, {"BatchNormalization"}) for step in self._graph.steps)

    @property
    def keeps_statistics(self) -> tuple[Layer, Tensor] | None:
        """The first layer that holds mean and variance of the training, and what it gets."""
        kinds = {"BatchNormalization", "Normalization"}
        return next(
            ((s.operation, s.inputs[0]) for s in self._graph.steps if is_a(s.operation, kinds)), None
        )

    @property
    def half_precision(self) -> str | None:
        """Type of the trained weights that have 16 bits; None if there are none."""
        types = {str(v.dtype) for v in self.model.trainable_variables}
        return min(types & {"float16", "bfloat16"}, default=None)

    @cached_property
    def is_plain(self) -> bool:
        """Whether all layers are those of Keras, which draw nothing at random in inference."""
        return all(from_keras(type(x)) and not is_a(x, {"Lambda"}) for x in self.model.layers)

    @property
    def drops_output(self) -> bool:
        """Whether dropout stands behind the last layer with a kernel."""
        return any(is_a(step.operation, DROPOUTS) for step in self._tail)

    @property
    def dropouts(self) -> list[Layer]:
        """Dropout of any kind."""
        return [step.operation for step in self._graph.steps if is_a(step.operation, DROPOUTS)]

    @property
    def hidden_dropouts(self) -> list[Layer]:
        """Those behind a layer with a kernel: others mask the image, which a denoiser is to restore."""
        return [
            step.operation
            for step in self._graph.steps
            if is_a(step.operation, DROPOUTS)
            and any(is_kernel_layer(s.operation) for s in self._graph.before(step.outputs[0]))
        ]

    @cached_property
    def receptive_field(self) -> tuple[int, int] | None:
        """(h, w) of the largest receptive field of a latent value, in pixels.

        Statistics of normalisations do not count. None: a layer of the encoder is not known.
        """
        return field_of(self._graph, self._image, self.latent)

    @cached_property
    def reach(self) -> Reach:
        """Pixels that nothing reads, and pixels of the output that the image cannot change."""
        return reach_of(self._graph)

    def windows(self) -> dict[str, tuple[Window, Window] | None]:
        """What a value of each convolution's map sees of the image; None: a layer is not known."""
        windows = windows_of(self._graph, self._image)
        return {name: windows.get(id(x)) for name, x in self.maps.items()}

    @property
    def depth(self) -> int:
        """Convolutions and dense layers on the longest path from the image to the output."""
        return self._layers_passed(max)

    @property
    def shortcuts(self) -> bool:
        """Whether sums lead around convolutions of the longest path, as in residual blocks."""
        return self._layers_passed(min) < self.depth

    def _layers_passed(self, at_sums: Callable[..., int]) -> int:
        """Layers with kernels up to the output: on the longest path, at sums on the one chosen."""
        passed = {id(self._image): 0}
        for step in self._graph.steps:
            choose = at_sums if is_a(step.operation, {"Add"}) else max
            before = choose((passed.get(id(x), 0) for x in step.inputs), default=0)
            for x in step.outputs:
                passed[id(x)] = before + is_kernel_layer(step.operation)
        return passed[id(self._output)]

    @property
    def narrowest(self) -> int | None:
        """Fewest filters of a hidden convolution."""
        tail = {step.operation.name for step in self._tail}
        return min((int(x.shape[-1]) for name, x in self.maps.items() if name not in tail), default=None)

    @property
    def closed(self) -> list[str]:
        """Layers whose convolutions could not be reached; their filters are not diagnosed."""
        return [s.operation.name for s in self._graph.steps if hides_convolutions(s.operation)]

    def facts(self) -> dict[str, Any]:
        """Facts of the network, as plain values for JSON."""
        field = self.receptive_field
        return {
            "latent_layer": self.latent_layer,
            "latent_shape": list(self.latent.shape[1:]),
            "image_shape": list(self.shape),
            "output_activation": self.output_activation,
            "hidden_activation": self.hidden_activation,
            "activations": self.activations,
            "half_precision": self.half_precision,
            "normalised": self.normalised,
            "drops": bool(self.dropouts),
            "drops_output": self.drops_output,
            "skips": self.skips,
            "receptive_field": None if field is None else list(field),
            "depth": self.depth,
            "shortcuts": self.shortcuts,
            "narrowest": self.narrowest,
            "skipping": list(self.reach.skipping),
            "closed": self.closed,
        }

    @cached_property
    def _graph(self) -> Graph:
        return Graph(self.model.inputs, self.model.outputs)

    @property
    def _image(self) -> Tensor:
        return self.model.inputs[0]

    @property
    def _output(self) -> Tensor:
        return self.model.outputs[0]

    @cached_property
    def _last(self) -> tuple[list[Step], str | None]:
        """Steps from the output back to the last activation, and its name."""
        x, steps = self._output, []
        while (step := self._graph.maker.get(id(x))) is not None:
            steps.append(step)
            name = activation_of(step.operation)
            if is_kernel_layer(step.operation) or name not in (None, "linear"):
                return steps, name
            if len(step.inputs) != 1 or not (name == "linear" or is_a(step.operation, SHAPERS | NOISES)):
                return steps, None
            x = step.inputs[0]
        return steps, None

    @cached_property
    def _tail(self) -> set[Step]:
        """The last layer with a kernel and what follows it."""
        return {s for s in self._graph.steps if not self._graph.kernel_follows(s)}
