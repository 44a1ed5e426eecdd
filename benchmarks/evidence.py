"""What popular advice changes: the reference network with one change at a time, paired by seed.

    python -m benchmarks.evidence --data ../shared/data --out runs/evidence

Trains on 4,096 images of Fashion-MNIST for 1,024 steps (as many steps with more images) and measures on
1,000 other images, and on patches of photographs to test the filters on unrelated images. Prints a table
of differences to the reference with the 95 % interval over seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from cae_cli import experiment
from cae_cli.runs.folder import Run
from cae_cli.statistics.interval import interval
from cae_cli.sweep import batch
from cae_cli.sweep.batch import BatchRun
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
# Compared metrics: (title, digits).
COLUMNS = {
    "explained": ("explained variance", 3),
    "ssim": ("SSIM", 3),
    "skill_score": ("skill score", 2),
    "sharpening_gain": ("sharpening gain", 2),
    "duplicates": ("duplicate maps", 2),
    "probe": ("labels from the latent code", 3),
    "foreign": ("explained variance, photographs", 3),
}


def measured(run: Run, photos: Path) -> dict[str, float]:
    """The compared metrics of a run."""
    metrics = experiment.diagnose(run).metrics
    return {
        "explained": metrics.quality.explained_variance,
        "ssim": metrics.quality.ssim.value,
        "skill_score": metrics.perturbation.skill_score,
        "sharpening_gain": metrics.spectrum.sharpening_gain,
        "duplicates": max((x.duplicates or 0) / x.filters for x in metrics.layers),
        "probe": metrics.labels.trained,
        "probe_initial": metrics.labels.initial,
        "foreign": on_photographs(run, photos),
    }


def on_photographs(run: Run, photos: Path) -> float:
    """Explained variance of patches of photographs, relative to their own mean."""
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
    """Trains the missing runs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    data, out = options.data.resolve(), options.out.resolve()
    base = [override.replace("{data}", str(data)) for override in BASE]
    wanted = {
        f"{name.replace(' ', '_').replace(',', '')}_{seed}": (
            name,
            (*base, *change.split(), f"seed={seed}"),
        )
        for seed in range(options.seeds)
        for name, change in CHANGES.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    values: dict[str, dict[str, list[float]]] = {name: {} for name in CHANGES}
    with (
        signals.raised(),
        batch.opened(out, ["benchmarks.evidence"], pictures=False) as trained,
    ):
        runs = trained.train([BatchRun(folder, overrides) for folder, (_, overrides) in wanted.items()])
        for run, (name, _) in zip(runs, wanted.values(), strict=True):
            for key, value in measured(run, data / "photos").items():
                values[name].setdefault(key, []).append(value)
    (out / "results.json").write_text(json.dumps(values, indent=1))
    print("\n" + table(values))


def table(by_change: dict[str, dict[str, list[float]]]) -> str:
    """Means of the reference, and differences of the others to it, with intervals over seeds."""
    rows = ["| change | " + " | ".join(title for title, _ in COLUMNS.values()) + " |", "|---" * 8 + "|"]
    reference = by_change["reference"]
    for name, values in by_change.items():
        cells = []
        for key, (_, digits) in COLUMNS.items():
            base = np.array(reference[key])
            own = np.array(values[key])
            shown = own if name == "reference" else own - base
            sign = "" if name == "reference" else "+"
            cells.append(f"{shown.mean():{sign}.{digits}f} ± {interval(shown).margin:.{digits}f}")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    probe = np.array(reference["probe"]) - np.array(reference["probe_initial"])
    rows.append(
        f"\nLabels read from the latent code of the reference, compared with its untrained encoder: "
        f"{probe.mean():+.3f} ± {interval(probe).margin:.3f}."
    )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
