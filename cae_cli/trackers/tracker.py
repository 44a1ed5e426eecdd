"""What a tracker is: its options, and a `Session` that writes one run to it.

To add a tracker, write both in a file of this package, import that file in ``__init__``, and write its
values in ``configs/tracker/<name>.yaml``. Its library is imported when a session is opened, in a process
of its own: it may fail, hang and print without any effect on a training.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from cae_cli.errors import UserError, printable, to_paste
from cae_cli.options import Catalogue, option


@dataclass(frozen=True)
class Facts:
    """What is known of a run when it is first written.

    Attributes:
        name: of a job its swept values, of a single run its task and its id.
        group: name of the sweep that the run is a job of; None for a single run.
        folder: of the run, absolute.
        tags: labels of the user.
        config: the whole config, nested.
        changed: what the command changed of the defaults, by dotted key; numbers where they are options.
        began: when the run began.
    """

    name: str
    group: str | None
    folder: Path
    tags: Sequence[str]
    config: Mapping[str, Any]
    changed: Mapping[str, str | float]
    began: datetime


@dataclass(frozen=True)
class Result:
    """What the diagnosis says of a run that has ended.

    Attributes:
        verdict: in one line.
        findings: the problem that each finding names, by its code, the first one first.
        figures: numbers by short name (psnr, ssim, mse, explained, meaningful, …).
        text: the summary.
        epoch: whose weights were diagnosed.
    """

    verdict: str
    findings: Mapping[str, str]
    figures: Mapping[str, float]
    text: str
    epoch: int


class Session(ABC):
    """A run in a tracker, open for writing. Any method may raise any exception.

    Attributes:
        id: by which the tracker knows the run, to continue it later.
        where: what a person opens, or a command that does it.
    """

    id: str
    where: str

    @abstractmethod
    def metrics(self, epochs: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Finite values of epochs, by the names of metrics.csv ("val/loss"); at most 50 epochs."""

    @abstractmethod
    def image(self, name: str, epoch: int, path: Path) -> None:
        """A PNG picture of the run after an epoch."""

    def figure(self, name: str, epoch: int, path: Path) -> None:
        """A PNG figure of the finished run, whose weights are those after an epoch."""
        self.image(name, epoch, path)

    @abstractmethod
    def result(self, result: Result) -> None:
        """The diagnosis, once the run has ended; again if it has changed."""

    def file(self, path: Path) -> None:
        """A file of the run; the base class leaves it out, for trackers without files."""
        return

    @abstractmethod
    def close(self, status: str, ended: datetime | None) -> None:
        """Writes what is not written yet.

        Args:
            status: of the run: running, ok, failed or interrupted.
            ended: when it ended; None if it has not, or nobody knows.
        """


@dataclass(frozen=True, kw_only=True)
class Tracker(ABC):
    """The options of a tracker.

    Attributes:
        module: of its library, the name of the extra of cae-cli as well.
        shows: the words of the command that shows a run, before the last one; see `Session.where`.
        environment: variables that are set for its library, unless the user has set them.
    """

    module: ClassVar[str]
    extra: ClassVar[str]
    shows: ClassVar[Sequence[str]]
    environment: ClassVar[Mapping[str, str]] = {}

    project: str = option("name that runs are collected under")
    uri: str | None = option("address of the tracker; null: as the library has it")
    timeout: int = option("seconds that one value, picture or file may take", least=1)
    model: bool = option("write the trained network too, where the tracker keeps files")

    @abstractmethod
    def open(self, facts: Facts, known: str | None) -> Session:
        """Opens a run.

        Args:
            facts: of the run.
            known: `Session.id` of an earlier session for the same run; None for the first one.
        """

    @property
    def name(self) -> str:
        """The name of the option."""
        return next(name for name, cls in TRACKERS.items() if cls is type(self))

    def is_place(self, text: str) -> bool:
        """Whether a text, of a stranger perhaps, can be `Session.where`: people open and paste it."""
        if re.fullmatch(r"https?://[\w.:/#?&=%~+-]+", text, re.ASCII):
            return True
        try:
            words = shlex.split(text)
        except ValueError:
            return False
        *shows, last = words or [""]
        return shows == list(self.shows) and not last.startswith("-") and to_paste(*words) == text

    def destination(self) -> str:
        """What tells this place from another one that the same run is written to."""
        return f"{self.project} {self.uri or ''}"

    def check(self) -> None:
        """Checks what can be known before anything is written.

        Raises:
            UserError: the library is not installed, or the address holds a password.
        """
        if not self.project.strip():
            raise UserError(
                "tracker.project must not be empty", hint="the default is tracker.project=cae"
            )
        if self.uri is not None and re.search(r"//[^/]*@", self.uri):
            raise UserError(
                "tracker.uri must not hold a user name or a password: the config of a run is kept",
                hint=f"set them in the environment, as the documentation of {self.name} says",
            )
        if importlib.util.find_spec(self.module) is None:
            raise UserError(
                f"tracker={self.name} needs the Python package {self.module}, which is not installed",
                hint=f"pip install 'cae-cli[{self.extra}]', or pip install {self.module}",
            )


@dataclass(frozen=True, kw_only=True)
class NoTracker:
    """Nothing is written anywhere but into the run folder."""


TRACKERS: Catalogue[Any] = Catalogue("tracker")
TRACKERS.add("none")(NoTracker)


def reason(error: BaseException) -> str:
    """Why a library failed, in a line without passwords."""
    if isinstance(error, UserError):
        text = error.what
    else:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    text = re.sub(r"//[^/\s@]*@", "//…@", printable(text))
    return text if len(text) <= 300 else f"{text[:300]}…"
