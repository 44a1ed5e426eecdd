"""Charts of the page as SVG, without a plotting library: lines, a meter, a map of points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from cae_cli.errors import printable, short
from cae_cli.statistics.interval import Interval

WIDTH, HEIGHT = 420, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 24, 34
METER = 200  # units of a meter's width
MARKS = 8  # colours and shapes of points and lines


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        label: in the legend.
        x, y: (n,) its points; those that are not finite interrupt it.
    """

    label: str
    x: NDArray[np.floating]
    y: NDArray[np.floating]


def lines(
    title: str,
    across: str,
    series: Sequence[Series],
    *,
    note: str = "",
    logarithmic: bool = False,
    logarithmic_across: bool = False,
    band: tuple[float, float] | None = None,
    threshold: tuple[float, str] | None = None,
) -> Markup | None:
    """A chart of lines; None if no line has a point.

    Args:
        title: above it.
        across: the meaning of the horizontal axis.
        series: the lines; beyond the eighth, colours repeat.
        note: what it shows and what is usual, below it.
        logarithmic: the vertical axis, where all values are above 0.
        logarithmic_across: the horizontal axis; all x are above 0.
        band: of usual values.
        threshold: a value, and what it is of.
    """
    known = [(s, np.isfinite(s.x) & np.isfinite(s.y)) for s in series]
    known = [(s, ok) for s, ok in known if ok.any()]
    if not known:
        return None
    xs = np.concatenate([s.x[ok] for s, ok in known]).astype(float)
    ys = np.concatenate([s.y[ok] for s, ok in known]).astype(float)
    logarithmic = logarithmic and bool(ys.min() > 0) and bool(ys.max() > 10 * ys.min())
    extra = [*(band or ()), *((threshold[0],) if threshold else ())]
    scale = np.log10 if logarithmic else np.asarray
    turned = np.log10 if logarithmic_across else np.asarray
    inside = np.concatenate([ys, [e for e in extra if e > 0 or not logarithmic]])
    low, high = float(scale(inside.min())), float(scale(inside.max()))
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, high + margin
    first, last = float(turned(xs.min())), float(turned(xs.max()))
    last = last if last > first else first + 1

    def place(x: float, y: float) -> str:
        return f"{_x(float(turned(x)), first, last):.1f},{_y(float(scale(y)), low, high):.1f}"

    out = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{_text(title)}">',
        f'<text class="title" x="{LEFT}" y="14">{_text(title)}</text>',
    ]
    if band:
        top, bottom = (_y(float(scale(v)), low, high) for v in (band[1], band[0]))
        out.append(_rect("band", LEFT, top, WIDTH - LEFT - RIGHT, bottom - top))
    for tick in _ticks(low, high, logarithmic=logarithmic):
        y = _y(tick, low, high)
        name = 10**tick if logarithmic else tick
        out.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text class="tick end" x="{LEFT - 5}" y="{y + 3.5:.1f}">{short(name)}</text>')
    for tick in _ticks(first, last, logarithmic=logarithmic_across):
        name = 10**tick if logarithmic_across else tick
        if float(name).is_integer():
            x = _x(tick, first, last)
            out.append(f'<text class="tick mid" x="{x:.1f}" y="{HEIGHT - 20}">{short(name)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text class="axis mid" x="{middle}" y="{HEIGHT - 5}">{_text(across)}</text>')
    if threshold:
        y = _y(float(scale(threshold[0])), low, high)
        out.append(f'<path class="threshold" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        at = f'x="{WIDTH - RIGHT - 3}" y="{y - 3:.1f}"'
        out.append(f'<text class="tick end" {at}>{_text(threshold[1])}</text>')
    for number, (s, ok) in enumerate(known):
        pieces = np.split(np.arange(len(s.x)), np.flatnonzero(np.diff(ok.astype(int))) + 1)
        paths = [
            "M" + "L".join(place(float(s.x[i]), float(s.y[i])) for i in piece)
            for piece in pieces
            if ok[piece[0]]
        ]
        few = ok.sum() <= 30
        out.append(f'<path class="line c{number % MARKS}" d="{"".join(paths)}"/>')
        if few:
            points = (place(float(s.x[i]), float(s.y[i])).split(",") for i in np.flatnonzero(ok))
            out += [
                f'<circle class="dot c{number % MARKS}" cx="{x}" cy="{y}" r="2"/>' for x, y in points
            ]
    out.append("</svg>")
    keys = (
        f'<span class="key"><svg viewBox="0 0 22 8"><path class="line c{n % MARKS}" d="M0 4H22"/></svg>'
        f"{_text(s.label)}</span>"
        for n, (s, _) in enumerate(known)
    )
    legend = f'<div class="legend">{"".join(keys)}</div>' if len(known) > 1 else ""
    below = f"<figcaption>{_text(note)}</figcaption>" if note else ""
    return Markup(f'<figure class="plot">{"".join(out)}{legend}{below}</figure>')


def meter(
    value: float | None,
    low: float,
    high: float,
    *,
    healthy: tuple[float | None, float | None] = (None, None),
    threshold: float | None = None,
) -> Markup:
    """A value on a bar, with its healthy range in green and its threshold as a line.

    Args:
        value: cut at the ends of the bar; None or NaN shows none.
        low: value at its left end.
        high: value at its right end.
        healthy: the healthy range, None where it has no end.
        threshold: of the rule.
    """

    def at(v: float) -> float:
        return METER * min(1.0, max(0.0, (v - low) / (high - low)))

    start, end = (at(v) if v is not None else edge for v, edge in zip(healthy, (0, METER), strict=True))
    text = "not measured" if value is None or math.isnan(value) else short(value)
    out = [
        f'<svg class="meter" viewBox="-4 0 {METER + 8} 16" role="img" aria-label="{text}">',
        _rect("rail", 0, 5, METER, 6),
    ]
    if healthy != (None, None):
        out.append(_rect("healthy", start, 5, max(0.0, end - start), 6))
    if threshold is not None and math.isfinite(threshold):
        out.append(f'<path class="threshold" d="M{at(threshold):.1f} 1V15"/>')
    if value is not None and not math.isnan(value):
        x = at(value)
        out.append(f'<path class="needle" d="M{x:.1f} 8l-4 -6h8z"/>')
        out.append(f'<path class="needle" d="M{x:.1f} 5V11"/>')
    return Markup("".join(out) + "</svg>")


def forest(title: str, rows: Sequence[tuple[str, Interval]]) -> Markup:
    """Differences with their 95 % intervals, one in each row, around a line at 0."""
    ends = [(v.value - _margin(v), v.value + _margin(v)) for _, v in rows]
    low, high = min(0.0, *(a for a, _ in ends)), max(0.0, *(b for _, b in ends))
    room = 0.08 * (high - low) or 1.0
    low, high = low - room, high + room
    left, right, step = 300, 690, 20
    height = 34 + step * len(rows) + 20

    def at(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    out = [
        f'<svg class="forest" viewBox="0 0 700 {height}" role="img" aria-label="{_text(title)}">',
        f'<path class="zero" d="M{at(0):.1f} 20V{height - 22}"/>',
    ]
    for row, (name, found) in enumerate(rows):
        y = 34 + step * row
        a, b = ends[row]
        kind = "c0" if found.excludes_zero else "c7"
        out.append(f'<text class="end" x="{left - 10}" y="{y + 4}">{_text(name[:48])}</text>')
        out.append(f'<path class="bar {kind}" d="M{at(a):.1f} {y}H{at(b):.1f}"/>')
        out.append(f'<circle class="dot {kind}" cx="{at(found.value):.1f}" cy="{y}" r="4"/>')
    for tick in _ticks(low, high):
        x = at(tick)
        out.append(f'<text class="tick mid" x="{x:.1f}" y="{height - 6}">{short(tick)}</text>')
    return Markup("".join(out) + "</svg>")


def _margin(found: Interval) -> float:
    return found.margin if math.isfinite(found.margin) else 0.0


def points(
    title: str,
    places: NDArray[np.floating],
    labels: NDArray[np.generic] | None,
    axes: tuple[str, str],
) -> Markup:
    """Points (n, 2) in a plane, with a colour and a shape for each label.

    Args:
        title: for those who do not see it.
        places: (n, 2) across and up.
        labels: (n,) of the points, or None.
        axes: what lies across and up.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    size = np.where(high > low, high - low, 1)
    width, height = 380, 300
    at = [22, 22] + (places - low) / size * (np.array([width, height]) - 30)
    kinds = [] if labels is None else sorted(set(labels.tolist()))
    out = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{_text(title)}">']
    out.append(f'<text class="axis" x="22" y="{height - 3}">{_text(axes[0])} →</text>')
    turned = f"translate(11 {height - 22})rotate(-90)"
    out.append(f'<text class="axis" transform="{turned}">{_text(axes[1])} →</text>')
    for i, (x, y) in enumerate(at):
        kind = kinds.index(labels[i].item()) if labels is not None else 0
        name = "" if labels is None else f"<title>label {_text(labels[i].item())}</title>"
        out.append(
            f'<path class="point c{kind % MARKS}" d="{_shape(kind, x, height - y)}">{name}</path>'
        )
    out.append("</svg>")
    keys = (
        f'<span class="key"><svg viewBox="0 0 10 10"><path class="point c{n % MARKS}" '
        f'd="{_shape(n, 5, 5)}"/></svg>{_text(kind)}</span>'
        for n, kind in enumerate(kinds[:20])
    )
    legend = f'<div class="legend">label {"".join(keys)}</div>' if kinds else ""
    return Markup(f'<figure class="plot">{"".join(out)}{legend}</figure>')


def _text(content: object) -> Markup:
    """A text that a stranger may have written."""
    return escape(printable(str(content)))


def _shape(kind: int, x: float, y: float) -> str:
    """The outline of a mark: circle, square, triangle, diamond, and so on."""
    r = 3.2
    shapes = (
        f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z",
        f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z",
        f"M{x:.1f} {y - r:.1f}l{r} {2 * r}h{-2 * r}z",
        f"M{x:.1f} {y - r - 1:.1f}l{r} {r + 1}l{-r} {r + 1}l{-r} {-r - 1}z",
        f"M{x - r:.1f} {y - 1:.1f}h{r - 1}v{1 - r}h2v{r - 1}h{r - 1}v2"
        f"h{1 - r}v{r - 1}h-2v{1 - r}h{1 - r}z",
    )
    return shapes[(kind + kind // MARKS) % len(shapes)]


def _rect(name: str, x: float, y: float, width: float, height: float) -> str:
    size = f'width="{width:.1f}" height="{max(0.0, height):.1f}"'
    return f'<rect class="{name}" x="{x:.1f}" y="{y:.1f}" {size}/>'


def _x(x: float, low: float, high: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (x - low) / (high - low)


def _y(y: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low)


def _ticks(low: float, high: float, *, logarithmic: bool = False) -> list[float]:
    """About five even numbers from low to high, or the logarithms of some."""
    if logarithmic and high - low <= 1.5:
        whole = range(math.floor(low), math.ceil(high))
        each = [e + math.log10(d) for e in whole for d in (1, 2, 5)]
        return [tick for tick in each if low <= tick <= high]
    raw = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(s * size for s in (1, 2, 5, 10) if s * size >= raw)
    step = max(1.0, step) if logarithmic else step
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
