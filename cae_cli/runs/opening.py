"""Opens a run that a person names: finds it, and turns damaged files into an error that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cae_cli.errors import UserError
from cae_cli.runs import registry
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import read_any_version
from cae_cli.system.files import writing


def open_run(name: str, root: Path | None = None) -> Run:
    """The run of a name.

    Args:
        name: a folder or anything else that `registry.find` understands.
        root: the folder with the runs; None for runs/.

    Raises:
        UserError: there is no such run, or its folder holds none.
    """
    run = registry.find(name, root)
    if not run.folder.is_dir():
        raise UserError("no such folder", where=run.folder, hint="cae runs ls")
    if not run.is_set_up():
        raise UserError("run.json is missing", where=run.folder, hint="is this the folder of a run?")
    return run


def check_trained(run: Run, hint: str) -> None:
    """Raises UserError with a hint if cae did not train the run, so that it cannot train it again."""
    setup = read_any_version(run.setup_file)
    if not setup.get("command") or not isinstance(setup.get("config"), dict):
        raise UserError(
            "cae did not train this model, so it cannot train it again", where=run.folder, hint=hint
        )


@contextmanager
def reading(run: Run) -> Iterator[None]:
    """In the block, errors that only damaged or contradicting files can cause become a UserError."""
    with writing(run.folder):
        try:
            yield
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"the files of the run contradict each other: {error}",
                where=run.folder,
                hint=f"the status of the run is {run.status().get('status', 'unknown')}",
            ) from error
