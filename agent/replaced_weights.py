"""Which of the times that a service's weights were replaced its answers changed at."""

from torchvitals.agent.case import Case
from torchvitals.signals.records import Event

BLOCKS = 32
"""Requests by which the onset of a drift is known: two of the blocks in which answers are added up."""


def replaced_before(case: Case, request: int) -> Event | None:
    """The replacement nearest to ``request``, from where on answers are others; ``None`` where there was none."""
    times = [event for _, event in case.events_of("weights_replaced")]
    near = [event for event in times if event.details["since"] - BLOCKS <= request <= event.details["request"] + BLOCKS]
    return min(near, key=lambda event: abs(event.details["request"] - request), default=None)
