"""The callback in trainings that Keras computes with JAX or PyTorch."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    from tests.tf import backends

    return {**backends.measured(), **backends.diagnosed(tmp_path_factory.mktemp("runs"))}


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_gets_the_same_diagnosis(backend, usual, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.tf.backends", str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "not diagnosed" not in done.stdout, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["backend"] == backend and told["undisturbed"] and usual["undisturbed"]
    for name in ("penalty", "pulls", "data_loss", "elsewhere"):
        np.testing.assert_allclose(told[name], usual[name], rtol=2e-3, err_msg=name)
    # Dropout is drawn differently, so the steps are like those of TensorFlow and not the same.
    for name, apart in (("early_losses", 0.1), ("early_updates", 0.2), ("moves", 0.5)):
        np.testing.assert_allclose(told[name], usual[name], atol=apart, err_msg=name)
    assert told["skipped"] == usual["skipped"]
    assert told["shuffled"][0] == usual["shuffled"][0] == "CAE103"
