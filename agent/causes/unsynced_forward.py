"""The forward went past the wrapper that shares gradients, or the wrapper lost its hooks."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import accumulates, parameter_desync, sharing, told_not_to_share


class UnsyncedForward:
    """``model.module(...)`` is called instead of ``model(...)``, or DDP's hooks were lost by ``.cpu()`` and back."""

    word: ClassVar[str] = "unsynced_forward"
    explains: ClassVar[tuple[str, ...]] = ("unsynced_backward", "desync")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        missed = case.of_kind("unsynced_backward")
        desync = parameter_desync(case)
        start = missed[0].first_step if missed else 0
        shared = sharing(case, start)
        if not shared.unshared:
            return None
        share = shared.unshared / shared.steps
        clues = [
            Clue(
                3.0 * (2 * share - 1),
                f"{shared.unshared} of {shared.steps} optimizer steps from step {start} on had no collective between "
                "the first backward and the step",
            )
        ]
        clues += [_spread(case)] if desync else []
        passes, told = accumulates(case), told_not_to_share(case, start)
        if told is not None:
            clues.append(Clue(2.0 * (1 - 2 * told), f"in {told:.0%} of them the wrapper was under `no_sync`"))
        elif passes > 1:
            clues.append(Clue(-1.0, f"the job accumulates {passes:.0f} backward passes per step, as under no_sync"))
        else:
            clues.append(Clue(0.5, "one backward pass per step: nothing is accumulated, so no_sync has no reason"))
        return Opinion(
            clues=clues,
            title=f"Gradients are not shared between ranks from step {start} on",
            explanation=(
                f"From step {start} on the ranks run backward and step without a single collective in {share:.0%} of "
                f"the steps, so each of the {case.world_size} ranks trains a model of its own."
            ),
            remedy=(
                "Call the wrapped model, `model(x)`, not `model.module(x)`, wherever gradients are needed; wrap it in "
                "DistributedDataParallel after the last `.to()`, `.cpu()` or dtype change, since these drop its hooks."
            ),
            first_step=start if missed else None,
        )


def _spread(case: Case) -> Clue:
    evidence = parameter_desync(case)[0].evidence
    differing, compared = int(evidence.get("tensors_differing", 0)), int(evidence.get("tensors_compared", 0)) or 1
    weight = 1.0 if differing > 0.8 * compared else -1.0
    return Clue(weight, f"{differing} of {compared} parameter tensors differ between ranks")
