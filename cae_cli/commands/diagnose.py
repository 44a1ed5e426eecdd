"""``cae diagnose``: judges a run, finds out what helps, or judges any Keras autoencoder."""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cae_cli import experiment
from cae_cli.commands import composing
from cae_cli.commands.args import RUN_WORDS, RUNS
from cae_cli.config import compose
from cae_cli.config.schema import Config
from cae_cli.errors import UserError
from cae_cli.options import key_of
from cae_cli.report import terminal
from cae_cli.runs import registry
from cae_cli.runs.folder import Run
from cae_cli.sweep.job import unforeseen
from cae_cli.system import signals
from cae_cli.system.files import claim, typed, writing

MODELS = (".keras", ".h5", ".hdf5")

HELP = f"""\
usage: cae diagnose RUN [rules.CODE.threshold=…]
       cae diagnose MODEL.keras data=npz data.path=x.npz [key=value …]

Judges a finished run again, from its files; or a Keras autoencoder that
somebody else trained, on images of your choice. Of such a model nothing is
known of its training: rules that need it say so.

a run:
  --probe                 short trainings (200 steps each, one change each) that
                          tell causes apart; says what it tried
  --frozen-encoder               trains the same network with a frozen encoder: what
                          random filters are worth

a model:
  --latent LAYER          the layer whose output is the latent code, if it is not
                          detected
  --custom FILE           a Python file with the classes of its own layers (it is
                          run)
  --unsafe                also opens a file that holds code (Lambda layers), and
                          runs that code, which can do all that you can
  --range=LOW,HIGH        the values it was trained on; 0,1 if nothing is said

both:
{composing.HELP}{composing.COMPOSING}\
  --json                  the content of summary.json on standard output
{RUNS}
{RUN_WORDS}"""


def main(arguments: list[str]) -> int:
    """Judges the run or the model that comes first."""
    flags = composing.parse("cae diagnose", arguments)
    if flags.help:
        print(HELP, end="")
        return 0
    subject, overrides = registry.split_one(
        flags.overrides,
        "cae diagnose",
        "cae diagnose last or cae diagnose model.keras data=npz data.path=x.npz",
        "one run's folder or one model file",
    )
    path = typed(subject)
    with signals.raised():
        if path.suffix.lower() in MODELS and not path.is_dir():
            run, outcome = _model(path, overrides, flags)
        else:
            run, outcome = _run(registry.find(subject, flags.runs), overrides, flags)
    if flags.json:
        json.dump(run.summary(), sys.stdout, indent=2)
        print()
    else:
        terminal.show(outcome.summary(verbose=flags.verbose))
        terminal.show([terminal.folder(run.folder)])
    return composing.exit_code(flags, outcome.diagnosis)


def opened(run: Run) -> Run:
    """A run that has something in its folder.

    Raises:
        UserError: it has not.
    """
    if not run.folder.is_dir():
        raise UserError("no such folder", where=run.folder, hint="cae runs ls")
    if not run.is_set_up():
        raise UserError("run.json is missing", where=run.folder, hint="is this the folder of a run?")
    return run


def judged(
    run: Run,
    rules: dict[str, Any] | None = None,
    how: Callable[[Run, dict[str, Any] | None], experiment.Outcome] = experiment.report,
) -> experiment.Outcome:
    """The outcome of a run, from its files.

    Raises:
        UserError: they are not all there, or damaged.
    """
    with writing(run.folder):
        try:
            return how(run, rules)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"the files of the run do not belong together: {error}",
                where=run.folder,
                hint=f"its status is {run.status().get('status', 'unknown')}",
            ) from error


def _run(
    run: Run, overrides: Sequence[str], flags: argparse.Namespace
) -> tuple[Run, experiment.Outcome]:
    opened(run)
    others = [word for word in overrides if not key_of(word).startswith("rules.")]
    if others:
        raise UserError(
            "a run is judged as it was run: only rules can be told otherwise",
            where=f"command line: {others[0]}",
            hint="rules.CAE401.threshold=.5, or cae train for another run",
        )
    rules = _rules(overrides)
    if not (flags.probe or flags.frozen_encoder):
        return run, judged(run, rules)
    before = judged(run, rules, experiment.diagnose)  # drawn and written once, when all is known
    words = list(before.command)
    if not words:
        raise UserError(
            "this tool did not train that model, so it cannot train it otherwise",
            where=run.folder,
            hint="leave out --probe and --frozen-encoder",
        )
    if flags.frozen_encoder:
        folder = Run(claim(run.folder / "frozen_encoder"))
        frozen_words = ["training.frozen=encoder"]
        options = _options([*words[2:], *frozen_words], trusted=False)
        frozen = experiment.run(options, [*words, *frozen_words], folder)
        run.write_control(frozen.metrics.quality.explained_variance)
    if flags.probe:
        _probe(run, before, words)
    return run, judged(run, rules)


def _probe(run: Run, outcome: experiment.Outcome, words: list[str]) -> None:
    """Makes the short trainings and writes them into the run's folder."""
    from cae_cli.training import backend
    from cae_cli.treatment.trials import trials

    screen = terminal.Screen()
    with backend.quiet(run.log):
        found = trials(
            words,
            outcome.diagnosis,
            functools.partial(_options, trusted=False),
            on_trial=lambda what: screen.say(f"trying {what} …"),
        )
    run.write_trials(found)


def _options(words: Sequence[str], *, trusted: bool, trust_configs: bool = False) -> Config:
    """The config of a command's words behind ``cae train``; those of a run's files are not trusted."""
    flags = composing.parse("cae train", list(words), trusted=trusted)
    flags.trust_configs = trust_configs
    return compose.checked(flags.overrides, composing.sources(flags))[1]


def _rules(overrides: Sequence[str]) -> dict[str, Any]:
    """What the command line says of single rules, checked."""
    if not overrides:
        return {}
    options = _options(overrides, trusted=True)
    return {code: asdict(said) for code, said in options.rules.items()}


def _model(
    path: Path, overrides: Sequence[str], flags: argparse.Namespace
) -> tuple[Run, experiment.Outcome]:
    from cae_cli import data
    from cae_cli.external import model

    if not path.is_file():
        raise UserError("no such file", where=path, hint="a .keras or .h5 file that Keras saved")
    if not any(key_of(word) == "data" for word in overrides):
        raise UserError(
            "on which images?",
            where="command line: cae diagnose",
            hint="data=npz data.path=x.npz, or data=image_folder data.path=photos data.image_size=64",
        )
    if flags.probe or flags.frozen_encoder:
        raise UserError(
            "a model from elsewhere cannot be trained otherwise",
            where="command line: cae diagnose",
            hint="leave out --probe and --frozen-encoder",
        )
    options = _options(overrides, trusted=True, trust_configs=flags.trust_configs)
    with terminal.Screen().doing("reading images …"):
        images = data.load(options.data)
    run = Run(claim(Path("runs/diagnose")))
    opening = model.FileOptions(flags.latent, flags.custom, flags.range or (0.0, 1.0), flags.unsafe)
    try:
        return run, model.diagnose_file(path, images, opening, run, _rules(overrides))
    except UserError:
        shutil.rmtree(run.folder, ignore_errors=True)  # nothing happened that is worth a folder
        raise
    except Exception as error:
        raise unforeseen(error, run) from error
