"""Line plots as SVG that the page's style sheet colours, for light and dark screens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from agentgym.evaluation.stats.intervals import Floats

WIDTH, HEIGHT = 420, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 28, 38
"""Margins, in units of the picture."""
MOST_POINTS = 300
"""A longer line is drawn through means of neighbours."""


class Line(NamedTuple):
    """One line of a plot."""

    xs: Floats
    ys: Floats
    label: str = ""
    """In the legend; empty for none."""
    low: Floats | None = None
    high: Floats | None = None
    """Ends of a band around the line."""
    colour: int = 0
    """Number in the palette of the style sheet."""
    faint: bool = False
    """Drawn thin, behind the others."""


def plot(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str = "training step",
    bounds: tuple[float, float] | None = None,
) -> str:
    """A figure with axes, a legend where lines have labels, and a text for screen readers.

    Args:
        title: Above the plot.
        lines: The lines; points that are not finite are left out.
        x_label: Below the plot.
        bounds: Ends of the vertical axis; unset: those of the data.
    """
    drawn = [_finite(line) for line in lines]
    drawn = [_thinned(line) for line in drawn if len(line.xs)]
    if not drawn:
        return ""
    x_range = _range([line.xs for line in drawn], None)
    columns = [c for line in drawn for c in (line.ys, line.low, line.high) if c is not None]
    y_range = _range(columns, bounds)
    body = [_axes(x_range, y_range, x_label)]
    body += [_band(line, x_range, y_range) for line in drawn if line.low is not None]
    body += [
        _path(line, x_range, y_range) for line in sorted(drawn, key=lambda each: not each.faint)
    ]
    label = f"{title}: {_spoken(drawn)}"
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f'<text class="title" x="{LEFT}" y="16">{escape(title)}</text>{"".join(body)}</svg>'
        f"{_legend(drawn)}</figure>"
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers inside a range, about ``count`` of them.

    Examples:
        >>> ticks(0, 1)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(step * number, 12) for number in range(first, last + 1)]


def number(value: float) -> str:
    """A number as short as three digits allow.

    Examples:
        >>> number(12345.0), number(0.25), number(1.0), number(1.65e-7)
        ('12.3k', '0.25', '1', '1.7e-7')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    if value and abs(value) < 1e-3:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.3g}"


def _finite(line: Line) -> Line:
    known = np.isfinite(line.xs) & np.isfinite(line.ys)
    return _mapped(line, lambda column: column[known])


def _thinned(line: Line) -> Line:
    if len(line.xs) <= MOST_POINTS:
        return line
    edges = np.linspace(0, len(line.xs), MOST_POINTS + 1).astype(int)
    return _mapped(line, lambda column: np.add.reduceat(column, edges[:-1]) / np.diff(edges))


def _mapped(line: Line, change: Callable[[Floats], Floats]) -> Line:
    """The line with all of its columns changed in one way."""
    return line._replace(
        xs=change(line.xs),
        ys=change(line.ys),
        low=None if line.low is None else change(line.low),
        high=None if line.high is None else change(line.high),
    )


def _range(columns: Sequence[Floats], bounds: tuple[float, float] | None) -> tuple[float, float]:
    if bounds is not None:
        return bounds
    low = min(float(np.nanmin(column)) for column in columns)
    high = max(float(np.nanmax(column)) for column in columns)
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    if high - low <= 1e-9 * max(1.0, abs(low)):
        return low - max(1.0, abs(low)) / 2, high + max(1.0, abs(high)) / 2
    return low, high


def _x(values: Floats, of: tuple[float, float]) -> Floats:
    return LEFT + (values - of[0]) / (of[1] - of[0]) * (WIDTH - LEFT - RIGHT)


def _y(values: Floats, of: tuple[float, float]) -> Floats:
    placed = HEIGHT - BOTTOM - (values - of[0]) / (of[1] - of[0]) * (HEIGHT - TOP - BOTTOM)
    return np.clip(placed, TOP - 4, HEIGHT - BOTTOM + 4)


def _points(xs: Floats, ys: Floats) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))


def _path(line: Line, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    xs, ys = _x(line.xs, x_range), _y(line.ys, y_range)
    kind = f"line c{line.colour % 8}{' faint' if line.faint else ''}"
    if len(xs) == 1:
        return f'<circle class="{kind}" cx="{xs[0]:.1f}" cy="{ys[0]:.1f}" r="3"/>'
    return f'<polyline class="{kind}" points="{_points(xs, ys)}"/>'


def _band(line: Line, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    assert line.low is not None and line.high is not None
    xs = _x(line.xs, x_range)
    low, high = (_y(each, y_range) for each in (line.low, line.high))
    ring = _points(np.concatenate([xs, xs[::-1]]), np.concatenate([low, high[::-1]]))
    return f'<polygon class="band c{line.colour % 8}" points="{ring}"/>'


def _axes(x_range: tuple[float, float], y_range: tuple[float, float], x_label: str) -> str:
    parts = []
    for value in ticks(*y_range, count=4):
        y = float(_y(np.array([value]), y_range)[0])
        ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line class="grid" {ends}/>')
        parts.append(_tick(LEFT - 5, y + 4, number(value), "end"))
    for value in ticks(*x_range):
        x = float(_x(np.array([value]), x_range)[0])
        parts.append(_tick(x, HEIGHT - BOTTOM + 16, number(value), "middle"))
    parts.append(_tick((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle"))
    return "".join(parts)


def _tick(x: float, y: float, text: str, anchor: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="tick" {place}>{escape(text)}</text>'


def _legend(lines: Sequence[Line]) -> str:
    labelled = [line for line in lines if line.label]
    if not labelled:
        return ""
    items = "".join(
        f'<span><i class="c{line.colour % 8}"></i>{escape(line.label)}</span>' for line in labelled
    )
    return f"<figcaption>{items}</figcaption>"


def _spoken(lines: Sequence[Line]) -> str:
    shown = (line for line in lines if not line.faint)
    return "; ".join(
        f"{line.label or 'value'} from {number(line.ys[0])} to {number(line.ys[-1])}"
        for line in shown
    )
