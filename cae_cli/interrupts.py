"""SIGINT and SIGTERM as an exception, wherever the process is."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cae_cli.errors import Interrupted

_received: list[int] = []


@contextmanager
def raised() -> Iterator[None]:
    """Inside the block, SIGINT and SIGTERM raise `Interrupted`."""

    def handle(number: int, frame: Any) -> None:
        _received.append(number)
        raise Interrupted(number)

    _received.clear()
    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Raises `Interrupted` if a signal came and its exception was lost.

    Python drops what is raised while it runs a finalizer or the callback of a weak reference, and a
    signal may arrive there. So the stages of a run ask between them.
    """
    if _received:
        raise Interrupted(_received[0])
