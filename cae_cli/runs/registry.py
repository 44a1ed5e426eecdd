"""The runs there are: found in plain files, listed in the order in which they began, named by a word.

There is no database. Every call looks at the folders; the files of a run are read when they are asked
for, and one that cannot be read is a problem of that run and of no other.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from cae_cli.errors import UserError, nearest
from cae_cli.runs.folder import Run, read_json
from cae_cli.runs.reader import STAMP, Entry, exists, is_run, is_sweep, short_name
from cae_cli.runs.sweep_folder import SweepFolder
from cae_cli.system.files import at_work, is_in_use, typed

ROOT = Path("runs")
DEEPEST = 12  # folders below the root that are looked into
SHOWN = 6  # candidates that an error names

REMOVING = ".removing-"  # how the name of a folder begins that is on its way out


class Registry:
    """The runs below a folder.

    Args:
        root: the folder; None: runs/ below the current one, which need not be there.

    Raises:
        UserError: no such folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        if root is not None and not typed(root).is_dir():
            raise UserError("no such folder", where=root, hint="--runs DIR: a folder with runs below it")
        self.root = ROOT if root is None else typed(root)

    @cached_property
    def _folders(self) -> list[Entry]:
        return [Entry(folder, self.root) for folder in runs_in(self.root)]

    @cached_property
    def entries(self) -> list[Entry]:
        """All of them, the one that was begun first first; each has the number of its place."""
        found = sorted(self._folders, key=lambda e: (e.begun, e.name))
        for number, entry in enumerate(found, 1):
            entry.number = number
        return found

    @property
    def sweeps(self) -> dict[Path, list[Entry]]:
        """The folders of sweeps and their jobs."""
        found: dict[Path, list[Entry]] = {}
        for entry in self.entries:
            if is_sweep(entry.folder.parent):
                found.setdefault(entry.folder.parent, []).append(entry)
        return found

    def find(self, word: str) -> Run:
        """The run that a word names.

        A folder with a run in it comes first, then a name or a number, then the beginning of a name.

        Args:
            word: a path; an id or its beginning; a number of `entries`; ``last``, ``last-1``.

        Raises:
            UserError: there is none, or more than one.
        """
        path = typed(word)
        if word and is_run(path):
            return Run(path)
        found = self._called(word)
        if len(found) == 1:
            return found[0].run
        if found:
            raise self._ambiguous(word, found)
        if word and _is_folder(path):
            jobs = sum(1 for _ in runs_in(path))
            if jobs:
                count = f"{jobs} run{'' if jobs == 1 else 's'}"
                raise UserError(
                    f"the folder holds {count}, and is none itself",
                    where=path,
                    hint=f"name one of them: cae runs ls --runs {path}",
                )
            return Run(path)  # what is missing there is said by who reads it
        raise self._unknown(word)

    def entry(self, run: Run) -> Entry:
        """What the files of a run say; its number is 0 if it is not below the root."""
        real = run.folder.resolve()
        for entry in self.entries:
            if entry.folder.name == real.name and entry.folder.resolve() == real:
                return entry
        folder = run.folder if run.folder.name not in ("", "..") else real
        return Entry(folder, folder.parent)

    def find_sweep(self, word: str) -> Path | None:
        """The folder of the sweep that a word names in full, None if it names none."""
        path = typed(word)
        if word and _is_folder(path) and not is_run(path) and any(runs_in(path)):
            return path
        found = [f for f in self.sweeps if word in (f.name, short_name(f))]
        return found[0] if len(found) == 1 else None

    def jobs(self, sweep: Path) -> list[Entry]:
        """The runs of a sweep's folder, in the order of sweep.json where there is one."""
        real = sweep.resolve()
        found = [e for e in self.entries if e.folder.parent.resolve() == real]
        found = found or [Entry(folder, sweep) for folder in runs_in(sweep)]
        folder = SweepFolder(sweep)
        if folder.is_written():
            order = {job.folder: i for i, job in enumerate(folder.read().jobs)}
            found.sort(key=lambda e: order.get(e.folder.name, len(order)))
        return found

    def _called(self, word: str) -> list[Entry]:
        last = re.fullmatch(r"last(?:-(\d{1,9}))?", word)
        if last:
            back = int(last[1] or 0)
            if back >= len(self.entries):
                raise UserError(f"{word}: {self._how_many()}", where=self.root, hint="cae runs ls")
            return [self.entries[-1 - back]]
        if not word.strip("./"):
            return []
        exact = [entry for entry in self._folders if word in entry.names]
        if re.fullmatch(r"[1-9][0-9]{0,8}", word) and int(word) <= len(self.entries):
            numbered = self.entries[int(word) - 1]
            exact += [numbered] * (numbered not in exact)
        return exact or [e for e in self._folders if any(n.startswith(word) for n in e.names)]

    def _how_many(self) -> str:
        count = len(self._folders)
        return f"there {'is' if count == 1 else 'are'} {count or 'no'} run{'' if count == 1 else 's'}"

    def _ambiguous(self, word: str, found: Sequence[Entry]) -> UserError:
        numbered = {id(entry): entry for entry in self.entries}  # numbers are given
        newest = sorted(found, key=lambda e: -numbered[id(e)].number)
        names = [f"{e.id} (number {e.number})" for e in newest[:SHOWN]]
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        return UserError(
            f"{word!r} may be one of {len(found)} runs",
            where=self.root,
            hint=f"name one of {', '.join(names)}{more}",
        )

    def _unknown(self, word: str) -> UserError:
        names = {name for entry in self._folders for name in entry.names}
        close = nearest(word, names | ({"last"} if names else set()))
        hint = f"{self._how_many()} below {self.root}" + (": cae runs ls" if self._folders else "")
        return UserError(
            f"no such folder, and no run is called {word!r}",
            where=self.root,
            hint=f"did you mean {close}?" if close else hint,
        )


def find(word: str, root: Path | None = None) -> Run:
    """The run that a word of the command line names; see `Registry.find`.

    Args:
        word: a path, an id or its beginning, a number, ``last``.
        root: where it is looked for, see `Registry`.

    Raises:
        UserError: there is none, or more than one.
    """
    path = typed(word)
    is_plain = word and root is None and is_run(path)
    return Run(path) if is_plain else Registry(root).find(word)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words that name runs, and overrides.

    The folder of a sweep's job has the job's overrides in its name: what is a path that exists, and
    in the first place an id like ``k3fa/loss=mse``, names a run.
    """
    runs = []
    for place, word in enumerate(words):
        before, equals, _ = word.partition("=")
        is_id = place == 0 and "/" in before and not re.match(r"[+~]*/?hydra/", before)
        is_plain = not equals and not word.startswith("~")  # ~key takes a key away
        if is_plain or is_id or exists(typed(word)):
            runs.append(word)
    return runs, [word for word in words if word not in runs]


def split_one(
    words: Sequence[str], command: str, hint: str, what: str = "one run"
) -> tuple[str, list[str]]:
    """The one word that names a run, and the overrides, of a command that takes one.

    Raises:
        UserError: there is none, or more than one; ``what`` says what is wanted.
    """
    runs, overrides = split(words)
    if len(runs) != 1:
        raise UserError(f"expected {what}, got {len(runs)}", where=f"command line: {command}", hint=hint)
    return runs[0], overrides


def flat(tree: Any, key: str = "") -> dict[str, Any]:
    """The values of a config by their dotted paths; lists are values."""
    if not isinstance(tree, Mapping):
        return {key: tree}
    found: dict[str, Any] = {}
    for name, inner in tree.items():
        found |= flat(inner, f"{key}.{name}" if key else str(name))
    return found


def remove(folder: Path) -> None:
    """Removes the folder of a run, or of a sweep with all its jobs.

    It takes another name first, so that nobody ever finds half a run. Links are removed, and what
    they lead to is not.

    Args:
        folder: as `check_removable` let it pass.

    Raises:
        UserError: a process has begun to work in it meanwhile; it cannot be removed.
    """
    with at_work(folder):
        path = folder.resolve()
        leaving = path.with_name(f"{REMOVING}{path.name}")
        try:
            shutil.rmtree(leaving, ignore_errors=True)  # of a removal that was cut short
            path.rename(leaving)
            shutil.rmtree(leaving)
        except OSError as error:
            raise UserError(
                f"cannot be removed: {(error.strerror or str(error)).lower()}",
                where=error.filename or folder,
            ) from error


def check_removable(folder: Path, *, sweep: bool = False) -> None:
    """Whether a folder may go.

    Args:
        folder: of a run, or of a sweep.
        sweep: it is to be a sweep's.

    Raises:
        UserError: it is a link, none of ours, the current folder, or in use.
    """
    if folder.is_symlink():
        raise UserError(
            "a link is not followed to remove what it leads to", where=folder, hint=f"rm {folder}"
        )
    runs = list(runs_in(folder)) if sweep else [folder]
    for run in runs:
        if not _is_ours(run):
            raise UserError(
                "not the folder of a run of cae", where=run, hint="what is not a run is not removed"
            )
    if sweep and not is_sweep(folder):
        raise UserError(
            f"not the folder of a sweep, though it holds {len(runs)} run{'' if len(runs) == 1 else 's'}",
            where=folder,
            hint="name the runs",
        )
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UserError("the current folder is inside", where=folder, hint="cd elsewhere first")
    for held in [folder, *runs, *(path for run in runs for path in (run / "frozen_encoder").glob("*"))]:
        if held.is_dir() and is_in_use(held):
            raise UserError("in use by a process", where=held, hint="wait until it has ended")
    for run in runs:
        if Entry(run, run.parent).status == "running":  # on another machine, which is believed
            raise UserError("the run is still at work", where=run, hint="status.json says where")


# -- folders ---------------------------------------------------------------------------------------


def runs_in(folder: Path, depth: int = 0) -> Iterator[Path]:
    """The folders of runs at or below a folder; what is inside a run is part of it.

    Links below the root are not followed: a run is found once, and inside the root.
    """
    if is_run(folder):
        yield folder
        return
    try:
        with os.scandir(folder) as found:
            inner = [e.name for e in found if e.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in sorted(inner):
        if not name.startswith(".") and depth < DEEPEST:
            yield from runs_in(folder / name, depth + 1)


def _is_ours(folder: Path) -> bool:
    """Whether the files of a run are ours; of one that is damaged, whether its name is."""
    run = Run(folder)
    for path in (run.setup_file, run.status_file):
        try:
            if isinstance(read_json(path).get("schema"), int):
                return True
        except UserError:
            continue
    return is_run(folder) and bool(STAMP.fullmatch(folder.name))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
