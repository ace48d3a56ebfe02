"""What a guard did about an incident, said where the incident is told."""

from torchvitals.agent.case import Case
from torchvitals.detectors.detector import Finding, Severity
from torchvitals.signals.records import Event

ABOUT = ("nonfinite",)
"""Kinds that a guard does something about."""


def guard_note(case: Case, root: Finding) -> str:
    """A sentence on what the guard did from the incident's first step on; empty where there was none."""
    events = _events(case, root)
    if not events:
        return ""
    first = events[0].details
    done = {
        "skip": "The guard left the step out: the weights were not touched.",
        "stop": "The guard stopped the training: the weights were not touched.",
        "rollback": f"The guard went back to the state before step {first.get('restored')}.",
        "apply": "The guard's function let the step be applied.",
    }.get(str(first.get("action")), "")
    others = len({event.details.get("at") for event in events}) - 1
    more = f" It acted on {others} more step{'s' if others > 1 else ''}." if done and others else ""
    return done + more


def tempered(severity: Severity, case: Case, root: Finding) -> Severity:
    """The severity when the weights were saved: not critical, but still an error to look into."""
    saved = any(event.details.get("action") in ("skip", "stop", "rollback") for event in _events(case, root)[:1])
    return "error" if saved and severity == "critical" else severity


def _events(case: Case, root: Finding) -> list[Event]:
    """The guard's actions that belong to the root: those from its first step on."""
    if root.kind not in ABOUT:
        return []
    found = [event for _, event in case.events_of("guard")]
    return [event for event in found if int(event.details.get("at", -1)) >= root.first_step]
