"""One incident: what happened, where, why, the evidence, what to do, and what has become of it."""

import getpass
import time
from collections.abc import Callable
from functools import partial

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from torchvitals.dashboard import panels, plots
from torchvitals.dashboard.answers import Cause, Incident, RunDetails
from torchvitals.dashboard.charts import MANY_LINES
from torchvitals.dashboard.client import AgentError
from torchvitals.dashboard.evidence import around, signals_of
from torchvitals.dashboard.wording import age, number, percent, plain, prose, severity, words

SILENCES = {"1 hour": 3600, "8 hours": 8 * 3600, "1 day": 86400}


def show(incident: str) -> None:
    """The page of the incident with this id."""
    panels.link("All runs", icon=":material/arrow_back:")

    def page() -> None:
        body(panels.client().incident(incident))

    panels.live(page, every=panels.REFRESH_SECONDS * 2)


def body(incident: Incident) -> None:
    """All that changes by itself."""
    details = panels.client().run(incident.run)
    st.title(prose(incident.title or words(incident.kind)), anchor=False)
    row = st.container(horizontal=True, vertical_alignment="center")
    row.markdown(panels.badges(incident) + f" :gray-badge[{words(incident.kind)}]", width="content")
    with row:
        panels.link(f"run {plain(incident.name or incident.run)}", icon=":material/monitoring:", run=incident.run)
    actions(incident)
    what, why = st.columns([3, 2], gap="large")
    with what:
        st.subheader("What happened", anchor=False)
        st.markdown(prose(incident.explanation) or "The agent has no words for it yet.")
        whereabouts(incident, details)
        st.subheader("What to do", anchor=False)
        st.info(prose(incident.remedy) or "No remedy is known for this cause.", icon=":material/healing:")
    with why:
        st.subheader("Why", anchor=False)
        causes(incident)
    evidence(incident, details)
    findings(incident)


def whereabouts(incident: Incident, details: RunDetails) -> None:
    """Where and when, in two lines; of a job of one rank the rank says nothing."""
    first, detected = incident.first_step, incident.detected_step
    late = detected - first if first is not None and detected is not None else 0
    where = panels.code(incident.where) if incident.where else "the whole run"
    rank = " on every rank" if incident.rank is None else f" on rank {incident.rank}"
    flagged = f", flagged {late:,} later at {number(detected)}" if late else " and was flagged there"
    began = (
        f"began at {details.counts[:-1]} **{number(first)}**{flagged}; opened {age(incident.opened_at, time.time())}"
    )
    st.markdown(f":material/location_on: {where}{rank if details.ranks > 1 else ''}  \n:material/schedule: {began}")


def causes(incident: Incident) -> None:
    """The ranked causes, each with its share of belief and what speaks for and against it."""
    ranked = incident.causes or [Cause(cause=incident.cause, confidence=incident.confidence)]
    for place, cause in enumerate(ranked):
        share = min(1.0, max(0.0, cause.confidence))
        st.progress(share, text=f"**{words(cause.cause)}** — {percent(share)}")
        if place == 0:
            reasons(cause)
        elif cause.evidence or cause.against:
            with st.expander("evidence"):
                reasons(cause)


def reasons(cause: Cause) -> None:
    """The sentences for and against."""
    lines = [f"- {prose(line)}" for line in cause.evidence]
    lines += [f"- *against:* {prose(line)}" for line in cause.against]
    st.markdown("\n".join(lines) or "*No evidence beyond the finding itself.*")


def actions(incident: Incident) -> None:
    """Acknowledge, resolve, silence."""
    if not incident.unresolved:
        st.caption(f"Resolved {age(incident.resolved_at, time.time())}.")
        return
    row = st.container(horizontal=True, vertical_alignment="center")
    name = incident.id
    if incident.status == "open":
        button(row, "Acknowledge", ":material/visibility:", partial(panels.client().acknowledge, name, who()))
    button(row, "Resolve", ":material/check:", partial(panels.client().resolve, name))
    with row.popover("Silence", icon=":material/notifications_paused:"):
        for label, seconds in SILENCES.items():
            action = partial(panels.client().silence, name, seconds)
            st.button(f"for {label}", key=f"silence-{seconds}-{name}", on_click=act, args=(action,))
    said = [f"acknowledged by {plain(incident.acknowledged_by)}"] if incident.acknowledged_by else []
    quiet = (incident.silenced_until or 0) - time.time()
    said += [f"silenced for another {quiet / 60:.0f} min"] if quiet > 0 else []
    row.caption(" · ".join(said))


def button(row: DeltaGenerator, label: str, icon: str, action: Callable[[], None]) -> None:
    """A button that asks the agent for something before the page is drawn again."""
    row.button(label, icon=icon, key=f"{label}-button", on_click=act, args=(action,))


def act(action: Callable[[], None]) -> None:
    """Do it; a refusal is shown for a moment and changes nothing."""
    try:
        action()
    except AgentError as error:
        st.toast(plain(str(error)), icon=":material/error:")


def who() -> str:
    """The name under which an incident is acknowledged."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        return "dashboard"


def evidence(incident: Incident, details: RunDetails) -> None:
    """The signals that show it, around its first step, and the layers if it is about layers."""
    names = signals_of(incident, details)
    start, end = around(incident, details.steps)
    st.subheader("Evidence", anchor=False)
    if names.scalars:
        st.caption(f"{details.counts.capitalize()} {start:,} to {end:,}; the dashed rule is where it began.")
    # Beside its healthy peers a sick rank shows best, while there are few enough to tell apart.
    rank = incident.rank if details.ranks > MANY_LINES else None
    view = plots.View(rank=rank, start=start, end=end)
    columns = st.columns(2)
    for place, name in enumerate(names.scalars):
        with columns[place % 2]:
            plot = plots.Plot(words(name).capitalize(), (name,))
            plots.one_plot(details, plot, [incident], view, place=f"incident-{incident.id}")
    for name in names.profiles:
        st.markdown(f"**{words(name).capitalize()}**")
        plots.layer_map(details, [incident], name, incident.rank or 0, place=f"incident-{incident.id}")
    if not names.scalars and not names.profiles:
        st.caption("The run sends no signal that would show this.")


def findings(incident: Incident) -> None:
    """The symptoms that make up the incident."""
    if not incident.findings:
        return
    rows = [
        {
            "symptom": words(finding.kind),
            "severity": severity(finding.severity),
            "place": finding.name or "–",
            "rank": number(finding.rank),
            "began at step": number(finding.first_step),
            "certain at step": number(finding.step),
            "value": number(finding.value),
            "threshold": number(finding.threshold),
        }
        for finding in incident.findings
    ]
    with st.expander(f"{len(rows)} finding{'s' if len(rows) > 1 else ''} behind this incident"):
        st.dataframe(pd.DataFrame(rows), hide_index=True)
