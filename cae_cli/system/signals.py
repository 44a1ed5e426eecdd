"""SIGINT and SIGTERM as an exception, wherever the process is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cae_cli.errors import Interrupted

_received: list[int] = []


@contextmanager
def raised(*, once: bool = False) -> Iterator[None]:
    """Inside the block, SIGINT and SIGTERM raise `Interrupted`.

    Args:
        once: only the first does. A job gets Ctrl-C from the terminal, and from the sweep once more.
    """

    def handle(number: int, frame: Any) -> None:
        _received.append(number)
        if not once or len(_received) == 1:
            raise Interrupted(number)

    _received.clear()
    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def behind(error: BaseException) -> BaseException:
    """What is behind an error: the signal, if one came.

    Libraries in C++ that call back into Python make an error of their own of whatever is raised there.
    """
    return Interrupted(_received[0]) if _received and isinstance(error, Exception) else error


def check() -> None:
    """Raises `Interrupted` if a signal came and its exception was lost.

    Python drops what is raised while it runs a finalizer or the callback of a weak reference, and a
    signal may arrive there. So the stages of a run ask between them.
    """
    if _received:
        raise Interrupted(_received[0])
