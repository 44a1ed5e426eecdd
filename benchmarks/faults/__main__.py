"""``python -m benchmarks.faults``: runs the fault benchmark of the diagnosis."""

from __future__ import annotations

import argparse
import json
import math
import shlex
from dataclasses import replace
from pathlib import Path

from benchmarks.faults import benchmark, controls, page, report
from benchmarks.faults.case import PARTS
from benchmarks.faults.corruption import CORRUPTIONS, names
from benchmarks.faults.record import LARGE, RECORDED, Record, read, record, with_fixes_of
from cae_cli import cli
from cae_cli.commands.arguments import count, duration, parse_plain
from cae_cli.errors import UserError
from cae_cli.report import terminal
from cae_cli.runs.json_files import plain
from cae_cli.system import signals
from cae_cli.system.files import make, typed
from cae_cli.system.guarded import GuardedPath
from cae_cli.training import backend

COMMAND = "python -m benchmarks.faults"
OUTSIDE = ("outside", "outside-smoke")
CASES = Path(__file__).parent / "cases"
PUBLISHED = {"test": RECORDED, "large": LARGE}

HELP = """\
usage: python -m benchmarks.faults [CASES ...] [options]

Trains autoencoders with faults that are built in on purpose, healthy ones, and
unusual but harmless ones. Reports how often the diagnosis is right, how many
faults its fixes remove, how many random changes remove, and how simpler tools
compare.

CASES are case files or folders of them; the default is all cases of this
checkout. Finished trainings are kept: run the same command to resume.

  --part PART             test (default; the published figures), tuning (rules
                          may have been set with it), smoke (generated images,
                          a few minutes); large and large-tuning (the same on
                          colour photographs of 32 to 128 pixels); outside
                          (published fault operators on plain Keras scripts),
                          outside-smoke
  --data DIR              folder of the image files (default: data)
  --out DIR               folder of the runs (default: runs/faults)
  --only NAME ...         only these cases, or the cases that expect these codes
  --no-fixes              diagnose only
  --controls-only         train only random search and good practice, for the
                          faulty trainings that the recorded run treated
  --budget TIME           with --controls-only: begin none after 2h, say
  --jobs N                number of trainings at once
  --record                save the figures of the part test or large in
                          benchmarks/faults, and generate the page in docs
  --json                  print the figures as JSON

With --part outside, out of these options --data, --out (default: runs/outside),
--jobs, --record and --json count, and:

  --draw SEED             which mutants are drawn (default: 1)
  --no-training           judge what is trained, with the rules of today
  --try-fixes SECONDS     also try edits on each killed mutant for so long, and
                          train it with the one that is reported and with
                          random changes (default: off)

Corruptions of the images (in a case: corrupt: repeats_16):
{corruptions}

All results are in DIR/results_PART.json. With --part smoke, the exit code is 1
if a verdict is wrong.
"""


def main(arguments: list[str]) -> int:
    """Runs the benchmark, writes the results and shows the figures.

    Returns:
        0; with ``--part smoke`` 1 if a verdict is wrong.

    Raises:
        UserError: wrong arguments or cases.
    """
    flags = parse_plain(
        COMMAND,
        arguments,
        part={"choices": (*PARTS, *OUTSIDE), "default": "test"},
        data={"type": typed, "default": Path("data")},
        out={"type": typed},
        only={"nargs": "+", "default": []},
        jobs={"type": count},
        record={"action": "store_true"},
        json={"action": "store_true"},
        draw={"type": count, "default": 1},
        **{flag: {"action": "store_true"} for flag in ("no-fixes", "no-training", "controls-only")},
        **{"try-fixes": {"type": count}},
        budget={"type": duration},
    )
    if flags.help:
        docs = [corruption.doc for corruption in CORRUPTIONS.values()]
        lines = [f"  {name:<22}  {doc}" for name, doc in zip(names(), docs, strict=True)]
        print(HELP.format(corruptions="\n".join(lines)), end="")
        return 0
    if flags.budget and not flags.controls_only:
        raise UserError("--budget needs --controls-only", where="command line")
    if flags.part in OUTSIDE:
        return _outside(flags)
    request = benchmark.Request(
        cases=tuple(map(typed, flags.names)) or (CASES,),
        part=flags.part,
        data=flags.data.resolve(),
        out=flags.out or Path("runs/faults"),
        only=tuple(flags.only),
        fix=not flags.no_fixes,
        n_jobs=flags.jobs,
    )
    if flags.record and flags.part not in PUBLISHED:
        raise UserError(f"--record needs --part {' or '.join(PUBLISHED)}", where="command line")
    make(request.out)
    if flags.controls_only:
        return _controls(flags, request, arguments)
    with signals.raised():
        results = benchmark.run(request, [*COMMAND.split(), *arguments], terminal.Screen().say)
    figures = record(results, _portable(request, flags.record))
    report.write(request.out / f"results_{request.part}.json", figures, results)
    if flags.record:
        _publish(figures)
    if flags.json:
        print(json.dumps(report.as_plain(figures), indent=2, ensure_ascii=False))
    else:
        terminal.show(report.summary(figures))
    return int(request.part == "smoke" and bool(figures.wrong))


def _publish(figures: Record) -> None:
    """Records the figures of a part and generates the page; fixes that were not tried again stay."""
    file = PUBLISHED[figures.part]
    earlier = read(file) if file.exists() else None
    if earlier and earlier.scores.fixes and not figures.scores.fixes:
        figures = with_fixes_of(figures, earlier)
    report.write(file, figures)
    page.write(*page.recorded())


def _controls(flags: argparse.Namespace, request: benchmark.Request, arguments: list[str]) -> int:
    """Tries the controls that need no fixes, and shows or records what they did."""
    recorded = read(RECORDED)
    if flags.record and request.part != recorded.part:
        raise UserError(f"--record needs --part {recorded.part}", where="command line")
    with signals.raised():
        say, budget = terminal.Screen().say, flags.budget or math.inf
        found = controls.run(request, recorded, [*COMMAND.split(), *arguments], say, budget)
    if flags.record and found:
        _publish(controls.merged(recorded, found))
    if flags.json:
        print(json.dumps(plain(found), indent=2, ensure_ascii=False))
    else:
        terminal.show(report.controls(found))
    return 0


def _outside(flags: argparse.Namespace) -> int:
    """Runs the outside part, and shows or records its figures."""
    if flags.names or flags.only:
        raise UserError(
            f"--part {flags.part} takes no cases",
            where="command line",
            hint="--draw SEED chooses its mutants",
        )
    out = (flags.out or Path(f"runs/{flags.part}")).resolve()
    make(out)
    with signals.raised(), backend.quiet(GuardedPath.of(out / "tensorflow.log")):
        from benchmarks.faults.outside import draw, page, record, run  # import Keras

        made = run.whole if flags.part == "outside" else run.smoke
        request = made(flags.draw, flags.data.resolve(), out, flags.jobs)
        request = replace(request, try_fixes=flags.try_fixes)
        judged = run.run(request, terminal.Screen().say, train=not flags.no_training)
        words = [*COMMAND.split(), "--part", flags.part, "--draw", str(flags.draw), "--data", "DIR"]
        words += ["--try-fixes", str(flags.try_fixes)] if flags.try_fixes else []
        figures = record.record(
            flags.draw, request.n_seeds, request.n_mutants, judged, shlex.join([*words, "--record"])
        )
        record.write(out / f"results_{flags.draw}.json", figures)
        if flags.record and flags.part == "outside":
            draw.write(draw.file_of(flags.draw), flags.draw, run.drawn(request, print))
            record.publish(figures)
            page.write()
    if flags.json:
        print(json.dumps(plain(figures), indent=2, ensure_ascii=False))
    else:
        terminal.show(record.summary(figures))
    return 0


def _portable(request: benchmark.Request, is_recorded: bool) -> str:
    """The command without paths of this machine."""
    words = COMMAND.split()
    words += [] if request.cases == (CASES,) else [path.name for path in request.cases]
    words += ["--part", request.part, "--data", "DIR"]
    words += ["--only", *request.only] if request.only else []
    words += [] if request.fix else ["--no-fixes"]
    return shlex.join([*words, "--record"] if is_recorded else words)


if __name__ == "__main__":
    cli.main(main)
