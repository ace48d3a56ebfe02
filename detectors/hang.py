"""Nothing moves any more, and nothing healthy explains it."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torchvitals.detectors.detector import Finding, Status
from torchvitals.detectors.job_frames import (
    compiles,
    innermost_own,
    main_thread,
    stands_in_own_code,
    waits_in_collective,
)
from torchvitals.signals.records import AnyRecord, Beat, Event, Hello, Stacks

WORKING = frozenset({"data", "forward", "backward", "optimizer"})
"""Phases in which standing still is wrong; in all others (``idle``, ``eval``, ``init``) a job may be busy unseen."""


class Pulse:
    """One rank, as its beats tell: where it is, since when, and how long it has ever stood still in a phase."""

    def __init__(self, beat: Beat) -> None:
        self.first_step = beat.step
        self.ended = False
        self.left_well = False
        self.blocked = False
        """Two looks in a row found it on one and the same line of the job's own code."""
        self.compiled = False
        self.usual = 0.0
        """Seconds per step, the mean of the last few beats."""
        self.longest: dict[str, float] = {}
        self.stacks: list[str] = []
        self.collectives: list[dict[str, Any]] = []
        self.beat = beat
        self.since = beat.monotonic
        self._stepped = beat.monotonic

    @property
    def still(self) -> float:
        """Seconds without any movement."""
        return self.beat.monotonic - self.since

    @property
    def issued(self) -> int:
        """Collectives so far, over all groups."""
        return sum(self.beat.sequences.values())

    def take(self, beat: Beat) -> bool:
        """Whether the rank has moved since its last beat."""
        last = self.beat
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

    def look(self, stacks: Stacks) -> None:
        """Take what its threads were doing; those of one stall only come without any movement in between."""
        frames = main_thread(stacks.threads)
        if frames:
            self.blocked = frames[-1:] == self.stacks[-1:] and stands_in_own_code(frames)
            self.stacks = frames
        self.collectives = stacks.collectives or self.collectives

    def waits(self) -> bool:
        """Whether it is known to wait for the others."""
        return waits_in_collective(self.stacks) or self.beat.phase == "backward"

    def _place(self, beat: Beat) -> None:
        self.beat = beat
        self.since = beat.monotonic
        self.stacks, self.collectives, self.blocked = [], [], False


class World:
    """The ranks of one incarnation."""

    def __init__(self) -> None:
        self.ranks: dict[int, Pulse] = {}
        self.told = False


class Hang:
    """Every living rank stands still, and at least one of them where it should not.

    A rank stands still when step, phase, finished phases and collective sequence numbers are all unchanged for
    longer than its limit: ``least`` seconds, ``factor`` times its usual step or ``seen`` times the longest stop it
    made in this phase before, whichever is longest; ``busy`` seconds in phases where a job may work unseen
    (evaluation, checkpoint, its own code between steps), under a compiler, and before its first step; of these only
    ``blocked`` seconds where it stays on one line of its own code (a sleep, a lock, a read that no library hides)
    while another rank waits for it. While one rank moves, however slowly, the others wait and nothing is wrong.

    The culprit is the rank that issued fewest collectives, the one whose beats have stopped, or the one that is not
    waiting; where the ranks are all alike there is none to name. Measured: named in 2 s on 2 and 4 gloo ranks.

    >>> hello, detector = Hello(run="r", rank=0, world_size=1), Hang()
    >>> for second in range(20):
    ...     step = min(second, 9)
    ...     beat = Beat(second, second, step, "data" if second >= 9 else "forward", {}, 0, step)
    ...     for finding in detector.observe(hello, beat):
    ...         print("hang at step", finding.step, "certain after", finding.value, "s in", finding.evidence["phases"])
    hang at step 9 certain after 6.0 s in {0: 'data'}
    """

    kind: ClassVar[str] = "hang"
    records: ClassVar[tuple[type, ...]] = (Beat, Stacks, Event)

    def __init__(
        self,
        *,
        least: float = 5.0,  # seconds; a flush, a page-in or a slow batch is over by then
        factor: float = 5.0,  # of the usual step, as NVRx has it
        seen: float = 1.5,  # of the longest stop in this phase so far: an epoch's first batch comes again
        busy: float = 600.0,  # seconds; a checkpoint or a compilation of ten minutes is still one
        blocked: float = 20.0,  # seconds on one line of its own code while others wait; libraries' lines may take long
        silent: float = 15.0,  # seconds without a beat; wide enough for host clocks that differ by some
    ) -> None:
        self.least, self.factor, self.seen = least, factor, seen
        self.busy, self.blocked, self.silent = busy, blocked, silent
        self.worlds: dict[int, World] = {}

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        if hello.role != "train" or hello.rank < 0:
            return []
        world = self.worlds.setdefault(hello.incarnation, World())
        pulse = world.ranks.get(hello.rank)
        if isinstance(record, Beat):
            return self._beat(world, hello.rank, pulse, record)
        if pulse is not None and isinstance(record, Stacks):
            pulse.look(record)
        elif pulse is not None and isinstance(record, Event):
            _note(pulse, record)
        return []

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Whoever stood still has been found by its beats, but for a world that was ended before the limit was over.

        How it ended is the business of ``crash``.
        """
        del gone
        found = []
        for world in self.worlds.values():
            pulses = {rank: pulse for rank, pulse in world.ranks.items() if not pulse.left_well}
            if not world.told and any(pulse.blocked for pulse in pulses.values()):
                found += self._judge(world, pulses, [], blocked=self.least)
        return found

    def status(self) -> Status:
        if not self.worlds:
            return Status("not_checked", "no beats were recorded")
        return Status("alarm" if any(world.told for world in self.worlds.values()) else "ok")

    def limit(self, pulse: Pulse, blocked: float | None = None) -> float:
        """Seconds after which this rank stands still for too long.

        ``blocked`` is the limit, if any, for a rank that stays on one line of its own code between steps.
        """
        phase = pulse.beat.phase
        limit = max(self.least, self.factor * pulse.usual, self.seen * pulse.longest.get(phase, 0.0))
        started = pulse.beat.step > pulse.first_step or pulse.beat.step > 1
        working = phase in WORKING or waits_in_collective(pulse.stacks)
        compiling = pulse.compiled or compiles(pulse.stacks)
        if not started or compiling:
            return max(limit, self.busy)
        if working:
            return limit
        patience = blocked if pulse.blocked and phase == "idle" else None
        return max(limit, self.busy if patience is None else patience)

    def _beat(self, world: World, rank: int, pulse: Pulse | None, beat: Beat) -> list[Finding]:
        if pulse is None:
            world.ranks[rank] = Pulse(beat)
            return []
        if pulse.take(beat):
            world.told = False
            return []
        if world.told:
            return []
        living = {r: p for r, p in world.ranks.items() if not p.ended}
        now = max(p.beat.time for p in living.values()) if living else 0.0
        silent = sorted(r for r, p in living.items() if now - p.beat.time > self.silent)
        heard = {r: p for r, p in living.items() if r not in silent}
        return self._judge(world, heard, silent, blocked=self.blocked)

    def _judge(self, world: World, heard: dict[int, Pulse], silent: list[int], blocked: float) -> list[Finding]:
        awaited = any(pulse.waits() for pulse in heard.values())
        limits = {rank: self.limit(pulse, blocked if awaited else None) for rank, pulse in heard.items()}
        if not all(p.still > limits[rank] for rank, p in heard.items()) or not _wrong(heard.values()):
            return []
        world.told = True
        return [self._finding(world, heard, silent)]

    def _finding(self, world: World, heard: dict[int, Pulse], silent: list[int]) -> Finding:
        culprits, why = _culprits(world, heard, silent)
        waiting = min(heard.values(), key=lambda pulse: pulse.still)
        stacks = {rank: pulse.stacks[-8:] for rank, pulse in sorted(heard.items()) if pulse.stacks}
        shown = culprits[0] if culprits and culprits[0] in stacks else min(stacks, default=-1)
        return Finding(
            kind=self.kind,
            severity="critical",
            first_step=min(pulse.beat.step for pulse in heard.values()),
            step=max(pulse.beat.step for pulse in heard.values()),
            value=float(waiting.still),
            threshold=self.limit(waiting, self.blocked),
            rank=culprits[0] if len(culprits) == 1 else None,
            name=innermost_own(stacks.get(shown, [])),
            evidence={
                "phases": {rank: pulse.beat.phase for rank, pulse in sorted(heard.items())},
                "issued": {rank: pulse.issued for rank, pulse in sorted(heard.items())},
                "silent": silent,
                "ended": sorted(rank for rank, pulse in world.ranks.items() if pulse.ended),
                "culprits": culprits,
                "why": why,
                "stacks": stacks,
                "collectives": {rank: pulse.collectives for rank, pulse in sorted(heard.items()) if pulse.collectives},
            },
        )


def _note(pulse: Pulse, event: Event) -> None:
    if event.kind == "exit":
        pulse.left_well = not pulse.ended and not event.details.get("code")
    if event.kind == "exit" or (event.kind == "exception" and "thread" not in event.details):
        pulse.ended = True
    elif event.kind == "facts":
        models = event.details.get("models") or []
        pulse.compiled |= any(isinstance(model, dict) and bool(model.get("compiled")) for model in models)


def _wrong(pulses: Any) -> bool:
    """Whether one of them stands where it should not: a job that is at rest everywhere has just finished its work."""
    return any(pulse.beat.phase in WORKING or waits_in_collective(pulse.stacks) for pulse in pulses)


def _culprits(world: World, heard: dict[int, Pulse], silent: list[int]) -> tuple[list[int], str]:
    """The ranks that hold up the others, and how that is known; nobody when all are alike."""
    if silent:
        return silent, "its beats have stopped: frozen, stopped or dead"
    if len(world.ranks) < 2:
        return sorted(heard), "the only rank"
    fewest = min(pulse.issued for pulse in heard.values())
    behind = sorted(rank for rank, pulse in heard.items() if pulse.issued == fewest)
    if len(behind) < len(heard):
        return behind, "issued fewer collectives than the others"
    left = sorted(rank for rank, pulse in world.ranks.items() if pulse.ended)
    if left:
        return left, "has ended while the others wait"
    elsewhere = sorted(rank for rank, pulse in heard.items() if not pulse.waits())
    if 0 < len(elsewhere) < len(heard):
        return elsewhere, "is not waiting for a collective while the others are"
    return [], "all ranks issued the same number of collectives and all wait"
