"""A container that only grows: a cache without a bound, a list that is never emptied."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.memory_words import holder_of, in_workers, leak_of, onset_of, per_step, place_of
from torchvitals.detectors.detector import Finding


class GrowingCache:
    """Speaks from the leak hunt's holder: objects without a graph, kept step after step."""

    word: ClassVar[str] = "growing_cache"
    explains: ClassVar[tuple[str, ...]] = ("memory_leak", "memory_pressure", "slowdown")
    prior: ClassVar[float] = 0.3

    def weigh(self, case: Case) -> Opinion | None:
        leak = leak_of(case)
        if leak is None or case.opening.kind == "slowdown":
            return _goes_through(case)
        if in_workers(case):
            return _in_workers(case, leak)
        holder = holder_of(case)
        if holder is not None and (holder.get("graph") or holder.get("native")):
            return None
        onset = onset_of(case)
        what = str(holder.get("holder") or "a container") if holder else "a container"
        return Opinion(
            clues=_clues(holder),
            title=f"{what} grows by {per_step(leak)} per step",
            explanation=(
                f"From step {leak.first_step if onset is None else onset} on memory rises by {per_step(leak)} per step "
                "and nothing is given back"
                f"{f': {what} gains entries and loses none' if holder else ''}."
            ),
            remedy=(
                f"Bound what is kept at {place_of(holder) or 'the container that grows'}: keep running sums instead of "
                "all values, empty it at the end of an epoch, or use a cache with a size limit (functools.lru_cache)."
            ),
            where=place_of(holder),
            first_step=onset,
        )


def _goes_through(case: Case) -> Opinion | None:
    """No memory to speak of is kept, but all of it is gone through at each step."""
    slow = next((each for each in case.of_kind("slowdown") if each.evidence.get("shape") == "gradual"), None)
    holder = holder_of(case)
    if slow is None or (holder is not None and holder.get("graph")):
        return None
    evidence = slow.evidence
    place = next((event.details for _, event in reversed(case.events_of("dwells"))), {})
    more = f"{1e3 * float(evidence['seconds_per_step']):.2g} ms"
    clues = [Clue(3.0, f"each step takes {more} longer than the one before, while its passes take what they took")]
    if place:
        clues.append(
            Clue(
                1.5,
                f"{place['share']:.0%} of {place['looks']} looks found the job in `{place['code']}` ({place['line']})",
            )
        )
    if holder is not None:
        clues += _clues(holder)
    where = str(place.get("line", "")) or place_of(holder)
    return Opinion(
        clues=clues,
        title=f"Each step takes {more} longer than the one before{f': {where}' if where else ''}",
        explanation=(
            f"A step took {1e3 * float(evidence['seconds_before']):.3g} ms in the beginning and takes "
            f"{1e3 * float(evidence['seconds_now']):.3g} ms by step {slow.step}, evenly more with each step. Forward "
            "or backward take as long as they did: something that grows is gone through whole each time."
        ),
        remedy=(
            f"Look at {where or 'what the loop does between the steps'}: keep a running sum or count instead of going "
            "through all that was kept, put what is searched into a set or a dictionary, or bound its length."
        ),
        where=where,
    )


def _in_workers(case: Case, leak: Finding) -> Opinion:
    holder = holder_of(case)
    what = str(holder.get("holder")) if holder else "something"
    clues = [Clue(1.5, f"the private memory of the loader's worker processes rises by {per_step(leak)} per step")]
    if holder:
        clues.append(Clue(2.5, f"{what} is added to at {place_of(holder)} for each item, and nothing is taken out"))
    return Opinion(
        clues=clues,
        title=f"{what} in the loader's workers grows by {per_step(leak)} per step",
        explanation=(
            f"From step {leak.first_step} on the worker processes of the loader keep {per_step(leak)} more per step. "
            f"Each has a copy of the data set of its own{f', and {what} in it only grows' if holder else ''}."
        ),
        remedy=(
            f"Bound what is kept at {place_of(holder) or 'the data set'}, e.g. with functools.lru_cache(maxsize=...), "
            "or prepare it once before the workers start. What a worker keeps is lost to all others and to the job."
        ),
        where=place_of(holder) or "data loader workers",
        first_step=leak.first_step,
    )


def _clues(holder: dict[str, Any] | None) -> list[Clue]:
    if holder is None:
        return [Clue(-0.5, "the leak hunt named no holder")]
    rate, size = float(holder.get("growth_per_step") or 0.0), float(holder.get("bytes_per_step") or 0.0)
    return [
        Clue(
            4.0,
            f"{holder.get('holder') or 'a container'} at {holder.get('line') or 'an unknown line'} gains {rate:.3g} "
            f"{holder.get('type') or 'objects'} ({size / 1e3:.3g} kB) per step, without a graph",
        )
    ]
