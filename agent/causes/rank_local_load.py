"""The ranks began, or went on, from different weights."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.ranks import first_difference, parameter_desync, ranks_text, settings_desync, sharing


class RankLocalLoad:
    """A checkpoint loaded on some ranks, or weights made by each rank after the wrapper had made them equal."""

    word: ClassVar[str] = "rank_local_load"
    explains: ClassVar[tuple[str, ...]] = ("desync",)
    prior: ClassVar[float] = -0.5

    def weigh(self, case: Case) -> Opinion | None:
        desync = [f for f in parameter_desync(case) if f.evidence.get("what") != "hyper-parameters"]
        if not desync:
            return None
        finding = desync[0]
        agreed = finding.evidence.get("agreed_until")
        clues = []
        if agreed is None:
            clues.append(
                Clue(2.5, f"the ranks did not agree at step {finding.first_step}, the first that was compared")
            )
        else:
            clues.append(Clue(-2.5, f"the ranks agreed up to step {agreed}"))
        found = sharing(case, 0 if agreed is None else int(agreed) + 1, finding.step)
        if found.steps:
            weight = -2.0 if found.unshared else 0.5
            clues.append(
                Clue(weight, f"{found.steps - found.unshared} of {found.steps} steps until then shared gradients")
            )
        settings = settings_desync(case)
        if settings is not None and settings.first_step <= finding.step + 1:
            clues.append(Clue(-3.0, "the optimizers are set differently, which is enough to part"))
        norm = first_difference(case, "gradient_norm")
        if norm is not None:
            clues.append(Clue(-1.0, f"the applied gradients differ as well, from step {norm.step} on ({norm.told()})"))
        elif case.history.ranks("gradient_norm"):
            clues.append(Clue(0.5, "the gradients applied are the same on all ranks: only the weights differ"))
        minority = finding.evidence.get("minority")
        who = f" ({ranks_text(minority)} against the others)" if minority else ""
        return Opinion(
            clues=clues,
            title="The ranks did not start from the same weights",
            explanation=(
                f"{finding.evidence.get('tensors_differing')} of {finding.evidence.get('tensors_compared')} parameter "
                f"tensors differ at step {finding.first_step}{who}, although the same gradients are applied."
            ),
            remedy=(
                "Load the checkpoint on every rank before wrapping the model (the wrapper then broadcasts rank 0's "
                "weights), or broadcast the state dict after loading it on one rank."
            ),
        )
