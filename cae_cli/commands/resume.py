"""``cae resume RUN``: goes on with a run that was cut short, or trains a finished one for longer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from cae_cli import experiment
from cae_cli.commands import composing
from cae_cli.commands.args import RUN_WORDS, RUNS
from cae_cli.commands.diagnose import judged, opened
from cae_cli.config import compose
from cae_cli.config.schema import Config, parse
from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.options import OptionError, key_of
from cae_cli.report import terminal
from cae_cli.runs import registry
from cae_cli.runs.folder import Run
from cae_cli.sweep.job import unforeseen
from cae_cli.system import signals

# What may change: the steps that are made already stay what they were.
LONGER = ("training.epochs", "training.steps", "training.early_stopping")

HELP = f"""\
usage: cae resume RUN [training.epochs=N]

Goes on with a run that was interrupted or killed, from the end of its last whole
epoch. What comes out is what would have come out had nothing happened, to the
bit, on the same machine with the same packages.

  training.epochs=N       trains so many epochs in all; of a finished run too
  training.steps=N        the same in steps
  training.early_stopping=N    if the run has early stopping: its patience
  rules.CODE.threshold=…  as in cae train

{RUN_WORDS}
flags:
{composing.HELP}{RUNS}"""


def main(arguments: list[str]) -> int:
    """Goes on with the run that comes first."""
    flags = composing.parse("cae resume", arguments)
    if flags.help:
        print(HELP, end="")
        return 0
    subject, overrides = registry.split_one(
        flags.overrides, "cae resume", "cae resume last training.epochs=40"
    )
    run = opened(registry.find(subject, flags.runs))
    setup, status = run.setup(), run.status().get("status")
    options, command = _changed(setup, overrides, run)
    before = _options(setup["config"], run)
    if status == "running":
        raise UserError(
            "the run is still at work",
            where=run.folder,
            hint=f"wait until it has ended; its process is {run.status().get('pid')}",
        )
    if status == "ok" and options == before:
        terminal.talk().print("the run has finished already; training.epochs=N trains it for longer")
        outcome = judged(run)
    else:
        _check(run, options, before)
        with signals.raised():
            outcome = _resumed(run, options, command)
    terminal.show(outcome.summary(verbose=flags.verbose))
    terminal.show([terminal.folder(run.folder)])
    return 1 if outcome.failed else composing.exit_code(flags, outcome.diagnosis)


def _resumed(run: Run, options: Config, command: Sequence[str]) -> experiment.Outcome:
    try:
        experiment.check_early(options)
        return experiment.run(options, command, run, again=True)
    except UserError:
        composing.tell_how_to_go_on(run)
        raise
    except (RunFailed, Interrupted):
        terminal.show([terminal.folder(run.folder)])
        composing.tell_how_to_go_on(run)
        raise
    except Exception as error:
        raise unforeseen(error, run) from error


def _changed(setup: dict[str, Any], overrides: Sequence[str], run: Run) -> tuple[Config, list[str]]:
    """The run's options with the overrides, and the command that leads to them.

    Raises:
        UserError: something else than the length would change, or the run has no options.
    """
    command = [str(word) for word in setup.get("command") or ()]
    if not command:
        raise UserError(
            "this tool did not train that model, so it cannot go on with it",
            where=run.folder,
            hint="cae train makes runs that can go on",
        )
    config = copy.deepcopy(setup["config"])
    for override in compose.parsed(overrides):
        key, word = override.key_or_group, override.input_line or ""
        if override.is_sweep_override() or override.is_delete():
            raise UserError(f"{key} needs one value", where=f"command line: {word}", hint=f"{key}=40")
        if key not in LONGER and not key.startswith("rules."):
            raise UserError(
                f"{key} cannot change in the middle of a run",
                where=f"command line: {word}",
                hint=f"cae train for another run; what may change: {', '.join(LONGER)}",
            )
        parts = key.split(".")
        node = config
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        if key == LONGER[2] and (node[parts[-1]] is None) != (override.value() is None):
            raise UserError(
                f"{key} cannot begin or end in the middle of a run",
                where=f"command line: {word}",
                hint=f"the run began with {key}={node[parts[-1]] or 'null'}",
            )
        node[parts[-1]] = override.value()
        given = key in map(key_of, command)
        command = [word if key_of(w) == key else w for w in command] + [word] * (not given)
    return _options(config, run), command


def _options(config: dict[str, Any], run: Run) -> Config:
    try:
        return parse(OmegaConf.create(config))
    except OptionError as error:
        error.where = str(run.folder / "run.json")
        raise


def _check(run: Run, options: Config, before: Config) -> None:
    """Whether going on makes sense.

    Raises:
        UserError: it does not.
    """
    if run.has_ended() and run.training().get("diverged_at") is not None:
        raise UserError(
            "the training diverged, and would do so again",
            where=run.folder,
            hint=f"cae diagnose {run.folder} says what may help",
        )
    rows = run.read_metrics() if run.has_trained() else {}
    epochs, steps = (int(rows[name][-1]) if rows else 0 for name in ("epoch", "step"))
    if options.training.epochs < epochs:
        raise UserError(
            f"training.epochs must be at least {epochs}: so many are trained already",
            where=run.folder,
            hint="cae train for a shorter run",
        )
    if not steps:
        return
    totals = [steps // epochs * o.training.epochs for o in (before, options)]
    if len({options.schedule.rate_factor(steps - 1, total, []) for total in totals}) > 1:
        terminal.Screen().say(
            f"! the learning rate of the first {epochs} epochs was planned for "
            f"{before.training.epochs}: a run planned for {options.training.epochs} would differ"
        )
