"""Opens a run that a person names: finds it, and turns damaged files into an error that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cae_cli.errors import UserError
from cae_cli.runs import registry
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import foreign, read_any_version
from cae_cli.system.files import writing


def open_run(name: str, root: Path | None = None, *, trained: bool = False) -> Run:
    """The run of a name.

    Args:
        name: a folder or anything else that `registry.find` understands.
        root: the folder with the runs; None for runs/.
        trained: as for `registry.find`.

    Raises:
        UserError: there is no such run, or its folder holds none.
    """
    run = registry.find(name, root, trained=trained)
    if not run.folder.is_dir():
        raise UserError("no such folder", where=run.folder, hint="cae runs ls")
    if not run.is_set_up():
        raise UserError("run.json is missing", where=run.folder, hint="is this the folder of a run?")
    return run


def open_trained(name: str, root: Path | None, hint: str) -> Run:
    """The run of a name, whose run.json has what is needed to train it again or to resume it.

    Args:
        name: as for `open_run`; ``last`` is the last run of ``cae train``.
        root: as for `open_run`.
        hint: of the error for a run that cae did not train.

    Raises:
        UserError: as for `open_run`; cae did not train the run; or run.json is damaged.
    """
    run = open_run(name, root, trained=True)
    check_trained(run, hint)
    return run


def check_trained(run: Run, hint: str) -> None:
    """Checks that run.json has what is needed to train the run again or to resume it.

    Raises:
        UserError: cae did not train the run, with the given hint; or run.json is damaged.
    """
    setup = read_any_version(run.setup_file)
    command, config = setup.get("command"), setup.get("config")
    if command in ([], None):
        raise UserError(
            "cae did not train this model, so it cannot train it again", where=run.folder, hint=hint
        )
    words = command if isinstance(command, list) else [None]
    if not (isinstance(config, dict) and all(isinstance(word, str) for word in words)):
        raise foreign(run.setup_file)


@contextmanager
def reading(run: Run) -> Iterator[None]:
    """In the block, errors that only damaged or contradicting files can cause become a UserError."""
    with writing(run.folder):
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise UserError(
                f"the files of the run contradict each other: {error}",
                where=run.folder,
                hint=f"the status of the run is {run.status().get('status', 'unknown')}",
            ) from error
