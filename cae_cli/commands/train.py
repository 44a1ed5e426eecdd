"""``cae train``: checks every job, claims a folder, and lets Hydra run the job or the sweep."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cae_cli import compose, experiment, sweep
from cae_cli.config import parse, plain
from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.report import terminal
from cae_cli.run import Run, claim, make

HELP = """\
usage: cae train [-m] [group=option …] [key=value …]

Composes an experiment from config groups, trains a convolutional autoencoder, writes pictures of its
filters, feature maps and reconstructions into a new folder below runs/, and says what is wrong.

config groups (cae options GROUP tells more):
{groups}

examples:
  cae train model=l2 loss=ssim
  cae train loss.window=7 training.epochs=20 seed=3
  cae train 'regularization=[l2,dropout]' regularization.dropout.rate=0.2
  cae train -m model=baseline,l2 loss=mse,ssim     one run for each combination
  cae train data=image_folder data.path=photos data.image_size=64
  cae train experiment=reference_3_ssim data=npz data.path=mine.npz

flags:
  -m, --multirun          a sweep: a key may have several values, a,b or range(0,5)
  -c, --cfg job           print the composed config and stop (also: hydra, all)
  -cd, --config-dir DIR   a folder with configs of your own, laid out like configs/
  -cn, --config-name N    another primary config
  -i, --info              print how the config is composed
  --hydra-help            flags and groups of Hydra itself
"""


def main(arguments: list[str]) -> int:
    """Runs ``cae train``.

    Returns:
        0; 1 if a job of a sweep failed.

    Raises:
        UserError: a mistake of the user, found before or while the run starts.
        RunFailed: the run could not be finished.
        Interrupted: SIGINT or SIGTERM.
    """
    flags = _parse(arguments)
    sources = _sources(flags)
    if flags.help:
        print(HELP.format(groups=_groups(sources)), end="")
        return 0
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    if flags.hydra_help or flags.cfg or flags.info:
        if not flags.hydra_help:
            compose.composed(flags.overrides if not flags.multirun else [], sources)
        _run_hydra(_words(flags), sources)
        return 0
    with _signals_raise():
        if flags.multirun:
            return _sweep(flags, sources)
        return _single(flags, sources)


def _single(flags: argparse.Namespace, sources: compose.Sources) -> int:
    node, config = compose.checked(flags.overrides, sources)
    experiment.check_early(config)
    folder = _folder(node, flags.overrides, "hydra.run.dir")
    words = [*_words(flags), f"hydra.run.dir={_quoted(folder)}"]
    try:
        _run_hydra(words, sources)
    except UserError:
        if not Run(folder).is_set_up():  # nothing happened that is worth a folder
            shutil.rmtree(folder, ignore_errors=True)
        raise
    except RunFailed:
        terminal.show_folder(folder)
        raise
    terminal.show_folder(folder)
    return 0


def _sweep(flags: argparse.Namespace, sources: compose.Sources) -> int:
    jobs = compose.jobs(flags.overrides)
    checked = [compose.checked(job, sources) for job in jobs]
    for _, config in checked:
        experiment.check_early(config)
    folder = _folder(checked[0][0], flags.overrides, "hydra.sweep.dir")
    swept = set(compose.swept_keys(flags.overrides))
    fixed = [o.get_key_element() for o in compose.parsed(flags.overrides)]
    unnamed = [key for key in fixed if key not in swept and not key.startswith("hydra.")]
    words = [
        *_words(flags),
        f"hydra.sweep.dir={_quoted(folder)}",
        f"hydra.job.config.override_dirname.exclude_keys=[{','.join(unnamed)}]",
    ]
    try:
        _run_hydra(words, sources)
    finally:
        outcome = sweep.read(folder)
        sweep.show(outcome)
    return 0 if outcome.all_ok else 1


# What a single run raised. Hydra would print a line of its own if it came through there.
_failures: list[Exception] = []


def job(node: DictConfig) -> float | None:
    """One run; called by Hydra, once for each job of a sweep.

    A failing job of a sweep does not stop the others: its error is shown and written into its
    folder, and its result is NaN.
    """
    context = HydraConfig.get()
    run = Run(Path(context.runtime.output_dir))
    is_sweep = context.mode is not None and context.mode.name == "MULTIRUN"
    overrides = list(context.overrides.task)
    screen = terminal.Screen()
    if is_sweep:
        screen.say(f"\njob {context.job.num}: {' '.join(overrides)}")
    try:
        experiment.run(parse(node), plain(node), overrides, run, brief=is_sweep)
    except Exception as error:
        if not is_sweep:
            _failures.append(error)
        elif isinstance(error, UserError | RunFailed):
            terminal.show_error(error)
        else:
            name = type(error).__name__
            terminal.show_error(RunFailed(f"{name}: {error}", hint=f"the traceback: {run.log}"))
        return float("nan")
    return None


def job_folder(number: int, overrides: str) -> str:
    """Name of a job's folder: its number and what was swept, at most some 70 characters."""
    slug = re.sub(r"[^\w=.,+-]+", "-", overrides).strip("-")
    if len(slug) > 60:
        slug = f"{slug[:60]}_{hashlib.sha256(slug.encode()).hexdigest()[:6]}"
    return f"{number}_{slug}" if slug else str(number)


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Hydra's flags and overrides, in any order; stock Hydra wants the flags first."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(message, where="command line", hint="cae train --help")

    parser.error = refuse  # type: ignore[method-assign]
    flags = parser.parse_intermixed_args(arguments)
    if flags.experimental_rerun:
        raise UserError(
            "--experimental-rerun loads a pickle, which may run anything", where="command line"
        )
    return flags


def _sources(flags: argparse.Namespace) -> compose.Sources:
    if flags.config_path is not None:
        raise UserError(
            "--config-path would leave out cae's own configs",
            where=f"command line: {flags.config_path}",
            hint=f"--config-dir {flags.config_path} adds a folder to them",
        )
    folders = []
    if flags.config_dir is not None:
        folder = Path(flags.config_dir).expanduser().resolve()
        if not folder.is_dir():
            raise UserError(f"no such folder: {flags.config_dir}", where="--config-dir")
        folders.append(folder)
    return compose.Sources(flags.config_name or "config", tuple(folders))


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


def _run_hydra(words: list[str], sources: compose.Sources) -> None:
    """Calls Hydra's own main with ``words`` as its command line; errors are raised."""
    folders = [word for folder in sources.folders for word in ("--config-dir", str(folder))]
    before_argv, before_error = sys.argv, compose.quiet_full_error()
    sys.argv = ["cae", *folders, *words]
    decorated = hydra.main(
        version_base="1.3", config_path=str(compose.CONFIGS), config_name=sources.config_name
    )
    _failures.clear()
    try:
        decorated(job)()
    finally:
        sys.argv = before_argv
        if before_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before_error
    if _failures:
        raise _failures[0]


def _folder(node: DictConfig, overrides: list[str], key: str) -> Path:
    """A folder of its own for the run or sweep: the one that was asked for, or a new one."""
    folder = Path(OmegaConf.select(node, key))
    if not any(override.lstrip("+").startswith(f"{key}=") for override in overrides):
        return claim(folder)
    make(folder)
    if any(folder.iterdir()):
        raise UserError(
            f"{key} is not empty, and a run never writes over another",
            where=folder,
            hint=f"leave {key} out for a new folder",
        )
    return folder


def _quoted(path: Path) -> str:
    """A path as the value of an override."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _groups(sources: compose.Sources) -> str:
    from cae_cli.config import GROUPS

    width = max(map(len, GROUPS))
    lines = []
    for group, what in GROUPS.items():
        names = ", ".join(sources.options(group))
        lines.append(f"  {group:<{width}}  {what}\n  {'':<{width}}  {names}")
    return "\n".join(lines)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Interrupted` wherever the process is."""

    def handle(number: int, frame: Any) -> NoReturn:
        raise Interrupted(number)

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
