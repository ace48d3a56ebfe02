"""The last micro-batch of a step ran under ``no_sync`` as well."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import accumulates, sharing, told_not_to_share, unshared_at_last


class NoSyncLeftOn:
    """Accumulation under ``no_sync`` needs one synchronised backward per step; here there is none."""

    word: ClassVar[str] = "no_sync_left_on"
    explains: ClassVar[tuple[str, ...]] = ("unsynced_backward", "desync")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        missed = case.of_kind("unsynced_backward")
        start = missed[0].first_step if missed else 0
        shared = sharing(case, start)
        if not shared.unshared:
            return _of_the_last_pass(case, case.opening.first_step)
        passes = accumulates(case)
        share = shared.unshared / shared.steps
        missing = f"{shared.unshared} of {shared.steps} steps from step {start} on had no collective"
        clues = [Clue(2.0 * (2 * share - 1), missing)]
        told = told_not_to_share(case, start)
        if told is not None:  # the wrapper's own flag: better than any guess from the number of passes
            clues.append(Clue(4.0 * (2 * told - 1), f"in {told:.0%} of them every backward pass ran under `no_sync`"))
        elif passes > 1:
            clues.append(Clue(2.0, f"{passes:.0f} backward passes per step: gradients are accumulated"))
        else:
            clues.append(Clue(-1.0, "one backward pass per step: there is nothing to accumulate"))
        if missed and passes > 1:
            before = missed[0].evidence.get("synced_steps_before", 0)
            clues.append(Clue(0.5, f"{before} steps before it were synchronised in the same job"))
        return Opinion(
            clues=clues,
            title=f"Every backward of a step runs under no_sync from step {start} on",
            explanation=(
                f"From step {start} on, {missing}, with {passes:.0f} backward passes each. "
                "Without one synchronised backward per step every rank applies its own gradients."
            ),
            remedy=(
                "Leave `no_sync()` before the last micro-batch of each step (also of a short last one), so that its "
                "backward reduces what was accumulated."
            ),
            first_step=start if missed else None,
        )


def _of_the_last_pass(case: Case, start: int) -> Opinion | None:
    """Earlier passes of a step share what they added up, and the last adds what no other rank gets."""
    steps = unshared_at_last(case, start)
    if not steps:
        return None
    return Opinion(
        clues=[Clue(5.0, f"in {steps} steps the last backward pass ran under `no_sync`, and an earlier one did not")],
        title=f"The last backward of a step runs under no_sync from step {start} on",
        explanation=(
            f"From step {start} on gradients are reduced before the last micro-batch of a step and not after it, so "
            "that each rank applies the gradients of its own last micro-batch as well."
        ),
        remedy=(
            "Put `no_sync()` (or `require_backward_grad_sync = False`) around all micro-batches of a step but the last "
            "one; see whether the count of micro-batches is off by one."
        ),
    )
