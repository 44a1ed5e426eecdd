"""Each private part of Keras that is used, alone: under a new version of Keras these say what broke."""

import re
from pathlib import Path

import numpy as np
import pytest

import cae_cli
from cae_cli.errors import RunFailed
from cae_cli.introspection import keras_internals as internals

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.tf

PRIVATE = (
    r"keras\.src|_keras_history|_(in|out)bound_nodes|_flatten_layers|_call_has_|(?<!make_)train_function"
)


def two_convolutions():
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(2, 3, name="first")(image)
    return keras.Model(image, keras.layers.Dropout(0.5, name="last")(keras.ops.relu(x)))


def test_private_parts_are_used_in_one_file_only():
    package = Path(cae_cli.__file__).parent
    users = [p.name for p in package.rglob("*.py") if re.search(PRIVATE, p.read_text(encoding="utf-8"))]
    # What model files name is a text: `upgrade` imports nothing of Keras.
    assert "import keras" not in (package / "introspection" / "upgrade.py").read_text(encoding="utf-8")
    assert sorted(users) == ["keras_internals.py", "upgrade.py"]


def test_another_version_of_keras_is_refused(monkeypatch):
    internals.check_version()
    monkeypatch.setattr(keras, "__version__", "3.16.0")
    with pytest.raises(RunFailed, match=r"Keras 3\.16\.0 is installed, but cae needs Keras 3\.15"):
        internals.check_version()


def test_the_calls_of_a_graph_are_found_in_order_and_can_be_repeated():
    model = two_convolutions()
    steps = internals.steps_between(model.inputs, model.outputs)
    assert [type(s.operation).__name__ for s in steps] == ["Conv2D", "Relu", "Dropout"]
    assert steps[0].inputs[0] is model.inputs[0] and steps[-1].outputs[0] is model.outputs[0]
    (value,), options = steps[0].arguments({id(model.inputs[0]): "new"})
    assert value == "new" and options == {}
    with pytest.raises(ValueError, match="another input"):
        internals.steps_between([], model.outputs)


def test_layers_inside_layers_are_listed_at_any_depth():
    inner = two_convolutions()
    outer = keras.Sequential([keras.Input((8, 8, 1)), inner])
    assert {"first", "last"} <= {layer.name for layer in internals.layers_inside(outer)}
    assert internals.layers_inside(keras.ops.relu) == []


def test_only_layers_that_differ_in_training_take_the_argument():
    assert internals.takes_training(keras.layers.Dropout(0.5))
    assert not internals.takes_training(keras.layers.Conv2D(2, 3))


def test_a_twin_has_the_same_variables_and_a_graph_of_its_own():
    model = two_convolutions()
    first = model.get_layer("first")
    twin = internals.twin(first, "second")
    other = keras.Input((8, 8, 1))
    graph = keras.Model(other, twin(other))
    assert twin.kernel is first.kernel and graph.layers[-1].name == "second"
    assert len(internals.steps_between(model.inputs, model.outputs)) == 3
    third = internals.twin(twin, "third")
    assert all(internals.original(layer) is first for layer in (first, twin, third))


def test_what_is_drawn_and_named_in_a_block_without_trace_is_drawn_and_named_again():
    import random

    def drawn():
        layer = keras.layers.Dense(1)
        layer.build((None, 2))
        return [
            layer.name, random.random(), np.random.rand(), np.asarray(layer.kernel).tolist(),
            float(keras.random.normal(())),
        ]  # fmt: skip

    keras.utils.set_random_seed(3)
    with internals.without_trace():
        inside = drawn(), drawn()
    found = drawn()
    keras.utils.set_random_seed(3)
    expected = drawn()
    assert found[1:] == expected[1:] and inside[0][1:] != inside[1][1:]
    assert (found[0], expected[0]) == (inside[0][0], inside[1][0])


def test_losses_are_ignored_in_the_block_only():
    layer = keras.layers.Dense(1)
    with internals.without_losses(layer):
        layer.add_loss(1.0)
    assert "add_loss" not in vars(layer) and layer.losses == []


def test_variables_without_values_leave_nothing_behind():
    with internals.without_values():
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        assert tuple(layer.kernel.shape) == (3, 2)
    with keras.StatelessScope(initialize_variables=True):
        pass
    assert layer.kernel._value is None


def test_the_first_batches_of_fit_are_observed_and_still_trained_on():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            internals.observe_batches(self.model, lambda: len(seen) < 2, seen.append)

    x = np.arange(8, dtype=np.float32).reshape(8, 1)
    weights = []
    for callbacks in ([Watch()], []):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(x, x, batch_size=2, shuffle=False, verbose=0, callbacks=callbacks)
        weights.append(model.get_weights())
    assert [np.asarray(batch[0]).tolist() for batch in seen] == [[[0], [1]], [[2], [3]]]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_models_within_a_model_are_not_compiled():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    settings = model.get_compile_config()
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with internals.uncompiled():
        other.compile_from_config(settings)
    assert not other.compiled
    other.compile_from_config(settings)
    assert other.compiled


def test_variables_have_no_values_but_those_that_are_there():
    with internals.without_values():
        large = keras.layers.Dense(2**40)
        large.build((None, 2**20))
        given = keras.Variable([1.0, 2.0], dtype="float32")
        number = keras.Variable(3)
        assert large.kernel.shape == (2**20, 2**40)
        assert np.asarray(given).tolist() == [1, 2]
        assert (number.shape, number.dtype) == ((), "int32")
    assert np.asarray(keras.Variable(np.ones(2))).tolist() == [1, 1]
