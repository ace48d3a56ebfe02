"""Parts that several pages show: the connection, the frame that survives a lost agent, a line per incident."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import streamlit as st
from torchvitals.dashboard.answers import Incident
from torchvitals.dashboard.client import AgentAbsentError, AgentError, AgentRefusedError, Client, NotThereError
from torchvitals.dashboard.palette import Palette, palette
from torchvitals.dashboard.wording import STATUS_MARKS, age, percent, plain, prose, severity, words

REFRESH_SECONDS = 3.0
"""A page asks this often while there is something to come; the agent answers in milliseconds."""
RETRY_SECONDS = 3.0
SEVERITY_BADGES = {"critical": "red", "error": "orange", "warning": "yellow", "info": "blue"}


@cache
def client() -> Client:
    """The one connection pool of this dashboard."""
    return Client.from_environment()


def colours() -> Palette:
    """The palette of the reader's theme."""
    return palette(dark=st.context.theme.type == "dark")


def live(draw: Callable[[], None], *, every: float | None = REFRESH_SECONDS) -> None:
    """Draw a part of a page that redraws itself ``every`` so many seconds, and says so when the agent is away."""

    def guarded() -> None:
        try:
            draw()
        except AgentError as error:
            trouble(error)

    # Fragments are told apart by name; this one's is that of what it draws.
    guarded.__qualname__ = f"live.{draw.__qualname__}"
    st.fragment(guarded, run_every=every)()


def trouble(error: AgentError) -> None:
    """Say what is wrong and what to type."""
    if isinstance(error, NotThereError):
        st.warning(str(error), icon=":material/search_off:")
        if error.hint:
            st.caption(plain(error.hint))
        link("All runs", icon=":material/arrow_back:")
        return
    st.error(plain(str(error)), icon=":material/cloud_off:")
    if isinstance(error, AgentAbsentError):
        st.markdown("Start the agent in a terminal:")
        st.code(error.hint or "torchvitals agent", language="bash")
        st.caption(
            "Jobs go on recording without it. This page looks again every few seconds. An agent elsewhere is "
            "named by the environment variable TORCHVITALS_URL."
        )
    elif isinstance(error, AgentRefusedError):
        st.markdown("Give the dashboard the agent's token and start it again:")
        st.code(error.hint, language="bash")
    elif error.hint:
        st.caption(plain(error.hint))


def link(label: str, *, icon: str | None = None, **query: str) -> None:
    """A link to a page of this dashboard: to the list of runs, to ``run=…`` or to ``incident=…``."""
    st.page_link(st.session_state["pages"][next(iter(query), "")], label=label, icon=icon, query_params=query)


def badges(incident: Incident) -> str:
    """Severity and status of an incident as Markdown badges."""
    colour = SEVERITY_BADGES.get(incident.severity, "gray")
    mark = STATUS_MARKS.get(incident.status, "·")
    return f":{colour}-badge[{severity(incident.severity)}] :gray-badge[{mark} {incident.status}]"


def place(incident: Incident) -> str:
    """Where, in a few words: the place, the rank and the step."""
    parts = [code(incident.where) if incident.where else ""]
    parts += [f"rank {incident.rank}" if incident.rank is not None else ""]
    parts += [f"step {incident.first_step:,}" if incident.first_step is not None else ""]
    return " · ".join(part for part in parts if part)


def code(name: str) -> str:
    """A name of the job's as code in Markdown; what would end the code or a table's cell is replaced."""
    return "`" + name.replace("`", "'").replace("|", "¦") + "`"


def incident_line(incident: Incident, *, with_run: bool) -> None:
    """One incident in two lines, with a link to all of it."""
    with st.container(border=True, gap="xsmall", key=f"incident-{incident.id}"):
        link(prose(incident.title or words(incident.kind)), incident=incident.id)
        cause = f"likely cause: **{words(incident.cause)}** ({percent(incident.confidence)})"
        opened = f"opened {age(incident.opened_at, time.time())}" if incident.opened_at else ""
        run = f"run **{plain(incident.name or incident.run)}**" if with_run else ""
        told = " · ".join(part for part in (run, place(incident), cause, opened) if part)
        st.markdown(f"{badges(incident)} :small[:gray[{told}]]")


def chart(drawn: Any, key: str, alt: str) -> None:
    """A chart in the page's width; ``alt`` is what a screen reader says."""
    st.altair_chart(drawn, width="stretch", key=key, alt=alt)
