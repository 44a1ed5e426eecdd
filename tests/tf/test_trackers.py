"""A training that is written to a tracker: the same run, each epoch once, also where it is resumed."""

import math

import pytest

from cae_cli import cli
from cae_cli.runs.folder import Run
from tests.test_trackers import scalars
from tests.tf.alike import differences
from tests.tf.conftest import DIGITS

pytestmark = pytest.mark.tf


def test_a_run_with_a_tracker_has_the_same_bits_and_continues_there_when_it_is_resumed(
    trained_once, tmp_path, monkeypatch, capfd
):
    pytest.importorskip("tensorboardX")
    monkeypatch.chdir(tmp_path)
    words = [
        *DIGITS,
        "hydra.run.dir=run",
        "tracker=tensorboard",
        "tracker.uri=board",
        "training.epochs=2",
    ]
    assert cli.run(["train", *words]) == 0
    assert cli.run(["resume", "run", "training.epochs=4"]) == 0
    assert "tracker=" not in capfd.readouterr().err.replace("cae train", "")
    apart = set(differences(trained_once("digits", *DIGITS)[1], tmp_path / "run"))
    drawn = {name for name in apart if name.endswith((".png", ".html"))}  # only in the first
    assert {name for name in apart - drawn if not name.startswith("trackers/")} <= {"summary.txt"}
    written = scalars(tmp_path / "board")
    columns = Run(tmp_path / "run").read_metrics()
    for name in columns.keys() - {"epoch"}:
        known = [
            (e, v) for e, v in zip(columns["epoch"], columns[name], strict=True) if not math.isnan(v)
        ]
        assert [e for e, _ in written[name]] == [e for e, _ in known], name
        assert [v for _, v in written[name]] == pytest.approx([v for _, v in known], rel=1e-6)
