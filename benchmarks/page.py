"""What the page costs: CPU seconds of its parts as shares of a run, and sizes of its files.

    python -m benchmarks.page experiment=reference_1_baseline data=fashion_mnist data.train=2048

All arguments are overrides of ``cae train``. CPU time, unlike that of the clock, hardly depends on what
else the machine does.
"""

import contextlib
import functools
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
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
