"""``cae train``: checks every job, claims a folder, and lets Hydra run the job or the sweep."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from cae_cli import experiment, sweep
from cae_cli.commands import composing
from cae_cli.config import compose, loader
from cae_cli.config.overrides import quoted
from cae_cli.config.schema import METRICS, Config
from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.options import key_of
from cae_cli.report import terminal
from cae_cli.runs.folder import Run
from cae_cli.sweep import SweepFile, SweepFolder, Target, grid, launcher
from cae_cli.sweep.job import Task, wants_errors
from cae_cli.sweep.jobs import unplanned
from cae_cli.system import signals
from cae_cli.system.files import at_work, claim, is_in_use, make

HELP = (
    """\
usage: cae train [-m] [group=option …] [key=value …]

Composes an experiment from config groups, trains a convolutional autoencoder,
writes pictures of its filters, feature maps and reconstructions into a new
folder below runs/, and says what is wrong.

config groups (cae options GROUP tells more):
{groups}

examples:
  cae train model=l2 loss=ssim
  cae train loss=ssim loss.window=7 training.epochs=20 seed=3
  cae train 'regularization=[l2,dropout]' regularization.dropout.rate=0.2
  cae train -m model=baseline,l2 loss=mse,ssim    one run for each combination
  cae train -m 'sweep.pairs=[{{model:baseline,loss:mse}},{{model:l2,loss:ssim}}]'
                                                  values that belong together
  cae train -m model=baseline,l2 loss=mse,ssim 'sweep.exclude=[{{model:l2,loss:mse}}]'
                                                  and combinations left out
  cae train data=image_folder data.path=photos data.image_size=64
  cae train experiment=reference_3_ssim data=npz data.path=mine.npz

flags:
  -m, --multirun          a sweep: keys may have several values, a,b or range(0,5);
                          the same command again goes on with it
  -c, --cfg job           print the composed config and stop (also: hydra, all)
  -cd, --config-dir DIR   a folder with configs of your own, laid out like configs/
  -cn, --config-name N    another primary config
  -i, --info              print how the config is composed
"""
    + composing.HELP
    + composing.COMPOSING
    + """\
  --hydra-help            flags and groups of Hydra itself
"""
)


def main(arguments: list[str]) -> int:
    """Runs ``cae train``.

    Returns:
        0; 1 if a job of a sweep failed.

    Raises:
        UserError: a mistake of the user, found before or while the run starts.
        RunFailed: the run could not be finished.
        Interrupted: SIGINT or SIGTERM.
    """
    flags = composing.parse("cae train", arguments)
    sources = composing.sources(flags)
    if flags.help:
        print(HELP.format(groups=_groups(sources)), end="")
        return 0
    if flags.hydra_help or flags.cfg or flags.info:
        if flags.multirun:  # of a sweep, the first job is shown
            words, own, _ = grid.taken_out(flags.overrides)
            flags.multirun, flags.overrides = False, own.jobs(compose.jobs(words))[0]
        _run_hydra(flags, flags.overrides, sources)
        return 0
    with signals.raised():
        if flags.multirun:
            return _sweep(flags, sources)
        return _single(flags, sources)


def _single(flags: argparse.Namespace, sources: compose.Sources) -> int:
    for word in flags.overrides:
        if key_of(word) in (grid.PAIRS, grid.EXCLUDE):
            raise UserError(
                f"{key_of(word)} is for sweeps", where=f"command line: {word}", hint="cae train -m …"
            )
    node, config = compose.checked(flags.overrides, sources)
    experiment.check_early(config)
    folder, is_new = _folder(node, flags.overrides, "hydra.run.dir")
    run = Run(folder)
    task = Task()
    with at_work(folder):
        _check_empty(folder, "hydra.run.dir")
        try:
            _run_hydra(flags, flags.overrides, sources, f"hydra.run.dir={quoted(folder)}", task=task)
            outcome = task.outcome
            if isinstance(outcome, Exception):
                raise outcome
            assert outcome is not None
        except UserError:
            if is_new and not run.has_trained():  # nothing happened that is worth a folder
                shutil.rmtree(folder, ignore_errors=True)
            composing.tell_how_to_go_on(run)
            raise
        except (RunFailed, Interrupted):
            terminal.show([terminal.folder(folder)])
            composing.tell_how_to_go_on(run)
            raise
    terminal.show(outcome.summary(verbose=flags.verbose))
    terminal.show([terminal.folder(folder)])
    return 1 if outcome.failed else composing.exit_code(flags, outcome.diagnosis)


def _sweep(flags: argparse.Namespace, sources: compose.Sources) -> int:
    words, own, for_sweeper = grid.taken_out(flags.overrides)
    overrides = compose.with_sweeper_params(words, sources)
    jobs = compose.jobs(overrides)
    own.check(overrides, jobs)
    jobs = own.jobs(jobs)
    with terminal.Screen().doing(f"checking {len(jobs)} jobs …"):
        checked = [_checked_job(job, number, sources) for number, job in enumerate(jobs)]
    node, config = checked[0]
    swept = [*compose.swept_keys(overrides), *own.keys]
    fixed = {o.key_or_group for o in compose.parsed(overrides)} - set(swept)
    unnamed = sorted(key for key in fixed if not key.startswith("hydra"))
    target = None
    if config.optimized_metric is not None:
        target = Target(config.optimized_metric, METRICS[config.optimized_metric])
    more = [
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(unnamed)}]",
        *for_sweeper,
        *_for_a_search(node, target, words),
    ]
    if Path.cwd() not in [Path(folder).resolve() for folder in sys.path]:
        # Python's own processes would look for modules in the current folder, whoever made it.
        os.environ["PYTHONSAFEPATH"] = "1"
    task = Task(rules=flags.rules)
    is_ours = launcher.is_chosen(node)
    if not is_ours and "hydra.sweep.subdir" not in map(key_of, words):
        # Others do not see that two jobs are the same, as sweepers that search may want.
        subdir = "${hydra.job.num}_${job_folder:${hydra.job.override_dirname}}"
        more.append(f"hydra.sweep.subdir='{subdir}'")
    command = _sweep_command(flags)
    status = "failed"
    with _sweep_folder(node, words, command, goes_on=is_ours) as place:
        before = place.read() if place.is_written() else None
        content = SweepFile(
            tuple(command), tuple(swept), "running", target, before.jobs if before else ()
        )
        early = before is None or before.status != "ok"  # else there may be nothing to do
        place.write(content)
        try:
            with launcher.serving(place, early=early) if is_ours else contextlib.nullcontext():
                own_folder = f"hydra.sweep.dir={quoted(place.folder)}"
                _run_hydra(flags, words, sources, own_folder, *more, task=task)
            if not is_ours:
                place.write(dataclasses.replace(content, jobs=unplanned(place.folder)[1]))
            done = sweep.read(place.folder)
            asked = {folder.name for folder in task.folders}
            ended = [job for job in done.jobs if not is_ours or job.folder.name in asked]
            # Workers of another launcher may have died before their folders were made.
            planned = len(asked) if is_ours else len(jobs) * (_sweeper(node) in GRIDS)
            if len(ended) >= planned and all(job.status == "ok" for job in ended):
                status = "ok"
                (place.folder / launcher.SERVER_LOG).unlink(missing_ok=True)
        except Interrupted:
            status = "interrupted"
            raise
        finally:
            place.write(dataclasses.replace(place.read(), status=status))
            done = sweep.read(place.folder)
            if done.jobs:
                terminal.show([*sweep.show(done), terminal.folder(place.folder)])
            if status == "interrupted" and is_ours:
                terminal.Screen().say("the same command goes on with it")
    return composing.exit_code(flags, done) if status == "ok" else 1


GRIDS = ("basic", "grid")  # sweepers that have all combinations


def _sweeper(node: DictConfig) -> str:
    return str(node.hydra.runtime.choices["hydra/sweeper"])


def _for_a_search(node: DictConfig, target: Target | None, words: Sequence[str]) -> list[str]:
    """Tells a sweeper that searches which way to go, and to go on when a job fails.

    Raises:
        UserError: it would go the other way, or does not know what for.
    """
    sweeper = _sweeper(node)
    if sweeper in GRIDS:
        return []
    if target is None:
        raise UserError(
            f"hydra/sweeper={sweeper} has to know what it looks for",
            hint=f"optimized_metric=val/psnr, or {', '.join(m for m in METRICS if m != 'val/psnr')}",
        )
    right = {"max": "maximize", "min": "minimize"}[target.goal]
    more = []
    if wants_errors(node.hydra) and "hydra.sweeper.max_failure_rate" not in map(key_of, words):
        more.append("hydra.sweeper.max_failure_rate=1.0")  # the others go on
    if "direction" not in node.hydra.sweeper:
        return more
    given = next((word for word in words if key_of(word) == "hydra.sweeper.direction"), None)
    if given is None:
        return [*more, f"hydra.sweeper.direction={right}"]
    if right not in given:
        raise UserError(
            f"{target.name} is better the {'higher' if target.goal == 'max' else 'lower'} it is",
            where=f"command line: {given}",
            hint=f"leave it out, or hydra.sweeper.direction={right}",
        )
    return more


def _sweep_command(flags: argparse.Namespace) -> list[str]:
    cae, train, *words = composing.again(flags)
    return [cae, train, "-m", *words]


@contextlib.contextmanager
def _sweep_folder(
    node: DictConfig, words: list[str], command: Sequence[str], *, goes_on: bool
) -> Iterator[SweepFolder]:
    """The folder of the newest sweep that is the same, else a new one; kept from others meanwhile.

    Args:
        node: a job's config.
        words: overrides of the command line.
        command: the whole.
        goes_on: the launcher can go on with a sweep.

    Raises:
        UserError: the folder that was asked for holds something else.
    """
    key = "hydra.sweep.dir"
    if goes_on and key not in map(key_of, words):
        for place in _earlier(Path(str(OmegaConf.select(node, key))), command):
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(at_work(place.folder))
                except UserError:  # somebody else has just gone on with it
                    continue
                terminal.Screen().say(f"going on with {place.folder}; {key}=FOLDER begins another sweep")
                yield place
                return
    folder, is_new = _folder(node, words, key)
    place = SweepFolder(folder)
    with at_work(folder):
        if not (goes_on and place.is_written()):
            _check_empty(folder, key)
        elif _identity(place.read().command) != _identity(command):
            raise UserError(
                "another sweep is in this folder",
                where=folder,
                hint=f"its command: {shlex.join(place.read().command)}",
            )
        try:
            yield place
        except UserError:
            if is_new and not any(path.is_dir() for path in folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)  # no job was begun
            raise


def _earlier(parent: Path, command: Sequence[str]) -> Iterator[SweepFolder]:
    """Sweeps of the same command that nobody is at work in, the newest first."""
    wanted = _identity(command)
    for folder in sorted(parent.glob("*/"), reverse=True):
        place = SweepFolder(folder)
        if not place.is_written() or is_in_use(folder):
            continue
        try:
            content = place.read()
            if _identity(content.command) != wanted:
                continue
        except UserError:  # damaged, or not a sweep's
            continue
        if content.status != "running" or is_in_use(folder) is False:
            yield place


def _identity(command: Sequence[str]) -> tuple[Any, ...]:
    """What two sweeps have in common that are the same: flags, fixed overrides, swept keys.

    Raises:
        UserError: it is no command of a sweep.
    """
    words = list(command[3:])
    flags = []
    while words and words[0].startswith("-"):
        flags += [words.pop(0) for _ in range(1 if words[0].startswith("--") else 2) if words]
    words, own, _ = grid.taken_out(words)
    overrides = compose.parsed(words)
    swept = {o.key_or_group for o in overrides if o.is_sweep_override()}
    apart = re.compile(r"hydra[./]launcher\b.*|hydra\.sweep\.dir|optimized_metric")
    fixed = {
        o.input_line
        for o in overrides
        if o.key_or_group not in swept and not apart.fullmatch(o.key_or_group)
    }
    return tuple(flags), frozenset(fixed), frozenset(swept | set(own.keys))


def _checked_job(
    overrides: list[str], number: int, sources: compose.Sources
) -> tuple[DictConfig, Config]:
    try:
        node, config = compose.checked(overrides, sources)
        experiment.check_early(config)
        with compose.errors_in_words(overrides, sources):
            loader.check_subdir(node, number)
            launcher.check(node)
    except UserError as error:
        error.where = error.where or f"job: {' '.join(overrides)}"
        raise
    return node, config


def _words(flags: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """The command line again, flags first."""
    words: list[str] = []
    for name in ("multirun", "hydra_help", "resolve"):
        if getattr(flags, name):
            words.append(f"--{name.replace('_', '-')}")
    for name in ("cfg", "info", "package"):
        if getattr(flags, name):
            words += [f"--{name}", getattr(flags, name)]
    return [*words, *overrides]


def _run_hydra(
    flags: argparse.Namespace,
    overrides: Sequence[str],
    sources: compose.Sources,
    *more: str,
    task: Task | None = None,
) -> None:
    """Calls Hydra's own main with flags and overrides, and ``more`` of ours.

    Raises:
        UserError: what Hydra itself objects to.
    """
    folders = [word for folder in sources.folders for word in ("--config-dir", str(folder))]
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["cae", *folders, *compose.with_new_keys(_words(flags, overrides)), *more]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    decorated = hydra.main(
        version_base="1.3", config_path=str(compose.CONFIGS), config_name=sources.config_name
    )
    try:
        with compose.errors_in_words(overrides, sources), loader.guarding(sources.trust):
            decorated(task or Task())()
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _folder(node: DictConfig, overrides: list[str], key: str) -> tuple[Path, bool]:
    """A folder of its own for the run or sweep, and whether it was made for it."""
    with compose.errors_in_words(overrides, compose.Sources()):
        asked = OmegaConf.select(node, key)
    if not isinstance(asked, str) or not asked.strip():
        raise UserError(f"{key} must be a folder, got {asked!r}", hint=f"leave {key} out")
    folder = Path(asked)
    if key not in map(key_of, overrides):
        return claim(folder), True
    return folder, make(folder)


def _check_empty(folder: Path, key: str) -> None:
    if any(folder.iterdir()):
        raise UserError(
            f"{key} is not empty, and a run never writes over another",
            where=folder,
            hint=f"leave {key} out for a new folder, or cae resume {folder}",
        )


def _groups(sources: compose.Sources) -> str:
    from cae_cli.config.schema import GROUPS

    width = max(map(len, GROUPS))
    lines = []
    for group, what in GROUPS.items():
        names = textwrap.wrap(", ".join(sources.options(group)), 76 - width)
        lines += [f"  {group:<{width}}  {what}", *(f"  {'':<{width}}  {line}" for line in names)]
    return "\n".join(lines)
