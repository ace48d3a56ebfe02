"""What only a rank among others has to tell after a step: its arrivals, and what its BatchNorm remembers."""

from collections.abc import Callable, Iterable

from torchvitals.hooks import running_statistics
from torchvitals.hooks.arrivals import ArrivalTimes
from torchvitals.hooks.discovery import Model
from torchvitals.hooks.recorder import Recorder
from torchvitals.hooks.running_statistics import RunningStatistics


class RankProbes:
    """Both, each under the fuse.

    Args:
        recorder: where the records go.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._arrivals = arrivals = ArrivalTimes(recorder)
        self.close = recorder.fuse.guard("arrivals", arrivals.close)
        """The job ends."""
        self._probes: list[Callable[[int], None]] = [recorder.fuse.guard("arrivals", arrivals.step)]

    def begin(self, models: Iterable[Model]) -> None:
        """Other ranks hold copies of ``models``."""
        self._probes.append(self._recorder.fuse.guard("statistics", RunningStatistics(self._recorder, models).step))

    def due(self, step: int) -> bool:
        """Whether one of them may look after ``step``."""
        return step % running_statistics.EVERY == 0 or step % self._arrivals.every == 0

    def step(self, step: int) -> None:
        """``step`` has been made; called after each."""
        if not step:
            return  # what there is after the first is there as well before it
        for probe in self._probes:
            probe(step)
