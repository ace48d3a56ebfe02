"""An update far longer than the optimizer can make from what it is given: its moments are not what they were."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.loss_leap import Thrown, thrown
from torchvitals.agent.step_evidence import at_onset, in_force, in_the_batch, leap, optimizer_name, scalars


class CorruptedOptimizerState:
    """Speaks from weights that an adaptive optimizer threw away at an unchanged rate, just before the loss leapt."""

    word: ClassVar[str] = "corrupted_optimizer_state"
    explains: ClassVar[tuple[str, ...]] = ("explosion", "divergence", "loss_spike", "nonfinite")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        found, onset = thrown(case), case.opening.first_step
        # a rate that rose explains it, and so does a weight that somebody else wrote to
        if found is None or leap(case, "learning_rate") or scalars(case, "weights_overwritten").at(onset):
            return None
        name, rate = optimizer_name(case), in_force(case, "learning_rate")
        at = f" of {rate:.3g}" if rate else ""
        clues = [Clue(4.0, _told(found, name)), Clue(0.5, f"the learning rate{at} had not changed")]
        if in_the_batch(case) or at_onset(case, "input_nonfinite"):
            clues.append(Clue(-4.0, "the batch itself was not finite"))
        return Opinion(
            clues=clues,
            title=f"The update before step {onset} was far larger than {name} makes",
            explanation=(
                f"Before the loss of step {onset} was computed, {_told(found, name)}. The learning rate{at} had not "
                f"changed and {name} divides by the size of its gradients, so that none makes such a step: what "
                "it divides by (its second moments) was reset, loaded from elsewhere or written to, or something else "
                "moved the weights."
            ),
            remedy=(
                f"Look for code just before step {onset} that touches the optimizer's state (`optimizer.state`, "
                "`exp_avg_sq`, `load_state_dict`): moments are reset together with their step counts, or not at all "
                "(make a new optimizer instead). Resume from a checkpoint before that step."
            ),
            where="optimizer",
            first_step=max(0, onset - 1),
        )


def _told(found: Thrown, name: str) -> str:
    return (
        f"`{found.name}` went from a norm of {found.before:.3g} to {found.after:.3g}, where {name} had moved it by at "
        f"most {found.usual:.2g} a step"
    )
