"""Layers over steps as an inline SVG: colour by order of magnitude, crosses where a value is not finite."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from torchvitals.agent.history import ProfileAt
from torchvitals.agent.plots import WIDTH

MOST_LAYERS, MOST_STEPS = 32, 48
"""Rows and columns that can still be read; of more layers those whose values moved most are shown."""
ROW, LABEL, TOP, BOTTOM = 12, 190, 18, 18
LONGEST_NAME = 30


def heat_map(title: str, profiles: Sequence[ProfileAt]) -> str:
    """An SVG of one signal along its axis; empty when fewer than two steps of one axis are known."""
    profiles = [profile for profile in profiles if profile.entries == profiles[-1].entries]
    if len(profiles) < 2:
        return ""
    kept = [profiles[i] for i in np.unique(np.linspace(0, len(profiles) - 1, MOST_STEPS).astype(int))]
    values = np.stack([profile.values for profile in kept], axis=1)
    rows = _moved_most(values)
    if not rows:
        return ""
    names, values = [kept[0].entries[row] for row in rows], values[rows]
    width = (WIDTH - LABEL - 8) / len(kept)
    cells = [
        _cell(LABEL + column * width, TOP + row * ROW, width, float(values[row, column]), shade)
        for row, shades in enumerate(_shades(values))
        for column, shade in enumerate(shades)
    ]
    labels = [
        f'<text x="{LABEL - 6}" y="{TOP + row * ROW + 9}" text-anchor="end">{escape(name[-LONGEST_NAME:])}</text>'
        for row, name in enumerate(names)
    ]
    height = TOP + len(rows) * ROW + BOTTOM
    ends = (
        f'<text x="{LABEL}" y="{height - 4}">step {kept[0].step}</text>'
        f'<text x="{WIDTH - 8}" y="{height - 4}" text-anchor="end">{kept[-1].step}</text>'
    )
    head = f'<text x="{LABEL}" y="12" class="title">{escape(title)}, darker is larger (log)</text>'
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{head}{"".join(labels)}{"".join(cells)}{ends}</svg>'


def _moved_most(values: NDArray[np.float64]) -> list[int]:
    """The rows to show, in their own order: non-finite ones first, then those that span most orders of magnitude."""
    there = [row for row in range(len(values)) if not (values[row] < 0).all()]
    if len(there) <= MOST_LAYERS:
        return there
    sizes = np.log10(np.maximum(np.abs(np.nan_to_num(values, posinf=0.0, neginf=0.0)), 1e-12))
    span = sizes.max(axis=1) - sizes.min(axis=1) + 100.0 * (~np.isfinite(values)).any(axis=1)
    return sorted(sorted(there, key=lambda row: -float(span[row]))[:MOST_LAYERS])


def _shades(values: NDArray[np.float64]) -> list[list[float]]:
    """0 (smallest) to 1 (largest) by order of magnitude over all that is finite and not zero."""
    usable = np.isfinite(values) & (values > 0)
    logs = np.log10(np.where(usable, values, 1.0))
    low, high = (float(logs[usable].min()), float(logs[usable].max())) if usable.any() else (0.0, 1.0)
    shades: list[list[float]] = np.where(usable, (logs - low) / ((high - low) or 1.0), 0.0).tolist()
    return shades


def _cell(x: float, y: float, width: float, value: float, shade: float) -> str:
    if value < 0:  # absent: none of these quantities is negative
        return ""
    box = f'x="{x:.1f}" y="{y}" width="{width + 0.2:.1f}" height="{ROW - 1}"'
    if not math.isfinite(value):
        return f'<rect {box} fill="#fecaca"/><text x="{x + 1:.1f}" y="{y + 9}" class="bad">&#215;</text>'
    return f'<rect {box} fill="#2563eb" fill-opacity="{0.06 + 0.94 * shade:.2f}"/>'
