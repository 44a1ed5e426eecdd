"""``cae rerun RUN``: the config of a run once more, with changes, as a new run of ``cae train``."""

from __future__ import annotations

from cae_cli.commands import arguments
from cae_cli.commands.start import start
from cae_cli.config import compose
from cae_cli.config.overrides import overrides_of_run
from cae_cli.errors import to_paste
from cae_cli.report import terminal
from cae_cli.runs import registry
from cae_cli.runs.opening import open_trained

HELP = f"""\
usage: cae rerun RUN [group=option …] [key=value …]

Trains with the config of a run again, as a new run. Overrides change that
config as they change the defaults in cae train. An option that is chosen anew,
such as loss=ssim, brings its own values; those of the old option are dropped.
Without overrides, results are bit-identical on the same machine.

For a run of an older version, keys that are no longer options are dropped, and
new keys get their defaults; both are printed. Configs added with -cd and -cn
are part of the old config. The folder (hydra.run.dir) is not reused.

  cae rerun last seed=1
  cae rerun d3tg loss=ssim training.epochs=40
  cae rerun d3tg -m seed=0,1,2        a sweep; accepts all flags of cae train
  cae rerun d3tg --cfg job            print the config and stop

{arguments.RUN_HELP}
flags:
{arguments.DIAGNOSIS_HELP}{arguments.TRUST_HELP}{arguments.RUNS_HELP}"""


def main(args: list[str]) -> int:
    """Trains the given run again."""
    flags = arguments.parse("cae rerun", args)
    if flags.help:
        print(HELP, end="")
        return 0
    name, changes = registry.split_one(flags.overrides, "cae rerun", "cae rerun last seed=1", "one run")
    run = open_trained(name, flags.runs, "only runs of cae train can be trained again")
    flags.overrides = changes
    sources = arguments.sources(flags)
    first = compose.jobs(changes)[0] if flags.multirun else changes
    again = overrides_of_run(run, first, sources)
    flags.overrides = [*again.overrides, *changes]
    screen = terminal.Screen()
    for note in again.notes():
        screen.say(note)
    if not (flags.cfg or flags.info):
        screen.say(to_paste(*arguments.train_command(flags)))
    return start(flags, arguments.sources(flags))
