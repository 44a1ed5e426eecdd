"""What tests with TensorFlow need."""

import sys

import pytest


@pytest.fixture(autouse=True)
def absl_keeps_its_hands_off():
    """Absl closes the standard error that it was imported with when Hydra sets up logging.

    In a test that is pytest's own, which every later test of the process would miss.
    """
    if "absl.logging" in sys.modules:
        sys.modules["absl.logging"].get_absl_handler().python_handler.stream = sys.__stderr__
