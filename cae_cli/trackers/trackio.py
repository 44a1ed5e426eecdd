"""Trackio: a local database that its own dashboard shows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from cae_cli.errors import to_paste
from cae_cli.runs.registry import flat
from cae_cli.trackers.tracker import TRACKERS, Facts, Result, Session, Tracker


@TRACKERS.add("trackio")
@dataclass(frozen=True, kw_only=True)
class Trackio(Tracker):
    """A project with a run for each run, and a group for each sweep."""

    module: ClassVar[str] = "trackio"
    extra: ClassVar[str] = "trackio"
    shows: ClassVar[Sequence[str]] = ("trackio", "show", "--project")
    environment: ClassVar[Mapping[str, str]] = {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
    }

    def open(self, facts: Facts, known: str | None) -> Session:
        """Opens a run in the folder ``uri``, or in that of the library."""
        if self.uri is not None:
            os.environ["TRACKIO_DIR"] = str(Path(self.uri).expanduser().absolute())
        return _Session(facts, known, self.project)


class _Session(Session):
    def __init__(self, facts: Facts, known: str | None, project: str) -> None:
        import trackio

        self._trackio = trackio
        self.id = known or "/".join(filter(None, (facts.group, facts.name)))
        self._run = trackio.init(
            project,
            name=self.id,
            group=facts.group,
            config={
                **flat(facts.config),
                "tags": ", ".join(facts.tags),
                "changed": " ".join(f"{key}={value}" for key, value in facts.changed.items()),
                "folder": str(facts.folder),
            },
            resume="must" if known else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self.where = to_paste(*Trackio.shows, project)

    def metrics(self, epochs: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        for epoch, values in epochs:
            self._run.log(dict(values), step=epoch)

    def image(self, name: str, epoch: int, path: Path) -> None:
        self._run.log({f"pictures/{name}": self._trackio.Image(str(path))}, step=epoch)

    def result(self, result: Result) -> None:
        findings = "".join(f"\n- {code}: {problem}" for code, problem in result.findings.items())
        text = self._trackio.Markdown(f"**{result.verdict}**\n{findings}")
        figures = {f"result/{name}": value for name, value in result.figures.items()}
        self._run.log({**figures, "diagnosis": text}, step=result.epoch)

    def file(self, path: Path) -> None:
        kind = "model" if path.suffix == ".keras" else "report"
        name = f"{self.id}-{path.name}".replace("/", "-").replace(" ", "-")
        self._run.log_artifact(str(path), name=name, type=kind)

    def close(self, status: str, ended: datetime | None) -> None:
        self._run.finish()
