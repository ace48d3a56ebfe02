"""Ranks wait in collectives that are not the same one, or one of them never issued it."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import ranks_text


class CollectiveMismatch:
    """Read from sequence numbers, and from the newest entries of each rank's flight recorder."""

    word: ClassVar[str] = "collective_mismatch"
    explains: ClassVar[tuple[str, ...]] = ("hang",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        hangs = case.of_kind("hang")
        if not hangs or case.world_size < 2:
            return None
        evidence = hangs[0].evidence
        issued = {int(rank): int(count) for rank, count in dict(evidence.get("issued", {})).items()}
        clash = _clash(dict(evidence.get("collectives", {})))
        behind = sorted(rank for rank, count in issued.items() if count < max(issued.values()))
        ended = list(evidence.get("ended", ()))
        if not (clash or behind or ended):
            return None
        clues = []
        if clash:
            clues.append(Clue(4.0, clash))
        if behind:
            told = ", ".join(f"rank {rank}: {count}" for rank, count in sorted(issued.items())[:8])
            clues.append(Clue(2.0, f"the ranks issued different numbers of collectives ({told})"))
        if ended:
            clues.append(Clue(2.0, f"{ranks_text(ended)} has ended while the others still wait for it"))
        working = [rank for rank in behind if dict(evidence.get("phases", {})).get(rank) == "data"]
        if working:
            clues.append(Clue(-2.0, f"{ranks_text(working)} waits for data and may still issue its collective"))
        who = ranks_text(behind or ended) if behind or ended else "the ranks"
        what = "issued another collective than its peers" if clash else "did not join the others' collective"
        return Opinion(
            clues=clues,
            title=f"Deadlock at step {hangs[0].first_step}: {who} {what}"[:79],
            explanation=(
                f"Nothing has moved for {hangs[0].value:.0f} s. " + (f"{clash}. " if clash else "") + f"{who} {what}; "
                "a collective completes only when all ranks of its group issue the same one."
            ),
            remedy=(
                "Have every rank run the same collectives in the same order: no `all_reduce`, `barrier` or "
                "synchronised forward inside `if rank == 0`, and equal numbers of batches on all ranks "
                "(`drop_last=True`, or `Join`)."
            ),
        )


def _clash(collectives: dict[Any, list[dict[str, Any]]]) -> str:
    """Two ranks whose collective of one group and number is not the same, in words; empty when there is none."""
    first: dict[tuple[Any, Any], tuple[Any, tuple[Any, ...]]] = {}
    for rank, entries in sorted(collectives.items(), key=lambda item: int(item[0])):
        for entry in entries:
            key = (entry.get("group"), entry.get("sequence"))
            shape = (entry.get("operation"), entry.get("sizes"), entry.get("dtypes"))
            other, seen = first.setdefault(key, (rank, shape))
            if seen != shape:
                return f"collective {key[1]} is {_said(seen)} on rank {other} and {_said(shape)} on rank {rank}"
    return ""


def _said(shape: tuple[Any, ...]) -> str:
    operation, sizes, _ = shape
    return f"{operation} of {sizes}"
