"""Small line plots as inline SVG: no script, no font, no file beside the page."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from torchvitals.agent.history import Series

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 150, 64, 22, 18
POINTS = 600
"""About one per pixel column."""
COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#db2777", "#0891b2")
LOG_DECADES = 3.0
"""Positive values that span more than this many decades are drawn on a logarithmic axis."""


def line_plot(title: str, lines: Sequence[tuple[str, Series]], *, mark: int | None = None, unit: str = "1") -> str:
    """An SVG of one signal, one line per rank; non-finite values are crosses at the top edge.

    Args:
        title: the signal.
        lines: label and series of each line; empty ones are left out.
        mark: a step to mark by a vertical line.
        unit: of the values: bytes and seconds are written as people read them.

    """
    drawn = [(label, _thin(series)) for label, series in lines if len(series.steps)]
    finite = np.concatenate([s.values[np.isfinite(s.values)] for _, s in drawn]) if drawn else np.empty(0)
    if not len(finite):
        return ""
    logarithmic = bool(finite.min() > 0 and math.log10(finite.max() / finite.min()) > LOG_DECADES)
    scale = np.log10 if logarithmic else np.asarray
    low, high = float(scale(finite.min())), float(scale(finite.max()))
    first = min(int(series.steps[0]) for _, series in drawn)
    last = max(int(series.steps[-1]) for _, series in drawn)
    frame = _Frame(first, last, low, high)
    parts = [frame.axes(title, unit, logarithmic=logarithmic), _legend([label for label, _ in drawn])]
    for number, (label, series) in enumerate(drawn):
        colour = COLOURS[number % len(COLOURS)]
        parts.append(
            frame.line(label, series, scale(np.where(series.values > 0, series.values, np.nan)), colour)
            if logarithmic
            else frame.line(label, series, series.values, colour)
        )
    if mark is not None and first <= mark <= last:
        x = frame.x(np.array([mark]))[0]
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="mark"/>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


class _Frame:
    """Maps steps and (scaled) values to the drawing area."""

    def __init__(self, first: int, last: int, low: float, high: float) -> None:
        self._first, self._span = first, max(1, last - first)
        self._low, self._rise = low, (high - low) or 1.0
        self._last, self._high = last, high

    def x(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        return LEFT + (steps - self._first) / self._span * (WIDTH - LEFT - 8)

    def y(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return HEIGHT - BOTTOM - (values - self._low) / self._rise * (HEIGHT - BOTTOM - TOP)

    def line(self, label: str, series: Series, scaled: NDArray[np.float64], colour: str) -> str:
        xs, ys = self.x(series.steps), self.y(scaled)
        runs, current = [], []
        for x, y in zip(xs, ys, strict=True):
            if math.isfinite(y):
                current.append(f"{x:.1f},{y:.1f}")
            elif current:
                runs.append(current)
                current = []
        runs.append(current)
        shapes = [f'<polyline points="{" ".join(run)}" stroke="{colour}"/>' for run in runs if run]
        bad = xs[~np.isfinite(series.values)][:POINTS]
        shapes += [f'<text x="{x:.1f}" y="{TOP + 4}" class="bad">&#215;</text>' for x in bad]
        return f"<g><title>{escape(label)}</title>{''.join(shapes)}</g>"

    def axes(self, title: str, unit: str, *, logarithmic: bool) -> str:
        low, high = (10**self._low, 10**self._high) if logarithmic else (self._low, self._high)
        note = " (log)" if logarithmic else ""
        bottom = HEIGHT - BOTTOM
        return (
            f'<text x="{LEFT}" y="12" class="title">{escape(title)}{note}</text>'
            f'<path d="M{LEFT} {TOP}V{bottom}H{WIDTH - 8}" class="axis"/>'
            f'<text x="{LEFT - 6}" y="{TOP + 8}" text-anchor="end">{said(high, unit)}</text>'
            f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">{said(low, unit)}</text>'
            f'<text x="{LEFT}" y="{HEIGHT - 6}">step {self._first}</text>'
            f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">{self._last}</text>'
        )


def _legend(labels: list[str]) -> str:
    """Which colour is whose, where there are several; at the right end of the title's line."""
    if len(labels) < 2:
        return ""
    words = "&#160;&#160; ".join(
        f'<tspan fill="{COLOURS[number % len(COLOURS)]}">{escape(label)}</tspan>' for number, label in enumerate(labels)
    )
    return f'<text x="{WIDTH - 8}" y="12" text-anchor="end">{words}</text>'


def said(value: float, unit: str) -> str:
    """A number at an axis.

    >>> said(3.3e8, "By"), said(0.0123, "s"), said(0.5, "1"), said(1200.0, "{item}")
    ('315 MiB', '12.3 ms', '0.5', '1.2e+03')
    """
    if unit == "By":
        return f"{value / 2**20:.3g} MiB" if abs(value) < 2**30 else f"{value / 2**30:.3g} GiB"
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    return f"{value:.3g}"


def _thin(series: Series) -> Series:
    """At most about ``POINTS`` points; extremes and non-finite values of each bucket stay."""
    count = len(series.steps)
    if count <= POINTS:
        return series
    kept: set[int] = {0, count - 1}
    for bucket in np.array_split(np.arange(count), POINTS // 2):
        values = series.values[bucket]
        finite = np.flatnonzero(np.isfinite(values))
        kept.update(int(bucket[i]) for i in np.flatnonzero(~np.isfinite(values))[:1])
        if len(finite):
            kept.add(int(bucket[finite[values[finite].argmin()]]))
            kept.add(int(bucket[finite[values[finite].argmax()]]))
    index = np.array(sorted(kept))
    return Series(series.steps[index], series.values[index])
