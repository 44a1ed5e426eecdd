"""``cae rerun RUN``: the config of a run once more, with changes, as a new run of ``cae train``."""

from __future__ import annotations

import argparse
import shlex

from cae_cli.commands import composing, train
from cae_cli.commands.args import RUN_WORDS, RUNS
from cae_cli.commands.diagnose import opened
from cae_cli.config import compose
from cae_cli.config.overrides import overrides_of_run
from cae_cli.errors import UserError
from cae_cli.report import terminal
from cae_cli.runs import registry
from cae_cli.runs.folder import Run, read_any_version

HELP = f"""\
usage: cae rerun RUN [group=option …] [key=value …]

Trains with the config of a run once more, as a new run: the words that come
behind RUN change it, as they change the defaults in cae train. An option that
was chosen anew (loss=ssim) brings its own values, and those of the old one are
left out. With nothing changed the same machine gives the same bits.

Keys that a run of an older version has and that are no longer options are named
and left out; for those that it did not know today's defaults are taken, and that
is said too. What -cd and -cn brought into the old config is part of it; where
the old run was written (hydra.run.dir) is not.

  cae rerun last seed=1
  cae rerun d3tg loss=ssim training.epochs=40
  cae rerun d3tg -m seed=0,1,2        a sweep; all flags of cae train
  cae rerun d3tg --cfg job            shows the config, and trains nothing

{RUN_WORDS}
flags:
{composing.HELP}{composing.COMPOSING}{RUNS}"""


def main(arguments: list[str]) -> int:
    """Runs the run that comes first again."""
    flags = composing.parse("cae rerun", arguments)
    if flags.help:
        print(HELP, end="")
        return 0
    subject, changes = registry.split_one(
        flags.overrides, "cae rerun", "cae rerun last seed=1", "one run"
    )
    run = opened(registry.find(subject, flags.runs))
    check_trained(run, "cae train makes runs that can be run again")
    flags.overrides = changes
    sources = composing.sources(flags)
    first = compose.jobs(changes)[0] if flags.multirun else changes
    again = overrides_of_run(run, first, sources)
    words = [*again.overrides, *changes]
    screen = terminal.Screen()
    for note in again.notes():
        screen.say(note)
    if not (flags.cfg or flags.info):
        screen.say(shlex.join(["cae", "train", *(["-m"] if flags.multirun else []), *words]))
    return train.main([*_flags(flags), *words])


def check_trained(run: Run, hint: str) -> None:
    """Says so if there is no command that makes a run again.

    Args:
        run: that is set up.
        hint: which runs will do.

    Raises:
        UserError: this tool did not train its model.
    """
    setup = read_any_version(run.setup_file)
    if not setup.get("command") or not isinstance(setup.get("config"), dict):
        raise UserError(
            "this tool did not train that model, so it cannot train it again",
            where=run.folder,
            hint=hint,
        )


def _flags(flags: argparse.Namespace) -> list[str]:
    """The flags for ``cae train``; rules of the person's own are loaded already."""
    words = [f"--{name}" for name in ("multirun", "resolve", "verbose") if getattr(flags, name)]
    words += ["--trust-configs"] if flags.trust_configs else []
    for name in ("cfg", "info", "package", "config_dir", "config_name", "fail_on"):
        if getattr(flags, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(flags, name))]
    return words
