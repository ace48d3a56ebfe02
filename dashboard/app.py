"""The dashboard: it shows what its address asks for.

``/`` is the list of runs, ``/?run=ID`` one run, ``/?incident=ID`` one incident: an alert links straight to what
it is about. The last two lead on to ``/run`` and ``/incident``: only between pages with paths of their own does
Streamlit write the address that makes the back button work.
"""

import streamlit as st
from torchvitals.dashboard import all_runs, one_incident, one_run, panels
from torchvitals.dashboard.client import AgentError
from torchvitals.dashboard.wording import duration, number, plain

FOOTER_SECONDS = 10.0

STYLE = """
<style>
  .block-container { padding-top: 3.2rem; max-width: 1280px; }
  h1 { font-size: 1.9rem !important; padding-bottom: .2rem !important; overflow-wrap: anywhere; }
  h3 { font-size: 1.15rem !important; padding: .6rem 0 .2rem !important; }
  [data-testid="stMetricValue"] { font-variant-numeric: tabular-nums; }
  [data-testid="stMetricLabel"] { font-size: .95rem; }
  a[data-testid="stPageLink-NavLink"] { background: transparent !important; padding-left: 0 !important; }
  a[data-testid="stPageLink-NavLink"]:hover { text-decoration: underline; }
  /* What is being refreshed keeps its full colour: a page that dims every three seconds is flicker. */
  [data-stale="true"] { opacity: 1 !important; transition: none !important; }
</style>
"""


def front() -> None:
    """The list of runs, or on to what an alert's link asks for."""
    for name in ("incident", "run"):
        if wanted := st.query_params.get(name):
            st.switch_page(st.session_state["pages"][name], query_params={name: wanted})
    all_runs.show()
    panels.live(footer, every=FOOTER_SECONDS)


def run() -> None:
    """One run."""
    one_run.show(st.query_params.get("run", ""))
    panels.live(footer, every=FOOTER_SECONDS)


def incident() -> None:
    """One incident."""
    one_incident.show(st.query_params.get("incident", ""))
    panels.live(footer, every=FOOTER_SECONDS)


def footer() -> None:
    """Which agent this is and whether it keeps up; silent when there is none, the page says so already."""
    try:
        agent = panels.client().agent()
    except AgentError:
        return
    parts = [
        f"torchvitals {agent.version}" if agent.version else "torchvitals",
        panels.code(panels.client().url),
        plain(agent.directory),
        f"{number(agent.records)} records",
        f"{duration(agent.lag_seconds)} behind" if agent.lag_seconds is not None else "",
        f"{number(agent.dropped)} dropped" if agent.dropped else "",
    ]
    st.caption(" · ".join(part for part in parts if part))


st.set_page_config(page_icon=":material/ecg_heart:", layout="wide")
st.html(STYLE)
pages = {
    "": st.Page(front, title="torchvitals", default=True),
    "run": st.Page(run, title="Run · torchvitals", url_path="run"),
    "incident": st.Page(incident, title="Incident · torchvitals", url_path="incident"),
}
st.session_state["pages"] = pages
st.navigation(list(pages.values()), position="hidden").run()
