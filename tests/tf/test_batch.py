"""Many runs at once that are no grid."""

import subprocess
import sys

import pytest

from cae_cli import experiment
from cae_cli.errors import UserError
from cae_cli.runs.folder import Run
from cae_cli.sweep import batch
from tests.conftest import environment

pytestmark = pytest.mark.tf

# A script, because the processes of the runs import the main module of whoever starts them.
SCRIPT = """
from pathlib import Path
from cae_cli.sweep import batch
from cae_cli.system import signals

SMALL = ("data=digits", "data.train=256", "training.epochs=2")
WANTED = [
    batch.Wanted("well.s1", (*SMALL, "seed=1")),
    batch.Wanted("torn", (*SMALL, "optimizer.learning_rate=1e20")),
]
if __name__ == "__main__":
    folder = Path("batch")
    folder.mkdir(exist_ok=True)
    with signals.raised(), batch.opened(folder, ["cae", "clinic"], pictures=False) as made:
        print(*(run.folder.name for run in made.train(WANTED)))
"""


def test_runs_of_a_batch_are_trained_once_and_read_like_any_other(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)

    def call():
        return subprocess.run(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )

    assert call().stdout.split() == ["well.s1", "torn"]
    well, torn = (Run(tmp_path / "batch" / name) for name in ("well.s1", "torn"))
    assert well.status()["status"] == "ok" and torn.status()["status"] == "failed"
    assert well.setup()["command"][2:] == [
        "data=digits",
        "data.train=256",
        "training.epochs=2",
        "seed=1",
    ]
    assert experiment.assess(torn).diagnosis.findings[0].code == "CAE201"
    assert not list(well.folder.glob("*.png"))
    began = well.status()["started"], torn.status()["started"]
    assert "2 jobs of 2 finished already" in call().stderr
    assert (well.status()["started"], torn.status()["started"]) == began


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("hydra.run.dir=elsewhere", "says nothing of Hydra"),
        ("optimizer.learning_rat=1", "is not an option"),
        ("task_name=${oc.env:HOME}", "only the command line may read"),
    ],
)
def test_words_of_a_batch_are_not_trusted(tmp_path, word, said):
    with batch.opened(tmp_path, ["cae", "clinic"]) as made, pytest.raises(UserError) as caught:
        made.train([batch.Wanted("one", (word,))])
    assert said in caught.value.what
    assert not (tmp_path / "one").exists()
