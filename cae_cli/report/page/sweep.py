"""report.html of a sweep: the leaderboard, what each key changes, and a tile for each job."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cae_cli.report.figures.tiles import Colours
from cae_cli.report.page import charts, shell
from cae_cli.report.page.content import environment
from cae_cli.report.page.parts import as_html
from cae_cli.report.page.sprites import Sprite, coloured, picture, strip
from cae_cli.report.sections import Part
from cae_cli.statistics.interval import Interval
from cae_cli.system.guarded import GuardedPath

FILTERS, IMAGES = 8, 5  # of a job
SIDE = 44  # pixels of a picture
MOST_BARS = 40

JOBS = """\
{% import "parts.html" as parts with context %}
<p>The first filters and reconstructions of each job, those of the best configuration first. A title leads to the page of the run.</p>
<div class="filters">
{% for job in jobs %}
<article class="card filter"><h3 style="margin-top:0">{% if job.href %}<a href="{{ job.href }}">{{ job.lines[0] }}</a>{% else %}{{ job.lines[0] }}{% endif %}</h3>
<p class="small dim">{{ job.lines[1:]|join(", ") }}</p>
{% if job.row is not none %}<div class="scroll">{{ parts.tile(sprite, 0, job.row, "filters, images and reconstructions of " ~ job.lines[0]) }}</div>{% endif %}
</article>
{% endfor %}
</div>
"""


@dataclass(frozen=True)
class Tile:
    """A job.

    Attributes:
        lines: its name and its result.
        href: the page of its run, relative to that of the sweep; "" if it has none.
        kernel: (k, k, inputs, filters) of its first layer, or None.
        images: (n, h, w, c) held-out images, or None.
        outputs: (n, h, w, c) what it made of them.
    """

    lines: Sequence[str]
    href: str
    kernel: NDArray[Any] | None
    images: NDArray[Any] | None
    outputs: NDArray[Any] | None


def write(
    path: GuardedPath,
    title: str,
    parts: Sequence[Part],
    effects: Mapping[str, Sequence[tuple[str, Interval]]],
    jobs: Sequence[Tile],
    content: Mapping[str, Any],
) -> None:
    """Writes the page.

    Args:
        path: of the file.
        title: the sweep's.
        parts: the leaderboard as it is shown on the screen.
        effects: by metric, what each value of a key changes.
        jobs: in order.
        content: leaderboard.json, for machines.
    """
    with np.errstate(all="ignore"):  # networks that diverged
        pictures = [_pictures(job) for job in jobs]
    rows = [one for one in pictures if one is not None]
    sections = [("leaderboard", "Leaderboard", as_html(parts))]
    for metric, values in effects.items():
        known = [(name, found) for name, found in values if math.isfinite(found.value)]
        if known:
            chart = charts.forest(f"change of {metric}", known[:MOST_BARS])
            sections.append(("effects", f"Effects on {metric}", chart))
            break
    sprites = []
    if jobs:
        numbers = iter(range(len(rows)))
        shown = [
            {"lines": job.lines, "href": job.href, "row": None if own is None else next(numbers)}
            for job, own in zip(jobs, pictures, strict=True)
        ]
        if rows:
            height, width = (max(one.shape[axis] for one in rows) for axis in (0, 1))
            sprites = [Sprite([[_padded(one, height, width)] for one in rows])]
            sprites[0].name = "jobs"
        text = environment().from_string(JOBS).render(jobs=shown, sprite="jobs")
        sections.append(("jobs", "Jobs", Markup(text)))
    page = shell(title, sections, sprites=sprites, download=("leaderboard.json", content))
    with path.atomic() as temporary:
        temporary.write_text(page, encoding="utf-8")


def _pictures(job: Tile) -> NDArray[np.uint8] | None:
    """Filters, images and outputs of a job, a row each."""
    if job.images is None or job.outputs is None:
        return None
    rows = [[picture(one, SIDE) for one in own[:IMAGES]] for own in (job.images, job.outputs)]
    strips = [strip(row) for row in rows]
    if job.kernel is not None:
        kernel = np.asarray(job.kernel, np.float32).mean(axis=2)[..., :FILTERS]
        colours = Colours([kernel], signed=True)
        strips.insert(0, strip(coloured(kernel.transpose(2, 0, 1), colours, SIDE // 2)))
    width = max(one.shape[1] for one in strips)
    return np.concatenate([_padded(one, one.shape[0] + 3, width) for one in strips])


def _padded(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    h, w = pixels.shape[:2]
    return np.pad(pixels, ((0, height - h), (0, width - w), (0, 0)), constant_values=128)
