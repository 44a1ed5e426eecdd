"""Folders of runs with all that a page shows, made of random numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cae_cli.diagnosis import diagnose
from cae_cli.diagnosis.trials import Trial, Trials
from cae_cli.report import figures, page
from cae_cli.runs.folder import Run
from cae_cli.runs.json_files import plain
from tests.test_diagnosis import CONFIG, healthy
from tests.test_figures import make_run, rewrite

RNG = np.random.default_rng(1)


def make_page_run(
    folder: Path, *, channels=1, side=12, filters=(5, 12), black=False, layer="encoder_1", views=True,
    labels=True, dense=False,
) -> Run:  # fmt: skip
    """A run that was diagnosed; ``layer`` is the name of its first layer."""
    folder.mkdir(parents=True, exist_ok=True)
    run = make_run(folder, channels, side, filters)
    h, w = side if isinstance(side, tuple) else (side, side)
    names = [f"encoder_{n}" for n in range(1, len(filters) + 1)]
    rewrite(run, lambda key, values: values)
    arrays = run.read_arrays(run.arrays)
    arrays |= {f"map_image_std/{n}": arrays[f"map_std/{n}"] for n in names}
    arrays |= {f"utility/{n}": arrays[f"map_std/{n}"] / 10 for n in names}
    renamed = {k.replace("encoder_1", layer): v for k, v in arrays.items()}
    run.write_arrays(run.arrays, renamed)
    for path in run.snapshots().values():
        own = run.read_arrays(path)
        run.write_arrays(path, {k.replace("encoder_1", layer): v for k, v in own.items()})
    if views:
        own = views_of(channels, (h, w), dict(zip([layer, *names[1:]], filters, strict=True)), labels)
        run.write_arrays(run.views, own)
    metrics = healthy()
    if black:
        metrics = replace(
            metrics,
            quality=replace(
                metrics.quality, explained_variance=-0.6, output_variance_share=0.0, output_mean=0.0
            ),
        )
    diagnosis = diagnose(metrics, CONFIG)
    run.write_setup(
        {
            "command": ["cae", "train", "data=mnist", "model.filters=[16,8]"],
            "config": {"seed": 0, "data": {"name": "mnist"}, "model": {"filters": [16, 8]}},
            "data": {"source": "mnist", "train": 4096, "validation": 1000, "fingerprint": "ab" * 32},
            "packages": {"keras": "3.15"},
            "git": {"commit": "0" * 40},
        }
    )
    run.write_training(
        {
            "measured_epoch": 1,
            "held_out": "validation",
            "weights": 3217,
            "device": "CPU",
            "network": {
                "image_shape": [h, w, channels],
                "latent_shape": [16] if dense else [7, 7, 8],
                "latent_layer": "latent",
            },
        }
    )
    summary = {"verdict": diagnosis.verdict, "held_out": "validation", "metrics": metrics}
    run.write_summary({**summary, "diagnosis": diagnosis}, "text")
    return run


def try_fixes(run: Run) -> None:
    """Short trainings with one change each, and what they made of eight images."""
    own = {"before": 'Conv2D(1, 3, activation="sigmoid")', "after": 'Conv2D(1, 3, activation="linear")'}
    trials = Trials(
        Trial("unchanged", "", (), (-0.4, -0.5)),
        (
            Trial("linear output", "an output that cannot saturate", ("CAE301",), (0.7, 0.72), **own),
            Trial("cross-entropy", "the usual loss", ("CAE301",), (-0.4,)),
        ),
        (Trial("random: kernels", "", (), (-0.3,)),),
        steps=200,
    )
    images = RNG.random((8, 12, 12, 1)).astype(np.float32)
    pictures = dict.fromkeys(("images", "targets", "unchanged", "edit", "control"), images)
    run.write_trials(plain(trials.content()), pictures)


def views_of(channels, side, filters, labels):
    """The arrays of views.npz."""
    h, w = side
    arrays = {}
    for name, count in filters.items():
        shown = np.arange(min(count, 32), dtype=np.int32)
        for part in ("", "untrained_"):
            shape = (len(shown), 9, 3, 3, channels)
            arrays[f"{part}patch/{name}"] = RNG.integers(0, 256, shape, np.uint8)
            table = RNG.random((len(shown), 4)).astype(np.float32) * [180, 8, 1, 1]
            table[0] = [np.nan, np.nan, np.nan, 0]
            arrays[f"{part}tuning/{name}"] = table
            arrays[f"{part}map/{name}"] = RNG.random((8, 6, 6, len(shown))).astype(np.float32)
        arrays[f"shown/{name}"] = shown
        arrays[f"field/{name}"] = np.array([3, 3])
    count = 40
    arrays |= {
        "atom": RNG.normal(size=(8, h, w, channels)).astype(np.float32),
        "atom_channel": np.arange(8),
        "traversal": RNG.integers(0, 256, (2, 7, h, w, channels), np.uint8),
        "traversal_share": np.array([0.5, 0.2]),
        "code": RNG.normal(size=(count, 2)).astype(np.float32),
        "code_share": np.array([0.5, 0.2]),
        "thumbnail": RNG.integers(0, 256, (count, h, w, channels), np.uint8),
        "neighbour": RNG.integers(0, count, (8, 5)),
    }
    if labels:
        arrays["code_label"] = RNG.integers(0, 12, count)
    return arrays


def written(run: Run) -> str:
    """The page of a run."""
    return page.write(run, figures.read(run)).read_text(encoding="utf-8")
