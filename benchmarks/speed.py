"""The speed of cae compared with Keras, PyTorch and JAX. `make bench` runs it.

    python -m benchmarks.speed [--data FILE.npz] [--repeats 7] [--other PYTHON] [--only PART ...]

The contestants take turns, so that other load on the machine affects all of them. The results are ratios
of times measured one after the other: their median with the 10th and 90th percentiles. PyTorch and JAX
may be installed in another Python (``--other``); a missing one is noted in the results. ``--write`` puts
the tables into docs/performance.md; ``--only sizes``, real sizes, has a place of its own there.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
PARTS = ("training", "start", "commands", "run", "sweep", "memory", "folder", "growth")
SIZED = "sizes"  # a part with a place of its own in the docs
IMAGES = 4096  # per timed epoch
# Real sizes: side of images in colour, filters, images per timed epoch, cae over Keras and over PyTorch
SIZES = ((64, (32, 64), 1024, 1.6, 1.4), (128, (32, 64, 128), 512, 1.6, 1.4))
TOLERANCE = 1e-4  # between the first losses
LIBRARIES = {"torch": "torch", "torch_compile": "torch", "jax": "jax"}
NAMES = {
    "cae": "cae",
    "keras": "Keras `fit`",
    "keras_no_xla": "Keras `fit`, XLA off",
    "torch": "PyTorch, channels last",
    "torch_compile": "PyTorch, `torch.compile`",
    "jax": "JAX, `jit`",
}


@dataclass
class Goal:
    """A row of the table of goals."""

    name: str
    goal: str
    measured: str
    met: bool | None  # None: not measured


class Worker:
    """A contestant in a process of its own, which answers one command per line."""

    def __init__(self, python: str, contestant: str, reference: str, batch: int, folder: Path) -> None:
        self.log = (folder / f"{contestant}_{reference}_{batch}.log").open("w")
        self.process = subprocess.Popen(
            [python, str(HERE / "contestants.py"), contestant, reference, str(batch), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        )

    def send(self, command: str):
        assert self.process.stdin and self.process.stdout
        print(command, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a contestant stopped: {Path(self.log.name).read_text()[-2000:]}")
        return json.loads(answer)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


def spread(ratios: Sequence[float]) -> str:
    low, middle, high = np.percentile(ratios, [10, 50, 90])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """The parts of the benchmark and their results."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.arguments, self.scratch = arguments, scratch
        self.goals: list[Goal] = []
        self.tables: list[tuple[str, list[str], list[list[str]]]] = []
        self.notes: list[str] = []
        self.bars: dict[str, dict[str, float]] = {}

    def at_least(self, name: str, ratios: Sequence[float], goal: float) -> None:
        met = bool(np.median(ratios) >= goal)
        self.goals.append(Goal(name, f"at least {goal:g}", spread(ratios), met))

    # -- training --------------------------------------------------------------------------------

    def start_file(self, folder: Path, count: int, *words: str) -> None:
        """The images and weights that all contestants start with.

        Args:
            folder: gets start.npz.
            count: images; if there are fewer, they are repeated.
            words: overrides that choose the images and the network.
        """
        from cae_cli import data
        from cae_cli.config.compose import checked
        from cae_cli.model.build import build
        from cae_cli.training import backend

        options = checked(words)[1]
        images = data.load(options.data).train
        images = np.resize(images, (count, *images.shape[1:]))
        backend.start(deterministic=True, mixed_precision=False)
        backend.seed(0)
        network = build(images.shape[1:], options.model).model
        weights = {f"weight_{i}": w for i, w in enumerate(network.get_weights())}
        folder.mkdir(exist_ok=True)
        np.savez(folder / "start.npz", images=images, **weights)

    def start_of_references(self) -> None:
        """That of references 1 to 3."""
        source = []
        if self.arguments.data:
            source = ["data=npz", f"data.path={Path(self.arguments.data).absolute()}"]
        self.start_file(self.scratch, IMAGES, *source, f"data.train={IMAGES}")

    def python(self, contestant: str) -> str | None:
        """The Python that has the library of a contestant, or None."""
        library = LIBRARIES.get(contestant)
        for python in (sys.executable, self.arguments.other):
            if python and (
                library is None
                or subprocess.run([python, "-c", f"import {library}"], capture_output=True).returncode
                == 0
            ):
                return python
        return None

    def race(
        self, reference: str, batch: int, contestants: Sequence[tuple[str, str]], folder: Path
    ) -> dict[str, np.ndarray]:
        """Seconds of epochs measured in turns, by name, of pairs of a contestant and its reference.

        Args:
            reference: the training.
            batch: images of a step.
            contestants: pairs of a contestant and the reference that it trains.
            folder: of their start.
        """
        what = f"reference {reference}" if folder == self.scratch else f"images of {folder.name}"
        workers = {}
        for contestant, its_reference in contestants:
            python = self.python(contestant)
            name = contestant if its_reference == reference else f"{contestant} {its_reference}"
            if python is None:
                self.notes.append(f"{NAMES[contestant]} is not installed and was left out")
            else:
                workers[name] = Worker(python, contestant, its_reference, batch, folder)
        progress(f"training: {what}, batch {batch}: {', '.join(workers)}")
        same = {name: w for name, w in workers.items() if " " not in name and reference != "2"}
        losses = {name: np.array(w.send("check")) for name, w in same.items()}
        for name, own in losses.items():
            difference = float(np.abs(own - losses["cae"]).max())
            if name != "cae":
                verdict = "agree" if difference <= TOLERANCE else "DO NOT AGREE"
                self.notes.append(
                    f"{what}, batch {batch}: the losses of the first {len(own)} steps "
                    f"of {NAMES[name]} and cae {verdict} (largest difference {difference:.1e})"
                )
                if difference > TOLERANCE:
                    raise SystemExit(f"{name} computes something else: {own} instead of {losses['cae']}")
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for worker in workers.values():
            worker.send("epoch")  # warms up
        for _ in range(self.arguments.repeats):
            for name, worker in workers.items():
                seconds[name].append(worker.send("epoch"))
        for worker in workers.values():
            worker.close()
        return {name: np.array(values) for name, values in seconds.items()}

    def training(self) -> None:
        self.start_of_references()
        rows = []
        measured: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        for reference, batch, names in [
            ("1", 32, ["cae", "keras", "torch", "torch_compile", "jax"]),
            ("1", 128, ["cae", "keras", "keras_no_xla", "torch", "torch_compile", "jax"]),
            ("2", 32, ["cae", "keras"]),
            ("3", 32, ["cae", "keras"]),
            ("3", 128, ["cae", "keras"]),
        ]:
            contestants = [(name, reference) for name in names]
            contestants += {"2": [("cae", "2plain")], "3": [("cae", "1")]}.get(reference, [])
            seconds = self.race(reference, batch, contestants, self.scratch)
            measured[reference, batch] = seconds
            self.bars[f"reference {reference}, batch {batch}"] = {
                name: float(IMAGES / np.median(values)) for name, values in seconds.items()
            }
            rows += [
                [
                    reference,
                    str(batch),
                    _label(name),
                    f"{IMAGES / np.median(values):,.0f}",
                    "" if name == "cae" else spread(values / seconds["cae"]),
                ]
                for name, values in seconds.items()
            ]
        self.tables.append(
            (
                "Training",
                ["reference", "batch", "implementation", "images/s, median", "speed-up of cae"],
                rows,
            )
        )

        def ratio(key: tuple[str, int], slower: str, name: str, goal: float) -> None:
            seconds = measured[key]
            if slower in seconds:
                self.at_least(name, seconds[slower] / seconds["cae"], goal)
            else:
                self.goals.append(Goal(name, f"at least {goal:g}", "not installed", None))

        ratio(("1", 32), "keras", "reference 1, batch 32: cae over Keras `fit`", 2.2)
        ratio(("1", 32), "torch", "reference 1, batch 32: cae over PyTorch", 1.4)
        ratio(("1", 128), "keras_no_xla", "reference 1, batch 128: cae over Keras `fit`, XLA off", 1.8)
        ratio(("1", 128), "torch", "reference 1, batch 128: cae over PyTorch", 1.0)
        ratio(("3", 32), "keras", "reference 3 (SSIM), batch 32: cae over Keras `fit`", 6)
        ratio(("3", 32), "cae 1", "reference 3 (SSIM), batch 32: SSIM over MSE", 0.9)
        ratio(("2", 32), "cae 2plain", "reference 2, batch 32: augmented over not augmented", 0.8)

    def sizes(self) -> None:
        rows = []
        for side, filters, count, over_keras, over_torch in SIZES:
            name, goals = f"{side}x{side}x3", {"keras": over_keras, "torch": over_torch}
            folder = self.scratch / name
            words = ["data=patches", f"data.side={side}", "data.channels=3"]
            self.start_file(folder, count, *words, f"model.filters={list(filters)}".replace(" ", ""))
            seconds = self.race("1", 32, [(one, "1") for one in ("cae", *goals)], folder)
            for one, values in seconds.items():
                ratios = values / seconds["cae"]
                cells = name, str(list(filters)), _label(one), f"{count / np.median(values):,.0f}"
                rows.append([*cells, "" if one == "cae" else spread(ratios)])
                if one in goals:
                    self.at_least(f"{name}, batch 32: cae over {_label(one)}", ratios, goals[one])
        head = ["images", "filters", "implementation", "images/s, median", "speed-up of cae"]
        self.tables.append(("Photographs in colour, batch 32", head, rows))

    # -- from the command line -------------------------------------------------------------------

    def stages(self, *overrides: str) -> dict[str, float]:
        file = self.scratch / "stages.json"
        command = [
            sys.executable,
            str(HERE / "stages.py"),
            str(file),
            repr(time.time()),
            "train",
            *overrides,
        ]
        self.command(command)
        return json.loads(file.read_text())

    def command(self, command: Sequence[str], *, check: bool = True) -> float:
        began = time.perf_counter()
        done = subprocess.run(command, cwd=self.scratch, capture_output=True, text=True)
        if check and done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        return time.perf_counter() - began

    def start(self) -> None:
        progress("start: command to first step")
        bare, whole, extra = [], [], []
        stages: dict[str, list[float]] = {}
        self.stages("training.steps=1")  # fills the file cache
        for _ in range(self.arguments.repeats):
            bare.append(self.command([sys.executable, "-c", "import tensorflow, keras"]))
            own = self.stages("training.steps=1")
            whole.append(own["steps ended"])
            extra.append(whole[-1] - bare[-1])
            for name, value in own.items():
                stages.setdefault(name, []).append(value)
        self.goals.append(
            Goal(
                "command to first step, minus a Python that imports TensorFlow",
                "at most 1.5 s",
                f"{spread(extra)} s",
                bool(np.median(extra) <= 1.5),
            )
        )
        names = ["reading images", "dataset statistics", "starting TensorFlow"]
        names += ["validation before training", "steps"]
        rows = [["Python that imports TensorFlow and exits", spread(bare)]]
        rows += [["command to first step", spread(whole)]]
        rows += [[f"including {name}", spread(stages[name])] for name in names]
        self.tables.append(("Start", ["stage", "seconds"], rows))

    def commands(self) -> None:
        progress("commands: --help, --cfg, a typo")
        cae = str(Path(sys.executable).with_name("cae"))
        rows = []
        for name, command in {
            "`python -c pass`": [sys.executable, "-c", "pass"],
            "`cae --help`": [cae, "--help"],
            "`cae train --cfg job`": [cae, "train", "--cfg", "job"],
            "a typo, `los=ssim`": [cae, "train", "los=ssim"],
            "`cae check model=l2`": [cae, "check", "model=l2"],
        }.items():
            seconds = [self.command(command, check=False) for _ in range(self.arguments.repeats + 1)]
            rows.append([name, spread(seconds[1:])])
        self.tables.append(("Commands without TensorFlow", ["command", "seconds"], rows))

    def run(self) -> None:
        progress("run: time of measuring and drawing in the default run")
        shares, ends, rows = [], [], []
        for _ in range(max(3, self.arguments.repeats // 2)):
            last = self.stages()
            ends.append(last["measuring"] + last["diagnosing and drawing"])
            shares.append(ends[-1] / last["all"])
        allowed = [max(5, 0.15 * end / share) for end, share in zip(ends, shares, strict=True)]
        self.goals.append(
            Goal(
                "measuring, diagnosing and drawing of the default run",
                "at most 15 % or 5 s, whichever is longer",
                f"{spread(ends)} s, {np.median(shares):.0%}",
                bool(np.median(np.array(ends) / allowed) <= 1),
            )
        )
        rows = [
            [name, f"{value:.2f}"]
            for name, value in last.items()
            if not name.endswith((" ended", " memory"))
        ]
        self.tables.append(("The default run, once", ["stage", "seconds"], rows))

    def sweep(self) -> None:
        progress("sweep: 12 short jobs and 12 scripts")
        script = self.scratch / "script.py"
        script.write_text(SCRIPT)
        cae = str(Path(sys.executable).with_name("cae"))
        ratios, seconds = [], []
        for _ in range(max(2, self.arguments.repeats // 3)):
            scripts = sum(self.command([sys.executable, str(script), str(i)]) for i in range(12))
            seeds = ",".join(map(str, range(12)))
            swept = self.command(
                [cae, "train", "-m", f"seed={seeds}", "data=digits", "training.epochs=2"]
            )
            ratios.append(scripts / swept)
            seconds.append((scripts, swept))
        own = sum(
            self.command([cae, "train", f"seed={i}", "data=digits", "training.epochs=2"])
            for i in range(12)
        )
        self.at_least("sweep of 12 short jobs over 12 Keras scripts", ratios, 3)
        names = ["12 plain Keras scripts, which draw one picture and diagnose nothing"]
        names += ["`cae train -m` with 12 jobs, each measured, diagnosed and drawn"]
        names += ["`cae train` 12 times"]
        cells = [*map(spread, np.transpose(seconds)), f"{own:.2f} (once)"]
        rows = [list(row) for row in zip(names, cells, strict=True)]
        self.tables.append(("Sweep: 12 seeds on digits, 2 epochs each", ["method", "seconds"], rows))

    def memory(self) -> None:
        progress("memory")
        if not (self.scratch / "start.npz").exists():
            self.start_of_references()
        rows, ratios = [], {}
        for reference, batch in (("1", 32), ("1", 128), ("3", 32)):
            peaks = {}
            for name in ("cae", "keras"):
                worker = Worker(sys.executable, name, reference, batch, self.scratch)
                worker.send("epoch")
                worker.send("epoch")
                peaks[name] = worker.send("memory")
                worker.close()
            ratios[reference, batch] = peaks["cae"] / peaks["keras"]
            rows.append(
                [
                    f"reference {reference}, batch {batch}",
                    *(f"{peaks[name] / 2**20:,.0f}" for name in ("cae", "keras")),
                    f"{ratios[reference, batch]:.2f}",
                ]
            )
        worst = max(ratios.values())
        self.goals.append(
            Goal(
                "peak memory over Keras `fit`, largest ratio",
                "at most 1.1",
                f"{worst:.2f}",
                worst <= 1.1,
            )
        )
        header = ["training", "cae, MiB", "Keras `fit`, MiB", "ratio"]
        self.tables.append(("Peak memory of two epochs", header, rows))

    def folder(self) -> None:
        progress("folder: image files, kept in memory and in a file")
        from PIL import Image

        from cae_cli import data
        from cae_cli.config.compose import checked
        from cae_cli.data import spool
        from cae_cli.model.build import build
        from cae_cli.training import backend
        from cae_cli.training import fit as training
        from cae_cli.training.recorder import Recorder
        from cae_cli.training.step import CHUNK, CompiledSteps

        folder = self.scratch / "photos"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for i in range(2000):
            coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
            picture.save(folder / f"{i:04}.jpg", quality=90)
        rows = []
        device = backend.start(deterministic=True, mixed_precision=False)
        shares = {}
        for name, in_memory in (("in memory", 2**40), ("in a file", 0)):
            spool.Spool.__init__.__defaults__ = (in_memory,)
            options = checked(["data=image_folder", f"data.path={folder}", "data.image_size=64"])[1]
            began = time.perf_counter()
            images = data.load(options.data)
            reading = time.perf_counter() - began
            backend.seed(0)
            network = build(images.shape, options.model)
            recorder = Recorder(network.model, dict)
            compiled = CompiledSteps(network, images, options, recorder, device.parts)
            steps = -(-len(images.train) // 32)
            epochs = []
            for epoch in range(self.arguments.repeats):
                order = training.image_order(0, epoch, len(images.train))
                began = time.perf_counter()
                compiled.epoch(order, [1e-3] * steps, epoch * steps, lambda step, loss: None)
                epochs.append(time.perf_counter() - began)
            gathering = []
            for epoch in range(self.arguments.repeats):
                order = training.image_order(0, epoch, len(images.train))
                began = time.perf_counter()
                for start in range(0, len(order), 32 * CHUNK):
                    images.train[order[start : start + 32 * CHUNK]]
                gathering.append(time.perf_counter() - began)
            shares[name] = float(np.median(gathering) / np.median(epochs[1:]))
            rows.append(
                [name, f"{2000 / reading:,.0f}", f"{len(images.train) / np.median(epochs[1:]):,.0f}",
                 f"{shares[name]:.1%}"]
            )  # fmt: skip
        self.goals.append(
            Goal(
                "image folders: share of a training step spent on loading its images",
                "below 10 %",
                " and ".join(f"{share:.1%} {name}" for name, share in shares.items()),
                max(shares.values()) < 0.1,
            )
        )
        header = [
            "2,000 JPEG files of 640x480, to 64x64x3",
            "files/s read",
            "images/s trained",
            "loader",
        ]
        self.tables.append(("Image folders", header, rows))

    def growth(self) -> None:
        progress("growth with images, side, filters, epochs")
        rows = []
        base = ["data.train=1024", "training.epochs=2"]
        for name, overrides in {
            "1,024 images of 28x28, 2 epochs": [],
            "4 times the images": ["data.train=4096"],
            "twice the side": ["data.size=56"],
            "twice the filters": ["model.filters=[32,16]"],
            "4 times the epochs": ["training.epochs=8"],
        }.items():
            runs = [self.stages(*base, *overrides) for _ in range(max(3, self.arguments.repeats // 2))]
            keys = ("steps", "measuring", "diagnosing and drawing", "all")
            columns = [[run[key] for run in runs] for key in keys]
            rows.append([name, *(f"{np.median(column):.1f}" for column in columns)])
        header = ["run", "steps, s", "measuring, s", "diagnosing and drawing, s", "all, s"]
        self.tables.append(("Growth (the first steps include tracing)", header, rows))

    # -- results ---------------------------------------------------------------------------------

    def markdown(self) -> str:
        def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
            lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
            return [*lines, *(f"| {' | '.join(row)} |" for row in rows)]

        met = {True: "met", False: "**not met**", None: "not measured"}
        lines = [f"Measured on {machine()}, {datetime.date.today()}, with", ""]
        flags = [f"--repeats {self.arguments.repeats}"]
        if self.arguments.only != PARTS:
            flags.insert(0, f"--only {' '.join(self.arguments.only)}")
        flags += [f"--data {Path(self.arguments.data).name}"] if self.arguments.data else []
        flags += ["--other <a Python with PyTorch and JAX>"] if self.arguments.other else []
        lines += [f"    python -m benchmarks.speed {' '.join(flags)}", ""]
        lines += ["Medians, with the 10th and 90th percentiles in brackets.", ""]
        if self.goals:
            goals = [[g.name, g.goal, g.measured, met[g.met]] for g in self.goals]
            lines += table(["figure", "goal", "measured", ""], goals)
        for title, header, rows in self.tables:
            lines += ["", f"## {title}", "", *table(header, rows)]
        if self.notes:
            lines += ["", *(f"- {note}" for note in dict.fromkeys(self.notes))]
        return "\n".join(lines) + "\n"

    def plot(self, path: Path) -> None:
        from matplotlib.figure import Figure

        figure = Figure(
            figsize=(8, 0.9 + 0.24 * sum(map(len, self.bars.values()))), layout="constrained"
        )
        axes = figure.subplots()
        at, ticks, names = 0.0, [], []
        for title, bars in self.bars.items():
            axes.text(0, at - 0.75, title, fontsize=8, fontweight="bold", va="center")
            for name, value in bars.items():
                axes.barh(at, value, color="#2166ac" if name.startswith("cae") else "#bbbbbb")
                axes.text(value, at, f" {value:,.0f}", fontsize=7, va="center")
                ticks.append(at)
                names.append(_label(name).replace("`", ""))
                at += 1
            at += 1.2
        axes.set_yticks(ticks, names, fontsize=7)
        axes.invert_yaxis()
        axes.set_xlabel("training images per second (median)", fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.savefig(path, dpi=110, metadata={"Software": None})


def _label(name: str) -> str:
    contestant, _, reference = name.partition(" ")
    if not reference:
        return NAMES[contestant]
    return (
        f"{NAMES[contestant]}, {'not augmented' if reference == '2plain' else f'reference {reference}'}"
    )


def machine() -> str:
    """Cores, processor and versions."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, TypeError):
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]
    from importlib.metadata import version

    from cae_cli.training import backend

    return (
        f"{backend.cores()} cores of {model}, no GPU, {platform.system()}, "
        f"Python {platform.python_version()}, TensorFlow {version('tensorflow')}, "
        f"Keras {version('keras')}"
    )


# A careful script for one setting: it trains and saves a picture of the first filters.
SCRIPT = """
import sys
import keras, matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
from keras import layers
from sklearn.datasets import load_digits

keras.utils.set_random_seed(int(sys.argv[1]))
x = (load_digits().images / 16).astype("float32")[..., None]
conv = lambda n: layers.Conv2D(n, 3, activation="relu", padding="same")
model = keras.Sequential([
    keras.Input((8, 8, 1)), conv(16), layers.MaxPooling2D(2), conv(8), layers.MaxPooling2D(2),
    conv(8), layers.UpSampling2D(2), conv(16), layers.UpSampling2D(2),
    layers.Conv2D(1, 3, activation="sigmoid", padding="same"),
])
model.compile("adam", "mse")
model.fit(x, x, epochs=2, batch_size=32, validation_split=0.1, verbose=0)
kernel = model.layers[0].get_weights()[0]
figure, axes = plt.subplots(4, 4)
for i, a in enumerate(axes.flat):
    a.imshow(kernel[:, :, 0, i])
    a.axis("off")
figure.savefig(f"filters_{sys.argv[1]}.png")
model.save(f"model_{sys.argv[1]}.keras")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", help=".npz file with x_train (n, 28, 28) (default: generated glyphs)")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--other", help="another Python with PyTorch and JAX")
    parser.add_argument("--only", nargs="*", choices=(*PARTS, SIZED), default=PARTS)
    parser.add_argument("--write", action="store_true", help="update docs/performance.md and its plot")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, Path(folder))
        for part in arguments.only:
            getattr(bench, part)()
    text = bench.markdown()
    print(text)
    if arguments.write:
        page = DOCS / "performance.md"
        what = f" {SIZED}" if arguments.only == [SIZED] else ""
        before, begin, rest = page.read_text().partition(f"<!-- measured{what} -->\n")
        _, end, after = rest.partition(f"<!-- end{what} -->\n")
        page.write_text(before + begin + text + end + after)
        if bench.bars:
            bench.plot(DOCS / "images" / "performance.png")


if __name__ == "__main__":
    main()
