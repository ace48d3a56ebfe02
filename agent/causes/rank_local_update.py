"""One rank applied another update than the others: clipping, learning rate or a branch on the rank."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import Difference, first_difference, parameter_desync, ranks_text, senders, sharing
from torchvitals.detectors.detector import Finding


class RankLocalUpdate:
    """Gradients were shared, and yet the ranks stepped differently."""

    word: ClassVar[str] = "rank_local_update"
    explains: ClassVar[tuple[str, ...]] = ("desync",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        desync = parameter_desync(case)
        if not desync:
            return None
        finding = desync[0]
        clues = [*_shared(case, finding), *_spread(finding)]
        rate = first_difference(case, "learning_rate") or first_difference(case, "loss_scale")
        norm = first_difference(case, "gradient_norm")
        clipping, clipped_at = senders(case, "gradient_norm_unclipped")
        alone = bool(clipping) and len(clipping) < len(case.history.ranks("gradient_norm"))
        what, remedy, rank, first = "another update", _BRANCH, finding.rank, norm.step if norm else None
        if norm is not None:
            clues.append(Clue(2.0, f"the gradients applied at step {norm.step} have other norms ({norm.told()})"))
        if finding.evidence.get("what") == "hyper-parameters":
            clues.append(Clue(3.0, f"the optimizers' hyper-parameters differ from step {finding.first_step} on"))
        if rate is not None:
            clues.append(Clue(4.0, f"learning rate or loss scale differ at step {rate.step} ({rate.told()})"))
            what, remedy, first = "another learning rate or loss scale", _RATE, rate.step
        elif alone:
            clues.append(Clue(3.0, f"only {ranks_text(clipping)} clips gradients, first at step {clipped_at}"))
            what, remedy = "clipped gradients", _CLIP
            rank = clipping[0] if len(clipping) == 1 else rank
            first = _earliest(norm, clipped_at)
        return Opinion(
            clues=clues,
            title=_title(rank, what, first, finding),
            explanation=(
                f"All ranks share their gradients, yet from step {finding.first_step if first is None else first} on "
                f"{'one of them' if rank is None else f'rank {rank}'} applies {what}: since then the replicas are "
                f"different models, and {finding.evidence.get('tensors_differing')} parameter tensors differ."
            ),
            remedy=remedy,
            rank=rank,
            first_step=first if first is not None and first <= finding.first_step else None,
        )


_BRANCH = "Look for code between `backward()` and `step()` that only some ranks run, and run it on all of them."
_RATE = "Step the scheduler and update the scaler on every rank, from numbers all ranks share, not from a local loss."
_CLIP = (
    "Call `clip_grad_norm_` on every rank or on none. To log the norm on one rank alone, use "
    "`torch.nn.utils.get_total_norm`, which changes nothing."
)


def _shared(case: Case, finding: Finding) -> list[Clue]:
    agreed = finding.evidence.get("agreed_until")
    found = sharing(case, 0 if agreed is None else int(agreed) + 1, finding.step)
    if not found.steps:
        return []
    if found.unshared:
        return [Clue(-4.0, f"{found.unshared} of {found.steps} steps shared no gradients at all, which is enough")]
    return [Clue(1.0, f"gradients were shared in each of the {found.steps} steps before it was seen")]


def _spread(finding: Finding) -> list[Clue]:
    differing, compared = finding.evidence.get("tensors_differing", 0), finding.evidence.get("tensors_compared", 0)
    if finding.evidence.get("what") == "hyper-parameters" or not compared:
        return []
    if differing > 0.8 * compared:
        return [Clue(1.0, f"{differing} of {compared} parameter tensors differ: the update as a whole was another")]
    return [Clue(-1.0, f"only {differing} of {compared} parameter tensors differ")]


def _earliest(norm: Difference | None, clipped_at: int | None) -> int | None:
    steps = [step for step in (norm.step if norm else None, clipped_at) if step is not None]
    return min(steps, default=None)


def _title(rank: int | None, what: str, first: int | None, finding: Finding) -> str:
    who = "Ranks apply different updates:" if rank is None else f"Rank {rank} applies"
    return f"{who} {what} from step {finding.first_step if first is None else first}"[:79]
