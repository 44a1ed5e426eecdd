"""The parts of Keras that are not public. No other file uses them.

Keras has no public way to walk the graph of a model, to list the layers inside a layer, or to see the
batches of ``model.fit``. pyproject.toml therefore pins one minor version of Keras, and every function
here raises `RunFailed` under another one. ``tests/tf/test_keras_internals.py`` tests each of them alone,
so that a new version of Keras shows what it changed.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cae_cli.errors import RunFailed

VERSION = "3.15"

Tensor = Any
Layer = Any  # or a keras.ops operation: whatever is a node of the graph


def check_version() -> None:
    """Checks that Keras has the version that this file was written for.

    Raises:
        RunFailed: it has another one.
    """
    import keras

    if not keras.__version__.startswith(f"{VERSION}."):
        raise RunFailed(
            f"Keras {keras.__version__} is installed, but cae needs Keras {VERSION}",
            hint=f"pip install 'keras=={VERSION}.*'",
        )


@dataclass(frozen=True, eq=False)
class Step:
    """One call of one layer in a graph.

    Attributes:
        operation: the layer, or the operation of keras.ops.
        inputs: tensors that it got.
        outputs: tensors that it made.
        arguments: from new values of the inputs, by id, to (args, kwargs) of the same call.
    """

    operation: Layer
    inputs: list[Tensor]
    outputs: list[Tensor]
    arguments: Callable[[dict[int, Any]], tuple[tuple[Any, ...], dict[str, Any]]]


def steps_between(inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> list[Step]:
    """The calls from some symbolic tensors to others, each after those that it needs.

    Raises:
        ValueError: an output depends on more than the inputs.
    """
    known = {id(x) for x in inputs}
    steps: list[Step] = []
    visited: set[int] = set()
    stack = [(x, False) for x in reversed(list(outputs))]
    while stack:  # deep networks have more calls in a row than Python allows recursions
        x, ready = stack.pop()
        if id(x) in known:
            continue
        history = getattr(x, "_keras_history", None)
        if history is None or history.operation is None:
            raise ValueError(f"{x} does not depend on the image")
        node = history.operation._inbound_nodes[history.node_index]
        if ready:
            inputs_, outputs_ = list(node.input_tensors), list(node.outputs)
            steps.append(Step(node.operation, inputs_, outputs_, node.arguments.fill_in))
            known |= {id(y) for y in node.outputs}
        elif id(node) not in visited:
            visited.add(id(node))
            if node.is_input:
                raise ValueError(f"{history.operation.name} is another input")
            stack.append((x, True))
            stack += [(y, False) for y in reversed(node.input_tensors)]
    return steps


def layers_inside(layer: Layer) -> list[Layer]:
    """All layers inside a layer or a model, at any depth; none for an operation of keras.ops."""
    flatten = getattr(layer, "_flatten_layers", None)
    return [] if flatten is None else list(flatten(include_self=False))


def takes_training(layer: Layer) -> bool:
    """Whether the call of a layer has an argument ``training``."""
    return bool(getattr(layer, "_call_has_training_arg", False))


def twin(layer: Layer, name: str) -> Layer:
    """A second layer with the same variables, under another name and in no graph yet."""
    # copy.copy goes through Keras' pickling, which writes the weights to a file and reads them.
    other = object.__new__(type(layer))
    other.__dict__.update(layer.__dict__)
    other.__dict__.update(name=name, _inbound_nodes=[], _outbound_nodes=[], _twin_of=original(layer))
    return other


def original(layer: Layer) -> Layer:
    """The layer that a `twin` has its variables from; any other layer itself."""
    return getattr(layer, "__dict__", {}).get("_twin_of", layer)


@contextlib.contextmanager
def without_losses(layer: Layer) -> Iterator[None]:
    """In the block ``layer.add_loss`` does nothing: Keras refuses losses of symbolic tensors."""
    layer.__dict__["add_loss"] = lambda *_, **__: None
    try:
        yield
    finally:
        del layer.__dict__["add_loss"]


@contextlib.contextmanager
def scaled_losses(layer: Layer, factor: float) -> Iterator[None]:
    """In the block what ``layer.add_loss`` gets is multiplied by ``factor``."""
    import keras

    add = layer.add_loss

    def scaled(loss: Any) -> None:
        add(keras.tree.map_structure(lambda value: value * factor, loss))

    layer.__dict__["add_loss"] = scaled
    try:
        yield
    finally:
        del layer.__dict__["add_loss"]


@contextlib.contextmanager
def seeded(number: int) -> Iterator[None]:
    """In the block weights, orders and random layers follow from ``number``.

    Afterwards the random states of Python, NumPy and Keras are what they were; that of ``tf.random`` is
    never touched.
    """
    import numpy as np
    from keras.src.backend.common import global_state

    names = ("global_random_seed", "global_seed_generator")
    states = random.getstate(), np.random.get_state()
    kept = {name: global_state.get_global_attribute(name) for name in names}
    random.seed(number)
    np.random.seed(number)  # Keras' own layers draw from it no more, those of others may
    global_state.set_global_attribute("global_random_seed", number)
    global_state.set_global_attribute("global_seed_generator", None)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for name, value in kept.items():
            global_state.set_global_attribute(name, value)


@contextlib.contextmanager
def without_trace() -> Iterator[None]:
    """In the block models may be built, trained and used.

    Afterwards random states are what they were, see `seeded`, and layers get the names that they would
    have got.
    """
    from keras.src.backend.common import global_state

    names = copy.copy(global_state.get_global_attribute("object_name_uids"))
    with seeded(0):
        try:
            yield
        finally:
            global_state.set_global_attribute("object_name_uids", names)


@contextlib.contextmanager
def as_in_a_new_process() -> Iterator[None]:
    """In the block Keras and TensorFlow are set as in a new process, afterwards as they were before.

    That is the precision, the names and generators of Keras, the random states of Python, NumPy and
    TensorFlow, determinism, and whether functions run eagerly. Threads and devices are set only once in
    a process, so they stay as they are.
    """
    import keras
    import numpy as np
    import tensorflow as tf
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context
    from tensorflow.python.framework import config

    states, eager = (random.getstate(), np.random.get_state()), context.context()
    seeds = {name: vars(eager).get(name) for name in ("_seed", "_rng")}
    trackers = {name: vars(global_state)[name] for name in vars(global_state) if name.isupper()}
    options = keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()
    runs_eagerly, deterministic = tf.config.functions_run_eagerly(), config.is_op_determinism_enabled()

    def set_options(floatx: str, epsilon: float, image_data_format: str) -> None:
        keras.config.set_floatx(floatx)
        keras.config.set_epsilon(epsilon)
        keras.config.set_image_data_format(image_data_format)

    def set_determinism(on: bool) -> None:
        config.enable_op_determinism() if on else config.disable_op_determinism()

    keras.backend.clear_session(free_memory=False)
    set_options("float32", 1e-7, "channels_last")
    tf.config.run_functions_eagerly(False)
    set_determinism(False)
    try:
        yield
    finally:
        set_determinism(deterministic)
        tf.config.run_functions_eagerly(runs_eagerly)
        set_options(*options)
        vars(global_state).update(trackers)
        vars(eager).update(seeds)
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextlib.contextmanager
def without_values() -> Iterator[None]:
    """In the block new variables have shapes but no values, so they take no memory.

    Those that a layer makes from a value, which exists already, keep it.
    """
    import keras
    from keras.src.backend.common import global_state

    create = keras.Variable.__init__

    def from_value(variable: Any, initializer: Any, *args: Any, **kwargs: Any) -> None:
        if not callable(initializer) and not isinstance(initializer, str):
            dtype = args[1] if len(args) > 1 else kwargs.pop("dtype", None)
            value = keras.ops.convert_to_tensor(initializer, dtype)
            args = (tuple(value.shape), keras.backend.standardize_dtype(value.dtype), *args[2:])
            kwargs.pop("shape", None)
            create(variable, lambda *_, **__: value, *args, **kwargs)  # Keras takes functions only
        else:
            create(variable, initializer, *args, **kwargs)

    keras.Variable.__init__ = from_value
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        keras.Variable.__init__ = create
        # Keras would give them their values at the end of the next such scope.
        global_state.set_global_attribute("uninitialized_variables", [])


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """In the block no model is compiled as its file says, at any depth.

    ``load_model(compile=False)`` compiles models within a model, and optimizers take memory.
    """
    from keras.src.trainers.trainer import Trainer

    compiled = Trainer.compile_from_config
    Trainer.compile_from_config = lambda *_: None
    try:
        yield
    finally:
        Trainer.compile_from_config = compiled


def put_last(callback: Any, ended: Callable[[BaseException], None] = lambda _: None) -> list[Any]:
    """Puts a callback behind the others of its ``fit``, which may change the weights at the end.

    Args:
        callback: in its ``on_train_begin``.
        ended: gets what a later event of any callback raises, which ends ``fit``; then it is raised
            again.

    Returns:
        The other callbacks; none where it is not ``fit`` that calls.
    """
    import keras

    frame = inspect.currentframe()
    while frame is not None:
        held = frame.f_locals.get("self")
        if isinstance(held, keras.callbacks.CallbackList):
            others = [other for other in held.callbacks if other is not callback]
            held.callbacks = [*others, callback]  # another list: that one is being iterated
            for name in [name for name in dir(held) if name.startswith("on_")]:
                setattr(held, name, _told(getattr(held, name), ended))
            return others
        frame = frame.f_back
    return []


def _told(function: Callable[..., Any], ended: Callable[[BaseException], None]) -> Callable[..., Any]:
    """A function that tells what it raises, but for the end of the batches, before it raises it."""

    def told(*arguments: Any, **words: Any) -> Any:
        try:
            return function(*arguments, **words)
        except BaseException as error:
            if not isinstance(error, StopIteration) and type(error).__name__ != "OutOfRangeError":
                ended(error)
            raise

    return told


def observe_batches(
    model: Any,
    wanted: Callable[[], bool],
    observe: Callable[[Any], None],
    *,
    of: str = "train_function",
    ended: Callable[[BaseException], None] = lambda _: None,
) -> None:
    """Calls ``observe`` with the next batches of ``model.fit``, before the model gets them.

    Args:
        model: in ``on_train_begin`` or ``on_test_begin`` of a callback.
        wanted: whether the next batch is to be observed. Those that are not pass untouched.
        observe: gets a batch as the iterator returns it; several in a row with several steps per
            execution.
        of: the function of the model that gets the batches, ``train_function`` or ``test_function``.
        ended: gets what that function raises, an interruption by the user too, which ends ``fit``; then
            it is raised again.
    """
    import keras

    release_batches(model, of)  # an earlier fit may have ended with an error
    function = getattr(model, of)
    if function is None:
        return
    backend = keras.backend.backend()

    def observed(*arguments: Any) -> Any:
        *state, given = arguments  # JAX: the values of all variables come with each call
        if not wanted() or not _gives_batches(given, backend):
            return function(*arguments)
        if state:
            _hold(model, state[0])
        batches = list(itertools.islice(given, model.steps_per_execution or 1))
        for batch in batches:
            observe(batch)
        return function(*state, _again(batches, given, backend))

    told = _told(observed, ended)
    told.observes = function  # type: ignore[attr-defined]
    setattr(model, of, told)


def _gives_batches(given: Any, backend: str) -> bool:
    """Whether batches come out of it one by one; a distributed iterator gives parts of them."""
    if backend != "tensorflow":
        return isinstance(given, Iterator | list)
    import tensorflow as tf

    return isinstance(given, tf.data.Iterator)


def _again(batches: list[Any], given: Any, backend: str) -> Any:
    """The same as ``given``, from which the batches were taken."""
    if backend != "tensorflow":
        return batches if isinstance(given, list) else iter(batches)
    import tensorflow as tf

    signature = given.element_spec
    return iter(tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature))


def _hold(model: Any, state: tuple[list[Any], ...]) -> None:
    """Gives variables of a model the values of a step of JAX, which has taken them away.

    The step keeps its own: what is assigned to the variables is lost after it.
    """
    variables = [model.trainable_variables, model.non_trainable_variables, model.metrics_variables]
    if len(state) > len(variables):  # not where it is only tested
        variables.insert(2, model.optimizer.variables)
    for some, values in zip(variables, state, strict=True):
        for variable, value in zip(some, values, strict=True):
            variable._value = value


def release_batches(model: Any, of: str = "train_function") -> None:
    """Stops what `observe_batches` began."""
    function = getattr(model, of, None)
    setattr(model, of, getattr(function, "observes", function))
