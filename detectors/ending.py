"""How one process ended, by its own word or as others saw it."""

from collections.abc import Sequence

from torchvitals.detectors.job_frames import innermost_own
from torchvitals.detectors.worker_death import how_worker_died
from torchvitals.signals.records import Event, Hello

INTERRUPTS = frozenset({"KeyboardInterrupt"})
VICTIM_WORDS = (
    "connection closed by peer", "connection reset by peer", "broken pipe", "remote process exited",
    "connection was likely closed", "socket timeout", "timed out waiting", "connection refused",
    "application timeout caused pair closure", "watchdog caught collective",
)  # fmt: skip
"""What torch says on a rank whose peer has died: gloo, TCPStore and NCCL wordings."""
SUPERVISORS = frozenset({"ChildFailedError", "ProcessRaisedException", "ProcessExitedException"})
"""With these a parent (torchrun, ``mp.spawn``) reports how its children ended."""
SIGINT = 2
WAITED = frozenset({"Empty", "Full", "TimeoutError", "BrokenBarrierError"})
"""What is raised by one who has waited for another thread in vain."""


class Ending:
    """One process and how it ended, as far as it said."""

    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self.seen = hello.started
        self.step = 0
        self.exception: Event | None = None
        self.thread: Event | None = None
        """The first exception that ended another thread than the main one."""
        self.exit: Event | None = None
        self.gone = False
        self.vanished: Event | None = None
        """The launcher saw that it is there no more."""
        self.place: tuple[int, int, str] = (0, 0, "")
        """Step, activity and phase of its last beat, and since when it is there."""
        self.since = hello.started

    @property
    def code(self) -> int:
        """The exit code it told; 0 when it told none."""
        return int(self.exit.details.get("code") or 0) if self.exit else 0

    @property
    def failed(self) -> bool:
        """Whether it said that it failed."""
        return self.exception is not None or self.code != 0

    @property
    def origin(self) -> Event | None:
        """Its exception, or that of the thread for which it then waited in vain."""
        told = self.exception
        waited = told is not None and told.details.get("type") in WAITED
        return self.thread if waited and self.thread is not None else told

    @property
    def lost(self) -> bool:
        """Whether it was seen to be gone without having said a word."""
        return self.vanished is not None and self.exit is None and self.exception is None

    @property
    def over(self) -> bool:
        """Whether it is known to have ended, by its own word or not."""
        return self.exit is not None or self.vanished is not None

    @property
    def supervisor(self) -> bool:
        """Whether it only reports the death of its children."""
        return self.exception is not None and self.exception.details.get("type") in SUPERVISORS

    @property
    def interrupted(self) -> bool:
        """Whether somebody stopped it on purpose."""
        kind = self.exception.details.get("type") if self.exception else ""
        return kind in INTERRUPTS or self.code == 128 + SIGINT

    @property
    def time(self) -> float:
        """When it failed; of one that said nothing, when it was last heard."""
        told = self.exception or self.exit
        return told.time if told else self.seen

    @property
    def victim(self) -> bool:
        """Whether its exception is what a rank meets whose peer has died."""
        if self.exception is None or how_worker_died(self.exception.details):
            return False
        message = f"{self.exception.details.get('message', '')} {self.exception.details.get('cause', '')}".lower()
        return any(word in message for word in VICTIM_WORDS)


def known_at(ending: Ending) -> float:
    """When it failed, or was seen to be gone."""
    return ending.vanished.time if ending.lost and ending.vanished else ending.time


def earliest(guilty: Sequence[Ending], lost: Sequence[Ending]) -> Ending | None:
    """The one that went first; what somebody said of himself counts where the order is not certain."""
    spoken = min(guilty, key=lambda ending: ending.time, default=None)
    silent = min(lost, key=known_at, default=None)
    if spoken is None or silent is None:
        return spoken or silent
    return silent if known_at(silent) <= spoken.time else spoken


def same_exception(first: Ending, other: Ending) -> bool:
    """Whether both raised the same in the same place: an error in the code, of which no rank is guilty."""
    if first.exception is None or other.exception is None:
        return False
    if first.victim != other.victim:  # it only met the end of the other's connection, in the same call
        return False
    one, two = first.exception, other.exception
    return (one.details.get("type"), one.step, place_of(first)) == (two.details.get("type"), two.step, place_of(other))


def frames_of(root: Ending) -> list[str]:
    """The frames of its exception; of one that a fatal signal ended those in which it did."""
    told = root.origin or (root.vanished if root.exit is None else None)
    return [str(frame) for frame in told.details.get("frames", ())] if told else []


def place_of(root: Ending) -> str:
    """``file:line`` of the job's own innermost frame: of the exception, of the ``sys.exit``, of the fatal signal."""
    if frames := frames_of(root):
        return innermost_own(frames) or frames[-1].rpartition(" ")[0].rpartition("/")[2]
    line = str(root.exit.details.get("line", "")) if root.exit else ""
    return innermost_own([line]) if line else ""
