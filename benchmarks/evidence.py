"""What popular advice does: the reference network with one change each, paired by seed.

    python benchmarks/evidence.py --data ../shared/data --out runs/evidence

Trains on 4,096 images of Fashion-MNIST for 1,024 steps (more data: as many steps), measures on 1,000
others, and, as a test of what the filters are good for beyond them, on patches of photographs that no
network has seen. Prints a table of differences to the reference with the 95 % interval over seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from interval import half_width

from cae_cli import experiment
from cae_cli.runs.folder import Run
from cae_cli.sweep import batch
from cae_cli.sweep.batch import Wanted
from cae_cli.system import signals

BASE = [
    "data=fashion_mnist", "data.path={data}/fashion_mnist.npz", "data.train=4096", "data.test=1000",
    "training.epochs=8",
]  # fmt: skip
CHANGES = {
    "reference": "",
    "L2 0.0001": "regularization=l2 regularization.l2.strength=0.0001",
    "L2 0.001": "regularization=l2 regularization.l2.strength=0.001",
    "L1 0.0001": "regularization=l1 regularization.l1.strength=0.0001",
    "dropout 0.1": "regularization=dropout",
    "batch normalisation": "regularization=batchnorm",
    "noise on the input": "regularization=noise",
    "SSIM": "loss=ssim",
    "MSE and SSIM": "loss=mse_ssim",
    "cross-entropy": "loss=bce",
    "augmentation of both": "augmentation=light",
    "augmentation of the input": "augmentation=light augmentation.target=original",
    "1,024 images": "data.train=1024 training.epochs=32",
    "16,384 images": "data.train=16384 training.epochs=2",
    "frozen encoder": "training.frozen=encoder",
    "residual blocks": "model=residual",
    "attention": "model=attention",
}
# What is compared: (title, digits).
COLUMNS = {
    "explained": ("explained variance", 3),
    "ssim": ("SSIM", 3),
    "skill_score": ("skill_score", 2),
    "sharpening_gain": ("sharpening_gain", 2),
    "duplicates": ("repeated maps", 2),
    "probe": ("labels from the code", 3),
    "foreign": ("explained, photographs", 3),
}


def measured(run: Run, photos: Path) -> dict[str, float]:
    """What is compared of a run, on photographs too."""
    metrics = experiment.assess(run).metrics
    return {
        "explained": metrics.quality.explained_variance,
        "ssim": metrics.quality.ssim.value,
        "skill_score": metrics.perturbation.skill_score,
        "sharpening_gain": metrics.spectrum.sharpening_gain,
        "duplicates": max(x.duplicates / x.filters for x in metrics.layers),
        "probe": metrics.labels.trained,
        "probe_initial": metrics.labels.initial,
        "foreign": on_photographs(run, photos),
    }


def on_photographs(run: Run, photos: Path) -> float:
    """Explained variance of patches of photographs, around their own mean."""
    import keras

    from cae_cli import data
    from cae_cli.config.compose import checked
    from cae_cli.data import as_float

    options = checked(["data=image_folder", f"data.path={photos}", "data.patches=28", "data.train=1000"])
    patches = as_float(data.load(options[1].data).train)
    output = keras.saving.load_model(run.last).predict(patches, verbose=0)
    variance = np.square(patches - patches.mean(axis=0)).mean()
    return float(1 - np.square(output - patches).mean() / variance)


def main() -> None:
    """Trains what is missing, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    data, out = options.data.resolve(), options.out.resolve()
    base = [word.replace("{data}", str(data)) for word in BASE]
    wanted = {
        f"{name.replace(' ', '_').replace(',', '')}_{seed}": (
            name,
            (*base, *change.split(), f"seed={seed}"),
        )
        for seed in range(options.seeds)
        for name, change in CHANGES.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in CHANGES}
    with (
        signals.raised(),
        batch.opened(out, ["benchmarks/evidence.py"], pictures=False) as trained,
    ):
        runs = trained.train([Wanted(folder, words) for folder, (_, words) in wanted.items()])
        for run, (name, _) in zip(runs, wanted.values(), strict=True):
            for key, value in measured(run, data / "photos").items():
                found[name].setdefault(key, []).append(value)
    (out / "results.json").write_text(json.dumps(found, indent=1))
    print("\n" + table(found))


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """The reference's means, and the differences of the others to it, with intervals over seeds."""
    rows = ["| change | " + " | ".join(title for title, _ in COLUMNS.values()) + " |", "|---" * 8 + "|"]
    reference = found["reference"]
    for name, values in found.items():
        cells = []
        for key, (_, digits) in COLUMNS.items():
            base = np.array(reference[key])
            own = np.array(values[key])
            shown = own if name == "reference" else own - base
            sign = "" if name == "reference" else "+"
            cells.append(f"{shown.mean():{sign}.{digits}f} ± {half_width(shown):.{digits}f}")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    probe = np.array(reference["probe"]) - np.array(reference["probe_initial"])
    rows.append(
        f"\nLabels read from the reference's code, beyond its untrained encoder: "
        f"{probe.mean():+.3f} ± {half_width(probe):.3f}."
    )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
