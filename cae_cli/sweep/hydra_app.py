"""Calls Hydra's own main with a task, and chooses the folder that Hydra writes to."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from cae_cli.config import compose, hydra_internals
from cae_cli.errors import UserError, to_paste
from cae_cli.options import key_of
from cae_cli.sweep.job import Task
from cae_cli.system.files import claim, make


def call_hydra(
    task: Task,
    overrides: Sequence[str],
    sources: compose.Sources,
    *,
    flags: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> None:
    """Runs Hydra's main in this process.

    Args:
        task: called once for each job.
        overrides: of the command line.
        sources: where configs are read from, and whether they are trusted.
        flags: Hydra's own, such as ``--multirun``.
        extra: overrides that cae adds.

    Raises:
        UserError: what Hydra itself objects to.
    """
    folders = [word for folder in sources.folders for word in ("--config-dir", str(folder))]
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["cae", *folders, *flags, *overrides, *extra]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    main = hydra.main(
        version_base="1.3", config_path=str(compose.CONFIGS), config_name=sources.config_name
    )
    try:
        with compose.rephrased_errors(overrides, sources), hydra_internals.guarding(sources.trust):
            main(task)()
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def own_folder(node: DictConfig, overrides: Sequence[str], key: str) -> tuple[Path, bool]:
    """Makes the folder of a run or a sweep.

    Args:
        node: the composed config.
        overrides: of the command line.
        key: ``hydra.run.dir`` or ``hydra.sweep.dir``.

    Returns:
        The folder, and whether it is new.

    Raises:
        UserError: the value is not a folder, or the folder cannot be made.
    """
    with compose.rephrased_errors(overrides, compose.Sources()):
        name = OmegaConf.select(node, key)
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{key} must be a folder, got {name!r}", hint=f"leave out {key}")
    folder = Path(name)
    return (folder, make(folder)) if key in map(key_of, overrides) else (claim(folder).shown, True)


def check_empty(folder: Path, key: str) -> None:
    """Raises UserError if the folder of a new run holds anything."""
    if any(folder.iterdir()):
        raise UserError(
            f"{key} is not empty, and a run never overwrites another",
            where=folder,
            hint=f"leave out {key} for a new folder, or resume the run: "
            f"{to_paste('cae', 'resume', folder)}",
        )
