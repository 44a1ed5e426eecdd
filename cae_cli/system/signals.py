"""SIGINT and SIGTERM as exceptions."""

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
        once: only the first signal. A job gets Ctrl-C from the terminal and again from the sweep.
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
    """The cause of an error: the signal, if one arrived.

    C++ libraries that call back into Python convert an exception raised there into another.
    """
    return Interrupted(_received[0]) if _received and isinstance(error, Exception) else error


def check() -> None:
    """Raises `Interrupted` if a signal arrived and its exception was lost.

    Python drops exceptions in finalizers and callbacks of weak references, where a signal may arrive, so
    a run calls this between its stages.
    """
    if _received:
        raise Interrupted(_received[0])
