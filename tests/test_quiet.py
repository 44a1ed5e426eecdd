"""What libraries say goes to the log of the run, not to the screen."""

import logging
import warnings

import pytest

from cae_cli.system.guarded import GuardedPath
from cae_cli.training import backend
from tests.conftest import called


@pytest.mark.filterwarnings("default")
def test_warnings_and_messages_of_libraries_are_in_the_log(tmp_path, capfd):
    own = logging.StreamHandler()  # as TensorFlow adds one while it is imported
    logger = logging.getLogger("tensorflow")
    with backend.quiet(GuardedPath(tmp_path) / "train.log"):
        logger.addHandler(own)
        logger.warning("one of %s", "/path/one.py")
        logging.getLogger("PIL.TiffImagePlugin").warning("two of /path/two.py")
        logging.getLogger("absl").error("three")
        warnings.warn_explicit("four", UserWarning, "/path/4.py", 4)
        print("a result")
    log = (tmp_path / "train.log").read_text()
    for said in ("WARNING tensorflow: one of /path/one.py", "PIL.TiffImagePlugin: two", "three", "four"):
        assert log.count(said) == 1
    seen = capfd.readouterr()
    assert (seen.out, seen.err) == ("a result\n", "")
    logger.warning("after the block")
    logger.removeHandler(own)
    assert "after the block" in capfd.readouterr().err
    assert logger.propagate and not logger.filters


def test_a_command_leaves_the_loggers_of_libraries_as_they_are(tmp_path):
    logger = logging.getLogger("PIL.TiffImagePlugin")
    assert called(tmp_path, "train", "data=npz", "data.path=nowhere.npz").code == 2
    assert logger.isEnabledFor(logging.WARNING) and not logging.getLogger("hydra").disabled


def test_without_a_log_nothing_is_kept_and_nothing_is_shown(capfd):
    with backend.quiet(None):
        logging.getLogger("tifffile").error("one of /path/one.py")
    assert capfd.readouterr().err == ""
