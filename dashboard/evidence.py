"""Which signals show an incident, and around which steps."""

from typing import Any, NamedTuple

from torchvitals.dashboard.answers import Incident, RunDetails

BEFORE = 150
"""Steps before the first one: enough to see what was usual."""
AFTER = 80
LATEST = 6
"""Charts at most: a page that shows everything shows nothing."""

FALLBACK: dict[str, tuple[str, ...]] = {
    "explosion": ("loss", "gradient_norm", "learning_rate"),
    "nonfinite": ("loss", "gradient_norm", "input_absmax", "learning_rate"),
    "vanishing": ("loss", "gradient_norm"),
    "dead_relu": ("loss", "gradient_norm"),
    "loss_spike": ("loss", "gradient_norm"),
    "divergence": ("loss", "gradient_norm", "learning_rate"),
    "loss_scale_collapse": ("loss_scale", "skipped_steps", "gradient_norm", "loss"),
    "memory_leak": ("rss_bytes", "cuda_allocated_bytes", "live_tensors", "step_seconds"),
    "memory_pressure": ("cuda_reserved_bytes", "cuda_allocated_bytes", "rss_bytes"),
    "desync": ("loss", "gradient_norm"),
    "straggler": ("step_seconds", "data_seconds", "forward_seconds"),
    "input_bound": ("data_seconds", "step_seconds"),
    "slowdown": ("step_seconds", "data_seconds"),
    "latency": ("latency_seconds",),
    "drift": ("latency_seconds",),
    "crash": ("loss", "rss_bytes"),
}
"""What to show when the agent names no signals of its own."""
FALLBACK_PROFILES: dict[str, tuple[str, ...]] = {
    "nonfinite": ("parameter_gradient_norm",),
    "explosion": ("parameter_gradient_norm",),
    "vanishing": ("parameter_gradient_norm",),
    "dead_relu": ("module_silent_units", "parameter_silent_rows", "parameter_zero_rows"),
    "drift": ("feature_mean", "feature_missing"),
}


class Shown(NamedTuple):
    """Names of scalar signals and of profiles, those that the run sends."""

    scalars: list[str]
    profiles: list[str]


def signals_of(incident: Incident, details: RunDetails) -> Shown:
    """What the agent links to, else what is usual for the kind."""
    linked = [str(name) for name in as_list(incident.links.get("signals"))]
    wanted = linked or [*FALLBACK.get(incident.kind, ("loss",)), *FALLBACK_PROFILES.get(incident.kind, ())]
    scalars = [name for name in wanted if name in details.sends]
    profiles = [name for name in wanted if name in details.profiles and name not in scalars]
    if not scalars and not profiles:
        scalars = [name for name in ("loss", "latency_seconds") if name in details.sends]
    return Shown(scalars[:LATEST], profiles[:2])


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
