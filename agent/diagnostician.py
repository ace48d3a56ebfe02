"""What the agent asks of an engine; :class:`torchvitals.agent.run_state.RunState` answers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from torchvitals.agent.engine import NotChecked
from torchvitals.agent.incident import Incident
from torchvitals.signals.reader import Entry
from torchvitals.signals.records import Hello


class Diagnostician(Protocol):
    """What the engine is to the agent: records in, changed incidents out (``agent/run_state.py``)."""

    @property
    def absorbed(self) -> Mapping[str, str]: ...

    def feed(self, entries: Iterable[Entry]) -> Sequence[Incident]: ...

    def ended(self, hello: Hello) -> Sequence[Incident]: ...

    def finish(self, gone: Sequence[Hello]) -> Sequence[Incident]: ...

    def checked(self) -> Sequence[str]: ...

    def not_checked(self) -> Sequence[NotChecked]: ...
