"""Parts of a trained network as files that need no cae, each run and compared before it is kept.

The preparation of the images is inside: an exported encoder takes images with the values that files
have. How many images pass at once is free. To add a format, add it to `FORMATS`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cae_cli.data import Scale, as_float, scale_alike
from cae_cli.errors import RunFailed, UserError, printable, to_paste
from cae_cli.features.network import Network
from cae_cli.introspection.graph import Graph, free_name, plain_call, replay
from cae_cli.introspection.keras_internals import Step, layers_inside
from cae_cli.introspection.layers import Layer, Model, from_keras, is_a
from cae_cli.runs.environment import version
from cae_cli.runs.json_files import write_json
from cae_cli.system import files
from cae_cli.system.guarded import UNFINISHED, GuardedPath

Array = NDArray[Any]

PARTS = ("encoder", "decoder", "whole")
IMAGES = 64  # that a file is compared on
# Share of the spread of an output that rounding explains, by the type of the numbers before it.
ROUNDING = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        title: its name in sentences, with its article.
        suffix: of its files; "" for a folder.
        packages: that write and run it, beside TensorFlow and Keras; all are in the extra ``export``.
        resizes: nearest upsampling is written as one operation, see `_call_resizing`.
        write: gets the model, the path, and what the file may say of itself.
        open: gets the path and the model; returns a function of arrays that runs what was written.
    """

    title: str
    suffix: str
    packages: tuple[str, ...]
    resizes: bool
    write: Callable[[Model, Path, Mapping[str, str]], None]
    open: Callable[[Path, Model], Callable[[Array], Any]]


@dataclass(frozen=True)
class Difference:
    """How far what a file computes is from what the network computes.

    Attributes:
        images: how many both were given.
        largest: absolute difference of a value.
        spread: standard deviation of the values that the network makes.
        allowed: the largest difference that rounding explains.
        random: the network draws at random: two passes of its own differ by more than that.
    """

    images: int
    largest: float
    spread: float
    allowed: float
    random: bool = False

    @property
    def relative(self) -> float:
        """The largest difference over the spread; 0 without a spread."""
        return self.largest / self.spread if self.spread else 0.0


@dataclass(frozen=True)
class Export:
    """A file that was written.

    Attributes:
        path: the file, or the folder of a SavedModel. ``<path>.json`` is beside it.
        about: what it says of itself: ``part``, ``network``, ``takes``, ``makes``.
        difference: from the network.
    """

    path: Path
    about: Mapping[str, str]
    difference: Difference


def check_target(kind: str, path: Path) -> None:
    """Checks what can be checked before a network is opened.

    Raises:
        UserError: a package of the format is not installed, the name has another suffix than such files
            have, or something that is not to be replaced has it.
    """
    form = FORMATS[kind]
    for name in form.packages:
        if util.find_spec(name) is None:
            raise UserError(
                f"{form.title} needs {name}, which is not installed",
                where=f"command line: --format {kind}",
                hint="pip install 'cae-cli[export]'",
            )
    if path.suffix != form.suffix:
        raise UserError(
            f"the name of {form.title} ends in {form.suffix}"
            if form.suffix
            else "a SavedModel is a folder, whose name has no suffix",
            where=path,
            hint=to_paste("--out", (path if path.name else Path("network")).with_suffix(form.suffix)),
        )
    if path.is_dir() or (path.exists() and not form.suffix):
        raise UserError(
            "there is something of this name", where=path, hint="name another one with --out"
        )


@contextlib.contextmanager
def _all_digits() -> Iterator[None]:
    """In the block a GPU computes in float32 with all digits, as the programs that run the files do."""
    import tensorflow as tf

    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


@_all_digits()
def export(network: Network, images: Array, part: str, kind: str, path: Path) -> Export:
    """Writes a part of a network to a file, runs it, and compares it with the network.

    Args:
        network: that was trained.
        images: (n, h, w, c) uint8, or float32 in [0, 1], of which the first are compared.
        part: one of `PARTS`.
        kind: one of `FORMATS`.
        path: of the file, which is replaced if it exists; for a SavedModel, of a folder that does not.

    Raises:
        UserError: a package is missing, the decoder needs the image, the format has no such layer, or
            the network makes numbers that are not finite.
        RunFailed: the file computes something else. It is not kept.
    """
    check_target(kind, path)
    if part == "decoder":
        network.check_decodes()
    form = FORMATS[kind]
    scale = _scale(network, images)
    raw = _unscaled(images[:IMAGES], scale)
    images, _ = scale_alike(raw, scale)  # noise that was added to bytes is rounded in a file
    inner, model = _built(network, part, scale, form)
    compute = {"encoder": network.encode, "decoder": network.decode, "whole": network.reconstruct}[part]
    given = network.encode(images) if part == "decoder" else images
    wanted = compute(given)
    if not np.isfinite(wanted).all():
        raise UserError(
            "the network makes numbers that are not finite, so there is nothing to compare a file with",
            where=network.name,
        )
    takes = _values(model.input, None if part == "decoder" else scale)
    makes = _values(model.output, None if part == "encoder" else Scale(0, 1, "float32"))
    about = {"part": part, "network": network.name, "takes": _in_words(takes), "makes": _in_words(makes)}
    files.make(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=UNFINISHED) as folder:
        written = Path(folder) / path.name
        run = _written(form, inner, model, written, about)
        fed = given.astype(model.input.dtype) if part == "decoder" else raw
        made = np.concatenate([np.asarray(run(fed[at])) for at in _batches(len(fed), network.batch)])
        difference = _difference(inner, made, wanted, lambda: compute(given))
        if difference.largest > difference.allowed and not difference.random:
            raise RunFailed(
                f"what was written computes something else ({part}, as {form.title}): on {len(fed)} "
                f"images it differs from the network by up to {difference.largest:.2g}, and rounding "
                f"explains {difference.allowed:.2g}",
                hint=f"it was not kept; try --format {' or '.join(k for k in FORMATS if k != kind)}",
            )
        written.replace(path)
    packages = ("cae-cli", "tensorflow", "keras", *form.packages)
    record = {
        "part": part,
        "format": kind,
        "network": network.name,
        "warning": network.warning,
        "input": takes,
        "output": makes,
        "difference": {**vars(difference), "relative": difference.relative},
        "packages": {name: version(name) for name in packages},
    }
    write_json(GuardedPath.of(path.with_name(f"{path.name}.json")), record)
    return Export(path, about, difference)


# --- what is exported ---


def _scale(network: Network, images: Array) -> Scale:
    """The values that the file takes: those of the training images; uint8, or float32 for all others."""
    if network.scale is None:
        return Scale(0, 255, "uint8") if images.dtype == np.uint8 else Scale(0, 1, "float32", False)
    dtype = "uint8" if network.scale.dtype == "uint8" else "float32"
    return Scale(network.scale.black, network.scale.white, dtype, network.scale.clip)


def _unscaled(images: Array, scale: Scale) -> Array:
    """Prepared images with the values and the type that files have."""
    if scale.dtype == images.dtype.name == "uint8" and (scale.black, scale.white) == (0, 255):
        return images
    values = as_float(images).astype(np.float64) * (scale.white - scale.black) + scale.black
    return (np.rint(values) if scale.dtype == "uint8" else values).astype(scale.dtype)


def _built(network: Network, part: str, scale: Scale, form: Format) -> tuple[Model, Model]:
    """A part of the network; and the same behind the preparation of its input, to be written."""
    import keras

    autoencoder = network.autoencoder
    if part == "decoder":
        decoder = autoencoder.decoder()
        code = decoder.inputs[1]
        inner = keras.Model(code, decoder.output)  # no skip connection uses the image
    else:
        inner = autoencoder.encoder() if part == "encoder" else autoencoder.model
    taken = {layer.name for layer in inner.layers}
    if part == "decoder":
        given = x = keras.Input(code.shape[1:], dtype=code.dtype, name=free_name("codes", taken))
    else:
        given = keras.Input(autoencoder.shape, dtype=scale.dtype, name=free_name("images", taken))
        x = _prepared(given, scale, taken)
    call = _call_resizing if form.resizes else plain_call
    return inner, keras.Model(given, replay(inner.inputs, inner.outputs[0], [x], call), name=part)


def _prepared(images: Any, scale: Scale, taken: set[str]) -> Any:
    """Images with the values of files, brought to [0, 1] by layers."""
    import keras

    width = scale.white - scale.black
    if (scale.black, scale.white) != (0, 1) or scale.dtype == "uint8":
        name = free_name("to_0_1", taken)
        images = keras.layers.Rescaling(1 / width, -scale.black / width, name=name)(images)
    if scale.clip and (scale.black, scale.white, scale.dtype) != (0, 255, "uint8"):
        images = keras.layers.ReLU(max_value=1, name=free_name("clip", taken))(images)
    return images


def _call_resizing(operation: Layer, *args: Any, **kwargs: Any) -> Any:
    """For `replay`: nearest upsampling as one operation.

    Keras repeats rows and columns. The converter for LiteRT loses their number, and cannot write two
    such layers in a row. The values are the same.
    """
    import keras

    if not is_a(operation, {"UpSampling2D"}) or operation.interpolation != "nearest":
        return operation(*args, **kwargs)
    [x] = args
    sides = (int(side) * factor for side, factor in zip(x.shape[1:3], operation.size, strict=True))
    policy = operation.dtype_policy
    return keras.layers.Resizing(*sides, "nearest", name=operation.name, dtype=policy)(x)


def _values(x: Any, scale: Scale | None) -> dict[str, Any]:
    """What an input or an output holds: codes without a scale, else images."""
    values = {"shape": list(x.shape), "dtype": x.dtype}
    if scale is None:
        return {"values": "codes", **values}
    return {"values": "images", **values, "black": scale.black, "white": scale.white}


def _in_words(values: Mapping[str, Any]) -> str:
    sizes = ", ".join(map(str, values["shape"][1:]))
    levels = [f", {name} {values[name]:g}" for name in ("black", "white") if name in values]
    return f"{values['values']} (n, {sizes}) {values['dtype']}{''.join(levels)}"


# --- writing and comparing ---


def _written(
    form: Format, inner: Model, model: Model, path: Path, about: Mapping[str, str]
) -> Callable[[Array], Any]:
    """Writes a model, and returns a function that runs what was written.

    Raises:
        UserError: the format cannot hold the model; it names the layers, if they are the reason.
    """
    try:
        return _through(form, model, path, about)
    except (OSError, UserError, MemoryError):
        raise
    except Exception as error:  # converters raise nearly any type
        steps = Graph(inner.inputs, inner.outputs).steps
        unknown = [step for step in steps if not _holds(form, step, path.with_name(f"one{form.suffix}"))]
        names = ", ".join(f"{x.operation.name} ({type(x.operation).__name__})" for x in unknown)
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"{form.title} cannot hold {names}"
            if 0 < len(unknown) < len(steps)
            else f"the network cannot be written as {form.title}: {printable(reason)[:300]}",
            where=f"command line: --format {next(k for k, f in FORMATS.items() if f is form)}",
            hint="use --format tf_saved_model, which holds every layer",
        ) from error


def _through(form: Format, model: Model, path: Path, about: Mapping[str, str]) -> Callable[[Array], Any]:
    with _undisturbed():
        form.write(model, path, about)
        return form.open(path, model)


def _holds(form: Format, step: Step, path: Path) -> bool:
    """Whether a format holds a layer: it is written alone."""
    import keras

    inputs = list({id(x): x for x in step.inputs}.values())
    fresh = [keras.Input(x.shape[1:], dtype=x.dtype) for x in inputs]
    alone = keras.Model(fresh, replay(inputs, step.outputs, fresh, plain_call))
    try:
        _through(form, alone, path, {})
    except Exception:
        return False
    return True


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """In the block converters warn nobody, and what they set in the environment is set back."""
    before = dict(os.environ)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _batches(count: int, most: int) -> Iterator[slice]:
    """One image, then as many as may pass at once: the file must take any number."""
    yield slice(0, 1)
    for start in range(1, count, most):
        yield slice(start, min(start + most, count))


def _difference(model: Model, made: Array, wanted: Array, again: Callable[[], Array]) -> Difference:
    """Compares what a file makes with what the network makes."""
    share = max(ROUNDING.get(getattr(x, "compute_dtype", ""), 1e-4) for x in model.layers)
    wanted = wanted.astype(np.float64)
    spread = float(wanted.std())
    allowed = share * (spread + float(np.abs(wanted).max()) / 16)
    largest = float(np.abs(made - wanted).max())
    largest = largest if np.isfinite(largest) else float(np.finfo(np.float32).max)
    random = largest > allowed and float(np.abs(again() - wanted).max()) > allowed
    return Difference(len(wanted), largest, spread, allowed, random)


# --- formats ---


def _write_onnx(model: Model, path: Path, about: Mapping[str, str]) -> None:
    import onnx

    model(model.inputs)  # Keras writes only models that were called
    model.export(path, format="onnx", verbose=False)
    written = onnx.load(path)
    onnx.helper.set_model_props(written, dict(about))
    [output] = written.graph.output
    name = "codes" if about.get("part") == "encoder" else "reconstructions"
    for node in written.graph.node:
        node.output[:] = [name if x == output.name else x for x in node.output]
        node.input[:] = [name if x == output.name else x for x in node.input]
    output.name = name
    for tensor in (*written.graph.input, output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(written, path)


def _open_onnx(path: Path, model: Model) -> Callable[[Array], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    return lambda x: session.run(None, {given.name: x})[0]


def _write_litert(model: Model, path: Path, about: Mapping[str, str]) -> None:
    import tensorflow as tf

    # Only operations that the interpreter has without TensorFlow.
    builtins = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    model.export(path, format="litert", verbose=False, target_spec=builtins)


def _open_litert(path: Path, model: Model) -> Callable[[Array], Any]:
    # That of TensorFlow 2.21 computes some networks wrong.
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()
    [given] = run.get_input_details()
    return lambda x: next(iter(run(**{given: x}).values()))


def _write_saved_model(model: Model, path: Path, about: Mapping[str, str]) -> None:
    model.export(path, format="tf_saved_model", verbose=False)


def _open_saved_model(path: Path, model: Model) -> Callable[[Array], Any]:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return lambda x: loaded.serve(x)


def _write_keras(model: Model, path: Path, about: Mapping[str, str]) -> None:
    model.save(path)


def _open_keras(path: Path, model: Model) -> Callable[[Array], Any]:
    import keras

    own = {type(x).__name__: type(x) for x in layers_inside(model) if not from_keras(type(x))}
    # The file is our own, and what code the model holds has been run.
    loaded = keras.models.load_model(path, own, compile=False, safe_mode=False)
    return lambda x: loaded(x, training=False)


ONNX = ("tf2onnx", "onnx", "onnxruntime")
FORMATS = {
    "onnx": Format("an ONNX file", ".onnx", ONNX, False, _write_onnx, _open_onnx),
    "litert": Format("a LiteRT file", ".tflite", ("ai_edge_litert",), True, _write_litert, _open_litert),
    "tf_saved_model": Format("a SavedModel", "", (), False, _write_saved_model, _open_saved_model),
    "keras": Format("a Keras file", ".keras", (), False, _write_keras, _open_keras),
}
