"""MLflow: a run with parameters, metrics, pictures, tags and artifacts."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from cae_cli.errors import to_paste
from cae_cli.runs.registry import flat
from cae_cli.trackers.tracker import TRACKERS, Facts, Result, Session, Tracker

LONGEST = 500  # characters of a value; servers refuse longer ones
STATUS = {"ok": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


@TRACKERS.add("mlflow")
@dataclass(frozen=True, kw_only=True)
class MLflow(Tracker):
    """An experiment of MLflow holds the runs of a project, or of one of its sweeps."""

    module: ClassVar[str] = "mlflow"
    extra: ClassVar[str] = "mlflow"
    shows: ClassVar[Sequence[str]] = ("mlflow", "ui", "--backend-store-uri")
    environment: ClassVar[Mapping[str, str]] = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    }

    def open(self, facts: Facts, known: str | None) -> Session:
        """Opens a run at ``uri``; without it where MLFLOW_TRACKING_URI says, or in ./mlflow.db."""
        return _Session(facts, known, self.project, self.uri)

    def destination(self) -> str:
        """The address may stand in the environment."""
        import mlflow

        return f"{self.project} {self.uri or mlflow.get_tracking_uri()}"


class _Session(Session):
    def __init__(self, facts: Facts, known: str | None, project: str, uri: str | None) -> None:
        import mlflow
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(tracking_uri=uri)
        if known is None:
            experiment = f"{project}/{facts.group}" if facts.group else project
            # Not with start_run, which also records the user, the command and the machine.
            run = self._client.create_run(
                self._experiment(experiment),
                start_time=_milliseconds(facts.began),
                run_name=facts.name,
                tags={
                    "cae.folder": str(facts.folder),
                    **({"cae.sweep": facts.group} if facts.group else {}),
                    "cae.changed": _cut(" ".join(f"{k}={v}" for k, v in facts.changed.items())),
                    **{f"tag.{tag}": "true" for tag in facts.tags},
                },
            )
            self.id = run.info.run_id
            params = [Param(key, _cut(value)) for key, value in flat(facts.config).items()]
            self._client.log_batch(self.id, params=params)
        else:
            self.id = known
            self._client.update_run(known, status="RUNNING")
        self.where = _where(uri or mlflow.get_tracking_uri(), self._client.get_run(self.id))

    def _experiment(self, name: str) -> Any:
        """The id of an experiment, which another job of the sweep may create at the same time."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        try:
            return self._client.create_experiment(name)
        except MlflowException:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return found.experiment_id

    def metrics(self, epochs: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        values = [Metric(name, v, now, epoch) for epoch, row in epochs for name, v in row.items()]
        self._client.log_batch(self.id, metrics=values)

    def image(self, name: str, epoch: int, path: Path) -> None:
        from PIL import Image

        with Image.open(path) as picture:
            self._client.log_image(self.id, picture.convert("RGB"), key=name, step=epoch)

    def result(self, result: Result) -> None:
        from mlflow.entities import Metric, RunTag

        now = time.time_ns() // 1_000_000
        findings = "\n".join(f"- {code}: {problem}" for code, problem in result.findings.items())
        tags = {
            "cae.verdict": result.verdict,
            "cae.findings": " ".join(result.findings),
            "mlflow.note.content": f"**{result.verdict}**\n\n{findings}",
        }
        self._client.log_batch(
            self.id,
            metrics=[
                Metric(f"result/{name}", v, now, result.epoch) for name, v in result.figures.items()
            ],
            tags=[RunTag(key, value[:5000]) for key, value in tags.items()],
        )

    def figure(self, name: str, epoch: int, path: Path) -> None:
        # As a file: pictures by step are charts, and would stand before those of the metrics.
        self._client.log_artifact(self.id, str(path), str(Path("figures", name).parent))

    def file(self, path: Path) -> None:
        self._client.log_artifact(self.id, str(path))

    def close(self, status: str, ended: datetime | None) -> None:
        if status != "running":
            end = None if ended is None else _milliseconds(ended)
            self._client.set_terminated(self.id, STATUS[status], end)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _where(uri: str, run: Any) -> str:
    """The page of a run, or the command that shows it."""
    uri = re.sub(r"//[^/]*@", "//", uri)  # no password
    if not uri.startswith("http"):
        return to_paste(*MLflow.shows, uri)
    return f"{uri.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def _cut(value: Any) -> str:
    return str(value)[:LONGEST]
