"""Writing runs to a tracker from outside: the side of the training, and of ``cae log``."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cae_cli.errors import Interrupted, RunFailed, to_paste
from cae_cli.runs.folder import Run
from cae_cli.trackers.tracker import NoTracker, Tracker, reason

if TYPE_CHECKING:
    from cae_cli.report.terminal import Screen  # Rich: not for whoever reads a config

logger = logging.getLogger(__name__)

GRACE = 3.0  # seconds that an interrupted run waits for its tracker
START = "import sys; sys.path.insert(0, sys.argv[1]); from cae_cli.trackers.worker import main; main()"


class Writer:
    """A process that writes runs to a tracker; see `worker`. `end` it.

    Args:
        tracker: where to.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._doing = "starting"
        full = os.environ.get("HYDRA_FULL_ERROR") == "1"
        self._process = subprocess.Popen(
            # -P: nothing is imported from the current folder, which may be anybody's.
            [sys.executable, "-P", "-c", START, str(Path(__file__).parents[2])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if full else subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the training, which then ends it
            text=True,
        )
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._send(tracker=tracker.name, options=asdict(tracker))
        self._is_busy = False

    def write(self, run: Run) -> None:
        """Has it write what is new in a run; does not wait.

        Raises:
            RunFailed: it has given up.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._answers.get_nowait())
        if not self._is_busy:  # else the next epoch, or the end, writes this one as well
            self._send(run=str(run.folder.absolute()))

    def written(self, run: Run) -> str:
        """Has it write a run, and waits: where the run is then, for a person.

        Raises:
            RunFailed: it has given up.
        """
        self._send(run=str(run.folder.absolute()), end=True)
        where = ""
        while "ended" not in (answer := self._take(self._answers.get())):
            where = answer.get("where", where)
        return where

    def finish(self, seconds: float | None = None) -> None:
        """Waits until everything is written, and ends it.

        Args:
            seconds: at most; None as long as it takes, which the time limit of the tracker bounds.

        Raises:
            RunFailed: it has given up.
        """
        until = None if seconds is None else time.monotonic() + seconds
        try:
            self._send(end=True)
            while "ended" not in self._take(
                self._answers.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            ):
                pass
        except queue.Empty:
            raise RunFailed(f"not finished within {seconds:g} s ({self._doing})") from None
        finally:
            self.end()

    def end(self) -> None:
        """Ends the process, and those that a library has started."""
        with contextlib.suppress(OSError, AttributeError):  # Windows has no process groups
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _send(self, **line: Any) -> None:
        self._is_busy = True
        with contextlib.suppress(OSError):  # it has ended: so do its answers
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def _take(self, answer: dict[str, Any] | None) -> dict[str, Any]:
        """What an answer says; RunFailed if it is an error or the end of the answers."""
        if answer is None:
            code = self._process.wait()
            limit = f"no answer within {self._tracker.timeout} s"
            raise RunFailed(f"{limit if code == 1 else f'ended with code {code}'} ({self._doing})")
        if "error" in answer:
            raise RunFailed(answer["error"])
        self._doing = answer.get("doing", self._doing)
        self._is_busy = self._is_busy and "where" not in answer
        return answer


@contextlib.contextmanager
def following(tracker: Tracker | NoTracker, run: Run, screen: Screen) -> Iterator[Callable[[], None]]:
    """Writes a run while it is trained. What fails is a line of warning and has no other effect.

    Args:
        tracker: where to.
        run: its folder; when the block ends, its status has to be written.
        screen: for the warning.

    Yields:
        a function to call after each epoch.
    """
    if isinstance(tracker, NoTracker):
        yield lambda: None
        return
    follower = _Follower(tracker, run, screen)
    try:
        yield follower.epoch
    except BaseException as error:
        follower.finish(GRACE if isinstance(error, Interrupted | KeyboardInterrupt) else None)
        raise
    follower.finish()


class _Follower:
    def __init__(self, tracker: Tracker, run: Run, screen: Screen) -> None:
        self._tracker, self._run, self._screen = tracker, run, screen
        self._writer: Writer | None = None
        self._has_failed = False

    def epoch(self) -> None:
        """Has the new epoch written."""
        with self._warned():
            if not self._has_failed:
                self._writer = self._writer or Writer(self._tracker)
                self._writer.write(self._run)

    def finish(self, seconds: float | None = None) -> None:
        """Waits until the run is written."""
        with self._warned():
            if self._writer is not None and not self._has_failed:
                with self._screen.doing(f"writing to {self._tracker.name} …"):
                    self._writer.finish(seconds)

    @contextlib.contextmanager
    def _warned(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._has_failed = True
            if self._writer is not None:
                self._writer.end()
            what = error.what if isinstance(error, RunFailed) else reason(error)
            later = to_paste("cae", "log", self._run.folder, "--to", self._tracker.name)
            text = f"tracker={self._tracker.name}: {what}; the run is not affected. Later: {later}"
            self._screen.say(f"! {text}")
            logger.warning("%s", text)
