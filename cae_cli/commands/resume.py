"""``cae resume RUN``: resumes an interrupted run, or trains a finished one for longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cae_cli import experiment
from cae_cli.commands import arguments
from cae_cli.config import compose
from cae_cli.config.schema import Config, parse, plain
from cae_cli.errors import Interrupted, RunFailed, UserError, to_paste
from cae_cli.options import OptionError, key_of, not_a_group
from cae_cli.report import terminal
from cae_cli.runs import registry
from cae_cli.runs.folder import Run
from cae_cli.runs.opening import open_trained, reading
from cae_cli.sweep.job import unforeseen
from cae_cli.system import signals

# These may change: they leave the steps that were already made as they are.
LONGER = ("training.epochs", "training.steps", "training.early_stopping")

HELP = f"""\
usage: cae resume RUN [training.epochs=N] [--force]

Resumes a run that was interrupted or killed, from the end of its last complete
epoch. On the same machine with the same packages the results are bit-identical
to those of an uninterrupted run.

  training.epochs=N       train for N epochs in total; extends a finished run
  training.steps=N        train for N steps in total
  training.early_stopping=N
                          change the patience, if the run has early stopping
  rules.CODE.threshold=…  options of rules, as in cae train
  --force                 resume a run that may be in progress on another
                          machine, on a file system without locks. If it is,
                          both processes write the same files.

{arguments.RUN_HELP}
flags:
{arguments.DIAGNOSIS_HELP}{arguments.RUNS_HELP}"""


def main(args: list[str]) -> int:
    """Resumes the given run."""
    flags = arguments.parse("cae resume", args)
    if flags.help:
        print(HELP, end="")
        return 0
    name, overrides = registry.split_one(
        flags.overrides, "cae resume", "cae resume last training.epochs=40"
    )
    run = open_trained(name, flags.runs, "only runs of cae train can be resumed")
    run.check_idle(force=flags.force)
    setup, status = run.setup(), run.status().get("status")
    before = _options(setup["config"], run)
    options, command = _changed(before, setup["command"], overrides, run)
    if status == "ok" and options == before:
        terminal.Screen().say("the run has already finished; training.epochs=N trains it for longer")
        with reading(run):
            outcome = experiment.diagnose(run)
    else:
        with reading(run):
            _check(run, options, before)
        with signals.raised():
            outcome = _resumed(run, options, command)
    return arguments.show(outcome, run, flags)


def _resumed(run: Run, options: Config, command: Sequence[str]) -> experiment.Outcome:
    try:
        experiment.check_early(options, resume=True)
        return experiment.run(options, command, run, resume=True)
    except UserError:
        arguments.say_how_to_resume(run)
        raise
    except (RunFailed, Interrupted):
        terminal.show([terminal.folder(run.folder)])
        arguments.say_how_to_resume(run)
        raise
    except Exception as error:
        raise unforeseen(error, run) from error


def _changed(
    before: Config, command: Sequence[str], overrides: Sequence[str], run: Run
) -> tuple[Config, list[str]]:
    """The options of the run with the overrides, and the command that leads to them.

    Raises:
        UserError: an override changes more than the length.
    """
    config, command = plain(before), list(command)
    for override in compose.parsed(overrides):
        key, word = override.key_or_group, override.input_line or ""
        if override.is_sweep_override() or override.is_delete():
            raise UserError(f"{key} needs one value", where=f"command line: {word}", hint=f"{key}=40")
        if key not in LONGER and not key.startswith("rules."):
            raise UserError(
                f"{key} cannot change when a run is resumed",
                where=f"command line: {word}",
                hint=f"start another run with cae rerun; these may change: {', '.join(LONGER)}",
            )
        parts = key.split(".")
        node = config
        for part in parts[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise not_a_group(key.rpartition(".")[0], node)
        if key == LONGER[2] and (node[parts[-1]] is None) != (override.value() is None):
            raise UserError(
                f"{key} cannot be switched on or off when a run is resumed",
                where=f"command line: {word}",
                hint=f"the run was started with {key}={node[parts[-1]] or 'null'}",
            )
        node[parts[-1]] = override.value()
        given = key in map(key_of, command)
        command = [word if key_of(w) == key else w for w in command] + [word] * (not given)
    return _options(config, run), command


def _options(config: dict[str, Any], run: Run) -> Config:
    try:
        return parse(config)
    except OptionError as error:
        error.where = str(run.folder / "run.json")
        raise


def _check(run: Run, options: Config, before: Config) -> None:
    """Raises UserError if the run cannot be resumed with these options."""
    if run.has_ended() and run.training().get("diverged_at") is not None:
        raise UserError(
            "the training diverged, and would diverge again",
            where=run.folder,
            hint=f"see which fixes are proposed: {to_paste('cae', 'report', run.folder)}",
        )
    rows = run.read_metrics() if run.has_trained() else {}
    epochs, steps = (int(rows[name][-1]) if rows else 0 for name in ("epoch", "step"))
    now, then = options.training, before.training
    if now.steps and now.epochs != then.epochs:
        raise UserError(
            f"training.epochs={now.epochs} changes nothing: training.steps={now.steps} decides",
            where=run.folder,
            hint=f"use training.steps=…, or training.steps=null training.epochs={now.epochs}",
        )
    name, least, planned = "epochs", epochs, now.epochs
    if now.steps:
        name, least, planned = "steps", steps, now.steps
    if planned < least:
        raise UserError(
            f"training.{name} must be at least {least}, the number of {name} already trained",
            where=run.folder,
            hint="start a shorter run with cae rerun",
        )
    if not steps:
        return
    per_epoch = int(rows["step"][1])  # a training that ends within its first epoch has a lower total
    totals = [o.training.steps or per_epoch * o.training.epochs for o in (before, options)]
    factors = [options.schedule.rate_factors([steps - 1], total, []) for total in totals]
    if factors[0] != factors[1]:
        terminal.Screen().say(
            f"! the learning rate of the first {epochs} epochs was scheduled for {totals[0]} steps: "
            f"a run that starts with {totals[1]} differs"
        )
