"""``cae train``: checks every job, claims a folder, and lets Hydra run the job or the sweep."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cae_cli import compose, experiment, interrupts, loader, sweep
from cae_cli.commands import line
from cae_cli.config import parse
from cae_cli.durable import at_work, claim, make
from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.options import key_of
from cae_cli.report import terminal
from cae_cli.run import Run

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
  cae train data=image_folder data.path=photos data.image_size=64
  cae train experiment=reference_3_ssim data=npz data.path=mine.npz

flags:
  -m, --multirun          a sweep: keys may have several values, a,b or range(0,5)
  -c, --cfg job           print the composed config and stop (also: hydra, all)
  -cd, --config-dir DIR   a folder with configs of your own, laid out like configs/
  -cn, --config-name N    another primary config
  -i, --info              print how the config is composed
"""
    + line.HELP
    + line.COMPOSING
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
    flags = line.parse("cae train", arguments)
    sources = line.sources(flags)
    if flags.help:
        print(HELP.format(groups=_groups(sources)), end="")
        return 0
    if flags.hydra_help or flags.cfg or flags.info:
        if flags.multirun:  # of a sweep, the first job is shown
            flags.multirun, flags.overrides = False, compose.jobs(flags.overrides)[0]
        _run_hydra(flags, sources)
        return 0
    with interrupts.raised():
        if flags.multirun:
            return _sweep(flags, sources)
        return _single(flags, sources)


def _single(flags: argparse.Namespace, sources: compose.Sources) -> int:
    node, config = compose.checked(flags.overrides, sources)
    experiment.check_early(config)
    folder, is_new = _folder(node, flags.overrides, "hydra.run.dir")
    run = Run(folder)
    _outcome.clear()
    with at_work(folder):
        _check_empty(folder, "hydra.run.dir")
        try:
            _run_hydra(flags, sources, f"hydra.run.dir={_quoted(folder)}")
            [outcome] = _outcome
            if isinstance(outcome, Exception):
                raise outcome
        except UserError:
            if is_new and not run.has_trained():  # nothing happened that is worth a folder
                shutil.rmtree(folder, ignore_errors=True)
            line.tell_how_to_go_on(run)
            raise
        except (RunFailed, Interrupted):
            terminal.show([terminal.folder(folder)])
            line.tell_how_to_go_on(run)
            raise
    terminal.show(outcome.summary(verbose=flags.verbose))
    terminal.show([terminal.folder(folder)])
    return 1 if outcome.failed else line.exit_code(flags, outcome.diagnosis)


def _sweep(flags: argparse.Namespace, sources: compose.Sources) -> int:
    overrides = compose.with_sweeper_params(flags.overrides, sources)
    jobs = compose.jobs(overrides)
    with terminal.Screen().doing(f"checking {len(jobs)} jobs …"):
        nodes = [_checked_job(job, number, sources) for number, job in enumerate(jobs)]
    folder, _ = _folder(nodes[0], flags.overrides, "hydra.sweep.dir")
    swept = set(compose.swept_keys(overrides))
    fixed = {o.key_or_group for o in compose.parsed(overrides)} - swept
    unnamed = sorted(key for key in fixed if not key.startswith("hydra"))
    exclude = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(unnamed)}]"
    with at_work(folder):
        _check_empty(folder, "hydra.sweep.dir")
        try:
            _run_hydra(flags, sources, f"hydra.sweep.dir={_quoted(folder)}", exclude)
        finally:
            done = sweep.read(folder, compose.count(overrides))
            terminal.show([*terminal.jobs(done.rows(), done.planned), terminal.folder(folder)])
    return line.exit_code(flags, done) if done.all_ok else 1


def _checked_job(overrides: list[str], number: int, sources: compose.Sources) -> DictConfig:
    try:
        node, config = compose.checked(overrides, sources)
        experiment.check_early(config)
        with compose.errors_in_words(overrides, sources):
            loader.check_subdir(node, number)
    except UserError as error:
        error.where = error.where or f"job: {' '.join(overrides)}"
        raise
    return node


# What the job of a single run came to. Hydra would print a line of its own about an exception, and
# drop a result.
_outcome: list[experiment.Outcome | Exception] = []


def job(node: DictConfig) -> float | None:
    """One run; called by Hydra, once for each job of a sweep.

    A failing job of a sweep does not stop the others: its error is shown and written into its
    folder, and its result is NaN.
    """
    context = HydraConfig.get()
    run = Run(Path(context.runtime.output_dir))
    is_sweep = context.mode is not None and context.mode.name == "MULTIRUN"
    screen = terminal.Screen()
    if is_sweep:
        screen.console.print()
        screen.say(f"job {context.job.num}: {' '.join(context.overrides.task)}")
    try:
        outcome = experiment.run(parse(node), _command(context), run)
    except Exception as error:
        if not isinstance(error, UserError | RunFailed):
            error = line.unforeseen(error, run)
        if is_sweep:
            terminal.show_error(error)
        else:
            _outcome.append(error)
        return float("nan")
    if is_sweep:
        terminal.show([terminal.verdict(outcome.diagnosis)])
    else:
        _outcome.append(outcome)
    return float("nan") if outcome.failed else None


def _command(context: Any) -> list[str]:
    """The words that make a job again by itself."""
    words = ["cae", "train"]
    for source in context.runtime.config_sources:
        if source.provider == "command-line":
            words += ["-cd", source.path]
    if context.job.config_name != "config":
        words += ["-cn", context.job.config_name]
    return [*words, *map(compose.as_typed, context.overrides.task)]


def job_folder(number: int, overrides: str) -> str:
    """Name of a job's folder: its number and what was swept, at most some 70 characters."""
    slug = re.sub(r"[^\w=.,+-]+", "-", overrides).strip("-")
    if len(slug) > 60:
        slug = f"{slug[:60]}_{hashlib.sha256(slug.encode()).hexdigest()[:6]}"
    return f"{number}_{slug}" if slug else str(number)


# Here, where every process that unpickles `job` comes by.
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


def _words(flags: argparse.Namespace) -> list[str]:
    """The command line again, flags first."""
    words: list[str] = []
    for name in ("multirun", "hydra_help", "resolve"):
        if getattr(flags, name):
            words.append(f"--{name.replace('_', '-')}")
    for name in ("cfg", "info", "package"):
        if getattr(flags, name):
            words += [f"--{name}", getattr(flags, name)]
    return [*words, *flags.overrides]


def _run_hydra(flags: argparse.Namespace, sources: compose.Sources, *more: str) -> None:
    """Calls Hydra's own main with the command line, and ``more`` overrides of ours.

    Raises:
        UserError: what Hydra itself objects to.
    """
    folders = [word for folder in sources.folders for word in ("--config-dir", str(folder))]
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["cae", *folders, *compose.with_new_keys(_words(flags)), *more]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    decorated = hydra.main(
        version_base="1.3", config_path=str(compose.CONFIGS), config_name=sources.config_name
    )
    try:
        with compose.errors_in_words(flags.overrides, sources), loader.guarding(sources.trust):
            decorated(job)()
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


def _quoted(path: Path) -> str:
    """A path as the value of an override: backslashes count only before a quote, and at the end."""
    text = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), str(path))
    return f"'{text}'"


def _groups(sources: compose.Sources) -> str:
    from cae_cli.config import GROUPS

    width = max(map(len, GROUPS))
    lines = []
    for group, what in GROUPS.items():
        names = textwrap.wrap(", ".join(sources.options(group)), 76 - width)
        lines += [f"  {group:<{width}}  {what}", *(f"  {'':<{width}}  {line}" for line in names)]
    return "\n".join(lines)
