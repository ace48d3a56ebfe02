"""All runs and their state at a glance, what needs somebody first."""

import time
from typing import Any

import pandas as pd
import streamlit as st
from torchvitals.dashboard import panels
from torchvitals.dashboard.answers import Incident, Run
from torchvitals.dashboard.wording import SEVERITIES, SEVERITY_MARKS, age, number, severity, state

SHOWN_INCIDENTS = 6
ROW_PIXELS = 35


def show() -> None:
    """The page."""
    st.title("Runs")
    st.text_input("Find", key="find", placeholder="part of a name, host or command", label_visibility="collapsed")
    panels.live(everything)


def everything() -> None:
    """All that changes by itself."""
    runs = panels.client().runs()
    if not runs:
        nothing_yet()
        return
    figures(runs)
    needs_somebody(panels.client().incidents(status=("open", "acknowledged")))
    table(chosen(runs, st.session_state.get("find", "")))


def nothing_yet() -> None:
    """The agent is there and has seen no run."""
    st.info("The agent is running and no job has been recorded yet.", icon=":material/hourglass_empty:")
    st.markdown("Put `torchvitals run` in front of the command that trains or serves:")
    st.code("torchvitals run python train.py", language="bash")
    st.markdown("Or watch jobs fail on purpose:")
    st.code("torchvitals demo", language="bash")


def figures(runs: list[Run]) -> None:
    """The counts that a glance asks for."""
    states = [run.state for run in runs]
    open_ones = {word: sum(run.incidents.get(word, 0) for run in runs) for word in SEVERITIES}
    columns = st.columns(6)
    shown = (
        ("▶ running", states.count("running"), "Runs that are writing now."),
        ("✗ failed", states.count("failed"), "Runs that ended with an error."),
        ("? lost", states.count("lost"), "Runs that fell silent without a word."),
        *(
            (f"{SEVERITY_MARKS[word]} {word}", open_ones[word], f"Unresolved incidents that are {word}.")
            for word in ("critical", "error", "warning")
        ),
    )
    for column, (label, count, tells) in zip(columns, shown, strict=True):
        column.metric(label, count, help=tells)


def needs_somebody(incidents: list[Incident]) -> None:
    """The unresolved incidents, the worst first."""
    if not incidents:
        st.success("No open incidents.", icon=":material/check_circle:")
        return
    st.subheader("Open incidents")
    for incident in incidents[:SHOWN_INCIDENTS]:
        panels.incident_line(incident, with_run=True)
    rest = incidents[SHOWN_INCIDENTS:]
    if rest:
        with st.expander(f"{len(rest)} more"):
            for incident in rest[:100]:
                panels.incident_line(incident, with_run=True)


def chosen(runs: list[Run], text: str) -> list[Run]:
    """The runs in which every word of ``text`` occurs."""
    wanted = text.lower().split()
    return [
        run
        for run in runs
        if all(word in f"{run.run} {run.name} {run.host} {run.command} {run.state}".lower() for word in wanted)
    ]


def table(runs: list[Run]) -> None:
    """All runs; choosing a row opens it."""
    st.subheader("All runs")
    if not runs:
        st.caption("No run matches.")
        return
    # A new key after each visit: a kept selection would open the same run again on the way back.
    visit = st.session_state.setdefault("visit", 0)
    event: Any = st.dataframe(
        pd.DataFrame([line(run, time.time()) for run in runs]),
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"runs-{visit}",
        height=min(ROW_PIXELS * (len(runs) + 1) + 3, 640),
        column_config={
            "loss": st.column_config.TextColumn(help="The newest loss of the lowest rank."),
            "incidents": st.column_config.TextColumn(help="Unresolved incidents: the worst, and how many in all."),
        },
        alt="All runs: state, incidents, progress and place",
    )
    st.caption("Select a row to open the run.")
    rows = event.selection.rows
    if rows and rows[0] < len(runs):
        st.session_state["visit"] += 1
        st.switch_page(st.session_state["pages"]["run"], query_params={"run": runs[rows[0]].run})


def line(run: Run, now: float) -> dict[str, str]:
    """One row of the table."""
    return {
        "state": state(run.state),
        "name": run.name or run.run,
        "incidents": trouble(run),
        "progress": f"{number(run.steps)} {run.counts}",
        "loss": number(run.loss),
        "speed": f"{number(run.steps_per_second, 3)} /s" if run.steps_per_second and run.live else "–",
        "ranks": number(run.ranks),
        "started": age(run.started, now),
        "last seen": age(run.last_seen, now),
        "host": run.host,
        "run": run.run,
    }


def trouble(run: Run) -> str:
    """The worst unresolved incident and how many there are."""
    count = sum(run.incidents.values())
    if not run.worst or not count:
        return "–"
    return f"{severity(run.worst)}{f' ({count})' if count > 1 else ''}"
