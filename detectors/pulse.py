"""One rank as its beats, its stacks and the launcher tell of it: where it stands, since when, and what it waits for."""

from typing import Any

from torchvitals.detectors.job_frames import main_thread, saves, stands_in_own_code, waits_in_collective
from torchvitals.signals.records import Beat, Event, Stacks

WORKING = frozenset({"data", "forward", "backward", "optimizer"})
"""Phases in which standing still is wrong; in all others (``idle``, ``eval``, ``init``) a job may be busy unseen."""
AT_REST = 0.05
"""CPU seconds per second below which nothing is computed: our own thread takes 0.002, a training thread 0.5 to 1."""
LOOKS, LOOKS_AT_WORK = 2, 4
"""Looks, three seconds apart, that must show one and the same line: a computation moves from line to line."""
OBSERVED = 2.0
"""A listener that says nothing for longer than this many seconds hears nothing either (a suspended machine)."""


LISTENERS = 2
"""Ranks besides the launcher by whose beats the silence of the others is measured; two, since one may be silent."""


class Ear:
    """Somebody who speaks once a second and so knows how long others have been silent: time as one process felt it.

    Clocks of other hosts are never compared: silence is counted in beats of somebody who did speak.
    """

    def __init__(self) -> None:
        self.felt = 0.0
        self._last: float | None = None

    def hear(self, monotonic: float) -> None:
        """It speaks itself."""
        if self._last is not None:
            self.felt += min(max(0.0, monotonic - self._last), OBSERVED)
        self._last = monotonic


class Pulse:
    """One rank, as its beats tell: where it is, since when, and how long it has ever stood still in a phase."""

    def __init__(self, beat: Beat, ears: dict[Any, Ear]) -> None:
        self.first_step = beat.step
        self.done = 0
        """Steps recorded: newer than the last beat where the beats have stopped."""
        self.ended = False
        self.left_well = False
        self.failed = False
        """It ended badly; what that brings about is a matter of its crash."""
        self.blocked = False
        """All looks found it on one and the same line of the job's own code, and it saves no checkpoint there."""
        self._looks = 0
        self.deadlocked = False
        """It waits without a limit for a thread, no thread does anything, and no process of it computes."""
        self.endless = False
        """It is in a loop of its own code that has no way out."""
        self.resting = False
        """It does nothing, on one and the same line of whosever code, and saves no checkpoint there."""
        self.killed = False
        """It was ended from outside."""
        self.compiled = False
        self.usual = 0.0
        """Seconds per step, the mean of the last few beats."""
        self.longest: dict[str, float] = {}
        self.stacks: list[str] = []
        self.workers: dict[str, list[str]] = {}
        self.collectives: list[dict[str, Any]] = []
        self.unheard: dict[str, Any] = {}
        """What the launcher saw of it while it was silent."""
        self.beat = beat
        self.since = beat.monotonic
        self._stepped = self.heard_before = beat.monotonic
        self._heard = {who: ear.felt for who, ear in ears.items()}

    @property
    def still(self) -> float:
        """Seconds without any movement."""
        return self.beat.monotonic - self.since

    @property
    def step(self) -> int:
        """The step in progress."""
        return max(self.beat.step, self.done)

    @property
    def issued(self) -> int:
        """Collectives so far, over all groups."""
        return sum(self.beat.sequences.values())

    @property
    def started(self) -> bool:
        """Whether it has taken a step of its own."""
        return self.beat.step > self.first_step or self.beat.step > 1

    def take(self, beat: Beat, ears: dict[Any, Ear]) -> bool:
        """Whether the rank has moved since its last beat."""
        last = self.beat
        self.heard_before = last.monotonic
        self._heard = {who: ear.felt for who, ear in ears.items()}
        self.unheard = {}
        if beat.step > last.step:
            seconds = (beat.monotonic - self._stepped) / (beat.step - last.step)
            self.usual = seconds if not self.usual else 0.7 * self.usual + 0.3 * seconds
            self._stepped = beat.monotonic
        moved = (beat.step, beat.activity, beat.sequences) != (last.step, last.activity, last.sequences)
        if moved or beat.phase != last.phase:
            self.longest[last.phase] = max(self.longest.get(last.phase, 0.0), beat.monotonic - self.since)
            self._place(beat)
            return True
        self.beat = beat
        return False

    def silence(self, ears: dict[Any, Ear]) -> float:
        """Seconds that others have felt since its last beat."""
        return max((ear.felt - self._heard.get(who, ear.felt) for who, ear in ears.items()), default=0.0)

    def look(self, stacks: Stacks) -> None:
        """Take what its threads were doing; those of one stall only come without any movement in between."""
        frames = main_thread(stacks.threads)
        if frames:
            same = frames[-1:] == self.stacks[-1:]
            self._looks = self._looks + 1 if same else 1
            enough = LOOKS_AT_WORK if stacks.cpu >= AT_REST else LOOKS
            self.blocked = self._looks >= enough and stands_in_own_code(frames) and not saves(frames)
            at_rest = 0.0 <= stacks.cpu < AT_REST
            self.deadlocked = bool(stacks.waits) and at_rest
            self.resting = self._looks >= LOOKS and at_rest and not saves(frames)
            self.endless = bool(stacks.endless)
            self.stacks = frames
        self.workers = {n: f for n, f in stacks.threads.items() if n.startswith("worker ")} or self.workers
        self.collectives = stacks.collectives or self.collectives

    def note(self, event: Event) -> None:
        """Take what it says of its end and of its models."""
        if event.kind == "exit":
            self.left_well = not self.ended and not event.details.get("code")
            self.failed |= bool(event.details.get("code"))
        if event.kind == "exception" and "thread" not in event.details:
            self.failed = True
        if event.kind == "exit" or (event.kind == "exception" and "thread" not in event.details):
            self.ended = True
        elif event.kind == "facts":
            models = event.details.get("models") or []
            self.compiled |= any(isinstance(model, dict) and bool(model.get("compiled")) for model in models)

    def waits(self) -> bool:
        """Whether it is known to wait for the others."""
        return waits_in_collective(self.stacks) or self.beat.phase == "backward"

    def _place(self, beat: Beat) -> None:
        self.beat = beat
        self.since = beat.monotonic
        self.stacks, self.collectives, self.workers = [], [], {}
        self.blocked = self.deadlocked = self.endless = self.resting = False
        self._looks = 0


class World:
    """The ranks of one incarnation."""

    def __init__(self) -> None:
        self.ranks: dict[int, Pulse] = {}
        self.hosts: dict[int, str] = {}
        self.pids: dict[int, int] = {}
        self.ears: dict[Any, Ear] = {}
        """By rank; by host and process for launchers, of which each host has one."""
        self.told = False
        self.size = 1

    @property
    def living(self) -> dict[int, Pulse]:
        """The ranks that have not ended."""
        return {rank: pulse for rank, pulse in self.ranks.items() if not pulse.ended}

    def hear(self, who: int | tuple[str, int], monotonic: float) -> None:
        """``who`` speaks; a few are listened to for the sake of time."""
        if who not in self.ears and len(self.ears) <= LISTENERS:
            self.ears[who] = Ear()
        if who in self.ears:
            self.ears[who].hear(monotonic)
