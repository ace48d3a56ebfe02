"""Something keeps tensors that still hold their autograd graph, and with it the activations of every step."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.memory_words import holder_of, in_workers, leak_of, onset_of, per_step, place_of


class RetainedGraph:
    """Speaks from the leak hunt's holder: tensors with a graph, kept step after step."""

    word: ClassVar[str] = "retained_graph"
    explains: ClassVar[tuple[str, ...]] = ("memory_leak", "memory_pressure")
    prior: ClassVar[float] = 0.2

    def weigh(self, case: Case) -> Opinion | None:
        leak = leak_of(case)
        if leak is None or in_workers(case):
            return None
        holder = holder_of(case)
        if holder is not None and not holder.get("graph"):
            return None
        onset = onset_of(case)
        what = str(holder.get("holder") or "something") if holder else "something"
        return Opinion(
            clues=_clues(holder),
            title=f"Autograd graphs are kept by {what.partition(',')[0]}: {per_step(leak)} per step",
            explanation=(
                f"From step {leak.first_step if onset is None else onset} on memory rises by {per_step(leak)} per step"
                f"{f', held by {what}' if holder else ''}. A tensor that still has its graph keeps that "
                "alive, with every activation that no backward pass has freed, so each step's memory stays."
            ),
            remedy=(
                f"At {place_of(holder) or 'the place where losses or outputs are collected'}, keep a number or a "
                "detached copy: `loss.item()` or `output.detach()`; carry a hidden state on as `hidden.detach()`."
            ),
            where=place_of(holder),
            first_step=onset,
        )


def _clues(holder: dict[str, Any] | None) -> list[Clue]:
    if holder is None:
        return [Clue(-0.5, "the leak hunt named no holder")]
    rate = float(holder.get("growth_per_step") or 0.0)
    return [
        Clue(
            4.0,
            f"{holder.get('holder') or 'a reference'} at {holder.get('line') or 'an unknown line'} keeps "
            f"{rate:.3g} tensors of shape {holder.get('shape')} with their graph per step",
        )
    ]
