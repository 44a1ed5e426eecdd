"""A sweep as a process of its own, for a caller whose process must stay as it is.

Its jobs are processes in any case; this way the server that they are forked from, the signals that end
them and the modules that they import are not those of the caller.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cae_cli.errors import RunFailed, UserError

ERROR = ("error: ", "  --> ", "hint: ")  # how the lines of an error begin
PATIENCE = 15.0  # seconds in which an interrupted sweep ends its jobs


def train(command: Sequence[str], say: Callable[[str], None]) -> tuple[Path, str]:
    """Runs a sweep, and waits until it has ended; failed jobs are no error.

    Args:
        command: of the sweep: "cae", "train", "-m", …
        say: gets each line of its progress.

    Returns:
        Its folder, and what it printed as its results.

    Raises:
        UserError, RunFailed: with the words that the command showed.
        KeyboardInterrupt: after the sweep has ended.
    """
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    lines: list[str] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as results:
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "cae_cli", *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=results,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    lines.append(line.rstrip("\n"))
                    if not lines[-1].startswith(ERROR):  # the caller gets an exception
                        say(lines[-1])
            except BaseException:
                _end(process)
                raise
        results.seek(0)
        text = results.read()
    shown = text.rstrip("\n").splitlines()
    if shown and process.returncode in (0, 1) and Path(shown[-1]).is_dir():
        return Path(shown[-1]), "\n".join(shown[:-1])
    raise _error(lines, process.returncode)


def _end(process: subprocess.Popen[str]) -> None:
    """Ends the sweep; the terminal may have told it already, and a second signal would hurry it."""
    try:
        process.wait(1.0)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def _error(lines: Sequence[str], code: int) -> UserError | RunFailed:
    """The error that a command showed as its last lines."""
    parts = dict.fromkeys(ERROR, "")
    for line in lines:
        for start in parts:
            if line.startswith(start):
                parts[start] = line.removeprefix(start)
    what, where, hint = (text or None for text in parts.values())
    if what is None:
        end = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        return RunFailed(f"the sweep ended {end}", hint="Run the same sweep again to resume it.")
    return UserError(what, where=where, hint=hint) if code == 2 else RunFailed(what, hint=hint)
