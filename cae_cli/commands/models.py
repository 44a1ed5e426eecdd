"""Model files on the command line, for ``cae diagnose MODEL`` and ``cae treat MODEL``."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cae_cli.commands import arguments
from cae_cli.config import compose
from cae_cli.config.schema import Config
from cae_cli.errors import UserError
from cae_cli.options import key_of
from cae_cli.report import terminal
from cae_cli.runs.folder import Run
from cae_cli.sweep.job import unforeseen
from cae_cli.system.files import claim

if TYPE_CHECKING:
    from cae_cli.data import Images
    from cae_cli.experiment import Outcome
    from cae_cli.external.model import FileOptions

    Work = Callable[[Path, Images, FileOptions, Run, Mapping[str, Any]], Outcome]

MODELS = (".keras", ".h5", ".hdf5", ".json")
JUDGE = "cae_cli.judge(encode=f, decode=g, images=x) diagnoses two functions that compute the model"
KERAS_2 = (
    'pip install tf_keras; TF_USE_LEGACY_KERAS=1 python -c "import tf_keras; '
    "tf_keras.models.load_model('{name}').save('model.h5')\""
)
# Models that are no file of Keras: what they are, and the way that works.
OTHERS = {
    ".tflite": ("a model for TensorFlow Lite, which has no layers of Keras", JUDGE),
    ".onnx": ("a model of ONNX, which has no layers of Keras", JUDGE),
    ".pt": ("a model of PyTorch", JUDGE),
    ".pth": ("a model of PyTorch", JUDGE),
    ".pb": ("a part of a SavedModel", "save the whole folder again: " + KERAS_2),
    ".index": ("a checkpoint, which has weights and no layers", "model.load_weights(…), then "
               "model.save('model.keras')"),
    ".ckpt": ("a checkpoint, which has weights and no layers", "model.load_weights(…), then "
              "model.save('model.keras')"),
}  # fmt: skip
HELP = """\
  --latent LAYER          the layer whose output is the latent code, if it is
                          not detected
  --custom FILE           a Python file with the model's own layer classes,
                          which is executed
  --unsafe                also open a file that contains code (Lambda layers),
                          executing it with all your permissions
  --range=LOW,HIGH        the range of pixel values that the model was trained
                          on; the default is 0,1. HIGH,LOW of inverted images.
                          Two more numbers are the range of its output, where
                          that is another one: 0,255,0,1
"""


def is_model(path: Path) -> bool:
    """Whether a path names a model file rather than a run."""
    if path.is_dir():
        return (path / "saved_model.pb").exists()
    return path.suffix.lower() in (*MODELS, *OTHERS)


def check_file(path: Path) -> None:
    """Raises UserError unless it is a file of Keras, with the way that works for others."""
    if path.is_dir():
        hint = "save it again as a file: " + KERAS_2.format(name=path.name)
        raise UserError("a SavedModel is a graph without layers", where=path, hint=hint)
    if path.is_file() and path.suffix.lower() in OTHERS:
        what, hint = OTHERS[path.suffix.lower()]
        raise UserError(f"this is {what}", where=path, hint=hint.format(name=path.parent.name))
    if not path.is_file():
        raise UserError("no such file", where=path, hint="use a .keras or .h5 file saved by Keras")


def work_on(
    path: Path,
    overrides: Sequence[str],
    flags: argparse.Namespace,
    command: str,
    parent: Path,
    work: Work,
) -> tuple[Run, Outcome]:
    """Works on a model file in a new run folder, which does not stay if the user is in error.

    Args:
        path: of the file.
        overrides: of the config; ``data=…`` is needed.
        flags: of the command line.
        command: for messages.
        parent: of the folder.
        work: gets the file, the images, how to open it, the folder, and the options of rules.

    Raises:
        UserError: there is no such file, there are no images, or ``work`` raised it.
    """
    from cae_cli import data, experiment
    from cae_cli.external import model
    from cae_cli.training import backend

    check_file(path)
    if not any(key_of(word) == "data" for word in overrides):
        raise UserError(
            f"images are needed to {command.rpartition(' ')[2]} a model",
            where=f"command line: {command}",
            hint="data=npz data.path=x.npz, or data=image_folder data.path=photos data.image_size=64",
        )
    config = options(overrides, trusted=True, trust_configs=flags.trust_configs)
    screen = terminal.Screen()
    with backend.quiet(None), screen.doing("reading images …"):
        images = data.load(config.data)
    for note in images.notes:
        if note.startswith("!"):  # others speak of a training
            screen.say(f"  {note}")
    if few := experiment.too_few(config.data, model.all_measured(images)):
        screen.say(f"! {few}")
    span, given = flags.range or ((0.0, 1.0), None)
    opening = model.FileOptions(flags.latent, flags.custom, span, flags.unsafe, given)
    return in_new_folder(parent, lambda run: work(path, images, opening, run, rules(overrides)))


def in_new_folder(parent: Path, work: Callable[[Run], Outcome]) -> tuple[Run, Outcome]:
    """Works in a new run folder, which does not stay if the user is in error.

    Raises:
        UserError: ``work`` raised it.
        RunFailed: it raised anything else.
    """
    run = Run(claim(parent))
    try:
        return run, work(run)
    except UserError:
        shutil.rmtree(run.folder, ignore_errors=True)  # it is new, and holds nothing of value
        raise
    except Exception as error:
        raise unforeseen(error, run) from error


def options(overrides: Sequence[str], *, trusted: bool, trust_configs: bool = False) -> Config:
    """The checked config of overrides; those from the files of a run are not trusted."""
    flags = arguments.parse("cae train", list(overrides), trusted=trusted)
    flags.trust_configs = trust_configs
    return compose.checked(flags.overrides, arguments.sources(flags))[1]


def rules(overrides: Sequence[str]) -> dict[str, Any]:
    """The checked options of single rules."""
    if not overrides:
        return {}
    checked = options(overrides, trusted=True)
    return {code: asdict(rule) for code, rule in checked.rules.items()}
