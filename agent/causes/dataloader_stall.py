"""A rank waits for its next batch and none comes."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import ranks_text
from torchvitals.detectors.detector import Finding

LOADER = ("/utils/data/", "/queue.py", "/multiprocessing/")
"""Where a process stands that waits for loader workers, or reads data itself."""


class DataloaderStall:
    """A worker that deadlocked or died, a file system that does not answer, a lock taken before a fork."""

    word: ClassVar[str] = "dataloader_stall"
    explains: ClassVar[tuple[str, ...]] = ("hang",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        hangs = case.of_kind("hang")
        if not hangs:
            return None
        finding = hangs[0]
        phases = {int(rank): phase for rank, phase in dict(finding.evidence.get("phases", {})).items()}
        waiting = sorted(rank for rank, phase in phases.items() if phase in ("data", "load"))
        if not waiting:
            return None
        clues = [Clue(3.0, f"{ranks_text(waiting)} waits for the data loader since {finding.value:.0f} s")]
        others = sorted(set(phases) - set(waiting))
        if others:
            clues.append(Clue(0.5, f"{ranks_text(others)} waits for the gradients of {ranks_text(waiting)}"))
        stack = dict(finding.evidence.get("stacks", {})).get(waiting[0], [])
        worker = _worker_of(finding, waiting[0])
        if worker:
            clues.append(Clue(1.5, f"{ranks_text(waiting)} {worker['doing']}"))
        elif any(mark in frame for frame in stack for mark in LOADER):
            clues.append(Clue(1.5, f"its main thread is in {stack[-1].rpartition('/')[2]}"))
        workers = (case.facts.get("loader") or {}).get("workers")
        hint = f"The loader has {workers} workers: " if workers else "The loader reads in the main process: "
        look = "look at the workers' stacks, at locks held across the fork" if workers else "look at what it reads from"
        return Opinion(
            clues=clues,
            title=f"The data loader of {ranks_text(waiting)} delivers nothing since step {finding.first_step}",
            explanation=(
                f"At step {finding.first_step} {ranks_text(waiting)} asked for a batch and got none for "
                f"{finding.value:.1f} s, against a limit of {finding.threshold:.1f} s from its own past: "
                f"{finding.evidence.get('sentence', '')}."
            ),
            remedy=(
                f"{hint}{look} and at the storage behind it. Give the loader a `timeout` so that it raises; with "
                "`multiprocessing_context='spawn'` no lock is inherited."
            ),
            rank=waiting[0] if len(waiting) == 1 and case.world_size > 1 else None,
        )


def _worker_of(finding: Finding, rank: int) -> dict[str, Any] | None:
    """What was seen of the loader worker that a rank waits for."""
    groups = finding.evidence.get("groups", ())
    return next((g for g in groups if rank in g["ranks"] and "loader worker" in g["doing"]), None)
