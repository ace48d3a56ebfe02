"""Ranks wait in collectives that are not the same one, or one of them never issued it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.exit_codes import ended
from torchvitals.agent.ranks import ranks_text
from torchvitals.detectors.detector import Finding
from torchvitals.detectors.job_frames import calls_collective, innermost_own, message_call

SIGABRT = 6
REMEDY = (
    "Have every rank run the same collectives in the same order: no `all_reduce`, `barrier` or "
    "synchronised forward inside `if rank == 0`, and equal numbers of batches on all ranks "
    "(`drop_last=True`, or `Join`)."
)
REFUSALS = (
    "inLengthPerRank[myRank] == outLengthPerRank[myRank]",
    "op.preamble.length <= op.nbytes",
    "mismatch between collectives on ranks",
)
"""What gloo says, and torch itself with TORCH_DISTRIBUTED_DEBUG=DETAIL, when the ranks' collectives do not fit."""
REFUSED_WEIGHT = 7.0
"""An exception that says so is the messenger: more than its being raised, and that peers failed after it."""
RECORDS_WEIGHT = 6.0
"""Dumps of the flight recorder show the collectives themselves, of all ranks and in order."""

STILL_SAME = ("UNFINISHED", "COLLECTIVE_STATE_MISMATCH")
"""All ranks issued the same: that some have not finished it is no mismatch."""


UNEVEN = "So it is, too, when a rank has had fewer batches and has left its loop while others still share gradients. "
EVEN = (
    "Compare the batches by rank (`len(loader)`): equal numbers by `DistributedSampler` or `drop_last=True`, or train "
    "under `Join`. If they are equal: "
)
FIT = "give all ranks tensors and split sizes that fit together: exchange the sizes first, or pad to the largest."


class CollectiveMismatch:
    """Read from sequence numbers, from the newest entries of each rank's flight recorder, and from dumps of it."""

    word: ClassVar[str] = "collective_mismatch"
    explains: ClassVar[tuple[str, ...]] = ("hang", "crash", "collective_mismatch")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        if case.world_size < 2 and not case.events_of("flight_records"):
            return None
        hangs, crashes = case.of_kind("hang"), case.of_kind("crash")
        opinion = _of_hang(hangs[0]) if hangs else _of_crash(case, crashes[0]) if crashes else None
        return _with_records(case, opinion)


def _of_hang(finding: Finding) -> Opinion | None:
    evidence = finding.evidence
    issued = {int(rank): int(count) for rank, count in dict(evidence.get("issued", {})).items()}
    clash = _clash(dict(evidence.get("collectives", {})))
    behind = sorted(rank for rank, count in issued.items() if count < max(issued.values()))
    if not (clash.text or behind):
        clash = _unanswered(evidence)
    gone, absent = list(evidence.get("ended", ())), list(evidence.get("absent", ()))
    if not (clash.text or behind or gone or absent):
        return None
    clues = []
    if clash.text:
        clues.append(Clue(4.0, clash.text))
    if behind:
        told = ", ".join(f"rank {rank}: {count}" for rank, count in sorted(issued.items())[:8])
        clues.append(Clue(2.0, f"the ranks issued different numbers of collectives ({told})"))
    if gone:
        clues.append(Clue(2.0, f"{ranks_text(gone)} has ended while the others still wait for it"))
    if absent:
        clues.append(Clue(3.0, f"{ranks_text(absent)} has not come to the job's process group"))
    elsewhere = [rank for rank in behind if rank not in _waiting(evidence)]
    if elsewhere and not clash.text:
        clues.append(Clue(-2.5, f"{ranks_text(elsewhere)} stands elsewhere and may still issue its collective"))
    clues += _uneven(evidence)
    guilty = behind or gone or absent or list(clash.alone)
    who = ranks_text(guilty) if guilty else "the ranks"
    if clash.text and not guilty:
        what = "wait in different collectives"
    else:
        what = "issued another collective than its peers" if clash.text else "did not join the others' collective"
    return Opinion(
        clues=clues,
        title=f"Deadlock at step {finding.first_step}: {who} {what}",
        explanation=(
            f"Nothing has moved for {finding.value:.0f} s{_colon(evidence)}. "
            + (f"{clash.text[:1].upper()}{clash.text[1:]}. " if clash.text else "")
            + f"{who[:1].upper()}{who[1:]} {what}; a collective completes only when all ranks of its group issue the "
            "same one."
        ),
        remedy=REMEDY,
        where=_place_of(guilty, evidence) or _called_at(evidence),
        rank=guilty[0] if len(guilty) == 1 else None,
    )


def _place_of(ranks: Sequence[int], evidence: Mapping[str, Any]) -> str:
    """Where the guilty stand; empty when nobody is."""
    groups = evidence.get("groups", ())
    return next((str(group["where"]) for group in groups if set(ranks) & set(group["ranks"])), "")


def _called_at(evidence: Mapping[str, Any]) -> str:
    """Where the code itself calls a collective, if the others are in one of the wrapper's: the odd one of the two."""
    groups = evidence.get("groups", ())
    called = [group for group in groups if calls_collective(group["frames"])]
    return str(called[0]["where"]) if len(called) == 1 < len(groups) else ""


def _of_crash(case: Case, finding: Finding) -> Opinion | None:
    """A rank that left early leaves the others with a closed connection; gloo aborts where sizes differ."""
    evidence = finding.evidence
    left = list(evidence.get("left_well", ()))
    if evidence.get("victim") and left:
        who = ranks_text(left)
        last = ", ".join(f"rank {rank}: {step}" for rank, step in sorted(dict(evidence.get("steps", {})).items())[:8])
        return Opinion(
            clues=[
                Clue(4.0, f"{who} had ended well when rank {finding.rank} still waited for it"),
                *([Clue(1.0, f"steps done by rank: {last}")] if last else []),
            ],
            title=f"{who[:1].upper()}{who[1:]} left before the others had done their last step",
            explanation=(
                f"{who[:1].upper()}{who[1:]} ended well while the others went on to a collective that needs it, and "
                f"found the connection closed at step {finding.step}. Steps by rank: {last or 'unknown'}."
            ),
            remedy=REMEDY,
            rank=left[0] if len(left) == 1 else None,
        )
    if refused := next((words for words in REFUSALS if words in str(evidence.get("message", ""))), ""):
        clue = Clue(REFUSED_WEIGHT, f"the exception says that what the ranks sent and expected does not fit: {refused}")
        return _of_sizes(finding, [clue])
    if ended(case, finding).signal == SIGABRT and evidence.get("gone"):
        clue = Clue(1.2, "SIGABRT is how gloo ends a rank whose buffer has another size than its peer's")
        if parted := _parted(finding):
            return _of_abort(finding, parted, clue)
        if together := _together(finding):
            what = "the same collective" if len(together) > 1 else "a collective"
            same = Clue(3.0, f"{ranks_text(together)} stood in {what}, at {finding.name}")
            return _of_sizes(finding, [same, clue], alone=len(together) == 1)
        return Opinion(
            clues=[clue],
            title=f"Aborted at step {finding.step}: collectives of different sizes, by the signal",
            explanation=(
                f"A rank was ended by SIGABRT at step {finding.step} without an exception. "
                f"{clue.text[:1].upper()}{clue.text[1:]}: two ranks then met in different collectives. Its own output "
                "has the line `op.preamble.length <= op.nbytes` if that was it."
            ),
            remedy=REMEDY,
        )
    return None


def _together(finding: Finding) -> list[int]:
    """The ranks that stood in a collective at the line at which one was ended, it among them."""
    places = {int(rank): str(place) for rank, place in dict(finding.evidence.get("places", {})).items()}
    found = [int(rank) for rank in finding.evidence.get("in_collective", ()) if places.get(int(rank)) == finding.name]
    # where the others stood is not always known: a peer that was ended first has shown nothing
    return found if finding.rank in found and (len(found) > 1 or len(places) == 1) else []


def _of_sizes(finding: Finding, clues: list[Clue], *, alone: bool = False) -> Opinion:
    """All ranks came to a collective, with tensors that do not fit; ``alone``: where one stood is all that is known."""
    at = f" at {finding.name}" if finding.name else ""
    met = f"rank {finding.rank} met another collective or size" if alone else "the ranks met in a collective"
    return Opinion(
        clues=clues,
        title=f"{'Collectives that do not fit' if alone else 'Collectives of different sizes'} met at step "
        f"{finding.first_step}{at}",
        explanation=(
            f"At step {finding.first_step} {met}{at}, and what one sent was not of the size that another expected. "
            + (UNEVEN if alone else "")
            + " ".join(f"{clue.text[:1].upper()}{clue.text[1:]}." for clue in clues)
        ),
        remedy=f"{EVEN}{FIT}" if alone else f"{FIT[0].upper()}{FIT[1:]}",
        where=finding.name,
    )


def _parted(finding: Finding) -> dict[int, str]:
    """Where the ranks stood, if one was in a collective that the code calls and the others went on elsewhere."""
    places = {int(rank): str(place) for rank, place in dict(finding.evidence.get("places", {})).items()}
    called = set(finding.evidence.get("in_collective", ()))
    elsewhere = {place for rank, place in places.items() if rank not in called}
    return places if len(called) == 1 and elsewhere and not elsewhere & {places.get(rank) for rank in called} else {}


def _of_abort(finding: Finding, places: dict[int, str], clue: Clue) -> Opinion:
    """The stacks of all ranks at an abort: what the gradients of the others met was no gradient."""
    (rank,) = finding.evidence["in_collective"]
    told = ", ".join(f"rank {each}: {place}" for each, place in sorted(places.items())[:8])
    where = places.get(rank, "")
    return Opinion(
        clues=[Clue(3.0, f"the ranks stood in different places ({told}), rank {rank} alone in a collective"), clue],
        title=f"Rank {rank} issued a collective of its own at step {finding.first_step}, in {where}",
        explanation=(
            f"At step {finding.first_step} rank {rank} called a collective at {where} while the others went on to one "
            f"of theirs ({told}). The two met, their sizes differed, and gloo aborted a rank."
        ),
        remedy=REMEDY,
        where=where,
        rank=rank,
    )


def _with_records(case: Case, opinion: Opinion | None) -> Opinion | None:
    """Add what the dumps of the flight recorder show."""
    for _, event in case.events_of("flight_records"):
        told = event.details
        if told.get("verdict") in STILL_SAME:
            if opinion is not None:
                opinion.explanation += f" The flight recorder's dumps: {told['sentence']}."
            continue
        clue = Clue(RECORDS_WEIGHT, str(told["sentence"]))
        ranks = [int(rank) for rank in told.get("ranks", ())]
        if opinion is None:
            opinion = Opinion(clues=[], title="", explanation="", remedy=REMEDY)
        return Opinion(
            clues=[clue, *opinion.clues],
            title=f"{told['title']}",
            explanation=f"{opinion.explanation} The flight recorder's dumps: {told['sentence']}.".strip(),
            remedy=REMEDY,
            where=opinion.where or next((place for place in dict(told["where"]).values() if place), ""),
            rank=ranks[0] if len(ranks) == 1 else opinion.rank,
        )
    return opinion


def _waiting(evidence: dict[str, Any]) -> set[int]:
    return {int(rank) for group in evidence.get("groups", ()) if group["waits"] for rank in group["ranks"]}


def _uneven(evidence: dict[str, Any]) -> Sequence[Clue]:
    """Ranks that stand at different steps have not had the same number of batches."""
    steps = {int(rank): int(step) for rank, step in dict(evidence.get("steps", {})).items()}
    if len(set(steps.values())) < 2:
        return []
    told = ", ".join(f"rank {rank}: {step}" for rank, step in sorted(steps.items())[:8])
    return [Clue(1.0, f"the ranks have done different numbers of steps, as with uneven batches ({told})")]


class _Clash(NamedTuple):
    """What two ranks did instead of the same, and who is alone with it; nobody where there is no majority."""

    text: str = ""
    alone: tuple[int, ...] = ()


def _clash(collectives: Mapping[Any, Sequence[Mapping[str, Any]]]) -> _Clash:
    """The first collective of a group and number that is not the same on all ranks that still know it."""
    issued: dict[tuple[Any, Any], dict[int, tuple[Any, ...]]] = {}
    for rank, entries in sorted(collectives.items(), key=lambda item: int(item[0])):
        for entry in entries:
            shape = (entry.get("operation"), entry.get("sizes"), entry.get("dtypes"))
            issued.setdefault((entry.get("group"), entry.get("sequence")), {})[int(rank)] = shape
    for (_, number), shapes in issued.items():
        first, *others = shapes
        other = next((rank for rank in others if shapes[rank] != shapes[first]), None)
        if other is not None:
            kinds = shapes[first][:2] == shapes[other][:2]  # only then the types of their elements are what differs
            one, two = _said(shapes[first], types=kinds), _said(shapes[other], types=kinds)
            return _Clash(f"collective {number} is {one} on rank {first} and {two} on rank {other}", _alone(shapes))
    return _Clash()


def _unanswered(evidence: dict[str, Any]) -> _Clash:
    """Ranks that stand in ``recv`` while all others wait for a group, or are in ``recv`` as well; so with ``send``."""
    stacks = {int(rank): list(frames) for rank, frames in dict(evidence.get("stacks", {})).items()}
    calls = {rank: message_call(frames) for rank, frames in stacks.items()}
    alone = sorted(rank for rank, call in calls.items() if call)
    everybody = {int(rank) for rank in dict(evidence.get("phases", {}))}
    if not alone or len({calls[rank] for rank in alone}) > 1 or everybody - _waiting(evidence) or len(everybody) < 2:
        return _Clash()
    call, answer = (calls[alone[0]], "sends") if calls[alone[0]] == "recv" else (calls[alone[0]], "receives")
    places = {place for rank in alone if (place := innermost_own(stacks[rank]))}
    where = f" at {', '.join(sorted(places))}" if places else ""
    verb = "waits" if len(alone) == 1 else "wait"
    text = f"{ranks_text(alone)} {verb} in {call}{where}, and no rank {answer}"
    return _Clash(text, tuple(alone) if len(alone) < len(everybody) else ())


def _alone(shapes: Mapping[int, tuple[Any, ...]]) -> tuple[int, ...]:
    """The ranks that are not with the majority."""
    (most, count), *_ = Counter(map(repr, shapes.values())).most_common()
    return tuple(rank for rank, shape in shapes.items() if repr(shape) != most) if 2 * count > len(shapes) else ()


def _said(shape: tuple[Any, ...], *, types: bool) -> str:
    operation, sizes, dtypes = shape
    return f"{operation} of {sizes} {dtypes}" if types else f"{operation} of {sizes}"


def _colon(evidence: dict[str, Any]) -> str:
    sentence = evidence.get("sentence")
    return f": {sentence}" if sentence else ""
