"""The process that writes to a tracker, beside the one that trains.

The library of a tracker may hang, crash, start threads, print, and change signals and the environment:
here none of that reaches a training. Requests and answers are lines of JSON: the tracker first, and then
folders of runs. It writes what is new in a folder each time it is named. It ends when its input does,
which also happens when the training is killed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from cae_cli.runs.folder import Run
from cae_cli.trackers.record import Recording
from cae_cli.trackers.tracker import TRACKERS, Tracker, reason

NICE = 10  # training comes first


def main() -> None:
    """Reads folders until the input ends, and answers each."""
    answers = os.fdopen(os.dup(1), "w")  # programs that a library starts do not inherit it
    os.dup2(2, 1)  # what a library prints
    if hasattr(os, "nice"):
        os.nice(NICE)
    first = json.loads(sys.stdin.readline())
    tracker: Tracker = TRACKERS[first["tracker"]](**first["options"])
    for name, value in tracker.environment.items():
        os.environ.setdefault(name, value)
    _Worker(tracker, answers).serve()


class _Worker:
    def __init__(self, tracker: Tracker, answers: Any) -> None:
        self._tracker, self._answers = tracker, answers
        self._recording: Recording | None = None
        self._folder = ""

    def serve(self) -> None:
        """Answers each line, and ends the process."""
        try:
            for line in sys.stdin:
                request = json.loads(line)
                if "run" in request:
                    self._write(request["run"])
                if "end" in request:
                    self._close()
                    self._answer(ended="")
            self._close()  # the training was killed
        except BaseException as error:  # a library may even end the process
            faulthandler.cancel_dump_traceback_later()
            traceback.print_exc()
            self._answer(error=reason(error))
        # Threads of a library may hang: sys.exit would wait for them.
        os._exit(0)

    def _write(self, folder: str) -> None:
        if folder != self._folder:
            self._close()
            self._folder = folder
        if self._recording is None:
            self._recording = Recording(Run(Path(folder)), self._tracker, self._beat)
        self._recording.update()
        faulthandler.cancel_dump_traceback_later()
        self._answer(where=self._recording.where)

    def _close(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.close()
            faulthandler.cancel_dump_traceback_later()

    def _beat(self, what: str) -> None:
        """From now on the tracker has its time limit again, for the next thing."""
        self._answer(doing=what)
        faulthandler.dump_traceback_later(self._tracker.timeout, exit=True)

    def _answer(self, **content: str) -> None:
        with contextlib.suppress(OSError):  # the training is gone
            self._answers.write(json.dumps(content) + "\n")
            self._answers.flush()
