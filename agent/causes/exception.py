"""The code said itself why it ended."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.exit_codes import FATAL, counted_kills, ended, signal_name
from torchvitals.agent.ranks import ranks_text
from torchvitals.detectors.job_frames import innermost_own

RECENT = 100
"""Steps: what a thread had made ready is used up by then."""


NOBODY_CAME = ("wait timeout", "timed out", "timeout after", "socket timeout")
RENDEZVOUS = ("default_pg", "store", "clients joined", "worker_count", "rendezvous", "init_process_group")
"""What torch says when a process group is not complete in time: a key of the store that nobody set."""

_WORKERS_END = {
    "Killed": (
        "Only a person, a scheduler or the kernel kills so: look at the kernel's log for an out-of-memory kill. Each "
        "worker keeps a copy of what the dataset holds in Python objects: fewer workers, or arrays in place of lists."
    ),
    "Bus error": (
        "Batches travel through shared memory, and there was no more of it: give the container a larger /dev/shm "
        "(docker run --shm-size, or an emptyDir of medium Memory), fewer workers, or a smaller prefetch_factor."
    ),
    "": (
        "What it died of was said in the worker, on stderr. Run once with num_workers=0: native code that fails on an "
        "item then fails in the main process, with the item at hand."
    ),
}
"""How a worker was ended → what to do."""


class UncaughtException:
    """An uncaught exception, in whatever thread, a fatal signal from native code, or an exit code that code chose."""

    word: ClassVar[str] = "exception"
    explains: ClassVar[tuple[str, ...]] = ("crash", "hang")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        crashes = case.of_kind("crash")
        if case.opening.kind == "hang" or not crashes:  # whoever hangs is ended from outside at last
            return _dead_thread(case)
        finding = crashes[0]
        evidence = finding.evidence
        kind, (code, number) = str(evidence.get("type", "")), ended(case, finding)
        gone = bool(evidence.get("gone"))
        # Of one rank among several the launcher's code is torchrun's, not the rank's.
        alone = case.world_size < 2 or bool(case.events_of("children"))
        fatal = signal_name(number) if number in FATAL else ""
        if not kind and not fatal and (not code or number or (gone and not alone)):
            return None
        who = "The job" if finding.rank is None or case.world_size < 2 else f"Rank {finding.rank}"
        if thread := evidence.get("thread"):
            who = f"Thread {thread}"
        at = f" in {finding.name}" if finding.name else ""
        if worker := evidence.get("worker"):
            told = f"a worker process of the data loader{at} was {worker}, seen by {who.lower()} at step {finding.step}"
            clues = [Clue(4.0, f"{told}: {_short(evidence)}")]
            if kills := counted_kills(case, finding):
                clues.append(Clue(-2.0, f"the kernel counted {kills} out-of-memory kills in this control group"))
            what = f"a data loader worker was {worker} at step {finding.step}"
        elif kind:
            clues = [Clue(4.0, f"{who.lower()} raised {kind}{at} at step {finding.step}: {_short(evidence)}")]
            what = f"{kind} at step {finding.step}{at}"
        elif fatal:
            clues = [Clue(2.5, f"native code that {who.lower()} called{at} ended it by {fatal} at step {finding.step}")]
            what = f"{fatal} at step {finding.step}{at}"
        else:
            how = "without Python's exit handlers: os._exit, or native code" if gone else "without an exception"
            clues = [Clue(2.5, f"{who.lower()} exited with code {code}{at}, {how}")]
            what = f"exit code {code} at step {finding.step}{at}"
        if absent := _absent(case, kind, evidence):
            clues.append(Clue(0.5, absent))
            what = f"a rank never came to the rendezvous{at}"
        clues += _peers(evidence)
        if evidence.get("victim"):
            clues.append(Clue(-3.0, "it is what a rank meets whose peer is gone"))
        if (opening := case.opening).kind != "crash":
            clues.append(Clue(-3.0, f"it died of the {opening.kind} of step {opening.first_step}, which came first"))
        return Opinion(
            clues=clues,
            title=f"{who}: {what}",
            explanation=" ".join(_sentence(clue.text) for clue in clues),
            remedy=_remedy(evidence, finding.name),
        )


def _dead_thread(case: Case) -> Opinion | None:
    """The process hangs, and one of its threads, which may be what it waits for, had died."""
    hang = next(iter(case.of_kind("hang")), None)
    if hang is None:
        return None
    standing = {rank for group in hang.evidence.get("groups", ()) if not group["waits"] for rank in group["ranks"]}
    dead = [
        (rank, event)
        for rank, event in case.events_of("exception")
        if "thread" in event.details and rank in standing and hang.step - event.step <= RECENT
    ]
    if not dead:
        return None
    rank, event = dead[0]
    frames = [str(frame) for frame in event.details.get("frames", ())]
    kind, name, place = event.details.get("type"), event.details.get("thread"), innermost_own(frames)
    if not place:
        return None
    at = f" in {place}"
    return Opinion(
        clues=[
            Clue(5.0, f"thread {name} died of {kind}{at} at step {event.step}: {_short(event.details)}"),
            Clue(1.0, f"since step {hang.first_step} the main thread waits: {hang.evidence.get('sentence', '')}"),
        ],
        title=f"Thread {name}: {kind} at step {event.step}{at}",
        explanation=(
            f"Thread {name} died of {kind}{at} while step {event.step} was in progress ({_short(event.details)}). The "
            f"main thread does not know, and waits: {hang.evidence.get('sentence', '')}."
        ),
        remedy=(
            f"Mend {place}, and have the thread hand its exception on (a future, or a marker in the queue), so that "
            "whoever waits for it hears of it; give the wait a time limit."
        ),
        where=place,
        rank=rank if case.world_size > 1 else None,
        first_step=event.step,
    )


def _absent(case: Case, kind: str, evidence: dict[str, Any]) -> str:
    """That a rank never came, of a rendezvous that timed out; empty where it is something else."""
    if not _rendezvous_timed_out(kind, str(evidence.get("message", "")).lower()):
        return ""
    return f"it waited for {case.world_size} ranks to join the process group, and at least one did not come in time"


def _rendezvous_timed_out(kind: str, message: str) -> bool:
    return kind.startswith("Dist") and all(any(w in message for w in words) for words in (NOBODY_CAME, RENDEZVOUS))


def _short(evidence: dict[str, Any]) -> str:
    lines = str(evidence.get("message", "")).strip().splitlines()
    if len(lines) > 1 and lines[1].startswith("Original Traceback"):  # raised in a loader worker: its own last words
        return f"{lines[0][:100]} {lines[-1][:200]}"
    return lines[0][:200] if lines else "no message"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _peers(evidence: dict[str, Any]) -> list[Clue]:
    clues = []
    if victims := evidence.get("victims"):
        clues.append(Clue(0.5, f"{ranks_text(victims)} failed after it, when the connection was lost"))
    if (left := evidence.get("left_well")) and not victims:
        clues.append(Clue(0.2, f"{ranks_text(left)} had ended well"))
    if cause := evidence.get("cause"):
        clues.append(Clue(0.2, f"it was raised from {str(cause)[:160]}"))
    return clues


def _remedy(evidence: dict[str, Any], name: str) -> str:
    kind = str(evidence.get("type", ""))
    message = str(evidence.get("message", "")).lower()
    if "outofmemory" in kind.lower() or "out of memory" in message:
        return (
            "The device ran out of memory: a smaller batch with gradient accumulation, activation checkpointing or a "
            "lower precision; and look whether memory grew before it."
        )
    if "errno 28" in message or "no space left on device" in message:
        return (
            f"There was no room left where {name or 'the job'} wrote: free some, or give it a larger volume; keep "
            "fewer checkpoints, and write each under another name first (then rename it), so that no torn one replaces "
            "another."
        )
    if _rendezvous_timed_out(kind, message):
        return (
            "See why the other rank did not come: whether its process was started, what it does before "
            "`init_process_group` (a download, a mount, a lock), and whether all agree on WORLD_SIZE, MASTER_ADDR and "
            "MASTER_PORT. Where it only takes longer, raise `timeout=`."
        )
    if not kind and evidence.get("gone") and name:
        return f"Start at {name}, which called the native code that did not come back: its arguments, its versions."
    if not kind:
        return f"Look at what the job printed before it left{f' at {name}' if name else ''}: the code chose this exit."
    if worker := str(evidence.get("worker", "")):
        return _WORKERS_END.get(worker.rpartition(": ")[2], _WORKERS_END[""])
    place = name or "the innermost frame"
    return f"Start at {place} and at the batch or file it was working on: the traceback is in the finding."
