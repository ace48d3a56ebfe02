"""What the causes of a memory leak have in common: the finding, the holder and how to say a rate."""

from typing import Any

from torchvitals.agent.case import Case
from torchvitals.detectors.detector import Finding


def leak_of(case: Case) -> Finding | None:
    """The leak, or the pressure it has led to."""
    return next(iter([*case.of_kind("memory_leak"), *case.of_kind("memory_pressure")]), None)


def holder_of(case: Case) -> dict[str, Any] | None:
    """What the leak hunt found, the largest first; ``None`` when it named nothing."""
    found = [event.details for _, event in case.events_of("holder") if not event.details.get("native")]
    return max(found, key=lambda details: float(details.get("bytes_per_step") or 0.0), default=None)


def place_of(holder: dict[str, Any] | None) -> str:
    """``file:line`` of the container, or its name when no line is known."""
    return str(holder.get("line") or holder.get("holder") or "") if holder else ""


def per_step(leak: Finding) -> str:
    """The rate in the unit a person would choose.

    >>> per_step(Finding(kind="memory_leak", severity="error", first_step=0, step=9, value=0, threshold=0,
    ...                  evidence={"bytes_per_step": 2.5e6}))
    '2.5 MB'
    """
    size = float(leak.evidence.get("bytes_per_step", leak.value))
    return f"{size / 1e6:.3g} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"
