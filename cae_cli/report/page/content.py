"""What the sections of the page share: the content of the run folder, and the catalogue of sections."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from cae_cli.diagnosis import RULES
from cae_cli.diagnosis.trials import Trials
from cae_cli.errors import visible
from cae_cli.report.figures.catalogue import Arrays, RunData
from cae_cli.report.numbers import NOTHING, number, share
from cae_cli.report.page import charts
from cae_cli.report.page.sprites import Sprite

LONGEST = 2000  # characters of a text that a stranger may have written


@dataclass(frozen=True)
class Content:
    """The content of a run folder, and the pictures that the sections make of it.

    Attributes:
        name: of the folder.
        id: the short name that commands find the run by.
        data: arrays, epochs, snapshots and thresholds.
        views: arrays of views.npz; {} where there are none.
        summary: summary.json.
        setup: run.json.
        training: training.json.
        trials: short trainings with fixes; None if there were none.
        sprites: pictures by name; sections add to them.
    """

    name: str
    id: str
    data: RunData
    views: Arrays
    summary: Mapping[str, Any]
    setup: Mapping[str, Any]
    training: Mapping[str, Any]
    trials: Trials | None = None
    sprites: dict[str, Sprite] = field(default_factory=dict)

    @property
    def diagnosis(self) -> Mapping[str, Any]:
        """The diagnosis, as in summary.json."""
        found: Mapping[str, Any] = self.summary["diagnosis"]
        return found

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics, as in summary.json."""
        found: Mapping[str, Any] = self.summary["metrics"]
        return found

    @cached_property
    def epochs(self) -> list[int]:
        """Epochs whose filters and reconstructions were kept, one at least."""
        return sorted(self.data.snapshots) or [int(self.training.get("measured_epoch") or 0)]

    @cached_property
    def anchors(self) -> dict[str, str]:
        """An address on the page for each layer, whose name may hold anything."""
        return {layer: _anchor(layer, i) for i, layer in enumerate(self.data.layers)}

    def add(self, sprite: Sprite | None) -> str:
        """Adds a picture and gives its name; "" where there is none."""
        if sprite is None:
            return ""
        key = f"s{len(self.sprites)}"
        self.sprites[key] = sprite
        sprite.name = key
        return key

    def view(self, name: str) -> NDArray[Any] | None:
        """An array of views.npz, None where it is missing."""
        return self.views.get(name)


def _anchor(layer: str, index: int) -> str:
    plain = layer.isascii() and layer.replace("_", "").replace("-", "").replace(".", "").isalnum()
    return layer if plain and len(layer) < 80 else f"layer-{index}"


Section = Callable[[Content], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Entry:
    """A section of the page.

    Attributes:
        anchor: its address.
        title: its heading.
        template: its content.
        values: what the template needs; None where the run has nothing to show.
    """

    anchor: str
    title: str
    template: str
    values: Section

    def render(self, content: Content, templates: Environment) -> Markup | None:
        """Its content, None where there is nothing to show."""
        values = self.values(content)
        if values is None:
            return None
        text = '{% import "parts.html" as parts with context %}' + self.template
        return Markup(templates.from_string(text).render(content=content, **values))


SECTIONS: list[Entry] = []


def section(anchor: str, title: str, template: str) -> Callable[[Section], Section]:
    """Decorator that enters a section; arguments as for `Entry`."""

    def enter(values: Section) -> Section:
        SECTIONS.append(Entry(anchor, title, template, values))
        return values

    return enter


@cache
def environment() -> Environment:
    """The templates. Every text is escaped, and shortened if it is very long."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    problems = {rule.code: rule.problem for rule in RULES}
    templates.globals |= {
        "meter": charts.meter,
        "problem": lambda code: problems.get(code, code),
        "number": lambda value, digits=2: number(_float(value), digits) or NOTHING,
        "share": lambda value, digits=1: share(_float(value), digits) or NOTHING,
    }
    return templates


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _shown(value: Any) -> Any:
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = value if len(value) <= LONGEST else f"{value[:LONGEST]}…"
    return visible(text)


def relative_change(after: NDArray[Any], before: NDArray[Any]) -> NDArray[Any]:
    """(filters,) norm of the change of each kernel over the norm before; kernels are (..., filters)."""
    axes = tuple(range(after.ndim - 1))
    change = np.sqrt(np.square(after - before).sum(axis=axes))
    norm = np.sqrt(np.square(before).sum(axis=axes))
    return np.asarray(change / np.where(norm > 0, norm, np.nan))
