"""What is known of a job beside its measurements: code, processes, what was checked, what happened."""

import time
from typing import Any

import pandas as pd
import streamlit as st
from torchvitals.dashboard.answers import RunDetails
from torchvitals.dashboard.wording import age, number, plain, prose, state, words


def job(details: RunDetails) -> None:
    """The code, the processes, and what could and could not be looked at."""
    left, right = st.columns(2)
    with left:
        st.markdown("**Code**")
        facts(details.facts)
    with right:
        st.markdown("**Checked**")
        checked(details)
    st.markdown("**Processes**")
    processes(details)


def facts(known: dict[str, Any]) -> None:
    """What the hooks found out about the code."""
    rows = [{"what": what, "found": plain(found)} for what, found in fact_rows(known)]
    if rows:
        st.table(pd.DataFrame(rows).set_index("what"))
    else:
        st.caption("The job has not described itself.")


def fact_rows(known: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts as lines; lists of models and optimizers become one line each.

    >>> fact_rows({"models": [{"name": "Net", "parameters": 1200}], "scaler": False, "clips": None})
    [('model', 'Net: parameters 1,200'), ('scaler', 'no')]
    """
    rows = []
    for key, value in known.items():
        if key in ("models", "optimizers") and isinstance(value, list):
            rows += [(key[:-1], described(one)) for one in value]
        elif value is not None:
            rows.append((words(key), text(value)))
    return rows


def described(one: Any) -> str:
    """A model or an optimizer in a line."""
    if not isinstance(one, dict):
        return text(one)
    name = one.get("name") or one.get("class") or "?"
    rest = [
        f"{words(key)} {text(value)}" for key, value in one.items() if key not in ("name", "class") and shown(value)
    ]
    return f"{name}: {', '.join(rest)}" if rest else str(name)


def shown(value: Any) -> bool:
    """Whether a fact says anything."""
    return value is not None and value not in ([], {}) and value is not False


def text(value: Any) -> str:
    """Any JSON value in a line."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return number(float(value))
        case str():
            return value
        case dict():
            return ", ".join(f"{key} {text(item)}" for key, item in value.items() if item is not None)
        case list():
            return "; ".join(text(item) for item in value)
        case _:
            return "–"


def checked(details: RunDetails) -> None:
    """What the detectors looked at, and what they could not and why."""
    names = [text(item) if not isinstance(item, dict) else text(item.get("what", item)) for item in details.checked]
    if names:
        st.markdown(" ".join(f":green-badge[✓ {words(name)}]" for name in names))
    if not details.not_checked:
        st.caption("Everything that can be checked is checked." if names else "Nothing has been checked yet.")
        return
    st.markdown("**Not checked**")
    rows = [{"what": words(item.what), "why": prose(item.why)} for item in details.not_checked]
    st.table(pd.DataFrame(rows).set_index("what"))


def processes(details: RunDetails) -> None:
    """One line per process."""
    now = time.time()
    rows = [
        {
            "rank": "launcher" if process.rank < 0 else str(process.rank),
            "state": state(process.state) if process.state else "–",
            "pid": str(process.pid),
            "host": process.host,
            "last step": number(process.last_step) if (process.last_step or 0) >= 0 else "–",
            "last seen": age(process.last_seen, now),
            "records dropped": number(process.dropped),
            "records corrupt": number(process.corrupt),
        }
        for process in details.processes
    ]
    if rows:
        st.dataframe(pd.DataFrame(rows), hide_index=True)
    else:
        st.caption("No process has written yet.")


def events(details: RunDetails) -> None:
    """What happened once, the newest first."""
    if not details.events:
        st.caption("Nothing has happened yet.")
        return
    rows = [
        {
            "when": age(event.time, time.time()),
            "step": number(event.step) if event.step is not None and event.step >= 0 else "–",
            "rank": "launcher" if event.rank is not None and event.rank < 0 else number(event.rank),
            "what": words(event.kind),
            "details": text(event.details),
        }
        for event in sorted(details.events, key=lambda event: -event.time)
    ]
    st.dataframe(
        pd.DataFrame(rows), hide_index=True, column_config={"details": st.column_config.TextColumn(width="large")}
    )
    problem = next((event for event in details.events if event.kind == "exception"), None)
    if problem is not None:
        st.markdown(f"**{plain(str(problem.details.get('type', 'Exception')))}**")
        st.code("\n".join([*map(str, problem.details.get("frames") or []), str(problem.details.get("message", ""))]))
