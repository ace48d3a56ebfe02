"""A few tensors of one rank changed outside the common update."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import (
    last_equal,
    onset_text,
    parameter_desync,
    part_only,
    same_gradients_at,
    sharing,
)
from torchvitals.agent.step_evidence import came_once


class CorruptedGradient:
    """An edit in place, data lost in a reduction, or a flipped bit: everything else stays equal to the last bit."""

    word: ClassVar[str] = "corrupted_gradient"
    explains: ClassVar[tuple[str, ...]] = ("desync", "nonfinite")
    prior: ClassVar[float] = -0.5

    def weigh(self, case: Case) -> Opinion | None:
        if case.opening.kind == "nonfinite":
            return _of_nonfinite(case)
        desync = [f for f in parameter_desync(case) if f.evidence.get("what") != "hyper-parameters"]
        if not desync:
            return None
        finding = desync[0]
        differing = int(finding.evidence.get("tensors_differing", 0))
        compared = int(finding.evidence.get("tensors_compared", 0)) or 1
        clues = [_reach(differing, compared)]
        minority = finding.evidence.get("minority")
        if minority and len(minority) == 1:
            compared_ranks = finding.evidence.get("ranks_compared")
            clues.append(Clue(1.0, f"rank {minority[0]} alone differs, {compared_ranks} were compared"))
        extent = str(finding.evidence.get("extent", ""))
        clues += _extent(extent, written=same_gradients_at(case, finding))
        agreed = finding.evidence.get("agreed_until")
        if agreed is not None:
            found = sharing(case, int(agreed) + 1, finding.step)
            equal = last_equal(finding)
            clues.append(Clue(0.5, f"all bits were equal up to step {equal}"))
            if found.steps:
                text = f"{found.steps - found.unshared} of {found.steps} steps since then shared gradients"
                clues.append(Clue(-2.0 if found.unshared else 0.5, text))
        where = finding.name or "some parameters"
        who = "one rank" if finding.rank is None else f"rank {finding.rank}"
        return Opinion(
            clues=clues,
            title=f"{where} differs on {who} since {onset_text(finding)}",
            explanation=(
                f"Since {onset_text(finding)} {differing} of {compared} parameter tensors differ bitwise between "
                f"ranks, `{where}` first, while gradients are shared and everything else stays equal."
            ),
            remedy=_remedy(extent, where, who),
        )


def _reach(differing: int, compared: int) -> Clue:
    """What the number of the tensors that differ says; each reduction that loses data adds one to it."""
    told = f"{differing} of {compared} parameter tensors differ"
    if differing <= max(1, compared // 4):
        return Clue(2.0, f"{told}: the common update still reaches all others")
    return Clue(0.5, f"{told}, and the others not at all") if part_only(differing, compared) else Clue(-2.0, told)


def _extent(extent: str, *, written: bool) -> list[Clue]:
    """What the sums of the words tell of how much differs; ``written``: the gradients applied were the same."""
    if extent == "bit":
        return [Clue(1.5, "what differs when they part is one bit of one number")]
    if extent == "element":
        return [Clue(0.5, "what differs when they part is one number, by more than a bit")]
    if extent == "more" and written:
        return [Clue(-3.0, "many numbers of it differ, and the gradients applied were the same: somebody wrote to it")]
    return []


def _remedy(extent: str, where: str, who: str) -> str:
    memory = f"check the memory of {who}'s device (ECC counters, a replay of the step)"
    code = f"ook for code that writes to `{where}`, or to its gradient, on some ranks only"
    if extent == "bit":
        return f"C{memory[1:]}: one flipped bit looks like this. If it is well, l{code}."
    if extent == "more":
        return f"L{code}; a flipped bit would have changed one number. If there is none, {memory}."
    return f"L{code}. If there is none, {memory}: a flipped bit looks like this."


def _of_nonfinite(case: Case) -> Opinion | None:
    """A gradient that is not finite on one rank, and finite there when its batch is run again."""
    rank, step = came_once(case), case.opening.first_step
    if rank is None:
        return None
    return Opinion(
        clues=[
            Clue(3.0, f"only rank {rank}'s own gradients were not finite before ranks shared them"),
            Clue(2.0, f"run again on rank {rank}, the same batch with the same weights gave finite gradients"),
        ],
        title=f"Rank {rank} made a gradient that is not finite, and not again, at step {step}",
        explanation=(
            f"At step {step} the gradients of rank {rank} were not finite before they were shared, and sharing spread "
            "that to all ranks. The same batch, run again, gave finite ones: the code did not make it."
        ),
        remedy=(
            f"Check the memory and the processor of rank {rank}'s device (ECC counters, a stress test). If it is well, "
            "look for code that writes into gradients, or for kernels that race."
        ),
        rank=rank,
    )
