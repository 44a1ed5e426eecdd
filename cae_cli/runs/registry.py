"""Finds runs in plain files: in the order in which they began, or by a name.

There is no database. Every call lists the folders, and the files of a run are read when they are needed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from cae_cli.errors import UserError, counted, nearest, to_paste
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import read_json
from cae_cli.runs.reader import STAMP, Entry, exists, is_run, is_sweep, short_name
from cae_cli.runs.sweep_folder import SweepFolder
from cae_cli.system.files import at_work, is_in_use, typed
from cae_cli.system.guarded import GuardedPath

ROOT = Path("runs")
DEEPEST = 12  # levels of folders below the root
SHOWN = 6  # candidates in an error

REMOVING = ".removing-"  # prefix of a folder that is being removed


class Registry:
    """The runs below a folder.

    Args:
        root: the folder; None for runs/ in the current folder, which need not exist.

    Raises:
        UserError: no such folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        if root is not None and not typed(root).is_dir():
            raise UserError("no such folder", where=root, hint="--runs DIR: a folder with runs below it")
        self.root = ROOT if root is None else typed(root)

    @cached_property
    def _folders(self) -> list[Entry]:
        return [Entry(folder, self.root) for folder in runs_in(GuardedPath(self.root))]

    @cached_property
    def entries(self) -> list[Entry]:
        """All runs, oldest first, with their numbers."""
        entries = sorted(self._folders, key=lambda e: (e.begun, e.name))
        for number, entry in enumerate(entries, 1):
            entry.number = number
        return entries

    @property
    def sweeps(self) -> dict[Path, list[Entry]]:
        """The folders of sweeps and their jobs."""
        sweeps: dict[Path, list[Entry]] = {}
        for entry in self.entries:
            if is_sweep(entry.folder.parent):
                sweeps.setdefault(entry.folder.parent, []).append(entry)
        return sweeps

    def find(self, word: str, *, trained: bool = False) -> Run:
        """The run that an argument names: a folder, then a name or number, then the beginning of a name.

        Args:
            word: a path; an id or its beginning; a number of `entries`; ``last``, ``last-1``.
            trained: ``last`` skips runs that ``cae train`` did not train, such as those of the callback.

        Raises:
            UserError: there is none, or more than one.
        """
        path = typed(word)
        if word and is_run(path):
            return Run(path)
        matches = self._matches(word, trained=trained)
        if len(matches) == 1:
            return matches[0].run
        if matches:
            raise self._ambiguous(word, matches)
        if word and _is_folder(path):
            jobs = sum(1 for _ in runs_in(GuardedPath(path)))
            if jobs:
                count = counted(jobs, "run")
                raise UserError(
                    f"the folder holds {count} and is not a run itself",
                    where=path,
                    hint=f"name one of them: {to_paste('cae', 'runs', 'ls', '--runs', path)}",
                )
            return Run(path)  # its reader reports what is missing
        raise self._unknown(word)

    def entry(self, run: Run) -> Entry:
        """The entry of a run; its number is 0 if it is not below the root."""
        real = run.folder.resolve()
        for entry in self.entries:
            if entry.folder.name == real.name and entry.folder.resolve() == real:
                return entry
        folder = run.folder if run.folder.name not in ("", "..") else real
        return Entry(folder, folder.parent)

    def find_sweep(self, word: str) -> Path | None:
        """The folder of the sweep that an argument names in full, or None."""
        path = typed(word)
        if word and _is_folder(path) and not is_run(path) and any(runs_in(GuardedPath(path))):
            return path
        matches = [f for f in self.sweeps if word in (f.name, short_name(f))]
        return matches[0] if len(matches) == 1 else None

    def jobs(self, sweep: Path) -> list[Entry]:
        """The runs of a sweep's folder, in the order of sweep.json where there is one."""
        real = sweep.resolve()
        jobs = [e for e in self.entries if e.folder.parent.resolve() == real]
        jobs = jobs or [Entry(folder, sweep) for folder in runs_in(GuardedPath(sweep))]
        folder = SweepFolder(sweep)
        if folder.is_written():
            order = {job.folder: i for i, job in enumerate(folder.read().jobs)}
            jobs.sort(key=lambda e: order.get(e.folder.name, len(order)))
        return jobs

    def _matches(self, word: str, *, trained: bool) -> list[Entry]:
        last = re.fullmatch(r"last(?:-(\d{1,9}))?", word)
        if last:
            back = int(last[1] or 0)
            entries = [e for e in self.entries if not (trained and e.from_elsewhere)]
            if back >= len(entries):
                of = " of cae train" if trained else ""
                raise UserError(
                    f"{word}: {_how_many(len(entries))}{of}", where=self.root, hint="cae runs ls"
                )
            return [entries[-1 - back]]
        if not word.strip("./"):
            return []
        exact = [entry for entry in self._folders if word in entry.names]
        if re.fullmatch(r"[1-9][0-9]{0,8}", word) and int(word) <= len(self.entries):
            numbered = self.entries[int(word) - 1]
            exact += [numbered] * (numbered not in exact)
        return exact or [e for e in self._folders if any(n.startswith(word) for n in e.names)]

    def _ambiguous(self, word: str, matches: Sequence[Entry]) -> UserError:
        numbered = {id(entry): entry for entry in self.entries}  # numbers are given
        newest = sorted(matches, key=lambda e: -numbered[id(e)].number)
        names = [f"{e.id} (number {e.number})" for e in newest[:SHOWN]]
        more = f" and {len(matches) - SHOWN} more" if len(matches) > SHOWN else ""
        return UserError(
            f"{word!r} may be one of {len(matches)} runs",
            where=self.root,
            hint=f"name one of {', '.join(names)}{more}",
        )

    def _unknown(self, word: str) -> UserError:
        if word and _is_file(typed(word)):
            return UserError(
                "this file is neither a run nor a model of Keras",
                where=word,
                hint="a run is a folder; a model is a file that ends in .keras or .h5",
            )
        names = {name for entry in self._folders for name in entry.names}
        close = nearest(word, names | ({"last"} if names else set()))
        hint = f"{_how_many(len(self._folders))} below {self.root}" + (
            ": cae runs ls" if self._folders else ""
        )
        return UserError(
            f"no such folder, and no run is called {word!r}",
            where=self.root,
            hint=f"did you mean {close}?" if close else hint,
        )


def _how_many(count: int) -> str:
    return f"there {'is' if count == 1 else 'are'} {count or 'no'} run{'' if count == 1 else 's'}"


def find(word: str, root: Path | None = None, *, trained: bool = False) -> Run:
    """The run that an argument of the command line names; see `Registry.find`.

    Args:
        word: a path, an id or its beginning, a number, ``last``.
        root: see `Registry`.
        trained: see `Registry.find`.

    Raises:
        UserError: there is none, or more than one.
    """
    path = typed(word)
    is_plain = word and root is None and is_run(path)
    return Run(path) if is_plain else Registry(root).find(word, trained=trained)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates arguments that name runs from overrides.

    The folder of a job has overrides in its name. An existing path therefore names a run, and so does an
    id like ``k3fa/loss=mse`` as the first argument.
    """
    runs = []
    for i, word in enumerate(words):
        before, equals, _ = word.partition("=")
        is_id = i == 0 and "/" in before and not re.match(r"[+~]*/?hydra/", before)
        is_plain = not equals and not word.startswith("~")  # ~key deletes a key
        if is_plain or is_id or exists(typed(word)):
            runs.append(word)
    return runs, [word for word in words if word not in runs]


def split_one(
    words: Sequence[str], command: str, hint: str, what: str = "one run"
) -> tuple[str, list[str]]:
    """`split` for a command that takes one run: its name, and the overrides.

    Raises:
        UserError: no run is named, or several; ``what`` says what is needed.
    """
    runs, overrides = split(words)
    if len(runs) != 1:
        raise UserError(f"expected {what}, got {len(runs)}", where=f"command line: {command}", hint=hint)
    return runs[0], overrides


def flat(tree: Any, key: str = "") -> dict[str, Any]:
    """The values of a config by their dotted paths; lists are values."""
    if not isinstance(tree, Mapping):
        return {key: tree}
    leaves: dict[str, Any] = {}
    for name, inner in tree.items():
        leaves |= flat(inner, f"{key}.{name}" if key else str(name))
    return leaves


def remove(folder: Path) -> None:
    """Removes the folder of a run, or of a sweep with all its jobs.

    The folder is renamed first, so that half a run is never found. Links are removed, not their
    targets.

    Args:
        folder: one that `check_removable` accepts.

    Raises:
        UserError: a process has started to use it meanwhile, or it cannot be removed.
    """
    with at_work(GuardedPath(folder)):
        path = folder.resolve()
        leaving = path.with_name(f"{REMOVING}{path.name}")
        try:
            shutil.rmtree(leaving, ignore_errors=True)  # left by an interrupted removal
            path.rename(leaving)
            shutil.rmtree(leaving)
        except OSError as error:
            raise UserError(
                f"cannot be removed: {(error.strerror or str(error)).lower()}",
                where=error.filename or folder,
            ) from error


def check_removable(folder: Path, *, sweep: bool = False, force: bool = False) -> None:
    """Checks that a folder can be removed safely.

    Args:
        folder: of a run, or of a sweep.
        sweep: whether it must be that of a sweep.
        force: runs that may be in progress on another machine, which cannot be known, may be removed.

    Raises:
        UserError: it is a link, not a folder of cae, the current folder, or in use.
    """
    if folder.is_symlink():
        raise UserError(
            "a link is not followed to remove its target", where=folder, hint=to_paste("rm", folder)
        )
    root = GuardedPath(folder)
    for _ in root.walk():
        pass  # finds what cannot be listed or is too deep, before the folder is renamed
    runs = list(runs_in(root)) if sweep else [root]
    for run in runs:
        if not _is_ours(run):
            raise UserError("not the folder of a run of cae", where=run, hint="only runs are removed")
    if sweep and not is_sweep(folder):
        raise UserError(
            f"not the folder of a sweep, though it holds {counted(len(runs), 'run')}",
            where=folder,
            hint="name the runs",
        )
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UserError("the current folder is inside", where=folder, hint="cd elsewhere first")
    controls = [run / "frozen_encoder" for run in runs]
    inner = [path for control in controls if control.is_folder() for path in control.children()]
    for held in [root, *runs, *inner]:
        if held.is_folder() and is_in_use(held):
            raise UserError("in use by a process", where=held, hint="wait until it has ended")
    for run in runs:
        if Entry(run).status == "running":
            Run(run).check_idle(force=force)


# -- folders ---------------------------------------------------------------------------------------


def runs_in(folder: GuardedPath, depth: int = 0) -> Iterator[GuardedPath]:
    """The folders of runs at or below a folder, but not inside a run.

    Links below the root are not followed, so that each run is found once.
    """
    if is_run(folder):
        yield folder
        return
    try:
        with os.scandir(folder.shown) as children:
            inner = [e.name for e in children if e.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in sorted(inner):
        if not name.startswith(".") and depth < DEEPEST:
            yield from runs_in(folder / name, depth + 1)


def _is_ours(folder: GuardedPath) -> bool:
    """Whether cae wrote the files of a run, or at least the name of its folder."""
    run = Run(folder)
    for path in (run.setup_file, run.status_file):
        try:
            if isinstance(read_json(path).get("schema"), int):
                return True
        except UserError:
            continue
    return is_run(folder) and bool(STAMP.fullmatch(folder.name))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
