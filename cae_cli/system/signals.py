"""SIGINT, SIGTERM and SIGHUP as exceptions."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cae_cli.errors import Interrupted

_received: list[int] = []


@contextmanager
def raised(*, once: bool = False) -> Iterator[None]:
    """Inside the block, SIGINT, SIGTERM and SIGHUP raise `Interrupted`.

    SIGHUP says that the terminal was closed. If it is ignored, as after ``nohup``, it stays ignored.

    Args:
        once: only the first signal. A job gets Ctrl-C from the terminal and again from the sweep.
    """

    def handle(number: int, frame: Any) -> None:
        _received.append(number)
        if not once or len(_received) == 1:
            raise Interrupted(number)

    _received.clear()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


@contextmanager
def hangups_ignored() -> Iterator[None]:
    """Inside the block, SIGHUP is ignored, and a process that is started there ignores it for good."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


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
