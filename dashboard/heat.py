"""The heat map of layers over steps: colour by order of magnitude, crosses where a value is NaN or Inf."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import altair as alt
from torchvitals.dashboard.answers import Incident, Profiles
from torchvitals.dashboard.charts import PADDING, Drawn, Row
from torchvitals.dashboard.palette import Palette

MOST_ROWS = 48
"""More layers than this are put together by module: a row needs 12 pixels to be read."""
MOST_STEPS = 100
"""Columns of a map: each is wide enough for a cross."""
ROW_HEIGHT = 15
FEW_ROWS_HEIGHT = 160
"""A map of few layers is at least this high."""
AXIS_HEIGHT = 60
"""The chart's height includes its axis."""
DECADES = 12.0
"""The scale reaches down this many orders of magnitude from the largest value; what is smaller has its last colour."""


class Cells(NamedTuple):
    """The cells of a heat map, and its rows from top to bottom."""

    rows: list[str]
    values: list[Row]
    zeros: list[Row]
    crosses: list[Row]
    grouped: bool


def group_rows(entries: list[str], most: int = MOST_ROWS) -> list[str]:
    """The row of each entry: itself, or its module when there are too many, cut shorter until they fit.

    >>> group_rows(["a.0.w", "a.0.b", "a.1.w"], most=2)
    ['a.0', 'a.0', 'a.1']
    """
    names = list(entries)
    while len(set(names)) > most and any("." in name for name in names):
        depth = max(name.count(".") for name in names)
        names = [name.rpartition(".")[0] if name.count(".") == depth else name for name in names]
    if len(set(names)) <= most:
        return names
    distinct = list(dict.fromkeys(names))
    size = -(-len(distinct) // most)
    block = {name: f"{distinct[n - n % size]} …" for n, name in enumerate(distinct)}
    return [block[name] for name in names]


def cells(profiles: Profiles) -> Cells:
    """The cells of a profile: the largest value of a group, or a cross if any of it is not finite."""
    names = group_rows(profiles.entries)
    rows = list(dict.fromkeys(names))
    every = max(1, -(-len(profiles.step) // MOST_STEPS))
    found = Cells(rows, [], [], [], len(rows) < len(profiles.entries))
    # Counted from the newest, so that the latest step is always there.
    for index in range(len(profiles.step) - 1, -1, -every):
        for row, value in _by_row(names, profiles.values[index]).items():
            cell = {"step": profiles.step[index], "row": row}
            if not math.isfinite(value):
                found.crosses.append({**cell, "what": "NaN" if math.isnan(value) else "Inf"})
            elif value == 0:
                found.zeros.append(cell)
            else:
                found.values.append({**cell, "value": abs(value)})
    return found


def _by_row(names: list[str], values: list[float | None]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in zip(names, values, strict=False):
        if value is None:
            continue
        before = found.get(name, 0.0)
        worse = not math.isfinite(value) or (math.isfinite(before) and abs(value) > abs(before))
        found[name] = value if worse or name not in found else before
    return found


def beginnings(found: Cells, incidents: Sequence[Incident]) -> list[Row]:
    """The first column at or behind the beginning of each incident."""
    steps = sorted({cell["step"] for cell in (*found.values, *found.zeros, *found.crosses)})
    began = [(one.first_step, one.title) for one in incidents if one.first_step is not None]
    return [
        {"step": steps[bisect_left(steps, first)], "title": title}
        for first, title in began
        if steps and first <= steps[-1]
    ]


def heat_map(found: Cells, began: list[Row], colours: Palette, title: str) -> Drawn:
    """The chart: a row per layer in the order of the model, a column of equal width per sampled step.

    Columns are not spaced by step: the steps around a failure are sampled densest and want to be seen.
    """
    base = alt.Chart().encode(
        x=alt.X("step:O", title="sampled step", axis=alt.Axis(labelOverlap="greedy", labelAngle=0, labelSeparation=8))
    )
    labels = alt.Axis(labelLimit=260, labelOverlap=False, labelFlush=False, labelFontSize=10, ticks=False)
    tiles = base.encode(y=alt.Y("row:N", sort=found.rows, title=None, axis=labels))
    where = [alt.Tooltip("row:N", title="layer"), alt.Tooltip("step:O", format=",d")]
    layers = []
    if found.values:
        layers += _values(tiles, found, colours, [*where, alt.Tooltip("value:Q", title=title, format=".4~g")])
    if found.zeros:
        told = [*where, alt.Tooltip("zero:N", title=title)]
        zeros = _of(tiles, "zeros").transform_calculate(zero="'exactly 0'")
        layers.append(zeros.mark_rect(color=colours.zero).encode(tooltip=told))
    if found.crosses:
        layers += _crosses(tiles, colours, [*where, alt.Tooltip("what:N", title=title)])
    if began:
        layers.append(_rules(base, colours))
    named = {"values": found.values, "zeros": found.zeros, "crosses": found.crosses, "began": began}
    datasets = {name: rows for name, rows in named.items() if rows}
    return alt.layer(*layers, datasets=datasets).properties(
        height=AXIS_HEIGHT + max(FEW_ROWS_HEIGHT, ROW_HEIGHT * len(found.rows)), padding=PADDING
    )


def _of(chart: alt.Chart, name: str) -> alt.Chart:
    """``chart`` over the data set with this name."""
    named: alt.Chart = chart.copy()
    named.data = alt.NamedData(name)
    return named


def _values(tiles: alt.Chart, found: Cells, colours: Palette, told: list[alt.Tooltip]) -> list[alt.Chart]:
    colour = alt.Color("value:Q", scale=_scale(found.values, colours), legend=alt.Legend(title=None, format="~g"))
    return [_of(tiles, "values").mark_rect().encode(color=colour, tooltip=told)]


def _crosses(tiles: alt.Chart, colours: Palette, told: list[alt.Tooltip]) -> list[alt.Chart]:
    over = _of(tiles, "crosses").encode(tooltip=told)
    text = over.mark_text(text="✕", color=colours.on_nonfinite, fontSize=10, fontWeight="bold")
    return [over.mark_rect(color=colours.nonfinite), text]


def _rules(base: alt.Chart, colours: Palette) -> alt.Chart:
    told = [alt.Tooltip("title:N", title="incident"), alt.Tooltip("step:O", title="first sampled at")]
    rule = _of(base, "began").mark_rule(strokeDash=[4, 3], strokeWidth=2, color=colours.severity["critical"])
    drawn: alt.Chart = rule.encode(tooltip=told)
    return drawn


def _scale(values: list[Row], colours: Palette) -> alt.Scale:
    """Whole decades, so that the scale changes rarely while a run is live."""
    largest = math.ceil(math.log10(max(row["value"] for row in values)))
    smallest = math.floor(math.log10(min(row["value"] for row in values)))
    low = max(smallest, largest - DECADES)
    domain = [10.0**low, 10.0 ** max(largest, low + 1)]
    return alt.Scale(type="log", scheme=colours.scale, domain=domain, clamp=True)
