"""Saved models, opened without running code from the file."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

from cae_cli.anatomy.layers import Model
from cae_cli.errors import UserError, printable

# Layers whose files hold code, or name code to run.
UNSAFE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}


def load(path: str | Path, custom: str | Path | None = None) -> Model:
    """Opens a saved model without running code from the file.

    Args:
        path: a .keras, .h5 or .hdf5 file of a whole model.
        custom: a Python file of the user's own with the classes that the model needs. It is run.

    Returns:
        The Keras model, not compiled.

    Raises:
        UserError: no such file, not a whole model, damaged, with code inside, or a class is unknown.
    """
    import keras

    path = Path(path)
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise UserError(
            f"{printable(path.name)} is not a .keras, .h5 or .hdf5 file",
            where=path,
            hint="other formats can hold code; save the model with model.save('model.keras')",
        )
    if not path.is_file():
        raise UserError("there is no such file", where=path)
    for name in sorted(_class_names(_config(path)) & UNSAFE):
        kind = "Lambda" if name == "__lambda__" else name
        raise UserError(
            f"the model holds a {kind} layer, which would run code from the file",
            where=path,
            hint="write it as a class registered with keras.saving.register_keras_serializable, or "
            "with keras.ops, and save the model again",
        )
    objects = {} if custom is None else _classes(Path(custom))
    try:
        return keras.models.load_model(path, custom_objects=objects, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises nearly everything, by what is broken
        text = str(error)
        unknown = re.search(r"(?:Could not locate|Unknown) [\w ]+?:? '([^']+)'", text)
        if unknown:
            raise UserError(
                f"the model needs the class {printable(unknown[1])}, which Keras does not know",
                where=path,
                hint="--custom FILE names the Python file that defines it"
                if custom is None
                else f"{custom} does not define it",
            ) from error
        first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
        raise UserError(
            f"the model cannot be opened: {printable(first)[:300]}",
            where=path,
            hint="is the file whole, and saved by Keras 3 or TensorFlow's Keras?",
        ) from error


def _config(path: Path) -> Any:
    """The description of the network in a file, read as plain JSON."""
    import h5py

    damaged = UserError(
        "the file is damaged, or not what its name says",
        where=path,
        hint="copy it again, or save the model again with model.save('model.keras')",
    )
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
        if config is not None:
            return json.loads(config)
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise damaged from error
    raise UserError(
        "the file holds weights but no model",
        where=path,
        hint="save the whole model: model.save('model.keras'), not save_weights",
    )


def _class_names(config: Any) -> set[str]:
    """Every class that a description names, at any depth."""
    names, stack = set(), [config]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            names |= {
                str(part[k]).split(">")[-1] for k in ("class_name", "registered_name") if part.get(k)
            }
            stack += part.values()
        elif isinstance(part, list):
            stack += part
    return names


def _classes(path: Path) -> dict[str, Any]:
    """Runs a Python file; the classes and functions that it defines, by name."""
    if path.suffix != ".py" or not path.is_file():
        raise UserError("there is no such Python file", where=path, hint="--custom FILE.py")
    name = f"cae_custom_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"the file fails: {type(error).__name__}: {error}", where=path) from error
    return {
        k: v for k, v in vars(module).items() if getattr(v, "__module__", None) == name and callable(v)
    }
