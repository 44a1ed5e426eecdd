"""Saved models, opened without running code from the file.

Keras stores weights uncompressed and without links out of the file. So a file that would unpack to more
than its size is refused before anything is unpacked, and the weights that a description requires are
compared with the stored ones before anything is allocated.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cae_cli.errors import UserError, printable
from cae_cli.introspection.channels import channels_last
from cae_cli.introspection.keras_internals import uncompiled, without_values
from cae_cli.introspection.layers import Model
from cae_cli.introspection.upgrade import OLD_LAYERS, parts, upgraded, with_layers
from cae_cli.system import memory

# Layers whose files hold code, or name code to run.
UNSAFE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}

# Modules of Keras with the parts of networks. Others have functions that load files and data.
PARTS = {
    *("activations", "constraints", "dtype_policies", "initializers", "layers", "losses", "metrics"),
    *("models", "ops", "optimizers", "quantizers", "random", "regularizers", "src"),
}
OPERATIONS = {"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer", "ClassMethod"}  # of Keras 2
MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}  # of a .keras file, apart from assets/
LARGEST_CONFIG = 2**25  # bytes
AGAIN = "If you trust it, open it with Keras and save it again with model.save('model.keras')."
DEEPEST_CONFIG = 200  # nested brackets; a network within a network takes three


def load(path: str | Path, custom: str | Path | None = None, *, unsafe: bool = False) -> Model:
    """Opens a saved model without running code from the file.

    Args:
        path: a .keras, .h5 or .hdf5 file of a whole model, whichever of them its name says; or a .json
            file of its layers, beside one with its weights.
        custom: a Python file with the classes that the model needs. It is run.
        unsafe: run code in the file.

    Returns:
        The Keras model, not compiled.

    Raises:
        UserError: the file does not exist, is no whole model, is damaged, contains code, needs an
            unknown class, or is too large.
    """
    import keras

    path = Path(path)
    if path.suffix.lower() == ".json" and path.is_file():
        with _joined(path) as whole:
            try:
                return load(whole, custom, unsafe=unsafe)
            except UserError as error:
                error.where = str(path)
                raise
    if path.suffix.lower() not in (".keras", ".h5", ".hdf5"):
        raise UserError(
            f"{printable(path.name)} is not a .keras, .h5 or .hdf5 file",
            where=path,
            hint="Other formats can hold code. Save the model with model.save('model.keras').",
        )
    if not path.is_file():
        raise UserError("there is no such file", where=path)
    stored = _checked(path)
    config = channels_last(_upgraded(stored, path))
    _refuse_names(config, path)
    if not unsafe:
        _refuse_code(config, path)
    objects = {} if custom is None else _classes(Path(custom))
    if not unsafe:
        _refuse_foreign(config, {*objects, *keras.saving.get_custom_objects()}, path, custom)
    as_it_is = config == stored and path.suffix in (".keras", ".h5", ".hdf5") and _named_right(path)
    with contextlib.nullcontext(path) if as_it_is else _described(path, config) as file:
        if not unsafe:
            with without_values():  # variables with shapes but no values take no memory
                _opened(file, path, objects, custom, safe_mode=True)
        return _opened(file, path, objects, custom, safe_mode=not unsafe)


def check_size(size: int, where: object) -> None:
    """Checks that a model file is not too large for the free memory.

    Args:
        size: of the file, bytes.
        where: the file, for messages.

    Raises:
        UserError: it is.
    """
    # Keras reads the file into memory and then creates the weights.
    memory.check(2 * size, "the model", where, "a machine with more memory")


def compile_config(path: Path) -> dict[str, Any]:
    """How a saved model was compiled, as plain JSON that nothing was made of; {} where it does not say.

    Args:
        path: of a file that `load` accepts.
    """
    if path.suffix.lower() == ".json":
        return {}
    config = _checked(path).get("compile_config")
    if not _is_keras(path):
        import h5py

        with h5py.File(path, "r") as file:
            text = file.attrs.get("training_config")
            config = None if text is None else _parsed(text, path)
    return _upgraded(config, path) if isinstance(config, dict) else {}


def _upgraded(config: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        return upgraded(config)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:  # arbitrary JSON
        raise UserError(
            "the description of the network is damaged",
            where=path,
            hint="Copy the file again, or save the model again with model.save('model.keras').",
        ) from error


def _is_keras(path: Path) -> bool:
    """Whether a file is a .keras archive, whatever its name; by its name if it is neither."""
    import h5py

    return zipfile.is_zipfile(path) or (path.suffix.lower() == ".keras" and not h5py.is_hdf5(path))


def _named_right(path: Path) -> bool:
    return _is_keras(path) == (path.suffix == ".keras")


@contextlib.contextmanager
def _joined(path: Path) -> Iterator[Path]:
    """A file of the layers in a .json file and the weights beside it, for the time of the block.

    Raises:
        UserError: there is not exactly one file that may have the weights.
    """
    import h5py

    names = [f"{path.stem}{end}" for end in (".weights.h5", ".h5", "_weights.h5", ".hdf5")]
    beside = [path.with_name(name) for name in names]
    found = [other for other in beside if other.is_file()] or sorted(path.parent.glob("*.h5"))
    if len(found) != 1 or not h5py.is_hdf5(found[0]):
        raise UserError(
            f"{printable(path.name)} has the layers of the model and no weights",
            where=path,
            hint=f"Put the weights beside it as {path.stem}.weights.h5, or save both with "
            "model.save('model.keras').",
        )
    with path.open("rb") as file:
        text = file.read(LARGEST_CONFIG + 1)  # longer ones are refused
    try:
        config = {"module": "keras", "registered_name": None, **_parsed(text, path)}
    except ValueError as error:
        raise UserError("the file is no description of a network", where=path, hint=AGAIN) from error
    with tempfile.TemporaryDirectory(prefix="cae_model_") as folder, h5py.File(found[0], "r") as weights:
        whole = Path(folder) / "model.keras"
        if "layers" in weights or OLD_LAYERS in weights:  # as save_weights of Keras 3 writes them
            with zipfile.ZipFile(whole, "w") as archive:
                archive.writestr("metadata.json", "{}")
                archive.writestr("config.json", json.dumps(config))
                archive.write(found[0], "model.weights.h5")
        else:
            whole = whole.with_suffix(".h5")
            with h5py.File(whole, "w") as joined:
                joined.attrs["model_config"] = json.dumps(config)
                weights.copy(weights["/"], joined, "model_weights")
        yield whole


@contextlib.contextmanager
def _described(path: Path, config: Mapping[str, Any]) -> Iterator[Path]:
    """A copy of a model file with another description of the network, for the time of the block."""
    import h5py

    with tempfile.TemporaryDirectory(prefix="cae_model_") as folder:
        copied = Path(folder) / ("model.keras" if _is_keras(path) else "model.h5")
        if _is_keras(path):
            with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copied, "w") as other:
                for name in archive.namelist():
                    content = archive.read(name)
                    if name == "config.json":
                        content = json.dumps(config).encode()
                    elif name == "model.weights.h5":
                        weights = io.BytesIO(content)
                        with h5py.File(weights, "r+") as file:
                            with_layers(file)
                        content = weights.getvalue()
                    other.writestr(name, content)
        else:
            shutil.copyfile(path, copied)
            with h5py.File(copied, "r+") as file:
                file.attrs["model_config"] = json.dumps(config)
        yield copied


def _opened(
    file: Path, path: Path, objects: Mapping[str, Any], custom: Any, *, safe_mode: bool
) -> Model:
    """The model in ``file``, which has the content of ``path`` in the words of this version of Keras."""
    import keras

    try:
        with uncompiled():
            return keras.models.load_model(
                file, custom_objects=objects, compile=False, safe_mode=safe_mode
            )
    except Exception as error:  # Keras raises nearly any type, depending on the damage
        text = str(error)
        unknown = re.search(r"(?:Could not locate|Unknown) [\w ]+?:? '([^']+)'", text)
        if unknown:
            raise _unknown(unknown[1], path, custom) from error
        # Around the reason, Keras prints the description of every network and layer that contains it.
        reason = text.rpartition("Exception encountered:")[2].strip() or type(error).__name__
        raise UserError(
            f"the model cannot be opened: {printable(reason.splitlines()[0])[:300]}",
            where=path,
            hint="Was the file copied completely, and saved by Keras 3 or TensorFlow's Keras?",
        ) from error


def _unknown(name: str, path: Path, custom: Any) -> UserError:
    if name in OPERATIONS:
        return UserError(
            "the model calls functions of TensorFlow between its layers, which only Keras 2 opens",
            where=path,
            hint="Build it in code with layers or keras.ops instead, and save it with its weights.",
        )
    return UserError(
        f"the model needs the class {printable(name)[:80]}, which Keras does not know",
        where=path,
        hint="Name the Python file that defines it with --custom FILE."
        if custom is None
        else f"{custom} does not define it",
    )


# --- what is in a file -------------------------------------------------------------------------------


def _checked(path: Path) -> Any:
    """The description of the network, read as plain JSON, after a check of the weights."""
    import h5py

    size = path.stat().st_size
    check_size(size, path)
    try:
        if _is_keras(path):
            with zipfile.ZipFile(path) as archive:
                _check_members(archive, size, path)
                config = _parsed(archive.read("config.json"), path)
                if "model.weights.h5" in archive.namelist():  # else Keras reports it
                    weights = io.BytesIO(archive.read("model.weights.h5"))
                    with h5py.File(weights, "r") as file:
                        _check_weights(file, path)
            return config
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            if text is not None:
                _check_weights(file, path)
                return _parsed(text, path)
    except UserError:
        raise
    except Exception as error:  # zipfile and h5py on arbitrary bytes
        raise UserError(
            "the file is damaged, or not of the type of its suffix",
            where=path,
            hint="Copy it again, or save the model again with model.save('model.keras').",
        ) from error
    raise UserError(
        "the file holds weights but no model",
        where=path,
        hint="Save the whole model with model.save('model.keras'), not save_weights.",
    )


def _check_members(archive: zipfile.ZipFile, size: int, path: Path) -> None:
    """Checks that the members of a .keras file are as Keras writes them."""
    members = archive.infolist()
    problem = None
    if len({member.filename for member in members}) < len(members):
        problem = "holds a part twice"
    elif sum(member.file_size for member in members) > size:
        problem = "holds less data than it declares"
    for member in members:
        parts = PurePosixPath(member.filename).parts
        name = printable(member.filename)[:80]
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            problem = f"is compressed or encrypted: {name}"
        elif (
            (member.filename not in MEMBERS and parts[:1] != ("assets",))
            or ".." in parts
            or stat.S_ISLNK(member.external_attr >> 16)
        ):
            problem = f"holds a member that no Keras model has: {name}"
    if problem:
        raise UserError(f"the file {problem}", where=path, hint=AGAIN)


def _check_weights(file: Any, path: Path) -> None:
    """Checks all groups of an HDF5 file, without recursion: a group may contain itself."""
    import h5py

    groups, visited = [file], set()
    while groups:
        group = groups.pop()
        for name in group:
            problem = None
            link = group.get(name, getlink=True)
            member = group[name] if isinstance(link, h5py.HardLink) else None
            if member is None:
                problem = "are links out of the file"
            elif isinstance(member, h5py.Group):
                address = h5py.h5o.get_info(member.id).addr
                if address not in visited:
                    visited.add(address)
                    groups.append(member)
            elif isinstance(member, h5py.Dataset):
                if member.external or member.is_virtual:
                    problem = "are links out of the file"
                elif member.dtype.hasobject:
                    problem = "are not numbers"
                elif member.id.get_storage_size() < member.nbytes:
                    problem = "are compressed: the file holds fewer bytes than they declare"
            if problem:
                what = f"the weights {problem}, in {printable(name)[:80]}"
                raise UserError(what, where=path, hint=AGAIN)


def _parsed(text: str | bytes, path: Path) -> Any:
    """The description from its JSON, if it is neither too large nor too deep."""
    too_much = UserError(
        "the description of the network is too large",
        where=path,
        hint=f"At most {memory.amount(LARGEST_CONFIG)} and {DEEPEST_CONFIG} nested brackets are read.",
    )
    if len(text) > LARGEST_CONFIG:
        raise too_much
    try:
        config = json.loads(text)
    except RecursionError as error:
        raise too_much from error
    if not isinstance(config, dict):
        raise ValueError("a description is a dictionary")
    if any(depth > DEEPEST_CONFIG for _, depth in parts(config)):
        raise too_much
    return config


# --- what a description names ------------------------------------------------------------------------


def _network(config: dict[str, Any]) -> dict[str, Any]:
    """A description without the compile options, which may name anything and are not opened."""
    return {key: value for key, value in config.items() if key != "compile_config"}


def _refuse_names(config: Any, path: Path) -> None:
    """Refuses layer names that TensorFlow cannot use; they also become file names."""
    for part, _ in parts(_network(config)):
        options = part.get("config")
        name = options.get("name") if "class_name" in part and isinstance(options, dict) else None
        if isinstance(name, str) and (
            not re.fullmatch(r"[A-Za-z0-9_.>-]*", name) or (name and not name.strip("."))
        ):
            raise UserError(
                f"the layer {printable(name)[:80]} has a name that TensorFlow cannot use",
                where=path,
                hint="Rename it, with letters, digits, _, - and . only, and save the model again.",
            )


def _refuse_code(config: Any, path: Path) -> None:
    """Refuses layers that hold code, at any depth and under any name that Keras has for them."""
    named = {
        re.split("[>.]", str(part[key]))[-1]
        for part, _ in parts(config)
        for key in ("class_name", "registered_name", "config")
        if part.get(key) and not isinstance(part[key], dict)
    }
    for name in sorted(named & UNSAFE):
        kind = "Lambda" if name == "__lambda__" else name
        raise UserError(
            f"the model holds a {kind} layer, which would run code from the file",
            where=path,
            hint="Replace it with a class registered with keras.saving.register_keras_serializable, or "
            "with keras.ops, and save the model again. --unsafe runs the code.",
        )


def _refuse_foreign(config: Any, known: set[str], path: Path, custom: Any) -> None:
    """Refuses names outside of Keras that are not ``known``, and those of its tools."""
    for part, _ in parts(_network(config)):
        module = part.get("module")
        name = part.get("config") if part.get("class_name") == "function" else part.get("class_name")
        if module is None or name is None:
            continue
        if module == "builtins" and part.get("class_name") == "function":
            continue  # a name that Keras looks up among its own functions
        if str(name) in OPERATIONS:
            raise _unknown(str(name), path, custom)
        package, *below = f"{module}.{name}".split(".")
        if package != "keras":
            if not {str(name), str(part.get("registered_name"))} & known:
                raise _unknown(str(name), path, custom)
        elif len(below) > 1 and below[0] not in PARTS:
            raise UserError(
                f"the model names {printable(f'{module}.{name}')[:80]}, which is no part of a network",
                where=path,
                hint="Use only files from a source that you trust.",
            )


def _classes(path: Path) -> dict[str, Any]:
    """Runs a Python file; the classes and functions that it defines, by name."""
    if path.suffix != ".py" or not path.is_file():
        raise UserError("there is no such Python file", where=path, hint="Use --custom FILE.py.")
    name = f"cae_custom_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"the file fails: {type(error).__name__}: {error}", where=path) from error
    return {
        k: v for k, v in vars(module).items() if getattr(v, "__module__", None) == name and callable(v)
    }
