"""``cae diagnose``: applies the rules to a run again, or to any Keras autoencoder."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cae_cli import experiment
from cae_cli.commands import arguments, models
from cae_cli.config.overrides import overrides_of_run
from cae_cli.errors import UserError
from cae_cli.options import key_of
from cae_cli.report import terminal
from cae_cli.runs import registry
from cae_cli.runs.folder import Run
from cae_cli.runs.opening import check_trained, open_run, reading
from cae_cli.system import signals
from cae_cli.system.files import claim, typed

HELP = f"""\
usage: cae diagnose RUN [rules.CODE.threshold=…] [rules.CODE.enabled=false]
       cae diagnose MODEL.keras data=npz data.path=x.npz [key=value …]

Applies the rules of the diagnosis again to a finished run, from its files, and
writes a new summary.json and summary.txt. To draw pictures with the new
thresholds, use cae report RUN.

Or diagnoses a Keras autoencoder that was trained elsewhere, on images of your
choice. Rules that need the history of the training are skipped.

for a run:
  --frozen-encoder        first train the same network with a frozen random
                          encoder. The score of the run then counts only what is
                          explained beyond this baseline.

for a model:
{models.HELP}
for both:
{arguments.DIAGNOSIS_HELP}{arguments.TRUST_HELP}\
  --json                  print the content of summary.json
{arguments.RUNS_HELP}
{arguments.RUN_HELP}"""


def main(args: list[str]) -> int:
    """Diagnoses the given run or model."""
    if "--probe" in args:
        raise UserError(
            "cae diagnose has no --probe", where="command line: --probe", hint="cae treat RUN --short"
        )
    flags = arguments.parse("cae diagnose", args)
    if flags.help:
        print(HELP, end="")
        return 0
    subject, overrides = registry.split_one(
        flags.overrides,
        "cae diagnose",
        "cae diagnose last, or cae diagnose model.keras data=npz data.path=x.npz",
        "one run or one model file",
    )
    path = typed(subject)
    with signals.raised():
        if models.is_model(path):
            run, outcome = _model(path, overrides, flags)
        else:
            run = open_run(subject, flags.runs)
            outcome = _run(run, overrides, flags)
    if flags.json:
        json.dump(run.summary(), sys.stdout, indent=2)
        print()
    else:
        arguments.show(outcome, run, flags)
    return arguments.exit_code(flags, outcome.diagnosis)


def _run(run: Run, overrides: Sequence[str], flags: argparse.Namespace) -> experiment.Outcome:
    others = [word for word in overrides if not key_of(word).startswith("rules.")]
    if others:
        raise UserError(
            "only options of rules can change in the diagnosis of a run",
            where=f"command line: {others[0]}",
            hint="rules.CAE401.threshold=0.5; or cae rerun for another run",
        )
    rules = models.rules(overrides)
    if flags.frozen_encoder:
        check_trained(run, "leave out --frozen-encoder")
        _train_frozen(run)
    with reading(run):
        return experiment.report(run, rules, pictures=flags.frozen_encoder)


def _train_frozen(run: Run) -> None:
    """Trains the network of a run with a frozen encoder, in a folder inside the run's."""
    with reading(run):  # finds damaged files before anything is trained
        experiment.diagnose(run)
    change = "training.frozen=encoder"
    again = overrides_of_run(run, [change])
    for note in again.notes():
        terminal.Screen().say(note)
    words = [*again.overrides, change]
    options = models.options(words, trusted=False)
    folder = Run(claim(run.root / "frozen_encoder"))
    frozen = experiment.run(options, ["cae", "train", *words], folder)
    run.write_control(frozen.metrics.quality.explained_variance)


def _model(
    path: Path, overrides: Sequence[str], flags: argparse.Namespace
) -> tuple[Run, experiment.Outcome]:
    from cae_cli.external import model

    if flags.frozen_encoder:
        raise UserError(
            "a model that was trained elsewhere cannot be trained again",
            where="command line: cae diagnose",
            hint="leave out --frozen-encoder",
        )
    parent = Path("runs/diagnose")
    return models.work_on(path, overrides, flags, "cae diagnose", parent, model.diagnose_file)
