"""Standard output and standard error that nobody has to read.

A terminal is closed, a pipe ends, a disk is full: what cannot be shown is dropped, and the program
continues.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from cae_cli.errors import RunFailed, UserError
from cae_cli.system.guarded import GuardedPath

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Output(io.RawIOBase):
    """The bytes of a standard stream. After the first error nothing is written any more.

    Args:
        name: for messages.
        descriptor: to write to; the caller closes it.

    Attributes:
        descriptor: negative as soon as it is closed.
        error: the first error, None as long as everything was written.
        log: a file that says when the stream is lost, if there is one.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self.name, self.descriptor = name, descriptor
        self.error: OSError | None = None
        self.log: GuardedPath | None = None
        self._is_logged = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Writes everything or drops what cannot be written; the number of bytes."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and self.error is None:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:  # full, and another program has made it non-blocking
                time.sleep(0.01)
            except OSError as error:
                self.error = error
                self.report()
        return size

    def report(self) -> None:
        """Writes to the log, once, that the stream is lost."""
        if self.error is None or self.log is None or self._is_logged:
            return
        self._is_logged = True
        text = f"{datetime.now():%Y-%m-%d %H:%M:%S} WARNING {self.loss}; continuing without it\n"
        with contextlib.suppress(OSError, UserError), self.log.append() as file:
            file.write(text.encode())

    @property
    def loss(self) -> str:
        """What was lost, and why."""
        assert self.error is not None
        return f"{self.name} cannot be written: {os.strerror(self.error.errno or errno.EIO).lower()}"

    def close(self) -> None:
        """Does nothing: some libraries close a standard stream that others still use."""

    def fileno(self) -> int:
        """The descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal that is still there."""
        return os.isatty(self.descriptor)

    def writable(self) -> bool:
        """True."""
        return True


@contextmanager
def guarded() -> Iterator[None]:
    """In the block, writing to standard output or standard error never fails.

    They get descriptors of their own, so that 1 and 2 can be redirected. Missing descriptors are opened,
    because the next file would get their numbers. Streams that replace those of Python, as a
    notebook does, are left alone.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    with contextlib.ExitStack() as stack:
        if sys.stdout is sys.__stdout__:
            stack.enter_context(_replaced("stdout", "standard output"))
        if sys.stderr is sys.__stderr__:
            stack.enter_context(_replaced("stderr", "standard error"))
        yield


@contextmanager
def _replaced(attribute: str, name: str) -> Iterator[None]:
    before: TextIO | None = getattr(sys, attribute)
    if before is None:  # it was missing: every write to a descriptor for reading fails
        output = Output(name, os.open(os.devnull, os.O_RDONLY))
        after = io.TextIOWrapper(output, errors="replace")
    else:
        output = Output(name, os.dup(before.fileno()))
        try:
            before.flush()  # what a script printed before
        except OSError as error:
            output.error = error
        after = io.TextIOWrapper(
            output,
            before.encoding,
            errors="replace",  # an ASCII-only terminal shows ? for …
            line_buffering=getattr(before, "line_buffering", True),
            write_through=getattr(before, "write_through", False),
        )
    setattr(sys, attribute, after)
    try:
        yield
    finally:
        setattr(sys, attribute, before)
        after.flush()
        os.close(output.descriptor)
        output.descriptor = -1


def results_in(log: GuardedPath) -> None:
    """From now on the results are files next to this log, which says so if a stream is lost."""
    for output in _outputs(sys.stdout, sys.stderr):
        output.log = log
        output.report()


def check() -> None:
    """Checks that everything was written to standard output, unless the results are in files.

    A reader that has seen enough, such as ``head``, is no error.

    Raises:
        RunFailed: something was lost.
    """
    sys.stdout.flush()
    for output in _outputs(sys.stdout):
        if isinstance(output.error, BrokenPipeError) or output.log is not None:
            return
        if output.error is not None:
            raise RunFailed(output.loss)


def _outputs(*streams: TextIO) -> Iterator[Output]:
    for stream in streams:
        output = getattr(stream, "buffer", None)
        if isinstance(output, Output):
            yield output
