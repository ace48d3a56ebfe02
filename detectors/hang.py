"""Nothing moves any more, and nothing healthy explains it."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torchvitals.detectors import stack_groups
from torchvitals.detectors.detector import Finding, Status
from torchvitals.detectors.job_frames import compiles, innermost_own, waits_in_collective
from torchvitals.detectors.pulse import AT_REST, WORKING, Pulse, World
from torchvitals.signals.records import LAUNCHER_RANK, AnyRecord, Beat, Event, Hello, Stacks, Step

DEVICE_WAIT = "D"
STOPPED = ("T", "t")
RUNNABLE = "R"


class Hang:
    """Every living rank stands still, and at least one of them where it should not.

    A rank stands still when step, phase, finished phases and collective sequence numbers are all unchanged for
    longer than its limit: ``least`` seconds, ``factor`` times its usual step or ``seen`` times the longest stop it
    made in this phase before, whichever is longest; ``busy`` seconds in phases where a job may work unseen
    (evaluation, checkpoint, its own code between steps), under a compiler, and before its first step; of these only
    ``blocked`` seconds where it stays on one line of its own code (a sleep, a read that no library hides) while
    another rank waits for it, and no more than elsewhere where it waits for a thread and none of its threads and
    processes does anything, or is in a loop that cannot end. While one rank moves, however slowly, the others wait
    and nothing is wrong.

    A rank that does not even beat is silent: stopped, or held by native code that keeps the interpreter's lock.

    The culprit is the rank that issued fewest collectives, the one whose beats have stopped, or the one that is not
    waiting; where the ranks are all alike there is none to name. Measured: named in 2 s on 2 and 4 gloo ranks.

    >>> hello, detector = Hello(run="r", rank=0, world_size=1), Hang()
    >>> for second in range(20):
    ...     step = min(second, 9)
    ...     beat = Beat(second, second, step, "data" if second >= 9 else "forward", {}, 0, step)
    ...     for finding in detector.observe(hello, beat):
    ...         print("hang at step", finding.step, "certain after", finding.value, "s in", finding.evidence["phases"])
    hang at step 9 certain after 5.0 s in {0: 'data'}
    """

    kind: ClassVar[str] = "hang"
    records: ClassVar[tuple[type, ...]] = (Step, Beat, Stacks, Event)

    def __init__(
        self,
        *,
        least: float = 3.4,  # seconds; beats show a stop up to one late, then come each half: told within five
        factor: float = 4.7,  # of the usual step; NVRx has 5 times, of which the beats take their share
        seen: float = 1.5,  # of the longest stop in this phase so far: an epoch's first batch comes again
        busy: float = 600.0,  # seconds; a checkpoint or a compilation of ten minutes is still one
        blocked: float = 20.0,  # seconds on one line of its own code while others wait; libraries' lines may take long
        loading: float = 120.0,  # seconds for the first batch of an epoch: shuffling, opening shards, starting workers
        starting: float = 60.0,  # seconds in which no rank does anything but wait for the others before its first step
        silent: float = 15.0,  # seconds without a beat, of a rank that nobody can see from outside
    ) -> None:
        self.least, self.factor, self.seen = least, factor, seen
        self.busy, self.blocked, self.silent = busy, blocked, silent
        self.loading, self.starting = loading, starting
        self.worlds: dict[int, World] = {}

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        if hello.rank == LAUNCHER_RANK:
            return self._launcher(hello, record)
        if hello.role != "train":
            return []
        world = self.worlds.setdefault(hello.incarnation, World())
        world.size = max(world.size, hello.world_size)
        world.hosts[hello.rank], world.pids[hello.rank] = hello.host, hello.pid
        pulse = world.ranks.get(hello.rank)
        if isinstance(record, Step):
            if pulse is not None and record.counts:
                pulse.done = record.step + 1
            return []
        if isinstance(record, Beat):
            return self._beat(world, hello.rank, pulse, record)
        if pulse is not None and isinstance(record, Stacks):
            pulse.look(record)
        elif pulse is not None and isinstance(record, Event):
            pulse.note(record)
        return []

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Whoever stood still has been found by its beats, but for a world that was ended before the limit was over.

        How it ended is the business of ``crash``.
        """
        found = []
        for hello in gone:
            self._was_killed(hello.incarnation, hello.rank)
        for world in self.worlds.values():
            pulses = {rank: pulse for rank, pulse in world.ranks.items() if not pulse.left_well}
            if not world.told and any(pulse.blocked for pulse in pulses.values()):
                found += self._judge(world, pulses, {}, blocked=self.least)
            if not world.told and pulses and all(map(self._killed_at_rest, pulses.values())):
                world.told = True
                found.append(self._finding(world, pulses, {}, threshold=self.blocked))
        return found

    def _was_killed(self, incarnation: int, rank: int) -> None:
        world = self.worlds.get(incarnation)
        pulse = world.ranks.get(rank) if world is not None else None
        if pulse is not None:
            pulse.killed |= not pulse.ended

    def _killed_at_rest(self, pulse: Pulse) -> bool:
        """Whether somebody ended it while it did nothing, for longer than ever: it was not meant to rest there."""
        limit = max(self.blocked, self.factor * pulse.usual, self.seen * pulse.longest.get(pulse.beat.phase, 0.0))
        return pulse.killed and pulse.started and pulse.resting and pulse.still > limit

    def status(self) -> Status:
        if not self.worlds:
            return Status("not_checked", "no beats were recorded")
        return Status("alarm" if any(world.told for world in self.worlds.values()) else "ok")

    def limit(self, pulse: Pulse, blocked: float | None = None, *, waiting: bool = False) -> float:
        """Seconds after which this rank stands still for too long.

        ``blocked`` is the limit, if any, for a rank that stays on one line of its own code between steps;
        ``waiting`` says that every rank waits for others.
        """
        phase = pulse.beat.phase
        limit = max(self.least, self.factor * pulse.usual, self.seen * pulse.longest.get(phase, 0.0))
        if compiles(pulse.stacks) or (pulse.compiled and not pulse.stacks):
            return max(limit, self.busy)
        if not pulse.started:
            return max(limit, self.starting if waiting else self.busy)
        if phase in WORKING or waits_in_collective(pulse.stacks) or pulse.deadlocked or pulse.endless:
            return limit
        if phase == "load":
            return max(limit, self.loading)
        patience = blocked if pulse.blocked and phase == "idle" else None
        return max(limit, self.busy if patience is None else patience)

    def _launcher(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        if isinstance(record, Event):
            self._seen_from_outside(record)
        if not isinstance(record, Beat):
            return []
        found = []
        for world in self.worlds.values():
            world.hear((hello.host, hello.pid), record.monotonic)
            if not world.told and any(self._is_silent(world, pulse) for pulse in world.living.values()):
                found += self._look_round(world)
        return found

    def _seen_from_outside(self, event: Event) -> None:
        rank, pid = event.details.get("rank"), event.details.get("pid")
        for world in self.worlds.values():
            pulse = world.ranks.get(rank) if world.pids.get(rank) == pid else None  # type: ignore[arg-type]
            if pulse is None:
                continue
            if event.kind == "unheard":
                pulse.unheard = event.details
            elif event.kind == "process_gone":
                pulse.killed |= not pulse.ended
                pulse.failed |= not pulse.ended
                pulse.ended = True

    def _beat(self, world: World, rank: int, pulse: Pulse | None, beat: Beat) -> list[Finding]:
        world.hear(rank, beat.monotonic)
        if pulse is None:
            world.ranks[rank] = Pulse(beat, world.ears)
            return []
        still, step = pulse.still, pulse.step
        if pulse.take(beat, world.ears):
            known, world.told = world.told, False
            seconds = still + beat.monotonic - pulse.heard_before
            return [self._over(rank, step, seconds)] if known and not pulse.ended else []
        return [] if world.told else self._look_round(world)

    def _over(self, rank: int, step: int, seconds: float) -> Finding:
        """A standstill that was told has ended by itself."""
        evidence = {"resumed": True, "seconds": seconds, "groups": []}
        return Finding(
            kind=self.kind, severity="info", first_step=step, step=step, value=seconds, threshold=self.least,
            rank=rank, evidence=evidence,
        )  # fmt: skip

    def _is_silent(self, world: World, pulse: Pulse) -> bool:
        """Whether it has not beaten for too long, given where it was and what the launcher saw of it."""
        silence = pulse.silence(world.ears)
        state, cpu = pulse.unheard.get("state"), pulse.unheard.get("cpu_seconds")
        if state is None:
            return silence > self.silent
        share = 1.0 if cpu is None else cpu / max(1.0, pulse.unheard.get("seconds") or 0.0)
        at_rest = share < AT_REST and state != RUNNABLE
        if state == RUNNABLE:  # it wants to go on: on a crowded machine it has lived through its share of that time
            silence *= min(1.0, share)
        if state in STOPPED or (at_rest and state != DEVICE_WAIT) or pulse.beat.phase in WORKING:
            return silence > max(self.least, self.factor * pulse.usual)
        return silence > self.blocked

    def _look_round(self, world: World) -> list[Finding]:
        silent = {rank: pulse for rank, pulse in world.living.items() if self._is_silent(world, pulse)}
        heard = {rank: pulse for rank, pulse in world.living.items() if rank not in silent}
        return self._judge(world, heard, silent, blocked=self.blocked)

    def _judge(self, world: World, heard: dict[int, Pulse], silent: dict[int, Pulse], blocked: float) -> list[Finding]:
        if any(pulse.failed for pulse in world.ranks.values()):
            return []
        awaited = any(pulse.waits() for pulse in heard.values())
        waiting = all(waits_in_collective(pulse.stacks) for pulse in heard.values())
        limits = {r: self.limit(p, blocked if awaited else None, waiting=waiting) for r, p in heard.items()}
        if not all(p.still > limits[rank] for rank, p in heard.items()):
            return []
        if not (silent or _wrong(heard.values())):
            return []
        world.told = True
        newest = min(heard.values(), key=lambda pulse: pulse.still, default=None)
        threshold = self.limit(newest, self.blocked) if newest is not None else self.least
        return [self._finding(world, heard, silent, threshold)]

    def _finding(self, world: World, heard: dict[int, Pulse], silent: dict[int, Pulse], threshold: float) -> Finding:
        culprits, why = _culprits(world, heard, list(silent))
        everybody = {**heard, **silent}
        waiting = min(heard.values() or silent.values(), key=lambda pulse: pulse.still)
        stacks = {rank: pulse.stacks for rank, pulse in sorted(everybody.items()) if pulse.stacks}
        ranks = {rank: stack_groups.doing(pulse) for rank, pulse in heard.items()}
        ranks |= {rank: stack_groups.silence(p.silence(world.ears), p.unheard) for rank, p in silent.items()}
        groups = stack_groups.grouped(ranks, stacks)
        shown = culprits[0] if culprits else min(stacks, default=-1)
        return Finding(
            kind=self.kind,
            severity="critical",
            first_step=min(pulse.step for pulse in everybody.values()),
            step=max(pulse.step for pulse in everybody.values()),
            value=float(max([waiting.still, *(pulse.silence(world.ears) for pulse in silent.values())])),
            threshold=threshold,
            rank=culprits[0] if len(culprits) == 1 else None,
            name=(ranks[shown].where if shown in ranks else "") or innermost_own(stacks.get(shown, [])),
            evidence={
                "phases": {rank: pulse.beat.phase for rank, pulse in sorted(everybody.items())},
                "issued": {rank: pulse.issued for rank, pulse in sorted(everybody.items())},
                "steps": {rank: pulse.step for rank, pulse in sorted(world.ranks.items())},
                "silent": sorted(silent),
                "unheard": {rank: pulse.unheard for rank, pulse in sorted(silent.items()) if pulse.unheard},
                "ended": sorted(rank for rank, pulse in world.ranks.items() if pulse.ended),
                "absent": sorted(set(range(world.size)) - set(world.ranks))[:64],
                "culprits": culprits,
                "why": why,
                "groups": groups,
                "sentence": stack_groups.sentence(ranks, groups),
                "stacks": {rank: frames[-8:] for rank, frames in stacks.items()},
                "deadlocked": sorted(rank for rank, pulse in heard.items() if pulse.deadlocked),
                "endless": sorted(rank for rank, pulse in heard.items() if pulse.endless),
                "collectives": {rank: pulse.collectives for rank, pulse in sorted(heard.items()) if pulse.collectives},
            },
        )


def _wrong(pulses: Any) -> bool:
    """Whether one of them stands where it should not: a job that is at rest everywhere has just finished its work."""
    return any(
        pulse.beat.phase in (*WORKING, "load") or waits_in_collective(pulse.stacks) or pulse.deadlocked or pulse.endless
        for pulse in pulses
    )


def _culprits(world: World, heard: dict[int, Pulse], silent: list[int]) -> tuple[list[int], str]:
    """The ranks that hold up the others, and how that is known; nobody when all are alike."""
    if silent:
        return sorted(silent), "its beats have stopped: frozen, stopped or dead"
    absent = sorted(set(range(world.size)) - set(world.ranks))
    if absent and all(not pulse.started for pulse in heard.values()):
        return absent, "has not come to the job's process group"
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
