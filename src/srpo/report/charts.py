"""Charts as SVG text; colours and fonts come from the page's style sheet, light or dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

Values = Sequence[float | None]


@dataclass(frozen=True)
class Point:
    """A marked value with its interval.

    Attributes:
        x: position.
        y: value.
        low: lower end of the interval.
        high: upper end.
        style: CSS class of its colour.
        label: shown on hovering, and to screen readers.
        tag: short text beside the mark; empty for none.
    """

    x: float
    y: float
    low: float
    high: float
    style: str
    label: str
    tag: str = ""


@dataclass(frozen=True)
class Line:
    """A line, with a band around it if ``low`` and ``high`` are given.

    Attributes:
        x: positions.
        y: values; None leaves a gap.
        style: CSS class of its colour.
        low: lower edge of the band.
        high: upper edge.
        dots: mark every value.
        label: shown on hovering over the line.
    """

    x: Sequence[float]
    y: Values
    style: str
    low: Values | None = None
    high: Values | None = None
    dots: bool = False
    label: str = ""


@dataclass(frozen=True)
class Axes:
    """The plane of a chart, in pixels of its view box.

    Attributes:
        width: of the view box.
        height: of the view box.
        x: lowest and highest value.
        y: lowest and highest value.
        left: margin for the tick labels.
        top, right, bottom: other margins.
    """

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]
    left: int = 46
    top: int = 14
    right: int = 18
    bottom: int = 40

    def px(self, x: float) -> float:
        """Horizontal position."""
        low, high = self.x
        return self.left + (x - low) / ((high - low) or 1) * (self.width - self.left - self.right)

    def py(self, y: float) -> float:
        """Vertical position, down from the top."""
        low, high = self.y
        return self.height - self.bottom - (y - low) / ((high - low) or 1) * (self.height - self.top - self.bottom)


def chart(
    axes: Axes,
    lines: Sequence[Line],
    points: Sequence[Point] = (),
    *,
    title: str,
    x_label: str = "RL step",
    y_format: Callable[[float], str] = lambda y: f"{y:g}",
    y_ticks: int = 4,
    whole_x: bool = True,
) -> str:
    """A line chart.

    Args:
        axes: the plane.
        lines: drawn first, in order.
        points: drawn on top.
        title: read by screen readers.
        x_label: below the x axis; empty for none.
        y_format: of the tick labels.
        y_ticks: about how many.
        whole_x: x ticks at whole numbers only.
    """
    parts = [f'<svg viewBox="0 0 {axes.width} {axes.height}" role="img" aria-label="{escape(title)}">']
    parts += _grid(axes, x_label, y_format, y_ticks, whole_x)
    for line in lines:
        parts += _line(axes, line)
    for point in points:
        parts += _point(axes, point)
    return "".join([*parts, "</svg>"])


def interval_bar(
    before: tuple[float, float, float] | None, after: tuple[float, float, float] | None, title: str
) -> str:
    """Two intervals between 0 and 1 on one small scale; each is (low, value, high)."""
    width, height = 200, 30
    parts = [f'<svg class="bar" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">']
    parts += [f'<line class="grid" x1="{_n(5 + 190 * t)}" x2="{_n(5 + 190 * t)}" y1="2" y2="28"/>' for t in (0, 0.5, 1)]
    for y, style, values in ((9, "before", before), (21, "after", after)):
        if values is not None:
            low, value, high = (5 + 190 * v for v in values)
            parts.append(f'<line class="range {style}" x1="{_n(low)}" x2="{_n(high)}" y1="{y}" y2="{y}"/>')
            parts.append(f'<circle class="mark {style}" cx="{_n(value)}" cy="{y}" r="4.5"/>')
    return "".join([*parts, "</svg>"])


def stacked_bar(shares: Sequence[tuple[str, float]], title: str) -> str:
    """One horizontal bar; ``shares`` are (CSS class, part of 1)."""
    label = f'role="img" aria-label="{escape(title)}"'
    parts = [f'<svg class="stack" viewBox="0 0 1000 22" preserveAspectRatio="none" {label}>']
    x = 0.0
    for style, share in shares:
        width = _n(max(0.0, 1000 * share - 3))
        parts.append(f'<rect class="{style}" x="{_n(1000 * x)}" y="0" width="{width}" height="22"/>')
        x += share
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """About ``count`` round numbers from ``low`` to ``high`` (steps of 1, 2 or 5 times a power of ten)."""
    span = high - low
    if not span > 0:
        return [low]
    step = min(
        (factor * 10.0**power for power in range(-12, 13) for factor in (1, 2, 5)),
        key=lambda s: (abs(math.log(span / s / count)), s),
    )
    if whole:
        step = max(1.0, round(step))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def extent(values: Sequence[float | None], zero: bool = True) -> tuple[float, float]:
    """A range that holds the values with some air; it begins at 0 if ``zero`` and none is negative."""
    known = [v for v in values if v is not None]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    air = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return (0.0 if zero and low >= 0 else low - air), high + air


def _grid(axes: Axes, x_label: str, y_format: Callable[[float], str], y_ticks: int, whole_x: bool) -> list[str]:
    left, right, bottom = axes.left, axes.width - axes.right, axes.height - axes.bottom
    parts = []
    for y in ticks(*axes.y, y_ticks):
        at = _n(axes.py(y))
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="tick end" x="{left - 8}" y="{_n(axes.py(y) + 4)}">{escape(y_format(y))}</text>')
    for x in ticks(*axes.x, max(3, (right - left) // 80), whole_x):
        parts.append(f'<text class="tick mid" x="{_n(axes.px(x))}" y="{bottom + 18}">{x:g}</text>')
    if x_label:
        parts.append(f'<text class="axis end" x="{right}" y="{bottom + 34}">{escape(x_label)}</text>')
    return parts


def _line(axes: Axes, line: Line) -> list[str]:
    parts = []
    if line.low is not None and line.high is not None:
        for run in _runs(line.x, line.low, line.high):
            edge = [(x, high) for x, _, high in run] + [(x, low) for x, low, _ in reversed(run)]
            points = " ".join(f"{_n(axes.px(x))},{_n(axes.py(y))}" for x, y in edge)
            parts.append(f'<polygon class="band {line.style}" points="{points}"/>')
    title = f"<title>{escape(line.label)}</title>" if line.label else ""
    for run in _runs(line.x, line.y, line.y):
        points = " ".join(f"{_n(axes.px(x))},{_n(axes.py(y))}" for x, y, _ in run)
        parts.append(f'<polyline class="line {line.style}" points="{points}">{title}</polyline>')
        if line.dots or len(run) == 1:
            parts += [
                f'<circle class="dot {line.style}" cx="{_n(axes.px(x))}" cy="{_n(axes.py(y))}" r="2.6"/>'
                for x, y, _ in run
            ]
    return parts


def _point(axes: Axes, point: Point) -> list[str]:
    x, y = _n(axes.px(point.x)), _n(axes.py(point.y))
    parts = [
        f'<g><title>{escape(point.label)}</title><line class="whisker {point.style}" x1="{x}" x2="{x}" '
        f'y1="{_n(axes.py(point.low))}" y2="{_n(axes.py(point.high))}"/>'
        f'<circle class="mark {point.style}" cx="{x}" cy="{y}" r="6"/>'
    ]
    if point.tag:
        below = min(axes.py(point.low) + 18, axes.height - axes.bottom - 6)
        anchor, shift = ("end", 6) if axes.px(point.x) > 0.7 * axes.width else ("start", -6)
        parts.append(
            f'<text class="tag {point.style} {anchor}" x="{_n(axes.px(point.x) + shift)}" '
            f'y="{_n(below)}">{escape(point.tag)}</text>'
        )
    return [*parts, "</g>"]


def _runs(x: Sequence[float], a: Values, b: Values) -> list[list[tuple[float, float, float]]]:
    """Stretches without gaps, as (x, a, b)."""
    runs: list[list[tuple[float, float, float]]] = [[]]
    for position, first, second in zip(x, a, b, strict=True):
        if first is None or second is None:
            runs.append([])
        else:
            runs[-1].append((position, first, second))
    return [run for run in runs if run]


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
