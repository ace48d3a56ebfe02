"""Charts of measurements over steps: what is finite as lines, what is not as crosses, incidents as rules.

Every chart refers to its data by name, so its specification stays the same while the data grows and the
browser redraws only the marks: that is what keeps a live page from flickering.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import altair as alt
from torchvitals.dashboard.answers import Incident, Series
from torchvitals.dashboard.palette import DASHES, Palette
from torchvitals.dashboard.wording import SEVERITY_MARKS, words

HEIGHT = 230
PADDING = {"left": 0, "top": 5, "right": 8, "bottom": 0}
WIDE_RATIO = 300.0
"""Above this ratio of largest to smallest value a linear axis shows one line on the floor."""
SHORT_LABEL = 10
"""Characters up to which five names fit side by side above a chart."""
MANY_LINES = 8
"""More ranks than this are drawn as one band: nobody can tell the lines apart."""

Row = dict[str, Any]
Drawn = alt.LayerChart | alt.FacetChart


class Unit(NamedTuple):
    """How a chart writes its values: they are multiplied by ``factor``."""

    label: str
    factor: float


def unit_for(unit: str, largest: float) -> Unit:
    """Bytes and seconds in a size that fits; other units as they are.

    >>> unit_for("By", 3e9), unit_for("s", 0.02), unit_for("1", 5.0)
    (Unit(label='GiB', factor=9.313225746154785e-10), Unit(label='ms', factor=1000.0), Unit(label='', factor=1.0))
    """
    if unit == "By":
        return Unit("GiB", 2.0**-30) if largest >= 2**30 else Unit("MiB", 2.0**-20)
    if unit == "s":
        return Unit("ms", 1e3) if largest < 1 else Unit("s", 1.0)
    return Unit("" if unit == "1" else unit.strip("{}"), 1.0)


class Drawing(NamedTuple):
    """What a chart shows: finite points, places of non-finite values, and whether any point is there."""

    points: list[Row]
    crosses: list[Row]
    unit: Unit
    log: bool


def finite(value: float | None) -> bool:
    """Whether there is something to draw."""
    return value is not None and math.isfinite(value)


def wants_log(values: Iterable[float]) -> bool:
    """Whether all values are positive and they span more than a linear axis shows.

    >>> wants_log([1.0, 1e6]), wants_log([1.0, 2.0]), wants_log([0.0, 1e6]), wants_log([])
    (True, False, False, False)
    """
    kept = list(values)
    return bool(kept) and min(kept) > 0 and max(kept) / min(kept) > WIDE_RATIO


def drawing(series: Sequence[Series], unit: str, log: bool | None = None) -> Drawing:
    """The rows of a chart; ``log`` None decides by the values."""
    named = labelled(series)
    every = [value for _, one in named for value in (*one.min, *one.max) if value is not None and math.isfinite(value)]
    logarithmic = wants_log(every) if log is None else log and any(value > 0 for value in every)
    shown = unit_for(unit, max((abs(value) for value in every), default=0.0))
    points = [row for label, one in named for row in _points(label, one, shown.factor, log=logarithmic)]
    crosses = [row for label, one in named for row in _crosses(label, one)]
    return Drawing(points, crosses, shown, logarithmic)


def labelled(series: Sequence[Series]) -> list[tuple[str, Series]]:
    """Each series with the shortest name that tells it from the others."""
    many_signals = len({one.signal for one in series}) > 1
    many_ranks = len({one.rank for one in series}) > 1
    many_optimizers = len({one.optimizer for one in series}) > 1
    named = []
    for one in series:
        parts = [short(one.signal)] if many_signals or not (many_ranks or many_optimizers) else []
        parts += [f"rank {one.rank}"] if many_ranks else []
        parts += [f"optimizer {one.optimizer}"] if many_optimizers else []
        named.append((" · ".join(parts), one))
    return named


def short(signal: str) -> str:
    """A signal's name without its unit, which the axis says.

    >>> short("data_seconds"), short("rss_bytes"), short("loss")
    ('data', 'rss', 'loss')
    """
    return words(signal.removesuffix("_seconds").removesuffix("_bytes"))


def band_over_ranks(series: Sequence[Series]) -> list[Series]:
    """One series per signal in place of many ranks: the extremes over them, and the median of their last values."""
    merged = []
    for signal in dict.fromkeys(one.signal for one in series):
        at: dict[int, list[tuple[Series, int]]] = {}
        for one in series:
            if one.signal == signal:
                for index, step in enumerate(one.step):
                    at.setdefault(step, []).append((one, index))
        merged.append(_band(signal, at))
    return merged


def _band(signal: str, at: dict[int, list[tuple[Series, int]]]) -> Series:
    steps = sorted(at)
    columns: dict[str, Any] = {name: [] for name in ("time", "min", "max", "last", "nonfinite")}
    for step in steps:
        found = at[step]
        lows = [v for one, n in found if (v := one.min[n]) is not None]
        highs = [v for one, n in found if (v := one.max[n]) is not None]
        lasts = sorted(v for one, n in found if (v := one.last[n]) is not None and math.isfinite(v))
        columns["time"].append(max((t for one, n in found if (t := one.time[n]) is not None), default=None))
        columns["min"].append(min(lows, default=None))
        columns["max"].append(max(highs, default=None))
        columns["last"].append(lasts[len(lasts) // 2] if lasts else None)
        columns["nonfinite"].append(sum(one.nonfinite[n] for one, n in found))
    return Series(signal=signal, step=steps, **columns)


def _points(label: str, one: Series, factor: float, *, log: bool) -> Iterator[Row]:
    """Rows of finite buckets. ``piece`` changes over a gap, so that no line is drawn across it."""
    piece = 0
    for step, low, high, last, bad in zip(one.step, one.min, one.max, one.last, one.nonfinite, strict=True):
        value = last if finite(last) else high
        if value is None or low is None or high is None or not finite(value) or (log and value <= 0):
            piece += 1
            continue
        floor = value if log and low <= 0 else low
        yield {
            "step": step,
            "value": value * factor,
            "low": floor * factor,
            "high": high * factor,
            "series": label,
            "piece": f"{label}/{piece}",
        }
        piece += 1 if bad else 0


def _crosses(label: str, one: Series) -> Iterator[Row]:
    for step, bad in zip(one.step, one.nonfinite, strict=True):
        if bad:
            yield {"step": step, "count": bad, "series": label}


def marks(incidents: Sequence[Incident], first: int, last: int, colours: Palette) -> list[Row]:
    """The rows of the rules that mark where incidents began; those of one step share a label.

    Only steps from ``first`` to ``last`` are marked: a rule elsewhere would stretch the axis. A label stands
    on the side where there is more room.
    """
    at: dict[int, list[Incident]] = {}
    for incident in incidents:
        if incident.first_step is not None and first <= incident.first_step <= last:
            at.setdefault(incident.first_step, []).append(incident)
    return [
        {
            "step": step,
            "label": " ".join(f"{SEVERITY_MARKS.get(one.severity, '·')} {words(one.kind)}" for one in found),
            "tone": colours.severity.get(found[0].severity, colours.quiet),
            "room": "right" if step - first < last - step else "left",
            "title": "; ".join(one.title for one in found),
        }
        for step, found in sorted(at.items())
    ]


def line_chart(shown: Drawing, rules: list[Row], colours: Palette, height: int = HEIGHT) -> Drawn:
    """Lines with a band of extremes, crosses along the top, and rules where incidents began."""
    layers = [*_lines(shown, colours)] if shown.points else []
    layers += [_cross_layer(colours)] if shown.crosses else []
    layers += _rule_layers() if rules else []
    datasets = {"points": shown.points, "crosses": shown.crosses, "rules": rules}
    kept = {name: rows for name, rows in datasets.items() if rows}
    return alt.layer(*layers, datasets=kept).properties(height=height, padding=PADDING)


def _step_axis() -> alt.X:
    # 200,000 steps are written 200k, and 600 steps not 0.6k.
    written = "datum.value >= 10000 ? format(datum.value, '~s') : format(datum.value, ',d')"
    axis = alt.Axis(labelExpr=written, tickMinStep=1)
    return alt.X("step:Q", title="step", scale=alt.Scale(zero=False, nice=False), axis=axis)


def _lines(shown: Drawing, colours: Palette) -> Iterator[alt.Chart]:
    labels = list(dict.fromkeys(row["series"] for row in shown.points))
    scale = alt.Scale(type="log") if shown.log else alt.Scale(zero=False)
    legend = None
    if len(labels) > 1:
        columns = 5 if max(map(len, labels)) <= SHORT_LABEL else 2
        legend = alt.Legend(
            title=None, orient="top", columns=columns, labelLimit=260, symbolType="stroke", symbolOpacity=1
        )
    colour = alt.Color("series:N", sort=None, legend=legend, scale=alt.Scale(range=list(colours.lines)))
    axis = alt.Axis(format="~g" if shown.log else ".4~g", tickCount=5)
    title = ", ".join(part for part in (shown.unit.label, "logarithmic" if shown.log else "") if part) or None
    base = alt.Chart(alt.NamedData("points")).encode(x=_step_axis(), color=colour, detail="piece:N")
    value = alt.Y("value:Q", title=title, scale=scale, axis=axis)
    yield base.mark_area(opacity=0.18, clip=True).encode(
        y=alt.Y("low:Q", title=title, scale=scale, axis=axis), y2="high:Q"
    )
    dash = alt.StrokeDash("series:N", sort=None, legend=None, scale=alt.Scale(range=[list(dash) for dash in DASHES]))
    yield base.mark_line(strokeWidth=1.8, clip=True).encode(y=value, strokeDash=dash)
    tooltip = [
        alt.Tooltip("series:N", title="signal"),
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("value:Q", title=f"value {shown.unit.label}".strip(), format=".5~g"),
        alt.Tooltip("low:Q", title="lowest nearby", format=".5~g"),
        alt.Tooltip("high:Q", title="highest nearby", format=".5~g"),
    ]
    # A lonely point has no line; the others are there to be hovered over.
    size = 60 if len(shown.points) > len(labels) else 40
    opacity = 0.0 if len(shown.points) > len(labels) else 1.0
    yield base.mark_point(filled=True, size=size, opacity=opacity).encode(y=value, tooltip=tooltip)


def _cross_layer(colours: Palette) -> alt.Chart:
    tooltip = [
        alt.Tooltip("series:N", title="NaN or Inf in"),
        alt.Tooltip("step:Q", format=",d"),
        alt.Tooltip("count:Q", title="values"),
    ]
    base = alt.Chart(alt.NamedData("crosses")).encode(x=_step_axis(), y=alt.value(8), tooltip=tooltip)
    drawn: alt.Chart = base.mark_text(text="✕", fontSize=12, fontWeight="bold", color=colours.nonfinite)
    return drawn


def _rule_layers() -> list[alt.Chart]:
    # The rows bring their colour: a scale here would be shared with the lines' one.
    colour = alt.Color("tone:N", legend=None, scale=None)
    tooltip = [alt.Tooltip("title:N", title="incident"), alt.Tooltip("step:Q", title="began at step", format=",d")]
    base = alt.Chart(alt.NamedData("rules")).encode(x=_step_axis(), color=colour, tooltip=tooltip)
    layers = [base.mark_rule(strokeDash=[4, 3], strokeWidth=1.6)]
    near = base.transform_filter(alt.datum.room == "right").encode(y=alt.value(0), text="label:N")
    layers.append(near.mark_text(align="left", baseline="top", dx=4, dy=16, fontSize=11, fontWeight="bold"))
    far = base.transform_filter(alt.datum.room == "left").encode(y=alt.value(0), text="label:N")
    layers.append(far.mark_text(align="right", baseline="top", dx=-4, dy=16, fontSize=11, fontWeight="bold"))
    return layers
