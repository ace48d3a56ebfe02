"""One run: its state, its incidents, its vital signs with the incidents marked in them, its layers over steps."""

import time

import streamlit as st
from torchvitals.dashboard import panels, plots, run_facts
from torchvitals.dashboard.answers import RunDetails
from torchvitals.dashboard.client import AgentError
from torchvitals.dashboard.wording import age, duration, number, plain, state

SLOW_SECONDS = 20.0
"""A run that has ended changes only when somebody acknowledges something."""
WINDOWS: dict[str, int | None] = {"whole run": None, "last 1,000": 1000, "last 100": 100}
SCALES: dict[str, bool | None] = {"automatic": None, "linear": False, "logarithmic": True}


def show(run: str) -> None:
    """The page of the run with this id."""
    panels.link("All runs", icon=":material/arrow_back:")

    def page() -> None:
        body(run)

    panels.live(page, every=panels.REFRESH_SECONDS if growing(run) else SLOW_SECONDS)


def growing(run: str) -> bool:
    """Whether to look often: the run is live, or the agent is away and may come back."""
    try:
        return panels.client().run(run).live
    except AgentError:
        return True


def body(run: str) -> None:
    """All that changes by itself."""
    details = panels.client().run(run)
    incidents = panels.client().incidents(run)
    header(details)
    for incident in [one for one in incidents if one.unresolved]:
        panels.incident_line(incident, with_run=False)
    resolved = [one for one in incidents if not one.unresolved]
    if resolved:
        with st.expander(f"{len(resolved)} resolved"):
            for incident in resolved:
                panels.incident_line(incident, with_run=False)
    view = controls(details)
    signs, layers, facts, events = st.tabs(["Vital signs", "Layers", "Job", "Events"])
    with signs:
        plots.vital_signs(details, incidents, view)
    with layers:
        plots.layers(details, incidents)
    with facts:
        run_facts.job(details)
    with events:
        run_facts.events(details)


def header(details: RunDetails) -> None:
    """What the run is and how far it has come."""
    now = time.time()
    st.title(plain(details.name or details.run), anchor=False)
    ended = "" if details.live else f" · ended {age(details.last_seen, now)}"
    st.caption(f"{state(details.state)} · started {age(details.started, now)}{ended} · {plain(details.run)}")
    if details.command:
        st.code(details.command, language="bash", wrap_lines=True)
    columns = st.columns(5)
    columns[0].metric(details.counts, number(details.steps))
    columns[1].metric("loss", number(details.loss), help="The newest loss of the lowest rank.")
    columns[2].metric(f"{details.counts} per second", number(details.steps_per_second, 3))
    columns[3].metric("ranks", number(details.ranks))
    columns[4].metric("duration", duration(details.last_seen - details.started))


def controls(details: RunDetails) -> plots.View:
    """Which steps, which rank, which axis. Kept by run while the page redraws itself."""
    left, middle, right = st.columns(3)
    window = left.segmented_control(
        details.counts.capitalize(), list(WINDOWS), default="whole run", key=f"window-{details.run}"
    )
    scale = middle.segmented_control("Value axis", list(SCALES), default="automatic", key=f"scale-{details.run}")
    ranks = sorted({rank for signal in details.signals for rank in signal.ranks})
    rank = None
    if len(ranks) > 1:
        rank = right.selectbox("Rank", [None, *ranks], format_func=rank_name, key=f"rank-{details.run}")
    last = WINDOWS.get(window or "whole run")
    start = max(0, details.steps - last) if last else None
    return plots.View(rank=rank, start=start, log=SCALES.get(scale or "automatic"))


def rank_name(rank: int | None) -> str:
    """How the choice of ranks is written."""
    return "all ranks" if rank is None else f"rank {rank}"
