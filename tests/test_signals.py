import os
import signal
import weakref

import pytest

from cae_cli.errors import Interrupted
from cae_cli.runs.folder import Run
from cae_cli.system import signals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_raised_and_the_handlers_are_put_back(number, code):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught, signals.raised():
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


def test_a_closed_terminal_ends_nothing_under_nohup():
    with signals.hangups_ignored(), signals.raised():
        os.kill(os.getpid(), signal.SIGHUP)
        signals.check()
    with pytest.raises(Interrupted), signals.raised():
        os.kill(os.getpid(), signal.SIGHUP)


def test_an_error_that_a_library_makes_of_a_signal_is_the_signals(tmp_path):
    def call_back():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException as error:  # as C++ does that calls back into Python
            raise ValueError("exception encountered in a call") from error

    with pytest.raises(Interrupted) as caught, signals.raised(), Run(tmp_path).running():
        call_back()
    assert caught.value.exit_code == 143
    assert Run(tmp_path).status()["status"] == "interrupted"
    with pytest.raises(ValueError, match="real"), Run(tmp_path).running(resume=True):
        raise ValueError("a real one")
    assert Run(tmp_path).status()["status"] == "failed"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_is_found_at_the_next_check():
    class Thing:
        pass

    thing = Thing()
    weakref.finalize(thing, os.kill, os.getpid(), signal.SIGINT)
    with signals.raised():
        signals.check()
        del thing  # the exception is raised inside the finalizer, and lost
        with pytest.raises(Interrupted):
            signals.check()
    with signals.raised():
        signals.check()  # and forgotten afterwards
