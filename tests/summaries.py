"""Summaries of runs, written from real metrics by the real writer: a renamed field breaks readers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cae_cli.diagnosis.finding import Diagnosis, Finding, Severity
from cae_cli.metrics.collect import Layer
from cae_cli.metrics.quality import Mean
from cae_cli.runs.folder import Run
from tests.test_diagnosis import healthy, layer


def write_summary(
    run: Run,
    psnr: float,
    *,
    ssim: float,
    explained: float,
    meaningful: float,
    black: float = 0.2,
    layers: Sequence[Layer] = (),
    code: str = "",
) -> None:
    """summary.json and summary.txt of a healthy run but for these numbers."""
    metrics = healthy()
    quality = replace(
        metrics.quality,
        images=100,
        psnr=Mean(psnr, 0.1),
        ssim=Mean(ssim, 0.1),
        mse=Mean(10 ** (-psnr / 10), 0.1),
        explained_variance=explained,
        black_mse=black,
    )
    metrics = replace(
        metrics,
        quality=quality,
        score=replace(metrics.score, value=meaningful),
        layers=tuple(layers) or (layer(filters=8, dead=1),),
    )
    findings = (Finding(code, "a problem", Severity.WARNING, "what was measured", ()),) if code else ()
    verdict = f"no problem found; {psnr} dB"
    diagnosis = Diagnosis(verdict, findings, (), (), (), undecided=False, thresholds={})
    run.write_summary(
        {"verdict": verdict, "held_out": "test", "metrics": metrics, "diagnosis": diagnosis}, "text"
    )
