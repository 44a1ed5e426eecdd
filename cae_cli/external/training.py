"""A training that anybody may have started, as data, so that it can be run again."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cae_cli import introspection
from cae_cli.errors import UserError, printable
from cae_cli.external.surgery import Layer, has_own_step, is_editable, is_graph, layers, rebuilt
from cae_cli.introspection.computing import on_tensorflow, without_gradients
from cae_cli.introspection.introspect import check_axes
from cae_cli.introspection.keras_internals import scaled_losses, seeded
from cae_cli.introspection.layers import from_keras
from cae_cli.metrics.batches import neighbour_correlation
from cae_cli.metrics.quality import explained_variance
from cae_cli.system import signals

Array = NDArray[np.float32]

JUDGED = 256  # held-out images at most that a trial is measured on
JUDGED_PIXELS = 2**22  # of them together
SMOOTHER = 0.02  # correlation of neighbouring pixels; batches of the same images differ by less
PART = 64  # images in a forward pass


@dataclass(frozen=True)
class Optimizer:
    """An optimizer without its state.

    Attributes:
        kind: its class.
        config: of `keras.optimizers.Optimizer.get_config`.
    """

    kind: Callable[..., Any]
    config: Mapping[str, Any]

    @classmethod
    def of(cls, optimizer: Any) -> Optimizer:
        """Of a Keras optimizer; one that scales the loss for float16 is opened, Keras adds it again."""
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        return cls(type(optimizer), optimizer.get_config())

    def new(self) -> Any:
        """A new Keras optimizer."""
        return self.kind.from_config(dict(self.config))  # type: ignore[attr-defined]

    @property
    def rate(self) -> float | None:
        """Its learning rate; None for a schedule."""
        rate = self.config.get("learning_rate")
        return float(rate) if isinstance(rate, int | float) else None


@cache
def adam() -> Optimizer:
    """Adam at 0.001. Making one starts TensorFlow, which must not happen when this file is imported."""
    return Optimizer.of(keras.optimizers.Adam(0.001))


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """A training as data. An edited training is another one of these.

    Attributes:
        model: built; never trained or changed here.
        x, y: (n, h, w, c) images and targets, float32; no targets: the images themselves.
        held_out, held_out_y: images and targets that are not trained on.
        optimizer: of the training.
        loss: as ``model.compile`` got it; None: the model has a training step of its own.
        batch_size: images of a step.
        shuffle: whether each epoch has an order of its own.
        steps: that the training ran; None: not known.
        penalties: factor of the losses that the model's own layers add with ``add_loss``.
        longer: factor of the steps of a trial.
        words: what ``model.compile`` got in addition.
    """

    model: keras.Model
    x: Array = field(repr=False)
    y: Array | None = field(default=None, repr=False)
    held_out: Array = field(repr=False)
    held_out_y: Array | None = field(default=None, repr=False)
    optimizer: Optimizer = field(default_factory=adam)
    loss: Any = "mse"
    batch_size: int = 32
    shuffle: bool = True
    steps: int | None = None
    penalties: float = 1.0
    longer: float = 1.0
    words: Mapping[str, Any] = field(default_factory=dict)

    @property
    def targets(self) -> Array:
        """(n, h, w, c) of the training images."""
        return self.x if self.y is None else self.y

    @property
    def is_within_0_1(self) -> bool:
        """Whether all training targets are from 0 to 1, as cross-entropy needs them."""
        return float(self.targets.min()) >= 0 and float(self.targets.max()) <= 1

    @cached_property
    def layers(self) -> list[Layer]:
        """In order, also those of nested models; none for a model that cannot be edited."""
        return list(layers(self.model)) if is_editable(self.model) else []

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """Of the network, see `introspection.Autoencoder.facts`; {} where it has none."""
        try:
            return introspection.introspect(self.model, shape=_shape(self.x.shape[1:])).facts()
        except UserError:
            return {}

    @cached_property
    def clean(self) -> tuple[Array, Array]:
        """What the output should be: (n, h, w, c) for the training images, and for held-out ones.

        The images, or the targets where these have clearly less noise: then it is a denoiser.
        """
        if self.y is None or self.held_out_y is None:
            return self.x, self.held_out
        few = slice(JUDGED)
        if neighbour_correlation(self.y[few]) > neighbour_correlation(self.x[few]) + SMOOTHER:
            return self.y, self.held_out_y
        return self.x, self.held_out

    @cached_property
    def judged(self) -> tuple[Array, Array]:
        """Held-out images and what they should become, both (m, h, w, c)."""
        count = int(np.clip(JUDGED_PIXELS // np.prod(self.x.shape[1:]), 1, JUDGED))
        return self.held_out[:count], self.clean[1][:count]

    def explained(self, model: keras.Model) -> float:
        """Explained variance of held-out images, 1 for perfect; -inf if a number is not finite."""
        images, targets = self.judged
        with np.errstate(all="ignore"), seeded(0):  # layers may draw at random here too
            error = np.square(self.outputs(model, images) - targets).mean(axis=(1, 2, 3))
            mean = self.clean[0].mean(axis=0, dtype=np.float64)
            found = explained_variance(error, np.square(targets - mean).mean(axis=(1, 2, 3)))
        return found if np.isfinite(found) else -np.inf

    def outputs(self, model: keras.Model, images: Array) -> Array:
        """(n, h, w, c) reconstructions, in the range of the targets."""
        if type(model).call is keras.Model.call:  # a training step alone
            model = introspection.introspect(model, shape=_shape(images.shape[1:])).model
        starts = range(0, len(images), PART)
        with without_gradients():
            parts = [self._output(model(images[s : s + PART], training=False)) for s in starts]
        whole = np.concatenate(parts).astype(np.float32)
        if getattr(self.loss, "from_logits", False):
            return np.asarray(keras.ops.convert_to_numpy(keras.ops.sigmoid(whole)))
        return whole

    def _output(self, outputs: Any) -> Array:
        shape = self.targets.shape[1:]
        for x in keras.tree.flatten(outputs):
            if tuple(x.shape[1:]) == shape:
                return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))
        raise UserError(f"no output of the model has the shape of its targets, {shape}")

    def batches(self, steps: int, seed: int) -> Iterator[Any]:
        """The batches of the first steps, as ``fit`` gives them to the model."""
        order = np.random.default_rng(seed)
        count = len(self.x)
        size = min(self.batch_size, count)
        left = np.empty(0, np.intp)
        for _ in range(steps):
            while len(left) < size:
                epoch = order.permutation(count) if self.shuffle else np.arange(count)
                left = np.concatenate([left, epoch])
            chosen, left = left[:size], left[size:]
            if self.loss is None and self.y is None:
                yield self.x[chosen]
            else:
                yield self.x[chosen], self.targets[chosen]

    def _fed(self, steps: int, seed: int) -> Any:
        """The same as `fit` takes them; TensorFlow would trace batches of each size anew."""
        if not on_tensorflow():
            return self.batches(steps, seed)
        import tensorflow as tf

        like = next(self.batches(1, seed))
        signature = keras.tree.map_structure(
            lambda a: tf.TensorSpec((None, *a.shape[1:]), tf.float32), like
        )
        return tf.data.Dataset.from_generator(
            lambda: self.batches(steps, seed), output_signature=signature
        )

    def run(
        self, steps: int, seed: int, watch: Callable[[int, keras.Model], bool] = lambda *_: True
    ) -> keras.Model:
        """A model of the same build, weights drawn from ``seed``, after some steps of this training.

        The random states of Python, NumPy and Keras are afterwards what they were.

        Args:
            steps: to train.
            seed: of the weights, the order of the images, and random layers.
            watch: gets the steps made and the model after each step; False ends the training.

        Raises:
            UserError: Keras cannot build, compile or train it.
        """
        with seeded(seed):
            model = rebuilt(self.model)
            with scaled_penalties(model, self.penalties):
                try:
                    loss = {} if self.loss is None else {"loss": self.loss}
                    model.compile(optimizer=self.optimizer.new(), **loss, **self.words)
                    callbacks = [_Watch(watch)]
                    model.fit(
                        self._fed(steps, seed),
                        epochs=1,
                        steps_per_epoch=steps,
                        shuffle=False,
                        verbose=0,
                        callbacks=callbacks,
                    )
                except UserError:
                    raise
                except Exception as error:  # the code of somebody's model may raise anything
                    if (cause := signals.behind(error)) is not error:
                        raise cause from error
                    lines = str(error).strip().splitlines() or [type(error).__name__]
                    raise UserError(
                        f"this model cannot be trained again: {printable(lines[0])[:300]}",
                        hint="Give cae_cli.treat the model as it was compiled for fit.",
                    ) from error
        return model

    def edited(self, **changes: Any) -> Training:
        """This training with other attributes."""
        return replace(self, **changes)


class _Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Asks after each step whether to continue; a loss that is not finite ends the training."""

    def __init__(self, watch: Callable[[int, keras.Model], bool]) -> None:
        super().__init__()
        self._watch = watch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not (self._watch(batch + 1, self.model) and np.isfinite((logs or {}).get("loss", 0.0))):
            self.model.stop_training = True


def _shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    h, w, c = shape
    return h, w, c


def layers_of(model: keras.Model) -> list[Layer]:
    """The layers of a model that can be edited; of another one those that it holds."""
    return list(layers(model)) if is_graph(model) else list(model.layers)


@contextlib.contextmanager
def scaled_penalties(model: keras.Model, factor: float) -> Iterator[None]:
    """In the block the losses that the model's own layers add are multiplied by ``factor``."""
    with contextlib.ExitStack() as stack:
        for layer in layers_of(model) if factor != 1 else []:
            if adds_losses(layer):
                stack.enter_context(scaled_losses(layer, factor))
        yield


def adds_losses(layer: Layer) -> bool:
    """Whether a layer is of a class of its own whose code calls ``add_loss``."""
    call = type(layer).call
    code = getattr(call, "__code__", None)
    return not from_keras(type(layer)) and code is not None and "add_loss" in code.co_names


def of_model(
    model: keras.Model,
    x: NDArray[Any],
    y: NDArray[Any] | None = None,
    *,
    held_out: Sequence[NDArray[Any]] | None = None,
    **words: Any,
) -> Training:
    """The training of a compiled model; Adam at 0.001 and the mean squared error of one that is not.

    Args:
        model: any autoencoder; it is not changed.
        x: (n, h, w, c) images as they are given to ``fit``.
        y: their targets, of the same shape; None: the images.
        held_out: images, or images and targets, that are not trained on; None: the last tenth.
        **words: attributes of `Training`: ``batch_size``, ``shuffle``, ``steps``.

    Raises:
        UserError: the shapes are not those of images, or of each other, or the model has its channels
            first.
    """
    check_axes(model)
    parts = [np.asarray(a) for a in (x, y, *(held_out or ())) if a is not None]
    if any(p.ndim != 4 or p.shape[1:] != parts[0].shape[1:] for p in parts):
        shapes = ", ".join(str(p.shape) for p in parts)
        raise UserError(
            f"images and targets must have one shape (n, h, w, c), got {shapes}",
            hint="x[..., None] adds the channel axis.",
        )
    if y is not None and len(y) != len(x):
        raise UserError(f"{len(x)} images have {len(y)} targets")
    if len(x) < 2:
        raise UserError(f"at least two images are needed, got {len(x)}")
    parts = [np.asarray(p, np.float32) for p in parts]
    images, targets = parts[0], None if y is None else parts[1]
    rest = parts[1 if y is None else 2 :]
    if not rest:
        count = max(1, len(images) // 10)
        rest = [images[-count:], *([] if targets is None else [targets[-count:]])]
        images, targets = images[:-count], None if targets is None else targets[:-count]
    elif targets is not None and len(rest) == 1:
        raise UserError("the held-out images need targets too", hint="held_out=(images, targets)")
    return Training(
        model=editable(model, images.shape[1:]),
        x=images,
        y=targets,
        held_out=rest[0],
        held_out_y=rest[1] if len(rest) > 1 else None,
        **{**compiled(model), **words},
    )


def compiled(model: keras.Model) -> dict[str, Any]:
    """How a model was compiled, as attributes of `Training`; {} if it was not."""
    if not getattr(model, "compiled", False) or getattr(model, "optimizer", None) is None:
        return {}
    own_step = type(model).train_step is not keras.Model.train_step
    words = {"run_eagerly": True} if getattr(model, "run_eagerly", False) else {}
    loss = getattr(model, "loss", None)
    return {
        "optimizer": Optimizer.of(model.optimizer),
        "loss": loss if loss is not None or own_step else "mse",
        "words": words,
    }


def compiled_as(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says of ``compile``, as attributes of `Training`: optimizers and losses of Keras.

    Args:
        config: of `introspection.compile_config`. Anybody may have written it.
    """
    found: dict[str, Any] = {}
    optimizer = config.get("optimizer") or config.get("optimizer_config")
    inner = _part(optimizer, "config").get("inner_optimizer")
    made = _of_keras(inner or optimizer, keras.optimizers, keras.optimizers.Optimizer)
    if made is not None:
        found["optimizer"] = Optimizer.of(made)
    loss = config.get("loss")
    if isinstance(loss, Mapping) and loss.get("class_name") == "function":
        loss = loss.get("config")
    if isinstance(loss, str):
        with contextlib.suppress(ValueError):
            keras.losses.get(loss)
            found["loss"] = loss
    elif (made := _of_keras(loss, keras.losses, keras.losses.Loss)) is not None:
        found["loss"] = made
    return found


def _part(value: Any, key: str) -> Mapping[str, Any]:
    part = value.get(key) if isinstance(value, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _of_keras(described: Any, module: Any, base: type) -> Any:
    """An object of a class of one of Keras' modules, from plain numbers; else None."""
    if not isinstance(described, Mapping):
        return None
    kind = getattr(module, str(described.get("class_name")).rpartition(">")[2], None)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        return None
    config = dict(_part(described, "config"))
    schedule = keras.optimizers.schedules
    if isinstance(config.get("learning_rate"), Mapping):
        rate = _of_keras(config["learning_rate"], schedule, schedule.LearningRateSchedule)
        config["learning_rate"] = rate
    plain = (int, float, str, bool, type(None), schedule.LearningRateSchedule)
    words = {k: v for k, v in config.items() if isinstance(v, plain)}
    known = inspect.signature(kind.__init__).parameters
    try:
        return kind(**{k: v for k, v in words.items() if k in known})
    except (TypeError, ValueError):
        return None


def editable(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """A functional model of the same layers where that trains alike, else the model itself.

    Of a model of a class of its own only what its ``call`` does is known. So it stays as it is if it has
    a training step or losses of its own, or if its call differs in training.
    """
    kind = type(model)
    if is_graph(model):
        if not model.built:
            model = kind.from_config(model.get_config())
            model.build((None, *shape))
        return model
    code = getattr(kind.call, "__code__", None)
    names = (*code.co_names, *code.co_varnames) if code is not None else ("training",)
    if has_own_step(model) or {"training", "add_loss"} & set(names):
        return model
    try:
        return introspection.introspect(model, shape=_shape(shape)).model
    except UserError:
        return model
