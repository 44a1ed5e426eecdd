"""TensorBoard: event files in the run folder, written with tensorboardX, which needs no TensorFlow."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from cae_cli.errors import UserError, to_paste
from cae_cli.trackers.tracker import TRACKERS, Facts, Result, Session, Tracker

PICTURES = "visual"  # after "train" and "val" in the alphabet: the curves come first


@TRACKERS.add("tensorboard")
@dataclass(frozen=True, kw_only=True)
class TensorBoard(Tracker):
    """Scalars, pictures, texts and hyperparameters."""

    module: ClassVar[str] = "tensorboardX"
    extra: ClassVar[str] = "tensorboard"
    shows: ClassVar[Sequence[str]] = ("tensorboard", "--logdir")

    def open(self, facts: Facts, known: str | None) -> Session:
        """Writes into the run folder, or into a folder of its own below ``uri``."""
        above = None if self.uri is None else Path(self.uri).expanduser() / self.project
        if above is None:
            return _Session(facts, facts.folder, is_new=known is None)
        folder = Path(known) if known else above / (facts.group or "") / facts.name
        if not folder.is_relative_to(above) or ".." in folder.relative_to(above).parts:
            raise UserError(f"the run names a folder that is not in {above}", where=facts.folder)
        return _Session(facts, folder, is_new=known is None)


class _Session(Session):
    def __init__(self, facts: Facts, folder: Path, *, is_new: bool) -> None:
        from tensorboardX import SummaryWriter

        self.id = str(folder)
        self.where = to_paste(*TensorBoard.shows, folder.parent if facts.group else folder)
        # Without a suffix a file is named by the second, and a second writer empties it.
        # TensorBoard reads files by name, and the name has seconds only.
        suffix = f".{time.time_ns():020}.{uuid.uuid4().hex[:8]}"
        self._writer = SummaryWriter(str(folder), filename_suffix=suffix)
        if is_new:
            self._describe(facts)

    def _describe(self, facts: Facts) -> None:
        from tensorboardX.summary import hparams

        lines = [f"- `{key}={value}`" for key, value in facts.changed.items()] or ["- the defaults"]
        tags = ", ".join(facts.tags) or "none"
        self._writer.add_text("run", f"`{facts.folder}`, tags: {tags}\n\n" + "\n".join(lines), 0)
        self._writer.add_text("whole_config", _indented(json.dumps(facts.config, indent=2)), 0)
        if facts.changed:
            # Without the first of the three, TensorBoard finds the columns of all runs by itself.
            for summary in hparams(hparam_dict=dict(facts.changed), metric_dict={})[1:]:
                self._writer.file_writer.add_summary(summary)

    def metrics(self, epochs: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        for epoch, values in epochs:
            for name, value in values.items():
                self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def image(self, name: str, epoch: int, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))  # (h, w, 3)
        self._writer.add_image(f"{PICTURES}/{name}", pixels, epoch, dataformats="HWC")

    def result(self, result: Result) -> None:
        findings = "".join(f"\n- {code}: {problem}" for code, problem in result.findings.items())
        self._writer.add_text("diagnosis", f"**{result.verdict}**\n{findings}\n", result.epoch)
        for name, value in result.figures.items():
            self._writer.add_scalar(f"result/{name}", value, result.epoch)
        self._writer.add_text("summary", _indented(result.text), result.epoch)

    def close(self, status: str, ended: datetime | None) -> None:
        self._writer.close()


def _indented(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return "".join(f"    {line}\n" for line in text.splitlines())
