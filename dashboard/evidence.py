"""Which signals show an incident, and around which steps: the agent says it, the dashboard has a way without."""

from typing import Any, NamedTuple

from torchvitals.dashboard.answers import Incident, RunDetails

BEFORE = 150
"""Steps before the first one: enough to see what was usual."""
AFTER = 80
MOST_CHARTS = 6
"""A page that shows everything shows nothing."""
MOST_MAPS = 2
USUAL = ("loss", "gradient_norm", "latency_seconds", "rss_bytes")
"""What to show when the agent names nothing that the run sends."""


class Shown(NamedTuple):
    """Names of scalar signals and of profiles, those that the run sends."""

    scalars: list[str]
    profiles: list[str]


def signals_of(incident: Incident, details: RunDetails) -> Shown:
    """What the agent links to, else the usual."""
    wanted = [str(name) for part in ("signals", "profiles") for name in as_list(incident.links.get(part))]
    scalars = [name for name in wanted if name in details.sends]
    profiles = [name for name in wanted if name in details.profiles and name not in scalars]
    if not scalars and not profiles:
        scalars = [name for name in USUAL if name in details.sends]
    return Shown(scalars[:MOST_CHARTS], profiles[:MOST_MAPS])


def around(incident: Incident, steps: int) -> tuple[int, int]:
    """The first and last step worth looking at: the agent's range, else some steps before and after.

    >>> around(Incident(id="1", first_step=400, detected_step=410), 2000)
    (250, 490)
    >>> around(Incident(id="1", links={"steps": [3, 9]}), 2000)
    (3, 9)
    """
    linked = as_list(incident.links.get("steps"))
    if len(linked) == 2 and all(isinstance(step, int | float) for step in linked) and linked[0] < linked[1]:
        return int(linked[0]), int(linked[1])
    first = incident.first_step or 0
    last = max(first, incident.detected_step or first)
    # A slow failure, as a leak, needs its own length on both sides.
    margin = max(1, last - first)
    start = max(0, first - max(BEFORE, margin))
    return start, max(start + 1, min(max(steps - 1, last), last + max(AFTER, margin)))


def as_list(value: Any) -> list[Any]:
    """``value`` if it is a list; links are free-form."""
    return value if isinstance(value, list) else []
