"""Networks made sick on purpose, by real training, and what the diagnosis names first."""

import pytest

from cae_cli import experiment
from cae_cli.compose import checked
from cae_cli.config import plain
from cae_cli.diagnosis import Severity, diagnose
from cae_cli.engine import quiet
from cae_cli.measures.measured import measure
from cae_cli.report.terminal import Screen
from cae_cli.run import Run

pytestmark = pytest.mark.tf

# Letters and digits that are made on the spot; 160 steps.
SHORT = ("data.train=1024", "training.epochs=5", "training.snapshots=[0]")
FAULTS = {
    "CAE205": ("model.initializer=zeros",),
    "CAE206": ("regularization=l2", "regularization.l2.strength=1"),
    "CAE207": ("optimizer.learning_rate=0.5",),
    "CAE209": ("training.frozen=encoder",),
    "CAE210": ("regularization=batchnorm", "regularization.batchnorm.momentum=0.9999"),
    "CAE502": ("model=unet", "training.epochs=8"),
}


def judged(folder, *overrides):
    """The diagnosis of a real training, without its pictures."""
    options = checked([*SHORT, *overrides])[1]
    run = Run(folder)
    images = experiment.read(options)
    screen = Screen()
    screen.live = False
    with quiet(run.log):
        experiment.train(options, images, experiment.look_at(images), run, screen)
    measures = measure(run.read_arrays(run.arrays), run.read_metrics(), run.training())
    return diagnose(measures, plain(options))


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_a_fault_is_named_first(code, tmp_path):
    diagnosis = judged(tmp_path, *FAULTS[code])
    assert diagnosis.findings[0].code == code, [f.code for f in diagnosis.findings]
    assert diagnosis.findings[0].consequence_of is None


def test_the_same_network_without_a_fault_is_only_told_to_train_longer(tmp_path):
    found = judged(tmp_path).findings
    assert {f.code for f in found if f.severity is not Severity.NOTE} <= {"CAE211"}
