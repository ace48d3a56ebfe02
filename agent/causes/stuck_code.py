"""The job's own code does not come back: a lock nobody releases, a queue nobody fills, a loop without an end."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import ranks_text
from torchvitals.detectors.detector import Finding


class StuckCode:
    """One rank, or the only process, stands somewhere that is neither a collective nor the data loader."""

    word: ClassVar[str] = "stuck_code"
    explains: ClassVar[tuple[str, ...]] = ("hang",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        hangs = case.of_kind("hang")
        if not hangs:
            return None
        finding = hangs[0]
        group = _elsewhere(finding)
        if group is None:
            return None
        ranks = list(group["ranks"])
        who = ranks_text(ranks) if case.world_size > 1 else "the process"
        where = str(group.get("where", ""))
        clues = [Clue(2.5, f"{who} {group['doing']} for {finding.value:.0f} s")]
        if case.world_size > 1:
            clues.append(Clue(0.5, f"the others wait for {who}"))
        locked = set(ranks) & set(finding.evidence.get("deadlocked", ()))
        if locked:
            clues.append(Clue(1.5, "it waits for a thread without a time limit, and no thread or child of it computes"))
        if set(ranks) & set(finding.evidence.get("endless", ())):
            clues.append(Clue(2.0, "it is in a loop that nothing in it can leave"))
        sentence = str(finding.evidence.get("sentence", ""))
        return Opinion(
            clues=clues,
            title=f"{who[:1].upper()}{who[1:]} {'deadlocked' if locked else 'stuck'} in {where or 'its own code'}",
            explanation=(
                f"Nothing has moved for {finding.value:.0f} s at step {finding.first_step}: {sentence}."
                + (" It waits for a lock, a queue or an event that nothing can set any more." if locked else "")
            ),
            remedy=_remedy(where, deadlocked=bool(locked)),
            where=where,
            rank=ranks[0] if len(ranks) == 1 and case.world_size > 1 else None,
        )


def _elsewhere(finding: Finding) -> dict[str, Any] | None:
    """The ranks that hold up the others: neither in a collective nor in the loader nor silent."""
    phases = {int(rank): phase for rank, phase in dict(finding.evidence.get("phases", {})).items()}
    silent = set(finding.evidence.get("silent", ()))
    groups = [
        group
        for group in finding.evidence.get("groups", ())
        if not group["waits"]
        and group["frames"]
        and not silent & set(group["ranks"])
        and phases.get(group["ranks"][0]) not in ("data", "load")
    ]
    return min(groups, key=lambda group: len(group["ranks"]), default=None)


def _remedy(where: str, *, deadlocked: bool) -> str:
    place = where or "the innermost frame of its stack"
    if deadlocked:
        return (
            f"Look at {place}: give the wait a time limit, and find who should have released the lock or filled the "
            "queue: a thread that died, a lock held across a fork, two locks taken in different orders."
        )
    return (
        f"Look at {place}: what it waits for needs a time limit, and a loop an end. Work that one rank alone does for "
        "long belongs behind a barrier with a timeout that fits it."
    )
