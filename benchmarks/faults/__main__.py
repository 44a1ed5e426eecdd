"""``python -m benchmarks.faults``: examines the diagnosis, on trainings whose state is known beforehand."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from benchmarks import faults
from benchmarks.faults import page, report
from benchmarks.faults.case import PARTS
from benchmarks.faults.corruption import CORRUPTIONS, names
from cae_cli.commands import args
from cae_cli.errors import Interrupted, RunFailed, UserError
from cae_cli.report import terminal
from cae_cli.system import signals
from cae_cli.system.files import make, typed

CASES = Path(__file__).parent / "cases"

HELP = """\
usage: python -m benchmarks.faults [CASES …] [--part PART]

Trains models that are made sick on purpose, healthy ones and ones at the
border. Says how often the diagnosis is right, how many of the sick its
fixes cure, and how many chance would cure; and what simpler tools would
have said.

CASES are files that say what a training is like and what is to be found, or
folders of them; those of this project's checkout if there are none. What is
trained is not trained again: the same command goes on where it was cut short.

  --part PART             test (the figures), tuning (thresholds may have been
                          set by these), or smoke (made images, a few minutes)
  --data DIR              folder of the images; without it data/
  --out DIR               folder of the trainings; without it runs/faults
  --only NAME …           cases by name, or by the code that they expect
  --no-treat              diagnose, and treat nobody
  --jobs N                trainings at once
  --docs FILE.md          writes the whole report, and its pictures into images/
  --json                  the figures for other programs

What a case may do to its images (corrupt: repeats_16):
{corruptions}

All that is found is in DIR/results_PART.json. With --part smoke the exit code
is 1 if a sick one's first cause is not a right one, or if there is an alarm for
any other.
"""


def main(arguments: list[str]) -> int:
    """Examines, writes the results, shows the figures.

    Returns:
        0; with ``--part smoke`` 1 if anything was said that is wrong.
    """
    said = args.parsed(
        "python -m benchmarks.faults",
        arguments,
        part={"choices": PARTS, "default": "test"},
        data={"type": typed, "default": Path("data")},
        out={"type": typed, "default": Path("runs/faults")},
        only={"nargs": "+", "default": []},
        jobs={"type": args.count},
        docs={"type": typed},
        json={"action": "store_true"},
        **{"no-treat": {"action": "store_true"}},
    )
    if said.help:
        docs = [c.doc for c in CORRUPTIONS.values()]
        ways = [f"  {name:<22}  {doc}" for name, doc in zip(names(), docs, strict=True)]
        print(HELP.format(corruptions="\n".join(ways)), end="")
        return 0
    if not said.words and not CASES.is_dir():
        raise UserError(
            "which cases?",
            where="command line",
            hint="python -m benchmarks.faults FOLDER",
        )
    request = faults.Request(
        cases=tuple(map(typed, said.words)) or (CASES,),
        part=said.part,
        data=said.data.resolve(),
        out=said.out,
        only=tuple(said.only),
        treat=not said.no_treat,
        n_jobs=said.jobs,
    )
    make(request.out)
    command = ["python", "-m", "benchmarks.faults", *arguments]
    with signals.raised():
        results = faults.examine(request, command, terminal.Screen().say)
    report.write(results, request.out / f"results_{request.part}.json", command)
    if said.docs is not None:
        page.write(results, said.docs, _told(request, said.docs))
    if said.json:
        print(report.as_json(results))
    else:
        terminal.show(report.summary(results))
    return int(request.part == "smoke" and bool(results.scores.wrong))


def _told(request: faults.Request, place: Path) -> str:
    """The command that makes a page, without what is only so on this machine."""
    words = ["python", "-m", "benchmarks.faults"]
    words += [] if request.cases == (CASES,) else [path.name for path in request.cases]
    words += ["--part", request.part, "--data", "DIR"]
    words += ["--only", *request.only] if request.only else []
    words += [] if request.treat else ["--no-treat"]
    return shlex.join([*words, "--docs", "/".join(place.parts[-2:])])


def run(arguments: list[str]) -> int:
    """Runs the benchmark; a mistake of the user is shown without a stack trace."""
    try:
        return main(arguments)
    except (UserError, RunFailed) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        terminal.show_error(error)
        return 2 if isinstance(error, UserError) else 1
    except (Interrupted, KeyboardInterrupt) as error:
        print("interrupted", file=sys.stderr)
        return getattr(error, "exit_code", 130)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
