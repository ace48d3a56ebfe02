"""The plots of a run: one per vital sign it sends, and the heat map of its layers."""

from typing import NamedTuple

import streamlit as st
from torchvitals.dashboard import panels
from torchvitals.dashboard.answers import Incident, RunDetails, Series
from torchvitals.dashboard.charts import MANY_LINES, band_over_ranks, drawing, line_chart, marks
from torchvitals.dashboard.heat import beginnings, cells, heat_map
from torchvitals.dashboard.wording import number, plain, words
from torchvitals.signals.catalog import BY_NAME

POINTS = 500
"""Buckets per line: about one per two pixels of a chart on half a page."""


class View(NamedTuple):
    """What the reader has chosen: a rank or all, the first step, and the kind of axis (None: automatic)."""

    rank: int | None = None
    start: int | None = None
    end: int | None = None
    log: bool | None = None


class Plot(NamedTuple):
    """A chart and the signals that it shows together."""

    title: str
    signals: tuple[str, ...]


VITAL_SIGNS = (
    Plot("Loss", ("loss",)),
    Plot("Gradient norm", ("gradient_norm", "gradient_norm_unclipped")),
    Plot("Learning rate", ("learning_rate",)),
    Plot("Loss scale", ("loss_scale",)),
    Plot("Latency", ("latency_seconds",)),
    Plot(
        "Step time",
        ("step_seconds", "data_seconds", "forward_seconds", "backward_seconds", "optimizer_seconds"),
    ),
    Plot("Memory", ("rss_bytes", "cuda_allocated_bytes", "cuda_reserved_bytes")),
)
"""In this order, each only if the run sends one of its signals."""
LINEAR = {"learning_rate"}
"""Schedules are drawn to end at zero; on a logarithmic axis the last steps would be all of the picture."""
FIRST_PROFILE = "parameter_gradient_norm"
"""The heat map to begin with: it shows most failures of numerics."""
HIDDEN = {"batch_digest"}
"""Numbers that mean nothing as a line."""


def vital_signs(details: RunDetails, incidents: list[Incident], view: View) -> None:
    """The usual charts, two in a row, and any other signal on demand."""
    plots = [Plot(plot.title, kept) for plot in VITAL_SIGNS if (kept := sent(plot.signals, details))]
    if not plots:
        st.info("No measurements yet.", icon=":material/hourglass_empty:")
    columns = st.columns(2)
    for place, plot in enumerate(plots):
        with columns[place % 2]:
            one_plot(details, plot, incidents, view)
    others = sorted(details.sends - {name for plot in VITAL_SIGNS for name in plot.signals} - HIDDEN)
    if not others:
        return
    picked = st.multiselect("More signals", others, format_func=words, key=f"more-{details.run}")
    columns = st.columns(2)
    for place, name in enumerate(picked):
        with columns[place % 2]:
            one_plot(details, Plot(words(name).capitalize(), (name,)), incidents, view)


def sent(signals: tuple[str, ...], details: RunDetails) -> tuple[str, ...]:
    """Those of ``signals`` that the run sends."""
    return tuple(name for name in signals if name in details.sends)


def one_plot(details: RunDetails, plot: Plot, incidents: list[Incident], view: View, place: str = "run") -> None:
    """One chart with its title and what its signals tell."""
    series = panels.client().series(details.run, plot.signals, view.rank, start=view.start, end=view.end, points=POINTS)
    series = sorted((one for one in series if one.step), key=lambda one: plot.signals.index(one.signal))
    if len({one.rank for one in series}) * len(plot.signals) > MANY_LINES:
        series = band_over_ranks(series)
    st.markdown(f"**{plot.title}**", help=tells(plot.signals, details))
    if not series:
        st.caption("Nothing in these steps.")
        return
    log = False if view.log is None and plot.signals[0] in LINEAR else view.log
    shown = drawing(series, unit_of(plot.signals[0], details), log)
    if not shown.points and not shown.crosses:
        st.caption("No positive value to draw on a logarithmic axis." if shown.log else "Nothing to draw.")
        return
    first, last = min(one.step[0] for one in series), max(one.step[-1] for one in series)
    drawn = line_chart(shown, marks(incidents, first, last, panels.colours()), panels.colours())
    panels.chart(drawn, f"{place}-{details.run}-{plot.title}", summary(plot, series))
    nonfinite = sum(sum(one.nonfinite) for one in series)
    if nonfinite:
        st.caption(f"✕ {number(nonfinite)} values are NaN or Inf.")


def unit_of(name: str, details: RunDetails) -> str:
    """The unit of a signal, from the run or else from the catalogue."""
    known = BY_NAME.get(name)
    return next((one.unit for one in details.signals if one.name == name), known.unit if known else "1")


def tells(names: tuple[str, ...], details: RunDetails) -> str:
    """What the signals of a chart tell, one line each."""
    told = {one.name: one.tells for one in details.signals}
    return "\n\n".join(f"**{words(name)}**: {plain(told.get(name, ''))}" for name in names)


def summary(plot: Plot, series: list[Series]) -> str:
    """The chart in a sentence, for those who do not see it."""
    lasts = [f"{words(one.signal)} of rank {one.rank} ends at {number(one.last[-1])}" for one in series]
    return f"{plot.title} over steps: {'; '.join(lasts[:4])}"


def layers(details: RunDetails, incidents: list[Incident]) -> None:
    """The heat map of one profile."""
    if not details.profiles:
        st.info(
            "No step of this run was sampled in depth: nothing is known of single layers. The Job tab says what could "
            "not be checked, and why.",
            icon=":material/layers_clear:",
        )
        return
    left, right = st.columns([3, 1])
    signal = left.selectbox(
        "Measured per layer",
        sorted(details.profiles, key=lambda name: name != FIRST_PROFILE),
        format_func=words,
        key=f"profile-{details.run}",
    )
    ranks = sorted({process.rank for process in details.processes if process.rank >= 0}) or [0]
    rank = right.selectbox("Rank", ranks, key=f"profile-rank-{details.run}") if len(ranks) > 1 else ranks[0]
    layer_map(details, incidents, signal, rank)


def layer_map(details: RunDetails, incidents: list[Incident], signal: str, rank: int, place: str = "run") -> None:
    """One heat map with its legend in words."""
    profiles = panels.client().profiles(details.run, signal, rank)
    if not profiles.step or not profiles.entries:
        st.caption(f"Rank {rank} has not sent this yet.")
        return
    found = cells(profiles)
    if not found.values and not found.crosses:
        st.caption(f"All {len(found.zeros):,} cells are exactly zero.")
        return
    known = BY_NAME.get(signal)
    st.caption(" ".join([plain(known.tells) if known else "", *legend(len(found.zeros), len(found.crosses))]))
    panels.chart(
        heat_map(found, beginnings(found, incidents), panels.colours(), words(signal)),
        f"{place}-{details.run}-heat-{signal}",
        f"{words(signal)} of {len(found.rows)} layers over {len(profiles.step)} sampled steps",
    )
    if found.grouped:
        st.caption(f"{len(profiles.entries)} entries are shown as {len(found.rows)} rows: the largest value of each.")


def legend(zeros: int, crosses: int) -> list[str]:
    """What the cells without a colour of the scale mean."""
    said = ["Colour is the order of magnitude."]
    said += ["Grey cells are exactly zero."] if zeros else []
    said += ["Cells with ✕ are NaN or Inf."] if crosses else []
    return said
