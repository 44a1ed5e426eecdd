"""``cae log RUN|SWEEP --to TRACKER``: writes runs to a tracker, as they are in their folders."""

from __future__ import annotations

from pathlib import Path

from cae_cli.commands.arguments import RUN_HELP, RUNS_HELP, parse_plain
from cae_cli.errors import RunFailed, UserError, counted, did_you_mean, to_paste
from cae_cli.options import written
from cae_cli.report import terminal
from cae_cli.report.sections import line
from cae_cli.runs.folder import Run
from cae_cli.runs.opening import open_run
from cae_cli.runs.registry import Registry

HELP = f"""\
usage: cae log RUN|SWEEP --to TRACKER [--project NAME] [--uri WHERE]

Writes a run, or all jobs of a sweep, to a tracker: config, metrics of each
epoch, pictures, diagnosis, report and trained network. Runs may be finished,
interrupted or running. What a tracker has already is not written again, so
the command may be repeated; a run that is resumed continues there.

cae train tracker=TRACKER writes a run while it is trained.

{RUN_HELP}
SWEEP is the folder of a sweep, or its four letters.

flags:
  --to TRACKER     tensorboard, mlflow, wandb or trackio
  --project NAME   collect runs under this name instead of cae
  --uri WHERE      address or folder of the tracker: a folder for tensorboard
                   and trackio (default: the run folder; that of the library),
                   sqlite:///mlflow.db, http://localhost:5000, …
{RUNS_HELP}"""


def main(args: list[str]) -> int:
    """Writes the given run or sweep."""
    flags = parse_plain("cae log", args, to={}, project={}, uri={})
    if flags.help:
        print(HELP, end="")
        return 0
    where = "command line: cae log"
    if len(flags.names) != 1:
        count = counted(len(flags.names), "run")
        hint = "cae log last --to tensorboard"
        raise UserError(f"expected one run or sweep, got {count}", where=where, hint=hint)
    runs = _runs(flags.names[0], flags.runs)
    # Composing a config takes a second, which help and typos need not.
    from cae_cli.config import compose
    from cae_cli.trackers import TRACKERS, Tracker, Writer

    known = [name for name in TRACKERS if name != "none"]
    if flags.to not in known:
        what = "--to names the tracker" if flags.to is None else f"there is no tracker {flags.to!r}"
        raise UserError(what, where=where, hint=did_you_mean(str(flags.to), known))
    given = {"project": flags.project, "uri": flags.uri}
    options = [f"tracker.{key}={written(value)}" for key, value in given.items() if value is not None]
    tracker = compose.checked([f"tracker={flags.to}", *options])[1].tracker
    assert isinstance(tracker, Tracker)
    tracker.check()
    screen = terminal.Screen()
    writer = Writer(tracker)
    places: dict[str, None] = {}  # the same for the jobs of a sweep, in most trackers
    try:
        for number, run in enumerate(runs, 1):
            of = f" ({number} of {len(runs)})" if len(runs) > 1 else ""
            with screen.doing(f"writing {run.folder.name} to {tracker.name}{of} …"):
                places[writer.written(run)] = None
        writer.finish()
    except RunFailed as error:
        raise RunFailed(
            f"{run.folder.name} was not written to {tracker.name}: {error.what}",
            hint="what is written already is kept; HYDRA_FULL_ERROR=1 shows what the library says",
        ) from error
    finally:
        writer.end()
        terminal.show([line(place, whole=True) for place in places])
    return 0


def _runs(name: str, root: Path | None) -> list[Run]:
    """A run, or those of the jobs of a sweep that have started."""
    registry = Registry(root)
    sweep = registry.find_sweep(name)
    if sweep is None:
        return [open_run(name, root)]
    runs = [entry.run for entry in registry.jobs(sweep) if entry.run.is_set_up()]
    if not runs:
        hint = to_paste("cae", "sweep", "status", sweep)
        raise UserError("no job of the sweep has started", where=sweep, hint=hint)
    return runs
