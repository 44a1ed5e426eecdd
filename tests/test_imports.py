"""What a command may import before it trains: a checked config needs no training and no Keras."""

import subprocess
import sys

HEAVY = {"keras", "tensorflow", "sklearn", "matplotlib", "h5py"}
TRAINS = {
    *(f"cae_cli.training.{name}" for name in ("fit", "step", "forward", "recorder")),
    *("cae_cli.training.history", "cae_cli.training.backend"),
    *("cae_cli.model.build", "cae_cli.model.blocks", "cae_cli.introspection", "cae_cli.experiment"),
}  # fmt: skip


def imported(code):
    code += "\nimport sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_a_checked_config_imports_nothing_that_trains():
    modules = imported(
        "from cae_cli.config.compose import checked; checked(['loss=ssim', 'model=wide'])"
    )
    assert "cae_cli.training.options" in modules and "cae_cli.model.options" in modules
    assert not modules & (HEAVY | TRAINS)


def test_the_shapes_of_a_network_are_planned_without_keras():
    modules = imported(
        "from cae_cli.config.compose import checked; from cae_cli.model.plan import plan\n"
        "assert plan((28, 28, 1), checked([])[1].model).latent_shape == (7, 7, 8)"
    )
    assert not modules & (HEAVY | TRAINS)


def test_an_experiment_imports_no_tensorflow_before_it_trains():
    assert not imported("import cae_cli.experiment") & {"keras", "tensorflow"}


START = (
    "from cae_cli.training import backend\n{}backend.start(deterministic=True, mixed_precision=False)\n"
)
USED = "import matplotlib.figure, sklearn.datasets; assert matplotlib.figure.Figure()"


def test_keras_starts_without_what_only_its_unused_parts_import_and_cae_may_import_it_later():
    assert not imported(START.format("")) & {"sklearn", "matplotlib", "pandas"}
    assert imported(START.format("") + USED) >= {"sklearn", "matplotlib"}


def test_in_a_process_of_somebody_else_keras_has_all_its_parts():
    own = (
        "with backend.guest(): backend.start(deterministic=False, mixed_precision=False)\n"
        "import keras; keras.wrappers.SKLearnClassifier(keras.Sequential)"
    )
    assert "sklearn" in imported("from cae_cli.training import backend\n" + own)
