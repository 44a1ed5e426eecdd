"""Weights & Biases: online where a key is set up, else offline, for ``wandb sync``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from cae_cli.errors import to_paste
from cae_cli.trackers.tracker import TRACKERS, Facts, Result, Session, Tracker


@TRACKERS.add("wandb")
@dataclass(frozen=True, kw_only=True)
class WandB(Tracker):
    """A project with a run for each run, and a group for each sweep."""

    module: ClassVar[str] = "wandb"
    extra: ClassVar[str] = "wandb"
    shows: ClassVar[Sequence[str]] = ("wandb", "sync")
    environment: ClassVar[Mapping[str, str]] = {
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_ERROR_REPORTING": "false",
    }

    def open(self, facts: Facts, known: str | None) -> Session:
        """Opens a run of the server at ``uri``, or of that of the library."""
        return _Session(facts, known, self.project, self.uri)


class _Session(Session):
    def __init__(self, facts: Facts, known: str | None, project: str, uri: str | None) -> None:
        import wandb

        settings = wandb.Settings(
            base_url=uri or wandb.Settings().base_url,
            # Of the machine, its packages and its load nothing is recorded.
            x_save_requirements=False,
            **{f"x_disable_{what}": True for what in ("meta", "stats", "machine_info")},
        )
        self._run = wandb.init(
            project=project,
            group=facts.group,
            name=facts.name,
            tags=[tag[:64] for tag in facts.tags],
            config={**facts.config, "changed": dict(facts.changed), "folder": str(facts.folder)},
            id=known,
            resume="allow",
            mode=_mode(uri),
            settings=settings,
        )
        self._wandb = wandb
        self.id = self._run.id
        folder = Path(self._run.dir).parent
        self.where = self._run.url or to_paste(*WandB.shows, folder)
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")

    def metrics(self, epochs: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        for epoch, values in epochs:
            self._run.log({**values, "epoch": epoch})

    def image(self, name: str, epoch: int, path: Path) -> None:
        self._run.log({f"pictures/{name}": self._wandb.Image(str(path)), "epoch": epoch})

    def result(self, result: Result) -> None:
        self._run.summary.update(
            {
                "verdict": result.verdict,
                "findings": dict(result.findings),
                **{f"result/{name}": value for name, value in result.figures.items()},
            }
        )
        self._run.tags = (*dict.fromkeys([*(self._run.tags or ()), *result.findings]),)

    def file(self, path: Path) -> None:
        kind = "model" if path.suffix == ".keras" else "report"
        artifact = self._wandb.Artifact(f"{self.id}-{path.name}", type=kind)
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self, status: str, ended: datetime | None) -> None:
        self._run.finish(exit_code=int(status in ("failed", "interrupted")))


def _mode(uri: str | None) -> Any:
    """Online only where that asks nothing: a key is set up already."""
    import wandb

    if "WANDB_MODE" in os.environ:
        return os.environ["WANDB_MODE"]
    return "online" if wandb.login(prompt=False, host=uri) else "offline"
