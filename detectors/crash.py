"""A process ended as no healthy one does: once per run, with the rank that went first."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torchvitals.detectors.detector import Finding, Status
from torchvitals.detectors.job_frames import innermost_own
from torchvitals.signals.records import LAUNCHER_RANK, AnyRecord, Beat, Event, Hello, Step

INTERRUPTS = frozenset({"KeyboardInterrupt"})
VICTIM_WORDS = (
    "connection closed by peer", "connection reset by peer", "broken pipe", "remote process exited",
    "connection was likely closed", "socket timeout", "timed out waiting", "connection refused",
    "application timeout caused pair closure", "watchdog caught collective",
)  # fmt: skip
"""What torch says on a rank whose peer has died: gloo, TCPStore and NCCL wordings."""
SUPERVISORS = frozenset({"ChildFailedError", "ProcessRaisedException", "ProcessExitedException"})
"""With these a parent (torchrun, ``mp.spawn``) reports how its children ended."""
USAGE = 2
"""Exit code for wrong arguments (argparse, getopt, bash)."""
SIGINT, SIGKILL, SIGTERM = 2, 9, 15
NAMES = {"SIGINT": SIGINT, "SIGKILL": SIGKILL, "SIGTERM": SIGTERM, "SIGABRT": 6, "SIGSEGV": 11, "SIGBUS": 7}


class Ending:
    """One process and how it ended, as far as it said."""

    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self.seen = hello.started
        self.step = 0
        self.exception: Event | None = None
        self.exit: Event | None = None
        self.gone = False

    @property
    def code(self) -> int:
        """The exit code it told; 0 when it told none."""
        return int(self.exit.details.get("code") or 0) if self.exit else 0

    @property
    def failed(self) -> bool:
        """Whether it said that it failed."""
        return self.exception is not None or self.code != 0

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
        if self.exception is None:
            return False
        message = f"{self.exception.details.get('message', '')} {self.exception.details.get('cause', '')}".lower()
        return any(word in message for word in VICTIM_WORDS)


class Crash:
    """An uncaught exception, an exit code that is not 0, or a process that is gone without a word.

    One finding per incarnation: the first rank by time that is not merely the victim of another's death. An exception
    is told as soon as all ranks have ended or ``settle`` seconds of later records have come; what died without a word
    when the run is over. Ctrl-C, ``sys.exit(0)`` and a launcher that ended with 0 are no crash; a run that was told to
    end (SIGTERM) is one of severity ``info``.

    torchrun's own rule (earliest time stamp) is right for exceptions; it has no file for SIGKILL and ``sys.exit(3)``.

    >>> detector, hello = Crash(), Hello(run="r", rank=0, world_size=1, pid=7)
    >>> details = {"type": "IndexError", "message": "7", "frames": ["/job/train.py:88 collate"]}
    >>> for record in (Step(41, 9.0, {}), Event(9.5, 42, "exception", details), Event(9.6, 42, "exit", {"code": 1})):
    ...     for finding in detector.observe(hello, record):
    ...         print(finding.evidence["type"], "at step", finding.step, "in", finding.name)
    IndexError at step 42 in train.py:88
    """

    kind: ClassVar[str] = "crash"
    records: ClassVar[tuple[type, ...]] = (Step, Beat, Event)

    def __init__(
        self,
        *,
        settle: float = 2.0,  # seconds; the others notice a dead peer within a second
        tie: float = 1.5,  # seconds between beats and a little: deaths without a word closer than this have no order
    ) -> None:
        self.settle, self.tie = settle, tie
        self.processes: dict[tuple[int, int, int], Ending] = {}
        self.command: Event | None = None
        self.told: set[int] = set()
        """Incarnations whose crash was told."""

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        if hello.rank == LAUNCHER_RANK:
            if isinstance(record, Event) and record.kind == "command_exit":
                self.command = record
            return []
        ending = self._ending(hello)
        ending.seen = max(ending.seen, getattr(record, "time", 0.0))
        if isinstance(record, Step | Beat):
            ending.step = max(ending.step, record.step + isinstance(record, Step))
        elif isinstance(record, Event):
            self._note(ending, record)
        return self._tell(hello.incarnation, ending.seen)

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        for hello in gone:
            if hello.rank != LAUNCHER_RANK:
                self._ending(hello).gone = True
        found = []
        for incarnation in sorted({key[0] for key in self.processes}):
            found += self._conclude(incarnation)
        if not self.processes and self._command_failed() and not self._misused():
            found.append(self._untrained())
        return found

    def status(self) -> Status:
        if not self.processes and self.command is None:
            return Status("not_checked", "no process has said anything")
        return Status("alarm" if self.told else "ok")

    def _ending(self, hello: Hello) -> Ending:
        key = (hello.incarnation, hello.rank, hello.pid)
        if key not in self.processes:
            self.processes[key] = Ending(hello)
        return self.processes[key]

    def _note(self, ending: Ending, event: Event) -> None:
        if event.kind == "exception" and "thread" not in event.details:
            ending.exception = event
        elif event.kind == "exit":
            ending.exit = event

    def _of(self, incarnation: int) -> list[Ending]:
        found = [ending for key, ending in self.processes.items() if key[0] == incarnation]
        return [ending for ending in found if not ending.supervisor] or found

    def _tell(self, incarnation: int, now: float) -> list[Finding]:
        """The crash of a world whose failing ranks have spoken, once no earlier one can be expected."""
        endings = self._of(incarnation)
        failed = [ending for ending in endings if ending.failed]
        if incarnation in self.told or not failed or any(ending.interrupted for ending in failed):
            return []
        world = max(ending.hello.world_size for ending in endings)
        all_ended = sum(ending.exit is not None for ending in endings) >= world
        settled = now > min(ending.time for ending in failed) + self.settle
        if not (all_ended or settled):
            return []
        guilty = [ending for ending in failed if not ending.victim]
        if not guilty and not all_ended:
            return []  # their peer died without a word: only the end of the run tells who is missing
        return [self._finding(incarnation, min(guilty or failed, key=lambda ending: ending.time))]

    def _conclude(self, incarnation: int) -> list[Finding]:
        endings = self._of(incarnation)
        failed = [ending for ending in endings if ending.failed]
        if incarnation in self.told or any(ending.interrupted for ending in failed) or self._stopped_by_hand():
            return []
        guilty = [ending for ending in failed if not ending.victim]
        if guilty:
            return [self._finding(incarnation, min(guilty, key=lambda ending: ending.time))]
        lost = sorted((e for e in endings if e.gone and e.exit is None), key=lambda ending: ending.time)
        if lost and (failed or not self._command_well()):
            alone = len(lost) == 1 or lost[1].time - lost[0].time > self.tie
            return [self._finding(incarnation, lost[0], alone=alone, lost=lost)]
        if failed:
            return [self._finding(incarnation, min(failed, key=lambda ending: ending.time))]
        last = incarnation == max(key[0] for key in self.processes)
        if last and self._command_failed():
            return [self._finding(incarnation, max(endings, key=lambda ending: ending.seen), alone=len(endings) == 1)]
        return []

    def _signal(self) -> int | None:
        """The signal that ended the command, or by which somebody asked it to end, as a number."""
        told = (self.command.details.get("stopped_by") or self.command.details.get("signal")) if self.command else None
        if isinstance(told, str):
            return NAMES.get(told)
        if told:
            return abs(int(told))
        code = int(self.command.details.get("code") or 0) if self.command else 0
        return -code if code < 0 else code - 128 if code in (128 + SIGINT, 128 + SIGKILL, 128 + SIGTERM) else None

    def _command_failed(self) -> bool:
        return self.command is not None and bool(self.command.details.get("code")) and not self._stopped_by_hand()

    def _misused(self) -> bool:
        """Whether the command rejected its own arguments, as argparse and shells say by code 2, and never began."""
        return self.command is not None and self.command.details.get("code") == USAGE

    def _command_well(self) -> bool:
        """Whether the launcher saw the command end with 0: whoever is gone was meant to go."""
        return self.command is not None and not self._command_failed()

    def _stopped_by_hand(self) -> bool:
        return self._signal() == SIGINT

    def _finding(self, incarnation: int, root: Ending, *, alone: bool = True, lost: Sequence[Ending] = ()) -> Finding:
        self.told.add(incarnation)
        told = root.exception or root.exit
        step = told.step if told else root.step
        evidence = self._evidence(incarnation, root, lost)
        asked_to_end = not root.failed and evidence["signal"] == SIGTERM
        return Finding(
            kind=self.kind,
            severity="info" if asked_to_end else "critical",
            first_step=step,
            step=step,
            value=float(root.code or evidence["exit_code"] or 1),
            threshold=0.0,
            rank=root.hello.rank if alone else None,
            name=_place(root),
            evidence=evidence,
        )

    def _evidence(self, incarnation: int, root: Ending, lost: Sequence[Ending]) -> dict[str, Any]:
        command = self.command.details if self.command else {}
        said = root.exception.details if root.exception else {}
        others = [e for e in self._of(incarnation) if e is not root]
        return {
            "type": said.get("type", ""),
            "message": str(said.get("message", ""))[:1000],
            "cause": said.get("cause", ""),
            "frames": list(said.get("frames", ()))[-12:],
            "exit_code": root.code if root.exit else command.get("code"),
            "signal": None if root.failed else self._signal(),
            "oom_kills": command.get("oom_kills"),
            "gone": root.exit is None and root.gone,
            "victims": sorted(e.hello.rank for e in others if e.victim),
            "left_well": sorted(e.hello.rank for e in others if e.exit is not None and not e.failed),
            "lost": sorted(e.hello.rank for e in lost),
        }

    def _untrained(self) -> Finding:
        """The command failed before anything trained."""
        assert self.command is not None  # noqa: S101 (asked by the caller)
        details = self.command.details
        return Finding(
            kind=self.kind,
            severity="info" if self._signal() == SIGTERM else "error",
            first_step=0,
            step=0,
            value=float(details.get("code") or 1),
            threshold=0.0,
            evidence={
                "type": "",
                "exit_code": details.get("code"),
                "signal": self._signal(),
                "oom_kills": details.get("oom_kills"),
                "untrained": True,
            },
        )


def _place(root: Ending) -> str:
    """``file:line`` of the job's own innermost frame, of the exception or of the ``sys.exit``."""
    if root.exception is not None:
        frames = [str(frame) for frame in root.exception.details.get("frames", ())]
        return innermost_own(frames) or (frames[-1].rpartition(" ")[0].rpartition("/")[2] if frames else "")
    line = str(root.exit.details.get("line", "")) if root.exit else ""
    return innermost_own([line]) if line else ""
