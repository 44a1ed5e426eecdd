"""Starts many runs and sweeps in the same second, and sees that none disturbs another.

    python -m tests.tf.crowd --runs 20 --sweeps 3

Real processes. As in `kills`, they are forked from one that has imported Keras and computes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from cae_cli.runs.folder import Run
from tests.tf.alike import differences
from tests.tf.kills import check_files, start

SMALL = ("data=digits", "data.train=128", "model.filters=[8]", "training.epochs=1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--sweeps", type=int, default=3)
    arguments = parser.parse_args()
    import keras  # noqa: F401  (starts no threads, so that forking stays safe)

    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch)
        # Each pair of neighbours has the same seed: what they write must be the same.
        children = [start(["train", *SMALL, f"seed={i // 2}"], here) for i in range(arguments.runs)]
        children += [start(["train", "-m", *SMALL, "seed=0,1"], here) for _ in range(arguments.sweeps)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert codes == [0] * len(codes), (codes, (here / "out.txt").read_text()[-3000:])
        runs = sorted(path.parent for path in here.rglob("run.json"))
        assert len(runs) == arguments.runs + 2 * arguments.sweeps, runs
        pids = [json.loads((run / "status.json").read_text())["pid"] for run in runs]
        alone = [run for run in runs if run.parent.name == "train"]
        assert len({pids[runs.index(run)] for run in alone}) == arguments.runs
        seeds: dict[int, Path] = {}
        for run in sorted(runs, key=lambda run: run not in alone):
            check_files(run)
            assert Run(run).status()["status"] == "ok"
            seed = Run(run).setup()["config"]["seed"]
            # Jobs are called like seed=0, which their pages say in other places too.
            named = set() if run in alone else {"report.html"}
            unlike = set(differences(seeds.setdefault(seed, run), run)) - named
            assert not unlike, (run, unlike)
    print(json.dumps({"runs": arguments.runs, "sweeps": arguments.sweeps, "folders": len(runs)}))


if __name__ == "__main__":
    main()
