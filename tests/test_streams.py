"""The screen is lost: its terminal or pipe is closed, its disk is full, its descriptor is missing."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading

import pytest
from rich.live import Live

from cae_cli.errors import RunFailed
from cae_cli.report import terminal
from cae_cli.system import streams
from cae_cli.system.guarded import guard
from tests.conftest import environment
from tests.test_registry import made

# How the screen is lost, and what the operating system says.
LOSSES = {
    "full disk": "no space left on device",
    "terminal": "input/output error",
    "pipe": "broken pipe",
    "closed": "bad file descriptor",
}
PRINTING = (
    ["--help"],
    ["--version"],
    ["options"],
    ["options", "loss/ssim"],
    ["rules"],
    ["rules", "CAE301"],
    ["train", "--help"],
    ["train", "--cfg", "job"],
    ["train", "--hydra-help"],
    ["-sc", "install=bash"],
    ["runs", "ls"],
    ["runs", "ls", "--json"],
    ["runs", "show", "last"],
    ["compare", "last", "last-1"],
)
# Runs the commands in one process, which saves most of their time.
EACH = """
import json, sys
from cae_cli.cli import main
codes = []
for sys.argv[1:] in json.loads(sys.argv[1]):
    try: main()
    except SystemExit as end: codes.append(end.code)
with open("codes.json", "w") as file: json.dump(codes, file)
"""


@contextlib.contextmanager
def unread(loss):
    """A descriptor that cannot be written."""
    if loss == "full disk":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, descriptor = pty.openpty() if loss == "terminal" else os.pipe()
        os.close(reader)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def run_unread(loss, command, *, stdout=True, stderr=False, **options):
    """Runs a command whose standard output, standard error or both are lost before it starts."""
    lost = [number for number, is_lost in ((1, stdout), (2, stderr)) if is_lost]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    if loss == "closed":
        closed = " ".join(f"{number}>&-" for number in (0, *lost)).replace("0>&-", "0<&-")
        return subprocess.run(["bash", "-c", f'exec "$@" {closed}', "bash", *command], **options)
    with unread(loss) as descriptor:
        options |= {("stdout", "stderr")[number - 1]: descriptor for number in lost}
        return subprocess.run(command, **options)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_command_that_cannot_print_says_so_in_one_line(tmp_path, loss):
    for day in (1, 2):
        folder = tmp_path / "runs" / "train" / f"2026-01-0{day}_00-00-00_aaaa"
        made(folder, f"2026-01-0{day}T00:00:00+00:00", "model=l2", psnr=day)
    command = [sys.executable, "-c", EACH, json.dumps(PRINTING)]
    done = run_unread(loss, command, cwd=tmp_path, env=environment(), timeout=120)
    is_error = loss != "pipe"  # cae options | head -1
    assert json.loads((tmp_path / "codes.json").read_text()) == [int(is_error)] * len(PRINTING)
    line = f"error: standard output cannot be written: {LOSSES[loss]}"
    assert done.stderr.splitlines() == [line] * (len(PRINTING) * is_error)
    assert done.returncode == 0  # not 120, as when Python finds out at its end


@pytest.mark.parametrize("loss", ["full disk", "closed"])
def test_an_error_that_cannot_be_shown_keeps_its_exit_code(tmp_path, loss):
    command = [sys.executable, "-m", "cae_cli", "trian"]
    done = run_unread(loss, command, stderr=True, cwd=tmp_path, env=environment(), timeout=120)
    assert done.returncode == 2


@contextlib.contextmanager
def pythons_own(**streams):
    """Standard streams of this process, as if Python had opened them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
            patch.setattr(sys, f"__{name}__", stream)
        yield


@contextlib.contextmanager
def both_unread(loss):
    """Standard output and standard error of this process cannot be written."""
    with (
        unread(loss) as descriptor,
        os.fdopen(descriptor, "w", buffering=1, closefd=False) as stream,
        pythons_own(stdout=stream, stderr=stream),
    ):
        yield


# Missing descriptors need a process of their own.
each_loss = pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss != "closed"])


@each_loss
def test_whatever_writes_to_the_screen_continues(loss):
    with both_unread(loss), streams.guarded():
        print("text" * 10_000, flush=True)
        terminal.show(["text"])
        screen = terminal.Screen()
        screen.say("text")
        with Live("text", console=screen.console, refresh_per_second=50) as live:
            live.refresh()
        sys.stderr.buffer.write(b"bytes")
        sys.stderr.close()  # as some libraries do
        print("text", file=sys.stderr)


@each_loss
def test_the_log_says_once_that_a_stream_is_lost(loss, tmp_path):
    log = guard(tmp_path) / "train.log"
    with both_unread(loss), streams.guarded():
        print("text", file=sys.stderr)  # before there is a log
        streams.results_in(log)
        for _ in range(2):
            print("text", file=sys.stderr)
            print("text", flush=True)
        streams.results_in(guard(tmp_path) / "another.log")
        print("text", file=sys.stderr)
        streams.check()  # the results are in files
    lines = [line.split(" WARNING ")[1] for line in log.read_text().splitlines()]
    assert lines == [
        f"standard {what} cannot be written: {LOSSES[loss]}; continuing without it"
        for what in ("error", "output")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["train.log"]


@each_loss
def test_lost_output_is_an_error_unless_its_reader_has_seen_enough(loss):
    with both_unread(loss), streams.guarded():
        print("text")
        if loss == "pipe":
            streams.check()
        else:
            with pytest.raises(RunFailed, match=LOSSES[loss]):
                streams.check()


def test_a_full_pipe_is_waited_for_even_if_it_does_not_block():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text = "text" * 100_000
    read = []
    with os.fdopen(writer, "w") as stream, os.fdopen(reader) as end, pythons_own(stdout=stream):
        thread = threading.Thread(target=lambda: read.append(end.read(len(text))))
        thread.start()
        with streams.guarded():
            print(text, end="")
            streams.check()
        thread.join()
    assert read == [text]


def test_no_file_gets_the_number_of_a_missing_descriptor(tmp_path):
    code = (
        "import os, pathlib, sys\n"
        "from cae_cli.system import guarded, streams\n"
        "from cae_cli.training import backend\n"
        "with streams.guarded(), open('file', 'w') as file:\n"
        "    print('text'); print('text', file=sys.stderr)\n"
        "    with backend.quiet(guarded.guard(pathlib.Path('.')) / 'log'):\n"
        "        os.write(2, b'of TensorFlow'); print('text', file=sys.stderr)\n"
        "    os.write(2, b'of a library')\n"
        "    os._exit(file.fileno())\n"
    )
    command = [sys.executable, "-c", code]
    done = run_unread("closed", command, stderr=True, cwd=tmp_path, env=environment(), timeout=60)
    assert done.returncode >= 3 and (tmp_path / "file").read_text() == ""
    assert (tmp_path / "log").read_text() == "of TensorFlow"
