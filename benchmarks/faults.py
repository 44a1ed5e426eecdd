# ruff: noqa: E501 (one experiment on a line)
"""Faults put into healthy experiments on purpose, and whether the diagnosis names each one first.

    python benchmarks/faults.py --data ../shared/data --out runs/faults [--only CAE207] [--runs 10]

Every run is a real training on real images, kept in a folder of its own: what is there already is
judged again and not trained again. Prints a table: for each fault how often it was named first, what
was named instead, and the findings of healthy runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import traceback
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = ["training.epochs=8"]
FASHION = [
    "data=fashion_mnist",
    "data.path={data}/fashion_mnist.npz",
    "data.train=4096",
    "data.test=1000",
]
MNIST = ["data=mnist", "data.path={data}/mnist.npz", "data.train=4096", "data.test=1000"]
OMNIGLOT = ["data=npz", "data.path={data}/omniglot.npz", "data.train=4096"]
PHOTOS = ["data=image_folder", "data.path={data}/photos", "data.patches=28", "data.train=4096"]
MADE = ["data=npz", "data.path={out}/images/{name}.npz", "data.train=4096"]


def fault(*variants: str, base: list[str] = FASHION) -> list[list[str]]:
    """The same experiment with each of some faults, given as overrides separated by blanks."""
    return [[*base, *LENGTH, *variant.split()] for variant in variants]


def made(name: str, *overrides: str) -> list[str]:
    """An experiment on images that `make_images` writes."""
    return [*(word.replace("{name}", name) for word in MADE), *LENGTH, *overrides]


# By the code that should be named first.
FAULTS: dict[str, list[list[str]]] = {
    "CAE101": [made("repeats_16"), made("repeats_100"), made("nearly_equal"), made("repeats_1000")],
    "CAE102": [made("bytes", "data.scale=none"), made("signed", "data.scale=none"),
               made("words", "data.scale=none"), made("bytes", "data.scale=none", "loss=mae")],
    "CAE103": fault("augmentation=light augmentation.target=original",
                    "augmentation=flip augmentation.target=original",
                    "augmentation=light augmentation.target=original augmentation.rotation=30",
                    "augmentation=light augmentation.target=original augmentation.shift=0.2"),
    "CAE104": [made("noise_uniform"), made("noise_gaussian"), made("noise_binary")],
    "CAE105": fault("data.noise=0.35", "data.noise=0.4", "data.noise=0.5", "data.noise=0.6"),
    "CAE201": fault("optimizer.learning_rate=1e20", "optimizer=sgd optimizer.learning_rate=1e4 model.output_activation=linear",
                    "optimizer=sgd optimizer.learning_rate=1e3 model.output_activation=linear model.activation=elu"),
    "CAE203": fault("model.output_activation=softmax", "model.output_activation=softmax loss=bce",
                    "model.output_activation=softmax loss=mae"),
    "CAE204": fault("loss=ssim loss.k1=2.55 loss.k2=7.65", "loss=ssim loss.k1=2.55 loss.k2=7.65 loss.window=7",
                    "loss=ssim loss.k1=2.55 loss.k2=7.65 model=wide"),
    "CAE205": fault("model.initializer=zeros", "model=wide model.initializer=zeros",
                    "model=strided model.initializer=zeros", "model=deep model.initializer=zeros"),
    "CAE206": fault("regularization=l2 regularization.l2.strength=0.1", "regularization=l1 regularization.l1.strength=0.01",
                    "regularization=l2 regularization.l2.strength=1", "regularization=l1 regularization.l1.strength=0.1",
                    "regularization=activity_l1 regularization.activity_l1.strength=0.01"),
    "CAE207": fault("optimizer.learning_rate=0.1", "optimizer.learning_rate=0.2", "optimizer.learning_rate=0.5",
                    "optimizer=rmsprop optimizer.learning_rate=0.1", "optimizer.learning_rate=1"),
    "CAE208": fault("optimizer.learning_rate=1e-6", "optimizer.learning_rate=1e-5", "optimizer=adadelta optimizer.learning_rate=0.001",
                    "optimizer=sgd optimizer.learning_rate=1e-4", "optimizer.learning_rate=3e-6"),
    "CAE209": fault("training.frozen=encoder", "training.frozen=encoder model=wide", "training.frozen=decoder",
                    "training.frozen=encoder loss=bce"),
    "CAE210": fault("regularization=batchnorm regularization.batchnorm.momentum=0.9999",
                    "regularization=batchnorm regularization.batchnorm.momentum=0.9995",
                    "regularization=batchnorm regularization.batchnorm.momentum=0.99999",
                    "model=wide regularization=batchnorm regularization.batchnorm.momentum=0.9999"),
    "CAE211": fault("training.steps=128", "training.steps=160", "training.steps=200", "training.steps=200 loss=bce",
                    "training.steps=256 optimizer.learning_rate=0.0003"),
    "CAE301": [*fault("seed=0", base=MNIST), *fault("seed=0", base=OMNIGLOT)],
    "CAE501": fault("data.train=16 training.batch_size=1 training.epochs=100 model.filters=[64,32]",
                    "data.train=16 training.batch_size=1 training.epochs=100 model.filters=[128,64]",
                    "data.train=32 training.batch_size=1 training.epochs=100 model.filters=[64,32]",
                    "data.train=16 training.batch_size=2 training.epochs=200 model.filters=[64,32] loss=bce"),
    "CAE502": fault("model=unet", "model=unet loss=bce", "model=unet model.filters=[32,16]", "model=unet model.code_channels=2"),
    "CAE503": fault("model.filters=[16] model.code_channels=64", "model.filters=[64] model.code_channels=64",
                    "model.filters=[32] model.code_channels=64 model.activation=elu",
                    "model.filters=[64] model.code_channels=32 model.downsampling=strided"),
    "CAE601": fault("model.kernel_size=1", "model.kernel_size=1 model=wide", "model.kernel_size=1 loss=bce",
                    "model.kernel_size=1 model.filters=[32,16]"),
    "CAE602": fault("model.filters=[16,16,16,16] model.code_channels=1", "model.filters=[16,16,16,16] model.code_channels=2",
                    "model.filters=[32,32,32,32] model.code_channels=1", "model.filters=[16,16,16,16,16] model.code_channels=4"),
    "CAE603": fault("model.filters=[1,1]", "model.filters=[2,1]", "model.filters=[1,1] loss=bce", "model.filters=[2,2] model.code_channels=1"),
    "CAE604": fault("model.filters=[16] model.code_channels=8", "model.filters=[16] model.code_channels=4",
                    "model.filters=[32] model.code_channels=8", "model.filters=[8] model.code_channels=8"),
    "CAE605": fault("model.filters=[16,16,16] model.convolutions=8", "model.filters=[16,16] model.convolutions=12",
                    "model.filters=[8,8,8] model.convolutions=4", "model.filters=[8,8] model.convolutions=8"),
}  # fmt: skip

HEALTHY: dict[str, list[str]] = {
    "fashion": [*FASHION, *LENGTH],
    "fashion bce": [*FASHION, *LENGTH, "loss=bce"],
    "fashion ssim": [*FASHION, "training.epochs=10", "loss=ssim"],
    "fashion batchnorm": [*FASHION, *LENGTH, "regularization=batchnorm"],
    "fashion dropout": [*FASHION, *LENGTH, "regularization=dropout"],
    "fashion wide": [*FASHION, *LENGTH, "model=wide"],
    "fashion strided": [*FASHION, *LENGTH, "model=strided"],
    "fashion residual": [*FASHION, *LENGTH, "model=residual"],
    "fashion attention": [*FASHION, *LENGTH, "model=attention"],
    "fashion adam .01": [*FASHION, *LENGTH, "optimizer.learning_rate=0.01"],
    "fashion augmented": [*FASHION, *LENGTH, "augmentation=light"],
    "fashion denoising": [*FASHION, *LENGTH, "regularization=noise"],
    "fashion elu linear": [*FASHION, *LENGTH, "model.activation=elu", "model.output_activation=linear"],
    "omniglot bce": [*OMNIGLOT, *LENGTH, "loss=bce"],
    "mnist bce": [*MNIST, *LENGTH, "loss=bce"],
    "glyphs": LENGTH,
    "photo patches": [*PHOTOS, *LENGTH],
}


def make_images(data: Path, folder: Path) -> None:
    """Writes the images that no option can make, (4,500, 28, 28) each."""
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(data / "fashion_mnist.npz", allow_pickle=False) as file:
        images = file["x_train"][:4500].astype(np.float32) / 255
    rng = np.random.default_rng(0)
    shape = images.shape
    few = {n: images[rng.integers(0, n, len(images))] for n in (16, 100, 1000)}
    written = {
        **{f"repeats_{n}": x for n, x in few.items()},
        "nearly_equal": np.clip(images[:1] + 0.01 * rng.standard_normal(shape), 0, 1),
        "bytes": images * 255,
        "words": images * 16,
        "signed": images * 2 - 1,
        "noise_uniform": rng.random(shape),
        "noise_gaussian": np.clip(0.5 + 0.2 * rng.standard_normal(shape), 0, 1),
        "noise_binary": rng.integers(0, 2, shape),
    }
    for name, values in written.items():
        path = folder / f"{name}.npz"
        if not path.exists():
            np.savez(path, x_train=values.astype(np.float32))


def one(job: tuple[str, list[str]]) -> tuple[str, dict[str, Any]]:
    """Trains (if needed) and judges one run; returns its folder and what was found."""
    folder, overrides = Path(job[0]), job[1]
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    from cae_cli import experiment
    from cae_cli.compose import checked
    from cae_cli.config import plain
    from cae_cli.diagnosis import diagnose
    from cae_cli.engine import quiet
    from cae_cli.measures.measured import measure
    from cae_cli.report.terminal import Screen
    from cae_cli.run import Run
    from cae_cli.run import plain as as_plain

    try:
        _, options = checked(overrides)
        run = Run(folder)
        if not run.arrays.exists():
            folder.mkdir(parents=True, exist_ok=True)
            run.metrics.unlink(missing_ok=True)
            images = experiment.read(options)
            screen = Screen()
            screen.live, screen.say = False, lambda text: None
            with quiet(run.log):
                experiment.train(options, images, experiment.look_at(images), run, screen)
        measures = measure(run.read_arrays(run.arrays), run.read_metrics(), run.training())
        diagnosis = diagnose(measures, plain(options))
    except Exception:
        return job[0], {"error": traceback.format_exc()}
    found = [(f.code, f.severity.value, f.consequence_of) for f in diagnosis.findings]
    return job[0], {
        "measures": as_plain(measures),
        "overrides": overrides,
        "found": found,
        "first": found[0][0] if found else None,
        "confidence": diagnosis.findings[0].confidence.value if found else None,
        "explained": measures.quality.explained_variance,
        "skill": measures.causal.skill,
        "score": measures.score.value,
        "displacement": float(np.mean([layer.displacement for layer in measures.layers])),
    }


def main() -> None:
    """Runs the faults and the healthy experiments, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    parser.add_argument("--runs", type=int, default=10, help="of each fault")
    parser.add_argument("--seeds", type=int, default=3, help="of each healthy experiment")
    parser.add_argument("--only", nargs="*", help="codes, or 'healthy'")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    data, out = options.data.resolve(), options.out.resolve()
    make_images(data, out / "images")

    def filled(words: list[str], seed: int) -> list[str]:
        return [
            *(w.replace("{data}", str(data)).replace("{out}", str(out)) for w in words),
            f"seed={seed}",
        ]

    jobs: list[tuple[str, list[str]]] = []
    for code, variants in FAULTS.items():
        # the variants in turn, each round with another seed
        for number, variant in zip(range(options.runs), itertools.cycle(variants), strict=False):
            words = [w for w in variant if not w.startswith("seed=")]
            jobs.append((str(out / code / str(number)), filled(words, number // len(variants))))
    for name, words in HEALTHY.items():
        for seed in range(options.seeds):
            jobs.append((str(out / "healthy" / f"{name.replace(' ', '_')}_{seed}"), filled(words, seed)))
    if options.only:
        jobs = [job for job in jobs if Path(job[0]).parent.name in options.only]

    results: dict[str, dict[str, Any]] = {}
    # A process for every few runs: TensorFlow never gives memory back.
    with get_context("spawn").Pool(options.workers, maxtasksperchild=12) as pool:
        for folder, result in pool.imap(one, jobs):
            results[folder] = result
            name = "/".join(Path(folder).parts[-2:])
            if "error" in result:
                print(name, result["error"].strip().splitlines()[-1], file=sys.stderr)
                continue
            print(
                f"{name:32} first {result['first']!s:7} EV {result['explained']:7.3f} "
                f"skill {result['skill']:7.2f} score {result['score']:.2f}  "
                + " ".join(f"{c}{'<' + cause if cause else ''}" for c, _, cause in result["found"]),
                flush=True,
            )
    for result in results.values():
        result.pop("measures", None)
    (out / "results.json").write_text(json.dumps(results, indent=1))
    print()
    report(results)


def report(results: dict[str, dict[str, Any]]) -> None:
    """For each fault how often it was named first; the alarms of healthy runs; how the score ranks."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for folder, result in results.items():
        groups.setdefault(Path(folder).parent.name, []).append(result)
    for code, runs in groups.items():
        if code == "healthy":
            alarms = [
                r for r in runs if any(severity != "note" for _, severity, _ in r.get("found", []))
            ]
            print(f"healthy: {len(alarms)} of {len(runs)} with a finding above note")
            continue
        first = Counter(str(r.get("first")) for r in runs)
        others = ", ".join(f"{c} {n}" for c, n in first.most_common() if c != code)
        print(f"{code}: {first[code]} of {len(runs)}{f'; else {others}' if others else ''}")
    for key in ("score", "explained"):
        well = [r[key] for r in groups.get("healthy", []) if key in r]
        sick = [r[key] for code, runs in groups.items() if code != "healthy" for r in runs if key in r]
        if well and sick:
            pairs = np.subtract.outer(well, np.nan_to_num(sick, nan=-np.inf))
            print(
                f"{key}: a healthy run ranks above a faulty one in {np.mean(pairs > 0):.3f} of the pairs"
            )


if __name__ == "__main__":
    main()
