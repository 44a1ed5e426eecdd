"""What the page costs: CPU seconds of its parts as shares of a run, and sizes of its files.

    python -m benchmarks.page experiment=reference_1_baseline data=fashion_mnist data.train=2048
    python -m benchmarks.page --others data=fashion_mnist data.train=2048 data.test=500 training.epochs=4

All arguments are overrides of ``cae train``. CPU time, unlike that of the clock, hardly depends on what
else the machine does. The second form writes the page of a sweep, of a comparison, of a treatment and of
the fault benchmark, and prints how large they are.
"""

import contextlib
import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SWEEP = ("model=baseline,l2,residual", "optimizer.learning_rate=0.001,0.00001", "seed=0,1")


def others(overrides: list[str]) -> None:
    """Prints the sizes of the pages that are not those of a single run."""
    from cae_cli.report.sections import markdown

    def python(module: str, *words: str, home: str | None = None) -> None:
        subprocess.run([sys.executable, "-m", module, *words], cwd=home, check=True, stdout=2)

    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        python("cae_cli", "train", "-m", *SWEEP, *overrides, "hydra.sweep.dir=sweep", home=home)
        jobs = sorted(run.parent.relative_to(folder) for run in (folder / "sweep").glob("*/run.json"))
        python("cae_cli", "compare", *map(str, jobs[:2]), "--html", "two.html", home=home)
        slow = next(str(job) for job in jobs if "1e-05" in job.name or "0.00001" in job.name)
        python("cae_cli", "treat", slow, "--max-fixes", "2", "--seeds", "1", home=home)
        python("benchmarks.faults.cells", str(folder / "faults.html"))
        pages = {
            f"sweep of {len(jobs)} runs": folder / "sweep" / "report.html",
            "comparison of two runs": folder / "two.html",
            "treatment": next((folder / "runs" / "treat").glob("*/report.html")),
            "fault benchmark": folder / "faults.html",
        }
        rows = [(of, f"{page.stat().st_size / 1e6:.2f}") for of, page in pages.items()]
    print(markdown(["page", "MB"], rows))


def main() -> None:
    if "--others" in sys.argv:
        others([word for word in sys.argv[1:] if word != "--others"])
        return
    from cae_cli import cli
    from cae_cli.introspection import probe, views
    from cae_cli.report import figures, page
    from cae_cli.report.sections import markdown

    seconds = {}

    def timed(owner, name, part):
        function = getattr(owner, name)

        @functools.wraps(function)
        def clocked(*arguments, **named):
            began = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                seconds[part] = seconds.get(part, 0) + time.process_time() - began

        setattr(owner, name, clocked)

    timed(probe.Probe, "record", "measuring, with the views")
    timed(views, "both", "views of filters and latent code")
    timed(figures, "draw", "figures (PNG)")
    timed(page, "write", "report.html")
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        sys.argv = ["cae", "train", *sys.argv[1:], f"hydra.run.dir={folder}"]
        with contextlib.suppress(SystemExit):
            cli.main()
        size = {
            name: f"{(folder / name).stat().st_size / 1e6:.2f}" for name in ("views.npz", "report.html")
        }
    seconds["all"] = time.process_time()
    files = {"views of filters and latent code": "views.npz", "report.html": "report.html"}
    rows = [
        (part, f"{own:.1f}", f"{own / seconds['all']:.0%}", size.get(files.get(part, ""), ""))
        for part, own in seconds.items()
    ]
    print(markdown(["part", "CPU seconds", "share", "MB"], rows))


if __name__ == "__main__":
    main()
