"""What a cause is given, and what it must answer.

A *case* is a group of findings that may share a root, with everything the run said around them. Each
cause in :mod:`torchvitals.agent.causes` weighs the case and answers with evidence in log-odds; the
ranking in :mod:`torchvitals.agent.diagnosis` is nothing but their sum, so it can be read and argued with.
"""

from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec
from torchvitals.agent.history import History
from torchvitals.detectors.detector import Finding
from torchvitals.signals.records import Event


class Clue(NamedTuple):
    """A sentence with numbers in it and what it is worth.

    ``weight`` is in nats of log-odds: +1 is a hint, +2 speaks clearly for the cause, +4 all but proves it;
    negative weights speak against it.
    """

    weight: float
    text: str


LONGEST_TITLE = 79
"""Characters of a headline: one line of a terminal, a chat or a mail's subject."""


def headline(text: str, longest: int = LONGEST_TITLE) -> str:
    """A headline that fits: cut between words, so that no number in it becomes another one.

    >>> headline("Ranks apply different updates from step 500", 42)
    'Ranks apply different updates from step …'
    """
    if len(text) <= longest:
        return text
    words, space, _ = text[: longest - 1].rpartition(" ")
    return f"{words} …" if space else f"{text[: longest - 1]}…"


class Opinion(msgspec.Struct, kw_only=True):
    """What a cause says of a case. ``clues`` add up with the cause's prior.

    ``where`` and ``rank`` override the place of the opening finding when the cause knows better;
    ``title`` is cut to a headline under 80 characters, ``explanation`` two or three sentences with the numbers,
    ``remedy`` what to change, as concrete as the facts allow.
    """

    clues: list[Clue]
    title: str
    explanation: str
    remedy: str
    where: str = ""
    rank: int | None = None
    first_step: int | None = None

    def __post_init__(self) -> None:
        self.title = headline(self.title)


class Case(msgspec.Struct, kw_only=True):
    """Findings with a possible common root, earliest ``first_step`` first, and the run around them."""

    findings: list[Finding]
    history: History
    facts: dict[str, Any]
    """Merged details of the run's ``facts`` events."""
    events: list[tuple[int, Event]]
    """All other events of the run as (rank, event), in order of time."""
    world_size: int = 1
    role: str = "train"

    @property
    def opening(self) -> Finding:
        """The finding that began first."""
        return self.findings[0]

    def of_kind(self, *kinds: str) -> list[Finding]:
        """The findings of these kinds, in order."""
        return [finding for finding in self.findings if finding.kind in kinds]

    def events_of(self, kind: str) -> list[tuple[int, Event]]:
        """The events of one kind as (rank, event)."""
        return [(rank, event) for rank, event in self.events if event.kind == kind]


class Cause(Protocol):
    """One possible root. ``explains`` are the finding kinds it can be the root of."""

    word: ClassVar[str]
    explains: ClassVar[tuple[str, ...]]
    prior: ClassVar[float]
    """Log-odds before any clue, for a case it explains; 0 is as likely as ``unknown``."""

    def weigh(self, case: Case) -> Opinion | None:
        """The opinion, or ``None`` when the cause cannot be at work here at all."""
        ...
