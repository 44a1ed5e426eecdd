"""Many runs at once that are no grid."""

import pytest

from cae_cli import experiment
from cae_cli.errors import UserError
from cae_cli.sweep import batch
from cae_cli.system import signals

pytestmark = pytest.mark.tf

SMALL = ("data=digits", "data.train=256", "model.filters=[8]", "training.epochs=2")
WANTED = [
    batch.BatchRun("well.s1", (*SMALL, "seed=1")),
    batch.BatchRun("torn", (*SMALL, "optimizer.learning_rate=1e20")),
]


@pytest.mark.soak
def test_runs_of_a_batch_are_trained_once_and_read_like_any_other(tmp_path, capfd):
    def train():
        with (
            signals.raised(),
            batch.opened(tmp_path, ["python", "-m", "benchmarks.faults"], pictures=False) as made,
        ):
            return made.train(WANTED)

    well, torn = train()
    assert [well.folder, torn.folder] == [tmp_path / "well.s1", tmp_path / "torn"]
    assert well.status()["status"] == "ok" and torn.status()["status"] == "failed"
    assert well.setup()["command"][2:] == [
        "data=digits",
        "data.train=256",
        "model.filters=[8]",
        "training.epochs=2",
        "seed=1",
    ]
    assert experiment.diagnose(torn).diagnosis.findings[0].code == "CAE201"
    assert not list(well.folder.glob("*.png"))
    began = well.status()["started"], torn.status()["started"]
    capfd.readouterr()
    train()
    assert "2 jobs of 2 already finished" in capfd.readouterr().err
    assert (well.status()["started"], torn.status()["started"]) == began


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.run.dir=elsewhere", "only the command line may set options of Hydra"),
        ("optimizer.learning_rat=1", "is not an option"),
        ("task_name=${oc.env:HOME}", "only the command line may"),
        ("task_name=${oc.env:USER,x}", "only the command line may"),
    ],
)
def test_overrides_of_a_batch_are_not_trusted(tmp_path, override, message):
    with (
        batch.opened(tmp_path, ["python", "-m", "benchmarks.faults"]) as made,
        pytest.raises(UserError) as caught,
    ):
        made.train([batch.BatchRun("one", (override,))])
    assert message in caught.value.what
    assert not (tmp_path / "one").exists()
