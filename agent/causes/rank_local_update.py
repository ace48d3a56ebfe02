"""One rank applied another update than the others: clipping, learning rate or a branch on the rank."""

import math
from typing import ClassVar, NamedTuple

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import (
    SAME,
    Difference,
    alike,
    first_difference,
    last_equal,
    onset_text,
    parameter_desync,
    part_only,
    ranks_text,
    same_gradients_at,
    senders,
    settings_desync,
    sharing,
    unshared_at_last,
)
from torchvitals.detectors.detector import Finding


class RankLocalUpdate:
    """Gradients were shared, and yet the ranks stepped differently."""

    word: ClassVar[str] = "rank_local_update"
    explains: ClassVar[tuple[str, ...]] = ("desync", "nonfinite")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        if case.opening.kind == "nonfinite":
            return _of_nonfinite(case)
        desync = parameter_desync(case)
        if not desync:
            return None
        finding, norm = desync[0], first_difference(case, "gradient_norm")
        clues = [*_shared(case, finding), *_spread(finding), *_of_norms(norm, finding)]
        if unshared_at_last(case, finding.first_step):
            clues.append(Clue(-4.0, "the gradients of the last backward pass were not shared"))
        rate = first_difference(case, "learning_rate") or first_difference(case, "loss_scale")
        clipping, clipped_at = senders(case, "gradient_norm_unclipped")
        alone = bool(clipping) and len(clipping) < len(case.history.ranks("gradient_norm"))
        what, remedy, first = "another update", _BRANCH, norm.step if norm else None
        rank = _changed(case, rate, finding)
        settings = settings_desync(case)
        if settings is not None and settings.first_step <= finding.step + 1:
            clues.append(Clue(3.0, f"the optimizers' hyper-parameters differ from step {settings.first_step} on"))
            what, remedy = "other optimizer settings", _SETTINGS
        if rate is not None:
            clues.append(Clue(4.0, f"learning rate or loss scale differ at step {rate.step} ({rate.told()})"))
            what, remedy, first = "another learning rate or loss scale", _RATE, rate.step
        elif (written := _written(case, finding)) is not None:
            clues.append(Clue(3.0, f"{written.told()}, which no other rank's are"))
            what, remedy, first = "an update beside the optimizer's", _WRITES, written.step
            rank = written.ranks[0] if len(written.ranks) == 1 else rank
        elif finding.evidence.get("extent") == "more" and same_gradients_at(case, finding):
            clues.append(Clue(4.0, f"many numbers of `{finding.name}` alone differ, and the gradients applied do not"))
            what, remedy = "an update beside the optimizer's", _WRITES
        elif norm is not None and (cut := _clipped(case, norm)):
            clues.append(Clue(3.0, f"only {ranks_text(cut)} clipped at step {norm.step} what was shared by all"))
            what, remedy = "clipped gradients", _CLIP
            rank = cut[0] if len(cut) == 1 else rank
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


_WRITES = (
    "Look for code on that rank that writes to parameters outside the optimizer (decay or clipping of weights by hand, "
    "`.data`, an in-place operation under `no_grad`), and run it on all ranks, or not at all."
)
_SETTINGS = "Give the optimizer of every rank the same settings: no number of it may depend on the rank."
_BRANCH = "Look for code between `backward()` and `step()` that only some ranks run, and run it on all of them."
_RATE = "Step the scheduler and update the scaler on every rank, from numbers all ranks share, not from a local loss."
_CLIP = (
    "Call `clip_grad_norm_` on every rank or on none. To log the norm on one rank alone, use "
    "`torch.nn.utils.get_total_norm`, which changes nothing."
)


def _changed(case: Case, rate: Difference | None, finding: Finding) -> int | None:
    """The one rank that differs; else the one whose rate is another than just before the ranks parted."""
    if finding.rank is not None or rate is None:
        return finding.rank
    for name in ("learning_rate", "loss_scale"):
        before = {rank: case.history.series(name, rank).before(rate.step, 1) for rank in rate.values}
        same = {rank: case.history.series(name, rank).at(rate.step) == value for rank, value in rate.values.items()}
        if not all(len(values) for values in before.values()) or not all(same.values()):
            continue
        changed = [rank for rank, value in rate.values.items() if not alike([float(before[rank][-1]), value])]
        return changed[0] if len(changed) == 1 else None
    return None


class _Written(NamedTuple):
    """Where something else than the optimizer first wrote to the weights of some ranks only."""

    step: int
    ranks: list[int]

    def told(self) -> str:
        return f"the weights of {ranks_text(self.ranks)} are written to by something else than the step at {self.step}"


def _written(case: Case, finding: Finding) -> _Written | None:
    equal = last_equal(finding)
    if equal is None:
        return None
    by_rank = {rank: case.history.series("weights_overwritten", rank) for rank in range(case.world_size)}
    found = {
        rank: int(steps[0])
        for rank, series in by_rank.items()
        if len(steps := series.steps[(series.values > 0) & (series.steps > equal) & (series.steps <= finding.step)])
    }
    if not found or len(found) == case.world_size:
        return None
    return _Written(min(found.values()), sorted(found))


def _clipped(case: Case, norm: Difference) -> list[int]:
    """The ranks that clipped the gradients of a step in which they had the same norm before, if not all did."""
    told = {rank: case.history.series("gradient_norm_unclipped", rank).at(norm.step) for rank in norm.values}
    before = {rank: value for rank, value in told.items() if value is not None}
    if len(before) < len(norm.values) or not alike(list(before.values())):
        return []
    cut = [rank for rank, value in sorted(norm.values.items()) if value < (1 - SAME) * before[rank]]
    return cut if len(cut) < len(before) else []


def _of_nonfinite(case: Case) -> Opinion | None:
    """A weight that is not finite on one rank, where the gradients that all ranks had applied before were."""
    step = case.opening.first_step
    told = [(rank, event.details) for rank, event in case.events_of("origin") if event.step == step]
    well = any(details.get("parameters_finite") for _, details in told)
    broken = {
        rank: str(details.get("parameter") or "")
        for rank, details in told
        if details.get("operation") == "parameter" and details.get("complete")
    }
    before = case.opening.evidence.get("gradient_before")
    if not well or len(broken) != 1 or before is None or not math.isfinite(before):
        return None
    ((rank, where),) = broken.items()
    return Opinion(
        clues=[
            Clue(3.0, f"`{where}` is not finite on rank {rank} before the forward of step {step}, and is on another"),
            Clue(1.5, f"the gradients that all ranks had applied before were finite (norm {before:.3g})"),
        ],
        title=f"Rank {rank}: {where} is not finite at step {step}, written to on that rank alone",
        explanation=(
            f"At step {step} rank {rank} begins its forward with a `{where}` that is not finite. All ranks had shared "
            "their gradients, and those were finite: the common update did not write it. Sharing spreads it to all "
            "ranks in the same step."
        ),
        remedy=_WRITES + f" If there is none, check the memory of rank {rank}'s device: a flipped bit does this, too.",
        rank=rank,
        where=where,
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
    differing, compared = _counts(finding)
    if finding.evidence.get("what") == "hyper-parameters" or not compared:
        return []
    if part_only(differing, compared):
        return [Clue(-1.0, f"only {differing} of {compared} parameter tensors differ")]
    return [Clue(1.0, f"{differing} of {compared} parameter tensors differ: the update as a whole was another")]


def _of_norms(norm: Difference | None, finding: Finding) -> list[Clue]:
    if norm is None:
        return []
    weight = 0.5 if part_only(*_counts(finding)) else 2.0  # a few tensors that were lost make another norm as well
    return [Clue(weight, f"the gradients applied at step {norm.step} have other norms ({norm.told()})")]


def _counts(finding: Finding) -> tuple[int, int]:
    """Tensors that differ, and tensors that were compared."""
    return int(finding.evidence.get("tensors_differing", 0)), int(finding.evidence.get("tensors_compared", 0))


def _earliest(norm: Difference | None, clipped_at: int | None) -> int | None:
    steps = [step for step in (norm.step if norm else None, clipped_at) if step is not None]
    return min(steps, default=None)


def _title(rank: int | None, what: str, first: int | None, finding: Finding) -> str:
    who = "Ranks apply different updates:" if rank is None else f"Rank {rank} applies"
    return f"{who} {what} from {onset_text(finding) if first is None else f'step {first}'}"
