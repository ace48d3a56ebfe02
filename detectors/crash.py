"""A process ended as no healthy one does: once per run, with the rank that went first."""

from collections.abc import Sequence
from typing import Any, ClassVar

from torchvitals.detectors.detector import Finding, Status
from torchvitals.detectors.ending import Ending, earliest, frames_of, known_at, place_of, same_exception
from torchvitals.detectors.job_frames import waits_in_collective
from torchvitals.detectors.pulse import WORKING
from torchvitals.detectors.worker_death import how_worker_died
from torchvitals.signals.records import LAUNCHER_RANK, AnyRecord, Beat, Event, Hello, Step

USAGE = 2
"""Exit code for wrong arguments (argparse, getopt, bash)."""
SIGINT, SIGKILL, SIGTERM = 2, 9, 15
NAMES = {"SIGINT": SIGINT, "SIGKILL": SIGKILL, "SIGTERM": SIGTERM, "SIGABRT": 6, "SIGSEGV": 11, "SIGBUS": 7}


class Crash:
    """An uncaught exception, an exit code that is not 0, or a process that is gone without a word.

    One finding per incarnation: the first rank by time that is not merely the victim of another's death; none is named
    where several raise the same exception in the same place. An exception is told as soon as all ranks have ended or
    ``settle`` seconds of later records have come; so is a rank that is gone without a word when its peers, the kernel
    or its supervisor bear witness that it was not meant to go, and otherwise when the run is over. Ctrl-C,
    ``sys.exit(0)`` and a launcher that ended with 0 are no crash; a run that was told to end (SIGTERM) is one of
    severity ``info``.

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
        settle: float = 1.2,  # seconds; the others notice a dead peer within a second
        tie: float = 1.5,  # seconds between beats and a little: deaths without a word closer than this have no order
    ) -> None:
        self.settle, self.tie = settle, tie
        self.processes: dict[tuple[int, int, int], Ending] = {}
        self.commands: dict[str, Event] = {}
        """By host, how the command ended there."""
        self.command: Event | None = None
        self.asked = False
        """Whether somebody asked the command to end."""
        self.children: dict[int, int] = {}
        """Process → exit code, negative for a signal, as a supervisor saw it, the first that failed first."""
        self.told: set[int] = set()
        """Incarnations whose crash was told."""

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        if hello.rank == LAUNCHER_RANK:
            return self._launcher(hello, record)
        ending = self._ending(hello)
        ending.seen = max(ending.seen, getattr(record, "time", 0.0))
        if isinstance(record, Step | Beat):
            ending.step = max(ending.step, record.step + isinstance(record, Step))
        if isinstance(record, Beat) and ending.place != (record.step, record.activity, record.phase):
            ending.place, ending.since = (record.step, record.activity, record.phase), record.time
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

    def _launcher(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        if isinstance(record, Event) and record.kind == "command_exit":
            self.commands[hello.host] = record
            self.command = next((end for end in self.commands.values() if end.details.get("code")), record)
        elif isinstance(record, Event) and record.kind == "asked_to_end":
            self.asked = True
        elif isinstance(record, Event) and record.kind == "children":
            for child in record.details.get("children", ()):
                self.children[child["pid"]] = child["code"]
        elif isinstance(record, Event) and record.kind == "process_gone":
            for (_, rank, pid), ending in self.processes.items():
                if (rank, pid) == (record.details.get("rank"), record.details.get("pid")):
                    ending.vanished = record
        incarnations = sorted({key[0] for key in self.processes})
        now = float(getattr(record, "time", 0.0))
        return [finding for incarnation in incarnations for finding in self._tell(incarnation, now)]

    def _ending(self, hello: Hello) -> Ending:
        key = (hello.incarnation, hello.rank, hello.pid)
        if key not in self.processes:
            self.processes[key] = Ending(hello)
        return self.processes[key]

    def _note(self, ending: Ending, event: Event) -> None:
        if event.kind == "exception" and "thread" in event.details:
            ending.thread = ending.thread or event
        elif event.kind == "exception":
            ending.exception = event
        elif event.kind == "exit":
            ending.exit = event

    def _of(self, incarnation: int) -> list[Ending]:
        found = [ending for key, ending in self.processes.items() if key[0] == incarnation]
        return [ending for ending in found if not ending.supervisor] or found

    def _tell(self, incarnation: int, now: float) -> list[Finding]:
        """The crash of a world whose failing ranks have spoken, once no earlier one can be expected."""
        if incarnation in self.told:
            return []
        endings = self._of(incarnation)
        failed = [ending for ending in endings if ending.failed]
        lost = [] if self.asked else self._by_themselves([ending for ending in endings if ending.lost])
        if not (failed or lost) or any(ending.interrupted for ending in failed):
            return []
        world = max(ending.hello.world_size for ending in endings)
        all_ended = sum(ending.over for ending in endings) >= world
        settled = now > min(known_at(ending) for ending in (*failed, *lost)) + self.settle
        if not (all_ended or settled):
            return []
        root = earliest([ending for ending in failed if not ending.victim], lost)
        if root is None and all_ended:
            root = earliest(failed, [])  # its peer had left well
        if root is None or (root.lost and (len(lost) > 1 or not self._witnessed(root, endings, now))):
            return []  # a peer may have died without a word: the end of the run tells who is missing
        alike = [ending for ending in failed if same_exception(root, ending)]
        return [self._finding(incarnation, root, alone=len(alike) < 2, lost=lost)]

    def _witnessed(self, lost: Ending, endings: Sequence[Ending], now: float) -> bool:
        """Whether anything says that a process that is gone was not meant to go."""
        assert lost.vanished is not None  # noqa: S101 (asked by the caller)
        if lost.vanished.details.get("oom_kills") or self.children.get(lost.hello.pid):
            return True
        if any(ending.victim for ending in endings):
            return True
        left = [ending for ending in endings if not ending.over]
        return bool(left) and all(
            ending.place[2] in WORKING and now - max(ending.since, lost.vanished.time) > self.settle for ending in left
        )

    def _conclude(self, incarnation: int) -> list[Finding]:
        endings = self._of(incarnation)
        failed = [ending for ending in endings if ending.failed]
        if incarnation in self.told or any(ending.interrupted for ending in failed) or self._stopped_by_hand():
            return []
        lost = self._by_themselves([ending for ending in endings if ending.gone and ending.exit is None])
        lost.sort(key=lambda ending: ending.time)
        seen = [] if self.asked else [ending for ending in lost if ending.lost]
        root = earliest([ending for ending in failed if not ending.victim], seen)
        if root is not None and not root.lost:
            alike = [ending for ending in failed if same_exception(root, ending)]
            return [self._finding(incarnation, root, alone=len(alike) < 2)]
        lost.sort(key=lambda ending: ending is not root)
        if lost and (failed or not self._command_well()):
            alone = len(lost) == 1 or abs(lost[1].time - lost[0].time) > self.tie or self._first_child(lost[0])
            return [self._finding(incarnation, lost[0], alone=alone, lost=lost)]
        if failed:
            return [self._finding(incarnation, min(failed, key=lambda ending: ending.time))]
        last = incarnation == max(key[0] for key in self.processes)
        if last and self._command_failed():
            return [self._finding(incarnation, max(endings, key=lambda ending: ending.seen), alone=len(endings) == 1)]
        return []

    def _by_themselves(self, lost: list[Ending]) -> list[Ending]:
        """Those that were not ended by their supervisor because another one had died."""
        return [ending for ending in lost if self.children.get(ending.hello.pid) != -SIGTERM] or lost

    def _first_child(self, ending: Ending) -> bool:
        """Whether the supervisor names this one as the first that failed."""
        return next(iter(self.children), None) == ending.hello.pid

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
        told = root.origin or root.exit
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
            name=place_of(root),
            evidence=evidence,
        )

    def _evidence(self, incarnation: int, root: Ending, lost: Sequence[Ending]) -> dict[str, Any]:
        command = self.command.details if self.command else {}
        said = root.origin.details if root.origin else {}
        others = [e for e in self._of(incarnation) if e is not root]
        child = self.children.get(root.hello.pid)
        counted = root.vanished.details.get("oom_kills") if root.vanished else None
        return {
            "type": said.get("type", ""),
            "message": brief(str(said.get("message", ""))),
            "cause": said.get("cause", ""),
            "worker": how_worker_died(said),
            "thread": said.get("thread", ""),
            "frames": frames_of(root)[-12:],
            "places": {e.hello.rank: place_of(e) for e in (root, *others) if place_of(e)},
            "in_collective": sorted(e.hello.rank for e in (root, *others) if waits_in_collective(frames_of(e))),
            "pid": root.hello.pid,
            "host": root.hello.host,
            "victim": root.victim,
            "steps": {e.hello.rank: e.step for e in self._of(incarnation)},
            "exit_code": root.code if root.exit else command.get("code") if child is None else child,
            "signal": None if root.failed else self._signal() if child is None else -child if child < 0 else None,
            "oom_kills": command.get("oom_kills") if counted is None else counted,
            "gone": root.exit is None and (root.gone or root.lost),
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


def brief(message: str, most: int = 1000) -> str:
    """Beginning and end of a long ``message``: what a loader's worker quotes ends with what it died of.

    >>> brief("Caught OSError in DataLoader worker process 0." + 2000 * "." + "OSError: no such file", 80)
    'Caught OSError in DataLoader worker proc...................OSError: no such file'
    """
    return message if len(message) <= most else message[: most // 2] + message[-most // 2 :]
