"""Errors that say what is wrong, where, and what to do next."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path


class UserError(Exception):
    """A usage or configuration error. The command line shows it and ends with exit code 2.

    Args:
        what: one sentence without a full stop, names first ("loss.window must be at least 3, got 1").
        where: the file, or the part of the command line, with the error.
        hint: the next step, as an imperative.
    """

    def __init__(self, what: str, *, where: object = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class RunFailed(Exception):
    """A run that started and could not finish. Exit code 1.

    Args:
        what: one sentence without a full stop.
        hint: the next step, as an imperative.
    """

    def __init__(self, what: str, *, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return self.what if not self.hint else f"{self.what}\nhint: {self.hint}"


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived. Not an Exception, so that no ``except Exception`` swallows it.

    Args:
        signal: the signal's number; the exit code is 128 plus it.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal

    @property
    def exit_code(self) -> int:
        """The shell's convention: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + self.signal


def to_paste(*words: object) -> str:
    """A command to be pasted into a shell: every word arrives there as it is, whatever it contains.

    Args:
        *words: of the command: text, and paths. A path that looks like a flag or a home folder becomes
            absolute.
    """
    return " ".join(map(_quoted, words))


def _quoted(word: object) -> str:
    text = str(word)
    if not isinstance(word, str) and text.startswith(("-", "~")):
        text = str(Path(text).absolute())
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"  # line breaks, escapes of a terminal, no UTF-8


def _escaped(c: str) -> str:
    """A character between ``$'`` and ``'``."""
    if c.isprintable():
        return f"\\{c}" if c in "\\'" else c
    errors = "surrogateescape" if "\udc80" <= c <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in c.encode(errors=errors))


def printable(text: str) -> str:
    """Text with control characters and line breaks escaped, since file names may contain them."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def visible(text: str) -> str:
    """Text with control characters escaped, as by `printable`, and its line breaks."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def short(value: float) -> str:
    """A number with three digits, from a thousand to a million whole: 0.0123, 4.57, 1,024, 2e+07."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def first_few(names: Sequence[str]) -> str:
    """The first names of some, and dots where there are more."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 job, 2 jobs."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of ``names``, or None."""
    names = list(names)
    start = name.lower().replace("_", "")
    longer = [n for n in names if len(name) >= 3 and n.lower().replace("_", "").startswith(start)]
    if len(longer) == 1:
        return longer[0]
    by_lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.65)
    if close:
        return by_lower[close[0]]
    initials = [n for n in names if "".join(word[:1] for word in n.split("_")) == name.lower()]
    return initials[0] if len(initials) == 1 and len(name) > 1 else None  # lr, bs


def did_you_mean(name: str, names: Iterable[str], what: str = "the choices are") -> str:
    """A hint for a name that does not exist: the most similar name, else all names."""
    names = sorted(names)
    close = nearest(name, names)
    if close is not None:
        return f"did you mean {close}?"
    return f"{what} {', '.join(names)}" if names else "there are none"
